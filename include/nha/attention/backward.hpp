// SPDX-License-Identifier: MIT
// backward(): gradients of any number of tokens by the chunked algorithm.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunked/backward.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/update.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/step.hpp>
#include <nha/attention/validate_backward.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
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

/// Goes back through a call's tokens of one sequence in one key/value head.
template <class Arch, class Call>
class BackwardHead {
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;
  using Chunks = ChunkBackward<Arch, Call>;

 public:
  static std::size_t bytes(const BackwardPlan& plan, const AttentionShape& shape) noexcept {
    Arena cursor(nullptr);
    BackwardScratch<Acc>::take(cursor, plan);
    cursor.take<Chunk>(plan.most_chunks);
    Arena copy(nullptr);
    take_slots(copy, shape);
    return cursor.used() + copy.used() * static_cast<std::size_t>(most_segments(plan) + kSegment);
  }

  BackwardHead(const Call& call, const BackwardPlan& plan, std::byte* scratch) noexcept
      : call_(call), plan_(plan) {
    Arena cursor(scratch);
    s_ = BackwardScratch<Acc>::take(cursor, plan);
    chunks_ = cursor.take<Chunk>(plan.most_chunks);
    // One copy lies behind the other.
    copies_ = scratch + cursor.used();
    Arena copy(nullptr);
    take_slots(copy, call.state.shape());
    copy_bytes_ = copy.used();
  }

  void run(const typename Chunks::Saved& saved, const typename Chunks::Cotangents& cotangents,
           const typename Chunks::Gradients& gradients) noexcept {
    for (std::int64_t at = call_.start; at < call_.end; at = chunks_[count_++].end())
      chunks_[count_] = call_.chunk_at(at);
    keep_segments();
    Chunks chunks(call_, plan_, saved, cotangents, gradients, s_);
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
  using Update = ChunkUpdate<Arch, Call>;

  // The slots are kept as of the start of every so many chunks, and of each chunk only for those
  // that are being gone back through: few enough to stay in a cache.
  static constexpr Index kSegment = 16;
  static Index most_segments(const BackwardPlan& plan) noexcept {
    return (plan.most_chunks + kSegment - 1) / kSegment;
  }

  static SlotView take_slots(Arena& cursor, const AttentionShape& shape) noexcept {
    return SlotView::take(cursor, shape.key_dim, shape.value_dim, shape.slots);
  }
  SlotView copy(Index index) const noexcept {
    Arena cursor(copies_ + static_cast<std::size_t>(index) * copy_bytes_);
    return take_slots(cursor, call_.state.shape());
  }
  /// The slots as of a chunk's start: the state's until something has entered them. Those of a
  /// segment's first chunk are kept from beginning to end.
  SlotView slots_of(Index chunk) const noexcept {
    if (chunk == 0 || !call_.slots_are_written(chunks_[chunk - 1])) return call_.slots;
    const Index in_segment = chunk % kSegment;
    return copy(in_segment == 0 ? kSegment + chunk / kSegment : in_segment);
  }
  /// Moves slots past a chunk, and asks meanwhile for the rows of as many tokens after it.
  void move_slots(const Chunk& chunk, const SlotView& from, const SlotView& to) const noexcept {
    if (!call_.slots_are_written(chunk)) return;
    const Update update(call_, s_.update);
    const auto gates = call_.template entering_gates<Arch>(chunk, s_.retention, s_.write);
    update.run(chunk, gates, update.pack_values(chunk), from, to, update.rows_after(chunk));
  }
  /// The forward pass of the slots, keeping them as of each segment's start.
  void keep_segments() const noexcept {
    SlotView slots = call_.slots;
    for (Index i = kSegment; i < count_; i += kSegment) {
      const SlotView next = copy(kSegment + i / kSegment);
      for (Chunk step{chunks_[i - kSegment].position}; step.position < chunks_[i].position;
           step.position = step.end()) {
        step.count = static_cast<Index>(
            std::min<std::int64_t>(plan_.step, chunks_[i].position - step.position));
        move_slots(step, slots, next);
        if (call_.slots_are_written(step)) slots = next;
      }
    }
  }
  /// The same through a segment, keeping them as of each chunk's start.
  void keep_slots(Index segment) const noexcept {
    const Index end = std::min((segment + 1) * kSegment, count_);
    for (Index i = segment * kSegment; i + 1 < end; ++i)
      move_slots(chunks_[i], slots_of(i), slots_of(i + 1));
  }

  const Call& call_;
  const BackwardPlan& plan_;
  BackwardScratch<Acc> s_;
  Chunk* chunks_;
  Index count_ = 0;
  std::byte* copies_;
  std::size_t copy_bytes_;
};

/// Scratch bytes of one worker, whichever head it gets.
template <class Arch, class Call>
std::size_t backward_bytes(const typename Call::State& state, Index query_heads, Index tokens,
                           std::int64_t past, const BackwardOptions& options) {
  std::size_t most = 0;
  const AttentionShape& shape = state.shape();
  for (Index head = 0; head < shape.kv_heads; ++head) {
    const BackwardPlan plan =
        backward_plan(shape, head_options(state.options(), head), query_heads / shape.kv_heads,
                      tokens, past, options.chunk);
    most = std::max(most, BackwardHead<Arch, Call>::bytes(plan, shape));
  }
  return most + wide_slots_bytes<typename Call::State::SlotType>(shape);
}

inline void check_backward_options(const BackwardOptions& options) {
  check_argument(options.chunk >= 0 && options.chunk <= kMostBackwardChunk, "chunk is ",
                 options.chunk, "; expected 0 to ", kMostBackwardChunk);
}

}  // namespace detail

