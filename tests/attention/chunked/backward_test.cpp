// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/backward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/architectures.hpp"
#include "support/backward_call.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::detail::Chunk;

/// A call gone back through by hand, with slots from a forward pass that stops at every chunk.
template <class Arch, class T>
struct ByHand {
  ByHand(const CaseShape& shape, const nha::AttentionOptions& options, Index chunk)
      : b(shape, options, 0, chunk),
        given(random_cotangents<T>(shape)),
        cotangents(given.views()),
        gradients(unwritten_gradients(b.c)),
        wanted(gradients.template views<T>()) {
    AttentionState<T> state(b.state);
    CaseOutputs<T> ignored(shape);
    for (Chunk at = b.call.chunk_at(0); at.count > 0; at = b.call.chunk_at(at.end())) {
      chunks.push_back(at);
      states.push_back(state);
      prefill_range(b.c, state, ignored, at.position, at.end(), at.count);
    }
  }

  /// Regions of `region` chunks; stop(first) is called before the one that begins at `first` is
  /// stored.
  template <class Stop>
  void run(std::size_t region, const nha::AttentionSaved<T>& saved, Stop&& stop) {
    const auto head_saved = b.head_part(saved);
    const auto head_cotangents = b.head_part(cotangents);
    const auto head_wanted = b.head_part(wanted);
    nha::detail::ChunkBackward<Arch, typename BackwardCall<T>::Call> back(
        b.call, b.plan, head_saved, head_cotangents, head_wanted, b.scratch);
    for (std::size_t last = chunks.size(); last > 0;) {
      const std::size_t first = last > region ? last - region : 0;
      const std::int64_t begin = chunks[first].position, end = chunks[last - 1].end();
      back.load_region(begin, end);
      for (std::size_t i = last; i > first; --i)
        back.run(chunks[i - 1], nha::detail::StateAccess::head(states[i - 1], 0, 0).slots);
      stop(static_cast<Index>(begin));
      back.store_region(begin, end);
      last = first;
    }
    back.store_slots();
  }
  void run(std::size_t region, const nha::AttentionSaved<T>& saved = {}) {
    run(region, saved, [](Index) {});
  }

  Gradients<T> expected() const { return reference_gradients(b.c, b.state, given); }

  BackwardCall<T> b;
  Cotangents<T> given;
  nha::AttentionCotangents<T> cotangents;
  Gradients<T> gradients;
  nha::AttentionGradients<T> wanted;
  std::vector<Chunk> chunks;
  std::vector<AttentionState<T>> states;  // as of the start of each chunk
};

template <class Arch>
class ChunkBackwardOn : public testing::Test {};
TYPED_TEST_SUITE(ChunkBackwardOn, Architectures);

TYPED_TEST(ChunkBackwardOn, RegionsOfAnyLengthGiveTheGradientsOfTheDefinition) {
  const CaseShape shape{.tokens = 50, .group = 2, .key_dim = 18, .value_dim = 5, .slots = 20};
  for (const std::size_t region : {1u, 3u, 7u}) {
    SCOPED_TRACE(region);
    for (const Index delay : {0, 5, 20}) {
      ByHand<TypeParam, double> back(shape, {.window = 20, .slot_delay = delay}, 8);
      back.run(region);
      expect_gradients_near(back.gradients, back.expected(), 1e-12);
    }
    ByHand<TypeParam, float> slots_alone(shape, {.window = 0}, 8);
    slots_alone.run(region);
    expect_gradients_near(slots_alone.gradients, slots_alone.expected(), 5e-6);
  }
}

TYPED_TEST(ChunkBackwardOn, ALongWindowTakesItsStatisticsFromTheForwardPassOrComputesThem) {
  // Longer than a block, and so its weights are computed one block after another.
  const CaseShape shape{.tokens = 600, .key_dim = 4, .value_dim = 4, .slots = 4};
  ByHand<TypeParam, double> computed(shape, {.window = 550}, 32), taken(shape, {.window = 550}, 32);
  computed.run(20);
  expect_gradients_near(computed.gradients, computed.expected(), 1e-12);

  AttentionState<double> state(taken.b.c.attention_shape(), {.window = 550});
  CaseOutputs<double> out(shape);
  prefill_range(taken.b.c, state, out, 0, 600, 600);
  taken.run(20, {.o = out.o, .lse = out.lse, .slot_share = out.slot_share});
  expect_gradients_near(taken.gradients, taken.expected(), 1e-12);
}

TEST(ChunkBackward, SlotsThatAreStillEmptyAreReadOnlyForTheirOwnGradients) {
  using nha::EmptySlots;
  const CaseShape shape{.tokens = 50, .group = 2, .explicit_write = true};
  for (const EmptySlots rule :
       {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected}) {
    SCOPED_TRACE(static_cast<int>(rule));
    ByHand<nha::cpu::simd::default_arch, double> back(shape, {.window = 20, .empty_slots = rule},
                                                      8);
    const Gradients<double> expected = back.expected();
    back.wanted.slot_k = {};
    back.wanted.slot_v = {};
    back.wanted.mass = {};
    back.run(3);
    EXPECT_TRUE(std::isnan(back.gradients.slot_k(0, 0, 0, 0)));
    back.gradients.slot_k = expected.slot_k;
    back.gradients.slot_v = expected.slot_v;
    back.gradients.mass = expected.mass;
    expect_gradients_near(back.gradients, expected, 1e-12);
  }
}

TEST(ChunkBackward, WritesKeysAndValuesRegionByRegion) {
  const CaseShape shape{.tokens = 48};
  ByHand<nha::cpu::simd::default_arch, float> back(shape, {.window = 20}, 8);
  const auto is_written = [](const auto& gradient, Index token) {
    return !std::isnan(gradient(0, token, 0, 0));
  };
  int regions = 0;
  back.run(2, {}, [&](Index first) {
    ++regions;
    const auto& g = back.gradients;
    for (Index t = 0; t < 48; ++t) {
      EXPECT_EQ(is_written(g.q_window, t), t >= first) << "token " << t << ", region " << first;
      EXPECT_EQ(is_written(g.k_window, t), t >= first + 16) << "token " << t;
      EXPECT_EQ(is_written(g.v, t), t >= first + 16) << "token " << t;
    }
    EXPECT_TRUE(std::isnan(g.slot_k(0, 0, 0, 0)));
  });
  EXPECT_EQ(regions, 3);
  EXPECT_FALSE(std::isnan(back.gradients.slot_k(0, 0, 0, 0)));
}

TEST(ChunkBackward, WhatDoesNotReachTheLossHasGradientZero) {
  // Nothing enters the slots: the window is as long as the text.
  const CaseShape shape{.tokens = 24, .explicit_write = true};
  ByHand<nha::cpu::simd::default_arch, float> back(shape, {.window = 24}, 8);
  back.run(3);
  for (const auto* gradient :
       {&back.gradients.k_slot, &back.gradients.log_gate, &back.gradients.write})
    for (const float x : gradient->values()) ASSERT_EQ(x, 0.0f);
}

}  // namespace
