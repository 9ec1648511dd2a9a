// SPDX-License-Identifier: MIT
// TextBatches: random pieces of a text as tokens and targets, one byte a token.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/tensor.hpp>
#include <nha/train/random.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

NHA_ISA_NAMESPACE_BEGIN

/// Tokens [B, T], each 0 to 255, and for each the one that follows it in the text.
struct TextBatch {
  Tensor<std::int32_t, 2> tokens;
  Tensor<std::int32_t, 2> targets;
};

/// The batches of a training run on a text. It refers to the text, which must stay.
class TextBatches {
 public:
  /// @param text the bytes to learn, std::as_bytes(std::span(string)) or those of a mapped file.
  /// @param batch B, pieces in a batch.
  /// @param length T, tokens in a piece.
  /// @throws ArgumentError if batch or length is less than 1, or the text has not length + 1 bytes.
  TextBatches(std::span<const std::byte> text, Index batch, Index length, std::uint64_t seed)
      : text_(text), batch_(batch), length_(length), seed_(seed) {
    check_size("batch", batch, 1);
    check_size("length", length, 1);
    check_argument(static_cast<std::size_t>(length) < text.size(), "text has ", text.size(),
                   " bytes; expected more than the length of a piece, ", length);
  }

  Index batch() const noexcept { return batch_; }
  Index length() const noexcept { return length_; }

  /// The batch of a step, counted from 0. Each piece begins anywhere in the text with the same
  /// probability, so pieces may overlap. It depends on the text, the seed, the sizes and the step
  /// alone, and is the same on every machine.
  /// @throws ArgumentError if the step is negative.
  TextBatch at(Index step) const {
    check_argument(step >= 0, "step is ", step, "; expected 0 or more");
    Random random(seed_, kRandomText, static_cast<std::uint64_t>(step));
    TextBatch drawn{Tensor<std::int32_t, 2>({batch_, length_}),
                    Tensor<std::int32_t, 2>({batch_, length_})};
    for (Index b = 0; b < batch_; ++b) {
      // The last piece that fits begins length + 1 bytes before the end: its last target is there.
      const Index first = random.below(static_cast<Index>(text_.size()) - length_);
      for (Index t = 0; t < length_; ++t) {
        drawn.tokens(b, t) = token(first + t);
        drawn.targets(b, t) = token(first + t + 1);
      }
    }
    return drawn;
  }

 private:
  std::int32_t token(Index place) const noexcept {
    return static_cast<std::int32_t>(text_[static_cast<std::size_t>(place)]);
  }

  std::span<const std::byte> text_;
  Index batch_;
  Index length_;
  std::uint64_t seed_;
};

NHA_ISA_NAMESPACE_END
