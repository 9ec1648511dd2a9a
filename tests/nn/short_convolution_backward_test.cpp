// SPDX-License-Identifier: MIT
#include <nha/nn/short_convolution_backward.hpp>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

using nha::Index;
using nha::Tensor;
using nha::TokenBatch;
using ConvolutionRows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;
using ConvolutionVector = nha::TensorView<double, nha::Dynamic>;

class ShortConvolutionBackward : public testing::Test {
 protected:
  static constexpr Index kTokens = 12, kWidth = 5;

  void use(Index kernel_size, bool with_bias) {
    weight = nha_test::random_tensor<double, 2>({kWidth, kernel_size}, 2);
    bias = with_bias ? nha_test::random_tensor<double, 1>({kWidth}, 3) : Tensor<double, 1>();
    dweight = Tensor<double, 2>(weight.extents());
    dbias = Tensor<double, 1>(bias.extents());
  }
  void run(const TokenBatch& tokens) {
    nha::short_convolution_backward(x, tokens, weight, bias, dy, dx, dweight.view(), dbias);
  }
  double loss(const TokenBatch& tokens) const {
    nha::ConvolutionState<double> state(tokens.sequences(), kWidth, weight.extent(1));
    Tensor<double, 2> y({kTokens, kWidth});
    nha::short_convolution(x, tokens, weight, bias, state, y.view());
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
    return sum;
  }
  template <int Rank>
  void expect_slopes(const TokenBatch& tokens, Tensor<double, Rank>& of,
                     const Tensor<double, Rank>& found, double before) const {
    const double step = 1e-5;
    for (Index i = 0; i < of.size(); ++i) {
      double& value = of.data()[i];
      const double at = value;
      value = at + step;
      const double above = loss(tokens);
      value = at - step;
      const double below = loss(tokens);
      value = at;
      ASSERT_NEAR(found.data()[i], before + (above - below) / (2 * step), 1e-8);
    }
  }

  Tensor<double, 2> x = nha_test::random_tensor<double, 2>({kTokens, kWidth});
  Tensor<double, 2> dy = nha_test::random_tensor<double, 2>({kTokens, kWidth}, 4);
  Tensor<double, 2> dx{Tensor<double, 2>({kTokens, kWidth})};
  Tensor<double, 2> weight, dweight;
  Tensor<double, 1> bias, dbias;
};

TEST_F(ShortConvolutionBackward, AgreesWithFiniteDifferences) {
  const std::vector<std::int64_t> packed = {0, 1, 1, 8, 12};
  for (const TokenBatch& tokens :
       {TokenBatch{1, 12}, TokenBatch{3, 4}, TokenBatch{12, 1}, TokenBatch{1, 12, packed}})
    for (Index kernel_size : {1, 2, 4})
      for (bool with_bias : {false, true}) {
        use(kernel_size, with_bias);
        for (double& value : dx.values()) value = 100;  // must not survive
        for (double& value : dweight.values()) value = 2;
        for (double& value : dbias.values()) value = 3;
        run(tokens);
        expect_slopes(tokens, x, dx, 0);
        expect_slopes(tokens, weight, dweight, 2);
        expect_slopes(tokens, bias, dbias, 3);
      }
}

TEST_F(ShortConvolutionBackward, PackedSequencesEqualThoseOfABatch) {
  use(4, true);
  run({3, 4});
  const auto batch_dx = dx, batch_dweight = dweight;
  use(4, true);
  const std::vector<std::int64_t> packed = {0, 4, 8, 12};
  run({1, 12, packed});
  for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx.data()[i], batch_dx.data()[i]);
  for (Index i = 0; i < dweight.size(); ++i) EXPECT_EQ(dweight.data()[i], batch_dweight.data()[i]);
}

TEST_F(ShortConvolutionBackward, MayWriteOverDyAndInSlices) {
  use(3, true);
  run({2, 6});
  const auto dweight_apart = dweight;
  Tensor<double, 2> wide({kTokens, kWidth + 3});
  const ConvolutionRows part = wide.view().slice<1>(2, kWidth);
  for (Index t = 0; t < kTokens; ++t)
    for (Index c = 0; c < kWidth; ++c) part(t, c) = dy(t, c);
  use(3, true);
  nha::short_convolution_backward(x, {2, 6}, weight, bias, part, part, dweight.view(), dbias);
  for (Index t = 0; t < kTokens; ++t) {
    for (Index c = 0; c < kWidth; ++c) EXPECT_EQ(part(t, c), dx(t, c));
    EXPECT_TRUE(wide(t, 1) == 0 && wide(t, 2 + kWidth) == 0);
  }
  for (Index i = 0; i < dweight.size(); ++i) EXPECT_EQ(dweight.data()[i], dweight_apart.data()[i]);
}

