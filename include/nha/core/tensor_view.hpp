// SPDX-License-Identifier: MIT
// TensorView: a non-owning strided view of one to four axes, each extent static or dynamic.
//
// Every public function takes views. They are built from a pointer, a std::span, a slice of a
// packed buffer, or with nha/eigen.hpp an Eigen::Map or Ref, and never copy. The owner is
// nha::Tensor.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/host_device.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Whether the number of elements of these extents is an Index. Extents that are not yet known, and
/// those that are 0, count as 1.
constexpr bool countable(std::span<const Index> extents) noexcept {
  Index count = 1;
  for (const Index extent : extents)
    if (!multiply_extent(count, extent == Dynamic ? 1 : extent)) return false;
  return true;
}

/// Checks that `extents` are those of a view whose type says `expected`. Neither the number of its
/// elements nor the distance between any two, in bytes, may exceed an Index. Axes of extent 0 count
/// as extent 1, so that they hide nothing.
constexpr void check_view(std::span<const Index> extents, std::span<const Index> strides,
                          std::span<const Index> expected, std::size_t element_size) {
  // In unsigned numbers, which hold the magnitude of every stride.
  const std::size_t most =
      static_cast<std::size_t>(std::numeric_limits<Index>::max()) / element_size - 1;
  std::size_t reach = 0;
  bool reachable = true;
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    check_argument(extents[axis] >= 0, "extent of axis ", axis, " is ", extents[axis],
                   "; expected 0 or more");
    check_argument(expected[axis] == Dynamic || expected[axis] == extents[axis], "extent of axis ",
                   axis, " is ", extents[axis], "; the view's type says ", expected[axis]);
    if (extents[axis] <= 1) continue;
    const auto stride = static_cast<std::size_t>(strides[axis]);
    const std::size_t step = strides[axis] < 0 ? 0 - stride : stride;
    const auto steps = static_cast<std::size_t>(extents[axis] - 1);
    reachable = reachable && step <= (most - reach) / steps;
    if (reachable) reach += step * steps;
  }
  if (!countable(extents)) [[unlikely]]
    raise<ArgumentError>(message("a view of extents ", shape_text(extents),
                                 " has too many elements: their product overflows"));
  if (!reachable) [[unlikely]]
    raise<ArgumentError>(message("a view of extents ", shape_text(extents), " and strides ",
                                 shape_text(strides),
                                 " reaches too far: the distance between its elements overflows"));
}

}  // namespace detail

NHA_ISA_NAMESPACE_END

NHA_NAMESPACE_BEGIN

/// A view of a tensor: element (i, j, ...) lies at data() + i * stride(0) + j * stride(1) + ...
///
/// Extents... are the sizes of the axes, Dynamic where known only at run time; two to four axes are
/// usual, [tokens, heads, head_dim] for instance. Strides are in elements, may be any number (0
/// repeats an element, negative walks backwards), and no alignment is needed. Copying a view copies
/// the pointer; a view of T converts to a view of const T, and static extents to Dynamic ones.
///
/// Of every view that was checked, size() and the offset of each element fit in an Index. Device
/// code may use all but what checks and what returns an array.
template <class T, Index... Extents>
class TensorView {
  static constexpr Index kExtents[sizeof...(Extents)] = {Extents...};
  template <class U, Index... Others>
  static constexpr bool kConverts =
      sizeof...(Others) == sizeof...(Extents) && std::is_convertible_v<U (*)[], T (*)[]>;
  template <Index... Others>
  static constexpr bool kNarrows = ((Extents != Dynamic && Others == Dynamic) || ...);
  template <Index... Others>
  static constexpr bool kCompatible =
      ((Extents == Dynamic || Others == Dynamic || Extents == Others) && ...);

 public:
  static constexpr int rank = static_cast<int>(sizeof...(Extents));
  static_assert(rank >= 1 && rank <= 4, "nha::TensorView has one to four axes");
  static_assert(((Extents >= 0 || Extents == Dynamic) && ...),
                "an extent of nha::TensorView is a size or nha::Dynamic");
  static_assert(detail::countable(kExtents),
                "the static extents of nha::TensorView make too many elements");

  using value_type = std::remove_cv_t<T>;
  using Sizes = std::array<Index, static_cast<std::size_t>(rank)>;

  /// No elements; every dynamic extent is 0.
  NHA_INLINE constexpr TensorView() noexcept {}  // defaulted, it would be a function of its own

