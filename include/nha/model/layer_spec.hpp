// SPDX-License-Identifier: MIT
// LayerSpec: everything a layer of a model is but its weights.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/model/layer_options.hpp>

#include <cstddef>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// A layer's sizes and options. The layers of a model may differ in all of them but shape.hidden.
struct LayerSpec {
  LayerShape shape = {};
  LayerOptions options = {};

  NHA_INLINE friend bool operator==(const LayerSpec&, const LayerSpec&) = default;
};

/// @throws ArgumentError naming the first size or option that is out of range.
inline void validate(const LayerSpec& spec) {
  validate(spec.shape);
  validate(spec.options, spec.shape);
}

/// The same layer `count` times, for ModelOptions::layers.
/// @throws ArgumentError if count is not 0 to kLargestSize.
inline std::vector<LayerSpec> repeat(Index count, const LayerSpec& spec) {
  check_size("count of repeat", count, 0);
  return std::vector<LayerSpec>(static_cast<std::size_t>(count), spec);
}

NHA_ISA_NAMESPACE_END
