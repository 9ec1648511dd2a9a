// SPDX-License-Identifier: MIT
// Taking tokens back: what holds to the bit, and what within rounding.
#include <nha/attention/prefill.hpp>
#include <nha/memory/state_archive.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "memory/state_cases.hpp"
#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::AttentionShape;
using nha::AttentionState;
using nha::PrefillAlgorithm;

// --- After steps
// ----------------------------------------------------------------------------------

/// Every rollback from every position of a stepped sequence is as never having gone on.
template <class T, class SlotScalar = nha::accumulate_t<T>>
void expect_rollback_is_exact(const StateSetting& setting, Index max_rollback) {
  SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback));
  constexpr Index kTokens = 23, kMore = 12;
  const RandomCase<T> c(small_case(setting, kTokens)), next(small_case(setting, kMore), 2);
  CaseOutputs<T> out(c.shape), expected(next.shape), actual(next.shape);
  // never[t]: t tokens and then the tokens of the other case.
  using State = nha_test::StateOf<T, SlotScalar>;
  std::vector<State> at = {make_state<T, SlotScalar>(c, setting, max_rollback)};
  for (Index t = 0; t < kTokens; ++t) {
    at.push_back(at.back());
    step_range(c, at.back(), out, t, t + 1);
  }
  for (Index position = 0; position <= kTokens; ++position)
    for (Index back = 0; back <= std::min(max_rollback, position); ++back) {
      const auto target = static_cast<std::size_t>(position - back);
      State rolled = at[static_cast<std::size_t>(position)];
      rolled.rollback(0, back);
      ASSERT_TRUE(rolled == at[target]) << back << " tokens back from " << position;
      State never = at[target];
      step_range(next, never, expected, 0, kMore);
      step_range(next, rolled, actual, 0, kMore);
      ASSERT_TRUE(same_bits(actual, expected, 0, kMore)) << back << " back from " << position;
      ASSERT_TRUE(rolled == never) << back << " tokens back from " << position;
    }
}

TEST(Rollback, IsAsNeverHavingGoneOn) {
  for (const StateSetting& setting : state_settings())
    for (Index max_rollback : {1, 2, 3, 5, 8, 40})
      expect_rollback_is_exact<float>(setting, max_rollback);
}

TEST(Rollback, IsExactInEveryScalarType) {
  for (const StateSetting& setting : state_settings()) {
    expect_rollback_is_exact<double>(setting, 4);
    expect_rollback_is_exact<nha::bfloat16>(setting, 4);
    expect_rollback_is_exact<nha::float16>(setting, 4);
    expect_rollback_is_exact<float, nha::bfloat16>(setting, 4);
    expect_rollback_is_exact<float, nha::float16>(setting, 4);
    expect_rollback_is_exact<nha::bfloat16, nha::bfloat16>(setting, 4);
    expect_rollback_is_exact<nha::float16, nha::float16>(setting, 4);
  }
}

TEST(Rollback, MayBeMixedWithTokensInAnyOrder) {
  constexpr Index kTokens = 40;
  std::mt19937 random(3);
  for (const StateSetting& setting : state_settings())
    for (Index max_rollback : {1, 3, 4, 7}) {
      SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback));
      const RandomCase<float> c(small_case(setting, kTokens));
      CaseOutputs<float> out(c.shape), expected(c.shape);
      AttentionState<float> state = make_state(c, setting, max_rollback);
      std::vector<Index> kept;  // the tokens that have not been taken back
      Index furthest = 0;
      for (int action = 0; action < 150; ++action) {
        const auto size = static_cast<Index>(kept.size());
        const Index reach = std::min(size, size - (furthest - max_rollback));
        if (random() % 6 != 0) {
          const auto token = static_cast<Index>(random() % kTokens);
          step_range(c, state, out, token, token + 1);
          kept.push_back(token);
          furthest = std::max(furthest, size + 1);
        } else if (reach > 0) {
          const Index back = static_cast<Index>(random()) % (reach + 1);
          state.rollback(0, back);
          kept.resize(static_cast<std::size_t>(size - back));
        } else {
          NHA_EXPECT_ERROR(state.rollback(0, reach + 1), ArgumentError, "tokens to roll back is");
        }
        ASSERT_EQ(state.tokens_seen(0), static_cast<Index>(kept.size()));
        if (action % 10 != 9) continue;
        AttentionState<float> fresh = make_state(c, setting);
        for (Index token : kept) step_range(c, fresh, expected, token, token + 1);
        ASSERT_TRUE(state == fresh) << "after " << action << " actions";
      }
      EXPECT_GT(furthest, 2 * max_rollback);
    }
}

