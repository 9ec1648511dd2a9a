// SPDX-License-Identifier: MIT
// Decode: one token of each sequence, for batches, groups of query heads and stored types; and
// decode/context/, whose cost must not depend on the tokens before it.
#include "support/decode_problem.hpp"
#include "support/measure.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

template <class T>
void decode(benchmark::State& state, const DecodeSize& size) {
  DecodeProblem<T> problem(size);
  if (!problem.agrees_with_reference(state)) return;
  problem.go_to(size.past);
  measure(state,
          {.operations = size.operations() * size.query_tokens(),
           .tokens = size.query_tokens(),
           .bytes = size.template bytes<T>(),
           .written = size.template written<T>()},
          [&] { problem.run(); });
  state.counters["state_bytes"] = static_cast<double>(problem.state.bytes());
}

template <class T>
void add(const std::string& kind, const DecodeSize& size) {
  add_benchmark("decode/" + kind + size.name() + "/" + nha::dtype_name<T>(),
                [size](benchmark::State& state) { decode<T>(state, size); });
}

const Group group([] {
  for (Index dim : {64, 128}) {
    for (Index batch : {1, 8, 64})
      for (Index queries : {1, 3, 8})
        add<float>("", {.dim = dim, .batch = batch, .group = queries});
    // 32 key/value heads: the state of a batch sits in L3 or in memory.
    for (Index batch : {1, 8, 64}) {
      const DecodeSize size{.dim = dim, .batch = batch, .kv_heads = 32};
      add<float>("", size);
      add<nha::bfloat16>("", size);
      add<nha::float16>("", size);
    }
    add<nha::bfloat16>("", {.dim = dim});
    add<nha::float16>("", {.dim = dim});
    for (Index past : {128, 1024, 8192, 32768, 131072})
      add<float>("context/", {.dim = dim, .past = past});
  }
});

}  // namespace
