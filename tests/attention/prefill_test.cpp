// SPDX-License-Identifier: MIT
// Properties of the operator: however the tokens arrive, the result is the definition's.
#include <nha/nha.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionOptions;
using nha::AttentionState;
using nha::EmptySlots;
using nha::PrefillAlgorithm;
using nha::PrefillOptions;

struct Setting {
  std::string name;
  CaseShape shape;
  AttentionOptions options;
};

std::vector<Setting> settings() {
  return {
      {"defaults", {.tokens = 70}, {.window = 8}},
      {"no window", {.tokens = 70}, {.window = 0}},
      {"window of one", {.tokens = 40}, {.window = 1}},
      {"window beyond the tokens", {.tokens = 50}, {.window = 51}},
      {"window of exactly the tokens", {.tokens = 48}, {.window = 48}},
      {"long window in blocks", {.tokens = 720, .key_dim = 4, .value_dim = 4}, {.window = 600}},
      {"long window, short delay",
       {.tokens = 800, .key_dim = 4, .value_dim = 4},
       {.window = 650, .slot_delay = 30}},
      {"delay 0", {.tokens = 70}, {.window = 16, .slot_delay = 0}},
      {"delay inside the window", {.tokens = 70}, {.window = 16, .slot_delay = 5}},
      {"no slots", {.tokens = 70, .slots = 0}, {.window = 9}},
      {"one slot", {.tokens = 70, .slots = 1}, {.window = 9}},
      {"many slots", {.tokens = 40, .slots = 80}, {.window = 9}},
      {"odd sizes",
       {.batch = 2,
        .tokens = 67,
        .kv_heads = 2,
        .group = 3,
        .key_dim = 33,
        .value_dim = 17,
        .slots = 5},
       {.window = 7}},
      {"one number to a key", {.tokens = 40, .key_dim = 1, .value_dim = 1}, {.window = 5}},
      {"eight queries to a head", {.tokens = 40, .group = 8}, {.window = 16}},
      {"fast gates", {.tokens = 130, .gates = Gates::fast}, {.window = 8}},
      {"slow gates", {.tokens = 130, .gates = Gates::slow}, {.window = 8}},
      {"mixed gates", {.tokens = 200, .slots = 16, .gates = Gates::mixed}, {.window = 8}},
      {"explicit write", {.tokens = 64, .explicit_write = true}, {.window = 8}},
      {"unit scale", {.tokens = 64}, {.window = 8, .softmax_scale = 1.0}},
      {"masked", {.tokens = 64}, {.window = 12, .empty_slots = EmptySlots::masked}},
      {"masked, no window", {.tokens = 64}, {.window = 0, .empty_slots = EmptySlots::masked}},
      {"mass corrected", {.tokens = 64}, {.window = 12, .empty_slots = EmptySlots::mass_corrected}},
      {"mass corrected, no window",
       {.tokens = 64, .gates = Gates::mixed},
       {.window = 0, .empty_slots = EmptySlots::mass_corrected}},
      {"window for each head",
       {.tokens = 80, .kv_heads = 3, .group = 2},
       {.head_windows = {0, 9, 100}}},
      {"batch", {.batch = 3, .tokens = 37, .kv_heads = 2}, {.window = 10}},
      {"packed", {.kv_heads = 2, .group = 2, .lengths = {1, 7, 0, 64, 1, 77}}, {.window = 16}},
      {"nothing but empty sequences", {.lengths = {0, 0}}, {.window = 4}},
      {"no tokens", {.tokens = 0}, {.window = 4}},
      {"no sequences", {.batch = 0, .tokens = 5}, {.window = 4}},
  };
}

template <class T>
struct Tolerance;
template <>
struct Tolerance<double> {
  static constexpr double value = 1e-13;
};
template <>
struct Tolerance<float> {
  static constexpr double value = 2e-6;
};