TEST(Rollback, AfterPrefillDiffersByRoundingOnly) {
  constexpr Index kTokens = 75, kMore = 20;
  for (const StateSetting& setting : state_settings())
    for (Index max_rollback : {1, 4, 9, 32})
      for (Index piece : {75, 20, 7}) {
        SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback) +
                     ", pieces of " + std::to_string(piece));
        const RandomCase<float> c(small_case(setting, kTokens + kMore));
        CaseOutputs<float> out(c.shape), expected(c.shape), actual(c.shape);
        AttentionState<float> state = make_state(c, setting, max_rollback);
        prefill_range(c, state, out, 0, kTokens, piece, {.algorithm = PrefillAlgorithm::chunked});
        for (Index back = 0; back <= max_rollback; back += 1 + max_rollback / 5) {
          AttentionState<float> rolled = state;
          rolled.rollback(0, back);
          AttentionState<float> never = make_state(c, setting);
          prefill_range(c, never, out, 0, kTokens - back, kTokens);
          EXPECT_EQ(rolled.tokens_seen(0), kTokens - back);
          EXPECT_LT(slot_error(rolled, never), 1e-6) << back << " tokens back";
          step_range(c, never, expected, kTokens, kTokens + kMore);
          step_range(c, rolled, actual, kTokens, kTokens + kMore);
          EXPECT_LT(relative_error(actual, expected, kTokens, kMore), 1e-6)
              << back << " tokens back";
        }
      }
}

TEST(Rollback, TakesBackOneSequenceOfSeveral) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 20, 3));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting, 6), earlier = state;
  step_range(c, state, out, 0, 14);
  step_range(c, earlier, out, 0, 10);
  AttentionState<float> expected = state;
  earlier.fork(1, expected, 1);
  state.rollback(1, 4);
  EXPECT_TRUE(state == expected);
}

TEST(Rollback, RefusesToGoFurtherThanItCan) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 20));
    CaseOutputs<float> out(c.shape);
    AttentionState<float> state = make_state(c, setting, 4);
    NHA_EXPECT_ERROR(state.rollback(0, 1), ArgumentError,
                     "tokens to roll back is 1; expected 0 to the 0 seen");
    step_range(c, state, out, 0, 3);
    NHA_EXPECT_ERROR(state.rollback(0, 4), ArgumentError, "expected 0 to the 3 seen");
    NHA_EXPECT_ERROR(state.rollback(0, -1), ArgumentError, "tokens to roll back is -1");
    step_range(c, state, out, 3, 13);
    const AttentionState<float> before = state;
    NHA_EXPECT_ERROR(state.rollback(0, 5), ArgumentError,
                     "tokens to roll back is 5; the state keeps 4 and can now go back 4");
    EXPECT_TRUE(state == before);
    state.rollback(0, 3);
    const AttentionState<float> rolled = state;
    NHA_EXPECT_ERROR(state.rollback(0, 2), ArgumentError, "can now go back 1");
    EXPECT_TRUE(state == rolled);
    state.rollback(0, 1);
    EXPECT_EQ(state.tokens_seen(0), 9);
  }
}

TEST(Rollback, IsOnlyThereWhenAskedFor) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 5));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting);
  step_range(c, state, out, 0, 5);
  state.rollback(0, 0);
  EXPECT_EQ(state.tokens_seen(0), 5);
  NHA_EXPECT_ERROR(state.rollback(0, 1), ArgumentError,
                   "tokens to roll back is 1; the state keeps 0 and can now go back 0");
}

TEST(Rollback, AfterResetReachesTheNewBeginningOnly) {
  const StateSetting setting = {.name = "", .options = {.window = 4, .slot_delay = 1}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting, 4);
  step_range(c, state, out, 0, 13);
  state.reset(0);
  step_range(c, state, out, 0, 3);
  state.rollback(0, 3);
  EXPECT_TRUE(state == make_state(c, setting));
}

// --- After prefill and steps
// ----------------------------------------------------------------------------------

constexpr nha::PrefillOptions kByChunks{.algorithm = PrefillAlgorithm::chunked};

