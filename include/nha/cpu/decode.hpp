// SPDX-License-Identifier: MIT
// One token against the memories of a head. Each pass updates a memory and reads it for all queries
// of the group at once, so that each number is moved once.
//
// Slot keys lie transposed, [Dk, padded(M)], so logits of neighbouring slots are one vector. Window
// keys lie in rows, and the sums of as many rows as a vector has lanes end in one vector.
//
// While keys are scored, the values from `ahead` on can be prefetched. Where the state lies in
// memory, its pieces are too short for the processor to foresee the next.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/stored_tile.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// A token that enters the slots: retention and write strengths [padded(M)], slot key [padded(Dk)]
/// and value [padded(Dv)]. Its position decides how slots of a half type are rounded.
template <class Acc>
struct EnteringToken {
  const Acc* retention;
  const Acc* write;
  const Acc* key;
  const Acc* value;
  std::int64_t position = 0;
};

/// A row of numbers for each query of a group.
template <class T>
struct QueryRows {
  T* data;
  Index stride;
};

namespace detail {

/// Numbers to a line of the cache.
template <class T>
inline constexpr Index kLine = Index{64} / static_cast<Index>(sizeof(T));

/// Prefetches `Count` numbers at a place of what is read next, if anything is.
template <Index Count, class T>
NHA_INLINE void fetch(const T* ahead, Index place) noexcept {
  if (ahead == nullptr) return;
  for (Index i = 0; i < Count; i += kLine<T>) __builtin_prefetch(ahead + place + i);
}

/// Calls f with `count`, 1 to Most, as a constant.
template <int Most, class F>
NHA_INLINE void with_count(Index count, F&& f) noexcept {
  if constexpr (Most > 1) {
    if (count < Most) return with_count<Most - 1>(count, f);
  }
  f(std::integral_constant<int, Most>());
}

/// Calls f(rows, vectors, first query, first column), the counts constants, for tiles that cover
/// `queries` rows of `columns` numbers, a multiple of kRowPadding. A tile's sums fit in registers.
/// All queries of some columns come before the next columns, so that the later ones find what the
/// first has read in the nearest cache. Wide: vectors of the widest tiles.
template <class Acc, class Arch, int Wide = 4, class F>
NHA_INLINE void for_decode_tiles(Index queries, Index columns, F&& f) noexcept {
  constexpr Index kLanes = simd::lanes<Acc, Arch>;
  constexpr int kNarrow = static_cast<int>(std::min<Index>(2, kRowPadding / kLanes));
  constexpr int kRows = 4;
  // With 16 registers a wide tile has room for the sums of one query only.
  constexpr int kWideRows = simd::registers >= 32 ? kRows : 1;
  assert(is_padded(columns));
  const auto sweep = [&](auto most_rows, auto vectors, Index column) {
    for (Index first = 0; first < queries; first += most_rows)
      with_count<most_rows>(std::min<Index>(most_rows, queries - first), [&](auto rows) {
        f(rows, vectors, first, column);
      });
  };
  Index column = 0;
  if (queries <= kWideRows || kWideRows == kRows)
    for (; column + Wide * kLanes <= columns; column += Wide * kLanes)
      sweep(std::integral_constant<int, kWideRows>(), std::integral_constant<int, Wide>(), column);
  for (; column < columns; column += kNarrow * kLanes)
    sweep(std::integral_constant<int, kRows>(), std::integral_constant<int, kNarrow>(), column);
}

}  // namespace detail