  /// Row-major and contiguous: the last axis has stride 1.
  /// @throws ArgumentError if an extent is negative or differs from its static one, or their
  ///   product overflows.
  NHA_INLINE constexpr TensorView(T* data, const Sizes& extents)
      : TensorView(data, extents, row_major(extents)) {}

  /// Any strides, in elements.
  /// @throws ArgumentError if an extent is negative or differs from its static one, or if their
  ///   product, or the distance between two elements, overflows.
  NHA_INLINE constexpr TensorView(T* data, const Sizes& extents, const Sizes& strides)
      : TensorView(Unchecked(), data, extents.data(), strides.data()) {
    detail::check_view(extents, strides, kExtents, sizeof(T));
  }

  /// Row-major over the first elements of a span.
  /// @throws ArgumentError if the span is shorter than the extents need.
  NHA_INLINE constexpr TensorView(std::span<T> data, const Sizes& extents)
      : TensorView(data.data(), extents) {
    check_argument(static_cast<std::size_t>(size()) <= data.size(), "span holds ", data.size(),
                   " elements; the extents need ", size());
  }

  /// From a view of the same rank whose static extents this type has as well, or forgets.
  template <class U, Index... Others>
  requires(kConverts<U, Others...> && !kNarrows<Others...>)
      NHA_HOST_DEVICE NHA_INLINE constexpr TensorView(
          const TensorView<U, Others...>& other) noexcept
      : TensorView(Unchecked(), other.data_, other.extents_, other.strides_) {
    static_assert(kCompatible<Others...>, "views whose static extents differ cannot be converted");
  }

  /// From a view of the same rank with a dynamic extent that becomes static.
  /// @throws ArgumentError if it differs from the static one.
  template <class U, Index... Others>
  requires(kConverts<U, Others...>&& kNarrows<Others...>)
      NHA_INLINE constexpr explicit TensorView(const TensorView<U, Others...>& other)
      : TensorView(Unchecked(), other.data_, other.extents_, other.strides_) {
    static_assert(kCompatible<Others...>, "views whose static extents differ cannot be converted");
    detail::check_view(extents_, strides_, kExtents, sizeof(T));
  }

  /// A view that nothing checks, for device code and where the same sizes have been checked before.
  /// Extents must be as the type says and not negative, and every offset must fit in an Index.
  NHA_HOST_DEVICE NHA_INLINE static constexpr TensorView unchecked(
      T* data, const Index (&extents)[rank], const Index (&strides)[rank]) noexcept {
    return TensorView(Unchecked(), data, extents, strides);
  }

  NHA_HOST_DEVICE NHA_INLINE constexpr T* data() const noexcept { return data_; }
  NHA_HOST_DEVICE NHA_INLINE constexpr Index stride(int axis) const noexcept {
    return strides_[axis];
  }
  NHA_HOST_DEVICE NHA_INLINE constexpr Index extent(int axis) const noexcept {
    // Not a static array: device code has none.
    Index extent = extents_[axis];
    int n = 0;
    ((n++ == axis&& Extents != Dynamic ? extent = Extents : 0), ...);
    return extent;
  }
  NHA_INLINE constexpr Sizes strides() const noexcept { return std::to_array(strides_); }
  NHA_INLINE constexpr Sizes extents() const noexcept { return std::to_array(extents_); }
  /// The extent an axis has in the type, or Dynamic.
  NHA_INLINE static constexpr Index static_extent(int axis) noexcept { return kExtents[axis]; }

  /// Number of elements.
  NHA_HOST_DEVICE NHA_INLINE constexpr Index size() const noexcept {
    Index product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= extent(axis);
    return product;
  }
  NHA_HOST_DEVICE NHA_INLINE constexpr bool empty() const noexcept { return size() == 0; }

  /// Element at the given position; positions are not checked.
  template <std::convertible_to<Index>... Positions>
  NHA_HOST_DEVICE NHA_INLINE constexpr T& operator()(Positions... positions) const noexcept {
    static_assert(sizeof...(Positions) == sizeof...(Extents), "one position for each axis");
    Index offset = 0;
    int axis = 0;
    ((offset += static_cast<Index>(positions) * strides_[axis++]), ...);
    return data_[offset];
  }

