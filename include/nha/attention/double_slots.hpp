// SPDX-License-Identifier: MIT
// What reference_backward() sums in: rows and slots in double, whatever the type of the tensors.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>

#include <cstddef>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// sum of a[d] * b[d].
template <class A, class B>
double dot_in_double(const A* a, const B* b, Index size) {
  double sum = 0;
  for (Index d = 0; d < size; ++d)
    sum += static_cast<double>(widen(a[d])) * static_cast<double>(widen(b[d]));
  return sum;
}

/// to[d] += factor * row[d].
template <class U>
void add_in_double(double factor, const U* row, Index size, double* to) {
  for (Index d = 0; d < size; ++d) to[d] += factor * static_cast<double>(widen(row[d]));
}

/// A matrix, zero at first.
struct DoubleRows {
  DoubleRows(Index rows, Index columns)
      : numbers(static_cast<std::size_t>(rows * columns)), width(columns) {}
  double* row(Index i) { return numbers.data() + i * width; }
  const double* row(Index i) const { return numbers.data() + i * width; }

  std::vector<double> numbers;
  Index width;
};

/// The slots of one head at one moment, or a gradient with respect to them.
struct DoubleSlots {
  DoubleSlots(Index slots, Index key_dim, Index value_dim)
      : key(slots, key_dim), value(slots, value_dim), mass(slots, 1) {}

  /// Multiplies all of slot m.
  void scale(Index m, double factor) {
    for (Index d = 0; d < key.width; ++d) key.row(m)[d] *= factor;
    for (Index d = 0; d < value.width; ++d) value.row(m)[d] *= factor;
    *mass.row(m) *= factor;
  }
  /// A token enters slot m: slot <- retention . slot + write (x) token.
  template <class T>
  void enter(Index m, double retention, double write, const T* token_key, const T* token_value) {
    scale(m, retention);
    add_in_double(write, token_key, key.width, key.row(m));
    add_in_double(write, token_value, value.width, value.row(m));
    *mass.row(m) += write;
  }

  DoubleRows key;    // [M, Dk]
  DoubleRows value;  // [M, Dv]
  DoubleRows mass;   // [M, 1]
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
