// SPDX-License-Identifier: MIT
// Prefill: slots and window (prefill/), slots alone (W:0) and a window alone (M:0).
#include "support/measure.hpp"
#include "support/prefill_problem.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

void prefill(benchmark::State& state, const PrefillSize& size) {
  PrefillProblem problem(size);
  if (!problem.agrees_with_reference(state)) return;
  measure(state,
          {.operations = size.operations() * size.query_tokens(), .tokens = size.query_tokens()},
          [&] { problem.run(); });
  state.counters["workspace_bytes"] = static_cast<double>(problem.workspace.bytes());
  state.counters["state_bytes"] = static_cast<double>(problem.state.bytes());
}

void add(const PrefillSize& size) {
  add_benchmark("prefill/" + size.name(),
                [size](benchmark::State& state) { prefill(state, size); });
}

const Group group([] {
  for (Index dim : {64, 128}) {
    for (Index tokens : {2048, 8192, 32768}) {
      for (Index window : {16, 64, 256}) add({.window = window, .dim = dim, .tokens = tokens});
      add({.window = 0, .dim = dim, .tokens = tokens});
      add({.slots = 0, .dim = dim, .tokens = tokens});
      add({.dim = dim, .tokens = tokens, .group = 8});
    }
    for (Gates gates : {Gates::slow, Gates::mixed, Gates::fast})
      add({.dim = dim, .tokens = 8192, .gates = gates});
  }
});

}  // namespace
