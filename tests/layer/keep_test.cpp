// SPDX-License-Identifier: MIT
#include <nha/layer/keep.hpp>

#include <nha/layer/feed_forward.hpp>

#include "support/random_model.hpp"

#include <gtest/gtest.h>

namespace {

using nha::Index;
using nha::Keep;
using nha::Tensor;

class KeepTest : public testing::Test {
 protected:
  static constexpr Index kRows = 16, kHidden = 5, kInner = 7;

  /// Bytes of scratch memory that a call takes; y is what it computes.
  std::size_t run(Keep keep, Tensor<float, 2>& y) const {
    nha::SectionCursor sizes(nullptr);
    layer.take_activations(sizes, kRows, keep);
    nha::Buffer memory(sizes.used());
    nha::SectionCursor cursor(memory.data());
    layer.forward(x, y.view(), layer.take_activations(cursor, kRows, keep));
    return sizes.used();
  }

  nha::FeedForward<float> layer{kHidden,
                                kInner,
                                {nha_test::random_tensor<float, 2>({kInner, kHidden}, 1),
                                 nha_test::random_tensor<float, 2>({kInner, kHidden}, 2),
                                 nha_test::random_tensor<float, 2>({kHidden, kInner}, 3)}};
  Tensor<float, 2> x = nha_test::random_tensor<float, 2>({kRows, kHidden}, 4);
};

TEST_F(KeepTest, ChangesTheMemoryTakenAndNoBitOfTheResult) {
  Tensor<float, 2> y(x.extents()), y_keeping(x.extents());
  const std::size_t bytes = run(Keep::nothing, y);
  EXPECT_EQ(run(Keep::for_backward, y_keeping), bytes + kRows * kInner * sizeof(float));
  for (Index i = 0; i < y.size(); ++i) EXPECT_EQ(y.data()[i], y_keeping.data()[i]);
}

}  // namespace
