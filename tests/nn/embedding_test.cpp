// SPDX-License-Identifier: MIT
#include <nha/nn/embedding.hpp>

#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Dynamic;

TEST(Embedding, GivesEachTokenItsRow) {
  nha::Tensor<float, 2> table({3, 2}), x({4, 2});
  for (int i = 0; i < 6; ++i) table.data()[i] = static_cast<float>(i);
  const std::vector<std::int32_t> tokens{2, 0, 1, 2};
  nha::embed({tokens, {2, 2}}, table, x.view());
  const std::vector<float> expected{4, 5, 0, 1, 2, 3, 4, 5};
  EXPECT_EQ(std::vector<float>(x.values().begin(), x.values().end()), expected);
}
TEST(Embedding, BackwardAddsUpTheRowsOfOneToken) {
  nha::Tensor<double, 2> dx({3, 1}), dtable({2, 1});
  dx(0, 0) = 1;
  dx(1, 0) = 10;
  dx(2, 0) = 100;
  dtable(1, 0) = 1000;
  const std::vector<std::int32_t> tokens{1, 0, 1};
  nha::embed_backward({tokens, {1, 3}}, dx, dtable.view());
  EXPECT_EQ(dtable(0, 0), 10);
  EXPECT_EQ(dtable(1, 0), 1101);
}
TEST(Embedding, BackwardDoesNothingWhereTheTableIsFrozen) {
  const std::vector<std::int32_t> tokens{1, 0, 1};
  nha::embed_backward<double>({tokens, {1, 3}}, {}, {});
}
TEST(Embedding, RefusesTokensThatAreNotInTheVocabulary) {
  const std::vector<std::int32_t> tokens{0, 3};
  const nha::TensorView<const std::int32_t, Dynamic, Dynamic> view(tokens, {1, 2});
  nha::detail::check_vocabulary(view, 4);
  NHA_EXPECT_ERROR(nha::detail::check_vocabulary(view, 3), nha::ArgumentError,
                   "token 1 of row 0 is 3; expected 0 to 2");
}

}  // namespace
