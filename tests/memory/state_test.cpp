// SPDX-License-Identifier: MIT
#include <nha/attention/prefill.hpp>
#include <nha/memory/state.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <type_traits>
#include <utility>
#include <vector>

#include "memory/state_cases.hpp"
#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::AttentionOptions;
using nha::AttentionShape;
using nha::AttentionState;
using nha::PrefillAlgorithm;

// --- Making one
// -----------------------------------------------------------------------------------

TEST(AttentionState, IsEmptyAtFirst) {
  const AttentionState<float> state({.batch = 2, .kv_heads = 3, .slots = 4}, {.window = 5}, 6);
  EXPECT_EQ(state.shape().kv_heads, 3);
  EXPECT_EQ(state.options().window, 5);
  EXPECT_EQ(state.max_rollback(), 6);
  for (Index n = 0; n < 2; ++n) {
    EXPECT_EQ(state.tokens_seen(n), 0);
    EXPECT_FALSE(state.has_initial_slots(n));
    for (Index h = 0; h < 3; ++h) {
      EXPECT_EQ(state.tokens_pending(n, h), 0);
      EXPECT_EQ(state.slot_k(n, h).extent(0), 4);
      EXPECT_EQ(state.slot_k(n, h).extent(1), 64);
      EXPECT_EQ(state.slot_v(n, h)(3, 63), 0);
      EXPECT_EQ(state.slot_mass(n, h)(3), 0);
    }
  }
}

TEST(AttentionState, RefusesSizesAndOptionsOutOfRange) {
  const auto make = [](const AttentionShape& shape, const AttentionOptions& options = {},
                       Index max_rollback = 0) {
    AttentionState<float> state(shape, options, max_rollback);
  };
  NHA_EXPECT_ERROR(make({.batch = -1}), ArgumentError, "batch is -1");
  NHA_EXPECT_ERROR(make({.kv_heads = 0}), ArgumentError, "kv_heads is 0; expected 1");
  NHA_EXPECT_ERROR(make({.key_dim = 0}), ArgumentError, "key_dim is 0");
  NHA_EXPECT_ERROR(make({.value_dim = -5}), ArgumentError, "value_dim is -5");
  NHA_EXPECT_ERROR(make({.slots = -1}), ArgumentError, "slots is -1");
  NHA_EXPECT_ERROR(make({.slots = Index{1} << 40}), ArgumentError, "slots is 1099511627776");
  NHA_EXPECT_ERROR(make({}, {.window = -1}), ArgumentError, "window is -1");
  NHA_EXPECT_ERROR(make({}, {.window = 4, .slot_delay = 5}), ArgumentError,
                   "slot_delay is 5; expected 0 to the window, 4");
  NHA_EXPECT_ERROR(make({}, {.slot_delay = -1}), ArgumentError, "slot_delay is -1");
  NHA_EXPECT_ERROR(make({}, {.softmax_scale = 0.0}), ArgumentError, "softmax_scale is 0");
  NHA_EXPECT_ERROR(make({}, {.softmax_scale = std::nan("")}), ArgumentError,
                   "softmax_scale is nan");
  NHA_EXPECT_ERROR(make({}, {.empty_slots = static_cast<nha::EmptySlots>(7)}), ArgumentError,
                   "empty_slots is 7");
  NHA_EXPECT_ERROR(make({.kv_heads = 2}, {.head_windows = {1, 2, 3}}), ArgumentError,
                   "head_windows has 3 entries");
  NHA_EXPECT_ERROR(make({.kv_heads = 2}, {.head_windows = {1, -2}}), ArgumentError,
                   "head_windows is -2");
  NHA_EXPECT_ERROR(make({}, {}, -1), ArgumentError, "max_rollback is -1");
  NHA_EXPECT_ERROR(make({}, {}, Index{1} << 40), ArgumentError, "max_rollback is 1099511627776");
}

