// SPDX-License-Identifier: MIT
// The backward of the decays of a chunk: gradients of retention and write strengths, exact for
// every gate.
//
// cpu/decay.hpp computes what a row reads of a slot by Horner's rule, h_j = a_j h_(j-1) + s_j x_j
// over the tokens j that entered. Written out, that is a sum of a term w_k s_k x_k for each token k
// and a term for the start. The weight w_k is the product of a_(k+1) ... a_i, with i the newest
// token that the row sees. The derivative by s_k is w_k x_k. The derivative by log a_j is the sum
// of the terms of the start and of all tokens before j, over all rows that see j.
//
// So the rows are visited from the newest token back, with running sums of w_k x_k over them. When
// the rows of token j have been added, these sums times s_k are the terms wanted for j. Nothing but
// products and sums of wanted terms occurs. Shorter ways over running sums of the log gates need
// differences of large numbers, or division, and fail for fast gates.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/simd.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

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

/// decay_gradients() for the slots [slot, slot + Vectors * lanes).
template <class Arch, int Vectors, class T, std::size_t Readings>
class DecayGradientsTile {
  using V = simd::vec<T, Arch>;
  static constexpr Index kLanes = simd::lanes<T, Arch>;

 public:
  NHA_INLINE DecayGradientsTile(const EnteringGates<T>& gates, Index slot, T* d_log_retention,
                                T* d_write) noexcept
      : gates_(gates), slot_(slot), d_log_retention_(d_log_retention), d_write_(d_write) {}

  /// Begins with the slots left at the chunk's end.
  NHA_INLINE void begin(const T* end_start, const T* end_pairs) noexcept {
    V weight[Vectors];
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      weight[v] = V(T{1});
    }
    for (Index k = gates_.count - 1; k >= gates_.first; --k) NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      const Index at = k * gates_.stride + slot_ + v * kLanes;
      simd::store(d_write_ + at, V(weight[v] * simd::load<V>(end_pairs + at)));
      weight[v] = weight[v] * simd::load<V>(gates_.retention + at);
    }
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v)
      of_start_[v] = weight[v] * simd::load<V>(end_start + slot_ + v * kLanes);
  }

  /// Adds a row of a token. The last row of each token completes its derivative by log retention.
  template <bool Last>
  NHA_INLINE void add(Index token, Index row,
                      const std::array<SlotReading<T>, Readings>& readings) noexcept {
    constexpr int kReadings = static_cast<int>(Readings);
    V weight[kReadings][Vectors], of_older[Vectors];
    const T *pairs[kReadings], *starts[kReadings];
    NHA_UNROLL
    for (int r = 0; r < kReadings; ++r) {
      const SlotReading<T>& reading = readings[static_cast<std::size_t>(r)];
      pairs[r] = reading.pairs + row * reading.pair_stride;
      starts[r] = reading.start + row * reading.start_stride + slot_;
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v)
        weight[r][v] =
            simd::load<V>(reading.weights + row * reading.weight_stride + slot_ + v * kLanes);
    }
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      of_older[v] = V(T{0});
    }
    const auto add_token = [&](Index k, auto is_older) NHA_INLINE_LAMBDA {
      V pair[kReadings];
      NHA_UNROLL
      for (int r = 0; r < kReadings; ++r) pair[r] = V(pairs[r][k]);
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v) {
        const Index at = k * gates_.stride + slot_ + v * kLanes;
        const V retention = simd::load<V>(gates_.retention + at);
        V d_write = simd::load<V>(d_write_ + at);
        NHA_UNROLL
        for (int r = 0; r < kReadings; ++r) {
          d_write = simd::fma(weight[r][v], pair[r], d_write);
          weight[r][v] = weight[r][v] * retention;
        }
        simd::store(d_write_ + at, d_write);
        if constexpr (decltype(is_older)::value)
          of_older[v] = simd::fma(simd::load<V>(gates_.write + at), d_write, of_older[v]);
      }
    };
    add_token(token, std::false_type());
    for (Index k = token - 1; k >= gates_.first; --k) add_token(k, std::bool_constant<Last>());
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      NHA_UNROLL
      for (int r = 0; r < kReadings; ++r)
        of_start_[v] = simd::fma(weight[r][v], simd::load<V>(starts[r] + v * kLanes), of_start_[v]);
      if constexpr (Last)
        simd::store(d_log_retention_ + token * gates_.stride + slot_ + v * kLanes,
                    V(of_older[v] + of_start_[v]));
    }
  }

 private:
  const EnteringGates<T>& gates_;
  Index slot_;
  T* d_log_retention_;
  T* d_write_;
  V of_start_[Vectors];  // sum of the terms of the start
};

}  // namespace detail

/// Gradients [count, slots] of the logarithms of the retentions, and of the write strengths, of the
/// tokens that enter during a chunk, from `gates.first` on; written, not added to. They come from
/// what the chunk's rows read (row r sees the tokens up to r / group) and from the slots it leaves:
/// `end_start` [slots] is the sum over the dimensions of the gradient of the slots at the chunk's
/// end times the slots at its start, and `end_pairs` [count, slots] the product of that gradient
/// with the entering tokens.
template <class Arch = simd::default_arch, class T, std::size_t Readings>
void decay_gradients(const EnteringGates<T>& gates, Index group,
                     const std::array<SlotReading<T>, Readings>& readings, const T* end_start,
                     const T* end_pairs, T* d_log_retention, T* d_write) noexcept {
  constexpr Index kLanes = simd::lanes<T, Arch>;
  constexpr int kVectors = kRowPadding / kLanes < 2 ? 1 : 2;
  for (Index slot = 0; slot < gates.stride; slot += kVectors * kLanes) {
    detail::DecayGradientsTile<Arch, kVectors, T, Readings> tile(gates, slot, d_log_retention,
                                                                 d_write);
    tile.begin(end_start, end_pairs);
    for (Index token = gates.count - 1; token >= gates.first; --token) {
      const Index last = (token + 1) * group - 1;
      for (Index row = token * group; row < last; ++row)
        tile.template add<false>(token, row, readings);
      tile.template add<true>(token, last, readings);
    }
  }
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
