// SPDX-License-Identifier: MIT
// Whether elements of one view, or of two, share memory: what is written must not.
//
// The method. Views whose ranges of addresses lie apart share nothing, which is the usual case and
// costs a comparison. Elsewhere two elements share memory where a sum of steps bridges the distance
// between the views. A step is a multiple of a stride, one for each axis of either view. The steps
// are searched, largest stride first, as far as the smaller strides can make up for them. Slices
// and permutations of one tensor leave one or two steps to try for each axis. The search is exact.
// It gives up after kMostSteps, and such views are refused with a message that says so. That takes
// strides that do not nest and thousands of positions along several axes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

enum class Overlap { none, some, unknown };

/// Sorts a few items, largest stride first. Of std::sort, which has code for many items, g++ 12
/// warns that it leaves the array.
/// that it leaves the array.
template <class Item>
void sort_by_stride(Item* items, int count) noexcept {
  for (int i = 1; i < count; ++i)
    for (int j = i; j > 0 && items[j - 1].stride < items[j].stride; --j)
      std::swap(items[j - 1], items[j]);
}

/// What is known of a view before anything is searched.
struct ViewRange {
  std::uintptr_t begin;  // of the element with the lowest address
  std::uintptr_t end;    // of the bytes of the highest one
  Index element;         // bytes
  int rank;
  Index extents[4];  // none of them 0
  Index strides[4];  // in elements
};

/// Whether two ranges of addresses have bytes in common: views apart share nothing.
NHA_INLINE bool meet(const ViewRange& a, const ViewRange& b) noexcept {
  return a.begin < b.end && b.begin < a.end;
}

/// A view as bytes: what a search for overlaps goes through.
struct ViewMemory {
  /// One axis whose positions lie a positive number of bytes apart.
  struct Axis {
    Index stride;
    Index last;  // its largest position
    int number;  // in the view
  };

  explicit ViewMemory(const ViewRange& view) noexcept : begin(view.begin), width(view.element) {
    for (int n = 0; n < view.rank; ++n) {
      if (view.extents[n] == 1) continue;
      const Index step = view.strides[n] * view.element;
      axes[axis_count++] = {step < 0 ? -step : step, view.extents[n] - 1, n};
    }
    // Largest stride first; those that are contiguous are part of the width.
    sort_by_stride(axes, axis_count);
    for (; axis_count > 0 && axes[axis_count - 1].stride == width; --axis_count)
      width *= axes[axis_count - 1].last + 1;
  }

  std::uintptr_t begin;
  Index width;  // bytes at each position
  Axis axes[4];
  int axis_count = 0;
};

/// Looks for sums of steps.
class StepSearch {
 public:
  static constexpr int kMostSteps = 1 << 16;

  /// Adds steps of `stride` bytes, `least` (0 or less) to `most` (0 or more) of them.
  void add(Index stride, Index least, Index most) noexcept {
    for (int n = 0; n < count_; ++n)
      if (steps_[n].stride == stride) {
        steps_[n].least += least;
        steps_[n].most += most;
        return;
      }
    steps_[count_++] = {stride, least, most};
  }
  /// After the last add().
  void sort() noexcept {
    sort_by_stride(steps_, count_);
    for (int n = count_ - 1; n >= 0; --n) {
      lowest_[n] = lowest_[n + 1] + steps_[n].least * steps_[n].stride;
      highest_[n] = highest_[n + 1] + steps_[n].most * steps_[n].stride;
    }
  }

  /// Whether steps from stride number `n` on have a sum in [low, high].
  Overlap find(Index low, Index high, int n = 0) noexcept {
    if (n == count_) return low <= 0 && high >= 0 ? Overlap::some : Overlap::none;
    return find_from(steps_[n].least, low, high, n);
  }
  /// The same with at least `least` steps of stride number `n`.
  Overlap find_from(Index least, Index low, Index high, int n) noexcept {
    const Index stride = steps_[n].stride;
    const Index first = std::max(least, -floor_divide(highest_[n + 1] - low, stride));
    const Index last = std::min(steps_[n].most, floor_divide(high - lowest_[n + 1], stride));
    for (Index step = first; step <= last; ++step) {
      if (++taken_ > kMostSteps) return Overlap::unknown;
      const Overlap found = find(low - step * stride, high - step * stride, n + 1);
      if (found != Overlap::none) return found;
    }
    return Overlap::none;
  }

 private:
  struct Steps {
    Index stride, least, most;
  };
  static Index floor_divide(Index a, Index b) noexcept { return a / b - (a % b < 0 ? 1 : 0); }

  Steps steps_[8];
  Index lowest_[9] = {}, highest_[9] = {};  // sums of the steps from one stride on
  int count_ = 0;
  int taken_ = 0;
};

/// Whether sums of two views' steps cannot overflow: the bytes of the view are below an exbibyte.
inline bool searchable(const ViewRange& view) noexcept {
  return view.end - view.begin <= std::uintptr_t{1} << 60;
}

struct SelfOverlap {
  Overlap overlap;
  int axis;  // along which elements that share memory differ
};

