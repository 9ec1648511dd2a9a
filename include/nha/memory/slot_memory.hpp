// SPDX-License-Identifier: MIT
// The long-term memory: M key/value slots of one head, updated by a linear RNN with a gate for each
// slot.
//
// SlotMemoryView is the memory as the operator sees it, wherever its numbers lie: the heads of a
// state are made of it. SlotMemory owns one. The fused softmax (attention/fused_softmax.hpp) reads
// the slots.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dither.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// The M slots of one key/value head: keys [M, Dk], values [M, Dv] and mass [M]; owns nothing.
///
/// Keys are stored transposed, [Dk, padded(M)]: a query meets all slots at once, and a token's
/// gates, one for each slot, are a vector. Value rows have padded(Dv) numbers. Padding is zero and
/// stays zero: a padded slot is written with strength 0.
///
/// T is the type of the stored keys and values, const where the memory is only read. Sums are taken
/// in Acc. Masses are kept in Acc: they are few, and their logarithm and inverse are taken.
template <class T>
struct SlotMemoryView {
  using Stored = std::remove_const_t<T>;
  using Acc = accumulate_t<Stored>;
  using Mass = std::conditional_t<std::is_const_v<T>, const Acc, Acc>;

  T* key = nullptr;      // [key_dim, key_stride()]
  T* value = nullptr;    // [count, value_stride()]
  Mass* mass = nullptr;  // [key_stride()]
  Index count = 0;       // M
  Index key_dim = 0;
  Index value_dim = 0;

  NHA_INLINE Index key_stride() const noexcept { return padded(count); }
  NHA_INLINE Index value_stride() const noexcept { return padded(value_dim); }

  /// The same memory, only to be read.
  NHA_INLINE operator SlotMemoryView<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {key, value, mass, count, key_dim, value_dim};
  }

  /// Lays the memory out in the next sections of an arena.
  static SlotMemoryView take(Arena& arena, Index key_dim, Index value_dim, Index count) {
    SlotMemoryView view;
    view.count = count;
    view.key_dim = key_dim;
    view.value_dim = value_dim;
    view.key = arena.take<T>(key_dim * padded(count));
    view.value = arena.take<T>(count * padded(value_dim));
    view.mass = arena.take<Acc>(padded(count));
    return view;
  }

  NHA_INLINE T& key_at(Index slot, Index d) const noexcept { return key[d * key_stride() + slot]; }
  NHA_INLINE T& value_at(Index slot, Index d) const noexcept {
    return value[slot * value_stride() + d];
  }
  TensorView<const Stored, Dynamic, Dynamic> keys() const noexcept {
    return {key, {count, key_dim}, {1, key_stride()}};
  }
  TensorView<const Stored, Dynamic, Dynamic> values() const noexcept {
    return {value, {count, value_dim}, {value_stride(), 1}};
  }
  TensorView<const Acc, Dynamic> masses() const noexcept { return {mass, {count}}; }

  /// The dither that rounds a number after the token at `position`. Neighbours in memory are
  /// kDitherColumn apart, rows kDitherRow.
  NHA_INLINE std::uint32_t key_dither(std::int64_t position, Index slot, Index d) const noexcept {
    return dither(position, d, slot);
  }
  NHA_INLINE std::uint32_t value_dither(std::int64_t position, Index slot, Index d) const noexcept {
    return dither(position, key_dim + slot, d);
  }

  void clear() const noexcept {
    std::fill_n(key, key_dim * key_stride(), Stored{});
    std::fill_n(value, count * value_stride(), Stored{});
    std::fill_n(mass, key_stride(), Acc{});
  }
  /// Copies all numbers from a memory of the same sizes.
  void copy_from(const SlotMemoryView<const Stored>& other) const noexcept {
    std::copy_n(other.key, key_dim * key_stride(), key);
    std::copy_n(other.value, count * value_stride(), value);
    std::copy_n(other.mass, key_stride(), mass);
  }

  /// One token enters the slots:
  ///   key   <- retention . key   + write (x) token_key
  ///   value <- retention . value + write (x) token_value
  ///   mass  <- retention . mass  + write
  /// with retention = exp(log_gate) and write [M], token_key [Dk], token_value [Dv]. Rounds exactly
  /// as the SIMD kernels do, so a replayed update gives the same bits. Slots of a half type are
  /// rounded by a dither (core/dither.hpp), which the token's position in its sequence decides.
  template <class TokenType>
  void enter(const Acc* retention, const Acc* write, const TokenType* token_key,
             const TokenType* token_value, std::int64_t position) const noexcept {
    for (Index d = 0; d < key_dim; ++d) {
      const Acc k = widen(token_key[d]);
      T* row = key + d * key_stride();
      for (Index m = 0; m < count; ++m)
        row[m] = stored_sum<T>(multiply_add(retention[m], widen(row[m]), write[m] * k),
                               key_dither(position, m, d));
    }
    for (Index m = 0; m < count; ++m) {
      T* row = value + m * value_stride();
      for (Index d = 0; d < value_dim; ++d)
        row[d] = stored_sum<T>(
            multiply_add(retention[m], widen(row[d]), write[m] * widen(token_value[d])),
            value_dither(position, m, d));
      mass[m] = multiply_add(retention[m], mass[m], write[m]);
    }
  }
};

