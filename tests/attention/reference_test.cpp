// SPDX-License-Identifier: MIT
// The definition, against numbers worked out by hand.
#include <nha/attention/reference.hpp>

#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cmath>

#include "support/expect_error.hpp"

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

TEST(Reference, RefusesWhatValidateRefuses) {
  Numbers n(1);
  n.gate(0, 0, 0, 0) = 1;
  AttentionState<double> state({.key_dim = 1, .value_dim = 1, .slots = 1});
  NHA_EXPECT_ERROR(nha::reference(n.inputs(), state, {.o = n.o}), nha::ArgumentError, "log_gate");
  EXPECT_EQ(state.tokens_seen(0), 0);
}

}  // namespace
