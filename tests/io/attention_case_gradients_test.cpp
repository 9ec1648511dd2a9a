// SPDX-License-Identifier: MIT
// The gradients of every golden case.
#include <nha/attention/reference_backward.hpp>
#include <nha/io/attention_case.hpp>
#include <nha/io/attention_case_gradients.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>

#include "support/golden.hpp"
#include "support/random_gradients.hpp"

namespace {

using nha::Index;

template <class T>
nha::AttentionCaseGradients<nha::accumulate_t<T>> gradients_of(const nha::AttentionCase<T>& c) {
  nha::AttentionState<T> state(c.shape, c.options);
  if (c.has_initial_slots) state.set_initial_slots(c.initial_slot_k, c.initial_slot_v);
  auto gradients = c.make_gradients();
  nha::reference_backward(c.inputs(), state, c.cotangents.views(), gradients.template views<T>());
  return gradients;
}

/// Compares every gradient that the files have, which must be all but those of `long`.
template <class T>
void expect_golden_gradients(double tolerance, double huge_logits_tolerance) {
  int compared = 0;
  for (const std::string_view name : nha_test::kGoldenCases) {
    SCOPED_TRACE(name);
    const nha::Safetensors file(nha_test::golden_path(name));
    const auto c = nha::read_attention_case<T>(file);
    EXPECT_EQ(c.has_cotangents(), name != "long");
    if (!c.has_cotangents()) continue;
    nha::for_each_gradient(
        [&](const std::string& input, const auto& value, const auto& expected) {
          EXPECT_EQ(value.size(), expected.size()) << input;
          if (expected.size() == 0) return;
          // Where gates are near 0 the expected values come of a 1 - exp(gate) that has lost its
          // digits, 2^-53 of 1; the write strengths here have theirs.
          double largest = 0;
          for (Index i = 0; i < expected.size(); ++i)
            largest = std::max(largest,
                               std::abs(static_cast<double>(value.data()[i]) - expected.data()[i]));
          const double error = nha_test::relative_error(value, expected);
          const double allowed = name == "huge_logits" ? huge_logits_tolerance : tolerance;
          EXPECT_TRUE(error <= allowed || largest <= 0x1p-52 * static_cast<double>(c.tokens))
              << input << ": relative error " << error << ", largest " << largest;
          ++compared;
        },
        gradients_of(c), c.expected_gradients);
  }
  EXPECT_EQ(compared, 28 * 6 + 1 + 2 * 2);  // one with write, two with initial slot keys and values
}

TEST(GoldenGradients, AreMetInDouble) {
  expect_golden_gradients<double>(1e-12, 1e-12);
}
TEST(GoldenGradients, AreMetInFloat) {
  expect_golden_gradients<float>(5e-6, 1e-4);
}

TEST(AttentionCaseGradients, VisitsEachInputOnce) {
  std::set<std::string> names;
  std::set<const void*> tensors;
  const nha::AttentionCaseGradients<double> gradients;
  nha::for_each_gradient(
      [&](const char* name, const auto& tensor, const auto& same) {
        names.insert(name);
        tensors.insert(&tensor);
        EXPECT_EQ(&tensor, &same);
      },
      gradients, gradients);
  EXPECT_EQ(names,
            (std::set<std::string>{"q_window", "k_window", "q_slot", "k_slot", "v", "log_gate",
                                   "write", "initial.slot_k", "initial.slot_v", "initial.mass"}));
  EXPECT_EQ(tensors.size(), names.size());
}

TEST(AttentionCaseGradients, ViewsAreOfTheTensorsByThatName) {
  nha::AttentionCaseGradients<float> gradients;
  gradients.q_slot = nha::Tensor<float, 4>({1, 2, 3, 4});
  gradients.mass = nha::Tensor<float, 3>({1, 2, 3});
  const auto views = gradients.views<nha::bfloat16>();
  EXPECT_EQ(views.q_slot.data(), gradients.q_slot.data());
  EXPECT_EQ(views.mass.data(), gradients.mass.data());
  EXPECT_EQ(views.v.data(), nullptr);
}

}  // namespace
