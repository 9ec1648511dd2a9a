// SPDX-License-Identifier: MIT
#include <nha/train/cross_entropy.hpp>

#include <nha/core/tensor.hpp>
#include <nha/train/random.hpp>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

using nha::Index;

/// Rows, a head and targets; every row whose number is divisible by `ignore` is not counted.
template <class T>
struct CrossEntropyCase {
  nha::Tensor<T, 2> x, head;
  nha::Tensor<std::int32_t, 1> targets;

  CrossEntropyCase(Index rows, Index hidden, Index vocabulary, Index ignore = 0, double size = 1)
      : x({rows, hidden}), head({vocabulary, hidden}), targets({rows}) {
    nha::Random random(11);
    for (T& value : x.values()) value = static_cast<T>(size * random.normal());
    for (T& value : head.values()) value = static_cast<T>(random.normal());
    for (Index r = 0; r < rows; ++r) {
      const auto target = static_cast<std::int32_t>(random.below(vocabulary));
      targets(r) = ignore > 0 && r % ignore == 0 ? -1 : target;
    }
  }
  Index rows() const { return x.extent(0); }
  Index hidden() const { return x.extent(1); }
  Index vocabulary() const { return head.extent(0); }
  nha::CrossEntropy loss() const {
    nha::Workspace workspace;
    return nha::cross_entropy<T>(x, head, targets, workspace);
  }
};

/// Everything in double, all logits at once.
struct DirectCrossEntropy {
  nha::CrossEntropy result;
  nha::Tensor<double, 2> dx, dhead;

  template <class T>
  DirectCrossEntropy(const CrossEntropyCase<T>& c, double scale)
      : dx({c.rows(), c.hidden()}), dhead({c.vocabulary(), c.hidden()}) {
    for (Index r = 0; r < c.rows(); ++r) {
      if (c.targets(r) < 0) continue;
      std::vector<double> logits(static_cast<std::size_t>(c.vocabulary()));
      for (Index v = 0; v < c.vocabulary(); ++v)
        for (Index h = 0; h < c.hidden(); ++h)
          logits[static_cast<std::size_t>(v)] +=
              static_cast<double>(c.x(r, h)) * static_cast<double>(c.head(v, h));
      const auto most = std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - *most);
      result.loss += *most + std::log(sum) - logits[static_cast<std::size_t>(c.targets(r))];
      ++result.counted;
      result.correct += most - logits.begin() == c.targets(r);
      for (Index v = 0; v < c.vocabulary(); ++v) {
        const double dlogit = scale * (std::exp(logits[static_cast<std::size_t>(v)] - *most) / sum -
                                       (v == c.targets(r) ? 1 : 0));
        for (Index h = 0; h < c.hidden(); ++h) {
          dx(r, h) += dlogit * static_cast<double>(c.head(v, h));
          dhead(v, h) += dlogit * static_cast<double>(c.x(r, h));
        }
      }
    }
  }
};

template <class T, class Arch = nha::cpu::simd::default_arch>
void expect_direct_cross_entropy(const CrossEntropyCase<T>& c) {
  SCOPED_TRACE(testing::Message() << c.rows() << " rows, vocabulary " << c.vocabulary());
  const double scale = 0.25;
  const DirectCrossEntropy direct(c, scale);
  nha::Tensor<T, 2> dx({c.rows(), c.hidden()}), dhead({c.vocabulary(), c.hidden()});
  std::fill(dx.values().begin(), dx.values().end(), T{77});       // written
  std::fill(dhead.values().begin(), dhead.values().end(), T{1});  // added to
  nha::Workspace workspace;
  const auto result = nha::cross_entropy<T, Arch>(c.x, c.head, c.targets, workspace,
                                                  {.scale = scale, .dx = dx, .dhead = dhead});
  EXPECT_EQ(result.counted, direct.result.counted);
  EXPECT_EQ(result.correct, direct.result.correct);
  // Logits are sums of `hidden` products around 1, so that each has an error of some roundings of
  // numbers below 10; the gradients of the head are sums of as many as there are rows.
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  const double bound = 40 * eps * static_cast<double>(c.hidden());
  EXPECT_NEAR(result.loss, direct.result.loss,
              bound * static_cast<double>(1 + direct.result.counted));
  for (Index r = 0; r < c.rows(); ++r)
    for (Index h = 0; h < c.hidden(); ++h)
      ASSERT_NEAR(static_cast<double>(dx(r, h)), direct.dx(r, h), bound) << r << ' ' << h;
  for (Index v = 0; v < c.vocabulary(); ++v)
    for (Index h = 0; h < c.hidden(); ++h)
      ASSERT_NEAR(static_cast<double>(dhead(v, h)) - 1, direct.dhead(v, h),
                  bound * std::sqrt(static_cast<double>(1 + c.rows())))
          << v << ' ' << h;
}

}  // namespace