TEST(AttentionState, RefusesSizesWhoseProductCannotBe) {
  constexpr Index kMost = Index{1} << 24;
  constexpr Index kHuge = std::numeric_limits<Index>::max();
  const auto make = [](const AttentionShape& shape, const AttentionOptions& options = {}) {
    AttentionState<double> state(shape, options);
  };
  const char* message = "does not fit in memory";
  NHA_EXPECT_ERROR(make({.batch = kMost, .key_dim = kMost}), ArgumentError, message);
  NHA_EXPECT_ERROR(make({.key_dim = kMost, .slots = kMost}), ArgumentError, message);
  NHA_EXPECT_ERROR(make({.kv_heads = kMost, .value_dim = kMost}), ArgumentError, message);
  NHA_EXPECT_ERROR(make({}, {.window = kHuge}), ArgumentError, message);
  NHA_EXPECT_ERROR(make({.kv_heads = 2}, {.head_windows = {0, kHuge}}), ArgumentError, message);
  NHA_EXPECT_ERROR(make({.batch = 0}, {.window = kHuge}), ArgumentError, message);
}

TEST(AttentionState, StaticSizesMustBeTheShapes) {
  using Fixed = AttentionState<float, 16, 32, 8>;
  const Fixed state({.key_dim = 16, .value_dim = 32, .slots = 8});
  EXPECT_EQ(state.slot_v(0, 0).extent(1), 32);
  NHA_EXPECT_ERROR(Fixed({.key_dim = 8, .value_dim = 32, .slots = 8}), ArgumentError,
                   "key_dim is 8; the type says 16");
  NHA_EXPECT_ERROR(Fixed({.key_dim = 16, .value_dim = 16, .slots = 8}), ArgumentError,
                   "value_dim is 16; the type says 32");
  NHA_EXPECT_ERROR(Fixed({.key_dim = 16, .value_dim = 32, .slots = 9}), ArgumentError,
                   "slots is 9; the type says 8");
}

template <class T, class Fixed>
void expect_static_sizes_are_checks_only(const AttentionOptions& options) {
  const RandomCase<T> c(
      {.batch = 2, .tokens = 20, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4});
  CaseOutputs<T> out(c.shape), again(c.shape);
  StateOf<T, typename Fixed::SlotType> state(c.attention_shape(), options, 3);
  Fixed fixed(c.attention_shape(), options, 3);
  // One type does the work, so every algorithm is compiled once.
  static_assert(std::is_same_v<typename Fixed::Base, typename decltype(state)::Base>);
  static_assert(sizeof(Fixed) == sizeof(typename Fixed::Base));
  EXPECT_EQ(fixed.bytes(), state.bytes());
  step_range(c, state, out, 0, 12);
  step_range(c, fixed, again, 0, 12);
  EXPECT_TRUE(same_bits(again, out, 0, 12));
  EXPECT_TRUE(fixed == state);
  fixed.rollback(1, 2);
  EXPECT_FALSE(fixed == state);
  state.fork(1, fixed, 1);
  EXPECT_TRUE(fixed == state);
  prefill_range(c, state, out, 12, 20, 8);
  fixed.reset();
  state.fork(0, fixed, 1);
  fixed.fork(1, fixed, 0);
  state.fork(1, fixed, 1);
  EXPECT_TRUE(fixed == state);
}

TEST(AttentionState, StaticSizesAreChecksOnly) {
  for (const AttentionOptions& options :
       {AttentionOptions{.window = 4}, AttentionOptions{.slot_delay = 1, .head_windows = {2, 9}}}) {
    expect_static_sizes_are_checks_only<float, AttentionState<float, 3, 5, 4>>(options);
    expect_static_sizes_are_checks_only<double, AttentionState<double, nha::Dynamic, 5>>(options);
    using Halves = AttentionState<nha::bfloat16, 3, nha::Dynamic, 4, nha::float16>;
    expect_static_sizes_are_checks_only<nha::bfloat16, Halves>(options);
  }
}

// A base may be used through a reference; alone it would be a state whose sizes nobody checked.
using StateBase = nha::AttentionStateBase<float>;
static_assert(!std::is_copy_constructible_v<StateBase> && !std::is_destructible_v<StateBase>);
static_assert(!std::is_copy_assignable_v<StateBase> && !std::is_move_assignable_v<StateBase>);
static_assert(!std::is_assignable_v<AttentionState<float, 3, 5, 4>&, AttentionState<float>&>);

