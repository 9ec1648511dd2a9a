// SPDX-License-Identifier: MIT
// Wrong arguments of the backward are named before anything is touched.
#include <nha/attention/reference_backward.hpp>
#include <nha/attention/validate_backward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using Inputs = nha::AttentionInputs<float>;
using Given = nha::AttentionCotangents<float>;
using Wanted = nha::AttentionGradients<float>;

class ValidateBackward : public ::testing::Test {
 protected:
  /// Spoils good arguments with `spoil` and expects the message, no gradient written.
  void expect_refused(const std::function<void(Inputs&, Given&, Wanted&)>& spoil,
                      const std::string& message) {
    Inputs in = case_.inputs();
    Given given = cotangents_.views();
    Gradients<float> gradients = unwritten_gradients(case_);
    Wanted wanted = gradients.views<float>();
    spoil(in, given, wanted);
    NHA_EXPECT_ERROR(nha::reference_backward(in, state_, given, wanted), nha::ArgumentError,
                     message);
    nha::for_each_gradient(
        [](const char*, const auto& tensor) {
          for (const float value : tensor.values()) ASSERT_TRUE(std::isnan(value));
        },
        gradients);
  }

  RandomCase<float> case_{CaseShape{.batch = 2,
                                    .tokens = 6,
                                    .kv_heads = 2,
                                    .group = 2,
                                    .key_dim = 8,
                                    .value_dim = 4,
                                    .slots = 3,
                                    .explicit_write = true}};
  Cotangents<float> cotangents_ = random_cotangents<float>(case_.shape);
  nha::AttentionState<float> state_{case_.attention_shape(), {.window = 3}};
};

TEST_F(ValidateBackward, RefusesInputsAsTheForwardDoes) {
  expect_refused([](Inputs& in, Given&, Wanted&) { in.k_slot = in.k_slot.slice<0>(0, 1); },
                 "k_slot is [1, 6, 2, 8]; expected [2, 6, 2, 8]");
  expect_refused([](Inputs& in, Given&, Wanted&) { in = in.tokens(0, 5); },
                 "cotangents.o is [2, 6, 4, 4]; expected [2, 5, 4, 4]");
  case_.log_gate(1, 4, 0, 2) = 1;
  expect_refused([](Inputs&, Given&, Wanted&) {},
                 "log_gate of sequence row 1, token 4, head 0, slot 2 is 1");
}

TEST_F(ValidateBackward, NamesTheCotangentThatDoesNotFit) {
  expect_refused([](Inputs&, Given& given, Wanted&) { given.o = given.o.slice<2>(0, 3); },
                 "cotangents.o has 3 query heads; expected a multiple of the 2 key/value heads");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.o = {}; },
                 "cotangents.o has 0 query heads");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.o = given.o.slice<3>(0, 3); },
                 "cotangents.o is [2, 6, 4, 3]; expected [2, 6, 4, 4]");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.lse = given.lse.slice<1>(0, 3); },
                 "cotangents.lse is [2, 3, 4]; expected [2, 6, 4]");
  expect_refused(
      [](Inputs&, Given& given, Wanted&) { given.slot_share = given.slot_share.slice<2>(0, 3); },
      "cotangents.slot_share is [2, 6, 3]; expected [2, 6, 4]");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.slot_k = given.slot_v; },
                 "cotangents.slot_k is [2, 2, 3, 4]; expected [2, 2, 3, 8]");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.slot_v = given.slot_v.slice<0>(0, 1); },
                 "cotangents.slot_v is [1, 2, 3, 4]; expected [2, 2, 3, 4]");
  expect_refused([](Inputs&, Given& given, Wanted&) { given.mass = given.mass.slice<2>(0, 2); },
                 "cotangents.mass is [2, 2, 2]; expected [2, 2, 3]");
  expect_refused(
      [](Inputs&, Given& given, Wanted&) {
        given.slot_v = {given.slot_v.data(), {2, 2, 3, 4}, {24, 12, 1, 3}};
      },
      "cotangents.slot_v has stride 3 along its last axis; expected 1");
}

