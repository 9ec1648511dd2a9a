// SPDX-License-Identifier: MIT
// The loss of a language model together with its head: cross entropy of the next token, and the
// gradients through the head, without ever holding the logits of all places.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/linear.hpp>
#include <nha/nn/linear_backward.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// What cross_entropy() found.
struct CrossEntropy {
  /// Sum over the counted rows of log(sum_v exp(logit_v)) - logit_target, in nats.
  double loss = 0;
  /// Rows with a target that is not negative.
  Index counted = 0;
  /// Counted rows whose target has the largest logit; among equal ones the first counts.
  Index correct = 0;
};

/// Which gradients cross_entropy() computes: those of scale * loss, for the views that are given.
template <std::floating_point T>
struct CrossEntropyGradients {
  /// 1 / number of counted rows for the mean.
  double scale = 1;
  /// [rows, hidden], written: 0 for the rows that are not counted.
  TensorView<T, Dynamic, Dynamic> dx = {};
  /// [vocabulary, hidden], added to what is there.
  TensorView<T, Dynamic, Dynamic> dhead = {};
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// How many rows of logits there are at a time: as many as 256 KiB hold, which stay in an L2 cache
/// between the product that makes them and the two that read them, but 32 at least, so that large
/// heads are not read too often, and 256 at most, beyond which a product gains nothing.
inline Index cross_entropy_block(Index rows, Index vocabulary, std::size_t number_bytes) noexcept {
  const Index fitting = (Index{1} << 18) / (padded(vocabulary) * static_cast<Index>(number_bytes));
  return std::min(rows, std::clamp<Index>(fitting, 32, 256));
}

/// Scratch memory of cross_entropy().
template <class T>
struct CrossEntropyScratch {
  Index* places;  // rows of x that the block is of
  T* logits;
  T* x;
  T* dx;

  static CrossEntropyScratch take(Arena& cursor, Index block, Index hidden,
                                  Index vocabulary) noexcept {
    CrossEntropyScratch scratch{};
    scratch.places = cursor.take<Index>(block);
    scratch.logits = cursor.take<T>(block * padded(vocabulary));
    scratch.x = cursor.take<T>(block * hidden);
    scratch.dx = cursor.take<T>(block * hidden);
    return scratch;
  }
};

/// One row: adds its loss, and replaces its logits, padded with -infinity, by their gradient.
template <class Arch, class T>
void cross_entropy_row(T* logits, Index vocabulary, Index target, double scale,
                       CrossEntropy& result) noexcept {
  const T aimed = logits[target];
  const T maximum = cpu::row_maximum<Arch>(logits, padded(vocabulary));
  const bool first = std::find(logits, logits + target, maximum) == logits + target;
  const T sum = cpu::exp_shifted<Arch>(logits, padded(vocabulary), maximum);
  result.loss += std::log(static_cast<double>(sum)) +
                 (static_cast<double>(maximum) - static_cast<double>(aimed));
  ++result.counted;
  if (aimed == maximum && first && std::isfinite(sum)) ++result.correct;
  const T factor = static_cast<T>(scale / static_cast<double>(sum));
  for (Index v = 0; v < vocabulary; ++v) logits[v] *= factor;
  logits[target] -= static_cast<T>(scale);
}

}  // namespace detail

/// Bytes of scratch memory that cross_entropy() takes. It does not grow with the rows beyond those
/// of one block: 256 rows, or fewer where their logits need more than 256 KiB, but at least 32.
/// @throws ArgumentError if a number is out of range: rows 0 or more, hidden 0 to kLargestSize,
///   vocabulary 1 to kLargestSize.
template <std::floating_point T>
std::size_t cross_entropy_workspace_bytes(Index rows, Index hidden, Index vocabulary) {
  check_argument(rows >= 0, "rows is ", rows, "; expected 0 or more");
  check_size("hidden", hidden, 0);
  check_size("vocabulary", vocabulary, 1);
  Arena sizes(nullptr);
  detail::CrossEntropyScratch<T>::take(
      sizes, detail::cross_entropy_block(rows, vocabulary, sizeof(T)), hidden, vocabulary);
  return sizes.used();
}