TEST(AttentionState, MayHaveNoSequences) {
  AttentionState<float> state({.batch = 0}, {}, 3);
  state.reset();
  EXPECT_EQ(state.bytes(), 0u);
  EXPECT_TRUE(state == AttentionState<float>({.batch = 0}));
  NHA_EXPECT_ERROR(state.reset(0), ArgumentError, "sequence is 0; the state holds no sequences");
}

TEST(AttentionState, RefusesPlacesItDoesNotHave) {
  AttentionState<float> state({.batch = 2, .kv_heads = 3});
  NHA_EXPECT_ERROR(state.tokens_seen(2), ArgumentError, "sequence is 2; expected 0 to 1");
  NHA_EXPECT_ERROR(state.tokens_seen(-1), ArgumentError, "sequence is -1");
  NHA_EXPECT_ERROR(state.tokens_pending(0, 3), ArgumentError, "head is 3; expected 0 to 2");
  NHA_EXPECT_ERROR(state.has_initial_slots(2), ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.slot_k(0, -1), ArgumentError, "head is -1");
  NHA_EXPECT_ERROR(state.slot_v(2, 0), ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.slot_mass(0, 3), ArgumentError, "head is 3");
  NHA_EXPECT_ERROR(state.reset(2), ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.rollback(2, 0), ArgumentError, "sequence is 2");
}

/// Counts what it is asked for.
class CountingResource : public std::pmr::memory_resource {
 public:
  int allocations = 0;
  std::size_t allocated = 0;
  std::size_t in_use = 0;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    ++allocations;
    allocated += bytes;
    in_use += bytes;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    in_use -= bytes;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

TEST(AttentionState, IsOneAllocationOfTheGivenResource) {
  CountingResource memory;
  {
    const StateSetting setting = {.name = "", .options = {.head_windows = {2, 9}}};
    const RandomCase<float> c(small_case(setting, 30, 2));
    AttentionState<float> state(c.attention_shape(), setting.options, 4, &memory);
    EXPECT_EQ(memory.allocations, 1);
    EXPECT_EQ(memory.allocated, state.bytes());
    CaseOutputs<float> out(c.shape);
    step_range(c, state, out, 0, 30);
    state.rollback(0, 3);
    state.fork(0, state, 1);
    state.reset(0);
    AttentionState<float> moved = std::move(state);
    EXPECT_EQ(memory.allocations, 1);
    AttentionState<float> copy(moved, &memory);
    EXPECT_EQ(memory.allocations, 2);
    copy = moved;  // of one size
    EXPECT_EQ(memory.allocations, 2);
    copy = std::move(moved);
    EXPECT_EQ(memory.allocations, 2);
  }
  EXPECT_EQ(memory.in_use, 0u);
}

TEST(AttentionState, BytesDoNotGrowWithTheTokens) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 50));
  AttentionState<float> state = make_state(c, setting, 2);
  const std::size_t bytes = state.bytes();
  CaseOutputs<float> out(c.shape);
  step_range(c, state, out, 0, 50);
  EXPECT_EQ(state.bytes(), bytes);
  EXPECT_GT(bytes, 0u);
}

TEST(AttentionState, CountsTokensSeenAndPending) {
  const RandomCase<float> c({.batch = 2, .tokens = 12, .kv_heads = 2, .slots = 4});
  const AttentionOptions options = {.head_windows = {3, 8}};
  AttentionState<float> state(c.attention_shape(), options);
  CaseOutputs<float> out(c.shape);
  for (Index t = 0; t < 12; ++t) {
    step_range(c, state, out, t, t + 1);
    for (Index n = 0; n < 2; ++n) {
      EXPECT_EQ(state.tokens_seen(n), t + 1);
      EXPECT_EQ(state.tokens_pending(n, 0), std::min<Index>(t + 1, 3));
      EXPECT_EQ(state.tokens_pending(n, 1), std::min<Index>(t + 1, 8));
    }
  }
}

TEST(AttentionState, NothingIsPendingWithoutSlots) {
  const RandomCase<float> c({.tokens = 5, .slots = 0});
  AttentionState<float> state(c.attention_shape(), {.window = 4});
  CaseOutputs<float> out(c.shape);
  step_range(c, state, out, 0, 5);
  EXPECT_EQ(state.tokens_seen(0), 5);
  EXPECT_EQ(state.tokens_pending(0), 0);
}

