// SPDX-License-Identifier: MIT
// BackwardBand: keys and values that a region of tokens reads, laid out for the products of the
// chunked backward, and the sums of their gradients.
#pragma once

#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A region of tokens and the window before it, one column for each position, oldest first. It is
/// loaded for region after region, going back; the gradients of tokens that lie before a region are
/// carried to the next.
template <class Acc>
class BackwardBand {
 public:
  BackwardBand(const BackwardPlan& plan, const BandScratch<Acc>& scratch, std::int64_t end) noexcept
      : plan_(plan), s_(scratch), start_(end), end_(end) {}

  Index column(std::int64_t position) const noexcept {
    return static_cast<Index>(position - start_);
  }
  /// Columns in use.
  Index size() const noexcept { return column(end_); }

  /// Loads the region [first, end) of a call; end is where the region before began, if any.
  template <class Call>
  void load(const ChunkedCall<Call>& call, std::int64_t first, std::int64_t end) noexcept {
    const std::int64_t start = std::max<std::int64_t>(0, first - plan_.chunks.window);
    // Columns of the last load that lie before its region: their gradients are not yet whole.
    const std::int64_t carried_from = start_;
    const Index carried = static_cast<Index>(std::max<std::int64_t>(0, end - carried_from));
    start_ = start;
    end_ = end;
    move(s_.d_values, plan_.chunks.value_dim, column(carried_from), carried);
    if (plan_.chunks.window == 0) return;
    move(s_.d_keys, plan_.padded_key_dim(), column(carried_from), carried);
    using T = typename Call::Scalar;
    const auto key_at = [&](Index i) { return call.window_key(start_ + i); };
    const auto value_at = [&](Index i) { return call.value(start_ + i); };
    cpu::pack_key_columns<T>(size(), key_at, plan_.chunks.key_dim, 0, s_.key_panels);
    // What is left of an earlier load in the last panel must not be looked at below.
    std::fill_n(s_.value_panels + size() / kRowPadding * kRowPadding * call.value_dim(),
                size() % kRowPadding == 0 ? Index{0} : kRowPadding * call.value_dim(), Acc{0});
    cpu::pack_key_columns<T>(size(), value_at, call.value_dim(), 0, s_.value_panels);
    for (Index i = 0; i < size(); ++i)
      cpu::pack_row<T>(key_at(i), call.key_dim(), s_.keys + i * plan_.padded_key_dim());
    finite_ = cpu::all_finite(s_.keys, size() * plan_.padded_key_dim()) &&
              cpu::all_finite(s_.value_panels, padded(size()) * call.value_dim());
  }
  /// Whether all keys and values in the band are.
  bool is_finite() const noexcept { return finite_; }

  /// From a column on, a multiple of kRowPadding: keys and values as right operands of scores.
  cpu::RightOperand<Acc> key_panels(Index column) const noexcept {
    assert(is_padded(column));
    const Index dim = plan_.chunks.key_dim;
    return {s_.key_panels + column * dim, dim * kRowPadding, kRowPadding};
  }
  cpu::RightOperand<Acc> value_panels(Index column, Index value_dim) const noexcept {
    assert(is_padded(column));
    return {s_.value_panels + column * value_dim, value_dim * kRowPadding, kRowPadding};
  }
  /// From a column on: keys in rows [., padded(key_dim)], as the right operand of d_queries.
  cpu::RightOperand<Acc> keys(Index column) const noexcept {
    return cpu::row_major<Acc>(s_.keys + column * plan_.padded_key_dim(), plan_.padded_key_dim());
  }
  /// Sums of gradients, rows [., padded(key_dim)] and [., value_dim] from a column on.
  Acc* d_keys(Index column) const noexcept { return s_.d_keys + column * plan_.padded_key_dim(); }
  Acc* d_values(Index column) const noexcept {
    return s_.d_values + column * plan_.chunks.value_dim;
  }

 private:
  /// Moves `count` rows from the front to row `to`, and clears all others in use.
  void move(Acc* rows, Index width, Index to, Index count) const noexcept {
    const auto bytes = [&](Index n) { return static_cast<std::size_t>(n * width) * sizeof(Acc); };
    if (count > 0) std::memmove(rows + to * width, rows, bytes(count));
    std::fill_n(rows, (count > 0 ? to : size()) * width, Acc{0});
  }

  const BackwardPlan& plan_;
  BandScratch<Acc> s_;
  std::int64_t start_;  // position of the first column
  std::int64_t end_;    // one past the region
  bool finite_ = true;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
