// SPDX-License-Identifier: MIT
// Tensor: the owner that belongs to TensorView. Row-major, contiguous, 64-byte aligned, zero at
// first.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <memory_resource>
#include <span>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// Owns a row-major tensor with Rank axes. It converts to a view; views of it are valid until it is
/// destroyed or assigned. A tensor that was moved from has no elements and every extent 0. Which
/// memory resource copies and assignments use is as with Buffer.
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
      : buffer_(bytes_of(extents), memory), extents_(extents) {}
  Tensor(const Tensor& other) = default;
  Tensor(const Tensor& other, std::pmr::memory_resource* memory)
      : buffer_(other.buffer_, memory), extents_(other.extents_) {}
  Tensor(Tensor&& other) noexcept
      : buffer_(std::move(other.buffer_)), extents_(std::exchange(other.extents_, Sizes{})) {}
  Tensor& operator=(const Tensor& other) = default;
  Tensor& operator=(Tensor&& other) {
    if (this == &other) return *this;
    buffer_ = std::move(other.buffer_);
    extents_ = std::exchange(other.extents_, Sizes{});
    return *this;
  }
  ~Tensor() = default;

  T* data() noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  const T* data() const noexcept { return reinterpret_cast<const T*>(buffer_.data()); }
  Index extent(int axis) const noexcept { return extents_[static_cast<std::size_t>(axis)]; }
  const Sizes& extents() const noexcept { return extents_; }
  Index size() const noexcept { return static_cast<Index>(buffer_.size() / sizeof(T)); }
  std::span<T> values() noexcept { return {data(), static_cast<std::size_t>(size())}; }
  std::span<const T> values() const noexcept { return {data(), static_cast<std::size_t>(size())}; }

  View view() noexcept { return view_of<View>(data()); }
  ConstView view() const noexcept { return view_of<ConstView>(data()); }
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
    Index bytes = sizeof(T);
    for (Index extent : extents) {
      check_argument(extent >= 0, "extent of a tensor is ", extent, "; expected 0 or more");
      check_argument(detail::multiply_extent(bytes, extent), "a tensor with an extent of ", extent,
                     " does not fit in memory");
    }
    for (Index extent : extents)
      if (extent == 0) return 0;
    return static_cast<std::size_t>(bytes);
  }

  /// Of extents that the constructor has checked.
  template <class V, class Element>
  V view_of(Element* data) const noexcept {
    Index extents[Rank], strides[Rank];
    Index step = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      extents[axis] = extents_[static_cast<std::size_t>(axis)];
      strides[axis] = step;
      step *= extents[axis];
    }
    return V::unchecked(data, extents, strides);
  }

  Buffer buffer_;  // first: where an assignment cannot allocate, the extents stay as they were
  Sizes extents_{};
};

NHA_ISA_NAMESPACE_END
