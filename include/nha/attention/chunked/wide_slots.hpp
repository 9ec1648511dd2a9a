// SPDX-License-Identifier: MIT
// The slots as the chunked algorithm computes with them: the state's own, or where these are of a
// half type a wide copy in scratch memory, rounded back once after many tokens.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/extent.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/simd_half.hpp>
#include <nha/memory/slot_memory.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class T>
inline constexpr bool kIsHalf = !std::is_same_v<T, accumulate_t<T>>;

/// Where to compute: `stored` itself, or a memory of the same sizes in the next sections of a
/// block; masses are the state's in both.
template <class T, Index KeyDim, Index ValueDim, Index Slots>
SlotMemoryView<accumulate_t<T>, KeyDim, ValueDim, Slots> wide_slots(
    const SlotMemoryView<T, KeyDim, ValueDim, Slots>& stored, Arena& cursor) noexcept {
  if constexpr (kIsHalf<T>) {
    SlotMemoryView<accumulate_t<T>, KeyDim, ValueDim, Slots> wide;
    wide.key_dim = stored.key_dim;
    wide.value_dim = stored.value_dim;
    wide.slots = stored.slots;
    wide.key = cursor.take<accumulate_t<T>>(wide.key_dim * wide.key_stride());
    wide.value = cursor.take<accumulate_t<T>>(wide.slots * wide.value_stride());
    wide.mass = stored.mass;
    return wide;
  } else {
    return stored;
  }
}
/// Bytes of scratch memory that wide_slots() takes for slots stored in T.
template <class T>
std::size_t wide_slots_bytes(const AttentionShape& shape) noexcept {
  SlotMemoryView<T> stored;
  stored.key_dim = Extent<Dynamic>(shape.key_dim);
  stored.value_dim = Extent<Dynamic>(shape.value_dim);
  stored.slots = Extent<Dynamic>(shape.slots);
  Arena cursor(nullptr);
  wide_slots(stored, cursor);
  return cursor.used();
}

/// Fills a wide copy from the stored slots.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots>
void widen_slots(const SlotMemoryView<T, KeyDim, ValueDim, Slots>& stored,
                 const SlotMemoryView<accumulate_t<T>, KeyDim, ValueDim, Slots>& wide) noexcept {
  if constexpr (kIsHalf<T>) {
    using V = cpu::simd::vec<float, Arch>;
    const auto widen_all = [](const T* from, float* to, Index count) {
      for (Index i = 0; i < count; i += cpu::simd::lanes<float, Arch>)
        cpu::simd::store(to + i, cpu::simd::load_wide<V>(from + i));
    };
    widen_all(stored.key, wide.key, wide.key_dim * wide.key_stride());
    widen_all(stored.value, wide.value, wide.slots * wide.value_stride());
  }
}

/// Rounds a wide copy into the stored slots, by the dither of the newest token in them.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots>
void round_slots(const SlotMemoryView<accumulate_t<T>, KeyDim, ValueDim, Slots>& wide,
                 const SlotMemoryView<T, KeyDim, ValueDim, Slots>& stored,
                 std::int64_t position) noexcept {
  if constexpr (kIsHalf<T>) {
    using V = cpu::simd::vec<float, Arch>;
    constexpr Index kLanes = cpu::simd::lanes<float, Arch>;
    const auto round_row = [](const float* from, T* to, Index count, std::uint32_t first) {
      for (Index i = 0; i < count; i += kLanes)
        cpu::simd::store_narrow(to + i, cpu::simd::settled(cpu::simd::load<V>(from + i)),
                                cpu::simd::dithers_from<Arch>(first, i));
    };
    for (Index d = 0; d < wide.key_dim; ++d)
      round_row(wide.key + d * wide.key_stride(), stored.key + d * wide.key_stride(),
                wide.key_stride(), stored.key_dither(position, 0, d));
    for (Index m = 0; m < wide.slots; ++m)
      round_row(wide.value + m * wide.value_stride(), stored.value + m * wide.value_stride(),
                wide.value_stride(), stored.value_dither(position, m, 0));
  }
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
