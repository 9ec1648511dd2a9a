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
  // A state that can be rolled back ends up to three chunks early (ChunkedCall::chunk_at).
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

/// What both halves of backward read and write: rows of queries.
template <class Acc>
struct RowScratch {
  Acc* q_slot;    // [rows, padded(key_dim)], scaled
  Acc* q_window;  // [rows, padded(key_dim)], scaled
  Acc* d_output;  // [rows, value_dim]
  // Slots, then a block of the window: logits and then weights; d_weights and then d_logits.
  Acc* scores;    // [rows, slots + block]
  Acc* d_scores;  // [rows, slots + block]

  static RowScratch take(Arena& arena, const ChunkPlan& p) noexcept {
    RowScratch s;
    s.q_slot = arena.take<Acc>(p.rows() * padded(p.key_dim));
    s.q_window = arena.take<Acc>(p.rows() * padded(p.key_dim));
    s.d_output = arena.take<Acc>(p.rows() * p.value_dim);
    s.scores = arena.take<Acc>(p.rows() * p.row_stride());
    s.d_scores = arena.take<Acc>(p.rows() * p.row_stride());
    return s;
  }
};

/// The scratch memory of a ChunkBackward.
template <class Acc>
struct WindowBackwardScratch {
  Acc* d_query;                // [rows, padded(key_dim)]
  SoftmaxState<Acc>* softmax;  // [rows]
  Acc* lse;                    // [rows]
  Acc* mean;                   // [rows]: sum of weight times d_weight
  BandScratch<Acc> band;

  static WindowBackwardScratch take(Arena& arena, const BackwardPlan& plan) noexcept {
    const ChunkPlan& p = plan.chunks;
    WindowBackwardScratch s;
    s.d_query = arena.take<Acc>(p.rows() * padded(p.key_dim));
    s.softmax = arena.take<SoftmaxState<Acc>>(p.rows());
    s.lse = arena.take<Acc>(p.rows());
    s.mean = arena.take<Acc>(p.rows());
    s.band = BandScratch<Acc>::take(arena, plan);
    return s;
  }
};

/// The scratch memory of a SlotBackward.
template <class Acc>
struct SlotBackwardScratch {
  Acc* d_query;  // [rows, padded(key_dim)]
  // Keys and values at the chunk's start, turned for the products that want them so.
  Acc* keys;    // [slots, padded(key_dim)]
  Acc* values;  // [value_dim, slots]
  // What the rows read: queries with keys, and d_output with values.
  Acc* start_logits;   // [rows, slots], with the slots at the chunk's start
  Acc* start_values;   // [rows, slots]
  Acc* key_pairs;      // [rows, padded(chunk)], with the entering tokens
  Acc* value_pairs;    // [rows, padded(chunk)]
  Acc* products;       // [rows, slots]: queries with keys as the row sees them
  Acc* key_weights;    // [rows, padded(chunk)]: d_logits on the entering tokens
  Acc* value_weights;  // [rows, padded(chunk)]: weights on the entering tokens
  // The tokens that enter during the chunk, and gradients of what they do.
  Acc* retention;         // [chunk, slots]
  Acc* write;             // [chunk, slots]
  Acc* d_log_retention;   // [chunk, slots]
  Acc* d_write;           // [chunk, slots]
  Acc* strength;          // [chunk, slots]
  Acc* total;             // [slots]
  Acc* entering_keys;     // [chunk, padded(key_dim)]
  Acc* key_panels;        // panels [padded(chunk) / 16][key_dim][16]
  Acc* value_panels;      // panels [padded(chunk) / 16][value_dim][16]
  Acc* d_entering_key;    // [chunk, padded(key_dim)]
  Acc* d_entering_value;  // [chunk, value_dim]
  // Gradient of the slots at the chunk's end with the entering tokens and the slots at its start.
  Acc* end_pairs_turned;  // [slots, padded(chunk)]
  Acc* end_pairs;         // [chunk, slots]
  Acc* end_start;         // [slots]
  // Masses as each token sees them, and gradients of those.
  Acc* mass;          // [chunk, slots]
  Acc* inverse_mass;  // [chunk, slots]
  Acc* log_mass;      // [chunk, slots]
  Acc* d_mass;        // [chunk, slots]
  // Gradients of the slots as of the place that has been reached, going back.
  Acc* d_keys;        // [slots, padded(key_dim)]
  Acc* d_values;      // [slots, value_dim]
  Acc* d_start_mass;  // [slots]

  static SlotBackwardScratch take(Arena& arena, const ChunkPlan& p) noexcept {
    const Index key_dim = padded(p.key_dim);
    const Index padded_chunk = padded(p.chunk);
    SlotBackwardScratch s;
    s.d_query = arena.take<Acc>(p.rows() * key_dim);
    s.keys = arena.take<Acc>(p.slots * key_dim);
    s.values = arena.take<Acc>(p.value_dim * p.slots);
    for (Acc** rows : {&s.start_logits, &s.start_values, &s.products})
      *rows = arena.take<Acc>(p.rows() * p.slots);
    for (Acc** pairs : {&s.key_pairs, &s.value_pairs, &s.key_weights, &s.value_weights})
      *pairs = arena.take<Acc>(p.rows() * padded_chunk);
    for (Acc** tokens : {&s.retention, &s.write, &s.d_log_retention, &s.d_write, &s.strength,
                         &s.end_pairs, &s.mass, &s.inverse_mass, &s.log_mass, &s.d_mass})
      *tokens = arena.take<Acc>(p.chunk * p.slots);
    s.total = arena.take<Acc>(p.slots);
    s.entering_keys = arena.take<Acc>(p.chunk * key_dim);
    s.key_panels = arena.take<Acc>(padded_chunk * p.key_dim);
    s.value_panels = arena.take<Acc>(padded_chunk * p.value_dim);
    s.d_entering_key = arena.take<Acc>(p.chunk * key_dim);
    s.d_entering_value = arena.take<Acc>(p.chunk * p.value_dim);
    s.end_pairs_turned = arena.take<Acc>(p.slots * padded_chunk);
    s.end_start = arena.take<Acc>(p.slots);
    s.d_keys = arena.take<Acc>(p.slots * key_dim);
    s.d_values = arena.take<Acc>(p.slots * p.value_dim);
    s.d_start_mass = arena.take<Acc>(p.slots);
    return s;
  }
};

/// The scratch memory of one worker, but for the copies of the slots.
template <class Acc>
struct BackwardScratch {
  RowScratch<Acc> rows;
  WindowBackwardScratch<Acc> window;
  SlotBackwardScratch<Acc> slots;
  UpdateScratch<Acc> update;
  Acc* retention;  // [step, slots], of the passes over the slots
  Acc* write;      // [step, slots]

  static BackwardScratch take(Arena& arena, const BackwardPlan& plan) noexcept {
    BackwardScratch s;
    s.rows = RowScratch<Acc>::take(arena, plan.chunks);
    s.window = WindowBackwardScratch<Acc>::take(arena, plan);
    s.slots = SlotBackwardScratch<Acc>::take(arena, plan.chunks);
    ChunkPlan steps = plan.chunks;
    steps.chunk = plan.step;
    s.update = UpdateScratch<Acc>::take(arena, steps);
    s.retention = arena.take<Acc>(plan.step * plan.chunks.slots);
    s.write = arena.take<Acc>(plan.step * plan.chunks.slots);
    return s;
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