TEST(CrossEntropyOfHead, IsThatOfAPlainSoftmax) {
  for (const Index vocabulary : {1, 2, 15, 16, 37, 300}) {
    expect_direct_cross_entropy(CrossEntropyCase<float>(9, 5, vocabulary));
    expect_direct_cross_entropy(CrossEntropyCase<double>(9, 5, vocabulary));
  }
}

TEST(CrossEntropyOfHead, IsThatOfAPlainSoftmaxWithRowsLeftOut) {
  for (const Index ignore : {1, 2, 3, 7})
    expect_direct_cross_entropy(CrossEntropyCase<double>(40, 5, 17, ignore));
}

TEST(CrossEntropyOfHead, ManyBlocksMakeOneSum) {
  expect_direct_cross_entropy(CrossEntropyCase<double>(600, 4, 33));
  expect_direct_cross_entropy(CrossEntropyCase<double>(700, 4, 33, 3));
  expect_direct_cross_entropy(CrossEntropyCase<float>(70, 4, 5000, 2));  // blocks of 32
}

template <class Arch>
class CrossEntropyOn : public testing::Test {};
TYPED_TEST_SUITE(CrossEntropyOn, nha_test::Architectures);

TYPED_TEST(CrossEntropyOn, IsThatOfAPlainSoftmax) {
  expect_direct_cross_entropy<float, TypeParam>(CrossEntropyCase<float>(20, 6, 37, 4));
  expect_direct_cross_entropy<double, TypeParam>(CrossEntropyCase<double>(20, 6, 37, 4));
}

TEST(CrossEntropyOfHead, GradientsAreThoseOfFiniteDifferences) {
  CrossEntropyCase<double> c(7, 3, 6, 3);
  nha::Tensor<double, 2> dx({7, 3}), dhead({6, 3});
  nha::Workspace workspace;
  nha::cross_entropy<double>(c.x, c.head, c.targets, workspace,
                             {.scale = 1, .dx = dx, .dhead = dhead});
  constexpr double kStep = 1e-5;
  const auto check = [&](nha::Tensor<double, 2>& numbers, const nha::Tensor<double, 2>& gradient) {
    for (Index i = 0; i < numbers.size(); ++i) {
      double& number = numbers.data()[i];
      const double before = number;
      number = before + kStep;
      const double above = c.loss().loss;
      number = before - kStep;
      const double below = c.loss().loss;
      number = before;
      EXPECT_NEAR((above - below) / (2 * kStep), gradient.data()[i], 1e-8) << i;
    }
  };
  check(c.x, dx);
  check(c.head, dhead);
}

TEST(CrossEntropyOfHead, EachGradientMayBeLeftOut) {
  const CrossEntropyCase<float> c(50, 5, 20, 3);
  nha::Tensor<float, 2> both_dx({50, 5}), both_dhead({20, 5}), dx({50, 5}), dhead({20, 5});
  nha::Workspace workspace;
  const auto both = nha::cross_entropy<float>(c.x, c.head, c.targets, workspace,
                                              {.dx = both_dx, .dhead = both_dhead});
  nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx});
  nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dhead = dhead});
  EXPECT_TRUE(std::ranges::equal(dx.values(), both_dx.values()));
  EXPECT_TRUE(std::ranges::equal(dhead.values(), both_dhead.values()));
  EXPECT_EQ(c.loss().loss, both.loss);
}

TEST(CrossEntropyOfHead, RowsThatAreNotCountedAreNotRead) {
  CrossEntropyCase<float> c(40, 5, 20, 3);
  const auto before = c.loss();
  for (Index r = 0; r < 40; r += 3)
    for (Index h = 0; h < 5; ++h) c.x(r, h) = std::numeric_limits<float>::quiet_NaN();
  nha::Tensor<float, 2> dx({40, 5}), dhead({20, 5});
  std::fill(dx.values().begin(), dx.values().end(), 77.0f);
  nha::Workspace workspace;
  const auto after =
      nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx, .dhead = dhead});
  EXPECT_EQ(after.loss, before.loss);
  EXPECT_EQ(after.counted, 26);
  for (Index r = 0; r < 40; ++r)
    for (Index h = 0; h < 5; ++h) {
      if (r % 3 == 0)
        EXPECT_EQ(dx(r, h), 0);
      else
        EXPECT_TRUE(std::isfinite(dx(r, h)) && dx(r, h) != 0);
    }
  for (const float value : dhead.values()) EXPECT_TRUE(std::isfinite(value));
}

