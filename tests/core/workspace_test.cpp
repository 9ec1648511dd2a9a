// SPDX-License-Identifier: MIT
#include <nha/core/workspace.hpp>

#include <gtest/gtest.h>

#include <cstdint>

namespace {

TEST(Workspace, GrowsWhenAskedAndNeverShrinks) {
  nha::Workspace workspace;
  EXPECT_EQ(workspace.bytes(), 0u);
  workspace.reserve(100);
  EXPECT_EQ(workspace.bytes(), 100u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(workspace.data()) % nha::kAlignment, 0u);
  const std::byte* memory = workspace.data();
  workspace.reserve(50);
  EXPECT_EQ(workspace.bytes(), 100u);
  EXPECT_EQ(workspace.data(), memory);
  workspace.reserve(200);
  EXPECT_EQ(workspace.bytes(), 200u);
}

TEST(Workspace, UsesItsMemoryResource) {
  alignas(64) std::byte block[512];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  nha::Workspace workspace(&resource);
  workspace.reserve(256);
  EXPECT_EQ(workspace.data(), block);
}

}  // namespace