// --- As a value
// -----------------------------------------------------------------------------------

TEST(AttentionState, CopiesGoOnIndependently) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 30, 2));
    AttentionState<float> state = make_state(c, setting, 3);
    CaseOutputs<float> out(c.shape), again(c.shape);
    step_range(c, state, out, 0, 15);
    AttentionState<float> copy = state;
    EXPECT_TRUE(copy == state);
    step_range(c, state, out, 15, 30);
    EXPECT_FALSE(copy == state);
    EXPECT_EQ(copy.tokens_seen(0), 15);
    step_range(c, copy, again, 15, 30);
    EXPECT_TRUE(same_bits(out, again, 15, 30));
    EXPECT_TRUE(copy == state);
    AttentionState<float> assigned({.batch = 1});
    assigned = copy;
    EXPECT_TRUE(assigned == state);
  }
}

TEST(AttentionState, MovesKeepWhatIsRemembered) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 20));
  AttentionState<float> state = make_state(c, setting);
  CaseOutputs<float> out(c.shape), again(c.shape);
  step_range(c, state, out, 0, 10);
  const AttentionState<float> copy = state;
  AttentionState<float> moved = std::move(state);
  EXPECT_TRUE(moved == copy);
  AttentionState<float> assigned({.batch = 3});
  assigned = std::move(moved);
  EXPECT_TRUE(assigned == copy);
}

