// SPDX-License-Identifier: MIT
// Wrong arguments are named before anything is touched.
#include <nha/attention/prefill.hpp>
#include <nha/attention/step.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using Inputs = nha::AttentionInputs<float>;
using Outputs = nha::AttentionOutputs<float>;
using View4 = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, nha::Dynamic>;

class Validate : public ::testing::Test {
 protected:
  /// Spoils good arguments with `spoil` and expects the message, state and outputs untouched.
  void expect_refused(const std::function<void(Inputs&, Outputs&)>& spoil,
                      const std::string& message) {
    Inputs in = case_.inputs();
    Outputs out = outputs_.views();
    for (float& o : outputs_.o.values()) o = 42;
    spoil(in, out);
    AttentionState<float> state(case_.attention_shape(), {.window = 3});
    const AttentionState<float> before = state;
    nha::Workspace workspace;
    NHA_EXPECT_ERROR(nha::prefill(in, state, out, workspace), nha::ArgumentError, message);
    NHA_EXPECT_ERROR(nha::reference(in, state, out), nha::ArgumentError, message);
    EXPECT_TRUE(state == before);
    for (float o : outputs_.o.values()) EXPECT_EQ(o, 42.0f);
    EXPECT_EQ(workspace.bytes(), 0u);
  }

  RandomCase<float> case_{
      CaseShape{.batch = 2, .tokens = 6, .kv_heads = 2, .group = 2, .key_dim = 8, .value_dim = 4}};
  CaseOutputs<float> outputs_{case_.shape};
};

TEST_F(Validate, NamesTheTensorWhoseShapeDoesNotFit) {
  expect_refused([](Inputs& in, Outputs&) { in.q_window = in.q_window.slice<3>(0, 7); },
                 "q_window is [2, 6, 4, 7]; expected [2, 6, 4, 8]");
  expect_refused([](Inputs& in, Outputs&) { in.k_window = in.k_window.slice<2>(0, 1); },
                 "k_window is [2, 6, 1, 8]; expected [2, 6, 2, 8]");
  expect_refused([](Inputs& in, Outputs&) { in.q_slot = in.q_slot.slice<1>(0, 5); },
                 "q_slot is [2, 5, 4, 8]");
  expect_refused([](Inputs& in, Outputs&) { in.k_slot = in.k_slot.slice<0>(0, 1); },
                 "k_slot is [1, 6, 2, 8]");
  expect_refused([](Inputs& in, Outputs&) { in.v = in.v.slice<3>(0, 3); },
                 "v is [2, 6, 2, 3]; expected [2, 6, 2, 4]");
  expect_refused([](Inputs& in, Outputs&) { in.log_gate = in.log_gate.slice<3>(0, 3); },
                 "log_gate is [2, 6, 2, 3]; expected [2, 6, 2, 8]");
  expect_refused([&](Inputs& in, Outputs&) { in.write = in.log_gate.slice<3>(0, 3); },
                 "write is [2, 6, 2, 3]; expected [2, 6, 2, 8]");
  expect_refused([](Inputs&, Outputs& out) { out.o = out.o.slice<2>(0, 3); },
                 "o has 3 query heads; expected a multiple of the 2 key/value heads");
  expect_refused([](Inputs&, Outputs& out) { out.lse = out.lse.slice<1>(0, 3); },
                 "lse is [2, 3, 4]; expected [2, 6, 4]");
  expect_refused([](Inputs&, Outputs& out) { out.slot_share = out.slot_share.slice<0>(0, 1); },
                 "slot_share is [1, 6, 4]; expected [2, 6, 4]");
}

TEST_F(Validate, RefusesMissingData) {
  expect_refused(
      [](Inputs& in, Outputs&) {
        in.v = View4(nullptr, {2, 6, 2, 4});
      },
      "v has no data");
  expect_refused(
      [](Inputs& in, Outputs&) {
        in.q_slot = View4(nullptr, {2, 6, 4, 8});
      },
      "q_slot has no data");
  expect_refused([](Inputs&, Outputs& out) { out.o = {nullptr, {2, 6, 4, 4}}; }, "o has no data");
  expect_refused([](Inputs& in, Outputs&) { in.k_window = {}; },
                 "k_window was left out; expected [2, 6, ");
  expect_refused([](Inputs& in, Outputs&) { in.v = {}; }, "v was left out; expected [B, T, ");
}

