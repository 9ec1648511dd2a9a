// SPDX-License-Identifier: MIT
// backward(): gradients of any number of tokens by the chunked algorithm.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunked/backward.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/slot_pass.hpp>
#include <nha/attention/chunked/working_slots.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/attention/step.hpp>
#include <nha/attention/validate_backward.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// How backward() computes.
struct BackwardOptions {
  /// Tokens to a chunk, at most 64; 0 picks the number.
  Index chunk = 0;
};

namespace detail {

/// Goes back through one head's tokens of a call.
template <class Arch, class Call>
class BackwardHead {
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;
  using Slots = SlotMemoryView<const Acc>;

 public:
  static std::size_t bytes(const BackwardPlan& plan, const AttentionShape& shape) noexcept {
    Arena arena(nullptr);
    BackwardScratch<Acc>::take(arena, plan);
    arena.take<Chunk>(plan.most_chunks);
    for (Index i = 0; i < most_copies(plan); ++i)
      SlotMemoryView<Acc>::take(arena, shape.key_dim, shape.value_dim, shape.slots);
    return arena.used() + working_slots_bytes<typename Call::SlotType>(shape);
  }

  BackwardHead(const Call& call, const BackwardPlan& plan, Index max_rollback,
               std::byte* scratch) noexcept
      : call_(call, plan.chunks, max_rollback), plan_(plan) {
    Arena arena(scratch);
    initial_ = slots_to_read<Arch, typename Call::SlotType>(call.memory.slots, arena);
    s_ = BackwardScratch<Acc>::take(arena, plan);
    chunks_ = arena.take<Chunk>(plan.most_chunks);
    // One copy lies behind the other.
    copies_ = scratch + arena.used();
    Arena copy(nullptr);
    take_slots(copy);
    copy_bytes_ = copy.used();
  }

  void run(const HeadSaved<T>& saved, const HeadCotangents<T>& cotangents,
           const HeadGradients<T>& gradients) noexcept {
    for (std::int64_t at = call_.begin; at < call_.end; at = chunks_[count_++].end())
      chunks_[count_] = call_.chunk_at(at);
    keep_segments();
    ChunkBackward<Arch, Call> chunks(call_, plan_, saved, cotangents, gradients, s_);
    for (Index last = count_; last > 0;) {
      // A region is as many chunks as fit, at least one.
      const std::int64_t end = chunks_[last - 1].end();
      Index first = last - 1;
      while (first > 0 && end - chunks_[first - 1].position <= plan_.region) --first;
      const std::int64_t begin = chunks_[first].position;
      chunks.load_region(begin, end);
      for (Index i = last - 1; i >= first; --i) {
        if (i == count_ - 1 || i % kSegment == kSegment - 1) keep_slots(i / kSegment);
        chunks.run(chunks_[i], slots_of(i), i > 0 ? chunks_[i - 1] : Chunk{});
      }
      chunks.store_region(begin, end);
      last = first;
    }
    chunks.store_slots();
  }

 private:
  // A copy of the slots is kept for the start of every kSegment chunks. In the segment that is
  // walked back, each chunk has one: few enough to stay in a cache.
  static constexpr Index kSegment = 16;
  static Index most_copies(const BackwardPlan& plan) noexcept {
    return (plan.most_chunks + kSegment - 1) / kSegment + kSegment;
  }

