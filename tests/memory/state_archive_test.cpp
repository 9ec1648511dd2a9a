// SPDX-License-Identifier: MIT
#include <nha/attention/prefill.hpp>
#include <nha/memory/state_archive.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
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
using nha::FormatError;
using nha::load_state;
using nha::PrefillAlgorithm;
using nha::save_state;
using nha::state_bytes_size;

using Bytes = std::vector<std::byte>;

// What follows knows the format by its description only.

template <class Number>
void put(Bytes& bytes, std::size_t at, Number number) {
  const auto value = static_cast<std::uint64_t>(number);
  for (std::size_t i = 0; i < sizeof(Number); ++i)
    bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}
std::uint64_t get64(const Bytes& bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;)
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
  return value;
}

constexpr std::size_t kVersionAt = 8, kSizeAt = 12, kHeader = 20, kChecksum = 8;
// Within the content of the layer and sequence sections.
constexpr std::size_t kDtypeAt = 0, kEmptySlotsAt = 4, kHeadsAt = 8, kWindowAt = 48;
constexpr std::size_t kTokensSeenAt = 0, kInitialSlotsAt = 8;

/// Makes size and checksum right again after a change.
Bytes seal(Bytes bytes) {
  put(bytes, kSizeAt, std::uint64_t{bytes.size()});
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < bytes.size() - kChecksum; ++i)
    hash = (hash ^ std::to_integer<std::uint64_t>(bytes[i])) * 0x100000001b3u;
  put(bytes, bytes.size() - kChecksum, hash);
  return bytes;
}
/// Where the content of a section begins; its length stands 8 bytes before, its id 12.
std::size_t section_at(const Bytes& bytes, unsigned id) {
  std::size_t at = kHeader;
  while (std::to_integer<unsigned>(bytes[at]) != id)
    at += 12 + static_cast<std::size_t>(get64(bytes, at + 4));
  return at + 12;
}
Bytes without_section(Bytes bytes, unsigned id) {
  const auto at = static_cast<std::ptrdiff_t>(section_at(bytes, id));
  const auto length = static_cast<std::ptrdiff_t>(get64(bytes, static_cast<std::size_t>(at) - 8));
  bytes.erase(bytes.begin() + at - 12, bytes.begin() + at + length);
  return bytes;
}
/// A section put before all others.
Bytes with_section(Bytes bytes, std::uint32_t id, const Bytes& content) {
  Bytes section(12);
  put(section, 0, id);
  put(section, 4, std::uint64_t{content.size()});
  section.insert(section.end(), content.begin(), content.end());
  bytes.insert(bytes.begin() + kHeader, section.begin(), section.end());
  return bytes;
}
template <class Number>
Bytes with_number(Bytes bytes, unsigned section, std::size_t at, Number number) {
  put(bytes, section_at(bytes, section) + at, number);
  return bytes;
}

/// A state of one layer after some tokens, and what becomes of it when bytes are refused: nothing.
class Target {
 public:
  Target()
      : setting_{.name = "", .options = {.window = 3, .slot_delay = 2}},
        case_(small_case(setting_, 9)),
        state_(make_state(case_, setting_, 2)),
        before_(state_) {
    CaseOutputs<float> out(case_.shape);
    step_range(case_, state_, out, 0, 9);
    saved = save_state(state_, 0);
    state_.rollback(0, 2);
    before_ = state_;
  }
  void refuses(const Bytes& bytes, std::string_view message) {
    NHA_EXPECT_ERROR(load_state(bytes, state_, 0), FormatError, std::string(message));
    EXPECT_TRUE(state_ == before_) << message;
  }
  void takes(const Bytes& bytes) {
    AttentionState<float> state = state_;
    load_state(bytes, state, 0);
    EXPECT_EQ(state.tokens_seen(0), 9);
    EXPECT_EQ(save_state(state, 0), saved);
  }

  Bytes saved;

 private:
  StateSetting setting_;
  RandomCase<float> case_;
  AttentionState<float> state_, before_;
};

// --- Round trips
// ----------------------------------------------------------------------------------

