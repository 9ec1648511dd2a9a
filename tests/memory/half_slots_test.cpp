// SPDX-License-Identifier: MIT
// States whose slots are stored in a half type.
#include <nha/attention/prefill.hpp>
#include <nha/memory/state_archive.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "memory/state_cases.hpp"
#include "support/random_case.hpp"

namespace {

using nha::Index;
using nha::PrefillAlgorithm;
using nha_test::CaseOutputs;
using nha_test::RandomCase;
using nha_test::relative_error;
using nha_test::StateOf;

template <class Types>
class HalfSlots : public testing::Test {
 protected:
  using Tensors = typename Types::first_type;
  using Stored = typename Types::second_type;
  using HalfState = StateOf<Tensors, Stored>;
  static constexpr double kUnit = std::is_same_v<Stored, nha::bfloat16> ? 0x1p-8 : 0x1p-11;
};
using Types =
    ::testing::Types<std::pair<float, nha::bfloat16>, std::pair<float, nha::float16>,
                     std::pair<nha::bfloat16, nha::bfloat16>, std::pair<nha::float16, nha::float16>,
                     std::pair<nha::bfloat16, nha::float16>>;
TYPED_TEST_SUITE(HalfSlots, Types);

TYPED_TEST(HalfSlots, TakeHalfTheMemory) {
  using State = typename TestFixture::HalfState;
  const nha::AttentionShape shape{.batch = 3, .key_dim = 64, .value_dim = 64, .slots = 64};
  const std::size_t wide =
      nha::AttentionState<typename TestFixture::Tensors>(shape, {.window = 0}, 2).bytes();
  const std::size_t copies = 1 + nha::detail::kSnapshots;  // the slots and those kept of them
  const std::size_t slots = 3 * copies * 2 * 64 * 64;      // keys and values
  EXPECT_EQ(State(shape, {.window = 0}, 2).bytes(), wide - slots * 2);
}

TYPED_TEST(HalfSlots, EveryAlgorithmGivesTheDefinition) {
  using T = typename TestFixture::Tensors;
  for (const auto& setting : nha_test::state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<T> c(nha_test::small_case(setting, 60, 2));
    auto expected_state = nha_test::make_state<T, typename TestFixture::Stored>(c, setting);
    auto wide = nha_test::make_state(c, setting);
    const auto start = expected_state;
    CaseOutputs<T> expected(c.shape), exact(c.shape);
    nha::reference(c.inputs(), expected_state, expected.views());
    nha::reference(c.inputs(), wide, exact.views());
    // Against slots that are not rounded.
    EXPECT_LT(relative_error(expected, exact), 16 * this->kUnit);
    EXPECT_LT(nha_test::slot_error(expected_state, wide), 16 * this->kUnit);

    auto state = start;
    CaseOutputs<T> out(c.shape);
    nha_test::step_range(c, state, out, 0, 60);
    EXPECT_LT(relative_error(out, expected), 1e-3);
    EXPECT_LT(nha_test::slot_error(state, expected_state), 1e-3);
    auto recurrent = start;
    CaseOutputs<T> again(c.shape);
    nha_test::prefill_range(c, recurrent, again, 0, 60, 60,
                            {.algorithm = PrefillAlgorithm::recurrent});
    EXPECT_TRUE(nha_test::same_bits(again, out, 0, 60));
    EXPECT_TRUE(recurrent == state);

    for (const Index piece : {7, 60}) {
      auto chunked = start;
      nha_test::prefill_range(c, chunked, again, 0, 60, piece,
                              {.algorithm = PrefillAlgorithm::chunked});
      EXPECT_LT(relative_error(again, exact), 16 * this->kUnit) << piece;
      EXPECT_LT(nha_test::slot_error(chunked, wide), 4 * this->kUnit) << piece;
    }
  }
}

TYPED_TEST(HalfSlots, AreRolledBackAfterChunksWithinOneRounding) {
  using T = typename TestFixture::Tensors;
  for (const auto& setting : nha_test::state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<T> c(nha_test::small_case(setting, 40));
    auto state = nha_test::make_state<T, typename TestFixture::Stored>(c, setting, 6);
    auto expected = state;
    CaseOutputs<T> out(c.shape);
    nha_test::prefill_range(c, state, out, 0, 40, 40, {.algorithm = PrefillAlgorithm::chunked});
    state.rollback(0, 5);
    nha_test::prefill_range(c, expected, out, 0, 35, 35, {.algorithm = PrefillAlgorithm::chunked});
    EXPECT_LT(nha_test::slot_error(state, expected), 4 * this->kUnit);
  }
}

TYPED_TEST(HalfSlots, ForkCopiesThemToTheBit) {
  using T = typename TestFixture::Tensors;
  const auto setting = nha_test::state_settings().front();
  const RandomCase<T> c(nha_test::small_case(setting, 30));
  auto state = nha_test::make_state<T, typename TestFixture::Stored>(c, setting, 3);
  CaseOutputs<T> out(c.shape), again(c.shape);
  nha_test::step_range(c, state, out, 0, 20);
  auto copy = nha_test::make_state<T, typename TestFixture::Stored>(c, setting, 3);
  state.fork(0, copy, 0);
  EXPECT_TRUE(copy == state);
  nha_test::step_range(c, state, out, 20, 30);
  nha_test::step_range(c, copy, again, 20, 30);
  EXPECT_TRUE(nha_test::same_bits(again, out, 20, 30));
  EXPECT_TRUE(copy == state);
}

TYPED_TEST(HalfSlots, InitialSlotsTakeTheNearestNumber) {
  using SlotScalar = typename TestFixture::Stored;
  typename TestFixture::HalfState state({.key_dim = 2, .value_dim = 3, .slots = 2});
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  nha::Tensor<float, 4> key({1, 1, 2, 2}), value({1, 1, 2, 3});
  const float numbers[] = {1.001f, -1e-6f, kInfinity, 0.3333f};
  for (Index i = 0; i < 4; ++i) key.data()[i] = numbers[i];
  for (Index i = 0; i < 6; ++i) value.data()[i] = static_cast<float>(i) / 7;
  value.data()[5] = NAN;
  state.set_initial_slots(key, value);
  for (Index i = 0; i < 4; ++i)
    EXPECT_EQ(state.slot_k(0, 0)(i / 2, i % 2), SlotScalar(key.data()[i]));
  for (Index i = 0; i < 5; ++i)
    EXPECT_EQ(state.slot_v(0, 0)(i / 3, i % 3), SlotScalar(value.data()[i]));
  EXPECT_TRUE(std::isnan(nha::widen(state.slot_v(0, 0)(1, 2))));
  EXPECT_EQ(state.slot_mass(0, 0)(1), 1.0f);
}

// A NaN of any digits must not come out of the rounding as a number.
TYPED_TEST(HalfSlots, NotANumberStaysInTheState) {
  using T = typename TestFixture::Tensors;
  RandomCase<T> c({.tokens = 6, .key_dim = 4, .value_dim = 4, .slots = 2});
  if constexpr (std::is_same_v<T, float>)
    c.v(0, 1, 0, 2) = std::bit_cast<float>(0x7fffffffu);
  else
    c.v(0, 1, 0, 2).bits = 0x7fffu;
  typename TestFixture::HalfState state(c.attention_shape(), {.window = 0});
  CaseOutputs<T> out(c.shape);
  nha_test::step_range(c, state, out, 0, 6);
  EXPECT_TRUE(std::isnan(nha::widen(state.slot_v(0, 0)(0, 2))));
  EXPECT_FALSE(std::isnan(nha::widen(state.slot_v(0, 0)(0, 1))));
  EXPECT_TRUE(std::isnan(nha::widen(out.o(0, 5, 0, 2))));
}

TEST(HalfSlotsStatic, SizesKnownWhenCompilingGiveTheSameBits) {
  const RandomCase<float> c({.tokens = 40, .group = 5, .slots = 48});
  StateOf<float, nha::bfloat16> dynamic_state(c.attention_shape(), {.window = 8});
  nha::AttentionState<float, 16, 16, 48, nha::bfloat16> static_state(c.attention_shape(),
                                                                     {.window = 8});
  CaseOutputs<float> a(c.shape), b(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), dynamic_state, a.views(), workspace,
               {.algorithm = PrefillAlgorithm::recurrent});
  const auto in = c.inputs();
  using Keys = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 16>;
  using Gates = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 48>;
  using Output = nha::TensorView<float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 16>;
  nha::prefill({.q_window = Keys(in.q_window),
                .k_window = Keys(in.k_window),
                .q_slot = Keys(in.q_slot),
                .k_slot = Keys(in.k_slot),
                .v = Keys(in.v),
                .log_gate = Gates(in.log_gate)},
               static_state, {.o = Output(b.o.view()), .lse = b.lse, .slot_share = b.slot_share},
               workspace, {.algorithm = PrefillAlgorithm::recurrent});
  EXPECT_TRUE(nha_test::same_bits(a, b, 0, 40));
}

}  // namespace
