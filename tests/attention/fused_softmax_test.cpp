// SPDX-License-Identifier: MIT
#include <nha/attention/fused_softmax.hpp>
#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"

namespace {

using nha::FusedSoftmax;
using nha::Index;
using nha::Tensor;

struct Source {
  Tensor<double, 1> logits;
  Tensor<double, 2> values;
};

Source random_source(Index count, Index value_dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Source source{Tensor<double, 1>({count}), Tensor<double, 2>({count, value_dim})};
  for (double& x : source.logits.values()) x = 3 * normal(random);
  for (double& x : source.values.values()) x = normal(random);
  return source;
}

/// softmax over all sources at once, as it is written in a textbook.
std::vector<double> plain_softmax(const std::vector<Source>& sources, Index value_dim) {
  std::vector<double> output(static_cast<std::size_t>(value_dim));
  double sum = 0;
  for (const Source& s : sources)
    for (Index i = 0; i < s.logits.size(); ++i) sum += std::exp(s.logits(i));
  for (const Source& s : sources)
    for (Index i = 0; i < s.logits.size(); ++i)
      for (Index d = 0; d < value_dim; ++d)
        output[static_cast<std::size_t>(d)] += std::exp(s.logits(i)) / sum * s.values(i, d);
  return output;
}

template <class Softmax>
void read(Softmax& softmax, const Source& source) {
  softmax.read(source.logits, source.values);
}

TEST(FusedSoftmax, SourcesReadInPiecesGiveOneSoftmax) {
  constexpr Index kDim = 19;
  const std::vector<Source> sources = {random_source(5, kDim, 1), random_source(130, kDim, 2),
                                       random_source(1, kDim, 3)};
  FusedSoftmax<double> softmax(kDim);
  for (const Source& source : sources) read(softmax, source);
  Tensor<double, 1> output({kDim});
  softmax.finish(output);
  const auto expected = plain_softmax(sources, kDim);
  for (Index d = 0; d < kDim; ++d)
    EXPECT_NEAR(output(d), expected[static_cast<std::size_t>(d)], 1e-14);
}

TEST(FusedSoftmax, LseIsTheNaturalLogarithmOfTheDenominator) {
  const Source source = random_source(40, 2, 4);
  double sum = 0;
  for (double logit : source.logits.values()) sum += std::exp(logit);
  FusedSoftmax<double> softmax(2);
  read(softmax, source);
  EXPECT_NEAR(softmax.lse(), std::log(sum), 1e-14);
}

TEST(FusedSoftmax, NothingReadGivesZeroAndMinusInfinity) {
  FusedSoftmax<float> softmax(3);
  Tensor<float, 1> output({3});
  output(0) = 7;
  softmax.finish(output);
  EXPECT_EQ(output(0), 0.0f);
  EXPECT_EQ(softmax.lse(), -INFINITY);
}

TEST(FusedSoftmax, FullyMaskedSourceTakesNoPart) {
  Source masked = random_source(20, 4, 5);
  for (double& logit : masked.logits.values()) logit = -INFINITY;
  const Source source = random_source(6, 4, 6);
  FusedSoftmax<double> with(4), without(4);
  read(with, masked);
  EXPECT_EQ(with.lse(), -INFINITY);
  read(with, source);
  read(with, masked);
  read(without, source);
  Tensor<double, 1> a({4}), b({4});
  with.finish(a);
  without.finish(b);
  for (Index d = 0; d < 4; ++d) EXPECT_EQ(a(d), b(d));
}

TEST(FusedSoftmax, HugeLogitsDoNotOverflow) {
  Tensor<float, 1> logits({2});
  logits(0) = 3e38f;
  logits(1) = -3e38f;
  Tensor<float, 2> values({2, 1});
  values(0, 0) = 5;
  values(1, 0) = 9;
  FusedSoftmax<float> softmax(1);
  softmax.read(logits, values);
  Tensor<float, 1> output({1});
  softmax.finish(output);
  EXPECT_EQ(output(0), 5.0f);
}

TEST(FusedSoftmax, MergedHalvesEqualTheWhole) {
  const Source a = random_source(33, 8, 7);
  const Source b = random_source(70, 8, 8);
  FusedSoftmax<double> whole(8), left(8), right(8), nothing(8);
  read(whole, a);
  read(whole, b);
  read(left, a);
  read(right, b);
  left.merge(right);
  left.merge(nothing);
  Tensor<double, 1> x({8}), y({8});
  whole.finish(x);
  left.finish(y);
  for (Index d = 0; d < 8; ++d) EXPECT_NEAR(x(d), y(d), 1e-14);
  EXPECT_NEAR(whole.lse(), left.lse(), 1e-14);
}

TEST(FusedSoftmax, LargerLogitsThatComeLaterShrinkWhatWasReadBefore) {
  Tensor<double, 1> low({1}), high({1});
  high(0) = 2;
  Tensor<double, 2> one({1, 1}), ten({1, 1});
  one(0, 0) = 1;
  ten(0, 0) = 10;
  FusedSoftmax<double> softmax(1);
  softmax.read(low, one);
  softmax.read(high, ten);
  softmax.read(low, one);
  Tensor<double, 1> output({1});
  softmax.finish(output);
  const double e2 = std::exp(2.0);
  EXPECT_NEAR(output(0), (2 + 10 * e2) / (2 + e2), 1e-14);
  EXPECT_EQ(softmax.state().maximum, 2.0);
  EXPECT_NEAR(softmax.state().sum, 1 + 2 * std::exp(-2.0), 1e-15);
}

TEST(FusedSoftmax, ReadsHalfTypesInFloat) {
  Tensor<float, 1> logits({2});
  Tensor<nha::bfloat16, 2> values({2, 1});
  values(0, 0) = nha::bfloat16(1.0f);
  values(1, 0) = nha::bfloat16(2.0f);
  FusedSoftmax<float> softmax(1);
  softmax.read(logits, values);
  Tensor<float, 1> output({1});
  softmax.finish(output);
  EXPECT_FLOAT_EQ(output(0), 1.5f);
}

TEST(FusedSoftmax, RefusesShapesThatDoNotFit) {
  FusedSoftmax<double> softmax(4);
  const Source source = random_source(3, 5, 9);
  NHA_EXPECT_ERROR(read(softmax, source), nha::ArgumentError, "values is [3, 5]; expected [3, 4]");
  EXPECT_EQ(softmax.lse(), -INFINITY);
  NHA_EXPECT_ERROR(FusedSoftmax<double>(-1), nha::ArgumentError, "value_dim is -1");
  NHA_EXPECT_ERROR(FusedSoftmax<double>(Index{1} << 62), nha::ArgumentError,
                   "value_dim is 4611686018427387904; expected 0 to 16777216");
}

TEST(FusedSoftmax, RefusesTensorsWithoutData) {
  FusedSoftmax<double> softmax(5);
  Source source = random_source(3, 5, 9);
  double* const none = nullptr;
  using Logits = nha::TensorView<const double, nha::Dynamic>;
  using Values = nha::TensorView<const double, nha::Dynamic, nha::Dynamic>;
  NHA_EXPECT_ERROR(softmax.read(Logits(none, {3}), source.values), nha::ArgumentError,
                   "logits has no data");
  NHA_EXPECT_ERROR(softmax.read(source.logits, Values(none, {3, 5})), nha::ArgumentError,
                   "values has no data");
  EXPECT_EQ(softmax.lse(), -INFINITY);
  NHA_EXPECT_ERROR(softmax.finish(nha::TensorView<double, nha::Dynamic>(none, {5})),
                   nha::ArgumentError, "o has no data");
  softmax.read(Logits(), Values(none, {0, 5}));
  EXPECT_EQ(softmax.lse(), -INFINITY);
}

TEST(FusedSoftmax, ReadsTensorsAndViewsOfEveryKind) {
  Source source = random_source(3, 5, 9);
  FusedSoftmax<double> owner(5), changeable(5), fixed(5);
  owner.read(source.logits, source.values);
  changeable.read(source.logits.view(), source.values.view());
  fixed.read(source.logits, nha::TensorView<const double, 3, 5>(source.values.data(), {3, 5}));
  EXPECT_EQ(changeable.lse(), owner.lse());
  EXPECT_EQ(fixed.lse(), owner.lse());
  Tensor<double, 1> a({5}), b({5}), c({5});
  owner.finish(a);
  changeable.finish(b);
  fixed.finish(c);
  for (Index d = 0; d < 5; ++d) {
    EXPECT_EQ(a(d), b(d));
    EXPECT_EQ(a(d), c(d));
  }
}

template <class T>
Tensor<T, 1> random_row(Index size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Tensor<T, 1> row({size});
  for (T& x : row.values()) x = static_cast<T>(normal(random));
  return row;
}

constexpr Index kFusedKeyDim = 5, kFusedValueDim = 19;

/// Slots that some tokens have entered, the last slot none.
nha::SlotMemory<double> written_slots(Index count) {
  nha::SlotMemory<double> slots(kFusedKeyDim, kFusedValueDim, count);
  for (unsigned t = 0; t < 4; ++t) {
    auto gate = random_row<double>(count, 10 + t), write = random_row<double>(count, 20 + t);
    for (double& x : gate.values()) x = -std::abs(x);
    for (double& x : write.values()) x = std::abs(x);
    gate(count - 1) = 0;
    write(count - 1) = 0;
    slots.enter(gate, write, random_row<double>(kFusedKeyDim, 30 + t),
                random_row<double>(kFusedValueDim, 40 + t));
  }
  return slots;
}

TEST(FusedSoftmax, ReadsSlotsAsTheirRuleSays) {
  const Index count = 70;  // more than a block
  const auto slots = written_slots(count);
  const auto query = random_row<double>(kFusedKeyDim, 3);
  for (const auto rule : {nha::EmptySlots::participate, nha::EmptySlots::mass_corrected}) {
    const bool means = rule == nha::EmptySlots::mass_corrected;
    Source expected{Tensor<double, 1>({count}), Tensor<double, 2>({count, kFusedValueDim})};
    for (Index m = 0; m < count; ++m) {
      const double mass = means ? slots.mass()(m) : 1.0;
      double dot = 0;
      for (Index d = 0; d < kFusedKeyDim; ++d) dot += query(d) * slots.keys()(m, d);
      expected.logits(m) = mass > 0 ? 0.5 * dot / mass + std::log(mass) : -INFINITY;
      for (Index d = 0; d < kFusedValueDim; ++d)
        expected.values(m, d) = mass > 0 ? slots.values()(m, d) / mass : 0.0;
    }
    FusedSoftmax<double> softmax(kFusedValueDim), plain(kFusedValueDim);
    softmax.read(slots, query, 0.5, rule);
    read(plain, expected);
    Tensor<double, 1> a({kFusedValueDim}), b({kFusedValueDim});
    softmax.finish(a);
    plain.finish(b);
    for (Index d = 0; d < kFusedValueDim; ++d) EXPECT_NEAR(a(d), b(d), 1e-13);
    EXPECT_NEAR(softmax.lse(), plain.lse(), 1e-13);
  }
}

TEST(FusedSoftmax, ReadsAWindowBeforeAndAfterItsRingWraps) {
  nha::SlidingWindow<nha::bfloat16> window(6, kFusedKeyDim, kFusedValueDim);
  const auto query = random_row<float>(kFusedKeyDim, 3);
  for (unsigned t = 0; t < 9; ++t) {
    window.push(random_row<nha::bfloat16>(kFusedKeyDim, 50 + t),
                random_row<nha::bfloat16>(kFusedValueDim, 60 + t));
    const Index size = window.size();
    ASSERT_EQ(size, std::min<Index>(t + 1, 6));
    Tensor<float, 1> logits({size});
    Tensor<nha::bfloat16, 2> values({size, kFusedValueDim});
    for (Index i = 0; i < size; ++i) {
      const unsigned token = t + 1 - static_cast<unsigned>(size) + static_cast<unsigned>(i);
      const auto key = random_row<nha::bfloat16>(kFusedKeyDim, 50 + token);
      for (Index d = 0; d < kFusedKeyDim; ++d) logits(i) += 0.5f * query(d) * nha::widen(key(d));
      const auto value = random_row<nha::bfloat16>(kFusedValueDim, 60 + token);
      for (Index d = 0; d < kFusedValueDim; ++d) values(i, d) = value(d);
    }
    FusedSoftmax<float> softmax(kFusedValueDim), plain(kFusedValueDim);
    softmax.read(window, query, 0.5f);
    plain.read(logits, values);
    Tensor<float, 1> a({kFusedValueDim}), b({kFusedValueDim});
    softmax.finish(a);
    plain.finish(b);
    for (Index d = 0; d < kFusedValueDim; ++d) EXPECT_NEAR(a(d), b(d), 1e-5f);
    EXPECT_NEAR(softmax.lse(), plain.lse(), 1e-5f);
  }
}

TEST(FusedSoftmax, RefusesMemoriesOfOtherSizes) {
  FusedSoftmax<double> softmax(kFusedValueDim), other(4);
  const auto slots = written_slots(3);
  const nha::SlidingWindow<double> window(2, kFusedKeyDim, 4);
  NHA_EXPECT_ERROR(softmax.read(slots, random_row<double>(4, 1), 1.0), nha::ArgumentError,
                   "query has 4 elements; expected 5");
  NHA_EXPECT_ERROR(other.read(slots, random_row<double>(kFusedKeyDim, 1), 1.0), nha::ArgumentError,
                   "values have 19 elements; expected 4");
  NHA_EXPECT_ERROR(softmax.read(window, random_row<double>(kFusedKeyDim, 1), 1.0),
                   nha::ArgumentError, "values have 4 elements; expected 19");
  NHA_EXPECT_ERROR(softmax.merge(other), nha::ArgumentError,
                   "value_dim of the other softmax is 4; expected 19");
  EXPECT_EQ(softmax.lse(), -INFINITY);
}

TEST(FusedSoftmax, ALogitThatIsNaNOrInfiniteMakesTheResultNaNWhereverItLies) {
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)})
    for (const Index at : {0, 15, 63, 64, 69}) {
      Source source = random_source(70, 3, 9);
      source.logits(at) = bad;
      FusedSoftmax<double> softmax(3), merged(3);
      read(softmax, source);
      read(merged, random_source(5, 3, 2));
      merged.merge(softmax);
      for (FusedSoftmax<double>* s : {&softmax, &merged}) {
        EXPECT_TRUE(std::isnan(s->lse())) << bad << " at " << at;
        Tensor<double, 1> o({3});
        s->finish(o);
        for (Index d = 0; d < 3; ++d) EXPECT_TRUE(std::isnan(o(d))) << bad << " at " << at;
      }
      softmax.clear();
      EXPECT_EQ(softmax.lse(), -INFINITY);
    }
}

