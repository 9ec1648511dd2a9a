// SPDX-License-Identifier: MIT
#include <nha/core/softmax_state.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

namespace {

using nha::rescale_factor;
using nha::SoftmaxState;

template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

/// A softmax over logits, each of which weighs a value: what the kernels keep, in plain words.
template <class T>
struct WeightedRead {
  SoftmaxState<T> softmax;
  T total = 0;  // of the weighted values

  void read(std::span<const T> logits, std::span<const T> values) {
    T largest = -nha::kInfinity<T>;
    for (const T logit : logits) largest = std::max(largest, logit);  // passes over NaN
    total *= softmax.update(largest);
    const T shift = softmax.maximum == -nha::kInfinity<T> ? T{0} : softmax.maximum;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const T weight = std::exp(logits[i] - shift);
      softmax.sum += weight;
      total += weight * values[i];
    }
  }
  void merge(const WeightedRead& other) {
    const auto [ours, theirs] = softmax.merge(other.softmax);
    total = total * ours + other.total * theirs;
  }
  T result() const { return total * softmax.normalizer(); }
};

template <class T>
WeightedRead<T> read_of(const std::vector<T>& logits) {
  WeightedRead<T> read;
  read.read(logits, std::vector<T>(logits.size(), T{1}));
  return read;
}

template <class T>
void expect_nothing(const SoftmaxState<T>& softmax) {
  EXPECT_EQ(softmax.lse(), -nha::kInfinity<T>);
  EXPECT_EQ(softmax.normalizer(), 0);
  EXPECT_EQ(softmax.sum, 0);
}
template <class T>
void expect_nan(const SoftmaxState<T>& softmax) {
  EXPECT_TRUE(std::isnan(softmax.lse()));
  EXPECT_TRUE(std::isnan(softmax.normalizer()));
}

template <class T>
class SoftmaxStateOf : public testing::Test {};
using SoftmaxTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(SoftmaxStateOf, SoftmaxTypes);

TYPED_TEST(SoftmaxStateOf, SaysThatNothingWasSeen) {
  static_assert(std::is_trivially_copyable_v<SoftmaxState<TypeParam>>);
  expect_nothing(SoftmaxState<TypeParam>());
}

TYPED_TEST(SoftmaxStateOf, RescalesFromOneMaximumToTheNext) {
  using T = TypeParam;
  constexpr T kInf = nha::kInfinity<T>;
  EXPECT_EQ(rescale_factor(T{3}, T{3}), 1);
  EXPECT_EQ(rescale_factor(T{1}, T{3}), std::exp(T{-2}));
  EXPECT_EQ(rescale_factor(-kInf, -kInf), 1);
  EXPECT_EQ(rescale_factor(-kInf, T{3}), 0);
  EXPECT_EQ(rescale_factor(-kInf, kInf), 0);
  EXPECT_EQ(rescale_factor(kInf, kInf), 1);
  EXPECT_EQ(rescale_factor(T{3}, kInf), 0);
}

TYPED_TEST(SoftmaxStateOf, UpdateScalesWhatWasSeenAndNeverLowersTheMaximum) {
  using T = TypeParam;
  SoftmaxState<T> softmax;
  EXPECT_EQ(softmax.update(2), 0);
  EXPECT_EQ(softmax.maximum, 2);
  softmax.sum = 1;
  EXPECT_EQ(softmax.update(-5), 1);
  EXPECT_EQ(softmax.maximum, 2);
  EXPECT_EQ(softmax.sum, 1);
  EXPECT_EQ(softmax.update(3), std::exp(T{-1}));
  EXPECT_EQ(softmax.maximum, 3);
  EXPECT_EQ(softmax.sum, std::exp(T{-1}));
  EXPECT_EQ(softmax.lse(), 3 + std::log(std::exp(T{-1})));
  EXPECT_EQ(softmax.normalizer(), 1 / std::exp(T{-1}));
}

TYPED_TEST(SoftmaxStateOf, PiecesAndMergesGiveWhatReadingAllAtOnceGives) {
  using T = TypeParam;
  constexpr double kError = 64 * std::numeric_limits<T>::epsilon();
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 8);
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const std::size_t count = random() % 30;
    std::vector<T> logits(count), values(count);
    for (T& logit : logits)
      logit = random() % 5 == 0 ? -nha::kInfinity<T> : static_cast<T>(normal(random));
    for (T& value : values) value = static_cast<T>(1 + std::abs(normal(random)));
    long double sum = 0, total = 0;
    for (std::size_t i = 0; i < count; ++i) {
      sum += std::exp(static_cast<long double>(logits[i]));
      total += std::exp(static_cast<long double>(logits[i])) * values[i];
    }
    const auto lse = static_cast<double>(std::log(sum));
    const auto mean = sum > 0 ? static_cast<double>(total / sum) : 0.0;
    const auto expect_all = [&](const WeightedRead<T>& read) {
      if (sum == 0) {
        expect_nothing(read.softmax);
        EXPECT_EQ(read.result(), 0);
        return;
      }
      EXPECT_NEAR(read.softmax.lse(), lse, kError * (1 + std::abs(lse)));
      EXPECT_NEAR(read.result(), mean, kError * mean);
    };
    const auto piece = [&](WeightedRead<T>& read, std::size_t first, std::size_t last) {
      read.read(std::span<const T>(logits).subspan(first, last - first),
                std::span<const T>(values).subspan(first, last - first));
    };
    const std::size_t cut = count == 0 ? 0 : random() % (count + 1);  // a side may be empty
    WeightedRead<T> whole, pieces, first, second;
    piece(whole, 0, count);
    expect_all(whole);
    piece(pieces, 0, cut);
    piece(pieces, cut, count);
    expect_all(pieces);
    piece(first, 0, cut);
    piece(second, cut, count);
    WeightedRead<T> merged = first, turned = second;
    merged.merge(second);
    expect_all(merged);
    turned.merge(first);
    expect_all(turned);
  }
}

