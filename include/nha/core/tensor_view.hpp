// SPDX-License-Identifier: MIT
// TensorView: a non-owning strided view of one to four axes, each extent static or dynamic.
//
// It is what every public function takes: built from a pointer, a std::span, a slice of a packed
// buffer, or (nha/eigen.hpp) an Eigen::Map or Ref, never copying. The owner is nha::Tensor.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

NHA_NAMESPACE_BEGIN

/// A view of a tensor: element (i, j, ...) lies at data() + i * stride(0) + j * stride(1) + ...
///
/// Extents... are the sizes of the axes, Dynamic where known only at run time; two to four axes are
/// usual, [tokens, heads, head_dim] for instance. Strides are in elements, may be any number (0
/// repeats an element, negative walks backwards), and no alignment is needed. Copying a view copies
/// the pointer; a view of T converts to a view of const T, and static extents to Dynamic ones.
template <class T, Index... Extents>
class TensorView {
 public:
  static constexpr int rank = static_cast<int>(sizeof...(Extents));
  static_assert(rank >= 1 && rank <= 4, "nha::TensorView has one to four axes");
  static_assert(((Extents >= 0 || Extents == Dynamic) && ...),
                "an extent of nha::TensorView is a size or nha::Dynamic");

  using value_type = std::remove_cv_t<T>;
  using Sizes = std::array<Index, static_cast<std::size_t>(rank)>;

  /// No elements; every dynamic extent is 0.
  NHA_INLINE constexpr TensorView() noexcept {}  // defaulted, it would be a function of its own

  /// Row-major and contiguous: the last axis has stride 1.
  /// @throws ArgumentError if an extent is negative or differs from its static one.
  NHA_INLINE constexpr TensorView(T* data, const Sizes& extents)
      : TensorView(data, extents, row_major(extents)) {}

  /// Any strides, in elements.
  /// @throws ArgumentError if an extent is negative or differs from its static one.
  NHA_INLINE constexpr TensorView(T* data, const Sizes& extents, const Sizes& strides)
      : data_(data), extents_(extents), strides_(strides) {
    for (std::size_t axis = 0; axis < kExtents.size(); ++axis) {
      check_argument(extents[axis] >= 0, "extent of axis ", axis, " is ", extents[axis],
                     "; expected 0 or more");
      check_argument(kExtents[axis] == Dynamic || kExtents[axis] == extents[axis],
                     "extent of axis ", axis, " is ", extents[axis], "; the view's type says ",
                     kExtents[axis]);
    }
  }

  /// Row-major over the first elements of a span.
  /// @throws ArgumentError if the span is shorter than the extents need.
  NHA_INLINE constexpr TensorView(std::span<T> data, const Sizes& extents)
      : TensorView(data.data(), extents) {
    check_argument(static_cast<std::size_t>(size()) <= data.size(), "span holds ", data.size(),
                   " elements; the extents need ", size());
  }

  /// From a view of the same rank: always where nothing need be checked.
  /// @throws ArgumentError if a dynamic extent differs from the static one it becomes.
  template <class U, Index... Others>
  requires(sizeof...(Others) == sizeof...(Extents) && std::is_convertible_v<U (*)[], T (*)[]>)
      NHA_INLINE constexpr explicit(((Extents != Dynamic && Others == Dynamic) || ...))
          TensorView(const TensorView<U, Others...>& other)
      : TensorView(other.data(), other.extents(), other.strides()) {
    static_assert(((Extents == Dynamic || Others == Dynamic || Extents == Others) && ...),
                  "views whose static extents differ cannot be converted");
  }

  NHA_INLINE constexpr T* data() const noexcept { return data_; }
  NHA_INLINE constexpr const Sizes& strides() const noexcept { return strides_; }
  NHA_INLINE constexpr Index stride(int axis) const noexcept { return strides_[at(axis)]; }
  NHA_INLINE constexpr Index extent(int axis) const noexcept {
    return kExtents[at(axis)] != Dynamic ? kExtents[at(axis)] : extents_[at(axis)];
  }
  NHA_INLINE constexpr const Sizes& extents() const noexcept { return extents_; }
  /// The extent an axis has in the type, or Dynamic.
  NHA_INLINE static constexpr Index static_extent(int axis) noexcept { return kExtents[at(axis)]; }

  /// Number of elements.
  NHA_INLINE constexpr Index size() const noexcept {
    Index product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= extent(axis);
    return product;
  }
  NHA_INLINE constexpr bool empty() const noexcept { return size() == 0; }

  /// Element at the given position; positions are not checked.
  template <std::convertible_to<Index>... Positions>
  NHA_INLINE constexpr T& operator()(Positions... positions) const noexcept {
    static_assert(sizeof...(Positions) == sizeof...(Extents), "one position for each axis");
    Index offset = 0;
    int axis = 0;
    ((offset += static_cast<Index>(positions) * strides_[at(axis++)]), ...);
    return data_[offset];
  }

  /// The view without its first axis, at `position` of it; an element where there is one axis.
  NHA_INLINE constexpr decltype(auto) operator[](Index position) const noexcept {
    if constexpr (rank == 1)
      return (data_[position * strides_[0]]);
    else
      return drop_first<Extents...>(position);
  }

