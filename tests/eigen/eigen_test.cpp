// SPDX-License-Identifier: MIT
#include <nha/eigen.hpp>

#include <nha/attention/prefill.hpp>
#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <type_traits>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using nha::Dynamic;
using nha::Index;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(Eigen, ViewOfAMatrixHasItsElementsInEitherOrder) {
  Eigen::MatrixXf columns(3, 4);
  RowMajor rows(3, 4);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j) columns(i, j) = rows(i, j) = static_cast<float>(10 * i + j);
  const auto a = nha::view(columns);
  const auto b = nha::view(rows);
  EXPECT_EQ(a.data(), columns.data());
  EXPECT_FALSE(a.has_contiguous_rows());
  EXPECT_TRUE(b.has_contiguous_rows());
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j) {
      EXPECT_EQ(a(i, j), static_cast<float>(10 * i + j));
      EXPECT_EQ(b(i, j), static_cast<float>(10 * i + j));
    }
}

TEST(Eigen, ViewKeepsStaticSizesAndConst) {
  const Eigen::Matrix<double, 2, 3, Eigen::RowMajor> fixed{{1, 2, 3}, {4, 5, 6}};
  const auto v = nha::view(fixed);
  static_assert(std::is_same_v<decltype(v), const nha::TensorView<const double, 2, 3>>);
  EXPECT_EQ(v(1, 2), 6);
  Eigen::Vector3f vector(1, 2, 3);
  const auto w = nha::view(vector);
  static_assert(std::is_same_v<decltype(w), const nha::TensorView<float, 3>>);
  w(1) = 7;
  EXPECT_EQ(vector(1), 7);
}

TEST(Eigen, ViewOfMapsRefsAndBlocksFollowsTheirStrides) {
  std::vector<float> memory(24);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  Eigen::Map<RowMajor, 0, Eigen::OuterStride<>> wide(memory.data(), 3, 4, Eigen::OuterStride<>(8));
  EXPECT_EQ(nha::view(wide)(2, 3), 19);
  Eigen::Ref<RowMajor> ref(wide);
  EXPECT_EQ(nha::view(ref)(1, 2), 10);
  auto block = wide.block(1, 1, 2, 2);
  EXPECT_EQ(nha::view(block)(1, 1), 18);
  auto row = wide.row(1);
  EXPECT_EQ(nha::view(row)(3), 11);
  auto column = wide.col(2);
  EXPECT_EQ(nha::view(column)(2), 18);
}

TEST(Eigen, MapOfAViewIsTheViewsMemory) {
  nha::Tensor<float, 2> tensor({3, 4});
  for (Index i = 0; i < tensor.size(); ++i) tensor.data()[i] = static_cast<float>(i);
  auto whole = nha::map(tensor.view());
  EXPECT_EQ(whole(2, 1), 9);
  whole *= 2;
  EXPECT_EQ(tensor(2, 1), 18);
  const auto middle = nha::map(tensor.view().slice<1>(1, 2));
  EXPECT_EQ(middle.rows(), 3);
  EXPECT_EQ(middle.cols(), 2);
  EXPECT_EQ(middle(1, 1), 12);
  const auto row = nha::map(tensor.view()[1]);
  EXPECT_EQ(row.sum(), 44);
  const nha::TensorView<const float, 3, 1> column(tensor.data(), {3, 1}, {4, 1});
  EXPECT_EQ(nha::map(column)(2, 0), 16);
}

TEST(Eigen, OperatorReadsAMatrixOfPackedProjections) {
  constexpr Index tokens = 20, heads = 2, dim = 8;
  const nha_test::RandomCase<float> random(
      {.tokens = tokens, .kv_heads = heads, .key_dim = dim, .value_dim = dim, .slots = 4});
  RowMajor qkv(tokens, 3 * heads * dim);
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index d = 0; d < dim; ++d) {
        qkv(t, h * dim + d) = random.q_window(0, t, h, d);
        qkv(t, (heads + h) * dim + d) = random.k_window(0, t, h, d);
        qkv(t, (2 * heads + h) * dim + d) = random.v(0, t, h, d);
      }
  const auto part = [&](Index n) {
    return nha::view(qkv).slice<1>(n * heads * dim, heads * dim).split<1>(heads).insert_axis<0>();
  };
  auto inputs = random.inputs();
  const nha::AttentionOptions options{.window = 5};
  const auto run = [&] {
    nha_test::CaseOutputs<float> out(random.shape);
    nha::AttentionState<float> state(random.attention_shape(), options);
    nha::Workspace workspace;
    nha::prefill(inputs, state, out.views(), workspace);
    return out;
  };
  const auto separate = run();
  inputs.q_window = part(0);
  inputs.k_window = part(1);
  inputs.v = part(2);
  const auto packed = run();
  EXPECT_EQ(nha_test::relative_error(packed, separate), 0);
}

TEST(Eigen, MapsOfImpossibleSizesAreRefused) {
  float value = 0;
  constexpr Eigen::Index huge = Eigen::Index{1} << 32;
  Eigen::Map<RowMajor, 0, Eigen::OuterStride<>> map(&value, huge, huge, Eigen::OuterStride<>(1));
  NHA_EXPECT_ERROR((void)nha::view(map), nha::ArgumentError, "product overflows");
}

}  // namespace