/// `n` tokens by prefill, then `steps` steps: every state since the end of the prefill comes back to
/// the bit, and goes on as if the tokens after it had never been.
template <class T, class SlotScalar = nha::accumulate_t<T>>
void expect_steps_after_prefill_are_taken_back(const StateSetting& setting, Index max_rollback,
                                               Index n, Index steps,
                                               const nha::PrefillOptions& options = {}) {
  SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback) + ", prefill of " +
               std::to_string(n) + ", steps " + std::to_string(steps));
  constexpr Index kMore = 6;
  const RandomCase<T> c(small_case(setting, n + steps)), next(small_case(setting, 2 * kMore), 2);
  CaseOutputs<T> out(c.shape), expected(next.shape), actual(next.shape);
  auto state = make_state<T, SlotScalar>(c, setting, max_rollback);
  prefill_range(c, state, out, 0, n, n, options);
  std::vector<StateOf<T, SlotScalar>> as_of = {state};
  for (Index t = n; t < n + steps; ++t) {
    step_range(c, state, out, t, t + 1);
    as_of.push_back(state);
  }
  for (Index back = 0; back <= std::min(steps, max_rollback); ++back) {
    auto rolled = state;
    rolled.rollback(0, back);
    auto never = as_of[static_cast<std::size_t>(steps - back)];
    ASSERT_TRUE(rolled == never) << back << " tokens back";
    for (auto* s : {&never, &rolled}) {
      auto& into = s == &never ? expected : actual;
      step_range(next, *s, into, 0, kMore);
      prefill_range(next, *s, into, kMore, 2 * kMore, kMore, options);
    }
    ASSERT_TRUE(same_bits(actual, expected, 0, 2 * kMore)) << back << " tokens back";
    ASSERT_TRUE(rolled == never) << back << " tokens back";
  }
}

TEST(Rollback, GoesBackToTheEndOfAPrefillToTheBit) {
  const StateSetting setting = {.name = "", .options = {.window = 16, .slot_delay = 16}};
  expect_steps_after_prefill_are_taken_back<float>(setting, 16, 27, 13);
  for (const StateSetting& each : state_settings())
    for (Index max_rollback : {1, 2, 5, 8})
      for (Index n : {1, 4, 7, 8, 13, 33})
        expect_steps_after_prefill_are_taken_back<float>(each, max_rollback, n, max_rollback,
                                                         kByChunks);
}

TEST(Rollback, GoesBackToTheEndOfAPrefillForAnyWindowDelayAndLengths) {
  std::mt19937 random(11);
  const auto below = [&](Index end) { return static_cast<Index>(random()) % end; };
  constexpr nha::EmptySlots kRules[] = {nha::EmptySlots::participate, nha::EmptySlots::masked,
                                        nha::EmptySlots::mass_corrected};
  for (int round = 0; round < 300; ++round) {
    StateSetting setting;
    setting.slots = below(8) == 0 ? 0 : 1 + below(20);
    setting.options.window = below(24);
    if (below(3) > 0) setting.options.slot_delay = below(setting.options.window + 1);
    setting.options.empty_slots = kRules[below(3)];
    setting.name = "round " + std::to_string(round) + ", window " +
                   std::to_string(setting.options.window) + ", delay " +
                   std::to_string(setting.options.slot_delay.value_or(-1)) + ", slots " +
                   std::to_string(setting.slots);
    const Index max_rollback = 1 + below(20), n = 1 + below(50), steps = below(max_rollback + 4);
    const nha::PrefillOptions options{.chunk = below(2) * (1 + below(20))};
    expect_steps_after_prefill_are_taken_back<float>(setting, max_rollback, n, steps, options);
    if (HasFatalFailure()) return;
  }
}

TEST(Rollback, GoesBackToTheEndOfAPrefillInEveryScalarType) {
  for (const StateSetting& setting : state_settings())
    for (Index n : {11, 16, 30}) {
      expect_steps_after_prefill_are_taken_back<double>(setting, 8, n, 7);
      expect_steps_after_prefill_are_taken_back<nha::bfloat16>(setting, 8, n, 7);
      expect_steps_after_prefill_are_taken_back<float, nha::bfloat16>(setting, 8, n, 7);
      expect_steps_after_prefill_are_taken_back<nha::float16, nha::float16>(setting, 8, n, 7);
    }
}

