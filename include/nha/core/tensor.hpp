// SPDX-License-Identifier: MIT
// Tensor: the owner that belongs to TensorView. Row-major, contiguous, 64-byte aligned, zero at
// first.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <memory_resource>
#include <span>

NHA_ISA_NAMESPACE_BEGIN

/// Owns a row-major tensor with Rank axes. It converts to a view; views of it are valid until it is
/// destroyed or assigned.
template <class T, int Rank>
class Tensor {
  template <class U, int... Axes>
  static TensorView<U, (static_cast<void>(Axes), Dynamic)...> view_type(
      std::integer_sequence<int, Axes...>);

 public:
  using View = decltype(view_type<T>(std::make_integer_sequence<int, Rank>()));
  using ConstView = decltype(view_type<const T>(std::make_integer_sequence<int, Rank>()));
  using Sizes = typename View::Sizes;

  Tensor() = default;
  /// @throws ArgumentError if an extent is negative or the size does not fit in memory.
  explicit Tensor(const Sizes& extents,
                  std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : extents_(extents), buffer_(bytes_of(extents), memory) {}

  T* data() noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  const T* data() const noexcept { return reinterpret_cast<const T*>(buffer_.data()); }
  Index extent(int axis) const noexcept { return extents_[static_cast<std::size_t>(axis)]; }
  const Sizes& extents() const noexcept { return extents_; }
  Index size() const noexcept { return static_cast<Index>(buffer_.size() / sizeof(T)); }
  std::span<T> values() noexcept { return {data(), static_cast<std::size_t>(size())}; }
  std::span<const T> values() const noexcept { return {data(), static_cast<std::size_t>(size())}; }

  View view() noexcept { return View(data(), extents_); }
  ConstView view() const noexcept { return ConstView(data(), extents_); }
  operator View() noexcept { return view(); }
  operator ConstView() const noexcept { return view(); }

  template <class... Positions>
  T& operator()(Positions... positions) noexcept {
    return view()(positions...);
  }
  template <class... Positions>
  const T& operator()(Positions... positions) const noexcept {
    return view()(positions...);
  }

 private:
  static std::size_t bytes_of(const Sizes& extents) {
    std::size_t bytes = sizeof(T);
    for (Index extent : extents) {
      check_argument(extent >= 0, "extent of a tensor is ", extent, "; expected 0 or more");
      const auto count = static_cast<std::size_t>(extent);
      constexpr auto most = static_cast<std::size_t>(std::numeric_limits<Index>::max());
      check_argument(count == 0 || bytes <= most / count, "a tensor with an extent of ", extent,
                     " does not fit in memory");
      bytes *= count;
    }
    return bytes;
  }

  Sizes extents_{};
  Buffer buffer_;
};

NHA_ISA_NAMESPACE_END
