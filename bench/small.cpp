// SPDX-License-Identifier: MIT
// Small calls against the reference algorithm (small/), and odd sizes against the multiple of the
// SIMD width above them (odd/): the counter ours/reference is at most 0.5, odd/even at most 1.25.
#include "support/measure.hpp"
#include "support/prefill_problem.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

/// The tokens of a problem given again and again to one sequence, so that window and slots are full
/// and nothing is cleared.
Task continued(PrefillProblem& problem) {
  return [&problem] {
    nha::prefill(problem.inputs, problem.state, {.o = problem.out.o}, problem.workspace);
  };
}
Task continued_by_reference(PrefillProblem& problem) {
  return [&problem] { nha::reference(problem.inputs, problem.state, {.o = problem.out.o}); };
}

void fill(PrefillProblem& problem) {
  for (Index t = 0; t < 2 * problem.state.options().window; t += problem.data.shape.tokens)
    continued(problem)();
}

void small(benchmark::State& state, const PrefillSize& size) {
  PrefillProblem ours(size);
  PrefillProblem reference(size);
  if (!ours.agrees_with_reference(state)) return;
  fill(ours);
  fill(reference);
  measure(state,
          {.operations = size.operations() * size.query_tokens(), .tokens = size.query_tokens()},
          continued(ours), {{"ours/reference", continued_by_reference(reference)}});
}

void odd(benchmark::State& state, const PrefillSize& size, const PrefillSize& even) {
  PrefillProblem problem(size);
  PrefillProblem neighbour(even);
  if (!problem.agrees_with_reference(state)) return;
  fill(problem);
  fill(neighbour);
  measure(state, {.tokens = size.query_tokens()}, continued(problem),
          {{"odd/even", continued(neighbour)}});
}

void add_odd(const PrefillSize& size, const PrefillSize& even) {
  add_benchmark("odd/" + size.name(), [=](benchmark::State& state) { odd(state, size, even); });
}

const Group group([] {
  for (Index dim : {16, 17, 24, 31, 32})
    for (Index tokens : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64}) {
      const PrefillSize size{.slots = dim, .window = dim, .dim = dim, .tokens = tokens};
      add_benchmark("small/" + size.name(),
                    [size](benchmark::State& state) { small(state, size); });
    }
  // One size at a time is odd: the call may take a quarter more than one with that size rounded up.
  const auto above = [](Index size) { return nha::padded(size); };
  for (Index tokens : {15, 17, 30, 31, 33, 47, 63, 65, 127, 129, 1023, 1025})
    add_odd({.tokens = tokens}, {.tokens = above(tokens)});
  for (Index odd_size : {13, 15, 17, 31, 33, 47, 63, 65, 127}) {
    add_odd({.dim = odd_size, .tokens = 1024}, {.dim = above(odd_size), .tokens = 1024});
    add_odd({.slots = odd_size, .tokens = 1024}, {.slots = above(odd_size), .tokens = 1024});
    add_odd({.window = odd_size, .tokens = 1024}, {.window = above(odd_size), .tokens = 1024});
  }
});

}  // namespace
