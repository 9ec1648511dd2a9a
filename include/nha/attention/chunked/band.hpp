// SPDX-License-Identifier: MIT
// PackedBand: keys and values of the newest tokens, laid out for the chunked algorithm's products.
#pragma once

#include <nha/attention/chunked/plan.hpp>
#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A band of consecutive positions, one column each, oldest first; it holds the window and some
/// more, and is moved down only when it is full. Keys lie in panels [band / 16][key_dim][16],
/// values in rows [band, value_dim]. Without a window there are no keys: the values alone serve the
/// tokens that enter the slots. The memory is the caller's.
template <class Acc>
class PackedBand {
 public:
  PackedBand() = default;
  /// The first column will be that of `start`.
  PackedBand(const ChunkPlan& plan, Acc* keys, Acc* values, std::int64_t start) noexcept
      : plan_(&plan), keys_(keys), values_(values), start_(start), end_(start) {}

  /// Column of a position that is in the band.
  Index column(std::int64_t position) const noexcept {
    return static_cast<Index>(position - start_);
  }
  /// Position of a column.
  std::int64_t position(Index column) const noexcept { return start_ + column; }
  /// Whether it has been given its memory.
  bool is_open() const noexcept { return plan_ != nullptr; }
  /// One past the newest position.
  std::int64_t end() const noexcept { return end_; }
  /// Columns in use.
  Index size() const noexcept { return column(end_); }

  /// Adds the next `count` positions, for which there is room: key_at(i) and value_at(i) are rows
  /// of T, a value has `value_dim` numbers before padding. Where there is no window key_at is not
  /// called.
  template <class T, class KeyAt, class ValueAt>
  void append(Index count, KeyAt&& key_at, ValueAt&& value_at, Index value_dim) noexcept {
    const Index at = size();
    if (plan_->window > 0) cpu::pack_key_columns<T>(count, key_at, plan_->key_dim, at, keys_);
    for (Index i = 0; i < count; ++i)
      cpu::pack_row<T>(value_at(i), value_dim, values_ + (at + i) * plan_->value_dim);
    end_ += count;
    if (!cpu::all_finite(values_ + at * plan_->value_dim, count * plan_->value_dim))
      unfinite_end_ = end_;
  }
  /// Whether the values from a position on are known to be finite. A product with others needs
  /// care: 0 times infinity is NaN, also where the 0 stands for what a query does not see.
  bool is_finite_from(std::int64_t position) const noexcept { return position >= unfinite_end_; }
  /// Makes room for `count` more positions: moves what the window still needs to the front, in
  /// whole panels, if the band is full.
  void make_room(Index count) noexcept {
    if (size() + count <= plan_->band) return;
    const Index dropped = (size() - plan_->window) / kRowPadding * kRowPadding;
    const Index kept = size() - dropped;
    if (plan_->window > 0)
      std::memmove(keys_, keys_ + dropped * plan_->key_dim,
                   static_cast<std::size_t>(padded(kept) * plan_->key_dim) * sizeof(Acc));
    std::memmove(values_, values_ + dropped * plan_->value_dim,
                 static_cast<std::size_t>(kept * plan_->value_dim) * sizeof(Acc));
    start_ += dropped;
  }

  /// The keys from a column on, a multiple of kRowPadding, as the right operand of scores.
  cpu::RightOperand<Acc> keys(Index column) const noexcept {
    assert(is_padded(column));
    return {keys_ + column * plan_->key_dim, plan_->key_dim * kRowPadding, kRowPadding};
  }
  /// The values from a column on, as the right operand of weighted sums.
  cpu::RightOperand<Acc> values(Index column) const noexcept {
    return cpu::row_major<Acc>(values_ + column * plan_->value_dim, plan_->value_dim);
  }

 private:
  const ChunkPlan* plan_ = nullptr;
  Acc* keys_ = nullptr;
  Acc* values_ = nullptr;
  std::int64_t start_ = 0;         // position of the first column
  std::int64_t end_ = 0;           // one past the newest position
  std::int64_t unfinite_end_ = 0;  // values from here on are finite
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