/// Owns the slots of one head. Slots are sums, so T is float or double: accumulate_t of the type of
/// the tokens. A memory that was moved from may only be assigned to or destroyed.
template <Scalar T>
class SlotMemory {
  static_assert(std::is_same_v<T, accumulate_t<T>>,
                "slots are kept in float or double; bfloat16 and float16 tokens enter as float");

 public:
  using View = SlotMemoryView<T>;
  using ConstView = SlotMemoryView<const T>;

  /// M = `slots` empty slots for keys of key_dim and values of value_dim numbers.
  /// @throws ArgumentError if a size is negative or above kLargestSize, or all of it does not fit
  ///   in memory.
  SlotMemory(Index key_dim, Index value_dim, Index slots,
             std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(bytes_of({key_dim, value_dim, slots}), memory), sizes_{key_dim, value_dim, slots} {}

  /// The memory as the operator takes it.
  View view() noexcept { return sections().slots; }
  ConstView view() const noexcept {
    // The const view hands nothing out that could be written through.
    return const_cast<SlotMemory*>(this)->sections().slots;
  }

  /// One token enters: log_gate [M], the natural logarithm of the retention, never above 0; write
  /// [M], or empty for 1 - exp(log_gate); key [Dk]; value [Dv]. Does not allocate.
  /// @throws ArgumentError if a size does not fit or a tensor but `write` has no data. Also if a
  ///   gate is NaN or above 0, or a write strength is not finite. Nothing has then been written.
  void enter(TensorView<const T, Dynamic> log_gate, TensorView<const T, Dynamic> write,
             TensorView<const T, Dynamic> key, TensorView<const T, Dynamic> value) {
    check_row("key", key, sizes_.key_dim);
    check_row("value", value, sizes_.value_dim);
    check_row("log_gate", log_gate, sizes_.slots);
    if (!write.empty()) check_row("write", write, sizes_.slots);
    check_argument(key.has_contiguous_rows() && value.has_contiguous_rows(),
                   "key and value must be contiguous");
    for (Index m = 0; m < sizes_.slots; ++m) {
      check_argument(log_gate(m) <= 0, "log_gate of slot ", m, " is ", log_gate(m),
                     "; expected 0 or less");
      check_argument(write.empty() || std::isfinite(write(m)), "write of slot ", m,
                     " is not a finite number");
    }
    const Sections s = sections();
    for (Index m = 0; m < sizes_.slots; ++m) {
      s.retention[m] = retention(log_gate(m));
      s.write[m] = write.empty() ? default_write(log_gate(m)) : write(m);
    }
    s.slots.enter(s.retention, s.write, key.data(), value.data(), 0);
  }

  /// Keys [M, Dk], values [M, Dv] and mass [M] of the slots.
  TensorView<const T, Dynamic, Dynamic> keys() const noexcept { return view().keys(); }
  TensorView<const T, Dynamic, Dynamic> values() const noexcept { return view().values(); }
  TensorView<const T, Dynamic> mass() const noexcept { return view().masses(); }
  void clear() noexcept { view().clear(); }
  std::size_t bytes() const noexcept { return buffer_.size(); }

 private:
  struct Sizes {
    Index key_dim, value_dim, slots;
  };
  struct Sections {
    View slots;
    T* retention;  // scratch of enter()
    T* write;
  };
  static Sections take(Arena& arena, const Sizes& sizes) {
    const View view = View::take(arena, sizes.key_dim, sizes.value_dim, sizes.slots);
    T* retention = arena.take<T>(sizes.slots);
    T* write = arena.take<T>(sizes.slots);
    return {view, retention, write};
  }
  static std::size_t bytes_of(const Sizes& sizes) {
    check_size("key_dim", sizes.key_dim, 0);
    check_size("value_dim", sizes.value_dim, 0);
    check_size("slots", sizes.slots, 0);
    const Index row = padded(sizes.key_dim) + padded(sizes.value_dim) + 3;
    check_bytes("a slot memory",
                static_cast<double>(padded(sizes.slots)) * static_cast<double>(row) * sizeof(T));
    Arena size(nullptr);
    take(size, sizes);
    return size.used();
  }
  static void check_row(const char* name, TensorView<const T, Dynamic> row, Index size) {
    check_argument(row.extent(0) == size, name, " has ", row.extent(0), " elements; expected ",
                   size);
    check_argument(row.data() != nullptr || row.empty(), name, " has no data");
  }
  Sections sections() noexcept {
    Arena arena(buffer_.data());
    return take(arena, sizes_);
  }

  Buffer buffer_;  // first: where an assignment cannot allocate, the sizes stay as they were
  Sizes sizes_;
};

NHA_ISA_NAMESPACE_END
