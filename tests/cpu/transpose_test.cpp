// SPDX-License-Identifier: MIT
#include <nha/core/dtype.hpp>
#include <nha/cpu/transpose.hpp>

#include <gtest/gtest.h>

#include <vector>

namespace {

template <class T>
class TransposeFour : public testing::Test {};
using Types = testing::Types<float, double, nha::bfloat16, nha::float16>;
TYPED_TEST_SUITE(TransposeFour, Types);

TYPED_TEST(TransposeFour, WritesRowsAsColumnsAndNothingBetweenThem) {
  using Acc = nha::accumulate_t<TypeParam>;
  std::vector<TypeParam> in(16);
  for (int i = 0; i < 16; ++i)
    in[static_cast<std::size_t>(i)] = static_cast<TypeParam>(static_cast<float>(i));
  const TypeParam* const rows[4] = {&in[0], &in[4], &in[8], &in[12]};
  constexpr nha::Index kStride = 7;
  std::vector<Acc> out(4 * kStride, Acc{-1});
  nha::cpu::simd::transpose_four(rows, out.data(), kStride);
  for (nha::Index i = 0; i < 4; ++i)
    for (nha::Index r = 0; r < kStride; ++r)
      EXPECT_EQ(out[static_cast<std::size_t>(i * kStride + r)],
                r < 4 ? static_cast<Acc>(4 * r + i) : Acc{-1})
          << "number " << i << " of row " << r;
}

}  // namespace