TEST(AttentionState, MovedFromHoldsNoSequences) {
  const StateSetting setting = {.name = "", .options = {.head_windows = {2, 9}}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape);
  const auto expect_none = [&](AttentionState<float>& state) {
    const char* message = "sequence is 0; the state holds no sequences";
    EXPECT_EQ(state.shape().batch, 0);
    EXPECT_EQ(state.bytes(), 0u);
    NHA_EXPECT_ERROR(state.tokens_seen(0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.tokens_pending(0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.has_initial_slots(0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.slot_k(0, 0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.reset(0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.rollback(0, 0), ArgumentError, message);
    NHA_EXPECT_ERROR(state.fork(0, state, 0), ArgumentError, message);
    NHA_EXPECT_ERROR(step_range(c, state, out, 0, 1), ArgumentError, "");
    state.reset();
    const AttentionState<float> copy = state;
    EXPECT_TRUE(copy == state);
  };
  AttentionState<float> state = make_state(c, setting, 3);
  step_range(c, state, out, 0, 10);
  const AttentionState<float> copy = state;
  AttentionState<float> moved = std::move(state);
  expect_none(state);  // NOLINT: what a moved-from state is
  AttentionState<float> assigned({.batch = 3});
  assigned = std::move(moved);
  expect_none(moved);  // NOLINT
  AttentionState<float>& self = assigned;
  assigned = std::move(self);
  EXPECT_TRUE(assigned == copy);
  state = copy;  // it may be given another value
  moved = std::move(assigned);
  step_range(c, state, out, 10, 20);
  step_range(c, moved, out, 10, 20);
  EXPECT_TRUE(state == moved);
}

TEST(AttentionState, AssignmentKeepsTheResourceOfTheTarget) {
  CountingResource memory;
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> source = make_state(c, setting);
  step_range(c, source, out, 0, 10);
  {
    AttentionState<float> target({.batch = 3}, {}, 0, &memory);
    target = source;  // of another size
    EXPECT_EQ(memory.in_use, source.bytes());
    EXPECT_TRUE(target == source);
    const AttentionState<float> copy = target;
    EXPECT_EQ(memory.in_use, source.bytes());
    target.reset();
    target = std::move(source);
    EXPECT_EQ(memory.in_use, copy.bytes());
    EXPECT_TRUE(target == copy);
  }
  EXPECT_EQ(memory.in_use, 0u);
}

TEST(AttentionState, EqualMeansSameLayerAndSameMemories) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 20)), other(small_case(setting, 20), 2);
  CaseOutputs<float> out(c.shape);
  AttentionState<float> a = make_state(c, setting), b = make_state(c, setting);
  step_range(c, a, out, 0, 12);
  EXPECT_FALSE(a == b);
  step_range(other, b, out, 0, 12);
  EXPECT_FALSE(a == b);
  b.reset();
  step_range(c, b, out, 0, 12);
  EXPECT_TRUE(a == b);

  // How far back they can go is not compared, though the rings then differ in size.
  AttentionState<float> with_rollback = make_state(c, setting, 5);
  step_range(c, with_rollback, out, 0, 12);
  EXPECT_TRUE(a == with_rollback);
  // Nor what has dropped out of the window and entered the slots when they forget it all.
  EXPECT_FALSE(a == AttentionState<float>(c.attention_shape(), {.window = 5}));
  AttentionShape larger = c.attention_shape();
  larger.batch = 2;
  EXPECT_FALSE(a == AttentionState<float>(larger, setting.options));
}

TEST(AttentionState, EqualityComparesEachMemory) {
  const RandomCase<float> c({.tokens = 12, .slots = 4});
  AttentionState<float> state(c.attention_shape(), {.window = 4, .slot_delay = 2});
  CaseOutputs<float> out(c.shape);
  step_range(c, state, out, 0, 12);
  const auto differs_after = [&](auto&& change) {
    AttentionState<float> copy = state;
    change(nha::detail::StateAccess::head(copy, 0, 0));
    return !(copy == state);
  };
  EXPECT_FALSE(differs_after([](auto) {}));
  EXPECT_TRUE(differs_after([](auto head) { head.slots.key_at(3, 15) += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.slots.value_at(3, 15) += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.slots.mass[0] += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.window.key_row(8)[0] += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.window.value_row(11)[15] += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.pending.key_row(10)[0] += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.pending.retention_row(10)[3] += 1; }));
  EXPECT_TRUE(differs_after([](auto head) { head.pending.write_row(11)[0] += 1; }));
}

TEST(AttentionState, ResetForgetsAllOrOneSequence) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 20, 3));
    AttentionState<float> state = make_state(c, setting, 4);
    CaseOutputs<float> first(c.shape), out(c.shape);
    step_range(c, state, first, 0, 20);
    const AttentionState<float> before = state;
    state.reset(1);
    EXPECT_EQ(state.tokens_seen(0), 20);
    EXPECT_EQ(state.tokens_seen(1), 0);
    EXPECT_FALSE(state.has_initial_slots(1));
    EXPECT_EQ(state.tokens_seen(2), 20);
    AttentionState<float> expected = before;
    AttentionState<float>(c.attention_shape(), setting.options, 4).fork(0, expected, 1);
    EXPECT_TRUE(state == expected);
    state.reset();
    EXPECT_TRUE(state == AttentionState<float>(c.attention_shape(), setting.options));
    if (setting.initial_slots) continue;
    step_range(c, state, out, 0, 20);
    EXPECT_TRUE(same_bits(out, first, 0, 20));
  }
}

// --- Given slots
// ----------------------------------------------------------------------------------

struct GivenSlots {
  explicit GivenSlots(const AttentionShape& s)
      : key({s.batch, s.kv_heads, s.slots, s.key_dim}),
        value({s.batch, s.kv_heads, s.slots, s.value_dim}),
        mass({s.batch, s.kv_heads, s.slots}) {
    for (Index i = 0; i < key.size(); ++i) key.data()[i] = static_cast<float>(i);
    for (Index i = 0; i < value.size(); ++i) value.data()[i] = static_cast<float>(-i);
    for (Index i = 0; i < mass.size(); ++i) mass.data()[i] = static_cast<float>(i) / 2;
  }
  nha::Tensor<float, 4> key, value;
  nha::Tensor<float, 3> mass;
};

