// SPDX-License-Identifier: MIT
// One backward to measure: its count of operations, its tensors and the call.
#pragma once

#include <nha/io/attention_case_gradients.hpp>
#include <nha/nha.hpp>

#include <algorithm>
#include <random>
#include <string>

#include "check.hpp"
#include "prefill_problem.hpp"

namespace nha_bench {

/// Operations of the backward per token and query head, counted as those of PrefillSize are:
///   slots    from a chunk's start, 5 products of a row with the slots (logits, derivatives by the
///            weights, d_query, and what the row adds to the gradients of slot keys and of slot
///            values): 10MD; 6 per token of a key/value head, shared by its G query heads (the
///            update of keys and values, the gradients of the entering key and value, and the
///            products of those of the slots with both): 12MD/G; pairs inside a chunk of 16 tokens
///            80(D + M)
///   window   5 products: 10WD; where the window holds every token 5(T + 1)D on average
inline double backward_operations(const PrefillSize& size) {
  const auto m = static_cast<double>(size.slots);
  const auto w = static_cast<double>(size.window);
  const auto d = static_cast<double>(size.dim);
  const auto t = static_cast<double>(size.tokens);
  const double seen = size.window >= size.tokens ? (t + 1) / 2 : w;
  const double of_slots =
      size.slots == 0 ? 0
                      : 10 * m * d + 12 * m * d / static_cast<double>(size.group) + 80 * (d + m);
  return of_slots + 10 * seen * d;
}

/// A prefill from an empty state, and the gradients of its inputs for a loss with a random
/// derivative by each output.
class BackwardProblem {
 public:
  using Gradients = nha::AttentionCaseGradients<float>;

  explicit BackwardProblem(const PrefillSize& size)
      : forward(size), before(forward.state), d_o(forward.out.o.extents()), gradients(make()) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& x : d_o.values()) x = normal(random);
  }

  /// The forward pass, which keeps o and lse.
  void run_forward() {
    forward.state.reset();
    nha::prefill(forward.inputs, forward.state, {.o = forward.out.o, .lse = forward.out.lse},
                 forward.workspace);
  }
  /// The backward, given what run_forward() has kept.
  void run() {
    nha::backward(forward.inputs, before, {.o = forward.out.o, .lse = forward.out.lse}, {.o = d_o},
                  gradients.views<float>(), workspace);
  }

  /// Whether run() gives what reference_backward() does for a loss of the first few hundred tokens
  /// alone, whose gradients later tokens have no part in.
  bool agrees_with_reference(benchmark::State& bench) {
    const Index tokens = std::min<Index>(forward.data.shape.tokens, 512);
    const nha::Tensor<float, 4> all = d_o;
    std::fill(d_o.data() + tokens * d_o.extent(2) * d_o.extent(3), d_o.data() + d_o.size(), 0.0f);
    run_forward();
    run();
    Gradients expected = make();
    const auto views = expected.views<float>();
    const auto first = [&](const auto& view) { return view.template slice<1>(0, tokens); };
    nha::reference_backward(forward.inputs.tokens(0, tokens), before, {.o = first(d_o.view())},
                            {.q_window = first(views.q_window),
                             .k_window = first(views.k_window),
                             .q_slot = first(views.q_slot),
                             .k_slot = first(views.k_slot),
                             .v = first(views.v),
                             .log_gate = first(views.log_gate)});
    d_o = all;
    bool agree = true;
    nha::for_each_gradient(
        [&](const std::string& input, const auto& ours, const auto& theirs) {
          // Those of later tokens are 0 in both.
          agree = agree && agrees(bench, ("reference_backward: " + input).c_str(), ours.data(),
                                  theirs.data(), theirs.size());
        },
        gradients, expected);
    return agree;
  }

  PrefillProblem forward;
  nha::AttentionState<float> before;
  nha::Tensor<float, 4> d_o;
  Gradients gradients;
  nha::Workspace workspace;

 private:
  /// Gradients of all inputs, 0.
  Gradients make() const {
    const auto& data = forward.data;
    const auto like = [](const auto& tensor) { return nha::Tensor<float, 4>(tensor.extents()); };
    Gradients made;
    made.q_window = like(data.q_window);
    made.k_window = like(data.k_window);
    made.q_slot = like(data.q_slot);
    made.k_slot = like(data.k_slot);
    made.v = like(data.v);
    made.log_gate = like(data.log_gate);
    return made;
  }
};

}  // namespace nha_bench
