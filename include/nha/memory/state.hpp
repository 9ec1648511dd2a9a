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
/// The state is a value: it copies, moves and compares. All memory is one block whose size is fixed
/// when the state is made. Afterwards only assignments allocate, from a state of another layer,
/// batch or memory resource. Copies and assignments use memory resources as Buffer does. A state
/// that was moved from holds no sequences.
///
/// T is the type of the layer's tensors and of the stored window. Slots are sums, kept in
/// accumulate_t<T>, or at half the memory in the half type that SlotScalar names (T float or a half
/// type). They are computed in float all the same. A dither (core/dither.hpp) rounds them when a
/// token has entered, after a prefill once. Results then depend on where a text is split, within
/// that rounding. bench/README.md has the drift of such slots.
///
/// Window and slot delay are run-time options, so layers that differ in them share one type.
/// Sequences are independent of each other and may have seen unlike numbers of tokens. Positions
/// are 64-bit, and no result depends on how large they are.
///
/// One thread at a time may use a state; const access may be shared.
template <Scalar T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic,
          Scalar SlotScalar = accumulate_t<T>>
class AttentionState : public AttentionStateBase<T, SlotScalar> {
 public:
  using Base = AttentionStateBase<T, SlotScalar>;

  /// @param max_rollback how many tokens rollback() can take back. Each costs two more tokens of
  ///   window and pending rows. Any number above 0 costs three more copies of the slots.
  /// @throws ArgumentError if a size or option is out of range or differs from a static extent.
  ///   Also if the state does not fit in memory.
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