  /// The view without its first axis, at `position` of it; an element where there is one axis.
  NHA_HOST_DEVICE NHA_INLINE constexpr decltype(auto) operator[](Index position) const noexcept {
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

  /// The same elements with one more axis, of extent 1, before axis `Axis`. With insert_axis<1>()
  /// a batch of single tokens [batch, heads, head_dim] becomes [batch, 1, heads, head_dim].
  template <int Axis>
  NHA_HOST_DEVICE NHA_INLINE constexpr auto insert_axis() const noexcept {
    static_assert(Axis >= 0 && Axis <= rank, "an axis cannot be inserted there");
    static_assert(rank < 4, "nha::TensorView has at most four axes");
    return insert_axis_at<Axis>(std::make_integer_sequence<int, rank + 1>());
  }

  /// The same elements with axis `Axis` as two: `parts` of equal length, then the positions in one
  /// part. With split<1>(heads) [tokens, heads * head_dim] becomes [tokens, heads, head_dim].
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
  NHA_HOST_DEVICE NHA_INLINE constexpr bool has_contiguous_rows() const noexcept {
    return stride(rank - 1) == 1 || extent(rank - 1) <= 1;
  }

 private:
  struct Unchecked {};

  NHA_HOST_DEVICE NHA_INLINE constexpr TensorView(Unchecked, T* data, const Index* extents,
                                                  const Index* strides) noexcept
      : data_(data) {
    for (int axis = 0; axis < rank; ++axis) {
      extents_[axis] = extents[axis];
      strides_[axis] = strides[axis];
    }
  }

  /// Of extents that are not checked yet: what overflows wraps around.
  NHA_INLINE static constexpr Sizes row_major(const Sizes& extents) noexcept {
    Sizes strides{};
    std::size_t step = 1;
    for (std::size_t axis = extents.size(); axis-- > 0;) {
      strides[axis] = static_cast<Index>(step);
      step *= static_cast<std::size_t>(extents[axis]);
    }
    return strides;
  }

  template <Index First, Index... Rest>
  NHA_HOST_DEVICE NHA_INLINE constexpr TensorView<T, Rest...> drop_first(
      Index position) const noexcept {
    TensorView<T, Rest...> result;
    result.data_ = data_ + position * strides_[0];
    for (int axis = 1; axis < rank; ++axis) {
      result.extents_[axis - 1] = extents_[axis];
      result.strides_[axis - 1] = strides_[axis];
    }
    return result;
  }

  template <int Axis, int... Axes>
  NHA_INLINE constexpr auto slice_axis(Index first, Index count,
                                       std::integer_sequence<int, Axes...>) const noexcept {
    TensorView<T, (Axes == Axis ? Dynamic : Extents)...> result;
    // An empty slice may begin a whole stride past the last element, which might overflow.
    result.data_ = count > 0 ? data_ + first * strides_[Axis] : data_;
    for (int axis = 0; axis < rank; ++axis) {
      result.extents_[axis] = extents_[axis];
      result.strides_[axis] = strides_[axis];
    }
    result.extents_[Axis] = count;
    return result;
  }
  template <int Axis, int... Axes>
  NHA_HOST_DEVICE NHA_INLINE constexpr auto insert_axis_at(
      std::integer_sequence<int, Axes...>) const noexcept {
    TensorView<T, (Axes == Axis ? Index{1} : kExtents[Axes < Axis ? Axes : Axes - 1])...> result;
    result.data_ = data_;
    for (int axis = 0; axis <= rank; ++axis) {
      const int source = axis < Axis ? axis : axis - 1;
      result.extents_[axis] = axis == Axis ? 1 : extents_[source];
      result.strides_[axis] = axis == Axis ? 0 : strides_[source];
    }
    return result;
  }
  template <int Axis, int... Axes>
  NHA_INLINE constexpr auto split_axis(Index parts, std::integer_sequence<int, Axes...>) const {
    TensorView<T, (Axes == Axis || Axes == Axis + 1 ? Dynamic
                                                    : kExtents[Axes < Axis ? Axes : Axes - 1])...>
        result;
    for (int axis = 0; axis <= rank; ++axis) {
      const int source = axis <= Axis ? axis : axis - 1;
      result.extents_[axis] = extents_[source];
      result.strides_[axis] = strides_[source];
    }
    const Index length = extent(Axis) / parts;
    result.data_ = data_;
    result.extents_[Axis] = parts;
    result.extents_[Axis + 1] = length;
    // One part has nowhere to step to, and its length might overflow the stride.
    result.strides_[Axis] = parts == 1 ? 0 : strides_[Axis] * length;
    // Nothing in any number of parts: only then can the extents' product have grown.
    if (length == 0)
      detail::check_view(result.extents_, result.strides_, result.kExtents, sizeof(T));
    return result;
  }

  template <class, Index...>
  friend class TensorView;

  T* data_ = nullptr;
  Index extents_[rank] = {(Extents == Dynamic ? 0 : Extents)...};
  Index strides_[rank] = {};
};

NHA_NAMESPACE_END
