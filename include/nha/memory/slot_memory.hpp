// SPDX-License-Identifier: MIT
// The long-term memory: M key/value slots of one head, updated by a linear RNN with a gate per
// slot.
//
// SlotMemoryView is the memory as kernels see it, wherever its numbers lie; SlotMemory owns one.
// What reads the slots is the fused softmax (attention/fused_softmax.hpp).
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dither.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/extent.hpp>
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
/// Keys are stored transposed, [Dk, padded(M)], so that a query meets all slots at once and a
/// token's gates, one per slot, are a vector. Value rows have padded(Dv) numbers. Padding is zero
/// and stays zero: a padded slot is written with strength 0.
///
/// T is the type keys and values are stored in. Computed is in Acc, which the masses are kept in:
/// they are few, and their logarithm and inverse are taken.
template <class T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
struct SlotMemoryView {
  using Acc = accumulate_t<T>;

  T* key = nullptr;     // [key_dim, key_stride()]
  T* value = nullptr;   // [slots, value_stride()]
  Acc* mass = nullptr;  // [key_stride()]
  [[no_unique_address]] Extent<KeyDim> key_dim;
  [[no_unique_address]] Extent<ValueDim> value_dim;
  [[no_unique_address]] Extent<Slots> slots;

  NHA_INLINE Index key_stride() const noexcept { return padded(slots); }
  NHA_INLINE Index value_stride() const noexcept { return padded(value_dim); }

  /// Lays the memory out in the next sections of a block.
  static SlotMemoryView take(Arena& cursor, Index key_dim, Index value_dim, Index slots) {
    SlotMemoryView view;
    view.key_dim = Extent<KeyDim>(key_dim);
    view.value_dim = Extent<ValueDim>(value_dim);
    view.slots = Extent<Slots>(slots);
    view.key = cursor.take<T>(key_dim * padded(slots));
    view.value = cursor.take<T>(slots * padded(value_dim));
    view.mass = cursor.take<Acc>(padded(slots));
    return view;
  }

  NHA_INLINE T& key_at(Index slot, Index d) const noexcept { return key[d * key_stride() + slot]; }
  NHA_INLINE T& value_at(Index slot, Index d) const noexcept {
    return value[slot * value_stride() + d];
  }
  TensorView<const T, Dynamic, Dynamic> keys() const noexcept {
    return {key, {slots, key_dim}, {1, key_stride()}};
  }
  TensorView<const T, Dynamic, Dynamic> values() const noexcept {
    return {value, {slots, value_dim}, {value_stride(), 1}};
  }
  TensorView<const Acc, Dynamic> masses() const noexcept { return {mass, {slots}}; }

  /// The dither that rounds a number after the token at `position`; neighbours in memory are
  /// kDitherColumn apart, rows kDitherRow.
  NHA_INLINE std::uint32_t key_dither(std::int64_t position, Index slot, Index d) const noexcept {
    return dither(position, d, slot);
  }
  NHA_INLINE std::uint32_t value_dither(std::int64_t position, Index slot, Index d) const noexcept {
    return dither(position, key_dim + slot, d);
  }

  void clear() const noexcept {
    std::fill_n(key, key_dim * key_stride(), T{});
    std::fill_n(value, slots * value_stride(), T{});
    std::fill_n(mass, key_stride(), Acc{});
  }
  /// Copies all numbers from a memory of the same sizes.
  void copy_from(const SlotMemoryView& other) const noexcept {
    std::copy_n(other.key, key_dim * key_stride(), key);
    std::copy_n(other.value, slots * value_stride(), value);
    std::copy_n(other.mass, key_stride(), mass);
  }

  /// One token enters the slots:
  ///   key   <- retention . key   + write (x) token_key
  ///   value <- retention . value + write (x) token_value
  ///   mass  <- retention . mass  + write
  /// retention = exp(log_gate) and write [M], token_key [Dk], token_value [Dv]. Rounds exactly as
  /// the SIMD kernels do, so a replayed update gives the same bits. Slots of a half type are
  /// rounded by a dither (core/dither.hpp) that `position`, the token's in its sequence, decides.
  template <class Stored>
  void enter(const Acc* retention, const Acc* write, const Stored* token_key,
             const Stored* token_value, std::int64_t position) const noexcept {
    for (Index d = 0; d < key_dim; ++d) {
      const Acc k = widen(token_key[d]);
      T* row = key + d * key_stride();
      for (Index m = 0; m < slots; ++m)
        row[m] = stored_sum<T>(multiply_add(retention[m], widen(row[m]), write[m] * k),
                               key_dither(position, m, d));
    }
    for (Index m = 0; m < slots; ++m) {
      T* row = value + m * value_stride();
      for (Index d = 0; d < value_dim; ++d)
        row[d] = stored_sum<T>(
            multiply_add(retention[m], widen(row[d]), write[m] * widen(token_value[d])),
            value_dither(position, m, d));
      mass[m] = multiply_add(retention[m], mass[m], write[m]);
    }
  }
};

