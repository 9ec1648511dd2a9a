// SPDX-License-Identifier: MIT
// Backward, given o and lse of the forward pass: slots and window, slots alone (W:0) and full
// causal attention (M:0, W as long as the text). The counter backward/forward compares with that
// pass.
#include "support/backward_problem.hpp"
#include "support/measure.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

void backward(benchmark::State& state, const PrefillSize& size) {
  BackwardProblem problem(size);
  if (!problem.agrees_with_reference(state)) return;
  measure(state,
          {.operations = backward_operations(size) * size.query_tokens(),
           .tokens = size.query_tokens()},
          [&] { problem.run(); }, {{"backward/forward", [&] { problem.run_forward(); }}});
  state.counters["workspace_bytes"] = static_cast<double>(problem.workspace.bytes());
}

void add(const PrefillSize& size) {
  add_benchmark("backward/" + size.name(),
                [size](benchmark::State& state) { backward(state, size); });
}

const Group group([] {
  for (Index dim : {64, 128}) {
    for (Index window : {0, 16, 64, 256}) add({.window = window, .dim = dim});
    add({.dim = dim, .group = 8});
    for (Index tokens : {2048, 4096})
      add({.slots = 0, .window = tokens, .dim = dim, .tokens = tokens});
  }
});

}  // namespace
