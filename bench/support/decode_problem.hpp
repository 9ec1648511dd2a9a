// SPDX-License-Identifier: MIT
// One decoding step to measure: its sizes, the bytes it must move, its tensors and the call.
#pragma once

#include <nha/nha.hpp>

#include <string>
#include <type_traits>
#include <vector>

#include "check.hpp"
#include "random_case.hpp"

namespace nha_bench {

using nha::Index;

/// Sizes of one step: a token for each of `batch` sequences, which have seen `past` tokens.
struct DecodeSize {
  Index slots = 64;
  Index window = 64;
  Index dim = 64;
  Index batch = 1;
  Index group = 1;
  Index kv_heads = 1;
  Index past = 256;

  std::string name() const {
    return "M:" + std::to_string(slots) + "/W:" + std::to_string(window) +
           "/D:" + std::to_string(dim) + "/B:" + std::to_string(batch) +
           "/G:" + std::to_string(group) + "/K:" + std::to_string(kv_heads) +
           "/past:" + std::to_string(past);
  }
  double states() const { return static_cast<double>(batch * kv_heads); }
  double query_tokens() const { return states() * static_cast<double>(group); }

  /// Operations per query head, two to a multiply-add: slots and window are read for logits and for
  /// the output, 4(M + W)D; the state update, three operations to a number, 6MD, is shared by the
  /// group.
  double operations() const {
    const auto d = static_cast<double>(dim);
    return 4 * static_cast<double>(slots + window) * d +
           6 * static_cast<double>(slots) * d / static_cast<double>(group);
  }
  /// Bytes a step must read: every state's slots, M(Dk + Dv), and window, W(Dk + Dv).
  template <class T, class SlotScalar = nha::accumulate_t<T>>
  double bytes() const {
    return written<SlotScalar>() + states() * static_cast<double>(2 * window * dim) * sizeof(T);
  }
  /// Those of them it writes back: the slots.
  template <class SlotScalar>
  double written() const {
    return states() * static_cast<double>(2 * slots * dim) * sizeof(SlotScalar);
  }
};

/// Tensors, state and workspace of a step; the tokens of a short text are given over and over.
template <class T, class SlotScalar = nha::accumulate_t<T>>
class DecodeProblem {
 public:
  using State = nha::AttentionState<T, nha::Dynamic, nha::Dynamic, nha::Dynamic, SlotScalar>;

  explicit DecodeProblem(const DecodeSize& size)
      : data({.batch = size.batch,
              .tokens = kText,
              .kv_heads = size.kv_heads,
              .group = size.group,
              .key_dim = size.dim,
              .value_dim = size.dim,
              .slots = size.slots}),
        out(data.shape),
        state(data.attention_shape(), {.window = size.window}) {
    for (Index t = 0; t < kText; ++t) {
      tokens.push_back(data.inputs().tokens(t, 1));
      outputs.push_back({.o = out.tokens(t, 1).o});
    }
  }

  /// One step of every sequence.
  template <class E = const nha::Serial>
  void run(E&& executor = nha::Serial{}) {
    nha::step(tokens[next], state, outputs[next], workspace, executor);
    next = (next + 1) % tokens.size();
  }

  /// Starts every sequence anew and gives it `past` tokens, a multiple of kText.
  void go_to(Index past) {
    state.reset();
    next = 0;
    for (Index t = 0; t < past; t += kText)
      nha::prefill(data.inputs(), state, {.o = out.o}, workspace);
  }

  /// Whether steps give what reference() does, once tokens have entered the slots.
  bool agrees_with_reference(benchmark::State& bench) {
    const Index past = (state.options().window / kText + 2) * kText;
    go_to(past);
    State other = state;
    for (Index t = 0; t < kText; ++t) run();
    nha_test::CaseOutputs<T> expected(data.shape);
    nha::reference(data.inputs(), other, {.o = expected.o});
    // Rounding of the stored outputs, or of the slots: 2^-9 and 2^-12.
    const bool half = !std::is_same_v<T, float> || !std::is_same_v<SlotScalar, float>;
    const double tolerance = half ? 1e-2 : 1e-4;
    return agrees(bench, "reference", out.o.data(), expected.o.data(), out.o.size(), tolerance);
  }

  static constexpr Index kText = 8;
  nha_test::RandomCase<T> data;
  nha_test::CaseOutputs<T> out;
  State state;
  nha::Workspace workspace;
  std::vector<nha::AttentionInputs<T>> tokens;
  std::vector<nha::AttentionOutputs<T>> outputs;
  std::size_t next = 0;
};

}  // namespace nha_bench