TEST_F(ValidateBackward, NamesTheGradientThatDoesNotFit) {
  expect_refused([](Inputs&, Given&, Wanted& w) { w.q_window = w.k_slot; },
                 "gradients.q_window is [2, 6, 2, 8]; expected [2, 6, 4, 8]");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.k_window = w.v; },
                 "gradients.k_window is [2, 6, 2, 4]; expected [2, 6, 2, 8]");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.q_slot = w.q_slot.slice<1>(1, 5); },
                 "gradients.q_slot is [2, 5, 4, 8]");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.k_slot = w.q_slot; }, "gradients.k_slot is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.v = w.k_slot; }, "gradients.v is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.log_gate = w.v; }, "gradients.log_gate is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.write = w.v; }, "gradients.write is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.slot_k = w.slot_v; }, "gradients.slot_k is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.slot_v = w.slot_k; }, "gradients.slot_v is");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.mass = w.mass.slice<0>(0, 1); },
                 "gradients.mass is [1, 2, 3]; expected [2, 2, 3]");
}

TEST_F(ValidateBackward, RefusesGradientsThatShareMemory) {
  expect_refused(
      [](Inputs&, Given&, Wanted& w) {
        w.v = {w.v.data(), {2, 6, 2, 4}, {48, 0, 4, 1}};
      },
      "gradients.v has stride 0 along axis 1: some of its elements share memory");
  expect_refused(
      [](Inputs&, Given&, Wanted& w) {
        w.mass = {w.mass.data(), {2, 2, 3}, {0, 3, 1}};
      },
      "gradients.mass has stride 0 along axis 0");
  expect_refused(
      [](Inputs&, Given&, Wanted& w) { w.q_window = w.q_slot; },
      "gradients.q_slot shares memory with gradients.q_window; expected memory of its own");
  expect_refused([](Inputs&, Given&, Wanted& w) { w.k_window = w.k_slot; },
                 "gradients.k_slot shares memory with gradients.k_window");
  expect_refused(
      [](Inputs&, Given&, Wanted& w) {
        w.log_gate = {w.v.data() + 1, {2, 6, 2, 3}, {48, 8, 4, 1}};
      },
      "gradients.log_gate shares memory with gradients.v");
}

TEST_F(ValidateBackward, RefusesGradientsThatShareMemoryWithWhatIsRead) {
  const auto writable = [](const float* data) { return const_cast<float*>(data); };
  expect_refused(
      [&](Inputs& in, Given&, Wanted& w) {
        w.v = {writable(in.v.data()), {2, 6, 2, 4}};
      },
      "gradients.v shares memory with v; expected memory of its own");
  expect_refused(
      [&](Inputs& in, Given&, Wanted& w) {
        w.write = {writable(in.log_gate.data()), {2, 6, 2, 3}};
      },
      "gradients.write shares memory with log_gate");
  expect_refused(
      [&](Inputs&, Given& given, Wanted& w) {
        w.slot_k = {writable(given.slot_k.data()), {2, 2, 3, 8}};
      },
      "gradients.slot_k shares memory with cotangents.slot_k");
  expect_refused(
      [&](Inputs&, Given& given, Wanted& w) {
        w.mass = {writable(given.o.data()), {2, 2, 3}};
      },
      "gradients.mass shares memory with cotangents.o");
}

TEST_F(ValidateBackward, RefusesSavedOutputsThatShareMemoryWithGradients) {
  Gradients<float> gradients = unwritten_gradients(case_);
  const Wanted wanted = gradients.views<float>();
  nha::Tensor<float, 3> lse({2, 6, 4});
  nha::validate_saved(case_.inputs(), 4, nha::AttentionSaved<float>{.lse = lse}, wanted);
  const nha::AttentionSaved<float> saved{.lse = {gradients.q_slot.data(), {2, 6, 4}}};
  NHA_EXPECT_ERROR(nha::validate_saved(case_.inputs(), 4, saved, wanted), nha::ArgumentError,
                   "gradients.q_slot shares memory with saved.lse");
}

TEST_F(ValidateBackward, RefusesAGradientOfWriteStrengthsThatWereNotGiven) {
  expect_refused([](Inputs& in, Given&, Wanted&) { in.write = {}; },
                 "gradients.write is wanted, but the inputs have no write strengths");
}

TEST(ValidateBackwardOptional, GradientsOfInputsThatNothingReadsMayBeAskedFor) {
  const RandomCase<float> c({.tokens = 5});
  const nha::AttentionState<float> no_window(c.attention_shape(), {.window = 0});
  const Cotangents<float> cotangents = random_cotangents<float>(c.shape);
  Gradients<float> gradients = unwritten_gradients(c);
  nha::reference_backward(
      {.q_slot = c.q_slot, .k_slot = c.k_slot, .v = c.v, .log_gate = c.log_gate}, no_window,
      cotangents.views(), gradients.views<float>());
  for (const float value : gradients.q_window.values()) EXPECT_EQ(value, 0);
  for (const float value : gradients.k_window.values()) EXPECT_EQ(value, 0);
}

}  // namespace
