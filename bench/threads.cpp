// SPDX-License-Identifier: MIT
// Two threads against one, by the time on the wall. `speedup` is the median over the rounds;
// `peak_speedup` is what two threads gain in the register-only loop in the same round: the
// machine's own limit, below 2 where two threads share a core or a clock.
#include "support/decode_problem.hpp"
#include "support/measure.hpp"
#include "support/prefill_problem.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

/// Times `work` on one and on two threads; it takes the executor.
template <class Work>
void compare(benchmark::State& state, double tokens, Work work) {
  nha::ThreadPool pool(2);
  const nha::Serial serial;
  const Timed one([&] { work(serial); });
  const Timed two([&] { work(pool); });
  constexpr int kLoops = 8;
  const auto loop = [](Index, Index) noexcept { fma_loop(); };
  const Timed loop_one([&] { serial.run(kLoops, loop); });
  const Timed loop_two([&] { pool.run(kLoops, loop); });
  const auto count = static_cast<std::size_t>(rounds());
  std::vector<double> times(count), speedup(count), peak_speedup(count);
  for (auto _ : state) {
    for (std::size_t round = 0; round < count; ++round) {
      times[round] = two.seconds(wall_seconds);
      speedup[round] = one.seconds(wall_seconds) / times[round];
      peak_speedup[round] = loop_one.seconds(wall_seconds) / loop_two.seconds(wall_seconds);
    }
    state.SetIterationTime(median(times));
  }
  state.counters["ns/token"] = 1e9 * median(times) / tokens;
  state.counters["speedup"] = median(speedup);
  state.counters["peak_speedup"] = median(peak_speedup);
}

void add_prefill(const PrefillSize& size) {
  add_benchmark("threads/prefill/" + size.name(), [size](benchmark::State& state) {
    PrefillProblem problem(size);
    if (!problem.agrees_with_reference(state)) return;
    const nha::Tensor<float, 4> expected = problem.out.o;
    nha::ThreadPool pool(2);
    problem.run(pool);
    if (!agrees(state, "one thread", problem.out.o.data(), expected.data(), expected.size(), 1e-5))
      return;
    compare(state, size.query_tokens(), [&](auto& executor) { problem.run(executor); });
  });
}

void add_decode(const DecodeSize& size) {
  add_benchmark("threads/decode/" + size.name(), [size](benchmark::State& state) {
    DecodeProblem<float> problem(size);
    if (!problem.agrees_with_reference(state)) return;
    problem.go_to(size.past);
    compare(state, size.query_tokens(), [&](auto& executor) { problem.run(executor); });
  });
}

const Group group([] {
  for (Index dim : {64, 128}) {
    for (Index kv_heads : {1, 2, 3, 8})
      add_prefill({.dim = dim, .tokens = 8192, .kv_heads = kv_heads});
    add_prefill({.dim = dim, .tokens = 32768});
    add_prefill({.slots = 0, .window = 4096, .dim = dim, .tokens = 4096});
    add_decode({.dim = dim, .batch = 1, .kv_heads = 8});
    add_decode({.dim = dim, .batch = 64});
  }
});

}  // namespace
