// SPDX-License-Identifier: MIT
// Prefill: slots and window (prefill/), slots alone (W:0) and a window alone (M:0).
#include <optional>
#include <vector>

#include "support/measure.hpp"
#include "support/prefill_problem.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

constexpr Index kShortest = 2048;  // tokens

void prefill(benchmark::State& state, const PrefillSize& size) {
  PrefillProblem problem(size);
  if (!problem.agrees_with_reference(state)) return;
  // Per query head and token: what a group gains, and what a long input costs.
  std::vector<Competitor> competitors;
  std::optional<PrefillProblem> ungrouped, shorter, participate;
  if (size.group > 1) {
    PrefillSize other = size;
    other.group = 1;
    ungrouped.emplace(other);
    competitors.push_back(
        {"over_G:1", [&] { ungrouped->run(); }, 1 / static_cast<double>(size.group)});
  }
  if (size.tokens > kShortest) {
    PrefillSize other = size;
    other.tokens = kShortest;
    shorter.emplace(other);
    competitors.push_back({"over_T:2048", [&] { shorter->run(); },
                           static_cast<double>(kShortest) / static_cast<double>(size.tokens)});
  }
  if (size.empty_slots != nha::EmptySlots::participate) {
    PrefillSize other = size;
    other.empty_slots = nha::EmptySlots::participate;
    participate.emplace(other);
    competitors.push_back({"over_participate", [&] { participate->run(); }});
  }
  measure(
      state, {.operations = size.operations() * size.query_tokens(), .tokens = size.query_tokens()},
      [&] { problem.run(); }, competitors);
  state.counters["workspace_bytes"] = static_cast<double>(problem.workspace.bytes());
  state.counters["state_bytes"] = static_cast<double>(problem.state.bytes());
}

void add(const PrefillSize& size) {
  add_benchmark("prefill/" + size.name(),
                [size](benchmark::State& state) { prefill(state, size); });
}

const Group group([] {
  for (Index dim : {64, 128}) {
    for (Index tokens : {kShortest, Index{8192}, Index{32768}}) {
      for (Index window : {16, 64, 256}) add({.window = window, .dim = dim, .tokens = tokens});
      add({.window = 0, .dim = dim, .tokens = tokens});
      add({.slots = 0, .dim = dim, .tokens = tokens});
      add({.dim = dim, .tokens = tokens, .group = 8});
    }
    for (Gates gates : {Gates::slow, Gates::mixed, Gates::fast})
      add({.dim = dim, .tokens = 8192, .gates = gates});
    add({.dim = dim, .tokens = kShortest, .empty_slots = nha::EmptySlots::mass_corrected});
  }
});

}  // namespace