// What was taken back is still in the rings: nothing may read it.
TEST(Rollback, LeavesNoTraceOfWhatWasTakenBack) {
  constexpr Index kPrefill = 20, kTaken = 5, kMore = 24;
  for (const StateSetting& setting : state_settings())
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
      SCOPED_TRACE(setting.name);
      RandomCase<float> c(small_case(setting, kPrefill + kTaken));
      const RandomCase<float> next(small_case(setting, kMore), 2);
      for (auto* tensor : {&c.k_window, &c.k_slot, &c.v})
        for (Index t = kPrefill; t < kPrefill + kTaken; ++t)
          for (Index h = 0; h < 2; ++h) (*tensor)(0, t, h, 1) = bad;
      CaseOutputs<float> out(c.shape), expected(next.shape), actual(next.shape);
      AttentionState<float> state = make_state(c, setting, kTaken);
      prefill_range(c, state, out, 0, kPrefill, kPrefill, kByChunks);
      AttentionState<float> never = state;
      step_range(c, state, out, kPrefill, kPrefill + kTaken);
      state.rollback(0, kTaken);
      for (const Index first : {Index{0}, Index{2}}) {  // by chunks at once, or after two steps
        AttentionState<float> a = state, b = never;
        step_range(next, a, actual, 0, first);
        step_range(next, b, expected, 0, first);
        prefill_range(next, a, actual, first, kMore, kMore, kByChunks);
        prefill_range(next, b, expected, first, kMore, kMore, kByChunks);
        EXPECT_TRUE(same_bits(actual, expected, 0, kMore));
        EXPECT_TRUE(a == b);
        for (const float value : actual.o.values()) ASSERT_FALSE(std::isnan(value));
      }
    }
}

/// A pack of tokens for two sequences, of unlike numbers.
void prefill_pack(AttentionState<float>& state, const StateSetting& setting, Index first,
                  Index second, std::uint32_t seed) {
  CaseShape shape = small_case(setting, 0);
  shape.lengths = {first, second};
  const RandomCase<float> c(shape, seed);
  CaseOutputs<float> out(c.shape);
  nha::Workspace workspace;
  nha::prefill(c.inputs(), state, out.views(), workspace);
}

TEST(Rollback, IsExactForASequenceThatAPrefillGaveNoneOrFewTokens) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 4, 2));
    CaseOutputs<float> out(c.shape);
    AttentionState<float> state = make_state(c, setting, 8);
    prefill_pack(state, setting, 9, 13, 3);
    const AttentionState<float> before = state;
    step_range(c, state, out, 0, 3);
    prefill_pack(state, setting, 0, 8, 4);
    prefill_pack(state, setting, 2, 9, 5);  // two tokens are taken as steps
    const AttentionState<float> after = state;
    state.rollback(0, 5);
    AttentionState<float> expected = after;
    before.fork(0, expected, 0);
    EXPECT_TRUE(state == expected);
    step_range(c, state, out, 0, 4);
    state.rollback(1, 4);
    after.fork(1, expected, 1);
    EXPECT_TRUE(state.tokens_seen(1) == expected.tokens_seen(1));
    state.rollback(0, 4);
    EXPECT_TRUE(state == expected);
  }
}

TEST(Rollback, ForksKeepTheEndOfThePrefill) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 30));
    CaseOutputs<float> out(c.shape);
    AttentionState<float> state = make_state(c, setting, 8);
    prefill_range(c, state, out, 0, 21, 21, kByChunks);
    const AttentionState<float> as_of = state;
    step_range(c, state, out, 21, 26);
    AttentionShape three = c.attention_shape();
    three.batch = 3;
    AttentionState<float> target(three, setting.options, 8), back = state;
    state.fork(0, target, 1);
    target.rollback(1, 5);
    target.fork(1, back, 0);
    EXPECT_TRUE(back == as_of);
    step_range(c, back, out, 26, 28);
    back.rollback(0, 2);
    EXPECT_TRUE(back == as_of);
  }
}

TEST(Rollback, ReachesFromALoadedStateToWhereItWasLoaded) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 40));
    CaseOutputs<float> out(c.shape);
    AttentionState<float> state = make_state(c, setting, 8);
    prefill_range(c, state, out, 0, 21, 21, kByChunks);
    step_range(c, state, out, 21, 23);
    AttentionState<float> loaded(c.attention_shape(), setting.options, 8);
    // Another prefill ended there before; its copy must not come back.
    prefill_range(c, loaded, out, 0, 22, 22, kByChunks);
    nha::load_state(nha::save_state(state, 0), loaded, 0);
    NHA_EXPECT_ERROR(loaded.rollback(0, 1), ArgumentError, "can now go back 0");
    step_range(c, loaded, out, 23, 27);
    loaded.rollback(0, 4);
    EXPECT_TRUE(loaded == state);
    prefill_range(c, loaded, out, 23, 30, 7, kByChunks);
    const AttentionState<float> as_of = loaded;
    step_range(c, loaded, out, 30, 33);
    loaded.rollback(0, 3);
    EXPECT_TRUE(loaded == as_of);
  }
}

/// Prefills, steps, rollbacks, forks and loads in any order, and what must come back.
template <class T, class SlotScalar>
class Wander {
 public:
  using State = StateOf<T, SlotScalar>;

  Wander(const StateSetting& setting, Index max_rollback, std::uint32_t seed)
      : setting_(setting),
        random_(seed),
        case_(small_case(setting, kTokens), seed),
        out_(case_.shape),
        state_(make_state<T, SlotScalar>(case_, setting, max_rollback)) {
    record();
  }

