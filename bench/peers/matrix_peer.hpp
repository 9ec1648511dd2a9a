// SPDX-License-Identifier: MIT
// The benchmarks of a peer that offers matrix products. The counter peer/ours is its time over ours
// in the same rounds.
#pragma once

#include <string>

#include "../support/check.hpp"
#include "../support/measure.hpp"
#include "../support/prefill_problem.hpp"
#include "../support/registry.hpp"
#include "blockwise.hpp"
#include "causal.hpp"

namespace nha_bench {

/// Tokens to a block: with Eigen, oneDNN and OpenBLAS alike no slower than 64, and 10 to 30% faster
/// for a window alone.
inline constexpr Index kPeerBlock = 32;

template <class Peer>
void measure_peer(benchmark::State& state, const PrefillSize& size, PrefillProblem& ours,
                  Peer& peer) {
  ours.run();
  peer.run();
  if (!agrees(state, "nha", peer.out.data(), ours.out.o.data(), ours.out.o.size())) return;
  measure(state,
          {.operations = size.operations() * size.query_tokens(), .tokens = size.query_tokens()},
          [&] { peer.run(); }, {{"peer/ours", [&] { ours.run(); }}});
}

/// Adds prefill and full window of a peer.
template <class Products>
void add_matrix_peer(const std::string& name) {
  const auto add = [&](const PrefillSize& size) {
    add_benchmark("prefill/" + size.name() + "/peer:" + name, [size](benchmark::State& state) {
      PrefillProblem ours(size);
      Blockwise<Products> peer(ours.data, size.window, kPeerBlock);
      measure_peer(state, size, ours, peer);
    });
  };
  for (Index dim : {64, 128}) {
    for (Index tokens : {2048, 8192, 32768}) {
      add({.dim = dim, .tokens = tokens});
      add({.window = 0, .dim = dim, .tokens = tokens});
      add({.slots = 0, .dim = dim, .tokens = tokens});
    }
    for (Index tokens : {512, 1024, 2048, 4096, 8192}) {
      const PrefillSize size{.slots = 0, .window = tokens, .dim = dim, .tokens = tokens};
      add_benchmark(
          "full_window/D:" + std::to_string(dim) + "/T:" + std::to_string(tokens) + "/peer:" + name,
          [size](benchmark::State& state) {
            PrefillProblem ours(size);
            Causal<Products> peer(ours.data);
            measure_peer(state, size, ours, peer);
          });
    }
  }
}

}  // namespace nha_bench
