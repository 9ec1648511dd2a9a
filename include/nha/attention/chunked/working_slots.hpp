// SPDX-License-Identifier: MIT
// The slots as the chunked algorithm computes with them: the state's own. Where these are of a half
// type they are a wide copy in scratch memory, rounded back once after many tokens.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/simd_half.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class T>
inline constexpr bool kIsHalf = !std::is_same_v<T, accumulate_t<T>>;

/// A wide copy of slots, filled from those stored; not the masses, which are wide already.
template <class Arch, class T>
void widen_slots(const SlotMemoryView<const T>& stored,
                 const SlotMemoryView<accumulate_t<T>>& wide) noexcept {
  using Acc = accumulate_t<T>;
  const auto widen_all = [](const T* from, Acc* to, Index count) {
    for (Index i = 0; i < count; i += cpu::simd::lanes<Acc, Arch>)
      cpu::simd::store(to + i, cpu::simd::load_wide<cpu::simd::vec<Acc, Arch>>(from + i));
  };
  widen_all(stored.key, wide.key, wide.key_dim * wide.key_stride());
  widen_all(stored.value, wide.value, wide.count * wide.value_stride());
}

/// Slots as a call finds them, only to be read: the stored ones, or a wide copy in the next
/// sections of an arena.
template <class Arch, class T>
SlotMemoryView<const accumulate_t<T>> slots_to_read(const SlotMemoryView<const T>& stored,
                                                    Arena& arena) noexcept {
  if constexpr (kIsHalf<T>) {
    auto wide = SlotMemoryView<accumulate_t<T>>::take(arena, stored.key_dim, stored.value_dim,
                                                      stored.count);
    widen_slots<Arch, T>(stored, wide);
    std::copy_n(stored.mass, stored.key_stride(), wide.mass);
    return wide;
  } else {
    return stored;
  }
}
/// Bytes of arena that slots_to_read() and WorkingSlots take for slots stored in T.
template <class T>
std::size_t working_slots_bytes(const AttentionShape& shape) noexcept {
  Arena arena(nullptr);
  if constexpr (kIsHalf<T>)
    SlotMemoryView<accumulate_t<T>>::take(arena, shape.key_dim, shape.value_dim, shape.slots);
  return arena.used();
}

/// The slots of a state as a prefill moves them on.
template <class Arch, class T>
class WorkingSlots {
 public:
  using Acc = accumulate_t<T>;

  /// Wide copies are taken from an arena.
  WorkingSlots(const SlotMemoryView<T>& stored, Arena& arena) noexcept : stored_(stored) {
    if constexpr (kIsHalf<T>) {
      view_ = view_.take(arena, stored.key_dim, stored.value_dim, stored.count);
      widen_slots<Arch, T>(stored, view_);
      view_.mass = stored.mass;
    } else {
      view_ = stored;
    }
  }

  /// What to compute with.
  const SlotMemoryView<Acc>& view() const noexcept { return view_; }

  /// Leaves slots in the state: view(), or others of the same sizes. `newest` is the position of
  /// the newest token in them, whose dither rounds those of a half type.
  void store(const SlotMemoryView<Acc>& slots, std::int64_t newest) const noexcept {
    if (slots.mass != stored_.mass) std::copy_n(slots.mass, stored_.key_stride(), stored_.mass);
    if constexpr (kIsHalf<T>) {
      const Index keys = stored_.key_stride(), values = stored_.value_stride();
      for (Index d = 0; d < stored_.key_dim; ++d)
        round_row(slots.key + d * keys, stored_.key + d * keys, keys,
                  stored_.key_dither(newest, 0, d));
      for (Index m = 0; m < stored_.count; ++m)
        round_row(slots.value + m * values, stored_.value + m * values, values,
                  stored_.value_dither(newest, m, 0));
    } else if (slots.key != stored_.key) {
      stored_.copy_from(slots);
    }
  }

 private:
  static void round_row(const Acc* from, T* to, Index count, std::uint32_t first) noexcept {
    using V = cpu::simd::vec<Acc, Arch>;
    for (Index i = 0; i < count; i += cpu::simd::lanes<Acc, Arch>)
      cpu::simd::store_narrow(to + i, cpu::simd::settled(cpu::simd::load<V>(from + i)),
                              cpu::simd::dithers_from<Arch>(first, i));
  }

  SlotMemoryView<T> stored_;
  SlotMemoryView<Acc> view_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
