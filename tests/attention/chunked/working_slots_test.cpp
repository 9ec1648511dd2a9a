// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/working_slots.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace {

using nha::Index;
using nha::SlotMemoryView;

constexpr Index kKeyDim = 5, kValueDim = 19, kSlots = 3;

template <class T>
struct Stored {
  Stored() : buffer(bytes()) {
    nha::Arena cursor(buffer.data());
    view = SlotMemoryView<T>::take(cursor, kKeyDim, kValueDim, kSlots);
  }
  static std::size_t bytes() {
    nha::Arena cursor(nullptr);
    SlotMemoryView<T>::take(cursor, kKeyDim, kValueDim, kSlots);
    return cursor.used();
  }
  nha::Buffer buffer;
  SlotMemoryView<T> view;
};

TEST(WorkingSlots, AreTheStateItselfWhereNothingIsRounded) {
  Stored<float> stored;
  nha::Arena cursor(nullptr);
  const nha::detail::WorkingSlots<nha::cpu::simd::default_arch, float> slots(stored.view, cursor);
  EXPECT_EQ(slots.view().key, stored.view.key);
  EXPECT_EQ(slots.view().value, stored.view.value);
  EXPECT_EQ(slots.view().mass, stored.view.mass);
  const auto read =
      nha::detail::slots_to_read<nha::cpu::simd::default_arch, float>(stored.view, cursor);
  EXPECT_EQ(read.key, stored.view.key);
  EXPECT_EQ(cursor.used(), 0u);
  const nha::AttentionShape shape{.key_dim = kKeyDim, .value_dim = kValueDim, .slots = kSlots};
  EXPECT_EQ(nha::detail::working_slots_bytes<float>(shape), 0u);
}

template <class T>
void check_round_trip() {
  using Arch = nha::cpu::simd::default_arch;
  Stored<T> stored;
  const auto& view = stored.view;
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d) view.key_at(m, d) = T(static_cast<float>(m * 7 - d));
    for (Index d = 0; d < kValueDim; ++d) view.value_at(m, d) = T(static_cast<float>(d - m));
    view.mass[m] = 0.5f;
  }
  const nha::AttentionShape shape{.key_dim = kKeyDim, .value_dim = kValueDim, .slots = kSlots};
  nha::Buffer scratch(nha::detail::working_slots_bytes<T>(shape));
  nha::Arena cursor(scratch.data());
  const nha::detail::WorkingSlots<Arch, T> slots(view, cursor);
  const auto& wide = slots.view();
  EXPECT_EQ(cursor.used(), scratch.size());
  EXPECT_EQ(wide.mass, view.mass);
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d) {
      EXPECT_EQ(wide.key_at(m, d), static_cast<float>(m * 7 - d));
      wide.key_at(m, d) *= 1.003f;
    }
    for (Index d = 0; d < kValueDim; ++d) {
      EXPECT_EQ(wide.value_at(m, d), static_cast<float>(d - m));
      wide.value_at(m, d) *= 1.003f;
    }
  }
  wide.value_at(1, 2) = std::bit_cast<float>(0x7fffffffu);
  constexpr std::int64_t kPosition = 77;
  slots.store(wide, kPosition);
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d)
      EXPECT_EQ(view.key_at(m, d),
                nha::stored_sum<T>(wide.key_at(m, d), view.key_dither(kPosition, m, d)));
    for (Index d = 0; d < kValueDim; ++d)
      if (m != 1 || d != 2) {
        EXPECT_EQ(view.value_at(m, d),
                  nha::stored_sum<T>(wide.value_at(m, d), view.value_dither(kPosition, m, d)));
      }
  }
  EXPECT_TRUE(std::isnan(nha::widen(view.value_at(1, 2))));
}

template <class T>
void check_copies_to_read() {
  using Arch = nha::cpu::simd::default_arch;
  Stored<T> stored;
  const auto& view = stored.view;
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d) view.key_at(m, d) = T(static_cast<float>(m * 7 - d));
    for (Index d = 0; d < kValueDim; ++d) view.value_at(m, d) = T(static_cast<float>(d - m));
    view.mass[m] = static_cast<float>(m) / 2;
  }
  const nha::AttentionShape shape{.key_dim = kKeyDim, .value_dim = kValueDim, .slots = kSlots};
  nha::Buffer scratch(nha::detail::working_slots_bytes<T>(shape));
  nha::Arena cursor(scratch.data());
  const auto wide = nha::detail::slots_to_read<Arch, T>(view, cursor);
  EXPECT_EQ(cursor.used(), scratch.size());
  EXPECT_NE(wide.mass, view.mass);
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d) EXPECT_EQ(wide.key_at(m, d), static_cast<float>(m * 7 - d));
    for (Index d = 0; d < kValueDim; ++d) EXPECT_EQ(wide.value_at(m, d), static_cast<float>(d - m));
    EXPECT_EQ(wide.mass[m], static_cast<float>(m) / 2);
  }
}

TEST(WorkingSlots, AreWideCopiesWhereSlotsOfAHalfTypeAreOnlyRead) {
  check_copies_to_read<nha::bfloat16>();
  check_copies_to_read<nha::float16>();
}

template <class T>
void check_store_of_others() {
  using Arch = nha::cpu::simd::default_arch;
  Stored<T> stored;
  Stored<float> others;
  stored.view.clear();
  others.view.clear();
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d) others.view.key_at(m, d) = static_cast<float>(m + d);
    for (Index d = 0; d < kValueDim; ++d) others.view.value_at(m, d) = static_cast<float>(m - d);
    others.view.mass[m] = 0.25f;
  }
  const nha::AttentionShape shape{.key_dim = kKeyDim, .value_dim = kValueDim, .slots = kSlots};
  nha::Buffer scratch(nha::detail::working_slots_bytes<T>(shape));
  nha::Arena cursor(scratch.data());
  const nha::detail::WorkingSlots<Arch, T> slots(stored.view, cursor);
  slots.store(others.view, 3);
  for (Index m = 0; m < kSlots; ++m) {
    for (Index d = 0; d < kKeyDim; ++d)
      EXPECT_EQ(nha::widen(stored.view.key_at(m, d)), static_cast<float>(m + d));
    for (Index d = 0; d < kValueDim; ++d)
      EXPECT_EQ(nha::widen(stored.view.value_at(m, d)), static_cast<float>(m - d));
    EXPECT_EQ(stored.view.mass[m], 0.25f);
  }
}

TEST(WorkingSlots, LeaveOtherSlotsInTheState) {
  check_store_of_others<float>();
  check_store_of_others<nha::bfloat16>();
}

TEST(WorkingSlots, AreRoundedBackAsOneTokenWouldBe) {
  check_round_trip<nha::bfloat16>();
  check_round_trip<nha::float16>();
}

}  // namespace
