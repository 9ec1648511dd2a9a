// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/backward_band.hpp>

#include <gtest/gtest.h>

#include <map>

#include "support/backward_call.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::detail::BackwardBand;

/// Goes back through a call region by region, adding to every column of each, and expects the keys
/// and values of the columns, and as gradients what all regions so far have added.
void check(Index window, Index past, Index tokens, Index region) {
  constexpr Index kKeyDim = 5, kValueDim = 18;
  SCOPED_TRACE("window " + std::to_string(window) + ", past " + std::to_string(past) + ", region " +
               std::to_string(region));
  BackwardCall<float> b({.tokens = past + tokens, .key_dim = kKeyDim, .value_dim = kValueDim},
                        {.window = window}, past, 1);
  BackwardBand<float> band(b.plan, b.scratch.window.band, b.call.end);
  std::map<std::int64_t, float> sums;
  float added = 1;
  for (std::int64_t end = b.call.end; end > b.call.begin; end -= region) {
    const std::int64_t first = std::max(b.call.begin, end - region);
    band.load(b.call, first, end);
    const std::int64_t oldest = std::max<std::int64_t>(0, first - window);
    ASSERT_EQ(band.column(oldest), 0);
    ASSERT_EQ(band.size(), end - oldest);
    ASSERT_LE(band.size(), b.plan.band);
    for (std::int64_t p = oldest; p < end; ++p) {
      const Index column = band.column(p);
      // All of a row, padding included, and each row its own number.
      for (Index d = 0; d < nha::padded(kValueDim); ++d) {
        float& sum = band.d_values(column)[d];
        ASSERT_EQ(sum, sums[p] * static_cast<float>(d + 1)) << "position " << p;
        sum += added * static_cast<float>(d + 1);
      }
      if (window > 0) {
        for (Index d = 0; d < nha::padded(kKeyDim); ++d) {
          float& sum = band.d_keys(column)[d];
          ASSERT_EQ(sum, -sums[p] * static_cast<float>(d + 1)) << "position " << p;
          sum -= added * static_cast<float>(d + 1);
        }
        const auto keys = band.key_panels(column / 16 * 16);
        const auto values = band.value_panels(column / 16 * 16, kValueDim);
        for (Index d = 0; d < kKeyDim; ++d) {
          ASSERT_EQ(keys.data[d * keys.row_stride + column % 16], b.call.window_key(p)[d]);
          ASSERT_EQ(band.keys(column).data[d], b.call.window_key(p)[d]);
        }
        for (Index d = 0; d < kValueDim; ++d)
          ASSERT_EQ(values.data[d * values.row_stride + column % 16], b.call.value(p)[d]);
      }
      sums[p] += added;
      added += 1;
    }
  }
}

TEST(BackwardBand, CarriesGradientsToTheRegionsBefore) {
  for (const Index past : {0, 4, 60})
    for (const Index region : {1, 5, 16, 33}) {
      check(20, past, 70, region);  // regions shorter than the window, and longer
      check(40, past, 70, region);  // a window of several regions
      check(500, past, 70, region);
    }
}

TEST(BackwardBand, WithoutAWindowEachRegionIsAlone) {
  for (const Index past : {0, 60})
    for (const Index region : {5, 16}) check(0, past, 70, region);
}

}  // namespace