TEST(CrossEntropyOfHead, NothingCountedIsALossOfZero) {
  const CrossEntropyCase<float> c(300, 5, 20, 1);
  nha::Tensor<float, 2> dx({300, 5}), dhead({20, 5});
  std::fill(dx.values().begin(), dx.values().end(), 77.0f);
  std::fill(dhead.values().begin(), dhead.values().end(), 3.0f);
  nha::Workspace workspace;
  const auto result =
      nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx, .dhead = dhead});
  EXPECT_EQ(result.loss, 0);
  EXPECT_EQ(result.counted, 0);
  for (const float value : dx.values()) EXPECT_EQ(value, 0);
  for (const float value : dhead.values()) EXPECT_EQ(value, 3);
}

TEST(CrossEntropyOfHead, LargeLogitsAreSafe) {
  // Logits 10000, -10000 and 9999 from a row of one channel.
  nha::Tensor<float, 2> x({2, 1}), head({3, 1}), dx({2, 1});
  nha::Tensor<std::int32_t, 1> targets({2});
  x(0, 0) = x(1, 0) = 1;
  head(0, 0) = 10000;
  head(1, 0) = -10000;
  head(2, 0) = 9999;
  targets(0) = 0;
  targets(1) = 1;
  nha::Workspace workspace;
  const auto result = nha::cross_entropy<float>(x, head, targets, workspace, {.dx = dx});
  const double log_sum = std::log1p(std::exp(-1.0));
  EXPECT_NEAR(result.loss, log_sum + (20000 + log_sum), 1e-6);
  EXPECT_EQ(result.correct, 1);
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(dx(0, 0), 10000 * (p - 1) + 9999 * (1 - p), 2e-3);
  EXPECT_NEAR(dx(1, 0), 10000 * p + 9999 * (1 - p) + 10000, 2e-3);
}

TEST(CrossEntropyOfHead, AmongEqualLogitsTheFirstIsTheAnswer) {
  nha::Tensor<float, 2> x({3, 1}), head({4, 1});
  nha::Tensor<std::int32_t, 1> targets({3});
  for (Index r = 0; r < 3; ++r) {
    x(r, 0) = 1;
    targets(r) = static_cast<std::int32_t>(r);
  }
  head(0, 0) = 1;
  head(1, 0) = head(2, 0) = 2;
  nha::Workspace workspace;
  EXPECT_EQ(nha::cross_entropy<float>(x, head, targets, workspace).correct, 1);
  targets(1) = 2;
  EXPECT_EQ(nha::cross_entropy<float>(x, head, targets, workspace).correct, 0);
}

TEST(CrossEntropyOfHead, LogitsThatAreNoNumbersReachTheLoss) {
  for (const float wrong :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CrossEntropyCase<float> c(1, 2, 40);
    for (Index v = 0; v < 40; ++v) c.head(v, 0) = -1;
    c.head(c.targets(0), 0) = 1;
    c.x(0, 0) = 50;
    EXPECT_EQ(c.loss().correct, 1);
    c.x(0, 0) = wrong;
    nha::Tensor<float, 2> dx({1, 2});
    nha::Workspace workspace;
    const auto result = nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx});
    EXPECT_TRUE(std::isnan(result.loss)) << wrong;
    EXPECT_TRUE(std::isnan(dx(0, 1))) << wrong;
    EXPECT_EQ(result.correct, 0);
    EXPECT_EQ(result.counted, 1);
  }
}