template <class T, class SlotScalar = nha::accumulate_t<T>>
void expect_round_trips(const StateSetting& setting, PrefillAlgorithm algorithm) {
  SCOPED_TRACE(setting.name);
  constexpr Index kTokens = 30;
  const RandomCase<T> c(small_case(setting, kTokens));
  CaseOutputs<T> out(c.shape), again(c.shape);
  for (Index position : {0, 1, 2, 5, 6, 7, 11, 16, 25}) {
    SCOPED_TRACE("after " + std::to_string(position) + " tokens");
    auto state = make_state<T, SlotScalar>(c, setting);
    prefill_range(c, state, out, 0, position, 7, {.algorithm = algorithm});
    const Bytes bytes = save_state(state, 0);
    EXPECT_EQ(bytes.size(), state_bytes_size(state, 0));

    nha_test::StateOf<T, SlotScalar> loaded(c.attention_shape(), setting.options);
    load_state(bytes, loaded, 0);
    EXPECT_TRUE(loaded == state);
    EXPECT_EQ(loaded.has_initial_slots(0), setting.initial_slots);
    EXPECT_EQ(save_state(loaded, 0), bytes);
    prefill_range(c, state, out, position, kTokens, 9, {.algorithm = algorithm});
    prefill_range(c, loaded, again, position, kTokens, 9, {.algorithm = algorithm});
    EXPECT_TRUE(same_bits(again, out, position, kTokens));
    EXPECT_TRUE(loaded == state);
  }
}

TEST(StateBytes, LoadedStatesContinueToTheBit) {
  for (const StateSetting& setting : state_settings())
    for (PrefillAlgorithm algorithm : {PrefillAlgorithm::recurrent, PrefillAlgorithm::chunked}) {
      expect_round_trips<float>(setting, algorithm);
      expect_round_trips<double>(setting, algorithm);
      expect_round_trips<nha::bfloat16>(setting, algorithm);
      expect_round_trips<nha::float16>(setting, algorithm);
      expect_round_trips<float, nha::bfloat16>(setting, algorithm);
      expect_round_trips<float, nha::float16>(setting, algorithm);
      expect_round_trips<nha::bfloat16, nha::bfloat16>(setting, algorithm);
    }
}

TEST(StateBytes, AnyPlaceOfAnyMatchingStateTakesThem) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 20, 2)), other(small_case(setting, 20, 4), 2);
    CaseOutputs<float> out(c.shape), other_out(other.shape);
    AttentionState<float> source = make_state(c, setting, 5),
                          target = make_state(other, setting, 3);
    step_range(c, source, out, 0, 13);
    step_range(other, target, other_out, 0, 17);
    AttentionState<float> expected = target;
    load_state(save_state(source, 1), target, 2);

    // Alone, so that states with unlike batch compare.
    AttentionShape one = c.attention_shape();
    one.batch = 1;
    AttentionState<float> from(one, setting.options, 5);
    AttentionState<float> to(one, setting.options, 3);
    source.fork(1, from, 0);
    target.fork(2, to, 0);
    EXPECT_TRUE(from == to);
    // Every other place is as it was.
    target.fork(2, expected, 2);
    EXPECT_TRUE(target == expected);
  }
}

TEST(StateBytes, DoNotDependOnPlaceRollbackOrPosition) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<float> c(small_case(setting, 20));
    CaseOutputs<float> out(c.shape);
    AttentionState<float> plain = make_state(c, setting), with_rollback = make_state(c, setting, 6);
    step_range(c, plain, out, 0, 14);
    step_range(c, with_rollback, out, 0, 19);
    with_rollback.rollback(0, 5);
    const Bytes bytes = save_state(plain, 0);
    EXPECT_EQ(save_state(with_rollback, 0), bytes);
    AttentionShape larger = c.attention_shape();
    larger.batch = 3;
    AttentionState<float> elsewhere(larger, setting.options, 6);
    with_rollback.fork(0, elsewhere, 1);
    EXPECT_EQ(save_state(elsewhere, 1), bytes);
  }
}

