// SPDX-License-Identifier: MIT
// The feature maps of the slots' queries and keys: swish and relu in place, t2r with a weight; and
// back through them.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/linear.hpp>
#include <nha/nn/linear_backward.hpp>
#include <nha/nn/options.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

template <std::floating_point T>
void relu(T* values, Index count) noexcept {
  for (Index i = 0; i < count; ++i) values[i] = std::max(values[i], T{0});
}

/// Back through relu(), x being what it was given: dx[i] = dy[i] where x[i] > 0, else 0. dx may be
/// dy or x.
template <std::floating_point T>
void relu_backward(const T* x, const T* dy, T* dx, Index count) noexcept {
  for (Index i = 0; i < count; ++i) dx[i] = x[i] > T{0} ? dy[i] : T{0};
}

namespace detail {

/// That heads follow each other without gaps.
/// @throws ArgumentError naming the view.
template <class T>
void check_heads(const char* name, const TensorView<T, Dynamic, Dynamic>& heads) {
  check_rows(name, heads);
  check_argument(heads.extent(0) <= 1 || heads.stride(0) == heads.extent(1) || heads.empty(), name,
                 " has stride ", heads.stride(0), " between its rows; expected ", heads.extent(1),
                 ": no gaps");
}

}  // namespace detail

/// Applies a feature map to heads [rows, Dk] in place; the rows must follow each other without
/// gaps. t2r takes its weight [Dk, Dk] and scratch memory for as many numbers as `heads` has; the
/// other maps look at neither.
/// @throws ArgumentError if heads have gaps, or the weight or scratch memory of t2r does not fit.
template <std::floating_point T>
void apply_feature_map(FeatureMap map, TensorView<T, Dynamic, Dynamic> heads,
                       std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                       T* scratch, ExecutorRef executor = kSerial) {
  const Index count = heads.size();
  const Index dim = heads.extent(1);
  detail::check_heads("heads of apply_feature_map", heads);
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

/// Back through apply_feature_map(): from d_mapped, the gradient of the mapped heads, to d_heads,
/// that of the heads before the map. All are [rows, Dk] without gaps; an empty d_heads is not
/// wanted. `heads` are those before the map. d_heads may be d_mapped and must not overlap heads.
///
/// t2r takes its weight [Dk, Dk], adds to dweight [Dk, Dk] unless that is empty, and needs scratch
/// memory for as many numbers as `heads` has. The other maps look at none of these; identity does
/// not look at heads either.
/// @throws ArgumentError if the shapes do not fit, heads have gaps, or the weights or scratch
///   memory of t2r do not fit; nothing has then been touched.
template <std::floating_point T>
void feature_map_backward(FeatureMap map,
                          std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> heads,
                          std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                          std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> d_mapped,
                          TensorView<T, Dynamic, Dynamic> d_heads,
                          std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dweight, T* scratch,
                          ExecutorRef executor = kSerial) {
  const typename TensorView<T, Dynamic, Dynamic>::Sizes sizes =
      d_heads.empty() ? d_mapped.extents() : d_heads.extents();
  const auto [rows, dim] = sizes;
  const Index count = rows * dim;
  detail::check_heads("d_heads of feature_map_backward", d_heads);
  detail::check_heads("d_mapped of feature_map_backward", d_mapped);
  detail::check_matrix("d_mapped of feature_map_backward", d_mapped, rows, dim);
  if (map != FeatureMap::identity) {
    detail::check_heads("heads of feature_map_backward", heads);
    detail::check_matrix("heads of feature_map_backward", heads, rows, dim);
  }
  if (d_heads.empty() && (map != FeatureMap::t2r || dweight.empty())) return;
  switch (map) {
    case FeatureMap::identity:
      if (d_mapped.data() != d_heads.data())
        std::copy(d_mapped.data(), d_mapped.data() + count, d_heads.data());
      return;
    case FeatureMap::swish:
      silu_backward(heads.data(), d_mapped.data(), d_heads.data(), count);
      return;
    case FeatureMap::relu:
      relu_backward(heads.data(), d_mapped.data(), d_heads.data(), count);
      return;
    case FeatureMap::t2r: {
      detail::check_matrix("weight of feature_map_backward", weight, dim, dim);
      if (!dweight.empty())
        detail::check_matrix("dweight of feature_map_backward", dweight, dim, dim);
      check_argument(scratch != nullptr || count == 0, "scratch of feature_map_backward is null; ",
                     "t2r needs room for ", count, " numbers");
      const TensorView<T, Dynamic, Dynamic> raw(scratch, sizes);
      linear(heads, weight, raw, executor);
      relu_backward(scratch, d_mapped.data(), scratch, count);
      linear_backward(heads, weight, raw, d_heads, dweight, executor);
      return;
    }
  }
}

NHA_ISA_NAMESPACE_END