/// Owns the slots of one head, for use without the rest of the operator. Slots are sums, so T is
/// float or double: accumulate_t of the type of the tokens. One that was moved from may only be
/// assigned to or destroyed.
template <Scalar T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
class SlotMemory {
  static_assert(std::is_same_v<T, accumulate_t<T>>,
                "slots are kept in float or double; bfloat16 and float16 tokens enter as float");

 public:
  using View = SlotMemoryView<T, KeyDim, ValueDim, Slots>;

  /// All sizes static.
  SlotMemory() requires(KeyDim != Dynamic && ValueDim != Dynamic && Slots != Dynamic)
      : SlotMemory(KeyDim, ValueDim, Slots) {}

  /// @throws ArgumentError if a size is negative, above kLargestSize or differs from the static
  ///   one, or all of it does not fit in memory.
  SlotMemory(Index key_dim, Index value_dim, Index slots,
             std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(bytes_of(key_dim, value_dim, slots), memory),
        key_dim_(key_dim),
        value_dim_(value_dim),
        slots_(slots) {}

  /// The memory as kernels take it.
  View view() noexcept { return sections().slots; }

  /// One token enters. log_gate [M], natural logarithm, never above 0; write [M], or empty for
  /// 1 - exp(log_gate); key [Dk]; value [Dv]. Does not allocate.
  /// @throws ArgumentError if a size does not fit, a tensor but `write` has no data, a gate is NaN
  /// or
  ///   above 0, or a write not finite; nothing has then been written.
  void enter(TensorView<const T, Dynamic> log_gate, TensorView<const T, Dynamic> write,
             TensorView<const T, Dynamic> key, TensorView<const T, Dynamic> value) {
    check_row("log_gate", log_gate, slots_);
    if (!write.empty()) check_row("write", write, slots_);
    check_row("key", key, key_dim_);
    check_row("value", value, value_dim_);
    check_argument(key.has_contiguous_rows() && value.has_contiguous_rows(),
                   "key and value must be contiguous");
    for (Index m = 0; m < slots_; ++m) {
      check_argument(log_gate(m) <= 0, "log_gate of slot ", m, " is ", log_gate(m),
                     "; expected 0 or less");
      check_argument(write.empty() || std::isfinite(write(m)), "write of slot ", m,
                     " is not a finite number");
    }
    const Sections s = sections();
    for (Index m = 0; m < slots_; ++m) {
      s.retention[m] = retention(log_gate(m));
      s.write[m] = write.empty() ? default_write(log_gate(m)) : write(m);
    }
    s.slots.enter(s.retention, s.write, key.data(), value.data(), 0);
  }

  /// Keys [M, Dk], values [M, Dv] and mass [M] of the slots.
  TensorView<const T, Dynamic, Dynamic> keys() const noexcept { return sections().slots.keys(); }
  TensorView<const T, Dynamic, Dynamic> values() const noexcept {
    return sections().slots.values();
  }
  TensorView<const T, Dynamic> mass() const noexcept { return sections().slots.masses(); }
  void clear() noexcept { view().clear(); }
  std::size_t bytes() const noexcept { return buffer_.size(); }

 private:
  struct Sections {
    View slots;
    T* retention;  // scratch of enter()
    T* write;
  };
  static Sections take(Arena& cursor, Index key_dim, Index value_dim, Index slots) {
    const View view = View::take(cursor, key_dim, value_dim, slots);
    T* retention = cursor.take<T>(slots);
    T* write = cursor.take<T>(slots);
    return {view, retention, write};
  }
  static std::size_t bytes_of(Index key_dim, Index value_dim, Index slots) {
    check_size("key_dim", key_dim, 0, KeyDim);
    check_size("value_dim", value_dim, 0, ValueDim);
    check_size("slots", slots, 0, Slots);
    check_bytes("a slot memory", static_cast<double>(padded(slots)) *
                                     static_cast<double>(padded(key_dim) + padded(value_dim) + 3) *
                                     sizeof(T));
    Arena size(nullptr);
    take(size, key_dim, value_dim, slots);
    return size.used();
  }
  static void check_row(const char* name, TensorView<const T, Dynamic> row, Index size) {
    check_argument(row.extent(0) == size, name, " has ", row.extent(0), " elements; expected ",
                   size);
    check_argument(row.data() != nullptr || row.empty(), name, " has no data");
  }
  // What a const memory hands out of these is const again.
  Sections sections() const noexcept {
    Arena cursor(const_cast<std::byte*>(buffer_.data()));
    return take(cursor, key_dim_, value_dim_, slots_);
  }

  Buffer buffer_;  // first: where an assignment cannot allocate, the sizes stay as they were
  Index key_dim_;
  Index value_dim_;
  Index slots_;
};

NHA_ISA_NAMESPACE_END