TEST(StateBytes, GrowUntilTheWindowIsFullOnly) {
  const StateSetting setting = {.name = "", .options = {.window = 6}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting);
  std::size_t before = 0;
  for (Index t = 0; t < 20; ++t) {
    const std::size_t size = state_bytes_size(state, 0);
    if (t <= 6) {
      EXPECT_GT(size, before);
    } else {
      EXPECT_EQ(size, before);
    }
    before = size;
    step_range(c, state, out, t, t + 1);
  }
}

TEST(StateBytes, StaticSizesMakeNoDifference) {
  using Fixed = AttentionState<float, 3, 5, 4>;
  const RandomCase<float> c({.tokens = 9, .key_dim = 3, .value_dim = 5, .slots = 4});
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state(c.attention_shape(), {.window = 3});
  step_range(c, state, out, 0, 9);
  const Bytes bytes = save_state(state, 0);
  Fixed fixed(c.attention_shape(), {.window = 3});
  load_state(bytes, fixed, 0);
  EXPECT_EQ(save_state(fixed, 0), bytes);
}

TEST(StateBytes, KeepInfinitiesAndNan) {
  const StateSetting setting = {.name = "", .options = {.window = 3}};
  const RandomCase<float> c(small_case(setting, 9));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting), loaded = state;
  step_range(c, state, out, 0, 9);
  nha::detail::StateAccess::head(state, 0, 0).slots.key_at(1, 1) =
      std::numeric_limits<float>::quiet_NaN();
  nha::detail::StateAccess::head(state, 0, 1).window.value_row(8)[2] = -INFINITY;
  load_state(save_state(state, 0), loaded, 0);
  EXPECT_TRUE(loaded == state);
}

TEST(StateBytes, PositionsMayBeBeyondThirtyTwoBits) {
  constexpr std::int64_t kFar = std::int64_t{1} << 40;
  const StateSetting setting = {.name = "", .options = {.window = 5, .slot_delay = 3}};
  const RandomCase<float> c(small_case(setting, 20));
  CaseOutputs<float> out(c.shape), far_out(c.shape);
  AttentionState<float> state = make_state(c, setting, 3), far = state;
  step_range(c, state, out, 0, 8);
  load_state(seal(with_number(save_state(state, 0), 2, kTokensSeenAt, kFar)), far, 0);
  EXPECT_EQ(far.tokens_seen(0), kFar);
  step_range(c, state, out, 8, 20);
  step_range(c, far, far_out, 8, 20);
  EXPECT_TRUE(same_bits(far_out, out, 8, 20));
  far.rollback(0, 3);
  state.rollback(0, 3);
  EXPECT_EQ(far.tokens_seen(0), kFar + 9);
  step_range(c, state, out, 2, 8);
  step_range(c, far, far_out, 2, 8);
  EXPECT_TRUE(same_bits(far_out, out, 2, 8));
}

// --- Rollback after loading
// -----------------------------------------------------------------------

TEST(StateBytes, RollbackReachesTheLoadedPositionAndNoFurther) {
  constexpr Index kTokens = 40;
  for (const StateSetting& setting : state_settings())
    for (Index max_rollback : {1, 3, 4, 7})
      for (Index position : {0, 1, 3, 4, 6, 7, 8, 13, 14}) {
        SCOPED_TRACE(setting.name + ", max_rollback " + std::to_string(max_rollback) + ", after " +
                     std::to_string(position));
        const RandomCase<float> c(small_case(setting, kTokens));
        CaseOutputs<float> out(c.shape);
        AttentionState<float> source = make_state(c, setting, 5);
        step_range(c, source, out, 0, position);
        const Bytes bytes = save_state(source, 0);
        // What was there before must not shine through.
        AttentionState<float> state = make_state(c, setting, max_rollback);
        step_range(c, state, out, 20, 33);
        load_state(bytes, state, 0);
        std::vector<AttentionState<float>> at = {state};  // after so many tokens more
        for (Index more = 0; more <= 2 * max_rollback + 2; ++more) {
          const Index reach = std::min(more, max_rollback);
          for (Index back = 0; back <= reach; ++back) {
            AttentionState<float> rolled = at.back();
            rolled.rollback(0, back);
            ASSERT_TRUE(rolled == at[static_cast<std::size_t>(more - back)])
                << back << " tokens back, " << more << " after loading";
            // And on from there as if nothing had happened.
            AttentionState<float> never = at[static_cast<std::size_t>(more - back)];
            step_range(c, rolled, out, 25, 28);
            step_range(c, never, out, 25, 28);
            ASSERT_TRUE(rolled == never) << back << " tokens back, " << more << " after loading";
          }
#if NHA_HAS_EXCEPTIONS
          AttentionState<float> rolled = at.back();
          NHA_EXPECT_ERROR(rolled.rollback(0, reach + 1), ArgumentError, "tokens to roll back is");
          ASSERT_TRUE(rolled == at.back());
#endif
          at.push_back(at.back());
          step_range(c, at.back(), out, position + more, position + more + 1);
        }
      }
}