/// Whether two elements of one view share memory.
NHA_COLD inline SelfOverlap self_overlap(const ViewRange& range) noexcept {
  if (!searchable(range)) return {Overlap::unknown, 0};
  const ViewMemory view(range);
  StepSearch search;
  for (int n = 0; n < view.axis_count; ++n) {
    const ViewMemory::Axis& axis = view.axes[n];
    if (axis.stride == 0) return {Overlap::some, axis.number};
    if (n > 0 && axis.stride == view.axes[n - 1].stride) return {Overlap::some, axis.number};
    search.add(axis.stride, -axis.last, axis.last);
  }
  search.sort();
  for (int n = 0; n < view.axis_count; ++n) {
    // The first axis along which the two differ, the one with the larger position taken first.
    const Overlap found = search.find_from(1, 1 - view.width, view.width - 1, n);
    if (found != Overlap::none) return {found, view.axes[n].number};
  }
  return {Overlap::none, 0};
}

/// Whether an element of one view shares memory with one of the other.
NHA_COLD inline Overlap overlap(const ViewRange& first, const ViewRange& second) noexcept {
  if (!meet(first, second)) return Overlap::none;
  if (!searchable(first) || !searchable(second)) return Overlap::unknown;
  const ViewMemory a(first), b(second);
  StepSearch search;
  for (int n = 0; n < a.axis_count; ++n)
    if (a.axes[n].stride > 0) search.add(a.axes[n].stride, 0, a.axes[n].last);
  for (int n = 0; n < b.axis_count; ++n)
    if (b.axes[n].stride > 0) search.add(b.axes[n].stride, -b.axes[n].last, 0);
  search.sort();
  const auto distance = static_cast<Index>(b.begin - a.begin);
  return search.find(distance - a.width + 1, distance + b.width - 1);
}

/// The range of a view, in `range`. False for a view without elements.
template <class T, Index... Extents>
NHA_INLINE bool range_of(const TensorView<T, Extents...>& view, ViewRange& range) noexcept {
  if (view.data() == nullptr) return false;
  Index low = 0, high = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    const Index last = view.extent(axis) - 1;
    if (last < 0) return false;
    const Index reach = view.stride(axis) * last;
    low += std::min<Index>(reach, 0);
    high += std::max<Index>(reach, 0);
    range.extents[axis] = last + 1;
    range.strides[axis] = view.stride(axis);
  }
  constexpr auto kElement = static_cast<Index>(sizeof(T));
  const auto data = reinterpret_cast<std::uintptr_t>(view.data());
  range.begin = data + static_cast<std::uintptr_t>(low * kElement);
  range.end = data + static_cast<std::uintptr_t>((high + 1) * kElement);
  range.element = kElement;
  range.rank = view.rank;
  return true;
}

/// Whether each stride steps over all that the axes after it reach, as in a row-major tensor and
/// its slices. No two elements then share memory.
inline bool nested(const ViewRange& range) noexcept {
  Index reach = 0;
  for (int axis = range.rank - 1; axis >= 0; --axis) {
    if (range.extents[axis] == 1) continue;
    if (range.strides[axis] <= reach) return false;
    reach += range.strides[axis] * (range.extents[axis] - 1);
  }
  return true;
}

/// The tensors of a call by their names: raises ArgumentError where one that is written shares
/// memory with another, or its own elements do. Views without elements take no part.
class CallMemory {
 public:
  template <class T, Index... Extents>
  void reads(const char* name, const TensorView<T, Extents...>& view) {
    if (range_of(view, next().range)) add(name, false);
  }
  template <class T, Index... Extents>
  void writes(const char* name, const TensorView<T, Extents...>& view) {
    if (range_of(view, next().range)) add(name, true);
  }

 private:
  struct Tensor {
    const char* name;
    bool written;
    ViewRange range;
  };
  static constexpr int kMost = 31;

  Tensor& next() noexcept { return tensors_[count_]; }
  NHA_NOINLINE void add(const char* name, bool written) {
    Tensor& tensor = next();
    tensor.name = name;
    tensor.written = written;
    if (written && !nested(tensor.range)) check_self(tensor);
    for (int n = 0; n < count_; ++n)
      if ((written || tensors_[n].written) && meet(tensor.range, tensors_[n].range))
        check_apart(tensor, tensors_[n]);
    check_argument(count_ < kMost, "a call has too many tensors");
    ++count_;
  }

  NHA_COLD static void check_self(const Tensor& tensor) {
    const SelfOverlap found = self_overlap(tensor.range);
    if (found.overlap == Overlap::none) return;
    const auto rank = static_cast<std::size_t>(tensor.range.rank);
    check_argument(found.overlap != Overlap::some, tensor.name, " has stride ",
                   tensor.range.strides[found.axis], " along axis ", found.axis,
                   ": some of its elements share memory");
    raise<ArgumentError>(message(
        tensor.name, " has extents ", shape_text(std::span(tensor.range.extents).first(rank)),
        " and strides ", shape_text(std::span(tensor.range.strides).first(rank)),
        ": too many to tell whether its elements share memory"));
  }
  NHA_COLD static void check_apart(const Tensor& a, const Tensor& b) {
    const Overlap found = overlap(a.range, b.range);
    if (found == Overlap::none) [[likely]]
      return;
    const Tensor& written = a.written ? a : b;
    const Tensor& other = a.written ? b : a;
    check_argument(found != Overlap::some, written.name, " shares memory with ", other.name,
                   "; expected memory of its own, since it is written");
    raise<ArgumentError>(message("elements of ", written.name, " lie between those of ", other.name,
                                 " in too many ways to tell whether they share memory"));
  }

  Tensor tensors_[kMost + 1];  // the last is never kept
  int count_ = 0;
};

/// That no two elements of an output share memory. No data, or no elements, is fine.
template <class View>
void check_distinct(const char* name, const View& view) {
  CallMemory memory;
  memory.writes(name, view);
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
