// SPDX-License-Identifier: MIT
// Back through the decays of a chunk: gradients of retention and write strengths, exact for every
// gate.
//
// cpu/decay.hpp computes what a query reads of a slot by Horner's rule, h_j = a_j h_(j-1) + s_j x_j
// over the tokens j that entered. Its derivatives by a_j and s_j are h_(j-1) and x_j times the
// retentions of the tokens after j: no difference of large numbers and no division, which the
// shorter ways over running sums of the log gates need and which fail for fast gates.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/simd.hpp>

#include <array>

NHA_ISA_NAMESPACE_BEGIN

/// The most tokens of a chunk that decay_gradients() takes.
inline constexpr Index kMostDecayTokens = 64;

/// One thing that the rows of a chunk read of the slots, their keys or their values, as a product
/// with a vector of the row: with the slots at the chunk's start [rows, slots], with the tokens
/// that enter [rows, count], and the derivative of the loss by the product as the row sees it
/// [rows, slots].
template <class T>
struct SlotReading {
  const T* start;
  Index start_stride;
  const T* pairs;
  Index pair_stride;
  const T* weights;
  Index weight_stride;
};

namespace detail {

/// One row's share, or that of the slots left at the chunk's end: tokens first to last of x.
template <class Arch, class T>
struct DecayChain {
  using V = simd::vec<T, Arch>;

  const EnteringGates<T>& gates;
  Index slot;
  T* d_retention;
  T* d_write;

  NHA_INLINE Index at(Index token) const noexcept { return token * gates.stride + slot; }

  /// `pair(j)` is x_j; Add: to what is there, else in its place.
  template <bool Add, class Pair>
  NHA_INLINE void run(V h, V d_h, Index end, Pair&& pair) const noexcept {
    std::array<V, kMostDecayTokens> before;
    for (Index j = gates.first; j < end; ++j) {
      before[static_cast<std::size_t>(j)] = h;
      h = simd::fma(h, simd::load<V>(gates.retention + at(j)),
                    pair(j) * simd::load<V>(gates.write + at(j)));
    }
    for (Index j = end - 1; j >= gates.first; --j) {
      const V zero(T{0});
      const V h_before = before[static_cast<std::size_t>(j)];
      const V retention_so_far = Add ? simd::load<V>(d_retention + at(j)) : zero;
      const V write_so_far = Add ? simd::load<V>(d_write + at(j)) : zero;
      simd::store(d_retention + at(j), simd::fma(d_h, h_before, retention_so_far));
      simd::store(d_write + at(j), simd::fma(d_h, pair(j), write_so_far));
      d_h = d_h * simd::load<V>(gates.retention + at(j));
    }
  }
};

}  // namespace detail

/// Gradients [count, slots] of the retention and write strengths of the tokens that enter during a
/// chunk, from `gates.first` on; written, not added to. They come from what the chunk's rows read
/// (row r sees the tokens up to r / group) and from the slots it leaves: `end_start` [slots] is the
/// sum over the dimensions of the gradient of the slots at the chunk's end times the slots at its
/// start, and `end_pairs` [count, slots] the product of that gradient with the entering tokens.
/// gates.count is at most kMostDecayTokens.
template <class Arch = simd::default_arch, class T, std::size_t Readings>
void decay_gradients(const EnteringGates<T>& gates, Index group,
                     const std::array<SlotReading<T>, Readings>& readings, const T* end_start,
                     const T* end_pairs, T* d_retention, T* d_write) noexcept {
  using V = simd::vec<T, Arch>;
  const Index rows = gates.count * group;
  for (Index slot = 0; slot < gates.stride; slot += simd::lanes<T, Arch>) {
    const detail::DecayChain<Arch, T> chain{gates, slot, d_retention, d_write};
    chain.template run<false>(
        simd::load<V>(end_start + slot), V(T{1}),
        gates.count, [&](Index j) __attribute__((always_inline)) {
          return simd::load<V>(end_pairs + j * gates.stride + slot);
        });
    for (Index row = gates.first * group; row < rows; ++row)
      for (const SlotReading<T>& reading : readings) {
        const T* pairs = reading.pairs + row * reading.pair_stride;
        chain.template run<true>(
            simd::load<V>(reading.start + row * reading.start_stride + slot),
            simd::load<V>(reading.weights + row * reading.weight_stride + slot),
            row / group + 1, [&](Index j) __attribute__((always_inline)) { return V(pairs[j]); });
      }
  }
}

NHA_ISA_NAMESPACE_END