  /// `count` positions of one axis, starting at `first`; that axis's extent becomes dynamic.
  /// @throws ArgumentError if they are not all inside the view.
  template <int Axis>
  NHA_INLINE constexpr auto slice(Index first, Index count) const {
    static_assert(Axis >= 0 && Axis < rank, "the view has no such axis");
    check_argument(first >= 0 && count >= 0 && first <= extent(Axis) - count, "slice of ", count,
                   " from ", first, " does not lie inside axis ", Axis, " of extent ",
                   extent(Axis));
    return slice_axis<Axis>(first, count, std::make_integer_sequence<int, rank>());
  }

  /// The same elements with one more axis, of extent 1, before axis `Axis`: a batch of single
  /// tokens [batch, heads, head_dim] becomes [batch, 1, heads, head_dim] with insert_axis<1>().
  template <int Axis>
  NHA_INLINE constexpr auto insert_axis() const noexcept {
    static_assert(Axis >= 0 && Axis <= rank, "an axis cannot be inserted there");
    static_assert(rank < 4, "nha::TensorView has at most four axes");
    return insert_axis_at<Axis>(std::make_integer_sequence<int, rank + 1>());
  }

  /// The same elements with axis `Axis` as two: `parts` of equal length, then the positions in one
  /// part. [tokens, heads * head_dim] becomes [tokens, heads, head_dim] with split<1>(heads).
  /// @throws ArgumentError if the axis does not divide into that many parts.
  template <int Axis>
  NHA_INLINE constexpr auto split(Index parts) const {
    static_assert(Axis >= 0 && Axis < rank, "the view has no such axis");
    static_assert(rank < 4, "nha::TensorView has at most four axes");
    check_argument(parts >= 1 && extent(Axis) % parts == 0, "axis ", Axis, " of extent ",
                   extent(Axis), " cannot be split into ", parts, " equal parts");
    return split_axis<Axis>(parts, std::make_integer_sequence<int, rank + 1>());
  }

  /// Whether elements along the last axis are neighbours in memory.
  NHA_INLINE constexpr bool has_contiguous_rows() const noexcept {
    return strides_[at(rank - 1)] == 1 || extent(rank - 1) <= 1;
  }

 private:
  static constexpr Sizes kExtents{Extents...};

  NHA_INLINE static constexpr std::size_t at(int axis) noexcept {
    return static_cast<std::size_t>(axis);
  }
  NHA_INLINE static constexpr Sizes row_major(const Sizes& extents) noexcept {
    Sizes strides{};
    Index step = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      strides[at(axis)] = step;
      step *= extents[at(axis)];
    }
    return strides;
  }
  NHA_INLINE static constexpr Sizes default_extents() noexcept {
    Sizes extents = kExtents;
    for (Index& extent : extents)
      if (extent == Dynamic) extent = 0;
    return extents;
  }

  template <Index First, Index... Rest>
  NHA_INLINE constexpr TensorView<T, Rest...> drop_first(Index position) const noexcept {
    TensorView<T, Rest...> result;
    result.data_ = data_ + position * strides_[0];
    for (std::size_t axis = 1; axis < extents_.size(); ++axis) {
      result.extents_[axis - 1] = extents_[axis];
      result.strides_[axis - 1] = strides_[axis];
    }
    return result;
  }

  template <int Axis, int... Axes>
  NHA_INLINE constexpr auto slice_axis(Index first, Index count,
                                       std::integer_sequence<int, Axes...>) const noexcept {
    TensorView<T, (Axes == Axis ? Dynamic : Extents)...> result;
    result.data_ = data_ + first * strides_[at(Axis)];
    result.extents_ = extents_;
    result.extents_[at(Axis)] = count;
    result.strides_ = strides_;
    return result;
  }
  template <int Axis, int... Axes>
  NHA_INLINE constexpr auto insert_axis_at(std::integer_sequence<int, Axes...>) const noexcept {
    TensorView<T, (Axes == Axis ? Index{1} : kExtents[at(Axes < Axis ? Axes : Axes - 1)])...>
        result;
    result.data_ = data_;
    for (int axis = 0; axis <= rank; ++axis) {
      const int source = axis < Axis ? axis : axis - 1;
      result.extents_[at(axis)] = axis == Axis ? 1 : extents_[at(source)];
      result.strides_[at(axis)] = axis == Axis ? 0 : strides_[at(source)];
    }
    return result;
  }
  template <int Axis, int... Axes>
  NHA_INLINE constexpr auto split_axis(Index parts,
                                       std::integer_sequence<int, Axes...>) const noexcept {
    TensorView<T,
               (Axes == Axis || Axes == Axis + 1 ? Dynamic
                                                 : kExtents[at(Axes < Axis ? Axes : Axes - 1)])...>
        result;
    for (int axis = 0; axis <= rank; ++axis) {
      const int source = axis <= Axis ? axis : axis - 1;
      result.extents_[at(axis)] = extents_[at(source)];
      result.strides_[at(axis)] = strides_[at(source)];
    }
    const Index length = extent(Axis) / parts;
    result.data_ = data_;
    result.extents_[at(Axis)] = parts;
    result.extents_[at(Axis + 1)] = length;
    result.strides_[at(Axis)] = strides_[at(Axis)] * length;
    return result;
  }

  template <class, Index...>
  friend class TensorView;

  T* data_ = nullptr;
  Sizes extents_ = default_extents();
  Sizes strides_{};
};

NHA_NAMESPACE_END
