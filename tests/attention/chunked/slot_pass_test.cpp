// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/slot_pass.hpp>
#include <nha/attention/reference.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "support/architectures.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::SlotMemoryView;
using nha::detail::Chunk;
using nha::detail::SlotMap;

/// A call of one head, passes over its slots, and slots and maps of its size.
template <class Arch>
class SlotPassOn : public testing::Test {
 protected:
  using Call = nha::detail::HeadCall<double>;
  static constexpr Index kStep = 8;

  struct OneCall {
    OneCall(const CaseShape& shape, const nha::AttentionOptions& options, Index past = 0)
        : c(shape),
          state(c.attention_shape(), options),
          inputs(inputs_after(past)),
          plan(nha::detail::chunk_plan(state.shape(), nha::head_options(options, 0), 1,
                                       shape.tokens - past, past, kStep)),
          call(nha::detail::head_call(inputs, state, 1, 0, 0), plan, 0) {
      // Room for the pass and for a few slots and maps.
      nha::Arena size(nullptr);
      take_all(size);
      workspace.reserve(size.used());
      nha::Arena arena(workspace.data());
      take_all(arena);
    }
    void take_all(nha::Arena& arena) {
      scratch = nha::detail::UpdateScratch<double>::take(arena, plan);
      retention = arena.take<double>(kStep * plan.slots);
      write = arena.take<double>(kStep * plan.slots);
      const CaseShape& s = c.shape;
      for (auto& one : slots) one = one.take(arena, s.key_dim, s.value_dim, s.slots);
      for (auto& map : maps) map = map.take(arena, s.key_dim, s.value_dim, s.slots);
    }
    nha::AttentionInputs<double> inputs_after(Index past) {
      if (past == 0) return c.inputs();
      CaseOutputs<double> ignored(c.shape);
      prefill_range(c, state, ignored, 0, past, past);
      return c.inputs().tokens(past, c.shape.tokens - past);
    }
    nha::detail::SlotPass<Arch, Call> pass() const { return {call, scratch, retention, write}; }

    /// Random numbers, padding zero.
    void fill(const SlotMemoryView<double>& to, std::uint32_t seed) const {
      std::mt19937 random(seed);
      std::normal_distribution<double> normal;
      to.clear();
      for (Index m = 0; m < to.count; ++m) {
        for (Index d = 0; d < to.key_dim; ++d) to.key_at(m, d) = normal(random);
        for (Index d = 0; d < to.value_dim; ++d) to.value_at(m, d) = normal(random);
        to.mass[m] = std::abs(normal(random));
      }
    }

    RandomCase<double> c;
    AttentionState<double> state;
    nha::AttentionInputs<double> inputs;
    nha::detail::ChunkPlan plan;
    nha::detail::ChunkedCall<Call> call;
    nha::Workspace workspace;
    nha::detail::UpdateScratch<double> scratch;
    double* retention = nullptr;
    double* write = nullptr;
    SlotMemoryView<double> slots[3];
    SlotMap<double> maps[3];
  };

  /// The largest difference of all numbers, padding included.
  static double difference(const SlotMemoryView<double>& a, const SlotMemoryView<double>& b) {
    double most = 0;
    const auto compare = [&](const double* x, const double* y, Index count) {
      for (Index i = 0; i < count; ++i) most = std::max(most, std::abs(x[i] - y[i]));
    };
    compare(a.key, b.key, a.key_dim * a.key_stride());
    compare(a.value, b.value, a.count * a.value_stride());
    compare(a.mass, b.mass, a.key_stride());
    return most;
  }
};
TYPED_TEST_SUITE(SlotPassOn, nha_test::Architectures);

/// Shapes, options and earlier tokens that differ in how tokens enter.
template <class F>
void for_slot_calls(F&& f) {
  f(CaseShape{.tokens = 60, .key_dim = 5, .value_dim = 19, .slots = 20},
    nha::AttentionOptions{.window = 0}, Index{0});
  f(CaseShape{.tokens = 60, .gates = Gates::mixed, .explicit_write = true},
    nha::AttentionOptions{.window = 13, .slot_delay = 5}, Index{0});
  f(CaseShape{.tokens = 90, .slots = 3, .gates = Gates::fast}, nha::AttentionOptions{.window = 11},
    Index{30});
}

TYPED_TEST(SlotPassOn, ThroughAllTokensIsTheRecurrence) {
  for_slot_calls([&](const CaseShape& shape, const nha::AttentionOptions& options, Index past) {
    typename TestFixture::OneCall one(shape, options, past);
    AttentionState<double> expected(one.state);
    CaseOutputs<double> ignored(shape);
    nha::reference(one.inputs, expected, ignored.tokens(past, shape.tokens - past));
    const auto end = nha::detail::StateAccess::head(expected, 0, 0).slots;
    for (const Index step : {1, 3, 8}) {
      EXPECT_TRUE(one.pass().through(one.call.begin, one.call.end, step, one.call.memory.slots,
                                     one.slots[0]));
      EXPECT_LT(this->difference(one.slots[0], end), 1e-13) << step;
    }
  });
}