TEST(FusedSoftmax, WhatTakesNoPartMayHoldAnything) {
  Source source = random_source(70, 3, 9);
  FusedSoftmax<double> with(3), without(3);
  for (const Index at : {0, 40, 69}) source.logits(at) = -INFINITY;
  read(without, source);
  source.values(0, 1) = NAN;
  source.values(40, 2) = INFINITY;
  source.values(69, 0) = -INFINITY;
  read(with, source);
  Tensor<double, 1> a({3}), b({3});
  with.finish(a);
  without.finish(b);
  for (Index d = 0; d < 3; ++d) EXPECT_EQ(a(d), b(d));
  EXPECT_EQ(with.lse(), without.lse());
}

template <class Arch>
class FusedSoftmaxViewOn : public testing::Test {};
TYPED_TEST_SUITE(FusedSoftmaxViewOn, nha_test::Architectures);

TYPED_TEST(FusedSoftmaxViewOn, WeighsSlotsAndTheColumnsThatARowSees) {
  // Three rows: one sees all, one no slots and columns 3 to 6, one nothing.
  constexpr Index kRowSlots = 5, kColumns = 32, kStride = 16 + kColumns + 16;
  std::vector<double> scores(3 * kStride);
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (double& x : scores) x = normal(random);
  const auto logits = scores;
  nha::SoftmaxState<double> states[3];
  const nha::FusedSoftmaxView<double, TypeParam> softmax{scores.data(), kStride, kRowSlots, states};
  EXPECT_EQ(softmax.slot_scores(2), scores.data() + 2 * kStride);
  EXPECT_EQ(softmax.window_scores(2), scores.data() + 2 * kStride + 16);
  const bool take_part[] = {true, false, false};
  const Index first[] = {-4, 3, 40}, last[] = {kColumns, 7, 50};
  for (Index row = 0; row < 3; ++row) {
    softmax.hide_slots(row, take_part[row]);
    softmax.hide_columns(row, first[row], last[row], kColumns);
  }
  softmax.weigh(3, kColumns);
  for (Index row = 0; row < 3; ++row) {
    softmax.normalize(row, kColumns);
    const auto sees = [&](Index i) {
      return i < 16 ? take_part[row] && i < kRowSlots : i - 16 >= first[row] && i - 16 < last[row];
    };
    const auto at = [&](Index i) { return static_cast<std::size_t>(row * kStride + i); };
    double sum = 0, on_slots = 0;
    for (Index i = 0; i < 16 + kColumns; ++i)
      if (sees(i)) sum += std::exp(logits[at(i)]);
    for (Index i = 0; i < 16 + kColumns; ++i) {
      const double expected = sees(i) ? std::exp(logits[at(i)]) / sum : 0.0;
      EXPECT_NEAR(scores[at(i)], expected, 1e-15) << row << ' ' << i;
      if (i < 16) on_slots += expected;
    }
    EXPECT_NEAR(softmax.weight_on_slots(row), on_slots, 1e-15);
    if (row < 2)
      EXPECT_NEAR(states[row].lse(), std::log(sum), 1e-14);
    else
      EXPECT_EQ(states[row].lse(), -INFINITY);
    // What lies behind the columns is not touched.
    for (Index i = 16 + kColumns; i < kStride; ++i) EXPECT_EQ(scores[at(i)], logits[at(i)]);
  }
}

