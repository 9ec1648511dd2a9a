// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/band.hpp>

#include <gtest/gtest.h>

#include <vector>

namespace {

using nha::Index;

TEST(PackedBand, FindsEveryPositionItNeedsWhileItMovesDown) {
  constexpr Index kKeyDim = 3, kValueDim = 2, kWindow = 20;
  const auto plan = nha::detail::chunk_plan({.key_dim = kKeyDim, .value_dim = kValueDim},
                                            {kWindow, kWindow}, 1, 100000, 0, 0);
  std::vector<float> keys(static_cast<std::size_t>(plan.band * kKeyDim));
  std::vector<float> values(static_cast<std::size_t>(plan.band * plan.value_dim));
  nha::detail::PackedBand<float> band(plan, keys.data(), values.data(), 0);
  float key[kKeyDim], value[kValueDim];
  Index position = 0;
  for (const Index count : {16, 16, 1, 7, 16, 13})
    for (int round = 0; round < 60; ++round) {
      band.make_room(count);
      const auto numbers = [&](float* row, Index dim, Index i) {
        for (Index d = 0; d < dim; ++d) row[d] = static_cast<float>(10 * (position + i) + d);
        return row;
      };
      // One at a time here, because the rows are made where they are asked for.
      for (Index i = 0; i < count; ++i)
        band.append<float>(
            1, [&](Index) { return numbers(key, kKeyDim, i); },
            [&](Index) { return numbers(value, kValueDim, i); }, kValueDim);
      position += count;
      for (Index p = std::max<Index>(0, position - count - kWindow); p < position; ++p) {
        const Index column = band.column(p);
        const auto at = band.keys(column / 16 * 16);
        const auto row = band.values(column);
        ASSERT_LT(column, band.size());
        for (Index d = 0; d < kKeyDim; ++d)
          ASSERT_EQ(at.data[d * at.row_stride + column % 16], static_cast<float>(10 * p + d));
        for (Index d = 0; d < kValueDim; ++d)
          ASSERT_EQ(row.data[d], static_cast<float>(10 * p + d));
      }
    }
}

}  // namespace