template <class T>
class Prefill : public ::testing::Test {
 protected:
  /// Runs a case by `options` and compares results and slots with the definition's.
  static void expect_definition(const Setting& setting, const PrefillOptions& options) {
    SCOPED_TRACE(setting.name + ", chunk " + std::to_string(options.chunk));
    const RandomCase<T> c(setting.shape);
    AttentionState<T> expected_state(c.attention_shape(), setting.options);
    AttentionState<T> state(c.attention_shape(), setting.options);
    CaseOutputs<T> expected(c.shape), actual(c.shape);
    nha::Workspace workspace;
    nha::reference(c.inputs(), expected_state, expected.views());
    nha::prefill(c.inputs(), state, actual.views(), workspace, options);
    EXPECT_LT(relative_error(actual, expected), Tolerance<T>::value);
    EXPECT_LT(slot_error(state, expected_state), Tolerance<T>::value);
    for (Index n = 0; n < c.shape.sequences(); ++n)
      EXPECT_EQ(state.tokens_seen(n), expected_state.tokens_seen(n));
  }
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Prefill, Types);

TYPED_TEST(Prefill, ChunkedIsTheDefinition) {
  for (const Setting& setting : settings())
    this->expect_definition(setting, {.algorithm = PrefillAlgorithm::chunked});
}

TYPED_TEST(Prefill, RecurrentIsTheDefinition) {
  for (const Setting& setting : settings())
    this->expect_definition(setting, {.algorithm = PrefillAlgorithm::recurrent});
}

TYPED_TEST(Prefill, AutomaticIsTheDefinition) {
  for (const Setting& setting : settings()) this->expect_definition(setting, {});
}

TYPED_TEST(Prefill, AnyChunkSizeGivesTheSame) {
  const Setting odd{"odd", {.tokens = 67, .group = 2, .key_dim = 9, .slots = 5}, {.window = 7}};
  const Setting early{"early", {.tokens = 67}, {.window = 20, .slot_delay = 3}};
  const Setting packed{"packed", {.lengths = {5, 40, 0, 22}}, {.window = 0}};
  for (const Setting& setting : {odd, early, packed})
    for (Index chunk : {1, 2, 3, 7, 15, 16, 17, 32, 50, 66, 67, 68, 1000})
      this->expect_definition(setting, {.algorithm = PrefillAlgorithm::chunked, .chunk = chunk});
}

TYPED_TEST(Prefill, AnySplitGivesTheSame) {
  using T = TypeParam;
  for (const Setting& setting : settings()) {
    if (!setting.shape.lengths.empty() || setting.shape.batch == 0) continue;
    SCOPED_TRACE(setting.name);
    const RandomCase<T> c(setting.shape);
    AttentionState<T> whole_state(c.attention_shape(), setting.options);
    CaseOutputs<T> whole(c.shape);
    prefill_range(c, whole_state, whole, 0, c.shape.tokens, std::max<Index>(c.shape.tokens, 1));
    for (Index piece : {1, 2, 5, 16, 19, 64}) {
      for (PrefillAlgorithm algorithm : {PrefillAlgorithm::automatic, PrefillAlgorithm::chunked}) {
        AttentionState<T> state(c.attention_shape(), setting.options);
        CaseOutputs<T> out(c.shape);
        prefill_range(c, state, out, 0, c.shape.tokens, piece, {.algorithm = algorithm});
        EXPECT_LT(relative_error(out, whole), Tolerance<T>::value) << "pieces of " << piece;
        EXPECT_LT(slot_error(state, whole_state), Tolerance<T>::value) << "pieces of " << piece;
      }
    }
  }
}

TYPED_TEST(Prefill, StepsAndChunksMixFreely) {
  using T = TypeParam;
  for (const Setting& setting : settings()) {
    if (!setting.shape.lengths.empty() || setting.shape.tokens < 37) continue;
    SCOPED_TRACE(setting.name);
    const RandomCase<T> c(setting.shape);
    AttentionState<T> whole_state(c.attention_shape(), setting.options);
    AttentionState<T> state(c.attention_shape(), setting.options);
    CaseOutputs<T> whole(c.shape), out(c.shape);
    nha::reference(c.inputs(), whole_state, whole.views());
    // 3 steps, a chunk, a step, chunks of a few, steps, the rest.
    prefill_range(c, state, out, 0, 3, 1, {.algorithm = PrefillAlgorithm::recurrent});
    prefill_range(c, state, out, 3, 20, 17, {.algorithm = PrefillAlgorithm::chunked});
    prefill_range(c, state, out, 20, 21, 1, {.algorithm = PrefillAlgorithm::recurrent});
    prefill_range(c, state, out, 21, 33, 2, {.algorithm = PrefillAlgorithm::chunked});
    prefill_range(c, state, out, 33, 36, 1, {.algorithm = PrefillAlgorithm::recurrent});
    prefill_range(c, state, out, 36, c.shape.tokens, c.shape.tokens);
    EXPECT_LT(relative_error(out, whole), Tolerance<T>::value);
    EXPECT_LT(slot_error(state, whole_state), Tolerance<T>::value);
  }
}

