// SPDX-License-Identifier: MIT
// Checks of the arguments of functions over rows of activations.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Checks that a view [rows, channels] has data where it has elements, and that its rows are
/// contiguous, in order and without overlap. A single row may have any stride.
/// @throws ArgumentError naming the view. `name` names argument and function: "x of linear".
template <class T, Index Rows, Index Channels>
void check_rows(const char* name, const TensorView<T, Rows, Channels>& view) {
  if (view.empty()) return;
  check_argument(view.data() != nullptr, name, " has no data");
  check_argument(view.has_contiguous_rows(), name, " has stride ", view.stride(1),
                 " along its last axis; expected 1: rows must be contiguous");
  check_argument(view.extent(0) == 1 || view.stride(0) >= view.extent(1), name, " has stride ",
                 view.stride(0), " between its rows; expected their length, ", view.extent(1),
                 ", or more");
}

/// Checks the same of a view that must be [rows, channels].
/// @throws ArgumentError naming the view.
template <class T>
void check_matrix(const char* name, const TensorView<T, Dynamic, Dynamic>& view, Index rows,
                  Index channels) {
  check_argument(view.extent(0) == rows && view.extent(1) == channels, name, " is [",
                 view.extent(0), ", ", view.extent(1), "]; expected [", rows, ", ", channels, "]");
  check_rows(name, view);
}

/// Checks that a vector has `entries` entries, one after the other.
/// @throws ArgumentError naming the view.
template <class T>
void check_vector(const char* name, const TensorView<T, Dynamic>& view, Index entries) {
  check_argument(view.extent(0) == entries, name, " has ", view.extent(0), " entries; expected ",
                 entries);
  check_rows(name, view.template insert_axis<0>());
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
