// SPDX-License-Identifier: MIT
// AttentionState: everything an attention layer remembers of a batch of sequences, as one value.
//
// Saving and loading it is in memory/state_archive.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state_base.hpp>

#include <memory_resource>

NHA_ISA_NAMESPACE_BEGIN

/// Slots and window of every sequence and key/value head of a layer.
///
/// A value: it copies, moves and compares. All memory is one block whose size is known when it is
/// made; nothing allocates after that, except that assigning does, from a state of another layer or
/// batch or by moving from one of another memory resource. Window and slot delay are run-time
/// options, so layers that differ in them share one type. T is the type of the layer's tensors and
/// of the stored window. Slots are sums, kept in accumulate_t<T>, or at half the memory in bfloat16
/// or float16 where SlotScalar says so (T float or a half type): computed is in float all the same,
/// and each is rounded by a dither (core/dither.hpp) when a token has entered, after a prefill
/// once. Where calls of prefill are split then shows in the results, within that rounding. How
/// slots drift is in bench/README.md. Sequences are independent of each other and may have seen
/// unlike numbers of tokens; positions are 64-bit and nothing in the state depends on how large
/// they are. A state that was moved from holds no sequences. Which memory resource copies and
/// assignments use is as with Buffer.
///
/// One thread at a time may use a state; const access may be shared.
template <Scalar T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic,
          Scalar SlotScalar = accumulate_t<T>>
class AttentionState : public AttentionStateBase<T, SlotScalar> {
 public:
  using Base = AttentionStateBase<T, SlotScalar>;

  /// @param max_rollback how many tokens rollback() can take back. Each costs two more tokens of
  ///   window and pending rows, and any at all three more copies of the slots.
  /// @throws ArgumentError if a size or option is out of range or differs from a static extent, or
  ///   all of it does not fit in memory.
  explicit AttentionState(const AttentionShape& shape, const AttentionOptions& options = {},
                          Index max_rollback = 0,
                          std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : Base(checked(shape), options, max_rollback, memory) {}
  AttentionState(const AttentionState& other) = default;
  AttentionState(const AttentionState& other, std::pmr::memory_resource* memory)
      : Base(other, memory) {}
  AttentionState(AttentionState&& other) noexcept = default;
  AttentionState& operator=(const AttentionState& other) = default;
  AttentionState& operator=(AttentionState&& other) = default;
  ~AttentionState() = default;

 private:
  static const AttentionShape& checked(const AttentionShape& shape) {
    check_size("key_dim", shape.key_dim, 1, KeyDim);
    check_size("value_dim", shape.value_dim, 1, ValueDim);
    check_size("slots", shape.slots, 0, Slots);
    return shape;
  }
};

NHA_ISA_NAMESPACE_END
