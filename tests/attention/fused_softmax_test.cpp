// SPDX-License-Identifier: MIT
#include <nha/attention/fused_softmax.hpp>
#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

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
  constexpr Index kValueDim = 19;
  const std::vector<Source> sources = {random_source(5, kValueDim, 1),
                                       random_source(130, kValueDim, 2),
                                       random_source(1, kValueDim, 3)};
  FusedSoftmax<double> softmax(kValueDim);
  for (const Source& source : sources) read(softmax, source);
  Tensor<double, 1> output({kValueDim});
  softmax.finish(output);
  const auto expected = plain_softmax(sources, kValueDim);
  for (Index d = 0; d < kValueDim; ++d)
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

TEST(FusedSoftmax, ReadReturnsWhatEarlierSourcesKeep) {
  Tensor<double, 1> low({1}), high({1});
  high(0) = 2;
  Tensor<double, 2> value({1, 1});
  FusedSoftmax<double> softmax(1);
  softmax.read(low, value);
  EXPECT_NEAR(softmax.read(high, value), std::exp(-2.0), 1e-15);
  EXPECT_EQ(softmax.read(low, value), 1.0);
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

}  // namespace
