// SPDX-License-Identifier: MIT
// PrefillOptions: how prefill() computes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <cstdint>

NHA_NAMESPACE_BEGIN

/// How to compute; the result is the same within rounding.
enum class PrefillAlgorithm : std::uint8_t {
  /// The fastest for the number of tokens.
  automatic,
  /// Token by token, as step().
  recurrent,
  /// Chunks of tokens, by matrix products.
  chunked,
};

/// How prefill() computes.
struct PrefillOptions {
  PrefillAlgorithm algorithm = PrefillAlgorithm::automatic;
  /// Tokens to a chunk of the chunked algorithm; 0 picks the number.
  Index chunk = 0;
};

NHA_NAMESPACE_END