/// Logits [queries, padded(M)] of queries [queries, padded(Dk)] against the slot keys, after the
/// token has entered them (null: none does): key <- retention . key + write (x) token key. Where a
/// token enters, numbers from `ahead` on are prefetched, as many as the keys have. At least that
/// many must be there.
template <class Arch = simd::default_arch, class T>
void score_slots(const SlotMemoryView<T>& slots, const EnteringToken<accumulate_t<T>>* token,
                 Index queries, QueryRows<const accumulate_t<T>> query,
                 QueryRows<accumulate_t<T>> logits, const T* ahead = nullptr) noexcept {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  const auto tile = [&](auto rows, auto vectors, Index first, Index slot,
                        auto enters) NHA_INLINE_LAMBDA {
    constexpr int kRows = decltype(rows)::value;
    constexpr int kVectors = decltype(vectors)::value;
    using Tile = StoredTile<Arch, T, kVectors>;
    V keep[kVectors], add[kVectors], sum[kRows][kVectors];
    if constexpr (enters) {
      Tile::load_columns(token->retention + slot, keep);
      Tile::load_columns(token->write + slot, add);
    }
    for (auto& row : sum) NHA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      row[v] = V(Acc{0});
    }
    TileWriter<Arch, T, kVectors> writer(enters ? slots.key_dither(token->position, 0, 0) : 0,
                                         slot);
    // Copies, which stores to the slots cannot change.
    const Acc* const entering = enters ? token->key : nullptr;
    const Acc* const from = query.data + first * query.stride;
    const Index query_stride = query.stride;
    const Index stride = slots.key_stride();
    const Index key_dim = slots.key_dim;
    T* at = slots.key + slot;
    for (Index d = 0; d < key_dim; ++d, at += stride) {
      V key[kVectors];
      Tile::load(at, key);
      if constexpr (enters) {
        detail::fetch<kVectors * Tile::kLanes>(ahead, d * stride + slot);
        NHA_UNROLL
        for (int v = 0; v < kVectors; ++v)
          key[v] = simd::fma(keep[v], key[v], add[v] * V(entering[d]));
        writer.store(at, key);
      }
      NHA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        NHA_UNROLL
        for (int v = 0; v < kVectors; ++v)
          sum[r][v] = simd::fma(V(from[r * query_stride + d]), key[v], sum[r][v]);
      }
    }
    NHA_UNROLL
    for (int r = 0; r < kRows; ++r)
      Tile::store_columns(logits.data + (first + r) * logits.stride + slot, sum[r]);
  };
  detail::for_decode_tiles<Acc, Arch>(
      queries, slots.key_stride(),
      [&](auto rows, auto vectors, Index first, Index slot) NHA_INLINE_LAMBDA {
        if (token != nullptr && first == 0)  // later queries read what is there
          tile(rows, vectors, first, slot, std::true_type());
        else
          tile(rows, vectors, first, slot, std::false_type());
      });
}

/// Output [queries, padded(Dv)] = weights [queries, M] * slot values, after the token has entered
/// them: value <- retention . value + write (x) token value.
template <class Arch = simd::default_arch, class T>
void read_slots(const SlotMemoryView<T>& slots, const EnteringToken<accumulate_t<T>>* token,
                Index queries, QueryRows<const accumulate_t<T>> weights,
                QueryRows<accumulate_t<T>> output) noexcept {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  const auto tile = [&](auto rows, auto vectors, Index first, Index column,
                        auto enters) NHA_INLINE_LAMBDA {
    constexpr int kRows = decltype(rows)::value;
    constexpr int kVectors = decltype(vectors)::value;
    using Tile = StoredTile<Arch, T, kVectors>;
    V entering[kVectors], sum[kRows][kVectors];
    if constexpr (enters) Tile::load_columns(token->value + column, entering);
    for (auto& row : sum) NHA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      row[v] = V(Acc{0});
    }
    TileWriter<Arch, T, kVectors> writer(enters ? slots.value_dither(token->position, 0, 0) : 0,
                                         column);
    const Acc* const retention = enters ? token->retention : nullptr;
    const Acc* const write = enters ? token->write : nullptr;
    const Acc* const from = weights.data + first * weights.stride;
    const Index weight_stride = weights.stride;
    const Index stride = slots.value_stride();
    const Index count = slots.count;
    T* at = slots.value + column;
    for (Index m = 0; m < count; ++m, at += stride) {
      V value[kVectors];
      Tile::load(at, value);
      if constexpr (enters) {
        NHA_UNROLL
        for (int v = 0; v < kVectors; ++v)
          value[v] = simd::fma(V(retention[m]), value[v], V(write[m]) * entering[v]);
        writer.store(at, value);
      }
      NHA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        NHA_UNROLL
        for (int v = 0; v < kVectors; ++v)
          sum[r][v] = simd::fma(V(from[r * weight_stride + m]), value[v], sum[r][v]);
      }
    }
    NHA_UNROLL
    for (int r = 0; r < kRows; ++r)
      Tile::store_columns(output.data + (first + r) * output.stride + column, sum[r]);
  };
  detail::for_decode_tiles<Acc, Arch>(queries, slots.value_stride(),
                                      [&](auto rows, auto vectors, Index first, Index column)
                                          NHA_INLINE_LAMBDA {
                                            if (token != nullptr && first == 0)
                                              tile(rows, vectors, first, column, std::true_type());
                                            else
                                              tile(rows, vectors, first, column, std::false_type());
                                          });
}

