// SPDX-License-Identifier: MIT
// The feature maps of the slots' queries and keys: swish and relu in place, t2r with a weight.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/layer/activation.hpp>
#include <nha/layer/check_rows.hpp>
#include <nha/layer/layer_options.hpp>
#include <nha/layer/linear.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

template <std::floating_point T>
void relu(T* values, Index count) noexcept {
  for (Index i = 0; i < count; ++i) values[i] = std::max(values[i], T{0});
}

/// Applies a feature map to heads [rows, Dk] in place; the rows must follow each other without
/// gaps. t2r takes its weight [Dk, Dk] and scratch memory for as many numbers as `heads` has; the
/// other maps look at neither.
/// @throws ArgumentError if heads have gaps, or the weight or scratch memory of t2r does not fit.
template <std::floating_point T, Executor E = const Serial>
void apply_feature_map(FeatureMap map, TensorView<T, Dynamic, Dynamic> heads,
                       std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                       T* scratch, E&& executor = Serial{}) {
  const Index count = heads.size();
  const Index dim = heads.extent(1);
  detail::check_rows("heads of apply_feature_map", heads);
  check_argument(heads.extent(0) <= 1 || heads.stride(0) == dim || count == 0,
                 "heads of apply_feature_map has stride ", heads.stride(0),
                 " between its rows; expected ", dim, ": no gaps");
  switch (map) {
    case FeatureMap::identity:
      return;
    case FeatureMap::swish:
      silu(heads.data(), count);
      return;
    case FeatureMap::relu:
      relu(heads.data(), count);
      return;
    case FeatureMap::t2r:
      check_argument(weight.extent(0) == dim && weight.extent(1) == dim,
                     "weight of apply_feature_map is [", weight.extent(0), ", ", weight.extent(1),
                     "]; expected [", dim, ", ", dim, "]");
      check_argument(scratch != nullptr || count == 0, "scratch of apply_feature_map is null; t2r ",
                     "needs room for ", count, " numbers");
      linear<T>(heads, weight, TensorView<T, Dynamic, Dynamic>(scratch, heads.extents()), executor);
      std::copy(scratch, scratch + count, heads.data());
      relu(heads.data(), count);
      return;
  }
}

NHA_ISA_NAMESPACE_END
