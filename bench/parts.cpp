// SPDX-License-Identifier: MIT
// What the chunked algorithm is made of, at its own shapes: products, exp, softmax, gates and
// decays.
#include <nha/core/tensor.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "support/measure.hpp"
#include "support/registry.hpp"

namespace {

using namespace nha_bench;
using nha::Index;

nha::Tensor<float, 1> random_numbers(Index count, float low, float high) {
  nha::Tensor<float, 1> numbers({count});
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(low, high);
  for (float& number : numbers.values()) number = uniform(random);
  return numbers;
}

/// Shape of a product: C [rows, columns] from A [rows, depth] and B [depth, columns].
struct Product {
  Index rows, columns, depth;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + "x" + std::to_string(depth);
  }
  /// One multiplication and one addition for each of rows * columns * depth.
  double operations() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(columns) *
           static_cast<double>(depth);
  }
};

/// C = A B, or C = factors . C + A^T B as the state update has it.
void product(benchmark::State& state, const Product& p, bool update) {
  const auto a = random_numbers(p.rows * p.depth, -1, 1);
  const auto b = random_numbers(p.depth * p.columns, -1, 1);
  const auto factors = random_numbers(nha::padded(p.rows), 0.1f, 0.9f);
  nha::Tensor<float, 1> c({p.rows * p.columns});
  measure(state, {.operations = p.operations()}, [&] {
    const auto right = nha::cpu::row_major(b.data(), p.columns);
    if (update)
      nha::cpu::gemm(p.rows, p.columns, p.depth, nha::cpu::Transposed<float>{a.data(), p.rows},
                     right, c.data(), p.columns,
                     nha::cpu::ScaleRows<float>{factors.data(), c.data(), p.columns});
    else
      nha::cpu::gemm(p.rows, p.columns, p.depth, nha::cpu::Rows<float>{a.data(), p.depth}, right,
                     c.data(), p.columns, nha::cpu::StartAtZero());
    benchmark::ClobberMemory();
  });
}

// exp over as many numbers as sit in L1; ours/xsimd compares with the vector library's own.
constexpr Index kNumbers = 2048;

template <class F>
Task exp_of_all(const nha::Tensor<float, 1>& in, nha::Tensor<float, 1>& out, F exp) {
  return [&in, &out, exp] {
    nha::cpu::simd::transform<nha::cpu::simd::default_arch>(in.data(), out.data(), kNumbers, exp);
    benchmark::ClobberMemory();
  };
}

void exponential(benchmark::State& state) {
  const auto in = random_numbers(kNumbers, -20, 0);
  nha::Tensor<float, 1> out({kNumbers});
  measure(state, {.tokens = kNumbers},
          exp_of_all(in, out, [](auto x) { return nha::cpu::exp_nonpositive<float>(x); }),
          {{"ours/xsimd", exp_of_all(in, out, [](auto x) {
              using std::exp;  // of a number where there are no vectors
              return exp(x);
            })}});
}

void softmax(benchmark::State& state) {
  constexpr Index kRow = 144;  // 64 slots and a band of 80
  const auto logits = random_numbers(kRow, -8, 8);
  nha::Tensor<float, 1> row({kRow});
  measure(state, {.tokens = kRow}, [&] {
    std::copy_n(logits.data(), kRow, row.data());
    nha::SoftmaxState<float> softmax;
    benchmark::DoNotOptimize(nha::cpu::online_softmax_update(softmax, row.data(), kRow));
    benchmark::DoNotOptimize(softmax.sum);
  });
}

/// A chunk's gates: retention and write strengths of 16 tokens and 64 slots.
struct ChunkGates {
  static constexpr Index kTokens = 16;
  static constexpr Index kSlots = 64;
  nha::Tensor<float, 1> log_gates = random_numbers(kTokens * kSlots, -0.5f, 0);
  nha::Tensor<float, 1> retention{{kTokens * kSlots}};
  nha::Tensor<float, 1> write{{kTokens * kSlots}};

