// SPDX-License-Identifier: MIT
// Buffer: memory of our own, 64-byte aligned and zeroed, from a memory resource the user may
// choose.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/limits.hpp>

#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// Owns `size()` bytes, aligned to kAlignment and zero at first. Copies deeply; one that was moved
/// from is empty.
///
/// Memory resources are treated as the containers of std::pmr do. A copy uses the default resource
/// unless given another. A move construction takes the resource along. An assignment never changes
/// the resource of its target, so moving to a buffer of another resource copies.
class Buffer {
 public:
  Buffer() noexcept = default;
  /// @throws ArgumentError if no machine has so many bytes; what the resource throws where it has
  ///   not.
  // Not inlined: GCC would see through to sizes that the checks refuse and warn of the memset.
  NHA_NOINLINE explicit Buffer(std::size_t bytes,
                               std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : memory_(memory), size_(bytes) {
    if (bytes == 0) return;
    check_bytes("a buffer", static_cast<double>(bytes));
    data_ = static_cast<std::byte*>(memory->allocate(bytes, kAlignment));
    std::memset(data_, 0, bytes);
  }
  Buffer(const Buffer& other) : Buffer(other, std::pmr::get_default_resource()) {}
  Buffer(const Buffer& other, std::pmr::memory_resource* memory) : Buffer(other.size_, memory) {
    if (size_ != 0) std::memcpy(data_, other.data_, size_);
  }
  Buffer(Buffer&& other) noexcept
      : memory_(other.memory_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  /// Between buffers of one size copies without allocating.
  Buffer& operator=(const Buffer& other) {
    if (this == &other) return *this;
    if (size_ != other.size_)
      take(Buffer(other, memory_));
    else if (size_ != 0)
      std::memcpy(data_, other.data_, size_);
    return *this;
  }
  Buffer& operator=(Buffer&& other) {
    if (this == &other) return *this;
    if (memory_->is_equal(*other.memory_)) {
      take(std::move(other));
    } else {
      *this = std::as_const(other);
      Buffer released(std::move(other));
    }
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) memory_->deallocate(data_, size_, kAlignment);
  }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::pmr::memory_resource* memory() const noexcept { return memory_; }

 private:
  /// Takes the memory of a buffer of an equal resource and gives back what this one had.
  void take(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
  }

  std::pmr::memory_resource* memory_ = std::pmr::get_default_resource();
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

NHA_ISA_NAMESPACE_END
