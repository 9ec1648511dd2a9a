// SPDX-License-Identifier: MIT
// step(): one token for each sequence, the way a model decodes.
//
// A token of one key/value head costs the same whatever came before it. Update and read are one
// pass over the memories, for all queries of the group at once.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/fused_softmax.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/decode.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/simd_half.hpp>
#include <nha/memory/head_state.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The scratch memory of one worker: one token of one head.
template <class Acc>
struct StepScratch {
  Acc* q_slot;                 // [group, padded(key_dim)], scaled
  Acc* q_window;               // [group, padded(key_dim)], scaled
  Acc* scores;                 // [group, padded(slots) + padded(window)]
  SoftmaxState<Acc>* softmax;  // [group]
  Acc* output;                 // [group, padded(value_dim)]
  Acc* retention;              // [padded(slots)] of this token
  Acc* write;                  // [padded(slots)]
  Acc* key;                    // [padded(key_dim)]: the key that enters the slots
  Acc* value;                  // [padded(value_dim)]: its value
  Acc* inverse_mass;           // [padded(slots)]; mass_corrected only
  Acc* log_mass;               // [padded(slots)]

  NHA_NOINLINE static StepScratch take(Arena& arena, const AttentionShape& shape, Index window,
                                       Index group) noexcept {
    StepScratch s;
    s.q_slot = arena.take<Acc>(group * padded(shape.key_dim));
    s.q_window = arena.take<Acc>(group * padded(shape.key_dim));
    s.scores = arena.take<Acc>(group * (padded(shape.slots) + padded(window)));
    s.softmax = arena.take<SoftmaxState<Acc>>(group);
    s.output = arena.take<Acc>(group * padded(shape.value_dim));
    s.retention = arena.take<Acc>(padded(shape.slots));
    s.write = arena.take<Acc>(padded(shape.slots));
    s.key = arena.take<Acc>(padded(shape.key_dim));
    s.value = arena.take<Acc>(padded(shape.value_dim));
    s.inverse_mass = arena.take<Acc>(padded(shape.slots));
    s.log_mass = arena.take<Acc>(padded(shape.slots));
    return s;
  }
};

/// Scratch bytes of one worker, whichever head it gets.
template <class T, class SlotScalar>
std::size_t step_bytes(const AttentionStateBase<T, SlotScalar>& state, Index query_heads) {
  std::size_t most = 0;
  for (Index h = 0; h < state.shape().kv_heads; ++h) {
    Arena arena(nullptr);
    StepScratch<accumulate_t<T>>::take(arena, state.shape(),
                                       head_options(state.options(), h).window,
                                       query_heads / state.shape().kv_heads);
    most = std::max(most, arena.used());
  }
  return most;
}

/// Steps one sequence through tokens in one key/value head.
template <class Arch, class T, class SlotScalar>
class StepHead {
  using Acc = accumulate_t<T>;
  using State = AttentionStateBase<T, SlotScalar>;

 public:
  StepHead(const HeadCall<T, SlotScalar>& call, const HeadState<T, SlotScalar>& memory,
           const HeadOutputs<T>& outputs, const StepScratch<Acc>& scratch,
           bool beyond_cache) noexcept
      : call_(call), memory_(memory), out_(outputs), s_(scratch) {
    if (!beyond_cache) return;
    // As much is prefetched as the keys are long, so the values must not be shorter.
    const auto& slots = memory_.slots;
    if (slots.count * slots.value_stride() >= slots.key_dim * slots.key_stride())
      slot_values_ahead_ = slots.value;
    const auto& window = memory_.window;
    if (window.value_stride() >= window.key_stride()) window_values_ahead_ = window.value;
  }

