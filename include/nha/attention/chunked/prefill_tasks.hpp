// SPDX-License-Identifier: MIT
// PrefillTasks: how a prefill is cut into tasks for an executor, and the memory that it needs.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunked/pipeline.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/prefill_head.hpp>
#include <nha/attention/chunked/working_slots.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/prefill_options.hpp>
#include <nha/attention/step.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state_base.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline bool takes_chunks(PrefillAlgorithm algorithm, Index tokens) noexcept {
  // Below this many tokens a chunk's products are too small to be worth setting up.
  constexpr Index kFewTokens = 4;
  return algorithm == PrefillAlgorithm::chunked ||
         (algorithm == PrefillAlgorithm::automatic && tokens >= kFewTokens);
}

/// Bytes of workspace for calls with at most `tokens` tokens of a sequence that has seen at most
/// `past`, whichever head and algorithm a worker gets.
template <class Arch, class T, class SlotScalar>
struct PrefillBytes {
  using Pipeline = ChunkPipeline<Arch, T, SlotScalar>;

  std::size_t of_worker;
  Index workers;
  std::size_t of_shared = 0;  // bytes for a head that several workers work on
  Index most_shared = 0;      // how many heads may be such

  PrefillBytes(const AttentionStateBase<T, SlotScalar>& state, Index query_heads, Index tokens,
               std::int64_t past, const PrefillOptions& options, Index worker_count)
      : of_worker(step_bytes(state, query_heads)), workers(worker_count) {
    if (!takes_chunks(options.algorithm, tokens)) return;
    const AttentionShape& shape = state.shape();
    const std::size_t of_slots = working_slots_bytes<SlotScalar>(shape);
    const bool shares = enough_to_share(tokens, workers);
    of_shared = sizeof(Pipeline) + of_slots;
    if (shares) most_shared = std::min(workers - 1, shape.batch * shape.kv_heads);
    for (Index head = 0; head < shape.kv_heads; ++head) {
      const ChunkPlan plan = chunk_plan(shape, head_options(state.options(), head),
                                        query_heads / shape.kv_heads, tokens, past, options.chunk);
      const std::size_t of_chunks = shares ? Pipeline::scratch_bytes(plan, shape)
                                           : ChunkScratch<accumulate_t<T>>::bytes(plan);
      of_worker = std::max(of_worker, of_chunks + of_slots);
    }
  }
  std::size_t total() const noexcept {
    return of_worker * static_cast<std::size_t>(workers) +
           of_shared * static_cast<std::size_t>(most_shared);
  }
};

/// The tasks of one prefill. Most are a head each. Where that would leave workers idle, because
/// there are few heads or one sequence is much longer than the others, some heads are shared: every
/// worker has a task for those, and they come first.
template <class Arch, class T, class SlotScalar>
class PrefillTasks {
  using State = AttentionStateBase<T, SlotScalar>;
  using Pipeline = ChunkPipeline<Arch, T, SlotScalar>;
  using Head = PrefillHead<Arch, T, SlotScalar>;

 public:
  PrefillTasks(const AttentionInputs<T>& inputs, State& state, const AttentionOutputs<T>& outputs,
               const PrefillOptions& options, Index workers)
      : in_(inputs),
        state_(state),
        out_(outputs),
        options_(options),
        heads_(state.shape().batch * state.shape().kv_heads),
        tokens_(longest(inputs, state)),
        past_(longest_past(state)),
        bytes_(state, outputs.o.extent(2), tokens_, past_, options, workers) {
    for (Index i = 0; i < heads_; ++i) {
      total_cost_ += cost(i);
      largest_cost_ = std::max(largest_cost_, cost(i));
    }
  }

  std::size_t bytes() const noexcept { return bytes_.total(); }

  /// Takes bytes() bytes of workspace and prepares the shared heads in them.
  void prepare(std::byte* workspace) noexcept {
    workspace_ = workspace;
    for (Index i = 0; i < heads_; ++i)
      if (is_shared(i)) make_shared(i);
  }

  Index count() const noexcept { return shared_tasks() + heads_; }

