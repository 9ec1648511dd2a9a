// SPDX-License-Identifier: MIT
#include <nha/nn/short_convolution.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using nha::ConvolutionState;
using nha::Index;
using nha::Tensor;
using nha::TokenBatch;
using DoubleRows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;

constexpr Index kChannels = 5, kTaps = 4;

class ShortConvolution : public testing::Test {
 protected:
  /// Output of sequence rows [first, first + count) of x, all inputs before it being zero.
  double expected(Index first, Index t, Index c) const {
    double sum = bias(c);
    for (Index i = 0; i < kTaps; ++i) {
      const Index source = t - kTaps + 1 + i;
      if (source >= 0) sum += weight(c, i) * x(first + source, c);
    }
    return sum / (1 + std::exp(-sum));
  }
  /// Puts rows [first, first + count) of x through a state of one sequence.
  void run(ConvolutionState<double>& state, Index first, Index count) {
    nha::short_convolution(x.view().slice<0>(first, count), TokenBatch{1, count}, weight, bias,
                           state, DoubleRows(y.view().slice<0>(first, count)));
  }

  Tensor<double, 2> x = nha_test::random_tensor<double, 2>({20, kChannels});
  Tensor<double, 2> weight = nha_test::random_tensor<double, 2>({kChannels, kTaps}, 2);
  Tensor<double, 1> bias = nha_test::random_tensor<double, 1>({kChannels}, 3);
  Tensor<double, 2> y{Tensor<double, 2>({20, kChannels})};
};

TEST_F(ShortConvolution, EqualsAPlainLoopInAnyPieces) {
  for (Index piece : {1, 2, 3, 7, 20}) {
    ConvolutionState<double> state(1, kChannels, kTaps);
    for (Index t = 0; t < 20; t += piece) run(state, t, std::min(piece, 20 - t));
    for (Index t = 0; t < 20; ++t)
      for (Index c = 0; c < kChannels; ++c) ASSERT_NEAR(y(t, c), expected(0, t, c), 1e-14) << piece;
  }
}

TEST_F(ShortConvolution, SequencesOfABatchDoNotMix) {
  ConvolutionState<double> state(3, kChannels, kTaps);
  const std::vector<std::int64_t> cu = {0, 6, 6, 20};
  nha::short_convolution(x, TokenBatch{1, 20, cu}, weight, bias, state, y.view());
  for (Index t = 0; t < 6; ++t) EXPECT_NEAR(y(t, 1), expected(0, t, 1), 1e-14);
  for (Index t = 6; t < 20; ++t) EXPECT_NEAR(y(t, 1), expected(6, t - 6, 1), 1e-14);
  EXPECT_EQ(state.tokens_seen(1), 0);
}

TEST_F(ShortConvolution, RollbackReturnsToTheSameInputs) {
  for (Index back : {1, 4, 6}) {
    ConvolutionState<double> state(1, kChannels, kTaps, 6);
    run(state, 0, 12);
    state.rollback(0, back);
    // Other tokens in the place of those taken back, which must leave nothing behind.
    for (Index t = 12 - back; t < 12; ++t)
      for (Index c = 0; c < kChannels; ++c) x(t, c) += 1;
    run(state, 12 - back, 8 + back);
    for (Index t = 12 - back; t < 20; ++t)
      for (Index c = 0; c < kChannels; ++c) ASSERT_NEAR(y(t, c), expected(0, t, c), 1e-14) << back;
  }
}

TEST_F(ShortConvolution, RollbackRefusesWhatIsNoLongerKept) {
  ConvolutionState<double> state(1, kChannels, kTaps, 3);
  run(state, 0, 10);
  NHA_EXPECT_ERROR(state.rollback(0, 4), nha::ArgumentError, "tokens to roll back is 4");
  state.rollback(0, 2);
  NHA_EXPECT_ERROR(state.rollback(0, 2), nha::ArgumentError, "can now go back 1");
  state.rollback(0, 1);
  EXPECT_EQ(state.tokens_seen(0), 7);
}

TEST_F(ShortConvolution, ForkAndResetConcernOneSequence) {
  ConvolutionState<double> state(2, kChannels, kTaps);
  const std::vector<std::int64_t> cu = {0, 7, 13};
  nha::short_convolution(x.view().slice<0>(0, 13), TokenBatch{1, 13, cu}, weight, bias, state,
                         DoubleRows(y.view().slice<0>(0, 13)));
  ConvolutionState<double> single(1, kChannels, kTaps);
  state.fork(0, single, 0);
  state.reset(0);
  EXPECT_EQ(state.tokens_seen(0), 0);
  EXPECT_EQ(state.tokens_seen(1), 6);
  run(single, 7, 3);
  EXPECT_NEAR(y(7, 0), expected(0, 7, 0), 1e-14);
}

TEST_F(ShortConvolution, ReadsAndWritesSlices) {
  const auto wide = nha_test::random_tensor<double, 2>({20, kChannels + 4}, 7);
  for (Index t = 0; t < 20; ++t)
    for (Index c = 0; c < kChannels; ++c) x(t, c) = wide(t, 2 + c);
  Tensor<double, 2> out({20, kChannels + 3});
  ConvolutionState<double> state(1, kChannels, kTaps);
  for (Index t = 0; t < 20; t += 10)
    nha::short_convolution(wide.view().slice<0>(t, 10).slice<1>(2, kChannels), TokenBatch{1, 10},
                           weight, bias, state,
                           DoubleRows(out.view().slice<0>(t, 10).slice<1>(1, kChannels)));
  for (Index t = 0; t < 20; ++t) {
    for (Index c = 0; c < kChannels; ++c) ASSERT_NEAR(out(t, 1 + c), expected(0, t, c), 1e-14);
    EXPECT_EQ(out(t, 0), 0);
    EXPECT_EQ(out(t, 1 + kChannels), 0);
  }
}

