// SPDX-License-Identifier: MIT
#include <nha/core/options.hpp>

#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "support/expect_error.hpp"

namespace {

using nha::ArgumentError;
using nha::AttentionOptions;
using nha::AttentionShape;
using nha::Index;

TEST(Options, DefaultsAreValid) {
  nha::validate(AttentionShape{});
  nha::validate(AttentionOptions{}, 1);
}

TEST(Options, DelayIsTheWindowUnlessGiven) {
  EXPECT_EQ(nha::head_options({.window = 5}, 0).slot_delay, 5);
  EXPECT_EQ(nha::head_options({.window = 5, .slot_delay = 0}, 0).slot_delay, 0);
  EXPECT_EQ(nha::head_options({.window = 0}, 3).window, 0);
}

TEST(Options, HeadWindowsReplaceTheWindow) {
  const AttentionOptions options{.window = 5, .head_windows = {0, 7}};
  EXPECT_EQ(nha::head_options(options, 0).window, 0);
  EXPECT_EQ(nha::head_options(options, 0).slot_delay, 0);
  EXPECT_EQ(nha::head_options(options, 1).window, 7);
  EXPECT_EQ(nha::head_options(options, 1).slot_delay, 7);
  nha::validate(options, 2);
}

TEST(Options, ScaleIsTheInverseRootOfTheKeyDimensionUnlessGiven) {
  EXPECT_EQ(nha::softmax_scale({}, 64), 0.125);
  EXPECT_EQ(nha::softmax_scale({.softmax_scale = 1.0}, 64), 1.0);
}

TEST(Options, ShapeNamesTheSizeThatIsOutOfRange) {
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.batch = -1}), ArgumentError,
                   "batch is -1; expected 0 to 16777216");
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.kv_heads = 0}), ArgumentError,
                   "kv_heads is 0; expected 1 to 16777216");
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.key_dim = 0}), ArgumentError,
                   "key_dim is 0; expected 1 to 16777216");
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.value_dim = -5}), ArgumentError,
                   "value_dim is -5; expected 1 to 16777216");
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.slots = -1}), ArgumentError,
                   "slots is -1; expected 0 to 16777216");
  NHA_EXPECT_ERROR(nha::validate(AttentionShape{.slots = Index{1} << 40}), ArgumentError,
                   "slots is 1099511627776");
}

TEST(Options, NoSequencesAndNoSlotsAreShapes) {
  nha::validate(AttentionShape{.batch = 0});
  nha::validate(AttentionShape{.slots = 0});
}

TEST(Options, WindowMustNotBeNegative) {
  NHA_EXPECT_ERROR(nha::validate({.window = -1}, 1), ArgumentError,
                   "window is -1; expected 0 or more");
  NHA_EXPECT_ERROR(nha::validate({.head_windows = {3, -2}}, 2), ArgumentError,
                   "head_windows is -2; expected 0 or more");
}

TEST(Options, DelayMustLieInTheWindow) {
  nha::validate({.window = 4, .slot_delay = 4}, 1);
  NHA_EXPECT_ERROR(nha::validate({.window = 4, .slot_delay = 5}, 1), ArgumentError,
                   "slot_delay is 5; expected 0 to the window, 4");
  NHA_EXPECT_ERROR(nha::validate({.window = 4, .slot_delay = -1}, 1), ArgumentError,
                   "slot_delay is -1; expected 0 to the window, 4");
  // One delay for windows of unlike length must fit the shortest.
  NHA_EXPECT_ERROR(nha::validate({.slot_delay = 3, .head_windows = {8, 2}}, 2), ArgumentError,
                   "slot_delay is 3; expected 0 to the window of head 1, 2");
}

TEST(Options, HeadWindowsNeedOneEntryPerHead) {
  NHA_EXPECT_ERROR(nha::validate({.head_windows = {1, 2}}, 3), ArgumentError,
                   "head_windows has 2 entries; expected one for each of 3 key/value heads");
}

TEST(Options, ScaleMustBeAPositiveNumber) {
  NHA_EXPECT_ERROR(nha::validate({.softmax_scale = 0.0}, 1), ArgumentError,
                   "softmax_scale is 0; expected a positive number");
  NHA_EXPECT_ERROR(nha::validate({.softmax_scale = -1.0}, 1), ArgumentError, "softmax_scale is -1");
  NHA_EXPECT_ERROR(nha::validate({.softmax_scale = std::numeric_limits<double>::infinity()}, 1),
                   ArgumentError, "softmax_scale is inf");
  NHA_EXPECT_ERROR(nha::validate({.softmax_scale = std::numeric_limits<double>::quiet_NaN()}, 1),
                   ArgumentError, "softmax_scale is nan");
}

TEST(Options, EmptySlotsMustBeOneOfTheRules) {
  NHA_EXPECT_ERROR(nha::validate({.empty_slots = static_cast<nha::EmptySlots>(7)}, 1),
                   ArgumentError, "empty_slots is 7; expected a value of EmptySlots");
}

TEST(Options, EqualOnlyWhereAllIsEqual) {
  const AttentionOptions options{.window = 3, .head_windows = {3, 4}};
  EXPECT_EQ(options, (AttentionOptions{.window = 3, .head_windows = {3, 4}}));
  EXPECT_NE(options, (AttentionOptions{.window = 3, .head_windows = {3, 5}}));
  EXPECT_NE(options, (AttentionOptions{.window = 3, .slot_delay = 3, .head_windows = {3, 4}}));
}

}  // namespace
