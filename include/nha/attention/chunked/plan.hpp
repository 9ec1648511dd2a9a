// SPDX-License-Identifier: MIT
// The sizes of the chunked algorithm and its scratch memory, known before the call.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The sizes of the chunked algorithm for one head, which fix its scratch memory before the call.
struct ChunkPlan {
  Index window;
  Index slot_delay;
  Index group;  // query heads to a key/value head
  Index chunk;  // tokens
  Index block;  // columns of scores at a time, a multiple of kRowPadding
  Index band;   // tokens kept packed, a multiple of kRowPadding
  Index slots;  // padded
  Index key_dim;
  Index value_dim;  // padded

  Index rows() const noexcept { return chunk * group; }
  Index row_stride() const noexcept { return slots + block; }
};

// Windows longer than this are long: what a query costs is reading them.
inline constexpr Index kLongWindow = 512;
// Keys and values of more numbers than this, 1 MiB of float, share a second-level cache of 1 to 2
// MiB with the rest of the call no longer: they come from beyond the caches of a core.
inline constexpr Index kFarNumbers = Index{1} << 18;

/// The chunk that was fastest where it was measured (AVX2, one core). Pairs inside a
/// chunk cost chunk * (D + M) a token, so a chunk is as short as still fills the products' rows, of
/// which a token gives one for each query head; a long window is read for more rows at once, the
/// more the farther away it lies. `row` numbers are a key and a value.
inline Index fastest_chunk(Index reach, Index row, Index group) noexcept {
  if (reach <= kLongWindow) return group < 4 ? 16 : 8;
  if (reach * row <= kFarNumbers) return group <= 2 ? 32 : 16;
  return group <= 2 ? 64 : group <= 4 ? 32 : 16;
}

/// Sizes for a head that gets at most `tokens` tokens at once and may already have seen `past`.
/// `chunk` 0 picks one.
NHA_NOINLINE inline ChunkPlan chunk_plan(const AttentionShape& shape, const HeadOptions& options,
                                         Index group, Index tokens, std::int64_t past,
                                         Index chunk) noexcept {
  ChunkPlan plan;
  plan.window = options.window;
  plan.slot_delay = options.slot_delay;
  plan.group = group;
  plan.key_dim = shape.key_dim;
  plan.slots = padded(shape.slots);
  plan.value_dim = padded(shape.value_dim);
  const auto reach = static_cast<Index>(std::min<std::int64_t>(options.window, past + tokens));
  plan.chunk =
      std::min(chunk > 0 ? chunk : fastest_chunk(reach, plan.key_dim + plan.value_dim, group),
               std::max<Index>(tokens, 1));
  // A window that is not long is one block, with nothing to rescale; of a long one a block's
  // scores, 32 or 64 rows of 256, take about the nearest cache.
  const Index visible = padded(reach + plan.chunk) + kRowPadding;
  plan.block = std::max(std::min(visible, reach > kLongWindow ? Index{256} : Index{640}),
                        padded(plan.chunk) + kRowPadding);
  // Room for several chunks beside the window, so that it is moved down only now and then; all the
  // tokens there are, where that is less.
  const Index room = std::max<Index>(reach, 16 * plan.chunk);
  plan.band = std::min(visible + padded(room),
                       static_cast<Index>(padded(reach) + padded(tokens)) + 2 * kRowPadding);
  return plan;
}

/// How much of a sequence a call gets: new tokens, and those the state has seen.
struct CallSize {
  Index tokens;
  std::int64_t past;
};

/// Of all calls with at most `tokens` tokens those of which one needs most memory. All of it grows
/// with the tokens and with the part of the window they reach, but for where more of it gives
/// longer chunks: they are fewer, and so is what is kept for each. Hence either there is as much as
/// there can be, or as much as just gives shorter chunks.
inline std::array<CallSize, 3> largest_calls(const AttentionShape& shape, Index tokens) noexcept {
  const auto reaching = [&](Index reach) {
    const Index count = std::min(tokens, reach);
    return CallSize{count, reach - count};
  };
  return {CallSize{tokens, std::int64_t{1} << 48}, reaching(kLongWindow),
          reaching(kFarNumbers / (shape.key_dim + padded(shape.value_dim)))};
}

/// The scratch memory of a ChunkReader.
template <class Acc>
struct ReadScratch {
  Acc* q_slot;                 // [rows, padded(key_dim)], scaled
  Acc* q_window;               // [rows, padded(key_dim)], scaled
  Acc* scores;                 // [rows, slots + block]: logits, then weights; slots first
  Acc* pairs;                  // [rows, padded(chunk)]: q_slot . entering slot keys
  Acc* output;                 // [rows, value_dim]
  Acc* share;                  // [rows]: weight on the slots
  Acc* factor;                 // [rows]: rescaling of a block
  SoftmaxState<Acc>* softmax;  // [rows]
  Acc* band_keys;              // panels [band / 16][key_dim][16]
  Acc* band_values;            // [band, value_dim]
  Acc* entering_panels;        // panels [padded(chunk) / 16][key_dim][16]
  Acc* mass;                   // [chunk, slots]: mass as each token sees it; mass_corrected only
  Acc* inverse_mass;           // [chunk, slots]
  Acc* log_mass;               // [chunk, slots]

  NHA_NOINLINE static ReadScratch take(Arena& arena, const ChunkPlan& p) noexcept {
    ReadScratch s;
    const Index key_stride = padded(p.key_dim);
    s.q_slot = arena.take<Acc>(p.rows() * key_stride);
    s.q_window = arena.take<Acc>(p.rows() * key_stride);
    s.scores = arena.take<Acc>(p.rows() * p.row_stride());
    s.pairs = arena.take<Acc>(p.rows() * padded(p.chunk));
    s.output = arena.take<Acc>(p.rows() * p.value_dim);
    s.share = arena.take<Acc>(p.rows());
    s.factor = arena.take<Acc>(p.rows());
    s.softmax = arena.take<SoftmaxState<Acc>>(p.rows());
    s.band_keys = arena.take<Acc>(p.window > 0 ? p.band * p.key_dim : 0);
    s.band_values = arena.take<Acc>(p.band * p.value_dim);
    s.entering_panels = arena.take<Acc>(padded(p.chunk) * p.key_dim);
    s.mass = arena.take<Acc>(p.chunk * p.slots);
    s.inverse_mass = arena.take<Acc>(p.chunk * p.slots);
    s.log_mass = arena.take<Acc>(p.chunk * p.slots);
    return s;
  }
};

/// The scratch memory of a ChunkUpdate.
template <class Acc>
struct UpdateScratch {
  Acc* entering_keys;    // [chunk, padded(key_dim)]
  Acc* entering_values;  // [chunk, value_dim]
  Acc* strength;         // [chunk, slots]: what is left of write at the chunk's end
  Acc* total;            // [slots]: product of the chunk's retentions

  static UpdateScratch take(Arena& arena, const ChunkPlan& p) noexcept {
    UpdateScratch s;
    s.entering_keys = arena.take<Acc>(p.chunk * padded(p.key_dim));
    s.entering_values = arena.take<Acc>(p.chunk * p.value_dim);
    s.strength = arena.take<Acc>(p.chunk * p.slots);
    s.total = arena.take<Acc>(p.slots);
    return s;
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