  void act() {
    switch (below(8)) {
      case 0:
      case 1:
        prefill();
        break;
      case 2:
      case 3:
        go_back();
        break;
      case 4:
        fork();
        break;
      default:
        for (Index steps = 1 + below(4); steps > 0; --steps) step();
    }
    if (below(12) == 0) load();
    EXPECT_EQ(state_.tokens_seen(0), seen());
  }
  /// The state against one that was given the same tokens in steps, never having gone back.
  double error() {
    State fresh = make_state<T, SlotScalar>(case_, setting_);
    for (const Index token : kept_) step_range(case_, fresh, out_, token, token + 1);
    return slot_error(state_, fresh);
  }
  int exact() const { return exact_; }
  int inexact() const { return inexact_; }

 private:
  static constexpr Index kTokens = 40;

  Index below(Index end) { return static_cast<Index>(random_()) % end; }
  Index seen() const { return static_cast<Index>(kept_.size()); }
  void record() { as_of_.insert_or_assign(seen(), state_); }
  void moved_on() {
    oldest_ = std::max(oldest_, seen() - state_.max_rollback());
    record();
  }
  void step() {
    const Index token = below(kTokens);
    step_range(case_, state_, out_, token, token + 1);
    kept_.push_back(token);
    moved_on();
  }
  void prefill() {
    const Index count = 1 + below(kTokens), first = below(kTokens - count + 1);
    prefill_range(case_, state_, out_, first, first + count, count);
    for (Index t = first; t < first + count; ++t) kept_.push_back(t);
    constexpr Index kTakenAsSteps = 3;
    if (count > kTakenAsSteps) exact_from_ = seen();
    moved_on();
  }
  void go_back() {
    const Index target = seen() - below(seen() - oldest_ + 1);
    state_.rollback(0, seen() - target);
    const bool is_exact = target >= exact_from_;
    const auto found = as_of_.find(target);
    if (is_exact && found != as_of_.end()) {
      EXPECT_TRUE(state_ == found->second) << "back from " << seen() << " to " << target;
      ++exact_;
    }
    kept_.resize(static_cast<std::size_t>(target));
    if (!is_exact) {
      exact_from_ = target;
      ++inexact_;
    }
    as_of_.erase(as_of_.upper_bound(target), as_of_.end());
    record();
  }
  void fork() {
    AttentionShape two = state_.shape();
    two.batch = 2;
    State other(two, setting_.options, state_.max_rollback());
    state_.fork(0, other, 1);
    state_.reset(0);
    other.fork(1, state_, 0);
  }
  void load() {
    const auto bytes = nha::save_state(state_, 0);
    nha::load_state(bytes, state_, 0);
    oldest_ = exact_from_ = seen();
  }

  StateSetting setting_;
  std::mt19937 random_;
  RandomCase<T> case_;
  CaseOutputs<T> out_;
  State state_;
  std::vector<Index> kept_;       // the tokens that have not been taken back
  std::map<Index, State> as_of_;  // the state when so many tokens had been seen
  Index oldest_ = 0;              // can be gone back to
  Index exact_from_ = 0;          // from here on to the bit
  int exact_ = 0, inexact_ = 0;
};

template <class T, class SlotScalar = nha::accumulate_t<T>>
void expect_wandering_is_exact(double largest_error) {
  int exact = 0, inexact = 0;
  std::uint32_t seed = 0;
  for (const StateSetting& setting : state_settings())
    for (const Index max_rollback : {1, 4, 7, 16}) {
      SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback));
      Wander<T, SlotScalar> wander(setting, max_rollback, ++seed);
      for (int action = 0; action < 60; ++action) {
        wander.act();
        ASSERT_FALSE(testing::Test::HasFailure()) << "action " << action;
        if (action % 20 == 19) {
          ASSERT_LT(wander.error(), largest_error) << "action " << action;
        }
      }
      exact += wander.exact();
      inexact += wander.inexact();
    }
  EXPECT_GT(exact, 200);
  EXPECT_GT(inexact, 50);
}

TEST(Rollback, MayBeMixedWithPrefillsStepsForksAndLoads) {
  expect_wandering_is_exact<float>(2e-6);
  expect_wandering_is_exact<double>(4e-15);
  expect_wandering_is_exact<nha::bfloat16>(2e-6);
  expect_wandering_is_exact<float, nha::float16>(0x1p-7);
  expect_wandering_is_exact<nha::bfloat16, nha::bfloat16>(0x1p-4);
}

}  // namespace