TEST(AttentionState, StartsFromGivenSlots) {
  const AttentionShape shape = {
      .batch = 2, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4};
  const GivenSlots given(shape);
  AttentionState<float> state(shape, {.window = 4}, 2);
  const auto expect_given = [&](bool with_mass) {
    for (Index n = 0; n < 2; ++n) {
      EXPECT_TRUE(state.has_initial_slots(n));
      EXPECT_EQ(state.tokens_seen(n), 0);
      for (Index h = 0; h < 2; ++h)
        for (Index m = 0; m < 4; ++m) {
          for (Index d = 0; d < 3; ++d) EXPECT_EQ(state.slot_k(n, h)(m, d), given.key(n, h, m, d));
          for (Index d = 0; d < 5; ++d)
            EXPECT_EQ(state.slot_v(n, h)(m, d), given.value(n, h, m, d));
          EXPECT_EQ(state.slot_mass(n, h)(m), with_mass ? given.mass(n, h, m) : 1.0f);
        }
    }
  };
  state.set_initial_slots(given.key, given.value);
  expect_given(false);
  const RandomCase<float> c(
      {.batch = 2, .tokens = 9, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4});
  CaseOutputs<float> out(c.shape);
  step_range(c, state, out, 0, 9);
  state.set_initial_slots(given.key, given.value, given.mass);  // anew
  expect_given(true);
}

TEST(AttentionState, RefusesSlotsThatDoNotFit) {
  const AttentionShape shape = {
      .batch = 2, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4};
  const RandomCase<float> c(
      {.batch = 2, .tokens = 9, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4});
  AttentionState<float> state(shape, {.window = 4});
  CaseOutputs<float> out(c.shape);
  step_range(c, state, out, 0, 9);
  const AttentionState<float> before = state;
  const GivenSlots given(shape);
  const auto refuses = [&](const auto& key, const auto& value, const auto& mass,
                           const char* message) {
    NHA_EXPECT_ERROR(state.set_initial_slots(key, value, mass), ArgumentError, message);
    EXPECT_TRUE(state == before) << message;
  };
  refuses(given.value, given.value, given.mass, "initial slot_k is [2, 2, 4, 5]; expected [2, 2");
  refuses(given.key, given.key, given.mass, "initial slot_v is [2, 2, 4, 3]; expected [2, 2, 4, 5");
  const nha::TensorView<const float, -1, -1, -1, -1> no_data(nullptr, {2, 2, 4, 3});
  refuses(no_data, given.value, given.mass, "initial slot_k has no data");
  refuses(given.key, given.value, nha::Tensor<float, 3>({2, 2, 3}),
          "mass is [2, 2, 3]; expected [2, 2, 4]");
  for (float bad : {-1.0f, INFINITY, NAN}) {
    GivenSlots wrong(shape);
    wrong.mass(1, 0, 3) = bad;
    refuses(given.key, given.value, wrong.mass, "mass of sequence 1, head 0, slot 3 is ");
  }
}

TEST(AttentionState, RefusesItsOwnSlots) {
  const AttentionShape shape = {.key_dim = 3, .value_dim = 3, .slots = 4};
  const GivenSlots given(shape);
  AttentionState<float> state(shape, {.window = 4});
  state.set_initial_slots(given.key, given.value, given.mass);
  const AttentionState<float> before = state;
  const auto four = [](auto view) {
    return view.template insert_axis<0>().template insert_axis<0>();
  };
  const auto mass = state.slot_mass(0, 0).insert_axis<0>().insert_axis<0>();
  NHA_EXPECT_ERROR(state.set_initial_slots(four(state.slot_k(0, 0)), given.value), ArgumentError,
                   "initial slot_k lies in the state itself");
  NHA_EXPECT_ERROR(state.set_initial_slots(given.key, four(state.slot_v(0, 0))), ArgumentError,
                   "initial slot_v lies in the state itself");
  NHA_EXPECT_ERROR(state.set_initial_slots(given.key, given.value, mass), ArgumentError,
                   "initial mass lies in the state itself");
  EXPECT_TRUE(state == before);
  AttentionState<float> another(shape, {.window = 4});
  another.set_initial_slots(four(state.slot_k(0, 0)), four(state.slot_v(0, 0)), mass);
  EXPECT_TRUE(another == state);
}

// --- Fork
// -----------------------------------------------------------------------------------------

