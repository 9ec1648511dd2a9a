// SPDX-License-Identifier: MIT
// RowPrefetcher: prefetches the rows of the next chunk while the products of this one run.
//
// A chunk reads a few tokens of each tensor and goes on to the next: too little in one place for
// the processor to see a stream. Rows are prefetched one at a time, between the tiles of a product.
// All at once they would fill what a core can await, and hold up the product.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <cstddef>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// Rows of a few tensors that will soon be read or written; each call prefetches the next of them.
class RowPrefetcher {
 public:
  RowPrefetcher() = default;
  /// @param rows_a_call how many rows each call prefetches
  explicit RowPrefetcher(int rows_a_call) noexcept : rows_a_call_(rows_a_call) {}

  /// Adds one tensor's rows, of the kMost tensors there may be: those of `tokens` tokens from
  /// `first` on, and of each token those of `heads` heads. A row has `numbers` numbers; strides are
  /// in numbers. A null tensor, or one without tokens, adds nothing.
  template <class T>
  void add(const T* first, Index tokens, Index token_stride, Index heads, Index head_stride,
           Index numbers) noexcept {
    if (first == nullptr || tokens <= 0 || heads <= 0 || numbers <= 0) return;
    constexpr auto kBytes = static_cast<Index>(sizeof(T));
    rows_[count_++] = {.first = reinterpret_cast<const std::byte*>(first),
                       .token_stride = token_stride * kBytes,
                       .head_stride = head_stride * kBytes,
                       .bytes = numbers * kBytes,
                       .tokens = tokens,
                       .heads = heads};
    if (tokens_left_ == 0) open();
  }

  /// Prefetches the next rows, if any are left.
  NHA_INLINE void operator()() noexcept {
    for (int i = 0; i < rows_a_call_; ++i)
      take_row([](const std::byte* row, Index bytes) NHA_INLINE_LAMBDA {
        for (Index at = 0; at < bytes; at += kLineBytes) __builtin_prefetch(row + at);
        // A row that begins inside a line ends in one more.
        __builtin_prefetch(row + bytes - 1);
      });
  }
  /// Calls f(row, bytes) with the next row, if one is left; returns whether.
  template <class F>
  NHA_INLINE bool take_row(F&& f) noexcept {
    if (tokens_left_ == 0) return false;
    const Rows& rows = rows_[at_];
    f(row_, rows.bytes);
    row_ += rows.head_stride;
    if (--heads_left_ > 0) return true;
    heads_left_ = rows.heads;
    token_ += rows.token_stride;
    row_ = token_;
    if (--tokens_left_ > 0) return true;
    ++at_;
    open();
    return true;
  }

 private:
  static constexpr int kMost = 9;
  static constexpr Index kLineBytes = 64;  // of the caches

  /// Rows of one tensor.
  struct Rows {
    const std::byte* first;
    Index token_stride;  // bytes, as are the next two
    Index head_stride;
    Index bytes;
    Index tokens;
    Index heads;
  };

  /// Goes to the first row of rows_[at_].
  void open() noexcept {
    if (at_ == count_) return;
    token_ = row_ = rows_[at_].first;
    tokens_left_ = rows_[at_].tokens;
    heads_left_ = rows_[at_].heads;
  }

  Rows rows_[kMost];
  int count_ = 0;
  int rows_a_call_ = 1;
  // What comes next: a row of rows_[at_].
  int at_ = 0;
  const std::byte* token_ = nullptr;
  const std::byte* row_ = nullptr;
  Index tokens_left_ = 0;
  Index heads_left_ = 0;
};

}  // namespace cpu

NHA_ISA_NAMESPACE_END