TEST_F(Validate, RefusesStridesItCannotUse) {
  expect_refused(
      [](Inputs& in, Outputs&) {
        in.v = View4(in.v.data(), in.v.extents(), {1, 1, 1, 2});
      },
      "v has stride 2 along its last axis; expected 1");
  expect_refused(
      [](Inputs&, Outputs& out) {
        out.o = {out.o.data(), {2, 6, 4, 4}, {96, 0, 4, 1}};
      },
      "o has stride 0 along axis 1: some of its elements share memory");
  expect_refused(
      [](Inputs&, Outputs& out) {
        out.o = {out.o.data(), {2, 6, 4, 4}, {96, 4, 4, 1}};
      },
      "some of its elements share memory");
}

TEST_F(Validate, RefusesOutputsThatShareMemory) {
  nha::Tensor<float, 4> shared({2, 6, 4, 8});
  expect_refused([](Inputs&, Outputs& out) { out.slot_share = out.lse; },
                 "slot_share shares memory with lse; expected memory of its own");
  expect_refused(
      [&](Inputs& in, Outputs& out) { out.o = shared.view().slice<3>(0, 4), in.q_slot = shared; },
      "o shares memory with q_slot");
  expect_refused(
      [&](Inputs& in, Outputs& out) {
        in.v = shared.view().slice<2>(1, 2).slice<3>(2, 4);
        out.o = shared.view().slice<3>(0, 4);
      },
      "o shares memory with v");
  expect_refused(
      [&](Inputs& in, Outputs& out) {
        in.log_gate = shared.view().slice<2>(0, 2);
        out.lse = {shared.data(), {2, 6, 4}};
      },
      "lse shares memory with log_gate");
}

TEST_F(Validate, TakesOutputsThatLieBetweenEachOther) {
  nha::Tensor<float, 4> packed({2, 6, 4, 6});
  const auto number = [&](Index n) {
    return nha::TensorView<float, nha::Dynamic, nha::Dynamic, nha::Dynamic>(
        packed.data() + n, {2, 6, 4}, {6 * 4 * 6, 4 * 6, 6});
  };
  AttentionState<float> state(case_.attention_shape(), {.window = 3}), again = state;
  nha::Workspace workspace;
  nha::prefill(case_.inputs(), state, outputs_.views(), workspace);
  nha::prefill(case_.inputs(), again,
               {.o = packed.view().slice<3>(0, 4), .lse = number(4), .slot_share = number(5)},
               workspace);
  for (Index i = 0; i < outputs_.lse.size(); ++i) {
    EXPECT_EQ(packed.data()[6 * i], outputs_.o.data()[4 * i]);
    EXPECT_EQ(packed.data()[6 * i + 4], outputs_.lse.data()[i]);
    EXPECT_EQ(packed.data()[6 * i + 5], outputs_.slot_share.data()[i]);
  }
}

TEST_F(Validate, TakesOneTensorAsTwoInputs) {
  Inputs in = case_.inputs();
  in.q_slot = in.q_window;
  in.k_slot = in.k_window;
  AttentionState<float> state(case_.attention_shape(), {.window = 3});
  nha::Workspace workspace;
  nha::prefill(in, state, outputs_.views(), workspace);
  EXPECT_EQ(state.tokens_seen(1), 6);
}

TEST_F(Validate, ShapesAreCheckedWithoutReadingValues) {
  const nha::AttentionShape shape = case_.attention_shape();
  const nha::AttentionOptions options{.window = 3};
  case_.log_gate(1, 4, 0, 7) = 1;
  nha::validate_shapes(case_.inputs(), shape, options, outputs_.views());
  NHA_EXPECT_ERROR(nha::validate_values(case_.inputs(), shape), nha::ArgumentError,
                   "log_gate of sequence row 1, token 4, head 0, slot 7 is 1");
  // Of tensors that this machine cannot read, on a device for instance.
  auto elsewhere = [place = std::uintptr_t{1} << 40](auto view) mutable {
    using View = decltype(view);
    auto* data = reinterpret_cast<decltype(view.data())>(place += std::uintptr_t{1} << 30);
    return View(data, view.extents());
  };
  const Inputs in = case_.inputs();
  const Outputs out = outputs_.views();
  nha::validate_shapes(Inputs{.q_window = elsewhere(in.q_window),
                              .k_window = elsewhere(in.k_window),
                              .q_slot = elsewhere(in.q_slot),
                              .k_slot = elsewhere(in.k_slot),
                              .v = elsewhere(in.v),
                              .log_gate = elsewhere(in.log_gate)},
                       shape, options, Outputs{.o = elsewhere(out.o)});
}