TEST(CrossEntropyOfHead, MemoryDoesNotGrowWithTheRows) {
  const auto bytes = nha::cross_entropy_workspace_bytes<float>(256, 64, 256);
  EXPECT_EQ(nha::cross_entropy_workspace_bytes<float>(1 << 20, 64, 256), bytes);
  // The logits of 256 rows, and as many rows of x, of dx and of places.
  EXPECT_EQ(bytes, 256u * (256 * 4 + 64 * 4 + 64 * 4 + 8));
  EXPECT_EQ(nha::cross_entropy_workspace_bytes<float>(1000, 64, 32000),
            32u * (32000 * 4 + 64 * 4 + 64 * 4 + 8));
  const CrossEntropyCase<float> c(2000, 8, 256);
  nha::Tensor<float, 2> dx({2000, 8}), dhead({256, 8});
  nha::Workspace workspace;
  nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx, .dhead = dhead});
  EXPECT_EQ(workspace.bytes(), nha::cross_entropy_workspace_bytes<float>(2000, 8, 256));
}

TEST(CrossEntropyOfHead, MemoryOfSizesOutOfRangeIsRefused) {
  const auto refuses = [](Index rows, Index hidden, Index vocabulary, const char* message) {
    NHA_EXPECT_ERROR((void)nha::cross_entropy_workspace_bytes<float>(rows, hidden, vocabulary),
                     nha::ArgumentError, message);
  };
  refuses(-1, 8, 8, "rows is -1; expected 0 or more");
  refuses(8, -1, 8, "hidden is -1; expected 0 to");
  refuses(8, 8, 0, "vocabulary is 0; expected 1 to");
  EXPECT_EQ(nha::cross_entropy_workspace_bytes<float>(0, 8, 8), 0u);
}

TEST(CrossEntropyOfHead, RowsMayLieApart) {
  const CrossEntropyCase<float> c(300, 5, 20, 4);
  nha::Tensor<float, 2> wide({300, 9}), wide_dx({300, 9}), dx({300, 5});
  for (Index r = 0; r < 300; ++r) std::copy_n(&c.x(r, 0), 5, &wide(r, 2));
  nha::Workspace workspace;
  const auto result = nha::cross_entropy<float>(wide.view().slice<1>(2, 5), c.head, c.targets,
                                                workspace, {.dx = wide_dx.view().slice<1>(1, 5)});
  nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, {.dx = dx});
  EXPECT_EQ(result.loss, c.loss().loss);
  for (Index r = 0; r < 300; ++r) {
    for (Index h = 0; h < 5; ++h) EXPECT_EQ(wide_dx(r, h + 1), dx(r, h));
    EXPECT_EQ(wide_dx(r, 0), 0);
    EXPECT_EQ(wide_dx(r, 6), 0);
  }
}

TEST(CrossEntropyOfHead, RefusesWhatDoesNotFitAndTouchesNothing) {
  CrossEntropyCase<float> c(4, 3, 6);
  nha::Tensor<float, 2> dx({4, 3}), narrow({4, 2}), dhead({6, 3});
  std::fill(dx.values().begin(), dx.values().end(), 77.0f);
  nha::Workspace workspace;
  const auto call = [&](const nha::CrossEntropyGradients<float>& gradients) {
    nha::cross_entropy<float>(c.x, c.head, c.targets, workspace, gradients);
  };
  NHA_EXPECT_ERROR(call({.dx = narrow}), nha::ArgumentError,
                   "dx of cross_entropy is [4, 2]; expected [4, 3]");
  NHA_EXPECT_ERROR(call({.dhead = dx}), nha::ArgumentError,
                   "dhead of cross_entropy is [4, 3]; expected [6, 3]");
  NHA_EXPECT_ERROR(call({.scale = std::numeric_limits<double>::infinity(), .dx = dx}),
                   nha::ArgumentError, "scale of cross_entropy is inf");
  NHA_EXPECT_ERROR(nha::cross_entropy<float>(narrow, c.head, c.targets, workspace),
                   nha::ArgumentError, "head of cross_entropy has rows of 3; x has rows of 2");
  NHA_EXPECT_ERROR(
      nha::cross_entropy<float>(c.x, nha::Tensor<float, 2>({0, 3}), c.targets, workspace),
      nha::ArgumentError, "head of cross_entropy has no rows");
  c.targets(2) = 6;
  NHA_EXPECT_ERROR(call({.dx = dx}), nha::ArgumentError,
                   "target 2 of cross_entropy is 6; expected less than 6");
  const nha::Tensor<std::int32_t, 1> few({3});
  NHA_EXPECT_ERROR(nha::cross_entropy<float>(c.x, c.head, few, workspace), nha::ArgumentError,
                   "targets of cross_entropy are 3; x has 4 rows");
  for (const float value : dx.values()) EXPECT_EQ(value, 77);
}