TYPED_TEST(Prefill, SequencesOfABatchAreIndependent) {
  using T = TypeParam;
  const RandomCase<T> c({.batch = 3, .tokens = 40, .kv_heads = 2});
  const AttentionOptions options{.window = 6};
  AttentionState<T> state(c.attention_shape(), options);
  CaseOutputs<T> together(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), state, together.views(), workspace);
  for (Index n = 0; n < 3; ++n) {
    auto shape = c.attention_shape();
    shape.batch = 1;
    AttentionState<T> alone_state(shape, options);
    auto in = c.inputs();
    const auto pick = [&](auto& view) { view = view.template slice<0>(n, 1); };
    pick(in.q_window), pick(in.k_window), pick(in.q_slot), pick(in.k_slot), pick(in.v);
    pick(in.log_gate);
    nha::Tensor<T, 4> o({1, 40, 2, 16});
    nha::prefill(in, alone_state, {.o = o}, workspace);
    EXPECT_EQ(relative_error(o.data(), &together.o(n, 0, 0, 0), o.size()), 0.0) << "sequence " << n;
  }
}

TYPED_TEST(Prefill, PackedSequencesEqualSeparateRunsToTheBit) {
  using T = TypeParam;
  const RandomCase<T> c({.kv_heads = 2, .lengths = {3, 0, 41, 1, 20}});
  const AttentionOptions options{.window = 9};
  AttentionState<T> state(c.attention_shape(), options);
  CaseOutputs<T> packed(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), state, packed.views(), workspace);
  auto in = c.inputs();
  in.cu_seqlens = {};
  for (std::size_t n = 0; n + 1 < c.cu_seqlens.size(); ++n) {
    const auto first = static_cast<Index>(c.cu_seqlens[n]);
    const auto count = static_cast<Index>(c.cu_seqlens[n + 1]) - first;
    auto shape = c.attention_shape();
    shape.batch = 1;
    AttentionState<T> alone(shape, options);
    nha::Tensor<T, 4> o({1, count, 2, 16});
    nha::prefill(in.tokens(first, count), alone, {.o = o}, workspace);
    if (count > 0) {
      EXPECT_EQ(relative_error(o.data(), &packed.o(0, first, 0, 0), o.size()), 0.0);
    }
    EXPECT_EQ(alone.tokens_seen(0), state.tokens_seen(static_cast<Index>(n)));
  }
}

TYPED_TEST(Prefill, HeadsOfAGroupEqualSeparateHeads) {
  using T = TypeParam;
  const RandomCase<T> c({.tokens = 40, .kv_heads = 2, .group = 3});
  const AttentionOptions options{.window = 6};
  AttentionState<T> state(c.attention_shape(), options);
  CaseOutputs<T> grouped(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), state, grouped.views(), workspace);
  for (Index query_head = 0; query_head < 6; ++query_head) {
    auto in = c.inputs();
    const auto pick = [](auto& view, Index head) { view = view.template slice<2>(head, 1); };
    pick(in.q_window, query_head), pick(in.q_slot, query_head);
    pick(in.k_window, query_head / 3), pick(in.k_slot, query_head / 3);
    pick(in.v, query_head / 3), pick(in.log_gate, query_head / 3);
    auto shape = c.attention_shape();
    shape.kv_heads = 1;
    AttentionState<T> alone(shape, options);
    nha::Tensor<T, 4> o({1, 40, 1, 16});
    nha::prefill(in, alone, {.o = o}, workspace);
    for (Index t = 0; t < 40; ++t)
      EXPECT_LT(relative_error(&o(0, t, 0, 0), &grouped.o(0, t, query_head, 0), 16),
                Tolerance<T>::value);
  }
}

