// SPDX-License-Identifier: MIT
// WatchingMemory: heap memory that notes whether a condition held at each allocation, for tests
// that nothing allocates once something else has begun.
#pragma once

#include <cstddef>
#include <functional>
#include <memory_resource>
#include <utility>

namespace nha_test {

class WatchingMemory : public std::pmr::memory_resource {
 public:
  explicit WatchingMemory(std::function<bool()> condition) : condition_(std::move(condition)) {}

  int allocations() const { return allocations_; }
  /// Whether the condition held at every allocation.
  bool always() const { return always_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    ++allocations_;
    always_ = always_ && condition_();
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  std::function<bool()> condition_;
  int allocations_ = 0;
  bool always_ = true;
};

}  // namespace nha_test
