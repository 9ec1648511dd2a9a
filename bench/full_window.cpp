// SPDX-License-Identifier: MIT
// The window holds every token: causal softmax attention.
#include "support/measure.hpp"
#include "support/prefill_problem.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

const Group group([] {
  for (Index dim : {64, 128})
    for (Index tokens : {512, 1024, 2048, 4096, 8192}) {
      const PrefillSize size{.slots = 0, .window = tokens, .dim = dim, .tokens = tokens};
      add_benchmark("full_window/D:" + std::to_string(dim) + "/T:" + std::to_string(tokens),
                    [size](benchmark::State& state) {
                      PrefillProblem problem(size);
                      if (!problem.agrees_with_reference(state)) return;
                      measure(state,
                              {.operations = size.operations() * size.query_tokens(),
                               .tokens = size.query_tokens()},
                              [&] { problem.run(); });
                    });
    }
});

}  // namespace