/// Causal softmax attention of query head 0, written out.
std::vector<double> causal_attention(const RandomCase<double>& c, Index t) {
  std::vector<double> o(static_cast<std::size_t>(c.shape.value_dim));
  double sum = 0;
  for (Index i = 0; i <= t; ++i) {
    double logit = 0;
    for (Index d = 0; d < c.shape.key_dim; ++d)
      logit += c.q_window(0, t, 0, d) * c.k_window(0, i, 0, d);
    const double weight = std::exp(logit / std::sqrt(static_cast<double>(c.shape.key_dim)));
    sum += weight;
    for (Index d = 0; d < c.shape.value_dim; ++d)
      o[static_cast<std::size_t>(d)] += weight * c.v(0, i, 0, d);
  }
  for (double& x : o) x /= sum;
  return o;
}

TEST(PrefillModes, WindowOverAllTokensWithMaskedSlotsIsCausalSoftmaxAttention) {
  const RandomCase<double> c({.tokens = 90});
  for (Index window : {90, 91, 500}) {
    AttentionState<double> state(c.attention_shape(),
                                 {.window = window, .empty_slots = EmptySlots::masked});
    CaseOutputs<double> out(c.shape);
    nha::Workspace workspace;
    nha::prefill(c.inputs(), state, out.views(), workspace);
    for (Index t = 0; t < 90; ++t) {
      EXPECT_LT(relative_error(&out.o(0, t, 0, 0), causal_attention(c, t).data(), 16), 1e-13);
      EXPECT_EQ(out.slot_share(0, t, 0), 0.0);
    }
  }
}

TEST(PrefillModes, NoWindowIsGatedSlotAttention) {
  // Gated Slot Attention (Zhang et al., arXiv 2409.07146): softmax over the slots alone, the
  // current token already in them.
  const RandomCase<double> c({.tokens = 30, .key_dim = 6, .value_dim = 5, .slots = 4});
  AttentionState<double> state(c.attention_shape(), {.window = 0});
  CaseOutputs<double> out(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), state, out.views(), workspace);
  std::vector<double> keys(4 * 6), values(4 * 5);
  for (Index t = 0; t < 30; ++t) {
    double weights[4], sum = 0, o[5] = {};
    for (Index m = 0; m < 4; ++m) {
      const double alpha = std::exp(c.log_gate(0, t, 0, m));
      double logit = 0;
      for (Index d = 0; d < 6; ++d) {
        double& key = keys[static_cast<std::size_t>(m * 6 + d)];
        key = alpha * key + (1 - alpha) * c.k_slot(0, t, 0, d);
        logit += key * c.q_slot(0, t, 0, d) / std::sqrt(6.0);
      }
      for (Index d = 0; d < 5; ++d) {
        double& value = values[static_cast<std::size_t>(m * 5 + d)];
        value = alpha * value + (1 - alpha) * c.v(0, t, 0, d);
      }
      sum += weights[m] = std::exp(logit);
    }
    for (Index m = 0; m < 4; ++m)
      for (Index d = 0; d < 5; ++d)
        o[d] += weights[m] / sum * values[static_cast<std::size_t>(m * 5 + d)];
    EXPECT_LT(relative_error(&out.o(0, t, 0, 0), o, 5), 1e-12);
    EXPECT_NEAR(out.slot_share(0, t, 0), 1.0, 1e-14);
  }
}

/// Calls f(run) with each way to put tokens into a state: run(inputs, state, outputs). The first is
/// reference().
template <class F>
void for_each_way(F&& f) {
  f([](const auto& inputs, auto& state, const auto& outputs) {
    nha::reference(inputs, state, outputs);
  });
  for (const PrefillAlgorithm algorithm :
       {PrefillAlgorithm::automatic, PrefillAlgorithm::recurrent, PrefillAlgorithm::chunked})
    f([algorithm](const auto& inputs, auto& state, const auto& outputs) {
      SCOPED_TRACE("algorithm " + std::to_string(static_cast<int>(algorithm)));
      nha::Workspace workspace;
      nha::prefill(inputs, state, outputs, workspace, {.algorithm = algorithm});
    });
}