  ChunkGates() { pack(); }
  void pack() {
    for (Index i = 0; i < kTokens; ++i)
      nha::cpu::pack_gates<nha::cpu::simd::default_arch, float>(
          log_gates.data() + i * kSlots, nullptr, kSlots, retention.data() + i * kSlots,
          write.data() + i * kSlots);
  }
  nha::cpu::EnteringGates<float> view() const {
    return {retention.data(), write.data(), kSlots, 0, kTokens};
  }
  /// Pairs (query, entering token, slot) with three operations each; those after the query's own
  /// token do not count.
  static constexpr double kPairs = kTokens * (kTokens + 1) / 2 * kSlots;
};

void gates(benchmark::State& state) {
  ChunkGates chunk;
  measure(state, {.tokens = ChunkGates::kTokens}, [&] {
    chunk.pack();
    benchmark::ClobberMemory();
  });
}

void decay_logits(benchmark::State& state) {
  const ChunkGates chunk;
  const auto pairs = random_numbers(ChunkGates::kTokens * ChunkGates::kTokens, -1, 1);
  auto logits = random_numbers(ChunkGates::kTokens * ChunkGates::kSlots, -1, 1);
  // A pair: logit * retention + pair * write.
  measure(state, {.operations = 3 * ChunkGates::kPairs, .tokens = ChunkGates::kTokens}, [&] {
    nha::cpu::decay_logits(chunk.view(), 1, pairs.data(), ChunkGates::kTokens, logits.data(),
                           ChunkGates::kSlots);
    benchmark::ClobberMemory();
  });
}

void decay_weights(benchmark::State& state) {
  const ChunkGates chunk;
  const auto given = random_numbers(ChunkGates::kTokens * ChunkGates::kSlots, 0.1f, 1);
  nha::Tensor<float, 1> weights = given;
  nha::Tensor<float, 1> of_tokens({ChunkGates::kTokens * ChunkGates::kTokens});
  // A pair: sum + weight * write, weight * retention.
  measure(state, {.operations = 3 * ChunkGates::kPairs, .tokens = ChunkGates::kTokens}, [&] {
    // Weights shrink with every call; begin anew before they leave the normal numbers.
    std::copy_n(given.data(), given.size(), weights.data());
    std::fill_n(of_tokens.data(), of_tokens.size(), 0.0f);
    nha::cpu::decay_weights(chunk.view(), 1, weights.data(), ChunkGates::kSlots, of_tokens.data(),
                            ChunkGates::kTokens);
    benchmark::ClobberMemory();
  });
}

void strengths(benchmark::State& state) {
  const ChunkGates chunk;
  nha::Tensor<float, 1> total({ChunkGates::kSlots});
  nha::Tensor<float, 1> strength({ChunkGates::kTokens * ChunkGates::kSlots});
  measure(state, {.tokens = ChunkGates::kTokens}, [&] {
    nha::cpu::chunk_strengths(chunk.view(), total.data(), strength.data());
    benchmark::ClobberMemory();
  });
}

void add_product(const std::string& kind, const Product& shape, bool update) {
  add_benchmark("parts/" + kind + "/" + shape.name(),
                [=](benchmark::State& state) { product(state, shape, update); });
}

const Group group([] {
  add_product("product", {64, 64, 64}, false);
  for (Index dim : {64, 128}) {
    add_product("slot_logits", {16, 64, dim}, false);
    add_product("slot_output", {16, dim, 64}, false);
    add_product("band_scores", {16, 80, dim}, false);
    add_product("band_output", {16, dim, 80}, false);
    add_product("update", {64, dim, 16}, true);
    add_product("full_scores", {64, 256, dim}, false);
    add_product("full_output", {64, dim, 256}, false);
  }
  add_benchmark("parts/exp", exponential);
  add_benchmark("parts/softmax", softmax);
  add_benchmark("parts/gates", gates);
  add_benchmark("parts/decay_logits", decay_logits);
  add_benchmark("parts/decay_weights", decay_weights);
  add_benchmark("parts/chunk_strengths", strengths);
});

}  // namespace