TEST(StateBytes, NothingCanBeTakenBackRightAfterLoading) {
  const StateSetting setting = {.name = "", .options = {.window = 4}};
  const RandomCase<float> c(small_case(setting, 12));
  CaseOutputs<float> out(c.shape);
  AttentionState<float> state = make_state(c, setting, 4);
  step_range(c, state, out, 0, 10);
  load_state(save_state(state, 0), state, 0);
  state.rollback(0, 0);
  NHA_EXPECT_ERROR(state.rollback(0, 1), ArgumentError,
                   "tokens to roll back is 1; the state keeps 4 and can now go back 0");
  step_range(c, state, out, 10, 12);
  NHA_EXPECT_ERROR(state.rollback(0, 3), ArgumentError, "can now go back 2");
}

TEST(StateBytes, PrefillAfterLoadingCanBeTakenBack) {
  for (const StateSetting& setting : state_settings()) {
    SCOPED_TRACE(setting.name);
    const RandomCase<double> c(small_case(setting, 40));
    CaseOutputs<double> out(c.shape);
    AttentionState<double> state = make_state(c, setting, 6), source = state;
    step_range(c, source, out, 0, 11);
    load_state(save_state(source, 0), state, 0);
    prefill_range(c, state, out, 11, 15, 4, {.algorithm = PrefillAlgorithm::chunked});
    AttentionState<double> rolled = state;
    rolled.rollback(0, 4);
    EXPECT_TRUE(rolled == source);
    prefill_range(c, state, out, 15, 40, 40, {.algorithm = PrefillAlgorithm::chunked});
    state.rollback(0, 6);
    step_range(c, source, out, 11, 34);
    EXPECT_LT(slot_error(state, source), 1e-12);
  }
}

// --- The format
// -----------------------------------------------------------------------------------

// Made by another implementation of the description at the head of state_bytes.hpp: three tokens t
// with window key t + 1, slot key -(t + 1), value (10 t, 10 t + 1), log gate 0 and write t + 1.
constexpr std::string_view kVersion1 =
    "4e4841535441544501000000d800000000000000010000004000000000000000"
    "0000000001000000010000000000000001000000000000000200000000000000"
    "0100000000000000000000000000e03f02000000000000000100000000000000"
    "020000000c000000000000000300000000000000000000000300000010000000"
    "000000000000a0c00000a0410000b84100004040040000001800000000000000"
    "000000400000204100003041000040400000a0410000a841050000000c000000"
    "00000000000040c00000803f00004040c1d07763ab0f95eb";

Bytes from_hex(std::string_view text) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  return bytes;
}

