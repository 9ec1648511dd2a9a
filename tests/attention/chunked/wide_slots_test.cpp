// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/wide_slots.hpp>

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

TEST(WideSlots, AreTheStateItselfWhereNothingIsRounded) {
  Stored<float> stored;
  nha::Arena cursor(nullptr);
  const auto wide = nha::detail::wide_slots(stored.view, cursor);
  EXPECT_EQ(wide.key, stored.view.key);
  EXPECT_EQ(wide.value, stored.view.value);
  EXPECT_EQ(cursor.used(), 0u);
  const nha::AttentionShape shape{.key_dim = kKeyDim, .value_dim = kValueDim, .slots = kSlots};
  EXPECT_EQ(nha::detail::wide_slots_bytes<float>(shape), 0u);
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
  nha::Buffer scratch(nha::detail::wide_slots_bytes<T>(shape));
  nha::Arena cursor(scratch.data());
  const auto wide = nha::detail::wide_slots(view, cursor);
  EXPECT_EQ(cursor.used(), scratch.size());
  EXPECT_EQ(wide.mass, view.mass);
  nha::detail::widen_slots<Arch>(view, wide);
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
  nha::detail::round_slots<Arch>(wide, view, kPosition);
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

TEST(WideSlots, AreRoundedBackAsOneTokenWouldBe) {
  check_round_trip<nha::bfloat16>();
  check_round_trip<nha::float16>();
}

}  // namespace