TEST_F(ShortConvolutionBackward, MoreChannelsThanAreDoneTogetherAreAsTheyWouldBeAlone) {
  using Rows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;
  for (const Index kernel_size : {1, 3, 4, 64}) {
    const Index count = 70, channels = 2 * (2048 / kernel_size) + 7;
    const auto wide_x = nha_test::random_tensor<double, 2>({count, channels}, 1);
    const auto wide_weight = nha_test::random_tensor<double, 2>({channels, kernel_size}, 2);
    const auto wide_dy = nha_test::random_tensor<double, 2>({count, channels}, 3);
    Tensor<double, 2> wide_dx({count, channels}), wide_dweight({channels, kernel_size});
    nha::short_convolution_backward(wide_x, {1, count}, wide_weight, {}, wide_dy, wide_dx,
                                    wide_dweight.view(), {});
    nha::ConvolutionState<double> state(1, channels, kernel_size);
    Tensor<double, 2> wide_y({count, channels});
    nha::short_convolution(wide_x, {1, count}, wide_weight, {}, state, wide_y.view());
    for (const Index c : {Index{0}, 2048 / kernel_size - 1, 2048 / kernel_size, channels - 1}) {
      const auto one = [&](const auto& all) { return all.view().template slice<1>(c, 1); };
      const auto one_weight = wide_weight.view().slice<0>(c, 1);
      Tensor<double, 2> one_dx({count, 1}), one_dweight({1, kernel_size}), one_y({count, 1});
      nha::short_convolution_backward(one(wide_x), {1, count}, one_weight, {}, one(wide_dy), one_dx,
                                      one_dweight.view(), {});
      nha::ConvolutionState<double> one_state(1, 1, kernel_size);
      nha::short_convolution(one(wide_x), {1, count}, one_weight, {}, one_state,
                             Rows(one_y.view()));
      for (Index t = 0; t < count; ++t) {
        ASSERT_NEAR(wide_dx(t, c), one_dx(t, 0), 1e-12) << kernel_size << ' ' << c;
        ASSERT_NEAR(wide_y(t, c), one_y(t, 0), 1e-12) << kernel_size << ' ' << c;
      }
      for (Index i = 0; i < kernel_size; ++i)
        ASSERT_NEAR(wide_dweight(c, i), one_dweight(0, i), 1e-11) << kernel_size << ' ' << c;
    }
  }
}

/// Everything that the convolution of 9 tokens and its backward give, some channels filling vectors
/// and some not.
template <class Arch>
std::vector<float> convolution_results() {
  const Index count = 9, channels = 21, kernel_size = 4;
  const auto x = nha_test::random_tensor<float, 2>({count, channels}, 1);
  const auto weight = nha_test::random_tensor<float, 2>({channels, kernel_size}, 2);
  const auto bias = nha_test::random_tensor<float, 1>({channels}, 3);
  const auto dy = nha_test::random_tensor<float, 2>({count, channels}, 4);
  Tensor<float, 2> y({count, channels}), dx({count, channels}), dweight({channels, kernel_size});
  Tensor<float, 1> dbias({channels});
  nha::ConvolutionState<float> state(1, channels, kernel_size);
  nha::short_convolution<Arch>(x, TokenBatch{1, count}, weight, bias, state, y.view());
  nha::short_convolution_backward<Arch>(x, TokenBatch{1, count}, weight, bias, dy, dx,
                                        dweight.view(), dbias);
  std::vector<float> all;
  for (const auto& values : {y.values(), dx.values(), dweight.values(), dbias.values()})
    all.insert(all.end(), values.begin(), values.end());
  return all;
}

template <class Arch>
class ShortConvolutionOn : public testing::Test {};
TYPED_TEST_SUITE(ShortConvolutionOn, nha_test::Architectures);

TYPED_TEST(ShortConvolutionOn, EveryArchitectureComputesTheSame) {
  const auto found = convolution_results<TypeParam>();
  const auto expected = convolution_results<nha::cpu::simd::scalar>();
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-5) << i;
}