  SlotMemoryView<Acc> take_slots(Arena& arena) const noexcept {
    return SlotMemoryView<Acc>::take(arena, call_.key_dim(), call_.value_dim(), call_.slots());
  }
  SlotMemoryView<Acc> copy(Index index) const noexcept {
    Arena arena(copies_ + static_cast<std::size_t>(index) * copy_bytes_);
    return take_slots(arena);
  }
  /// The slots at the start of a chunk: the state's until a token has entered them. The copy of a
  /// segment's first chunk lasts for the whole call.
  Slots slots_of(Index chunk) const noexcept {
    if (chunk == 0 || !call_.slots_are_written(chunks_[chunk - 1])) return initial_;
    const Index in_segment = chunk % kSegment;
    return copy(in_segment == 0 ? kSegment + chunk / kSegment : in_segment);
  }
  SlotPass<Arch, Call> slot_pass() const noexcept {
    return {call_, s_.update, s_.retention, s_.write};
  }
  /// Moves the slots through the call and keeps them at the start of each segment.
  void keep_segments() const noexcept {
    Slots slots = initial_;
    for (Index i = kSegment; i < count_; i += kSegment) {
      const SlotMemoryView<Acc> next = copy(kSegment + i / kSegment);
      if (slot_pass().through(chunks_[i - kSegment].position, chunks_[i].position, plan_.step,
                              slots, next))
        slots = next;
    }
  }
  /// Moves the slots through a segment and keeps them at the start of each of its chunks.
  void keep_slots(Index segment) const noexcept {
    const Index end = std::min((segment + 1) * kSegment, count_);
    for (Index i = segment * kSegment; i + 1 < end; ++i)
      slot_pass().through(chunks_[i].position, chunks_[i].end(), plan_.step, slots_of(i),
                          copy((i + 1) % kSegment));
  }

  const ChunkedCall<Call> call_;
  const BackwardPlan& plan_;
  Slots initial_;
  BackwardScratch<Acc> s_;
  Chunk* chunks_;
  Index count_ = 0;
  std::byte* copies_;
  std::size_t copy_bytes_;
};

/// Scratch bytes of one worker, whichever head it gets.
template <class Arch, class T, class SlotScalar>
std::size_t backward_bytes(const AttentionStateBase<T, SlotScalar>& state, Index query_heads,
                           Index tokens, std::int64_t past, const BackwardOptions& options) {
  std::size_t most = 0;
  const AttentionShape& shape = state.shape();
  for (Index head = 0; head < shape.kv_heads; ++head) {
    const BackwardPlan plan =
        backward_plan(shape, head_options(state.options(), head), query_heads / shape.kv_heads,
                      tokens, past, options.chunk);
    most = std::max(most, BackwardHead<Arch, HeadCall<T, SlotScalar>>::bytes(plan, shape));
  }
  return most;
}

inline void check_backward_options(const BackwardOptions& options) {
  check_argument(options.chunk >= 0 && options.chunk <= kMostBackwardChunk, "chunk is ",
                 options.chunk, "; expected 0 to ", kMostBackwardChunk);
}

}  // namespace detail

/// Bytes of workspace that backward() needs for at most `tokens` tokens of a sequence, whatever the
/// state has seen. A chunk has C tokens: options.chunk, or 8 to 64 but no more than there are. A
/// window reaches R tokens: the smaller of W and all tokens so far. Each worker needs
///   copies of the slots of a head   about tokens / (16 C) + 17, each of M (Dk + Dv + 1) numbers
///   the band of the window          about R + min(tokens, max(R, 16 C)) columns of 3 Dk + 2 Dv
///                                   numbers: two for each token where the window holds all
///   the chunks                      16 bytes for each
///   scratch of a chunk              the same for any number of tokens
/// @param workers the executor's workers()
/// @throws ArgumentError if a number is out of range.
template <class T, class SlotScalar>
std::size_t backward_workspace_bytes(const AttentionStateBase<T, SlotScalar>& state,
                                     Index query_heads, Index tokens,
                                     const BackwardOptions& options = {}, Index workers = 1) {
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  check_argument(tokens >= 0 && tokens <= kMostCallTokens, "tokens is ", tokens, "; expected 0 to ",
                 kMostCallTokens);
  detail::check_backward_options(options);
  std::size_t most = 0;
  for (const detail::CallSize& call : detail::largest_calls(state.shape(), tokens))
    most = std::max(most, detail::backward_bytes<cpu::simd::default_arch>(
                              state, query_heads, call.tokens, call.past, options));
  return most * static_cast<std::size_t>(workers);
}

