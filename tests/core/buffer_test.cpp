// SPDX-License-Identifier: MIT
#include <nha/core/buffer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <utility>

#include "support/expect_error.hpp"

namespace {

using nha::Buffer;

/// Counts what passes through it.
class CountingResource : public std::pmr::memory_resource {
 public:
  int allocations = 0;
  std::size_t bytes_in_use = 0;
  std::size_t least_alignment = SIZE_MAX;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    ++allocations;
    bytes_in_use += bytes;
    least_alignment = std::min(least_alignment, alignment);
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    bytes_in_use -= bytes;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

TEST(Buffer, IsAlignedAndZero) {
  for (std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{4097}}) {
    const Buffer buffer(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + bytes,
                            [](std::byte value) { return value == std::byte{0}; }));
  }
}

TEST(Buffer, EmptyAllocatesNothing) {
  CountingResource resource;
  const Buffer buffer(0, &resource);
  const Buffer copy(buffer);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(resource.allocations, 0);
}

TEST(Buffer, EveryByteComesFromTheResourceAndGoesBack) {
  CountingResource resource;
  {
    const Buffer buffer(100, &resource);
    EXPECT_EQ(resource.allocations, 1);
    EXPECT_EQ(resource.bytes_in_use, 100u);
    EXPECT_EQ(resource.least_alignment, nha::kAlignment);
    const Buffer copy(buffer, &resource);
    EXPECT_EQ(resource.bytes_in_use, 200u);
    EXPECT_EQ(copy.memory(), &resource);
  }
  EXPECT_EQ(resource.bytes_in_use, 0u);
}

TEST(Buffer, CopyIsDeep) {
  Buffer buffer(3);
  buffer.data()[1] = std::byte{7};
  const Buffer copy(buffer);
  buffer.data()[1] = std::byte{8};
  EXPECT_EQ(copy.data()[1], std::byte{7});
}

TEST(Buffer, AssignmentBetweenEqualSizesDoesNotAllocate) {
  CountingResource resource;
  Buffer a(32, &resource), b(32, &resource);
  b.data()[31] = std::byte{5};
  const std::byte* before = a.data();
  a = b;
  EXPECT_EQ(resource.allocations, 2);
  EXPECT_EQ(a.data(), before);
  EXPECT_EQ(a.data()[31], std::byte{5});
}

TEST(Buffer, AssignmentTakesAnotherSize) {
  Buffer a(8), b(100);
  b.data()[99] = std::byte{9};
  a = b;
  EXPECT_EQ(a.size(), 100u);
  EXPECT_EQ(a.data()[99], std::byte{9});
  const Buffer& self = a;
  a = self;
  EXPECT_EQ(a.data()[99], std::byte{9});
}

TEST(Buffer, MoveTakesTheMemory) {
  Buffer a(16);
  a.data()[0] = std::byte{1};
  const std::byte* memory = a.data();
  Buffer b(std::move(a));
  EXPECT_EQ(b.data(), memory);
  EXPECT_EQ(a.size(), 0u);  // NOLINT: a moved-from buffer is empty
  EXPECT_EQ(a.data(), nullptr);
  Buffer c;
  c = std::move(b);
  EXPECT_EQ(c.data(), memory);
  EXPECT_EQ(c.size(), 16u);
}

TEST(Buffer, CopiesUseTheDefaultResource) {
  CountingResource resource;
  const Buffer buffer(100, &resource);
  const Buffer copy(buffer);
  EXPECT_EQ(copy.memory(), std::pmr::get_default_resource());
  EXPECT_EQ(resource.bytes_in_use, 100u);
}

TEST(Buffer, AssignmentKeepsTheResourceOfTheTarget) {
  CountingResource ours, theirs;
  {
    for (std::size_t bytes : {8u, 100u, 0u}) {
      SCOPED_TRACE(bytes);
      Buffer target(8, &ours), source(bytes, &theirs);
      if (bytes > 0) source.data()[bytes - 1] = std::byte{3};
      target = source;
      EXPECT_EQ(target.memory(), &ours);
      EXPECT_EQ(target.size(), bytes);
      EXPECT_EQ(ours.bytes_in_use, bytes);

      Buffer moved_to(8, &ours);
      moved_to = std::move(source);
      EXPECT_EQ(moved_to.memory(), &ours);
      EXPECT_EQ(moved_to.size(), bytes);
      EXPECT_EQ(ours.bytes_in_use, 2 * bytes);
      if (bytes > 0) {
        EXPECT_EQ(moved_to.data()[bytes - 1], std::byte{3});
      }
      EXPECT_EQ(source.size(), 0u);  // NOLINT: a moved-from buffer is empty
      EXPECT_EQ(theirs.bytes_in_use, 0u);
    }
  }
  EXPECT_EQ(ours.bytes_in_use, 0u);
}

TEST(Buffer, MoveAssignmentEmptiesTheOther) {
  Buffer a(16), b(32);
  const std::byte* memory = b.data();
  a = std::move(b);
  EXPECT_EQ(a.data(), memory);
  EXPECT_EQ(b.data(), nullptr);  // NOLINT: a moved-from buffer is empty
  EXPECT_EQ(b.size(), 0u);
  Buffer& self = a;
  a = std::move(self);
  EXPECT_EQ(a.data(), memory);
  EXPECT_EQ(a.size(), 32u);
}

TEST(Buffer, RefusesSizesThatNoMachineHas) {
  CountingResource resource;
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - 100, SIZE_MAX / 2 + 1, SIZE_MAX / 1000})
    NHA_EXPECT_ERROR(Buffer(bytes, &resource), nha::ArgumentError, "does not fit in memory");
  EXPECT_EQ(resource.allocations, 0);
}

}  // namespace
