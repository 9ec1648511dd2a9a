// SPDX-License-Identifier: MIT
#include <nha/nn/linear_backward.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace {

using nha::Index;
using nha::InputGradient;
using nha::Tensor;
using FloatRows = nha::TensorView<float, nha::Dynamic, nha::Dynamic>;

/// Runs tasks last first, and counts them.
struct LastFirstExecutor {
  Index tasks = 0;
  Index workers() const noexcept { return 1; }
  void run(Index count, nha::TaskRef task) noexcept {
    tasks += count;
    for (Index i = count; i-- > 0;) task(i, 0);
  }
};

TEST(LinearBackward, EqualsAPlainLoopForAnyNumberOfRows) {
  for (Index rows : {1, 5, 8, 130}) {
    const auto x = nha_test::random_tensor<float, 2>({rows, 33});
    const auto weight = nha_test::random_tensor<float, 2>({70, 33}, 2);
    const auto dy = nha_test::random_tensor<float, 2>({rows, 70}, 3);
    const auto before = nha_test::random_tensor<float, 2>({70, 33}, 4);
    Tensor<float, 2> dx({rows, 33}), dweight = before;
    for (float& value : dx.values()) value = 100;  // must not survive
    nha::linear_backward(x, weight, dy, dx.view(), dweight.view());
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < 33; ++i) {
        double sum = 0, size = 0;
        for (Index o = 0; o < 70; ++o) {
          const double term = double(dy(r, o)) * double(weight(o, i));
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(dx(r, i), sum, 1e-6 * size);
      }
    for (Index o = 0; o < 70; ++o)
      for (Index i = 0; i < 33; ++i) {
        double sum = double(before(o, i)), size = std::abs(sum);
        for (Index r = 0; r < rows; ++r) {
          const double term = double(dy(r, o)) * double(x(r, i));
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(dweight(o, i), sum, 1e-6 * size);
      }
  }
}

// linear() is linear in x and in W: <dy, linear(x + e, W)> - <dy, linear(x, W)> is <dx, e> exactly,
// and likewise for W.
TEST(LinearBackward, IsTheAdjointOfLinear) {
  const auto x = nha_test::random_tensor<double, 2>({19, 21});
  const auto weight = nha_test::random_tensor<double, 2>({13, 21}, 2);
  const auto dy = nha_test::random_tensor<double, 2>({19, 13}, 3);
  Tensor<double, 2> dx({19, 21}), dweight({13, 21}), y({19, 13});
  nha::linear_backward(x, weight, dy, dx.view(), dweight.view());
  nha::linear(x, weight, y.view());
  const auto dot = [](const Tensor<double, 2>& a, const Tensor<double, 2>& b) {
    double sum = 0;
    for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
    return sum;
  };
  EXPECT_NEAR(dot(dx, x), dot(dy, y), 1e-11);
  EXPECT_NEAR(dot(dweight, weight), dot(dy, y), 1e-11);
}

TEST(LinearBackward, AddsToDxWhereAskedTo) {
  const auto weight = nha_test::random_tensor<double, 2>({13, 21}, 2);
  const auto dy = nha_test::random_tensor<double, 2>({9, 13}, 3);
  const auto before = nha_test::random_tensor<double, 2>({9, 21}, 4);
  Tensor<double, 2> fresh({9, 21}), sum = before;
  nha::linear_backward<double>({}, weight, dy, fresh, {});
  nha::linear_backward<double>({}, weight, dy, sum, {}, nha::Serial{}, InputGradient::added);
  for (Index i = 0; i < sum.size(); ++i)
    EXPECT_NEAR(sum.data()[i], before.data()[i] + fresh.data()[i], 1e-13);
}

TEST(LinearBackward, ComputesOnlyWhatIsWanted) {
  const auto x = nha_test::random_tensor<double, 2>({9, 21});
  const auto weight = nha_test::random_tensor<double, 2>({13, 21}, 2);
  const auto dy = nha_test::random_tensor<double, 2>({9, 13}, 3);
  Tensor<double, 2> dx({9, 21}), dweight({13, 21}), dx_alone({9, 21}), dweight_alone({13, 21});
  nha::linear_backward(x, weight, dy, dx.view(), dweight.view());
  nha::linear_backward<double>({}, weight, dy, dx_alone, {});
  nha::linear_backward<double>(x, {}, dy, {}, dweight_alone);
  for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx_alone.data()[i], dx.data()[i]);
  for (Index i = 0; i < dweight.size(); ++i) EXPECT_EQ(dweight_alone.data()[i], dweight.data()[i]);
}