/// Logits [queries, visible] of queries [queries, padded(Dk)] against the window's tokens from
/// `oldest` on. Meanwhile as many numbers are prefetched from `ahead` on, from the same places. At
/// least as many as in the window's keys must be there.
template <class Arch = simd::default_arch, class T>
void score_window(const SlidingWindowView<T>& window, std::int64_t oldest, Index visible,
                  Index queries, QueryRows<const accumulate_t<T>> query,
                  QueryRows<accumulate_t<T>> logits, const T* ahead = nullptr) noexcept {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  constexpr Index kLanes = simd::lanes<Acc, Arch>;
  const Index stride = window.key_stride();
  const auto block = [&](const T* key, Index count, Index index) NHA_INLINE_LAMBDA {
    for (Index i = 0; i < count * stride; i += detail::kLine<T>)
      detail::fetch<1>(ahead, key - window.key + i);
    for (Index g = 0; g < queries; ++g) {
      V sum[kLanes];
      NHA_UNROLL
      for (int r = 0; r < kLanes; ++r) {
        sum[r] = V(Acc{0});
      }
      for (Index d = 0; d < stride; d += kLanes) {
        const V q = simd::load<V>(query.data + g * query.stride + d);
        NHA_UNROLL
        for (int r = 0; r < kLanes; ++r) {
          const Index row = std::min<Index>(r, count - 1);  // rows past the last repeat it
          sum[r] = simd::fma(q, simd::load_wide<V>(key + row * stride + d), sum[r]);
        }
      }
      const V sums = simd::reduce_add_each(sum);
      Acc* to = logits.data + g * logits.stride + index;
      if (count >= kLanes) {
        simd::store(to, sums);
      } else {
        Acc some[kLanes];
        simd::store(some, sums);
        std::copy_n(some, count, to);
      }
    }
  };
  window.for_runs(oldest, visible, [&](Index first, const T* key, const T*, Index count) {
    Index i = 0;
    for (; i + kLanes <= count; i += kLanes) block(key + i * stride, kLanes, first + i);
    if (i < count) block(key + i * stride, count - i, first + i);
  });
}

/// Output [queries, padded(Dv)] += weights [queries, visible] * the values of the window's tokens
/// from `oldest` on.
template <class Arch = simd::default_arch, class T>
void read_window(const SlidingWindowView<T>& window, std::int64_t oldest, Index visible,
                 Index queries, QueryRows<const accumulate_t<T>> weights,
                 QueryRows<accumulate_t<T>> output) noexcept {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  const Index stride = window.value_stride();
  window.for_runs(oldest, visible, [&](Index index, const T*, const T* value, Index count) {
    // Nothing but the sums takes registers: enough of them that none waits for itself.
    detail::for_decode_tiles<Acc, Arch, simd::registers >= 32 ? 4 : 8>(
        queries, stride, [&](auto rows, auto vectors, Index first, Index column) NHA_INLINE_LAMBDA {
          constexpr int kRows = decltype(rows)::value;
          constexpr int kVectors = decltype(vectors)::value;
          Acc* to = output.data + first * output.stride + column;
          const Acc* from = weights.data + first * weights.stride + index;
          using Tile = StoredTile<Arch, T, kVectors>;
          V sum[kRows][kVectors];
          NHA_UNROLL
          for (int r = 0; r < kRows; ++r) Tile::load_columns(to + r * output.stride, sum[r]);
          for (Index i = 0; i < count; ++i) {
            V at[kVectors];
            Tile::load(value + i * stride + column, at);
            NHA_UNROLL
            for (int r = 0; r < kRows; ++r) {
              NHA_UNROLL
              for (int v = 0; v < kVectors; ++v)
                sum[r][v] = simd::fma(V(from[r * weights.stride + i]), at[v], sum[r][v]);
            }
          }
          NHA_UNROLL
          for (int r = 0; r < kRows; ++r) Tile::store_columns(to + r * output.stride, sum[r]);
        });
  });
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
