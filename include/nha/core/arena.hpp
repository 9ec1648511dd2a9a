// SPDX-License-Identifier: MIT
// Arena: one block of memory handed out in aligned sections, whoever owns the block.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// Alignment of every allocation and section: a cache line, and the widest vector in use.
inline constexpr std::size_t kAlignment = 64;

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// Hands out aligned sections of one block, in order. With a null block it only adds up, so the
/// size a layout needs and the layout itself are the same code.
///
/// A size beyond std::size_t stays at the largest one, which no Buffer takes. So what does not fit
/// is refused and never wraps around to something small.
class Arena {
 public:
  explicit Arena(std::byte* block) noexcept : block_(block) {}

  /// `count` uninitialised numbers, 0 or more; null while only adding up.
  template <class T>
  T* take(Index count) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    const std::size_t start = used_;
    if (count < 0 || static_cast<std::size_t>(count) > (kLargest - start) / sizeof(T))
        [[unlikely]] {
      used_ = kLargest;
      return nullptr;
    }
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    used_ = start + (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + start);
  }

  /// Bytes handed out so far.
  std::size_t used() const noexcept { return used_; }

 private:
  /// Of whole sections.
  static constexpr std::size_t kLargest =
      std::numeric_limits<std::size_t>::max() / kAlignment * kAlignment;

  std::byte* block_;
  std::size_t used_ = 0;
};

NHA_ISA_NAMESPACE_END
