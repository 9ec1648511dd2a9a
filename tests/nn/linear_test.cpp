// SPDX-License-Identifier: MIT
#include <nha/nn/linear.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace {

using nha::Index;
using nha::Tensor;

/// Runs tasks last first, and counts them.
struct BackwardExecutor {
  Index tasks = 0;
  Index workers() const noexcept { return 1; }
  void run(Index count, nha::TaskRef task) noexcept {
    tasks += count;
    for (Index i = count; i-- > 0;) task(i, 0);
  }
};

TEST(Linear, EqualsAPlainLoopForAnyNumberOfRows) {
  for (Index rows : {0, 1, 15, 16, 130, 257}) {
    const auto x = nha_test::random_tensor<float, 2>({rows, 33});
    const auto weight = nha_test::random_tensor<float, 2>({70, 33}, 2);
    Tensor<float, 2> y({rows, 70});
    nha::linear(x, weight, y.view());
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 70; ++o) {
        double sum = 0, size = 0;
        for (Index i = 0; i < 33; ++i) {
          const double term = double(x(r, i)) * double(weight(o, i));
          sum += term;
          size += std::abs(term);
        }
        EXPECT_NEAR(y(r, o), sum, 1e-6 * size);
      }
  }
}

TEST(Linear, ReadsAndWritesSlices) {
  const auto x = nha_test::random_tensor<double, 2>({9, 30});
  const auto weight = nha_test::random_tensor<double, 2>({12, 30}, 2);
  Tensor<double, 2> y({9, 20});
  nha::linear(x.view().slice<1>(4, 10), weight.view().slice<1>(7, 10),
              nha::TensorView<double, nha::Dynamic, nha::Dynamic>(y.view().slice<1>(3, 12)));
  double sum = 0;
  for (Index i = 0; i < 10; ++i) sum += x(8, 4 + i) * weight(11, 7 + i);
  EXPECT_NEAR(y(8, 14), sum, 1e-13);
  EXPECT_EQ(y(8, 2), 0.0);
  EXPECT_EQ(y(8, 15), 0.0);
}

TEST(Linear, GivesTheSameBitsWithAnyExecutor) {
  for (Index rows : {3, 300}) {
    const auto x = nha_test::random_tensor<float, 2>({rows, 256});
    const auto weight = nha_test::random_tensor<float, 2>({600, 256}, 2);
    Tensor<float, 2> serial({rows, 600}), tasks({rows, 600});
    BackwardExecutor executor;
    nha::linear(x, weight, serial.view());
    nha::linear(x, weight, tasks.view(), executor);
    EXPECT_GT(executor.tasks, 1);
    for (Index i = 0; i < serial.size(); ++i) ASSERT_EQ(serial.data()[i], tasks.data()[i]);
  }
}

TEST(Linear, GivesARowTheSameBitsAmongFewOthers) {
  const auto x = nha_test::random_tensor<float, 2>({nha::cpu::kFewRows - 1, 70});
  const auto weight = nha_test::random_tensor<float, 2>({130, 70}, 2);
  Tensor<float, 2> together({x.extent(0), 130}), alone({1, 130});
  nha::linear(x, weight, together.view());
  for (Index r = 0; r < x.extent(0); ++r) {
    nha::linear(x.view().slice<0>(r, 1), weight, alone.view());
    for (Index o = 0; o < 130; ++o) ASSERT_EQ(alone(0, o), together(r, o));
  }
}

TEST(Linear, RefusesShapesThatDoNotFit) {
  Tensor<float, 2> x({2, 3}), weight({4, 5}), y({2, 4});
  NHA_EXPECT_ERROR(nha::linear(x, weight, y.view()), nha::ArgumentError,
                   "x of linear has rows of 3; the weight expects 5");
  Tensor<float, 2> fitting({2, 5}), short_y({2, 3});
  NHA_EXPECT_ERROR(nha::linear(fitting, weight, short_y.view()), nha::ArgumentError,
                   "y of linear is [2, 3]; expected [2, 4]");
}

TEST(Linear, RefusesRowsThatOverlapOrHaveNoData) {
  using Rows = nha::TensorView<float, nha::Dynamic, nha::Dynamic>;
  Tensor<float, 2> x({9, 5}), weight({4, 5}), y({9, 4});
  NHA_EXPECT_ERROR(nha::linear(Rows(x.data(), {9, 5}, {0, 1}), weight, y.view()),
                   nha::ArgumentError, "x of linear has stride 0 between its rows");
  NHA_EXPECT_ERROR(nha::linear(x, Rows(&weight(3, 0), {4, 5}, {-5, 1}), y.view()),
                   nha::ArgumentError, "weight of linear has stride -5 between its rows");
  NHA_EXPECT_ERROR(nha::linear(x, weight, Rows(y.data(), {9, 4}, {3, 1})), nha::ArgumentError,
                   "y of linear has stride 3 between its rows");
  NHA_EXPECT_ERROR(nha::linear(x, Rows(nullptr, {4, 5}), y.view()), nha::ArgumentError,
                   "weight of linear has no data");
}

TEST(Linear, TakesASingleRowOfAnyStride) {
  using Rows = nha::TensorView<float, nha::Dynamic, nha::Dynamic>;
  const auto x = nha_test::random_tensor<float, 2>({1, 5});
  const auto weight = nha_test::random_tensor<float, 2>({4, 5}, 2);
  Tensor<float, 2> expected({1, 4}), found({1, 4});
  nha::linear(x, weight, expected.view());
  nha::linear(x.view()[0].insert_axis<0>(), weight, Rows(found.data(), {1, 4}, {-1, 1}));
  for (Index o = 0; o < 4; ++o) EXPECT_EQ(found(0, o), expected(0, o));
}

}  // namespace