  void token(std::int64_t position) noexcept {
    const Index i = call_.token(position);
    const auto& slots = memory_.slots;
    const FusedSoftmaxView<Acc, Arch> softmax{s_.scores, score_stride(), slots.count, s_.softmax};
    const cpu::QueryRows<Acc> output{s_.output, slots.value_stride()};
    const std::int64_t oldest = call_.oldest_visible(position);
    const Index visible = call_.visible(position);

    pack_queries(i);
    if (slots.count > 0) {
      cpu::pack_gates<Arch>(call_.log_gate.row(i), call_.write ? call_.write.row(i) : nullptr,
                            slots.count, s_.retention, s_.write);
      // The entering token is read before its row is given to the new one.
      const cpu::EnteringToken<Acc>* entering = take_entering_token(position);
      cpu::score_slots<Arch>(slots, entering, call_.group, queries(s_.q_slot),
                             {softmax.scores, softmax.stride}, slot_values_ahead_);
      if (entering != nullptr) add_mass();
      apply_rule(softmax, position);
    }
    memory_.window.push(position, call_.window > 0 ? call_.k_window.row(i) : nullptr,
                        call_.v.row(i));
    cpu::score_window<Arch>(memory_.window, oldest, visible, call_.group, queries(s_.q_window),
                            {softmax.window_scores(0), softmax.stride}, window_values_ahead_);
    for (Index g = 0; g < call_.group; ++g)
      softmax.hide_columns(g, 0, visible, padded(call_.window));
    softmax.weigh(call_.group, padded(call_.window));
    for (Index g = 0; g < call_.group; ++g) {
      softmax.normalize(g, padded(call_.window));
      if (out_.lse) *out_.lse.row(i, g) = s_.softmax[g].lse();
      // The share of no slots is 0, but NaN as all else where the softmax is.
      if (out_.slot_share)
        *out_.slot_share.row(i, g) =
            softmax.weight_on_slots(g) + Acc{0} * s_.softmax[g].normalizer();
    }

    if (slots.count > 0) {
      if (call_.rule.reads_means())
        for (Index g = 0; g < call_.group; ++g) softmax.correct_weights(g, s_.inverse_mass);
      cpu::read_slots<Arch>(slots, entering_ ? &entering_token_ : nullptr, call_.group,
                            {softmax.scores, softmax.stride}, output);
      memory_.pending.push(position, call_.k_slot.row(i), s_.retention, s_.write);
    } else {
      std::fill_n(s_.output, call_.group * output.stride, Acc{0});
    }
    cpu::read_window<Arch>(memory_.window, oldest, visible, call_.group,
                           {softmax.window_scores(0), softmax.stride}, output);
    store_output(i);
  }

 private:
  Index score_stride() const noexcept { return padded(call_.slots()) + padded(call_.window); }
  cpu::QueryRows<const Acc> queries(const Acc* rows) const noexcept {
    return {rows, padded(call_.key_dim())};
  }

  void pack_queries(Index i) noexcept {
    const Index stride = padded(call_.key_dim());
    for (Index g = 0; g < call_.group; ++g) {
      if (call_.slots() > 0)
        cpu::pack_scaled_row(call_.q_slot.row(i, g), call_.key_dim(), call_.softmax_scale,
                             s_.q_slot + g * stride);
      if (call_.window > 0)
        cpu::pack_scaled_row(call_.q_window.row(i, g), call_.key_dim(), call_.softmax_scale,
                             s_.q_window + g * stride);
    }
  }

  /// The token that enters the slots now: this one, or one that has waited; null where none does.
  const cpu::EnteringToken<Acc>* take_entering_token(std::int64_t position) noexcept {
    const std::int64_t entering = call_.entering(position);
    entering_ = entering >= 0;
    if (!entering_) return nullptr;
    const bool at_once = entering == position;
    const auto& pending = memory_.pending;
    const Index i = call_.token(position);
    entering_token_ = {at_once ? s_.retention : pending.retention_row(entering),
                       at_once ? s_.write : pending.write_row(entering), s_.key, s_.value,
                       entering};
    cpu::pack_row<T>(at_once ? call_.k_slot.row(i) : pending.key_row(entering), call_.key_dim(),
                     s_.key);
    cpu::pack_row<T>(at_once ? call_.v.row(i) : memory_.window.value_row(entering),
                     call_.value_dim(), s_.value);
    if constexpr (!std::is_same_v<SlotScalar, Acc>) {
      const auto settle = [](const auto& x) { return cpu::simd::settled(x); };
      cpu::simd::transform<Arch>(s_.key, s_.key, padded(call_.key_dim()), settle);
      cpu::simd::transform<Arch>(s_.value, s_.value, padded(call_.value_dim()), settle);
    }
    return &entering_token_;
  }
  void add_mass() noexcept {
    Acc* mass = memory_.slots.mass;
    for (Index m = 0; m < call_.slots(); ++m)
      mass[m] = multiply_add(entering_token_.retention[m], mass[m], entering_token_.write[m]);
  }

  /// What the rule for empty slots does to the logits.
  void apply_rule(const FusedSoftmaxView<Acc, Arch>& softmax, std::int64_t position) noexcept {
    if (call_.rule.reads_means()) {
      cpu::mass_terms<Arch>(memory_.slots.mass, padded(call_.slots()), s_.inverse_mass,
                            s_.log_mass);
      for (Index g = 0; g < call_.group; ++g)
        softmax.correct_logits(g, s_.inverse_mass, s_.log_mass);
    }
    const bool take_part = call_.slots_take_part(position);
    for (Index g = 0; g < call_.group; ++g) softmax.hide_slots(g, take_part);
  }