TEST_F(ShortConvolution, ArgumentsThatDoNotFitAreNamedAndTouchNothing) {
  ConvolutionState<double> state(1, kChannels, kTaps);
  const DoubleRows in = x.view(), out = y.view(), w = weight.view();
  const nha::TensorView<double, nha::Dynamic> b = bias.view();
  const auto refuses = [&](const DoubleRows& in_, const DoubleRows& w_, const auto& b_,
                           const DoubleRows& out_, const char* message) {
    NHA_EXPECT_ERROR(nha::short_convolution(in_, TokenBatch{1, 20}, w_, b_, state, out_),
                     nha::ArgumentError, message);
    EXPECT_EQ(state.tokens_seen(0), 0) << message;
  };
  const auto overlapping = [](Tensor<double, 2>& of) {
    return DoubleRows(of.data(), {20, kChannels}, {1, 1});
  };
  refuses(in.slice<1>(0, 4), w, b, out, "x of short_convolution is [20, 4]; expected [20, 5]");
  refuses(overlapping(x), w, b, out, "x of short_convolution has stride 1 between its rows");
  refuses(in, w, b, out.slice<0>(0, 19), "y of short_convolution is [19, 5]; expected [20, 5]");
  refuses(in, w, b, overlapping(y), "y of short_convolution has stride 1 between its rows");
  refuses(in, w, b, DoubleRows(nullptr, y.extents()), "y of short_convolution has no data");
  refuses(in, w.slice<1>(0, 3), b, out, "weight of short_convolution is [5, 3]");
  refuses(in, DoubleRows(x.data(), {kChannels, kTaps + 1}), b, out,
          "weight of short_convolution is [5, 5]; the state is of [5, 4]");
  refuses(in, w.slice<0>(0, 4), b, out, "weight of short_convolution is [4, 4]");
  refuses(in, DoubleRows(nullptr, weight.extents()), b, out,
          "weight of short_convolution has no data");
  refuses(in, w, b.slice<0>(0, 4), out, "bias of short_convolution has 4 entries; expected 5");
  refuses(in, w, nha::TensorView<double, nha::Dynamic>(nullptr, {kChannels}), out,
          "bias of short_convolution has no data");
}

TEST_F(ShortConvolution, AStateOfImpossibleSizesIsRefused) {
  const auto refuses = [](Index batch, Index channels, Index kernel_size, Index rollback,
                          const char* message) {
    NHA_EXPECT_ERROR(ConvolutionState<double>(batch, channels, kernel_size, rollback),
                     nha::ArgumentError, message);
  };
  refuses(-1, 5, 4, 0, "batch is -1");
  refuses(1, 0, 4, 0, "channels is 0");
  refuses(1, 5, 0, 0, "kernel_size is 0; expected 1 to 64");
  refuses(1, 5, -1, 3, "kernel_size is -1; expected 1 to 64");
  refuses(1, 5, 65, 0, "kernel_size is 65; expected 1 to 64");
  refuses(1, 5, 4, -1, "max_rollback is -1");
  refuses(Index{1} << 24, Index{1} << 40, 4, 0, "does not fit in memory");
}

TEST_F(ShortConvolution, SequencesAndTokensThatAreNotThereAreRefused) {
  ConvolutionState<double> state(2, kChannels, kTaps);
  const std::vector<std::int64_t> cu = {0, 7, 13};
  nha::short_convolution(x.view().slice<0>(0, 13), TokenBatch{1, 13, cu}, weight, bias, state,
                         DoubleRows(y.view().slice<0>(0, 13)));
  NHA_EXPECT_ERROR(state.reset(1000000), nha::ArgumentError,
                   "sequence is 1000000; expected 0 to 1");
  NHA_EXPECT_ERROR(state.tokens_seen(-1), nha::ArgumentError, "sequence is -1");
  NHA_EXPECT_ERROR(state.oldest_input(2), nha::ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.begin_history(2, 0), nha::ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.begin_history(0, -1), nha::ArgumentError, "tokens_seen is -1");
  NHA_EXPECT_ERROR(state.append(2, x), nha::ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.append(0, weight), nha::ArgumentError,
                   "rows to append have 4 channels; expected 5");
  NHA_EXPECT_ERROR(state.input(2, 6), nha::ArgumentError, "sequence is 2");
  NHA_EXPECT_ERROR(state.input(0, 7), nha::ArgumentError,
                   "token is 7; the convolution keeps the inputs of 4 to 6");
  NHA_EXPECT_ERROR(state.input(0, 3), nha::ArgumentError, "token is 3");
  for (Index t = 4; t < 7; ++t) EXPECT_EQ(state.input(0, t)[2], x(t, 2));
}

TEST_F(ShortConvolution, ASingleTapRemembersNothing) {
  ConvolutionState<double> state(1, kChannels, 1);
  Tensor<double, 2> one({kChannels, 1});
  for (double& value : one.values()) value = 2;
  nha::short_convolution(x, TokenBatch{1, 20}, one, {}, state, y.view());
  EXPECT_NEAR(y(9, 2), 2 * x(9, 2) / (1 + std::exp(-2 * x(9, 2))), 1e-14);
  EXPECT_EQ(state.tokens_seen(0), 20);
}

TEST_F(ShortConvolution, WorksWithoutBias) {
  ConvolutionState<double> state(1, kChannels, kTaps);
  nha::short_convolution(x, TokenBatch{1, 20}, weight, {}, state, y.view());
  for (double& value : bias.values()) value = 0;
  EXPECT_NEAR(y(9, 2), expected(0, 9, 2), 1e-14);
}

}  // namespace
