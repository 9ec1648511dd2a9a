// SPDX-License-Identifier: MIT
// The short-term memory: the newest keys and values of one head, exact, in a ring buffer.
//
// SlidingWindowView is the ring as the operator sees it, wherever its numbers lie: the heads of a
// state are made of it. SlidingWindow owns one. The fused softmax (attention/fused_softmax.hpp)
// reads the window.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// The last `capacity` tokens of one key/value head, each found by its position in the sequence.
/// Owns nothing. The owner of the sequence knows how many tokens there are.
///
/// Row position % capacity holds a token: keys [capacity, padded(Dk)], values [capacity,
/// padded(Dv)], padding zero. T is the storage type, half types included, and const where the
/// window is only read.
template <class T>
struct SlidingWindowView {
  T* key = nullptr;
  T* value = nullptr;
  Index capacity = 0;
  Index key_dim = 0;
  Index value_dim = 0;

  NHA_INLINE Index key_stride() const noexcept { return padded(key_dim); }
  NHA_INLINE Index value_stride() const noexcept { return padded(value_dim); }

  /// The same window, only to be read.
  NHA_INLINE operator SlidingWindowView<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {key, value, capacity, key_dim, value_dim};
  }

  /// Lays the ring out in the next sections of an arena.
  static SlidingWindowView take(Arena& arena, Index capacity, Index key_dim, Index value_dim) {
    SlidingWindowView view;
    view.capacity = capacity;
    view.key_dim = key_dim;
    view.value_dim = value_dim;
    view.key = arena.take<T>(capacity * padded(key_dim));
    view.value = arena.take<T>(capacity * padded(value_dim));
    return view;
  }

  /// Key of the token at `position`, one of the last `capacity` tokens pushed. [Dk]
  NHA_INLINE T* key_row(std::int64_t position) const noexcept {
    return key + row(position) * key_stride();
  }
  /// Value of the token at `position`. [Dv]
  NHA_INLINE T* value_row(std::int64_t position) const noexcept {
    return value + row(position) * value_stride();
  }

  /// The `count` tokens from `oldest` on, at most `capacity`, as runs of neighbouring rows. Calls
  /// f(first, key row, value row, tokens) once, or twice where the ring wraps; `first` is the run's
  /// first token, counted from `oldest`.
  template <class F>
  NHA_INLINE void for_runs(std::int64_t oldest, Index count, F&& f) const noexcept {
    if (count == 0) return;
    const Index first = row(oldest);
    const Index before_wrap = std::min(count, capacity - first);
    f(Index{0}, key + first * key_stride(), value + first * value_stride(), before_wrap);
    if (before_wrap < count) f(before_wrap, key, value, count - before_wrap);
  }

  /// Stores a token, in place of the one `capacity` tokens before it. A null key or value leaves
  /// that part of the row as it is.
  NHA_INLINE void push(std::int64_t position, const T* token_key,
                       const T* token_value) const noexcept {
    if (capacity == 0) return;
    if (token_key != nullptr) std::copy_n(token_key, key_dim, key_row(position));
    if (token_value != nullptr) std::copy_n(token_value, value_dim, value_row(position));
  }

 private:
  NHA_INLINE Index row(std::int64_t position) const noexcept {
    return static_cast<Index>(position % capacity);
  }
};

/// Owns the window of one head: the newest `window` tokens. A window that was moved from may only
/// be assigned to or destroyed.
template <Scalar T>
class SlidingWindow {
 public:
  using View = SlidingWindowView<T>;
  using ConstView = SlidingWindowView<const T>;

  /// @throws ArgumentError if a size is negative or above kLargestSize, or all of it does not fit
  ///   in memory.
  SlidingWindow(Index window, Index key_dim, Index value_dim,
                std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(bytes_of(window, key_dim, value_dim), memory),
        window_(window),
        key_dim_(key_dim),
        value_dim_(value_dim) {}

  /// The window as the operator takes it.
  View view() noexcept {
    Arena arena(buffer_.data());
    return View::take(arena, window_, key_dim_, value_dim_);
  }
  ConstView view() const noexcept {
    // The const view hands nothing out that could be written through.
    return const_cast<SlidingWindow*>(this)->view();
  }

  /// Stores the next token; key [Dk], value [Dv]. The oldest one drops out of a full window.
  /// @throws ArgumentError if a size does not fit or there is no data; nothing has then been
  ///   stored.
  void push(TensorView<const T, Dynamic> key, TensorView<const T, Dynamic> value) {
    check_row("key", key, key_dim_);
    check_row("value", value, value_dim_);
    view().push(tokens_seen_, key.data(), value.data());
    ++tokens_seen_;
  }

  /// Tokens in the window: the smaller of window() and tokens_seen().
  Index size() const noexcept {
    return static_cast<Index>(std::min<std::int64_t>(window_, tokens_seen_));
  }
  Index window() const noexcept { return window_; }
  std::int64_t tokens_seen() const noexcept { return tokens_seen_; }
  /// Position of the oldest token in the window; tokens_seen() where it holds none.
  std::int64_t oldest() const noexcept { return tokens_seen_ - size(); }
  /// Key [Dk] and value [Dv] of the i-th token in the window, 0 <= i < size(), oldest first.
  TensorView<const T, Dynamic> key(Index i) const noexcept {
    return {view().key_row(oldest() + i), {key_dim_}};
  }
  TensorView<const T, Dynamic> value(Index i) const noexcept {
    return {view().value_row(oldest() + i), {value_dim_}};
  }
  void clear() noexcept { tokens_seen_ = 0; }
  std::size_t bytes() const noexcept { return buffer_.size(); }

 private:
  static std::size_t bytes_of(Index window, Index key_dim, Index value_dim) {
    check_size("window", window, 0);
    check_size("key_dim", key_dim, 0);
    check_size("value_dim", value_dim, 0);
    check_bytes("a window", static_cast<double>(window) *
                                static_cast<double>(padded(key_dim) + padded(value_dim)) *
                                sizeof(T));
    Arena size(nullptr);
    View::take(size, window, key_dim, value_dim);
    return size.used();
  }
  static void check_row(const char* name, TensorView<const T, Dynamic> row, Index size) {
    check_argument(row.extent(0) == size && row.has_contiguous_rows(), name, " has ", row.extent(0),
                   " elements; expected ", size, ", contiguous");
    check_argument(row.data() != nullptr || row.empty(), name, " has no data");
  }

  Buffer buffer_;  // first: where an assignment cannot allocate, the sizes stay as they were
  Index window_;
  Index key_dim_;
  Index value_dim_;
  std::int64_t tokens_seen_ = 0;
};

NHA_ISA_NAMESPACE_END
