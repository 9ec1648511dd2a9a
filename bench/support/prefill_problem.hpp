// SPDX-License-Identifier: MIT
// One prefill to measure: its sizes, its count of operations, its tensors and the call.
#pragma once

#include <nha/nha.hpp>

#include <algorithm>
#include <string>
#include <string_view>

#include "check.hpp"
#include "random_case.hpp"

namespace nha_bench {

using nha::Index;
using nha_test::Gates;

inline std::string_view name_of(Gates gates) {
  switch (gates) {
    case Gates::fast:
      return "fast";  // to -40 per token
    case Gates::slow:
      return "slow";  // from -1e-6
    case Gates::mixed:
      return "mixed";  // every speed between
    case Gates::usual:
      break;
  }
  return "usual";  // log_sigmoid / 8, what a layer makes
}

/// Sizes of one call. A window of at least `tokens` is full causal attention.
struct PrefillSize {
  Index slots = 64;
  Index window = 64;
  Index dim = 64;
  Index tokens = 2048;
  Index group = 1;
  Index kv_heads = 1;
  Gates gates = Gates::usual;
  nha::EmptySlots empty_slots = nha::EmptySlots::participate;

  std::string name() const {
    std::string text = "M:" + std::to_string(slots) + "/W:" + std::to_string(window) +
                       "/D:" + std::to_string(dim) + "/T:" + std::to_string(tokens) +
                       "/G:" + std::to_string(group);
    if (kv_heads != 1) text += "/K:" + std::to_string(kv_heads);
    if (empty_slots == nha::EmptySlots::mass_corrected) text += "/mass_corrected";
    return text + "/gates:" + std::string(name_of(gates));
  }

  /// Operations of the algorithm per token and query head (DESIGN of the chunked algorithm;
  /// padding, recomputation and the softmax do not count), two to a multiply-add:
  ///   slots    logits and output from the chunk's start 4MD; state update 4MD, shared by the G
  ///            query heads of a key/value head; pairs inside a chunk of 16 tokens 32(D + M)
  ///   window   scores and output 4WD; where the window holds every token, only the keys at or
  ///            before each query: 2(T + 1)D on average
  double operations() const {
    const auto m = static_cast<double>(slots);
    const auto w = static_cast<double>(window);
    const auto d = static_cast<double>(dim);
    const auto t = static_cast<double>(tokens);
    const double seen = window >= tokens ? (t + 1) / 2 : w;
    const double of_slots =
        slots == 0 ? 0 : 4 * m * d + 4 * m * d / static_cast<double>(group) + 32 * (d + m);
    return of_slots + 4 * seen * d;
  }
  /// Tokens times query heads.
  double query_tokens() const {
    return static_cast<double>(tokens) * static_cast<double>(group * kv_heads);
  }
};

/// Tensors, state and workspace of a call.
class PrefillProblem {
 public:
  explicit PrefillProblem(const PrefillSize& size)
      : data({.tokens = size.tokens,
              .kv_heads = size.kv_heads,
              .group = size.group,
              .key_dim = size.dim,
              .value_dim = size.dim,
              .slots = size.slots,
              .gates = size.gates}),
        out(data.shape),
        state(data.attention_shape(), {.window = size.window, .empty_slots = size.empty_slots}),
        inputs(data.inputs()) {}

  /// All tokens from an empty state; clearing it is part of the call.
  template <class E = const nha::Serial>
  void run(E&& executor = nha::Serial{}) {
    state.reset();
    nha::prefill(inputs, state, {.o = out.o}, workspace, {}, executor);
  }

  /// Whether run() gives what reference() does over the first few hundred tokens.
  bool agrees_with_reference(benchmark::State& bench) {
    run();
    const Index tokens = std::min<Index>(data.shape.tokens, 512);
    nha_test::CaseOutputs<float> expected(data.shape);
    nha::AttentionState<float> fresh(state.shape(), state.options());
    nha::reference(inputs.tokens(0, tokens), fresh, {.o = expected.tokens(0, tokens).o});
    return agrees(bench, "reference", out.o.data(), expected.o.data(),
                  tokens * out.o.extent(2) * out.o.extent(3));
  }

  nha_test::RandomCase<float> data;
  nha_test::CaseOutputs<float> out;
  nha::AttentionState<float> state;
  nha::AttentionInputs<float> inputs;
  nha::Workspace workspace;
};

}  // namespace nha_bench
