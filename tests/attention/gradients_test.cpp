// SPDX-License-Identifier: MIT
#include <nha/attention/gradients.hpp>

#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

using nha::AttentionCotangents;
using nha::AttentionGradients;
using nha::Dynamic;
using nha::Tensor;

TEST(Gradients, AreViewsThatCostNothingToCopy) {
  EXPECT_TRUE(std::is_trivially_copyable_v<AttentionCotangents<float>>);
  EXPECT_TRUE((std::is_trivially_copyable_v<AttentionGradients<nha::bfloat16, 64, 64, 32>>));
}

TEST(Gradients, NothingIsGivenOrWantedUnlessSaid) {
  const AttentionCotangents<float> given;
  EXPECT_EQ(given.o.data(), nullptr);
  EXPECT_EQ(given.mass.data(), nullptr);
  Tensor<float, 4> v({1, 2, 3, 4});
  const AttentionGradients<float> wanted{.v = v};
  EXPECT_EQ(wanted.v.data(), v.data());
  EXPECT_EQ(wanted.q_slot.data(), nullptr);
  EXPECT_EQ(wanted.slot_k.data(), nullptr);
}

TEST(Gradients, OfHalfTypesAreFloatAndTheOutputsCotangentIsHalf) {
  using Wanted = AttentionGradients<nha::bfloat16>;
  EXPECT_TRUE((std::is_same_v<decltype(Wanted::q_slot)::value_type, float>));
  EXPECT_TRUE((std::is_same_v<decltype(Wanted::slot_v)::value_type, float>));
  using Given = AttentionCotangents<nha::bfloat16>;
  EXPECT_TRUE((std::is_same_v<decltype(Given::o)::value_type, nha::bfloat16>));
  EXPECT_TRUE((std::is_same_v<decltype(Given::lse)::value_type, float>));
  EXPECT_TRUE((std::is_same_v<decltype(AttentionGradients<double>::v)::value_type, double>));
}

TEST(Gradients, LastAxesMayBeKnownWhenCompiling) {
  using Wanted = AttentionGradients<float, 64, 32, 16>;
  EXPECT_EQ(decltype(Wanted::k_window)::static_extent(3), 64);
  EXPECT_EQ(decltype(Wanted::v)::static_extent(3), 32);
  EXPECT_EQ(decltype(Wanted::write)::static_extent(3), 16);
  EXPECT_EQ(decltype(Wanted::slot_k)::static_extent(3), Dynamic);
  EXPECT_EQ((decltype(AttentionCotangents<float, 32>::o)::static_extent(3)), 32);
}

}  // namespace