TEST(StateBytes, FormatVersion1KeepsLoading) {
  const AttentionOptions options = {
      .window = 2, .slot_delay = 1, .softmax_scale = 0.5, .empty_slots = nha::EmptySlots::masked};
  const AttentionShape shape = {.key_dim = 1, .value_dim = 2, .slots = 1};
  AttentionState<float> loaded(shape, options);
  load_state(from_hex(kVersion1), loaded, 0);
  EXPECT_EQ(loaded.tokens_seen(0), 3);
  EXPECT_EQ(loaded.slot_k(0, 0)(0, 0), -5);
  EXPECT_EQ(loaded.slot_v(0, 0)(0, 0), 20);
  EXPECT_EQ(loaded.slot_v(0, 0)(0, 1), 23);
  EXPECT_EQ(loaded.slot_mass(0, 0)(0), 3);
  EXPECT_EQ(save_state(loaded, 0), from_hex(kVersion1));

  RandomCase<float> c(
      {.tokens = 3, .key_dim = 1, .value_dim = 2, .slots = 1, .explicit_write = true});
  for (Index t = 0; t < 3; ++t) {
    const auto number = static_cast<float>(t);
    c.k_window(0, t, 0, 0) = number + 1;
    c.k_slot(0, t, 0, 0) = -(number + 1);
    c.v(0, t, 0, 0) = 10 * number;
    c.v(0, t, 0, 1) = 10 * number + 1;
    c.log_gate(0, t, 0, 0) = 0;
    c.write(0, t, 0, 0) = number + 1;
  }
  AttentionState<float> computed(shape, options);
  CaseOutputs<float> out(c.shape);
  step_range(c, computed, out, 0, 3);
  EXPECT_TRUE(computed == loaded);
}

TEST(StateBytes, UnknownSectionsAndAnyOrderAreRead) {
  Target target;
  target.takes(target.saved);
  target.takes(seal(with_section(target.saved, 6, Bytes(5))));
  target.takes(seal(with_section(target.saved, 0xffffffffu, {})));
  target.takes(seal(with_section(with_section(target.saved, 0, Bytes(3)), 0, Bytes(1))));
  for (unsigned id : {2u, 5u}) {
    const std::size_t at = section_at(target.saved, id);
    const auto begin = target.saved.begin() + static_cast<std::ptrdiff_t>(at);
    const Bytes content(begin, begin + static_cast<std::ptrdiff_t>(get64(target.saved, at - 8)));
    target.takes(seal(with_section(without_section(target.saved, id), id, content)));
  }
}

// Every refusal forks a process where exceptions are off: fewer of them then.
constexpr std::size_t kStride = NHA_HAS_EXCEPTIONS ? 1 : 61;

TEST(StateBytes, AnyDamagedByteIsNoticed) {
  Target target;
  for (std::size_t i = 0; i < target.saved.size(); i += kStride)
    for (unsigned flip : {0x01u, 0x80u, 0xffu}) {
      Bytes bytes = target.saved;
      bytes[i] ^= static_cast<std::byte>(flip);
      target.refuses(bytes, i < kVersionAt ? "does not begin with NHASTATE"
                            : i < kSizeAt  ? "format version"
                            : i < kHeader  ? "saved state says it has"
                                           : "its checksum does not match");
    }
}

TEST(StateBytes, AnyTruncationAndAnyTrailingByteIsNoticed) {
  Target target;
  for (std::size_t size = 0; size < target.saved.size(); size += kStride) {
    // Memory of exactly this size, so that a sanitizer sees a read beyond it.
    const Bytes bytes(target.saved.begin(),
                      target.saved.begin() + static_cast<std::ptrdiff_t>(size));
    target.refuses(bytes, size < kHeader + kChecksum ? "is truncated" : "there are ");
    if (size >= kHeader + kChecksum) target.refuses(seal(bytes), "saved state");
  }
  Bytes longer = target.saved;
  longer.push_back(std::byte{0});
  target.refuses(longer, "; there are " + std::to_string(longer.size()));
  target.refuses(seal(longer), "saved state");
}

TEST(StateBytes, OtherVersionsAreNamed) {
  Target target;
  Bytes bytes = target.saved;
  put(bytes, kVersionAt, std::uint32_t{2});
  target.refuses(seal(bytes), "saved state has format version 2; this library reads version 1");
}

TEST(StateBytes, LyingLengthsAreNoticed) {
  Target target;
  for (unsigned id : {1u, 2u, 3u, 4u, 5u}) {
    const std::size_t length_at = section_at(target.saved, id) - 8;
    const std::uint64_t length = get64(target.saved, length_at);
    for (std::uint64_t lie : {std::uint64_t{0}, length - 1, length + 1, std::uint64_t{1} << 40,
                              std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 11}) {
      Bytes bytes = target.saved;
      put(bytes, length_at, lie);
      target.refuses(seal(bytes), lie > target.saved.size() ? "says it has " : "saved state");
    }
  }
}