TEST_F(ShortConvolutionBackward, ArgumentsThatDoNotFitAreNamedAndTouchNothing) {
  use(4, true);
  const auto refuses =
      [&](const TokenBatch& tokens, const ConvolutionRows& x_, const ConvolutionRows& weight_,
          const ConvolutionVector& bias_, const ConvolutionRows& dy_, const ConvolutionRows& dx_,
          const ConvolutionRows& dweight_, const ConvolutionVector& dbias_, const char* message) {
        NHA_EXPECT_ERROR(
            nha::short_convolution_backward(x_, tokens, weight_, bias_, dy_, dx_, dweight_, dbias_),
            nha::ArgumentError, message);
        for (double value : dx.values()) EXPECT_EQ(value, 0) << message;
        for (double value : dweight.values()) EXPECT_EQ(value, 0) << message;
        for (double value : dbias.values()) EXPECT_EQ(value, 0) << message;
      };
  const ConvolutionRows in = x.view(), w = weight.view(), d = dy.view(), to = dx.view(),
                        dw = dweight.view();
  const ConvolutionVector b = bias.view(), db = dbias.view();
  const TokenBatch all{1, kTokens};
  const std::vector<std::int64_t> beyond = {0, 13};
  refuses({1, 12, beyond}, in, w, b, d, to, dw, db, "cu_seqlens");
  refuses({1, 11}, in, w, b, d, to, dw, db,
          "x of short_convolution_backward is [12, 5]; expected [11, 5]");
  refuses(all, in, w, b, d.slice<1>(0, 4), to, dw, db,
          "dy of short_convolution_backward is [12, 4]; expected [12, 5]");
  refuses(all, in, w, b, d, to.slice<0>(0, 4), dw, db,
          "dx of short_convolution_backward is [4, 5]; expected [12, 5]");
  refuses(all, in, w.slice<1>(0, 0), b, d, to, dw, db,
          "weight of short_convolution_backward has a kernel size of 0");
  refuses(all, in, w, b, d, to, dw.slice<1>(0, 3), db,
          "dweight of short_convolution_backward is [5, 3]; expected [5, 4]");
  refuses(all, in, w, b.slice<0>(0, 4), d, to, dw, db,
          "bias of short_convolution_backward has 4 entries; expected 5");
  refuses(all, in, w, {}, d, to, dw, db,
          "dbias of short_convolution_backward has 5 entries; expected 0");
  const auto many = nha_test::random_tensor<double, 2>({kWidth, 65}, 2);
  refuses(all, in, Tensor<double, 2>(many).view(), b, d, to, dw, db,
          "weight of short_convolution_backward has a kernel size of 65; expected 1 to 64");
}

TEST_F(ShortConvolutionBackward, LeavesOutWhatIsNotWanted) {
  const TokenBatch tokens{2, 6};
  use(4, true);
  run(tokens);
  const Tensor<double, 2> all_dx = dx, all_dweight = dweight;
  const Tensor<double, 1> all_dbias = dbias;
  const auto expect_same = [](const auto& found, const auto& all) {
    for (Index i = 0; i < all.size(); ++i) EXPECT_EQ(found.data()[i], all.data()[i]);
  };
  use(4, true);
  dx = Tensor<double, 2>(dx.extents());
  nha::short_convolution_backward(x, tokens, weight, bias, dy, dx, ConvolutionRows(), {});
  expect_same(dx, all_dx);
  nha::short_convolution_backward(x, tokens, weight, bias, dy, {}, dweight.view(), {});
  expect_same(dweight, all_dweight);
  nha::short_convolution_backward(x, tokens, weight, bias, dy, {}, ConvolutionRows(), dbias);
  expect_same(dbias, all_dbias);
}

TEST_F(ShortConvolutionBackward, InFloatIsThatOfDoubleRounded) {
  const auto rounded = [](const auto& from, auto to) {
    for (Index i = 0; i < to.size(); ++i) to.data()[i] = static_cast<float>(from.data()[i]);
    return to;
  };
  use(4, true);
  run({2, 6});
  auto d = rounded(dy, Tensor<float, 2>(dy.extents()));
  Tensor<float, 2> d_weight(weight.extents());
  Tensor<float, 1> d_bias(bias.extents());
  nha::short_convolution_backward(rounded(x, Tensor<float, 2>(x.extents())), {2, 6},
                                  rounded(weight, Tensor<float, 2>(weight.extents())),
                                  rounded(bias, Tensor<float, 1>(bias.extents())), d, d,
                                  d_weight.view(), d_bias);
  for (Index i = 0; i < d.size(); ++i) EXPECT_NEAR(d.data()[i], dx.data()[i], 1e-5);
  for (Index i = 0; i < dweight.size(); ++i)
    EXPECT_NEAR(d_weight.data()[i], dweight.data()[i], 1e-5);
  for (Index i = 0; i < dbias.size(); ++i) EXPECT_NEAR(d_bias.data()[i], dbias.data()[i], 1e-5);
}

}  // namespace