TEST(PrefillModes, NothingToReadGivesZeroAndMinusInfinity) {
  const RandomCase<float> c({.tokens = 20});
  for_each_way([&](auto&& run) {
    // No slots and no window: every token.
    auto shape = c.attention_shape();
    shape.slots = 0;
    AttentionState<float> state(shape, {.window = 0});
    CaseOutputs<float> out(c.shape);
    auto in = c.inputs();
    in.log_gate = in.log_gate.slice<3>(0, 0);
    run(in, state, out.views());
    for (float o : out.o.values()) EXPECT_EQ(o, 0.0f);
    for (float lse : out.lse.values()) EXPECT_EQ(lse, -INFINITY);
    for (float share : out.slot_share.values()) EXPECT_EQ(share, 0.0f);
  });
}

TEST(PrefillModes, InfinitelyFastGatesForgetEverythingBefore) {
  RandomCase<double> c({.tokens = 40});
  for (double& g : c.log_gate.values()) g = -INFINITY;
  for_each_way([&](auto&& run) {
    AttentionState<double> state(c.attention_shape(), {.window = 0});
    CaseOutputs<double> out(c.shape);
    run(c.inputs(), state, out.views());
    // Every slot holds exactly the newest token.
    EXPECT_LT(relative_error(out.o.data(), c.v.data(), out.o.size()), 1e-14);
  });
}

template <class T>
class HalfStorage : public ::testing::Test {};
using HalfTypes = ::testing::Types<nha::bfloat16, nha::float16>;
TYPED_TEST_SUITE(HalfStorage, HalfTypes);

TYPED_TEST(HalfStorage, AccumulatesInFloat) {
  using T = TypeParam;
  const RandomCase<T> c({.tokens = 100, .group = 2, .key_dim = 24});
  const AttentionOptions options{.window = 8};
  // The same numbers in double: what differs is the rounding of the output alone.
  RandomCase<double> exact(c.shape);
  const auto widen_all = [](const auto& from, auto& to) {
    for (Index i = 0; i < from.size(); ++i)
      to.data()[i] = static_cast<double>(nha::widen(from.data()[i]));
  };
  widen_all(c.q_window, exact.q_window), widen_all(c.k_window, exact.k_window);
  widen_all(c.q_slot, exact.q_slot), widen_all(c.k_slot, exact.k_slot), widen_all(c.v, exact.v);
  widen_all(c.log_gate, exact.log_gate);
  AttentionState<double> exact_state(c.attention_shape(), options);
  CaseOutputs<double> expected(c.shape);
  nha::reference(exact.inputs(), exact_state, expected.views());
  for_each_way([&](auto&& run) {
    AttentionState<T> state(c.attention_shape(), options);
    CaseOutputs<T> out(c.shape);
    run(c.inputs(), state, out.views());
    EXPECT_LT(relative_error(out.o, expected.o), sizeof(T) == 2 ? 4e-3 : 0);
    EXPECT_LT(relative_error(out.lse, expected.lse), 1e-6);  // never rounded to T
    EXPECT_LT(slot_error(state, exact_state), 1e-6);
  });
}

TEST(PrefillStatic, StaticExtentsGiveTheSameAsDynamicOnes) {
  const RandomCase<float> c({.tokens = 75, .kv_heads = 2, .group = 2});
  const AttentionOptions options{.window = 12};
  AttentionState<float> dynamic_state(c.attention_shape(), options);
  AttentionState<float, 16, 16, 8> static_state(c.attention_shape(), options);
  CaseOutputs<float> expected(c.shape), actual(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), dynamic_state, expected.views(), workspace);
  const auto in = c.inputs();
  using Keys = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 16>;
  using Gates = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 8>;
  using Output = nha::TensorView<float, nha::Dynamic, nha::Dynamic, nha::Dynamic, 16>;
  nha::prefill({.q_window = Keys(in.q_window),
                .k_window = Keys(in.k_window),
                .q_slot = Keys(in.q_slot),
                .k_slot = Keys(in.k_slot),
                .v = Keys(in.v),
                .log_gate = Gates(in.log_gate)},
               static_state, {.o = Output(actual.o.view())}, workspace);
  EXPECT_LT(relative_error(actual.o, expected.o), 1e-6);
}

