// SPDX-License-Identifier: MIT
#include <nha/cpu/stored_tile.hpp>

#include <nha/core/numeric.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;
namespace simd = nha::cpu::simd;

template <class Arch>
class StoredTile : public testing::Test {};
TYPED_TEST_SUITE(StoredTile, nha_test::Architectures);

/// Two rows go through a tile: each number takes part in a sum with its column's number, and is
/// stored as the scalar rounding stores it.
template <class Arch, class T, int Vectors>
void check(Index column) {
  using Tile = nha::cpu::StoredTile<Arch, T, Vectors>;
  using Acc = typename Tile::Acc;
  constexpr Index kColumns = Vectors * Tile::kLanes;
  constexpr auto kCount = static_cast<std::size_t>(kColumns);
  constexpr std::uint32_t kStart = 0xfff12345u;
  std::vector<T> rows(2 * kCount), stored(2 * kCount);
  std::vector<Acc> beside(kCount), sums(kCount);
  for (std::size_t i = 0; i < 2 * kCount; ++i) rows[i] = T(static_cast<Acc>(0.37 * double(i) - 3));
  for (std::size_t i = 0; i < kCount; ++i) beside[i] = static_cast<Acc>(1 + 0.013 * double(i));

  nha::cpu::TileWriter<Arch, T, Vectors> writer(kStart, column);
  typename Tile::V columns[Vectors], sum[Vectors];
  Tile::load_columns(beside.data(), columns);
  for (auto& v : sum) v = typename Tile::V(Acc{0});
  for (std::size_t r = 0; r < 2; ++r) {
    typename Tile::V row[Vectors];
    Tile::load(rows.data() + r * kCount, row);
    for (int v = 0; v < Vectors; ++v) row[v] = row[v] * columns[v];
    writer.store(stored.data() + r * kCount, row);
    for (int v = 0; v < Vectors; ++v) sum[v] = sum[v] + row[v];
  }
  Tile::store_columns(sums.data(), sum);

  for (std::size_t i = 0; i < kCount; ++i) {
    Acc expected_sum{0};
    for (std::size_t r = 0; r < 2; ++r) {
      const T expected = nha::stored_sum<T>(
          nha::widen(rows[r * kCount + i]) * beside[i],
          kStart + nha::dither(0, static_cast<Index>(r), column + static_cast<Index>(i)));
      ASSERT_EQ(stored[r * kCount + i], expected) << "row " << r << ", column " << i;
      expected_sum += nha::widen(expected);
    }
    ASSERT_EQ(sums[i], expected_sum) << "column " << i;
  }
}

TYPED_TEST(StoredTile, NumbersMeetTheirColumnsAndAreRoundedByTheirPlace) {
  for (const Index column : {0, 16, 34}) {
    check<TypeParam, float, 2>(column);
    check<TypeParam, double, 2>(column);
    check<TypeParam, nha::bfloat16, 1>(column);
    check<TypeParam, nha::bfloat16, 2>(column);
    check<TypeParam, nha::bfloat16, 4>(column);
    check<TypeParam, nha::float16, 1>(column);
    check<TypeParam, nha::float16, 2>(column);
    check<TypeParam, nha::float16, 4>(column);
  }
}

}  // namespace
