// SPDX-License-Identifier: MIT
// The embedding of tokens: rows of a table, and the gradient of that table.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// @throws ArgumentError naming the first token that is not one of `vocabulary`.
inline void check_vocabulary(const TensorView<const std::int32_t, Dynamic, Dynamic>& tokens,
                             Index vocabulary) {
  check_argument(tokens.empty() || tokens.data() != nullptr, "tokens have no data");
  for (Index b = 0; b < tokens.extent(0); ++b)
    for (Index t = 0; t < tokens.extent(1); ++t)
      check_argument(tokens(b, t) >= 0 && tokens(b, t) < vocabulary, "token ", t, " of row ", b,
                     " is ", tokens(b, t), "; expected 0 to ", vocabulary - 1);
}

}  // namespace detail

/// x[b * T + t] = table[tokens(b, t)] for tokens [B, T], table [vocabulary, channels] and x
/// [B * T, channels]. Rows must be contiguous and tokens in the vocabulary: nothing is checked.
template <std::floating_point T>
void embed(const TensorView<const std::int32_t, Dynamic, Dynamic>& tokens,
           std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> table,
           const TensorView<T, Dynamic, Dynamic>& x) noexcept {
  for (Index b = 0; b < tokens.extent(0); ++b)
    for (Index t = 0; t < tokens.extent(1); ++t)
      std::copy_n(&table(tokens(b, t), 0), x.extent(1), &x(b * tokens.extent(1) + t, 0));
}

/// The gradient of embed(): adds each row of dx [B * T, channels] to the row of its token in dtable
/// [vocabulary, channels], in the order of the rows. Nothing is checked.
template <std::floating_point T>
void embed_backward(const TensorView<const std::int32_t, Dynamic, Dynamic>& tokens,
                    std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dx,
                    const TensorView<T, Dynamic, Dynamic>& dtable) noexcept {
  for (Index b = 0; b < tokens.extent(0); ++b)
    for (Index t = 0; t < tokens.extent(1); ++t) {
      const T* from = &dx(b * tokens.extent(1) + t, 0);
      T* to = &dtable(tokens(b, t), 0);
      for (Index c = 0; c < dx.extent(1); ++c) to[c] += from[c];
    }
}

NHA_ISA_NAMESPACE_END