TEST(LinearBackward, ReadsAndWritesSlices) {
  const auto x = nha_test::random_tensor<float, 2>({9, 30});
  const auto weight = nha_test::random_tensor<float, 2>({12, 30}, 2);
  const auto dy = nha_test::random_tensor<float, 2>({9, 20}, 3);
  Tensor<float, 2> dx({9, 16}), dweight({12, 19});
  nha::linear_backward(x.view().slice<1>(4, 10), weight.view().slice<1>(7, 10),
                       dy.view().slice<1>(5, 12), dx.view().slice<1>(1, 10),
                       FloatRows(dweight.view().slice<1>(3, 10)));
  float into_x = 0, into_weight = 0;
  for (Index o = 0; o < 12; ++o) into_x += dy(8, 5 + o) * weight(o, 7 + 9);
  for (Index r = 0; r < 9; ++r) into_weight += dy(r, 5 + 11) * x(r, 4);
  EXPECT_NEAR(dx(8, 10), into_x, 1e-5);
  EXPECT_NEAR(dweight(11, 3), into_weight, 1e-5);
  for (Index r = 0; r < 9; ++r) EXPECT_TRUE(dx(r, 0) == 0 && dx(r, 11) == 0);
  for (Index o = 0; o < 12; ++o) EXPECT_TRUE(dweight(o, 2) == 0 && dweight(o, 13) == 0);
}

TEST(LinearBackward, GivesTheSameBitsWithAnyExecutor) {
  const auto x = nha_test::random_tensor<float, 2>({300, 530});
  const auto weight = nha_test::random_tensor<float, 2>({140, 530}, 2);
  const auto dy = nha_test::random_tensor<float, 2>({300, 140}, 3);
  Tensor<float, 2> dx({300, 530}), dweight({140, 530});
  Tensor<float, 2> dx_tasks = dx, dweight_tasks = dweight;
  LastFirstExecutor executor;
  nha::linear_backward(x, weight, dy, dx.view(), dweight.view());
  nha::linear_backward(x, weight, dy, dx_tasks.view(), dweight_tasks.view(), executor);
  EXPECT_EQ(executor.tasks, 2 * 5 + 2 * 3);  // blocks of dx and of dweight
  for (Index i = 0; i < dx.size(); ++i) ASSERT_EQ(dx.data()[i], dx_tasks.data()[i]);
  for (Index i = 0; i < dweight.size(); ++i) ASSERT_EQ(dweight.data()[i], dweight_tasks.data()[i]);
}

TEST(LinearBackward, NoRowsLeaveTheGradientsAlone) {
  Tensor<float, 2> x({0, 5}), weight({4, 5}), dy({0, 4}), dweight({4, 5});
  for (float& value : dweight.values()) value = 3;
  nha::linear_backward(x, weight, dy, x, dweight.view());
  for (float value : dweight.values()) EXPECT_EQ(value, 3.0f);
}

TEST(LinearBackward, ArgumentsThatDoNotFitAreNamedAndTouchNothing) {
  Tensor<float, 2> x({9, 5}), weight({4, 5}), dy({9, 4}), dx({9, 5}), dweight({4, 5});
  for (float& value : x.values()) value = 1;
  for (float& value : dy.values()) value = 1;
  const auto refuses = [&](const FloatRows& x_, const FloatRows& weight_, const FloatRows& dy_,
                           const FloatRows& dx_, const FloatRows& dweight_, const char* message) {
    NHA_EXPECT_ERROR(nha::linear_backward(x_, weight_, dy_, dx_, dweight_), nha::ArgumentError,
                     message);
    for (float value : dx.values()) EXPECT_EQ(value, 0.0f) << message;
    for (float value : dweight.values()) EXPECT_EQ(value, 0.0f) << message;
  };
  const FloatRows x_rows = x.view(), w = weight.view(), dy_rows = dy.view(), to = dx.view(),
                  dw = dweight.view();
  refuses(x_rows.slice<1>(0, 3), w, dy_rows, to, dw,
          "x of linear_backward is [9, 3]; expected [9, 5]");
  refuses(x_rows, w.slice<0>(0, 3), dy_rows, to, dw,
          "weight of linear_backward is [3, 5]; expected [4, 5]");
  refuses(x_rows, w, dy_rows.slice<0>(0, 8), to, dw,
          "dx of linear_backward is [9, 5]; expected [8, 5]");
  refuses(x_rows, w, dy_rows, {}, dw.slice<0>(0, 3),
          "dweight of linear_backward is [3, 5]; expected [4, 5]");
  refuses(x_rows, w, FloatRows(dy.data(), {9, 4}, {3, 1}), to, dw,
          "dy of linear_backward has stride 3 between its rows");
  refuses(x_rows, w, dy_rows, FloatRows(dx.data(), {9, 5}, {0, 1}), dw,
          "dx of linear_backward has stride 0 between its rows");
  refuses(FloatRows(nullptr, {9, 5}), w, dy_rows, to, dw, "x of linear_backward has no data");
}

}  // namespace
