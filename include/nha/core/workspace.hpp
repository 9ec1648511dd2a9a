// SPDX-License-Identifier: MIT
// Workspace: the scratch memory of the kernels, passed in so that its cost and lifetime are the
// caller's. It holds nothing between calls.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>

NHA_ISA_NAMESPACE_BEGIN

/// Scratch memory for one call at a time; grows when a call needs more, and never shrinks.
///
/// The size a call needs is known before it (prefill_workspace_bytes, step_workspace_bytes):
/// reserve that much, or simply make the first call, and later calls allocate nothing. One
/// workspace may serve any number of layers and states in turn, but only one call at a time.
class Workspace {
 public:
  explicit Workspace(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(0, memory) {}

  /// Makes sure of at least `bytes`; what was in it is lost if it has to grow. It then grows by at
  /// least half, so that a need that rises step by step is met in few steps.
  /// @throws ArgumentError if no machine has so many bytes.
  void reserve(std::size_t bytes) {
    if (bytes > buffer_.size())
      buffer_ = Buffer(std::max(bytes, buffer_.size() + buffer_.size() / 2), buffer_.memory());
  }

  std::size_t bytes() const noexcept { return buffer_.size(); }
  std::byte* data() noexcept { return buffer_.data(); }

 private:
  Buffer buffer_;
};

NHA_ISA_NAMESPACE_END