TEST(AttentionState, ForksContinueEquallyInAnotherPlace) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> one(small_case(setting, 30)), four(small_case(setting, 30, 4), 7);
    for (Index position : {0, 1, 7, 20}) {
      AttentionState<float> source = make_state(one, setting, 3);
      AttentionState<float> target = make_state(four, setting, 3);
      CaseOutputs<float> out(one.shape), other(four.shape), forked(one.shape);
      step_range(one, source, out, 0, position);
      step_range(four, target, other, 0, 11);
      AttentionState<float> expected = target;
      source.fork(0, target, 2);
      target.fork(2, target, 0);
      target.fork(2, target, 2);
      EXPECT_EQ(target.tokens_seen(0), position);
      EXPECT_EQ(target.tokens_seen(1), 11);
      EXPECT_EQ(target.tokens_seen(2), position);

      // Sequences 0 and 2 and the source take the same tokens, among others.
      step_range(one, source, out, position, 30);
      for (Index place : {0, 2}) {
        AttentionState<float> alone(one.attention_shape(), setting.options, 3);
        target.fork(place, alone, 0);
        step_range(one, alone, forked, position, 30);
        EXPECT_TRUE(same_bits(forked, out, position, 30));
        EXPECT_TRUE(alone == source);
      }
      // The others are as they were.
      target.fork(0, expected, 0);
      target.fork(2, expected, 2);
      EXPECT_TRUE(target == expected);
    }
  }
}

TEST(AttentionState, ForksCanBeRolledBackAsFar) {
  const StateSetting setting = {.name = "", .options = {.window = 4, .slot_delay = 2}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> source = make_state(c, setting, 5), expected = source;
  step_range(c, source, out, 0, 13);
  step_range(c, expected, out, 0, 8);
  AttentionShape shape = c.attention_shape();
  shape.batch = 3;
  AttentionState<float> target(shape, setting.options, 5);
  source.fork(0, target, 1);
  target.rollback(1, 5);
  AttentionState<float> back(c.attention_shape(), setting.options, 5);
  target.fork(1, back, 0);
  EXPECT_TRUE(back == expected);
  NHA_EXPECT_ERROR(target.rollback(1, 1), ArgumentError, "can now go back 0");
}

TEST(AttentionState, ForkRefusesStatesOfAnotherKind) {
  const AttentionShape shape = {.batch = 2, .kv_heads = 2, .slots = 4};
  const AttentionOptions options = {.window = 4};
  AttentionState<float> source(shape, options, 3);
  const RandomCase<float> c(
      {.batch = 2, .tokens = 6, .kv_heads = 2, .key_dim = 64, .value_dim = 64, .slots = 4});
  CaseOutputs<float> out(c.shape);
  step_range(c, source, out, 0, 6);
  const auto refused = [&](AttentionState<float> target) {
    const AttentionState<float> before = target;
    NHA_EXPECT_ERROR(source.fork(0, target, 0), ArgumentError, "target of fork has another shape");
    EXPECT_TRUE(target == before);
  };
  refused(AttentionState<float>({.batch = 2, .kv_heads = 3, .slots = 4}, options, 3));
  refused(AttentionState<float>({.batch = 2, .kv_heads = 2, .slots = 5}, options, 3));
  refused(
      AttentionState<float>({.batch = 2, .kv_heads = 2, .key_dim = 32, .slots = 4}, options, 3));
  refused(
      AttentionState<float>({.batch = 2, .kv_heads = 2, .value_dim = 32, .slots = 4}, options, 3));
  refused(AttentionState<float>(shape, {.window = 5}, 3));
  refused(AttentionState<float>(shape, {.window = 4, .slot_delay = 1}, 3));
  refused(AttentionState<float>(shape, {.window = 4, .softmax_scale = 0.5}, 3));
  refused(AttentionState<float>(shape, {.window = 4, .empty_slots = nha::EmptySlots::masked}, 3));
  refused(AttentionState<float>(shape, options, 2));
  AttentionState<float> target({.batch = 1, .kv_heads = 2, .slots = 4}, options, 3);
  NHA_EXPECT_ERROR(source.fork(2, target, 0), ArgumentError, "sequence is 2; expected 0 to 1");
  NHA_EXPECT_ERROR(source.fork(0, target, 1), ArgumentError, "sequence is 1; expected 0 to 0");
}

}  // namespace