/// Gradients of a loss with respect to the inputs of a call of the operator, from the cotangents of
/// its results. What reference_backward() computes, within rounding, by matrix products.
///
/// @param inputs what the call was given
/// @param state_before the state that the call began with: a copy made before the call, or a new
///   one. It is only read. Its slots count as initial slots and have gradients. Its tokens in the
///   window, or waiting to enter the slots, are constants (see AttentionGradients).
/// @param saved results of the call that were kept, or nothing: see AttentionSaved
/// @param cotangents derivatives with respect to the results of the call
/// @param gradients where to write; those left out are not wanted
///
/// Backward recomputes the slots first and keeps a checkpoint every 16 chunks. It then walks back
/// one checkpoint at a time. Once the workspace is large enough nothing allocates, and nothing
/// throws after the arguments have been checked. Key/value heads and sequences are independent
/// tasks of the executor. The gradients do not depend on the executor, to the bit.
/// @throws ArgumentError as validate_backward() says, if `saved` does not fit, or if options.chunk
///   is out of range; nothing has then been touched.
template <class Arch = cpu::simd::default_arch, class T, class SlotScalar>
void backward(const std::type_identity_t<AttentionInputs<T>>& inputs,
              const AttentionStateBase<T, SlotScalar>& state_before,
              const std::type_identity_t<AttentionSaved<T>>& saved,
              const std::type_identity_t<AttentionCotangents<T>>& cotangents,
              const std::type_identity_t<AttentionGradients<T>>& gradients, Workspace& workspace,
              const BackwardOptions& options = {}, ExecutorRef executor = kSerial) {
  using Call = detail::HeadCall<T, SlotScalar>;
  detail::check_backward_options(options);
  validate_backward(inputs, state_before, cotangents, gradients);
  validate_saved(inputs, cotangents.o.extent(2), saved, gradients);
  const AttentionShape& shape = state_before.shape();
  const Index query_heads = cotangents.o.extent(2), group = query_heads / shape.kv_heads;
  Index tokens = 0;
  std::int64_t past = 0;
  for (Index n = 0; n < shape.batch; ++n) {
    tokens = std::max(tokens, detail::sequence_span(inputs, n).count);
    past = std::max(past, state_before.tokens_seen(n));
  }
  const std::size_t bytes =
      detail::backward_bytes<Arch>(state_before, query_heads, tokens, past, options);
  workspace.reserve(bytes * static_cast<std::size_t>(executor.workers()));
  const auto task = [&](Index i, Index worker) noexcept {
    const FlushSubnormals flush;
    const Index n = i / shape.kv_heads, head = i % shape.kv_heads;
    const detail::SequenceSpan span = detail::sequence_span(inputs, n);
    const detail::BackwardPlan plan = detail::backward_plan(
        shape, head_options(state_before.options(), head), group, tokens, past, options.chunk);
    detail::BackwardHead<Arch, Call>(detail::head_call(inputs, state_before, query_heads, n, head),
                                     plan, state_before.max_rollback(),
                                     workspace.data() + static_cast<std::size_t>(worker) * bytes)
        .run({saved, span, group, head}, {cotangents, span, group, n, head},
             {gradients, span, group, n, head});
  };
  executor.run(shape.batch * shape.kv_heads, task);
}

/// The same with default options, on an executor.
template <class Arch = cpu::simd::default_arch, class T, class SlotScalar>
void backward(const std::type_identity_t<AttentionInputs<T>>& inputs,
              const AttentionStateBase<T, SlotScalar>& state_before,
              const std::type_identity_t<AttentionSaved<T>>& saved,
              const std::type_identity_t<AttentionCotangents<T>>& cotangents,
              const std::type_identity_t<AttentionGradients<T>>& gradients, Workspace& workspace,
              ExecutorRef executor) {
  backward<Arch>(inputs, state_before, saved, cotangents, gradients, workspace, BackwardOptions(),
                 executor);
}

NHA_ISA_NAMESPACE_END