TYPED_TEST(SoftmaxStateOf, MergesNothingWithNothing) {
  using T = TypeParam;
  SoftmaxState<T> empty;
  const auto [ours, theirs] = empty.merge({});
  EXPECT_EQ(ours, 1);
  EXPECT_EQ(theirs, 1);
  expect_nothing(empty);
  // Logits of -infinity are as good as none.
  auto masked = read_of<T>({-nha::kInfinity<T>, -nha::kInfinity<T>});
  expect_nothing(masked.softmax);
  masked.merge({});
  expect_nothing(masked.softmax);
}

TYPED_TEST(SoftmaxStateOf, MergingWithNothingChangesNoBit) {
  using T = TypeParam;
  const auto seen = read_of<T>({1, T{-0.3f}, 4});
  auto left = seen;
  left.merge({});
  WeightedRead<T> right;
  right.merge(seen);
  for (const auto& read : {left, right}) {
    EXPECT_EQ(read.softmax.maximum, seen.softmax.maximum);
    EXPECT_EQ(read.softmax.sum, seen.softmax.sum);
    EXPECT_EQ(read.total, seen.total);
  }
}

TYPED_TEST(SoftmaxStateOf, LogitsFarApartNeitherOverflowNorVanish) {
  using T = TypeParam;
  constexpr T kLargest = std::numeric_limits<T>::max();
  auto low = read_of<T>({-kLargest, -kLargest});
  EXPECT_EQ(low.softmax.normalizer(), T{0.5});
  EXPECT_EQ(low.softmax.lse(), -kLargest);
  low.merge(read_of<T>({kLargest}));
  EXPECT_EQ(low.softmax.lse(), kLargest);
  EXPECT_EQ(low.softmax.normalizer(), 1);
}

TYPED_TEST(SoftmaxStateOf, NanOrInfinityAmongTheLogitsMakesEveryResultNan) {
  using T = TypeParam;
  constexpr T kInf = nha::kInfinity<T>;
  const std::vector<T> bad[] = {
      {kNan<T>},    {1, kNan<T>}, {kNan<T>, 1},    {-kInf, kNan<T>}, {kNan<T>, kNan<T>}, {kInf},
      {1, kInf, 2}, {kInf, kInf}, {kInf, kNan<T>}, {-kInf, kInf},    {kNan<T>, -kInf}};
  const std::vector<T> good[] = {{}, {-kInf}, {0}, {1, 2, 3}, {std::numeric_limits<T>::max()}};
  for (std::size_t i = 0; i < std::size(bad); ++i) {
    SCOPED_TRACE(i);
    const auto poisoned = read_of(bad[i]);
    expect_nan(poisoned.softmax);
    EXPECT_TRUE(std::isnan(poisoned.result()));
    for (const auto& logits : good) {
      auto merged = read_of(logits);
      merged.merge(poisoned);
      expect_nan(merged.softmax);
      EXPECT_TRUE(std::isnan(merged.result()));
      auto turned = poisoned;
      turned.merge(read_of(logits));
      expect_nan(turned.softmax);
      EXPECT_TRUE(std::isnan(turned.result()));
      auto read_on = poisoned;
      read_on.read(logits, std::vector<T>(logits.size(), T{1}));
      expect_nan(read_on.softmax);
      EXPECT_TRUE(std::isnan(read_on.result()));
    }
    for (const auto& logits : bad) {
      auto merged = read_of(logits);
      merged.merge(poisoned);
      expect_nan(merged.softmax);
    }
  }
}

// A maximum that is NaN itself, from code that takes maxima in another way.
TYPED_TEST(SoftmaxStateOf, NanAsTheMaximumMakesEveryResultNan) {
  using T = TypeParam;
  const SoftmaxState<T> poisoned{kNan<T>, 1};
  expect_nan(SoftmaxState<T>{kNan<T>, kNan<T>});
  for (const auto& logits : {std::vector<T>{}, std::vector<T>{1, 2}}) {
    SoftmaxState<T> merged = read_of(logits).softmax;
    merged.merge(poisoned);
    expect_nan(merged);
    SoftmaxState<T> turned = poisoned;
    turned.merge(read_of(logits).softmax);
    expect_nan(turned);
  }
}

}  // namespace