  void run(Index task, Index worker) noexcept {
    const FlushSubnormals flush;
    std::byte* scratch = workspace_ + static_cast<std::size_t>(worker) * bytes_.of_worker;
    if (task < shared_tasks()) {
      // Workers begin with unlike heads and help with the others when theirs is done.
      for (Index i = 0; i < shared_count_; ++i) shared((task + i) % shared_count_)->work(scratch);
      return;
    }
    const Index i = task - shared_tasks();
    if (is_shared(i)) return;
    if (takes_chunks(options_.algorithm, tokens_of(i))) {
      Arena arena(scratch);
      const Head chunks = prefill_head(i, arena);
      chunks.run(scratch + arena.used());
    } else {
      step_head<Arch>(call(i), state_, sequence(i), head(i), outputs(i), scratch);
    }
  }

  /// Moves the sequences on, when all tasks have ended.
  void finish() noexcept {
    for (Index n = 0; n < state_.shape().batch; ++n) {
      const Index count = sequence_span(in_, n).count;
      StateAccess::advance(state_, n, count);
      if (count > 0 && takes_chunks(options_.algorithm, count))
        StateAccess::keep_prefill_end(state_, n);
    }
  }

 private:
  static Index longest(const AttentionInputs<T>& inputs, const State& state) noexcept {
    Index tokens = 0;
    for (Index n = 0; n < state.shape().batch; ++n)
      tokens = std::max(tokens, sequence_span(inputs, n).count);
    return tokens;
  }
  static std::int64_t longest_past(const State& state) {
    std::int64_t past = 0;
    for (Index n = 0; n < state.shape().batch; ++n) past = std::max(past, state.tokens_seen(n));
    return past;
  }

  Index sequence(Index i) const noexcept { return i / state_.shape().kv_heads; }
  Index head(Index i) const noexcept { return i % state_.shape().kv_heads; }
  Index group() const noexcept { return out_.o.extent(2) / state_.shape().kv_heads; }
  Index tokens_of(Index i) const noexcept { return sequence_span(in_, sequence(i)).count; }
  HeadCall<T, SlotScalar> call(Index i) const noexcept {
    return head_call(in_, std::as_const(state_), out_.o.extent(2), sequence(i), head(i));
  }
  HeadOutputs<T> outputs(Index i) const noexcept {
    return head_outputs(in_, out_, group(), sequence(i), head(i));
  }
  Head prefill_head(Index i, Arena& arena) const noexcept {
    const ChunkPlan plan = chunk_plan(state_.shape(), head_options(state_.options(), head(i)),
                                      group(), tokens_, past_, options_.chunk);
    return {call(i), plan, state_, sequence(i), head(i), outputs(i), arena};
  }
  /// About what a head takes, in columns of scores.
  double cost(Index i) const noexcept {
    const auto tokens = static_cast<double>(tokens_of(i));
    const auto window = static_cast<double>(head_options(state_.options(), head(i)).window);
    const auto past = static_cast<double>(state_.tokens_seen(sequence(i)));
    return tokens *
           (2 * static_cast<double>(state_.shape().slots) + std::min(window, past + tokens / 2));
  }
  /// Heads too large for one worker are shared; where there are none, those that are left over when
  /// every worker has had as many as the others.
  bool is_shared(Index i) const noexcept {
    const Index workers = bytes_.workers;
    if (bytes_.most_shared == 0 || !enough_to_share(tokens_of(i), workers)) return false;
    const double even = total_cost_ / static_cast<double>(workers);
    return largest_cost_ > even ? cost(i) > even : i >= heads_ - heads_ % workers;
  }
  std::byte* shared_memory(Index index) const noexcept {
    return workspace_ + bytes_.of_worker * static_cast<std::size_t>(bytes_.workers) +
           bytes_.of_shared * static_cast<std::size_t>(index);
  }
  Pipeline* shared(Index index) const noexcept {
    return reinterpret_cast<Pipeline*>(shared_memory(index));
  }
  void make_shared(Index i) noexcept {
    static_assert(std::is_trivially_destructible_v<Pipeline> && sizeof(Pipeline) % kAlignment == 0);
    Arena arena(shared_memory(shared_count_) + sizeof(Pipeline));
    std::construct_at(shared(shared_count_++), prefill_head(i, arena), bytes_.workers);
  }
  Index shared_tasks() const noexcept { return shared_count_ > 0 ? bytes_.workers : 0; }

  const AttentionInputs<T>& in_;
  State& state_;
  const AttentionOutputs<T>& out_;
  PrefillOptions options_;
  Index heads_;  // of all sequences
  Index tokens_;
  std::int64_t past_;
  PrefillBytes<Arch, T, SlotScalar> bytes_;
  double total_cost_ = 0;
  double largest_cost_ = 0;
  std::byte* workspace_ = nullptr;
  Index shared_count_ = 0;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
