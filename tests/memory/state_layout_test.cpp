// SPDX-License-Identifier: MIT
#include <nha/memory/state_layout.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Index;
using Layout = nha::detail::StateLayout<float>;

TEST(StateLayout, PartsOfHeadsLieSideBySideInsideTheBlock) {
  const nha::AttentionOptions options{.head_windows = {3, 0, 20}};
  for (const Index max_rollback : {0, 5}) {
    const Layout layout({.batch = 2, .kv_heads = 3, .key_dim = 5, .value_dim = 7, .slots = 9},
                        options, max_rollback);
    std::vector<std::byte> block(layout.sequence_bytes());
    std::vector<std::pair<const void*, const void*>> parts;
    const auto add = [&](const float* from, Index count) {
      if (count > 0) parts.emplace_back(from, from + count);
    };
    for (Index h = 0; h < 3; ++h) {
      const auto sections = layout.head(block.data(), h);
      const auto slots = [&](const auto& view) {
        add(view.key, view.key_dim * view.key_stride());
        add(view.value, view.count * view.value_stride());
        add(view.mass, view.key_stride());
      };
      slots(sections.memories.slots);
      if (max_rollback > 0)
        for (const auto& snapshot : sections.snapshots) slots(snapshot);
      const auto& window = sections.memories.window;
      add(window.key, window.capacity * window.key_stride());
      add(window.value, window.capacity * window.value_stride());
      const auto& pending = sections.memories.pending;
      add(pending.key, pending.capacity * pending.key_stride());
      add(pending.retention, pending.capacity * pending.gate_stride());
      add(pending.write, pending.capacity * pending.gate_stride());
      EXPECT_GE(window.capacity, options.head_windows[static_cast<std::size_t>(h)] + max_rollback);
    }
    std::sort(parts.begin(), parts.end());
    EXPECT_GE(parts.front().first, static_cast<const void*>(block.data()));
    EXPECT_LE(parts.back().second, static_cast<const void*>(block.data() + block.size()));
    for (std::size_t i = 1; i < parts.size(); ++i) EXPECT_LE(parts[i - 1].second, parts[i].first);
    EXPECT_EQ(layout.bytes(), 2 * layout.sequence_bytes());
  }
}

TEST(StateLayout, RefusesWhatNoMemoryHolds) {
  NHA_EXPECT_ERROR(Layout({}, {.window = Index{1} << 50}, 0), nha::ArgumentError, "a state");
  NHA_EXPECT_ERROR(Layout({}, {}, -1), nha::ArgumentError, "max_rollback is -1");
  NHA_EXPECT_ERROR(Layout({.slots = -1}, {}, 0), nha::ArgumentError, "slots is -1");
  NHA_EXPECT_ERROR(Layout({}, {.window = -1}, 0), nha::ArgumentError, "window is -1");
}

}  // namespace
