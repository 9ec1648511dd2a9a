// SPDX-License-Identifier: MIT
// Whether elements of one view, or of two, share memory: what is written must not.
//
// The method. Views whose ranges of addresses lie apart share nothing, which is the usual case and
// costs a comparison. Elsewhere two elements share memory where a sum of steps, a multiple of a
// stride for each axis of either view, bridges the distance between the views. The steps are
// searched, largest stride first, as far as the smaller strides can make up for them. Slices and
// permutations of one tensor leave one or two steps to try for each axis. The search is exact. It
// gives up after kMostSteps, which takes strides that do not nest and thousands of positions along
// several axes; such views are refused with a message that says so.
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
template <class Item>
void sort_by_stride(Item* items, int count) noexcept {
  for (int i = 1; i < count; ++i)
    for (int j = i; j > 0 && items[j - 1].stride < items[j].stride; --j)
      std::swap(items[j - 1], items[j]);
}

/// The memory of a view, seen as bytes.
struct ViewMemory {
  /// One axis whose positions lie a positive number of bytes apart.
  struct Axis {
    Index stride;
    Index last;  // its largest position
    int number;  // in the view
  };

  /// Uninitialised.
  ViewMemory() = default;
  /// Of a view with elements.
  ViewMemory(const void* data, std::size_t element_size, std::span<const Index> extents,
             std::span<const Index> strides) noexcept
      : begin(reinterpret_cast<std::uintptr_t>(data)),
        width(static_cast<Index>(element_size)),
        reach(0),
        axis_count(0) {
    for (std::size_t n = 0; n < extents.size(); ++n) {
      if (extents[n] == 1) continue;
      const Index step = strides[n] * width;
      const Index reach_here = step * (extents[n] - 1);
      if (step < 0) begin -= static_cast<std::uintptr_t>(-reach_here);
      reach += step < 0 ? -reach_here : reach_here;
      axes[axis_count++] = {step < 0 ? -step : step, extents[n] - 1, static_cast<int>(n)};
    }
    end = begin + static_cast<std::uintptr_t>(reach + width);
  }

  /// Sorts the axes, largest stride first, and makes those that are contiguous part of the width.
  void fold() noexcept {
    sort_by_stride(axes, axis_count);
    for (; axis_count > 0 && axes[axis_count - 1].stride == width; --axis_count)
      width *= axes[axis_count - 1].last + 1;
  }

  std::uintptr_t begin;  // of the element with the lowest address
  std::uintptr_t end;    // of the bytes of the highest one
  Index width;           // bytes at each position
  Index reach;           // from the lowest element to the highest
  Axis axes[4];
  int axis_count;
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

/// Beyond this many bytes, an exbibyte, sums of two views' steps might overflow.
inline constexpr Index kMostReach = Index{1} << 60;

struct SelfOverlap {
  Overlap overlap;
  int axis;  // along which elements that share memory differ
};

/// Whether two elements of one view share memory.
inline SelfOverlap self_overlap(ViewMemory view) noexcept {
  if (view.reach > kMostReach) return {Overlap::unknown, 0};
  view.fold();
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
inline Overlap overlap(ViewMemory a, ViewMemory b) noexcept {
  if (a.end <= b.begin || b.end <= a.begin) return Overlap::none;
  if (a.reach > kMostReach || b.reach > kMostReach) return Overlap::unknown;
  a.fold();
  b.fold();
  StepSearch search;
  for (int n = 0; n < a.axis_count; ++n)
    if (a.axes[n].stride > 0) search.add(a.axes[n].stride, 0, a.axes[n].last);
  for (int n = 0; n < b.axis_count; ++n)
    if (b.axes[n].stride > 0) search.add(b.axes[n].stride, -b.axes[n].last, 0);
  search.sort();
  const auto distance = static_cast<Index>(b.begin - a.begin);
  return search.find(distance - a.width + 1, distance + b.width - 1);
}

/// The tensors of a call by their names: raises ArgumentError where one that is written shares
/// memory with another, or its own elements do. Views without elements take no part.
class CallMemory {
 public:
  template <class T, Index... Extents>
  void reads(const char* name, const TensorView<T, Extents...>& view) {
    add(name, view, false);
  }
  template <class T, Index... Extents>
  void writes(const char* name, const TensorView<T, Extents...>& view) {
    add(name, view, true);
  }

 private:
  struct Tensor {
    const char* name;
    ViewMemory memory;
    bool written;
  };
  static constexpr int kMost = 32;

  template <class View>
  void add(const char* name, const View& view, bool written) {
    if (view.data() == nullptr || view.empty()) return;
    const auto extents = view.extents(), strides = view.strides();
    add({name, ViewMemory(view.data(), sizeof(*view.data()), extents, strides), written}, extents,
        strides);
  }
  void add(const Tensor& tensor, std::span<const Index> extents, std::span<const Index> strides) {
    if (tensor.written) check_self(tensor, extents, strides);
    for (int n = 0; n < count_; ++n)
      if (tensor.written || tensors_[n].written) check_apart(tensor, tensors_[n]);
    check_argument(count_ < kMost, "a call has too many tensors");
    tensors_[count_++] = tensor;
  }

  static void check_self(const Tensor& tensor, std::span<const Index> extents,
                         std::span<const Index> strides) {
    const SelfOverlap found = self_overlap(tensor.memory);
    if (found.overlap == Overlap::none) [[likely]]
      return;
    check_argument(found.overlap != Overlap::some, tensor.name, " has stride ",
                   strides[static_cast<std::size_t>(found.axis)], " along axis ", found.axis,
                   ": some of its elements share memory");
    raise<ArgumentError>(message(tensor.name, " has extents ", shape_text(extents), " and strides ",
                                 shape_text(strides),
                                 ": too many to tell whether its elements share memory"));
  }
  static void check_apart(const Tensor& a, const Tensor& b) {
    const Overlap found = overlap(a.memory, b.memory);
    if (found == Overlap::none) [[likely]]
      return;
    const Tensor& written = a.written ? a : b;
    const Tensor& other = a.written ? b : a;
    check_argument(found != Overlap::some, written.name, " shares memory with ", other.name,
                   "; expected memory of its own, since it is written");
    raise<ArgumentError>(message("elements of ", written.name, " lie between those of ", other.name,
                                 " in too many ways to tell whether they share memory"));
  }

  Tensor tensors_[kMost];
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