/// The cross entropy of logits = x head^T with their targets, and its gradients:
///   dlogits = scale (softmax(logits) - onehot(target))    dx = dlogits head   dhead += dlogits^T x
/// for x [rows, hidden], after the last norm, head [vocabulary, hidden] and targets [rows]. A row
/// with a negative target is not counted and costs nothing. Rows of x, head and the gradients must
/// be contiguous; the gradients must not overlap each other or an input.
///
/// Any finite logits are safe. Losses are summed in double over the rows in order, each within a
/// few roundings of T. Where a logit is NaN or +infinity the loss and gradients become NaN, and the
/// row is not correct; one of -infinity has probability 0. Cost: for each counted row vocabulary *
/// hidden multiply-adds, three times that with both gradients. Beyond the workspace nothing is
/// allocated.
/// @throws ArgumentError if a shape does not fit, a target is not in the vocabulary, there is no
///   data, rows are not contiguous, or scale is not finite; nothing has then been touched.
template <std::floating_point T, class Arch = cpu::simd::default_arch>
CrossEntropy cross_entropy(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                           std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> head,
                           TensorView<const std::int32_t, Dynamic> targets, Workspace& workspace,
                           const CrossEntropyGradients<T>& gradients = {}) {
  const Index rows = x.extent(0);
  const Index hidden = x.extent(1);
  const Index vocabulary = head.extent(0);
  const TensorView<T, Dynamic, Dynamic>& dx = gradients.dx;
  const TensorView<T, Dynamic, Dynamic>& dhead = gradients.dhead;
  const bool wants_dx = dx.data() != nullptr;
  const bool wants_dhead = dhead.data() != nullptr;
  check_argument(vocabulary >= 1, "head of cross_entropy has no rows; expected one or more");
  check_argument(head.extent(1) == hidden, "head of cross_entropy has rows of ", head.extent(1),
                 "; x has rows of ", hidden);
  check_argument(targets.extent(0) == rows, "targets of cross_entropy are ", targets.extent(0),
                 "; x has ", rows, " rows");
  check_argument(!wants_dx || dx.extents() == x.extents(), "dx of cross_entropy is [", dx.extent(0),
                 ", ", dx.extent(1), "]; expected [", rows, ", ", hidden, "]");
  check_argument(!wants_dhead || dhead.extents() == head.extents(), "dhead of cross_entropy is [",
                 dhead.extent(0), ", ", dhead.extent(1), "]; expected [", vocabulary, ", ", hidden,
                 "]");
  check_argument(std::isfinite(gradients.scale), "scale of cross_entropy is ", gradients.scale,
                 "; expected a finite number");
  detail::check_rows("x of cross_entropy", x);
  detail::check_rows("head of cross_entropy", head);
  detail::check_rows("dx of cross_entropy", dx);
  detail::check_rows("dhead of cross_entropy", dhead);
  check_argument(rows == 0 || targets.data() != nullptr, "targets of cross_entropy have no data");
  for (Index r = 0; r < rows; ++r)
    check_argument(targets(r) < vocabulary, "target ", r, " of cross_entropy is ", targets(r),
                   "; expected less than ", vocabulary, ", the size of the vocabulary");

  CrossEntropy result;
  if (rows == 0) return result;
  const Index block = detail::cross_entropy_block(rows, vocabulary, sizeof(T));
  workspace.reserve(cross_entropy_workspace_bytes<T>(rows, hidden, vocabulary));
  Arena cursor(workspace.data());
  const auto scratch = detail::CrossEntropyScratch<T>::take(cursor, block, hidden, vocabulary);
  const FlushSubnormals mode;

  for (Index next = 0; next < rows;) {
    Index count = 0;
    for (; next < rows && count < block; ++next) {
      if (targets(next) >= 0)
        scratch.places[count++] = next;
      else if (wants_dx)
        std::fill_n(&dx(next, 0), hidden, T{0});
    }
    if (count == 0) break;
    // Counted rows that are neighbours are used where they are.
    const bool together = scratch.places[count - 1] - scratch.places[0] == count - 1;
    TensorView<const T, Dynamic, Dynamic> in(scratch.x, {count, hidden});
    TensorView<T, Dynamic, Dynamic> out(scratch.dx, {count, hidden});
    if (together) {
      in = x.template slice<0>(scratch.places[0], count);
      if (wants_dx) out = dx.template slice<0>(scratch.places[0], count);
    } else {
      for (Index i = 0; i < count; ++i)
        std::copy_n(&x(scratch.places[i], 0), hidden, scratch.x + i * hidden);
    }
    const TensorView<T, Dynamic, Dynamic> logits(scratch.logits, {count, vocabulary},
                                                 {padded(vocabulary), 1});
    linear(in, head, logits);
    for (Index i = 0; i < count; ++i) {
      T* row = &logits(i, 0);
      std::fill(row + vocabulary, row + padded(vocabulary), -kInfinity<T>);
      detail::cross_entropy_row<Arch>(row, vocabulary, targets(scratch.places[i]), gradients.scale,
                                      result);
    }
    linear_backward<T>(in, head, logits, wants_dx ? out : TensorView<T, Dynamic, Dynamic>(), dhead);
    if (wants_dx && !together)
      for (Index i = 0; i < count; ++i) std::copy_n(&out(i, 0), hidden, &dx(scratch.places[i], 0));
  }
  return result;
}

NHA_ISA_NAMESPACE_END
