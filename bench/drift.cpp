// SPDX-License-Identifier: MIT
// Drift: what storing slots and window in half types costs over 100,000 decoding steps. One
// key/value head with 64 slots and dimension 64 is stepped beside the same layer in double, which
// gets the same numbers. Counters: relative errors (by norm) of the outputs of the last 1,000
// tokens and of the slots at the end.
#include <nha/core/names.hpp>
#include <nha/nha.hpp>

#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "support/registry.hpp"

namespace {

using namespace nha_bench;
using nha::Index;

constexpr Index kDim = 64, kSlots = 64, kWindow = 64, kTokens = 100'000, kCompared = 1'000;

struct Setting {
  std::string gates;
  double log_gate;  // 0: log_sigmoid(x)/8, as a layer makes them
  float mean;       // of slot keys and values
};

/// Tensors of one token.
template <class T>
struct Token {
  nha::Tensor<T, 4> q_window{{1, 1, 1, kDim}}, k_window{{1, 1, 1, kDim}}, q_slot{{1, 1, 1, kDim}},
      k_slot{{1, 1, 1, kDim}}, v{{1, 1, 1, kDim}}, o{{1, 1, 1, kDim}};
  nha::Tensor<nha::accumulate_t<T>, 4> log_gate{{1, 1, 1, kSlots}};

  template <class State>
  void step(State& state, nha::Workspace& workspace) {
    nha::step({.q_window = q_window,
               .k_window = k_window,
               .q_slot = q_slot,
               .k_slot = k_slot,
               .v = v,
               .log_gate = log_gate},
              state, {.o = o}, workspace);
  }
};

/// The sums of squares of which a relative error is made.
struct Error {
  double difference = 0, norm = 0;
  void add(double actual, double expected) {
    difference += (actual - expected) * (actual - expected);
    norm += expected * expected;
  }
  double relative() const { return std::sqrt(difference / norm); }
};

template <class T, class SlotScalar>
void drift(benchmark::State& bench, const Setting& setting) {
  const nha::AttentionShape shape{.key_dim = kDim, .value_dim = kDim, .slots = kSlots};
  nha::AttentionState<T, nha::Dynamic, nha::Dynamic, nha::Dynamic, SlotScalar> state(
      shape, {.window = kWindow});
  nha::AttentionState<double> exact_state(shape, {.window = kWindow});
  Token<T> token;
  Token<double> exact;
  nha::Workspace workspace, exact_workspace;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Error output, slots;
  for (auto _ : bench) {
    for (Index t = 0; t < kTokens; ++t) {
      const auto fill = [&](auto& stored, auto& wide, float mean) {
        for (Index i = 0; i < stored.size(); ++i) {
          stored.data()[i] = T(normal(random) + mean);
          wide.data()[i] = static_cast<double>(nha::widen(stored.data()[i]));
        }
      };
      fill(token.q_window, exact.q_window, 0);
      fill(token.k_window, exact.k_window, 0);
      fill(token.q_slot, exact.q_slot, 0);
      fill(token.k_slot, exact.k_slot, setting.mean);
      fill(token.v, exact.v, setting.mean);
      for (Index m = 0; m < kSlots; ++m) {
        const float usual = -std::log1p(std::exp(-normal(random))) / 8;
        token.log_gate.data()[m] =
            setting.log_gate == 0 ? usual : static_cast<float>(setting.log_gate);
        exact.log_gate.data()[m] = static_cast<double>(token.log_gate.data()[m]);
      }
      token.step(state, workspace);
      exact.step(exact_state, exact_workspace);
      if (t >= kTokens - kCompared)
        for (Index d = 0; d < kDim; ++d)
          output.add(static_cast<double>(nha::widen(token.o.data()[d])), exact.o.data()[d]);
    }
    bench.SetIterationTime(1);
  }
  for (Index m = 0; m < kSlots; ++m)
    for (Index d = 0; d < kDim; ++d) {
      slots.add(static_cast<double>(nha::widen(state.slot_k(0, 0)(m, d))),
                exact_state.slot_k(0, 0)(m, d));
      slots.add(static_cast<double>(nha::widen(state.slot_v(0, 0)(m, d))),
                exact_state.slot_v(0, 0)(m, d));
    }
  bench.counters["output_error"] = output.relative();
  bench.counters["slot_error"] = slots.relative();
}

template <class T, class SlotScalar>
void add(const Setting& setting) {
  add_benchmark("drift/gates:" + setting.gates + "/mean:" + (setting.mean == 0 ? "0" : "1") + "/" +
                    nha::dtype_name<T>() + "/slots:" + nha::dtype_name<SlotScalar>(),
                [setting](benchmark::State& bench) { drift<T, SlotScalar>(bench, setting); });
}

const Group group([] {
  for (const float mean : {0.0f, 1.0f})
    for (const auto& [gates, log_gate] :
         {std::pair{"usual", 0.0}, std::pair{"1e-3", -1e-3}, std::pair{"1e-4", -1e-4}}) {
      const Setting setting{gates, log_gate, mean};
      add<float, float>(setting);
      add<float, nha::float16>(setting);
      add<float, nha::bfloat16>(setting);
      add<nha::float16, float>(setting);
      add<nha::float16, nha::float16>(setting);
      add<nha::bfloat16, float>(setting);
      add<nha::bfloat16, nha::bfloat16>(setting);
    }
});

}  // namespace