TEST(StateBytes, SectionsOfAnotherSizeAreNoticed) {
  Target target;
  const char* names[] = {"", "layer", "sequence", "slots", "window", "pending"};
  for (unsigned id : {1u, 2u, 3u, 4u, 5u}) {
    const std::size_t at = section_at(target.saved, id);
    const std::uint64_t length = get64(target.saved, at - 8);
    const auto end = static_cast<std::ptrdiff_t>(at + length);
    Bytes longer = target.saved, shorter = target.saved;
    longer.insert(longer.begin() + end, std::byte{0});
    put(longer, at - 8, length + 1);
    target.refuses(seal(longer), std::string(names[id]) + " section of the saved state");
    shorter.erase(shorter.begin() + end - 1);
    put(shorter, at - 8, length - 1);
    target.refuses(seal(shorter), id < 3 ? "saved state ends 1 bytes too early" : names[id]);
    target.refuses(seal(without_section(target.saved, id)),
                   std::string("saved state has no ") + names[id] + " section");
    target.refuses(seal(with_section(target.saved, id, Bytes(8))),
                   std::string("saved state has two ") + names[id] + " sections");
  }
}

TEST(StateBytes, AbsurdSequencesAreNoticed) {
  Target target;
  for (std::int64_t seen : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(),
                            std::numeric_limits<std::int64_t>::max()})
    target.refuses(seal(with_number(target.saved, 2, kTokensSeenAt, seen)),
                   "tokens_seen of the saved state is " + std::to_string(seen));
  // Fewer tokens than the window section holds.
  target.refuses(seal(with_number(target.saved, 2, kTokensSeenAt, std::int64_t{2})),
                 "window section of the saved state has");
  target.refuses(seal(with_number(target.saved, 2, kInitialSlotsAt, std::uint32_t{2})),
                 "has_initial_slots of the saved state is 2");
}

TEST(StateBytes, CodesNoVersionKnowsAreNoticed) {
  Target target;
  target.refuses(seal(with_number(target.saved, 1, kDtypeAt, std::uint32_t{4})),
                 "dtype is unknown (4) in the saved state and F32");
  target.refuses(seal(with_number(target.saved, 1, kEmptySlotsAt, std::uint32_t{3})),
                 "empty_slots is unknown (3) in the saved state and participate");
  target.refuses(seal(with_number(target.saved, 1, kHeadsAt, std::int64_t{1} << 62)),
                 "kv_heads is 4611686018427387904 in the saved state and 2");
  target.refuses(seal(with_number(target.saved, 1, kWindowAt, std::int64_t{-1})),
                 "window of head 0 is -1 in the saved state and 3");
}

TEST(StateBytes, RandomBytesNeverLoad) {
  Target target;
  std::mt19937 random(5);
  // Any of these but the numbers of a memory, which may be anything.
  const std::size_t end = section_at(target.saved, 3) - 12;
  for (int round = 0; round < (NHA_HAS_EXCEPTIONS ? 500 : 5); ++round) {
    // Several bytes wrong, with a checksum that says they are not.
    Bytes bytes = target.saved;
    for (int i = 0; i < 4; ++i)
      bytes[kHeader + random() % (end - kHeader)] ^= static_cast<std::byte>(1 + random() % 255);
    if (bytes == target.saved) continue;
    target.refuses(seal(bytes), "");
  }
}

// What must match.