TYPED_TEST(SlotPassOn, OneChunkMayGoWhereItCameFrom) {
  typename TestFixture::OneCall one({.tokens = 40, .slots = 20}, {.window = 0});
  one.fill(one.slots[0], 1);
  one.slots[1].copy_from(one.slots[0]);
  const Chunk chunk{16, 8};
  const auto pass = one.pass();
  const auto gates = pass.gates(chunk);
  EXPECT_EQ(gates.count - gates.first, 8);
  pass.through(chunk, gates, one.slots[0], one.slots[2]);
  pass.through(chunk, gates, one.slots[1], one.slots[1]);
  EXPECT_EQ(this->difference(one.slots[1], one.slots[2]), 0);
  EXPECT_GT(this->difference(one.slots[0], one.slots[2]), 0.1);
}

TYPED_TEST(SlotPassOn, BeforeTheFirstTokenEntersNothingIsWritten) {
  typename TestFixture::OneCall one({.tokens = 40}, {.window = 20});
  one.fill(one.slots[0], 1);
  one.fill(one.slots[1], 2);
  one.fill(one.slots[2], 2);
  EXPECT_FALSE(one.pass().through(0, 20, 8, one.slots[0], one.slots[1]));
  EXPECT_EQ(this->difference(one.slots[1], one.slots[2]), 0);
  EXPECT_TRUE(one.pass().through(0, 21, 8, one.slots[0], one.slots[1]));
}

TYPED_TEST(SlotPassOn, AMapDoesToAnySlotsWhatPassingThroughDoes) {
  for_slot_calls([&](const CaseShape& shape, const nha::AttentionOptions& options, Index past) {
    typename TestFixture::OneCall one(shape, options, past);
    for (const auto& [first, last] : {std::pair<Index, Index>{past, shape.tokens},
                                      {past + 16, past + 17},
                                      {past + 20, past + 47}})
      for (const Index step : {1, 5, 8}) {
        one.fill(one.slots[0], 3);
        one.pass().through(first, last, step, one.slots[0], one.slots[1]);
        one.pass().map(first, last, step, one.maps[0]);
        one.maps[0].apply(one.slots[0]);
        EXPECT_LT(this->difference(one.slots[0], one.slots[1]), 1e-13)
            << first << " to " << last << " by " << step;
      }
  });
}

TYPED_TEST(SlotPassOn, MapsOfNeighbouringTextsComposeToThatOfBoth) {
  for_slot_calls([&](const CaseShape& shape, const nha::AttentionOptions& options, Index past) {
    typename TestFixture::OneCall one(shape, options, past);
    const Index a = past, c = shape.tokens;
    for (const Index b : {a, a + 3, a + 16, a + 31, c}) {
      one.pass().map(a, b, 8, one.maps[0]);
      one.pass().map(b, c, 8, one.maps[1]);
      one.pass().map(a, c, 8, one.maps[2]);
      one.maps[0].compose(one.maps[1]);
      EXPECT_LT(this->difference(one.maps[0].added, one.maps[2].added), 1e-13) << b;
      for (Index m = 0; m < one.plan.slots; ++m)
        EXPECT_NEAR(one.maps[0].total[m], one.maps[2].total[m], 1e-15) << b;
    }
  });
}

TYPED_TEST(SlotPassOn, TotalAndMassAreThoseOfTheGates) {
  for_slot_calls([&](const CaseShape& shape, const nha::AttentionOptions& options, Index past) {
    typename TestFixture::OneCall one(shape, options, past);
    one.pass().map(one.call.begin, one.call.end, 8, one.maps[0]);
    for (Index m = 0; m < shape.slots; ++m) {
      double total = 1, mass = 0;
      for (std::int64_t p = one.call.begin; p < one.call.end; ++p) {
        const auto token = static_cast<Index>(one.call.entering(p));
        if (token < 0) continue;
        const double gate = one.c.log_gate(0, token, 0, m);
        total *= std::exp(gate);
        mass = std::exp(gate) * mass +
               (shape.explicit_write ? one.c.write(0, token, 0, m) : -std::expm1(gate));
      }
      EXPECT_NEAR(one.maps[0].total[m], total, 1e-14);
      EXPECT_NEAR(one.maps[0].added.mass[m], mass, 1e-13);
    }
    // A padded slot has nothing added to it.
    for (Index m = shape.slots; m < one.plan.slots; ++m) {
      EXPECT_EQ(one.maps[0].added.mass[m], 0);
    }
  });
}

TYPED_TEST(SlotPassOn, TheMapOfNoTextChangesNothing) {
  typename TestFixture::OneCall one({.tokens = 40, .slots = 20}, {.window = 4});
  one.fill(one.slots[0], 1);
  one.slots[1].copy_from(one.slots[0]);
  one.pass().map(10, 10, 8, one.maps[0]);
  one.maps[0].apply(one.slots[0]);
  EXPECT_EQ(this->difference(one.slots[0], one.slots[1]), 0);
}

}  // namespace
