// SPDX-License-Identifier: MIT
// Decode: one token of each sequence, for batches, groups of query heads and stored types of the
// tensors and of the slots; and decode/context/, whose cost must not depend on the tokens before
// it.
#include <nha/core/names.hpp>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "support/decode_problem.hpp"
#include "support/measure.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;

template <class T, class SlotScalar>
void decode(benchmark::State& state, const DecodeSize& size) {
  DecodeProblem<T, SlotScalar> problem(size);
  if (!problem.agrees_with_reference(state)) return;
  problem.go_to(size.past);
  // What half storage gains: float32 in the same rounds.
  std::optional<DecodeProblem<float>> wide;
  std::vector<Competitor> competitors;
  if (!std::is_same_v<T, float> || !std::is_same_v<SlotScalar, float>) {
    wide.emplace(size).go_to(size.past);
    competitors.push_back({"ours/float32", [&] { wide->run(); }});
  }
  measure(
      state,
      {.operations = size.operations() * size.query_tokens(),
       .tokens = size.query_tokens(),
       .bytes = size.template bytes<T, SlotScalar>(),
       .written = size.template written<SlotScalar>(),
       .footprint = static_cast<double>(problem.state.bytes())},
      [&] { problem.run(); }, competitors);
  state.counters["state_bytes"] = static_cast<double>(problem.state.bytes());
}

template <class T, class SlotScalar = nha::accumulate_t<T>>
void add(const std::string& kind, const DecodeSize& size) {
  std::string name = "decode/" + kind + size.name() + "/" + nha::dtype_name<T>();
  if (!std::is_same_v<SlotScalar, nha::accumulate_t<T>>)
    name += std::string("/slots:") + nha::dtype_name<SlotScalar>();
  add_benchmark(name, [size](benchmark::State& state) { decode<T, SlotScalar>(state, size); });
}

/// Every storage beside float32.
void add_half(const DecodeSize& size) {
  add<nha::bfloat16>("", size);
  add<nha::float16>("", size);
  add<float, nha::bfloat16>("", size);
  add<float, nha::float16>("", size);
  add<nha::bfloat16, nha::bfloat16>("", size);
  add<nha::float16, nha::float16>("", size);
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
      add_half(size);
    }
    add_half({.dim = dim});
    for (Index past : {128, 1024, 8192, 32768, 131072})
      add<float>("context/", {.dim = dim, .past = past});
  }
});

}  // namespace