TEST_F(Validate, RefusesGatesAboveZeroAndNaN) {
  for (const float bad : {1e-6f, 1.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    case_.log_gate(1, 4, 0, 7) = bad;
    expect_refused([](Inputs&, Outputs&) {},
                   "log_gate of sequence row 1, token 4, head 0, slot 7 is ");
  }
  case_.log_gate(1, 4, 0, 7) = 0;  // retains all: allowed
  AttentionState<float> state(case_.attention_shape(), {.window = 3});
  nha::Workspace workspace;
  nha::prefill(case_.inputs(), state, outputs_.views(), workspace);
  EXPECT_EQ(state.tokens_seen(1), 6);
}

TEST_F(Validate, TrustedGatesAreNotLookedAtAndNaNStaysInItsHead) {
  case_.log_gate(1, 2, 0, 7) = std::numeric_limits<float>::quiet_NaN();
  Inputs in = case_.inputs();
  in.trust_gates = true;
  AttentionState<float> state(case_.attention_shape(), {.window = 3});
  nha::Workspace workspace;
  nha::prefill(in, state, outputs_.views(), workspace);
  EXPECT_TRUE(std::isnan(outputs_.o(1, 5, 0, 0)));
  EXPECT_FALSE(std::isnan(outputs_.o(0, 5, 0, 0)));
  EXPECT_FALSE(std::isnan(outputs_.o(1, 5, outputs_.o.extent(2) - 1, 0)));
}

TEST_F(Validate, RefusesWriteStrengthsThatAreNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    case_.write(0, 2, 1, 3) = bad;
    expect_refused([&](Inputs& in, Outputs&) { in.write = case_.write; },
                   "write of sequence row 0, token 2, head 1, slot 3 is ");
  }
}

TEST_F(Validate, RefusesABatchThatIsNotTheStates) {
  Inputs in = case_.inputs().tokens(0, 6);
  AttentionState<float> state({.batch = 3, .kv_heads = 2, .key_dim = 8, .value_dim = 4, .slots = 8},
                              {.window = 3});
  nha::Workspace workspace;
  NHA_EXPECT_ERROR(nha::prefill(in, state, outputs_.views(), workspace), nha::ArgumentError,
                   "the inputs hold 2 sequences; the state holds 3");
}

TEST(ValidateOffsets, RefusesOffsetsThatDoNotFit) {
  const RandomCase<float> c({.lengths = {2, 3}});
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state(c.attention_shape());
  nha::Workspace workspace;
  const auto expect = [&](std::vector<std::int64_t> offsets, const char* message) {
    auto in = c.inputs();
    in.cu_seqlens = offsets;
    NHA_EXPECT_ERROR(nha::prefill(in, state, out.views(), workspace), nha::ArgumentError, message);
  };
  expect({0, 5}, "cu_seqlens has 2 entries; the state's 2 sequences need 3");
  expect({0, 2, 4}, "cu_seqlens goes from 0 to 4; expected 0 to 5");
  expect({1, 2, 5}, "cu_seqlens goes from 1 to 5; expected 0 to 5");
  expect({0, 7, 5}, "cu_seqlens falls from 7 to 5 at entry 2");
  EXPECT_EQ(state.tokens_seen(0), 0);
}

TEST(ValidateOptional, InputsThatNothingReadsMayBeLeftOut) {
  const RandomCase<float> c({.tokens = 9});
  nha::Workspace workspace;
  nha::Tensor<float, 4> o({1, 9, 1, 16});
  AttentionState<float> no_window(c.attention_shape(), {.window = 0});
  nha::prefill({.q_slot = c.q_slot, .k_slot = c.k_slot, .v = c.v, .log_gate = c.log_gate},
               no_window, {.o = o}, workspace);
  EXPECT_EQ(no_window.tokens_seen(0), 9);
  auto shape = c.attention_shape();
  shape.slots = 0;
  AttentionState<float> no_slots(shape, {.window = 4});
  nha::prefill({.q_window = c.q_window, .k_window = c.k_window, .v = c.v}, no_slots, {.o = o},
               workspace);
  EXPECT_EQ(no_slots.tokens_seen(0), 9);
}

}  // namespace
