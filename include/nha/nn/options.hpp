// SPDX-License-Identifier: MIT
// Choices and limits of the parts of a layer, for headers that name them without computing.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

NHA_NAMESPACE_BEGIN

/// What is done to queries and keys before they meet the slots. The window sees them without it.
enum class FeatureMap {
  identity,
  swish,  ///< silu of each channel
  relu,
  t2r,  ///< relu(W x) with a learnt W [Dk, Dk], the same for queries and keys of all heads
};

/// Largest kernel size of a short convolution.
inline constexpr Index kMostKernelSize = 64;

NHA_NAMESPACE_END