TYPED_TEST(FusedSoftmaxViewOn, FurtherColumnsRescaleWhatWasWeighted) {
  constexpr Index kStride = 16 + 32;
  std::vector<float> scores(kStride), further(32);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  for (float& x : scores) x = normal(random);
  for (float& x : further) x = 1 + normal(random);
  double sum = 0;
  for (Index i = 0; i < kStride; ++i)
    if (i < 4 || i >= 16) sum += std::exp(scores[static_cast<std::size_t>(i)]);
  for (const float x : further) sum += std::exp(x);
  const float first_logit = scores[0];
  nha::SoftmaxState<float> state;
  const nha::FusedSoftmaxView<float, TypeParam> softmax{scores.data(), kStride, 4, &state};
  softmax.hide_slots(0, true);
  softmax.weigh(1, 32);
  std::copy(further.begin(), further.end(), softmax.window_scores(0));
  float factor = -1;
  softmax.weigh_further(1, 32, &factor);
  EXPECT_NEAR(state.lse(), std::log(sum), 1e-5);
  EXPECT_NEAR(scores[0] * factor / state.sum, std::exp(first_logit) / sum, 1e-6);
  EXPECT_NEAR(scores[20] / state.sum, std::exp(further[4]) / sum, 1e-6);
}

TYPED_TEST(FusedSoftmaxViewOn, SlotsAsMeansHaveTheirLogitsAndWeightsCorrected) {
  std::vector<float> scores(32, 2.0f);
  nha::SoftmaxState<float> states[2];
  const nha::FusedSoftmaxView<float, TypeParam> softmax{scores.data(), 16, 3, states};
  std::vector<float> inverse(16), log(16, -INFINITY);
  inverse[1] = 4;
  log[1] = -1.5f;
  softmax.correct_logits(1, inverse.data(), log.data());
  EXPECT_EQ(scores[16 + 1], 6.5f);
  EXPECT_EQ(scores[16 + 0], -INFINITY);
  EXPECT_EQ(scores[1], 2.0f);  // another row
  scores[16 + 1] = 0.5f;
  scores[16 + 2] = 0.25f;
  softmax.correct_weights(1, inverse.data());
  EXPECT_EQ(scores[16 + 1], 2.0f);
  EXPECT_EQ(scores[16 + 2], 0.0f);
}

}  // namespace