  void store_output(Index i) noexcept {
    for (Index g = 0; g < call_.group; ++g) {
      T* o = out_.o.row(i, g);
      const Acc* output = s_.output + g * padded(call_.value_dim());
      for (Index d = 0; d < call_.value_dim(); ++d) o[d] = static_cast<T>(output[d]);
    }
  }

  const HeadCall<T, SlotScalar>& call_;
  HeadState<T, SlotScalar> memory_;
  HeadOutputs<T> out_;
  StepScratch<Acc> s_;
  bool entering_ = false;
  cpu::EnteringToken<Acc> entering_token_ = {};
  const SlotScalar* slot_values_ahead_ = nullptr;
  const T* window_values_ahead_ = nullptr;
};

/// Steps one head through all tokens of a call.
template <class Arch, class T, class SlotScalar>
void step_head(const HeadCall<T, SlotScalar>& call, AttentionStateBase<T, SlotScalar>& state,
               Index sequence, Index head, const HeadOutputs<T>& outputs,
               std::byte* scratch) noexcept {
  // No second-level cache holds a state beyond this size: its values are prefetched while the keys
  // are scored. Prefetching the next head's keys as well made it slower.
  constexpr std::size_t kCacheBytes = std::size_t{2} << 20;
  Arena arena(scratch);
  const auto s = StepScratch<accumulate_t<T>>::take(arena, state.shape(), call.window, call.group);
  StepHead<Arch, T, SlotScalar> steps(call, StateAccess::head(state, sequence, head), outputs, s,
                                      state.bytes() > kCacheBytes);
  for (std::int64_t position = call.begin; position < call.end; ++position) {
    steps.token(position);
    StateAccess::keep_snapshot(state, sequence, head, position + 1);
  }
}

inline void check_workspace_arguments(const AttentionShape& shape, Index query_heads,
                                      Index workers) {
  check_argument(query_heads > 0 && query_heads % shape.kv_heads == 0, "query_heads is ",
                 query_heads, "; expected a multiple of the ", shape.kv_heads, " key/value heads");
  check_argument(workers >= 1, "workers is ", workers, "; expected 1 or more");
}

}  // namespace detail

/// Bytes of workspace that step() needs for inputs with `query_heads` query heads; the same for
/// every number of tokens seen.
/// @param workers the executor's workers()
/// @throws ArgumentError if a number is out of range.
template <class T, class SlotScalar>
std::size_t step_workspace_bytes(const AttentionStateBase<T, SlotScalar>& state, Index query_heads,
                                 Index workers = 1) {
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  return detail::step_bytes(state, query_heads) * static_cast<std::size_t>(workers);
}

/// Puts one token of every sequence into the state and writes its output: that of reference(),
/// within rounding. Costs (M + W)(Dk + Dv) multiply-adds a query head, whatever came before.
///
/// Inputs have T = 1; with cu_seqlens, sequences get one token or none. Once the workspace is large
/// enough nothing allocates, and nothing throws after the arguments have been checked. Key/value
/// heads and sequences are independent tasks of the executor. The result does not depend on the
/// executor, to the bit.
/// @throws ArgumentError as validate() says, or if a sequence has more than one token; nothing has
///   then been touched.
template <class Arch = cpu::simd::default_arch, class T, class SlotScalar>
void step(const std::type_identity_t<AttentionInputs<T>>& inputs,
          AttentionStateBase<T, SlotScalar>& state,
          const std::type_identity_t<AttentionOutputs<T>>& outputs, Workspace& workspace,
          ExecutorRef executor = kSerial) {
  validate(inputs, state, outputs);
  const AttentionShape& shape = state.shape();
  for (Index n = 0; n < shape.batch; ++n) {
    const Index count = detail::sequence_span(inputs, n).count;
    check_argument(count <= 1, "sequence ", n, " has ", count,
                   " tokens; step takes one (prefill takes many)");
  }
  const Index query_heads = outputs.o.extent(2);
  const std::size_t bytes = detail::step_bytes(state, query_heads);
  workspace.reserve(bytes * static_cast<std::size_t>(executor.workers()));
  const auto task = [&](Index i, Index worker) noexcept {
    const FlushSubnormals flush;
    const Index n = i / shape.kv_heads, head = i % shape.kv_heads;
    const auto call = detail::head_call(inputs, std::as_const(state), query_heads, n, head);
    detail::step_head<Arch>(call, state, n, head,
                            detail::head_outputs(inputs, outputs, call.group, n, head),
                            workspace.data() + static_cast<std::size_t>(worker) * bytes);
  };
  executor.run(shape.batch * shape.kv_heads, task);
  for (Index n = 0; n < shape.batch; ++n)
    detail::StateAccess::advance(state, n, detail::sequence_span(inputs, n).count);
}

NHA_ISA_NAMESPACE_END