TEST(PrefillViews, ReadsSlicesOfAPackedBufferInPlace) {
  // One buffer [T, (Hq + 2 Hkv) * D] as a fused projection leaves it.
  const RandomCase<float> c(
      {.tokens = 33, .kv_heads = 2, .group = 2, .key_dim = 8, .value_dim = 8});
  std::vector<float> packed(33 * 8 * 8);
  const auto put = [&](const auto& from, Index first_head) {
    for (Index t = 0; t < 33; ++t)
      for (Index h = 0; h < from.extent(2); ++h)
        for (Index d = 0; d < 8; ++d)
          packed[static_cast<std::size_t>((t * 8 + first_head + h) * 8 + d)] = from(0, t, h, d);
  };
  put(c.q_window, 0), put(c.k_window, 4), put(c.v, 6);
  using View = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic, nha::Dynamic>;
  const View all(std::span<const float>(packed), {1, 33, 8, 8});
  auto in = c.inputs();
  in.q_window = all.slice<2>(0, 4);
  in.k_window = all.slice<2>(4, 2);
  in.v = all.slice<2>(6, 2);
  AttentionState<float> expected_state(c.attention_shape(), {.window = 5});
  AttentionState<float> state(c.attention_shape(), {.window = 5});
  CaseOutputs<float> expected(c.shape), actual(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), expected_state, expected.views(), workspace);
  nha::prefill(in, state, actual.views(), workspace);
  EXPECT_EQ(relative_error(actual, expected), 0.0);
}

TEST(PrefillViews, WritesStridedOutputsAndNothingElse) {
  const RandomCase<float> c({.tokens = 20, .group = 2});
  AttentionState<float> a(c.attention_shape(), {.window = 5}), b = a;
  CaseOutputs<float> expected(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), a, expected.views(), workspace);
  // [B, H, T, D] in memory, with a guard after every row.
  nha::Tensor<float, 4> memory({1, 2, 20, 17});
  for (float& x : memory.values()) x = 99;
  nha::prefill(c.inputs(), b, {.o = {memory.data(), {1, 20, 2, 16}, {2 * 20 * 17, 17, 20 * 17, 1}}},
               workspace);
  for (Index t = 0; t < 20; ++t)
    for (Index h = 0; h < 2; ++h) {
      for (Index d = 0; d < 16; ++d) EXPECT_EQ(memory(0, h, t, d), expected.o(0, t, h, d));
      EXPECT_EQ(memory(0, h, t, 16), 99.0f);
    }
}

TEST(PrefillWorkspace, ItsSizeIsKnownBeforeTheCall) {
  for (Index tokens : {1, 3, 40, 300}) {
    const RandomCase<float> c({.tokens = tokens, .group = 2});
    AttentionState<float> state(c.attention_shape(), {.window = 20});
    CaseOutputs<float> out(c.shape);
    nha::Workspace workspace;
    const std::size_t bytes = nha::prefill_workspace_bytes(state, 2, tokens);
    nha::prefill(c.inputs(), state, out.views(), workspace);
    EXPECT_EQ(workspace.bytes(), bytes);
  }
}

TEST(PrefillWorkspace, DoesNotGrowWithTheTokens) {
  AttentionState<float> state({.kv_heads = 2, .key_dim = 16, .value_dim = 16, .slots = 8},
                              {.window = 32});
  EXPECT_EQ(nha::prefill_workspace_bytes(state, 4, 10000),
            nha::prefill_workspace_bytes(state, 4, 1000000));
}

TEST(PrefillWorkspace, OldContentsDoNotMatter) {
  const RandomCase<float> c({.tokens = 50});
  AttentionState<float> a(c.attention_shape(), {.window = 7}), b = a;
  CaseOutputs<float> expected(c.shape), actual(c.shape);
  nha::Workspace fresh, used;
  nha::prefill(c.inputs(), a, expected.views(), fresh);
  used.reserve(nha::prefill_workspace_bytes(b, 1, 50));
  std::fill_n(used.data(), used.bytes(), std::byte{0xff});  // every number a NaN
  nha::prefill(c.inputs(), b, actual.views(), used);
  EXPECT_EQ(relative_error(actual, expected), 0.0);
}

TEST(PrefillErrors, RefusesNegativeChunk) {
  const RandomCase<float> c({.tokens = 5});
  AttentionState<float> state(c.attention_shape());
  CaseOutputs<float> out(c.shape);
  nha::Workspace workspace;
  NHA_EXPECT_ERROR(nha::prefill(c.inputs(), state, out.views(), workspace, {.chunk = -2}),
                   nha::ArgumentError, "chunk is -2");
}

}  // namespace
