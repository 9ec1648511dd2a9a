// SPDX-License-Identifier: MIT
// The sizes of the chunked backward and its scratch memory, known before the call.
#pragma once

#include <nha/attention/chunked/plan.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

/// The most tokens to a chunk of the backward. Its pairs of tokens are gone through one by one, so
/// long chunks are slow.
inline constexpr Index kMostBackwardChunk = 64;

namespace detail {

/// The sizes of the chunked backward for one head.
struct BackwardPlan {
  ChunkPlan chunks;   // those of the forward pass
  Index region;       // tokens gone back through between two loads of the band
  Index band;         // columns of the band, a multiple of kRowPadding
  Index step;         // tokens that enter the slots at once, where they are kept only now and then
  Index most_chunks;  // of a sequence: the slots as of the start of each are kept

  Index padded_key_dim() const noexcept { return padded(chunks.key_dim); }
};

/// Sizes for a head that gets at most `tokens` tokens and may already have seen `past`.
/// `chunk` 0 picks one; kMostBackwardChunk is the most.
inline BackwardPlan backward_plan(const AttentionShape& shape, const HeadOptions& options,
                                  Index group, Index tokens, std::int64_t past,
                                  Index chunk) noexcept {
  BackwardPlan plan;
  plan.chunks =
      chunk_plan(shape, options, group, tokens, past, std::min<Index>(chunk, kMostBackwardChunk));
  const auto reach = static_cast<Index>(std::min<std::int64_t>(options.window, past + tokens));
  const Index length = std::max(reach, 16 * plan.chunks.chunk);
  plan.region = (length + plan.chunks.chunk - 1) / plan.chunks.chunk * plan.chunks.chunk;
  plan.band = padded(reach) + padded(std::min(plan.region, tokens)) + 2 * kRowPadding;
  // Longer products than those of a chunk are faster.
  plan.step = std::max(plan.chunks.chunk, std::min<Index>(tokens, kMostBackwardChunk));
  // A state that can be rolled back ends up to three chunks early (see ChunkCall::chunk_at).
  plan.most_chunks = (tokens + plan.chunks.chunk - 1) / plan.chunks.chunk + 3;
  return plan;
}

/// The scratch memory of a BackwardBand.
template <class Acc>
struct BandScratch {
  Acc* key_panels;    // panels [band / 16][key_dim][16]
  Acc* value_panels;  // panels [band / 16][value_dim][16]
  Acc* keys;          // [band, padded(key_dim)]
  Acc* d_keys;        // [band, padded(key_dim)]
  Acc* d_values;      // [band, value_dim]

  static BandScratch take(Arena& arena, const BackwardPlan& p) noexcept {
    const Index keys = p.chunks.window > 0 ? p.band : Index{0};
    BandScratch s;
    s.key_panels = arena.take<Acc>(keys * p.chunks.key_dim);
    s.value_panels = arena.take<Acc>(keys * p.chunks.value_dim);
    s.keys = arena.take<Acc>(keys * p.padded_key_dim());
    s.d_keys = arena.take<Acc>(keys * p.padded_key_dim());
    s.d_values = arena.take<Acc>(p.band * p.chunks.value_dim);
    return s;
  }
};

/// The scratch memory of one worker, but for the copies of the slots.
template <class Acc>
struct BackwardScratch {
  // Queries and what came back for their outputs.
  Acc* q_slot;    // [rows, padded(key_dim)], scaled
  Acc* q_window;  // [rows, padded(key_dim)], scaled
  Acc* d_output;  // [rows, value_dim]
  Acc* d_query;   // [rows, padded(key_dim)]
  // Rows over slots, then a block of the window: logits and then weights; d_weights and d_logits.
  Acc* scores;                 // [rows, slots + block]
  Acc* d_scores;               // [rows, slots + block]
  SoftmaxState<Acc>* softmax;  // [rows]
  Acc* lse;                    // [rows]
  Acc* mean;                   // [rows]: sum of weight times d_weight
  // Slots: keys and values at the chunk's start, turned for the products that want them so.
  Acc* slot_keys;      // [slots, padded(key_dim)]
  Acc* slot_values;    // [value_dim, slots]
  Acc* start_logits;   // [rows, slots]: q_slot . slot keys at the chunk's start
  Acc* start_values;   // [rows, slots]: d_output . slot values at the chunk's start
  Acc* products;       // [rows, slots]: q_slot . slot keys as the row sees them
  Acc* key_pairs;      // [rows, padded(chunk)]: q_slot . entering keys
  Acc* value_pairs;    // [rows, padded(chunk)]: d_output . entering values
  Acc* key_weights;    // [rows, padded(chunk)]: d_logits on the entering tokens
  Acc* value_weights;  // [rows, padded(chunk)]: weights on the entering tokens
  // The tokens that enter during the chunk.
  Acc* retention;         // [step, slots]
  Acc* write;             // [step, slots]
  Acc* d_log_retention;   // [chunk, slots]
  Acc* d_write;           // [chunk, slots]
  Acc* strength;          // [chunk, slots]
  Acc* total;             // [slots]
  Acc* entering_keys;     // [chunk, padded(key_dim)]
  Acc* key_panels;        // panels [padded(chunk) / 16][key_dim][16]
  Acc* value_panels;      // panels [padded(chunk) / 16][value_dim][16]
  Acc* d_entering_key;    // [chunk, padded(key_dim)]
  Acc* d_entering_value;  // [chunk, value_dim]
  Acc* end_pairs_turned;  // [slots, padded(chunk)]
  Acc* end_pairs;         // [chunk, slots]: gradient of the slots at the end . entering tokens
  Acc* end_start;         // [slots]: gradient of the slots at the end . slots at the start
  Acc* mass;              // [chunk, slots]
  Acc* inverse_mass;      // [chunk, slots]
  Acc* log_mass;          // [chunk, slots]
  Acc* d_mass;            // [chunk, slots]
  // Gradients of the slots as of the place that has been reached, going back.
  Acc* d_slot_keys;    // [slots, padded(key_dim)]
  Acc* d_slot_values;  // [slots, value_dim]
  Acc* d_slot_mass;    // [slots]
  BandScratch<Acc> band;
  UpdateScratch<Acc> update;