TEST(StateBytes, TheFieldThatDiffersIsNamed) {
  const AttentionShape shape = {
      .batch = 1, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 4};
  const AttentionOptions options = {.window = 6, .slot_delay = 2};
  const Bytes bytes = save_state(AttentionState<float>(shape, options), 0);
  const auto refused = [&](auto state, const char* message) {
    const auto before = state;
    NHA_EXPECT_ERROR(load_state(bytes, state, 0), FormatError, message);
    EXPECT_TRUE(state == before);
  };
  const auto with_shape = [&](const AttentionShape& other) {
    return AttentionState<float>(other, options);
  };
  const auto with_options = [&](const AttentionOptions& other) {
    return AttentionState<float>(shape, other);
  };
  refused(with_shape({.kv_heads = 3, .key_dim = 3, .value_dim = 5, .slots = 4}),
          "kv_heads is 2 in the saved state and 3 in the state to load into");
  refused(with_shape({.kv_heads = 2, .key_dim = 4, .value_dim = 5, .slots = 4}),
          "key_dim is 3 in the saved state and 4");
  refused(with_shape({.kv_heads = 2, .key_dim = 3, .value_dim = 6, .slots = 4}),
          "value_dim is 5 in the saved state and 6");
  refused(with_shape({.kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 0}),
          "slots is 4 in the saved state and 0");
  refused(with_options({.window = 7, .slot_delay = 2}),
          "window of head 0 is 6 in the saved state and 7");
  refused(with_options({.slot_delay = 2, .head_windows = {6, 5}}),
          "window of head 1 is 6 in the saved state and 5");
  refused(with_options({.window = 6, .slot_delay = 3}),
          "slot_delay of head 0 is 2 in the saved state and 3");
  refused(with_options({.window = 6}), "slot_delay of head 0 is 2 in the saved state and 6");
  refused(with_options({.window = 6, .slot_delay = 2, .softmax_scale = 0.25}),
          "softmax_scale is 0.57735026918962584 in the saved state and 0.25");
  refused(with_options({.window = 6, .slot_delay = 2, .softmax_scale = 0.57735026918962595}),
          "softmax_scale is 0.57735026918962584 in the saved state and 0.57735026918962595");
  refused(with_options({.window = 6, .slot_delay = 2, .empty_slots = nha::EmptySlots::masked}),
          "empty_slots is participate in the saved state and masked");
  refused(AttentionState<double>(shape, options), "dtype is F32 in the saved state and F64");
  refused(AttentionState<nha::bfloat16>(shape, options),
          "dtype is F32 in the saved state and BF16");
  refused(AttentionState<nha::float16>(shape, options), "dtype is F32 in the saved state and F16");
}

TEST(StateBytes, SlotsOfAnotherTypeAreRefusedBothWays) {
  const AttentionShape shape = {.kv_heads = 2, .key_dim = 16, .value_dim = 5, .slots = 4};
  AttentionState<float> wide(shape);
  nha_test::StateOf<float, nha::bfloat16> half(shape);
  nha_test::StateOf<float, nha::float16> other(shape);
  NHA_EXPECT_ERROR(load_state(save_state(wide, 0), half, 0), FormatError,
                   "slot dtype is F32 in the saved state and BF16");
  NHA_EXPECT_ERROR(load_state(save_state(half, 0), wide, 0), FormatError,
                   "slot dtype is BF16 in the saved state and F32");
  NHA_EXPECT_ERROR(load_state(save_state(half, 0), other, 0), FormatError,
                   "slot dtype is BF16 in the saved state and F16");
}

TEST(StateBytes, OptionsThatMeanTheSameMatch) {
  const AttentionShape shape = {.kv_heads = 2, .key_dim = 16, .value_dim = 5, .slots = 4};
  const Bytes bytes = save_state(AttentionState<float>(shape, {.window = 6}), 0);
  AttentionState<float> spelled_out(
      shape, {.window = 1, .slot_delay = 6, .softmax_scale = 0.25, .head_windows = {6, 6}});
  load_state(bytes, spelled_out, 0);
  EXPECT_EQ(save_state(spelled_out, 0), bytes);
}

TEST(StateBytes, RefusesPlacesThatAreNotThere) {
  AttentionState<float> state({.batch = 2});
  const Bytes bytes = save_state(state, 1);
  NHA_EXPECT_ERROR(save_state(state, 2), ArgumentError, "sequence is 2; expected 0 to 1");
  NHA_EXPECT_ERROR(state_bytes_size(state, -1), ArgumentError, "sequence is -1");
  NHA_EXPECT_ERROR(load_state(bytes, state, 2), ArgumentError, "sequence is 2; expected 0 to 1");
}

}  // namespace
