// SPDX-License-Identifier: MIT
#include <nha/layer/short_convolution.hpp>

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
using Rows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;

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
                           state, Rows(y.view().slice<0>(first, count)));
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
                         Rows(y.view().slice<0>(0, 13)));
  ConvolutionState<double> single(1, kChannels, kTaps);
  state.fork(0, single, 0);
  state.reset(0);
  EXPECT_EQ(state.tokens_seen(0), 0);
  EXPECT_EQ(state.tokens_seen(1), 6);
  run(single, 7, 3);
  EXPECT_NEAR(y(7, 0), expected(0, 7, 0), 1e-14);
}

TEST_F(ShortConvolution, WorksWithoutBias) {
  ConvolutionState<double> state(1, kChannels, kTaps);
  nha::short_convolution(x, TokenBatch{1, 20}, weight, {}, state, y.view());
  for (double& value : bias.values()) value = 0;
  EXPECT_NEAR(y(9, 2), expected(0, 9, 2), 1e-14);
}

}  // namespace