  static BackwardScratch take(Arena& arena, const BackwardPlan& plan) noexcept {
    const ChunkPlan& p = plan.chunks;
    const Index key_dim = plan.padded_key_dim();
    const Index rows = p.rows();
    const Index padded_chunk = padded(p.chunk);
    BackwardScratch s;
    s.q_slot = arena.take<Acc>(rows * key_dim);
    s.q_window = arena.take<Acc>(rows * key_dim);
    s.d_output = arena.take<Acc>(rows * p.value_dim);
    s.d_query = arena.take<Acc>(rows * key_dim);
    s.scores = arena.take<Acc>(rows * p.row_stride());
    s.d_scores = arena.take<Acc>(rows * p.row_stride());
    s.softmax = arena.take<SoftmaxState<Acc>>(rows);
    s.lse = arena.take<Acc>(rows);
    s.mean = arena.take<Acc>(rows);
    s.slot_keys = arena.take<Acc>(p.slots * key_dim);
    s.slot_values = arena.take<Acc>(p.value_dim * p.slots);
    for (Acc** rows_of_slots : {&s.start_logits, &s.start_values, &s.products})
      *rows_of_slots = arena.take<Acc>(rows * p.slots);
    for (Acc** pairs : {&s.key_pairs, &s.value_pairs, &s.key_weights, &s.value_weights})
      *pairs = arena.take<Acc>(rows * padded_chunk);
    for (Acc** gates : {&s.retention, &s.write}) *gates = arena.take<Acc>(plan.step * p.slots);
    for (Acc** tokens : {&s.d_log_retention, &s.d_write, &s.strength, &s.end_pairs, &s.mass,
                         &s.inverse_mass, &s.log_mass, &s.d_mass})
      *tokens = arena.take<Acc>(p.chunk * p.slots);
    s.total = arena.take<Acc>(p.slots);
    s.entering_keys = arena.take<Acc>(p.chunk * key_dim);
    s.key_panels = arena.take<Acc>(padded_chunk * p.key_dim);
    s.value_panels = arena.take<Acc>(padded_chunk * p.value_dim);
    s.d_entering_key = arena.take<Acc>(p.chunk * key_dim);
    s.d_entering_value = arena.take<Acc>(p.chunk * p.value_dim);
    s.end_pairs_turned = arena.take<Acc>(p.slots * padded_chunk);
    s.end_start = arena.take<Acc>(p.slots);
    s.d_slot_keys = arena.take<Acc>(p.slots * key_dim);
    s.d_slot_values = arena.take<Acc>(p.slots * p.value_dim);
    s.d_slot_mass = arena.take<Acc>(p.slots);
    s.band = BandScratch<Acc>::take(arena, plan);
    ChunkPlan steps = p;
    steps.chunk = plan.step;
    s.update = UpdateScratch<Acc>::take(arena, steps);
    return s;
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
