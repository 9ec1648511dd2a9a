// SPDX-License-Identifier: MIT
// Runs the operator through two files compiled for different processors and compares the results.
#include <nha/attention/reference.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor.hpp>

#include <cmath>
#include <cstdio>
#include <string>

#include "run.hpp"

namespace {

int failures = 0;

void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

double largest_difference(const nha::Tensor<float, 4>& a, const nha::Tensor<float, 4>& b) {
  double largest = 0;
  for (nha::Index i = 0; i < a.size(); ++i)
    largest = std::fmax(largest, std::fabs(double{a.data()[i]} - double{b.data()[i]}));
  return largest;
}

}  // namespace

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi2")) {
    std::puts("skipped: this processor does not run x86-64-v3");
    return 77;
  }

  constexpr nha::Index tokens = 50, heads = 2, dim = 24, slots = 20;
  nha::Tensor<float, 4> q({1, tokens, heads, dim}), k({1, tokens, heads, dim});
  nha::Tensor<float, 4> v({1, tokens, heads, dim}), gate({1, tokens, heads, slots});
  for (nha::Index i = 0; i < q.size(); ++i) {
    const auto x = static_cast<float>(i);
    q.data()[i] = std::sin(0.37f * x);
    k.data()[i] = std::cos(0.61f * x);
    v.data()[i] = std::sin(1.13f * x);
  }
  for (nha::Index i = 0; i < gate.size(); ++i) gate.data()[i] = -0.01f * static_cast<float>(i % 29);
  nha::AttentionInputs<float> inputs{
      .q_window = q, .k_window = k, .q_slot = q, .k_slot = k, .v = v, .log_gate = gate};
  const nha::AttentionShape shape{
      .kv_heads = heads, .key_dim = dim, .value_dim = dim, .slots = slots};
  constexpr nha::Index window = 7;

  nha::Tensor<float, 4> expected({1, tokens, heads, dim}), baseline(expected), v3(expected);
  nha::AttentionState<float> state(shape, {.window = window});
  nha::reference(inputs, state, nha::AttentionOutputs<float>{.o = expected});

  const int narrow = nha_test::baseline_run(inputs, shape, window, {.o = baseline});
  const int wide = nha_test::v3_run(inputs, shape, window, {.o = v3});
  std::printf("floats in a vector: %d and %d\n", narrow, wide);
  expect(narrow == 4 && wide == 8, "each file has the vectors of its own flags");
  const double narrow_error = largest_difference(baseline, expected);
  const double wide_error = largest_difference(v3, expected);
  std::printf("largest errors: %g and %g\n", narrow_error, wide_error);
  expect(narrow_error < 1e-5 && wide_error < 1e-5, "both agree with the reference");
  expect(largest_difference(expected, nha::Tensor<float, 4>(expected.extents())) > 0.1,
         "the reference is not zero");

#if NHA_HAS_EXCEPTIONS
  // An error raised in one file is caught in another.
  for (const auto run : {nha_test::baseline_run, nha_test::v3_run}) {
    std::string message;
    gate(0, 3, 1, 5) = 0.5f;
    try {
      run(inputs, shape, window, {.o = v3});
    } catch (const nha::ArgumentError& error) {
      message = error.what();
    }
    expect(message.find("log_gate") != std::string::npos, "a gate above 0 is an ArgumentError");
  }
#endif
  return failures == 0 ? 0 : 1;
}
