// SPDX-License-Identifier: MIT
// The reference, against the definition and against numbers worked out by hand.
#include <nha/attention/reference.hpp>

#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"
#include "support/run_definition.hpp"

namespace {

using nha::AttentionState;
using nha::Index;
using nha::Tensor;

/// One head, one slot, dimension 1: everything is a number.
struct Numbers {
  explicit Numbers(Index tokens)
      : q({1, tokens, 1, 1}),
        k(q),
        v(q),
        gate(q),
        o(q),
        lse({1, tokens, 1}),
        share({1, tokens, 1}) {}

  nha::AttentionInputs<double> inputs() const {
    return {.q_window = q, .k_window = k, .q_slot = q, .k_slot = k, .v = v, .log_gate = gate};
  }
  Tensor<double, 4> q, k, v, gate, o;
  Tensor<double, 3> lse, share;
};

TEST(Reference, IsWhatTheFormulasSay) {
  Numbers n(3);
  for (Index t = 0; t < 3; ++t) {
    n.q(0, t, 0, 0) = 2;
    n.gate(0, t, 0, 0) =
        std::log(0.75);  // each token leaves 3/4 of the slot and adds 1/4 of itself
  }
  n.k(0, 0, 0, 0) = 1;
  n.k(0, 1, 0, 0) = -1;
  n.k(0, 2, 0, 0) = 0.5;
  n.v(0, 0, 0, 0) = 10;
  n.v(0, 1, 0, 0) = 20;
  n.v(0, 2, 0, 0) = 40;
  AttentionState<double> state({.key_dim = 1, .value_dim = 1, .slots = 1}, {.window = 1});
  nha::reference(n.inputs(), state, {.o = n.o, .lse = n.lse, .slot_share = n.share});

  // t = 0: the slot is empty and has logit 0; the window holds token 0, logit 2 * 1.
  const double e2 = std::exp(2.0);
  EXPECT_NEAR(n.o(0, 0, 0, 0), 10 * e2 / (1 + e2), 1e-14);
  EXPECT_NEAR(n.lse(0, 0, 0), std::log(1 + e2), 1e-14);
  EXPECT_NEAR(n.share(0, 0, 0), 1 / (1 + e2), 1e-14);
  // t = 1: token 0 has entered, slot key 0.25 and value 2.5; the window holds token 1, logit -2.
  const double slot = std::exp(0.5), window = std::exp(-2.0);
  EXPECT_NEAR(n.o(0, 1, 0, 0), (2.5 * slot + 20 * window) / (slot + window), 1e-13);
  // t = 2: slot key 0.75 * 0.25 - 0.25, value 0.75 * 2.5 + 5.
  const double last = std::exp(2 * (0.1875 - 0.25)), newest = std::exp(1.0);
  EXPECT_NEAR(n.o(0, 2, 0, 0), (6.875 * last + 40 * newest) / (last + newest), 1e-13);
  EXPECT_NEAR(state.slot_k(0, 0)(0, 0), -0.0625, 1e-15);
  EXPECT_NEAR(state.slot_v(0, 0)(0, 0), 6.875, 1e-14);
  EXPECT_NEAR(state.slot_mass(0, 0)(0), 0.75 * 0.25 + 0.25, 1e-15);
  EXPECT_EQ(state.tokens_seen(0), 3);
  EXPECT_EQ(state.tokens_pending(0, 0), 1);
}

TEST(Reference, MassCorrectedSlotsAreWeightedMeans) {
  Numbers n(2);
  n.q(0, 1, 0, 0) = 3;
  n.k(0, 0, 0, 0) = 2;
  n.v(0, 0, 0, 0) = 7;
  for (Index t = 0; t < 2; ++t) n.gate(0, t, 0, 0) = std::log(0.9);
  AttentionState<double> state({.key_dim = 1, .value_dim = 1, .slots = 1},
                               {.window = 1, .empty_slots = nha::EmptySlots::mass_corrected});
  nha::reference(n.inputs(), state, {.o = n.o, .slot_share = n.share});
  // The slot holds token 0 alone with mass 0.1: its mean is the token itself, its weight e^6 * 0.1.
  const double slot = 0.1 * std::exp(6.0);
  EXPECT_NEAR(n.share(0, 1, 0), slot / (slot + 1), 1e-14);
  EXPECT_NEAR(n.o(0, 1, 0, 0), 7 * slot / (slot + 1), 1e-13);
  EXPECT_EQ(n.share(0, 0, 0), 0);  // nothing had been written yet
}

struct DefinitionSetting {
  std::string name;
  nha_test::CaseShape shape;
  nha::AttentionOptions options;
  enum { empty, without_mass, with_mass } initial_slots = empty;
};

const DefinitionSetting kDefinitionSettings[] = {
    {"defaults", {.tokens = 40}, {.window = 8}},
    {"no window", {.tokens = 40}, {.window = 0}},
    {"window of every token", {.tokens = 20}, {.window = 20}},
    {"no slots", {.tokens = 20, .slots = 0}, {.window = 6}},
    {"neither slots nor window", {.tokens = 5, .slots = 0}, {.window = 0}},
    {"delay 0", {.tokens = 40}, {.window = 9, .slot_delay = 0}},
    {"delay inside the window", {.tokens = 40}, {.window = 9, .slot_delay = 4}},
    {"scale", {.tokens = 30}, {.window = 5, .softmax_scale = 0.7}},
    {"written strengths", {.tokens = 30, .explicit_write = true}, {.window = 5}},
    {"masked", {.tokens = 30}, {.window = 7, .empty_slots = nha::EmptySlots::masked}},
    {"masked, no window, delay 0",
     {.tokens = 30},
     {.window = 0, .empty_slots = nha::EmptySlots::masked}},
    {"mass corrected",
     {.tokens = 30, .gates = nha_test::Gates::mixed},
     {.window = 7, .empty_slots = nha::EmptySlots::mass_corrected}},
    {"groups and unlike sizes",
     {.batch = 2,
      .tokens = 30,
      .kv_heads = 2,
      .group = 3,
      .key_dim = 5,
      .value_dim = 3,
      .slots = 4},
     {.window = 6, .slot_delay = 2}},
    {"a window for each head",
     {.tokens = 30, .kv_heads = 3, .group = 2},
     {.head_windows = {0, 7, 50}}},
    {"packed", {.kv_heads = 2, .lengths = {3, 0, 20, 1}}, {.window = 4}},
    {"initial slots", {.batch = 2, .tokens = 30}, {.window = 6}, DefinitionSetting::with_mass},
    {"initial slots, masked",
     {.lengths = {20, 3}},
     {.window = 6, .empty_slots = nha::EmptySlots::masked},
     DefinitionSetting::without_mass},
    {"initial slots, mass corrected",
     {.tokens = 30},
     {.window = 6, .empty_slots = nha::EmptySlots::mass_corrected},
     DefinitionSetting::with_mass},
    {"initial slots of mass one",
     {.tokens = 30},
     {.window = 6, .empty_slots = nha::EmptySlots::mass_corrected},
     DefinitionSetting::without_mass},
};

/// Slots of small numbers that float holds exactly; one mass is 0.
nha_test::InitialSlots definition_slots(const nha::AttentionShape& s, bool with_mass) {
  nha_test::InitialSlots slots{Tensor<double, 4>({s.batch, s.kv_heads, s.slots, s.key_dim}),
                               Tensor<double, 4>({s.batch, s.kv_heads, s.slots, s.value_dim}),
                               std::nullopt};
  const auto fill = [](auto& tensor, Index period, double least) {
    Index i = 0;
    for (double& value : tensor.values()) value = least + static_cast<double>(i++ % period) / 4;
  };
  fill(slots.slot_k, 7, -0.75);
  fill(slots.slot_v, 11, -1.25);
  if (with_mass) fill(slots.mass.emplace(Tensor<double, 3>({s.batch, s.kv_heads, s.slots})), 5, 0);
  return slots;
}

template <class To, int Rank>
Tensor<To, Rank> definition_numbers(const Tensor<double, Rank>& from) {
  Tensor<To, Rank> to(from.extents());
  for (Index i = 0; i < from.size(); ++i) to.data()[i] = static_cast<To>(from.data()[i]);
  return to;
}

/// reference() in T against the definition in double. float cases hold the same numbers as double
/// ones but for the gates, of which they hold the nearest.
template <class T>
void expect_definition(double tolerance) {
  for (const DefinitionSetting& setting : kDefinitionSettings) {
    SCOPED_TRACE(setting.name);
    const nha_test::RandomCase<T> c(setting.shape);
    const nha_test::RandomCase<double> exact(setting.shape);
    const nha::AttentionShape shape = c.attention_shape();
    std::optional<nha_test::InitialSlots> initial;
    AttentionState<T> state(shape, setting.options);
    if (setting.initial_slots != DefinitionSetting::empty) {
      initial = definition_slots(shape, setting.initial_slots == DefinitionSetting::with_mass);
      const auto slot_k = definition_numbers<T>(initial->slot_k);
      const auto slot_v = definition_numbers<T>(initial->slot_v);
      initial->mass ? state.set_initial_slots(slot_k, slot_v, definition_numbers<T>(*initial->mass))
                    : state.set_initial_slots(slot_k, slot_v);
    }
    const auto expected = nha_test::run_definition(exact.inputs(), shape,
                                                   setting.shape.kv_heads * setting.shape.group,
                                                   setting.options, initial);

    nha_test::CaseOutputs<T> out(c.shape);
    nha::reference(c.inputs(), state, out.views());
    EXPECT_LE(nha_test::relative_error(out.o, expected.o), tolerance);
    EXPECT_LE(nha_test::relative_error(out.lse, expected.lse), tolerance);
    EXPECT_LE(nha_test::relative_error(out.slot_share, expected.slot_share), tolerance);
    nha_test::DefinitionRun slots = expected;  // overwritten with the state's
    for (Index n = 0; n < shape.batch; ++n)
      for (Index head = 0; head < shape.kv_heads; ++head)
        for (Index m = 0; m < shape.slots; ++m) {
          for (Index d = 0; d < shape.key_dim; ++d)
            slots.slot_k(n, head, m, d) = state.slot_k(n, head)(m, d);
          for (Index d = 0; d < shape.value_dim; ++d)
            slots.slot_v(n, head, m, d) = state.slot_v(n, head)(m, d);
          slots.mass(n, head, m) = state.slot_mass(n, head)(m);
        }
    EXPECT_LE(nha_test::relative_error(slots.slot_k, expected.slot_k), tolerance);
    EXPECT_LE(nha_test::relative_error(slots.slot_v, expected.slot_v), tolerance);
    EXPECT_LE(nha_test::relative_error(slots.mass, expected.mass), tolerance);
  }
}

TEST(Reference, IsTheDefinitionInDouble) {
  expect_definition<double>(1e-14);
}
TEST(Reference, IsTheDefinitionInFloatWithinRounding) {
  expect_definition<float>(2e-6);
}

TEST(Reference, RefusesWhatValidateRefuses) {
  Numbers n(1);
  n.gate(0, 0, 0, 0) = 1;
  AttentionState<double> state({.key_dim = 1, .value_dim = 1, .slots = 1});
  NHA_EXPECT_ERROR(nha::reference(n.inputs(), state, {.o = n.o}), nha::ArgumentError, "log_gate");
  EXPECT_EQ(state.tokens_seen(0), 0);
}

}  // namespace