/// Bytes of workspace that backward() needs for at most `tokens` tokens of a sequence, whatever the
/// state has seen. For each worker, with chunks of C tokens (8 to 64, but no more than there are;
/// or options.chunk) and windows that reach R = min(W, past + tokens) tokens:
///   copies of the slots of a head   about tokens / (16 C) + 17, each of M (Dk + Dv + 1) numbers
///   the band of the window          about R + min(tokens, max(R, 16 C)) columns of 3 Dk + 2 Dv
///                                   numbers: with a window of all tokens twice as many as these
///   the chunks                      16 bytes for each
/// and scratch of a chunk, which does not grow with the tokens.
/// @param workers the executor's
/// @throws ArgumentError if a number is out of range.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::size_t backward_workspace_bytes(
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index query_heads,
    Index tokens, const BackwardOptions& options = {}, Index workers = 1) {
  using Call = detail::ChunkCall<T, KeyDim, ValueDim, Slots, SlotScalar>;
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  constexpr Index kMostTokens = Index{1} << 40;
  check_argument(tokens >= 0 && tokens <= kMostTokens, "tokens is ", tokens, "; expected 0 to ",
                 kMostTokens);
  detail::check_backward_options(options);
  std::size_t most = 0;
  for (const detail::CallSize& call : detail::largest_calls(state.shape(), tokens))
    most = std::max(most, detail::backward_bytes<cpu::simd::default_arch, Call>(
                              state, query_heads, call.tokens, call.past, options));
  return most * static_cast<std::size_t>(workers);
}

/// Gradients of a loss with respect to the inputs of a call of the operator, given those with
/// respect to its results: reference_backward() within rounding, by matrix products.
///
/// @param inputs what the call was given
/// @param state_before what it began from: a copy of the state made before it, or a newly made one.
///   It may hold tokens: their slots count as initial slots and have gradients; those in the window
///   or waiting to enter the slots are constants (see AttentionGradients). It is only read.
/// @param saved results of the call that were kept, or nothing: see AttentionSaved
/// @param cotangents derivatives with respect to the results of the call
/// @param gradients where to write; those left out are not written
///
/// The forward pass is computed again, the slots first, of which a copy is kept for every 16
/// chunks; then going back 16 chunks at a time, with a copy for each of these. Once the workspace
/// is large enough nothing allocates, and nothing throws after the arguments have been checked.
/// Key/value heads and sequences are independent tasks of the executor; the result does not depend
/// on it.
/// @throws ArgumentError as validate_backward() says, if `saved` does not fit, or if options.chunk
///   is out of range; nothing has then been touched.
template <class Arch = cpu::simd::default_arch, class T, Index KeyDim, Index ValueDim, Index Slots,
          class SlotScalar, Executor E = const Serial>
void backward(const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
              const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state_before,
              const std::type_identity_t<AttentionSaved<T, ValueDim>>& saved,
              const std::type_identity_t<AttentionCotangents<T, ValueDim>>& cotangents,
              const std::type_identity_t<AttentionGradients<T, KeyDim, ValueDim, Slots>>& gradients,
              Workspace& workspace, const BackwardOptions& options = {}, E&& executor = Serial{}) {
  using Call = detail::ChunkCall<T, KeyDim, ValueDim, Slots, SlotScalar>;
  detail::check_backward_options(options);
  validate_backward(inputs, state_before, cotangents, gradients);
  validate_saved(inputs, cotangents.o.extent(2), saved, gradients);
  const AttentionShape& shape = state_before.shape();
  const Index query_heads = cotangents.o.extent(2);
  Index tokens = 0;
  std::int64_t past = 0;
  for (Index n = 0; n < shape.batch; ++n) {
    tokens = std::max(tokens, sequence_span(inputs, n).count);
    past = std::max(past, state_before.tokens_seen(n));
  }
  const std::size_t bytes =
      detail::backward_bytes<Arch, Call>(state_before, query_heads, tokens, past, options);
  workspace.reserve(bytes * static_cast<std::size_t>(executor.workers()));
  const auto task = [&](Index i, Index worker) noexcept {
    const FlushSubnormals flush;
    const Index head = i % shape.kv_heads;
    const detail::BackwardPlan plan =
        detail::backward_plan(shape, head_options(state_before.options(), head),
                              query_heads / shape.kv_heads, tokens, past, options.chunk);
    Arena cursor(workspace.data() + static_cast<std::size_t>(worker) * bytes);
    const Call call(inputs, state_before, plan.chunks, i / shape.kv_heads, head, cursor);
    call.template widen<Arch>();
    detail::BackwardHead<Arch, Call>(
        call, plan, workspace.data() + static_cast<std::size_t>(worker) * bytes + cursor.used())
        .run(saved, cotangents, gradients);
  };
  executor.run(shape.batch * shape.kv_heads, task);
}

NHA_ISA_NAMESPACE_END
