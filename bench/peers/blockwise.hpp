// SPDX-License-Identifier: MIT
// The operator as a user of a matrix library would write it: blocks of tokens, one product after
// the other. Each peer that offers products runs this, so that what differs is the library.
//
// Softmax and exponentials are nha's own, which is generous: a user's are slower. Gates must not be
// fast: the decay between two tokens of a block is split into a factor for each, which overflows
// below about -88 a block (nha has no such limit).
#pragma once

#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "matrix.hpp"
#include "random_case.hpp"

namespace nha_bench {

/// Computes one prefill of one head (slots and window, or either) with the products of a library.
///
/// Products: `void operator()(Index rows, Index columns, Index depth, Matrix a, Matrix b, float* c,
/// Index c_stride, bool add)`, C = A B or C += A B.
template <class Products>
class Blockwise {
 public:
  /// @param block tokens to a block
  Blockwise(const nha_test::RandomCase<float>& given, Index window, Index block)
      : data_(given),
        slots_(given.shape.slots),
        window_(window),
        dim_(given.shape.key_dim),
        block_(block),
        padded_slots_(nha::padded(slots_)),
        stride_(padded_slots_ + nha::padded(window + block)),
        out({given.shape.tokens, dim_}),
        slot_k_(make(slots_, dim_)),
        slot_v_(make(slots_, dim_)),
        decay_(make(block, slots_)),
        inverse_(make(block, slots_)),
        scores_(make(block, stride_)),
        pairs_(make(block, block)) {}

  void run() {
    std::fill_n(slot_k_.data(), slot_k_.size(), 0.0f);
    std::fill_n(slot_v_.data(), slot_v_.size(), 0.0f);
    const Index tokens = data_.shape.tokens;
    for (Index start = 0; start < tokens; start += block_)
      block_of(start, std::min(block_, tokens - start));
  }

 private:
  using Buffer = nha::Tensor<float, 2>;
  static Buffer make(Index rows, Index columns) { return Buffer({rows, columns}); }

  void block_of(Index start, Index count) {
    const Index band_start = std::max<Index>(0, start - window_);
    const Index band = start + count - band_start;
    // Row i's token enters the slots, start - window + i; the first may lie before the sequence.
    const Index first = std::clamp<Index>(window_ - start, 0, count);
    const Index entering = start - window_ + first;
    const Index entered = slots_ > 0 ? count - first : 0;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
    float* band_scores = scores_.data() + padded_slots_;

    if (slots_ > 0) {
      decays(entering, first, count);
      // decay . (Q S^T + (Q K^T, j <= i) N)
      product(count, slots_, dim_, {data_.q_slot.data() + start * dim_, dim_},
              transpose(slot_k_.data(), dim_), scores_.data(), stride_);
      product(count, entered, dim_, {data_.q_slot.data() + start * dim_, dim_},
              transpose(data_.k_slot.data() + entering * dim_, dim_), pairs_.data(), block_);
      for (Index i = 0; i < count; ++i)
        for (Index j = std::max<Index>(i + 1 - first, 0); j < entered; ++j) pairs_(i, j) = 0;
      product(count, slots_, entered, {pairs_.data(), block_},
              {inverse_.data() + first * slots_, slots_}, scores_.data(), stride_, true);
      for (Index i = 0; i < count; ++i)
        for (Index m = 0; m < slots_; ++m) scores_(i, m) *= decay_(i, m) * scale;
    }
    if (window_ > 0)
      product(count, band, dim_, {data_.q_window.data() + start * dim_, dim_},
              transpose(data_.k_window.data() + band_start * dim_, dim_), band_scores, stride_);
    softmax(start, count, band_start, band, scale);
    if (slots_ > 0) {
      for (Index i = 0; i < count; ++i)
        for (Index m = 0; m < slots_; ++m) scores_(i, m) *= decay_(i, m);
      // Weights on the entering tokens; in the band these columns are outside the row's window.
      product(count, entered, slots_, {scores_.data(), stride_},
              transpose(inverse_.data() + first * slots_, slots_), pairs_.data(), block_);
      for (Index i = first; i < count; ++i)
        std::copy_n(&pairs_(i, 0), i + 1 - first,
                    band_scores + i * stride_ + entering - band_start);
    }
    float* o = out.data() + start * dim_;
    product(count, dim_, band, {band_scores, stride_}, {data_.v.data() + band_start * dim_, dim_},
            o, dim_);
    if (slots_ > 0)
      product(count, dim_, slots_, {scores_.data(), stride_}, {slot_v_.data(), dim_}, o, dim_,
              true);
    for (Index i = 0; i < count; ++i)
      for (Index d = 0; d < dim_; ++d) o[i * dim_ + d] *= normalizer_[static_cast<std::size_t>(i)];
    if (entered > 0) update(entering, first, count);
  }

  /// decay_(i) = exp of the running sum of the log gates, inverse_(i) = write / decay_(i).
  void decays(Index entering, Index first, Index count) {
    std::vector<float>& sum = sum_;
    sum.assign(static_cast<std::size_t>(slots_), 0.0f);
    for (Index i = 0; i < first; ++i) std::fill_n(&decay_(i, 0), slots_, 1.0f);
    for (Index i = first; i < count; ++i) {
      const float* gates = data_.log_gate.data() + (entering + i - first) * slots_;
      for (Index m = 0; m < slots_; ++m) {
        sum[static_cast<std::size_t>(m)] += gates[m];
        decay_(i, m) = sum[static_cast<std::size_t>(m)];
        inverse_(i, m) = gates[m];
      }
      using V = nha::cpu::simd::vec<float, nha::cpu::simd::default_arch>;
      for (Index m = 0; m < slots_;
           m += nha::cpu::simd::lanes<float, nha::cpu::simd::default_arch>) {
        V keep, write;
        nha::cpu::exp_and_complement<float>(nha::cpu::simd::load<V>(&inverse_(i, m)), keep, write);
        const V decay = nha::cpu::exp_nonpositive<float>(nha::cpu::simd::load<V>(&decay_(i, m)));
        nha::cpu::simd::store(&decay_(i, m), decay);
        nha::cpu::simd::store(&inverse_(i, m), write / decay);
      }
    }
  }

  /// Weights exp(logit - maximum) over slots and window of every row, 0 outside its window.
  void softmax(Index start, Index count, Index band_start, Index band, float scale) {
    normalizer_.resize(static_cast<std::size_t>(count));
    constexpr float kNone = -nha::kInfinity<float>;
    for (Index i = 0; i < count; ++i) {
      float* row = &scores_(i, 0);
      float* scores = row + padded_slots_;
      const Index from = std::max<Index>(start + i - window_ + 1 - band_start, 0);
      const Index to = window_ > 0 ? start + i + 1 - band_start : from;
      std::fill(row + slots_, row + padded_slots_, kNone);
      std::fill(scores, scores + from, kNone);
      for (Index j = from; j < to; ++j) scores[j] *= scale;
      std::fill(scores + to, scores + nha::padded(band), kNone);
      nha::SoftmaxState<float> state;
      nha::cpu::online_softmax_update(state, row, padded_slots_ + nha::padded(band));
      normalizer_[static_cast<std::size_t>(i)] = state.normalizer();
    }
  }

  /// S <- decay . S + (inverse . decay)^T K for keys and values.
  void update(Index entering, Index first, Index count) {
    const float* total = &decay_(count - 1, 0);
    for (Index i = first; i < count; ++i)
      for (Index m = 0; m < slots_; ++m) inverse_(i, m) *= total[m];
    for (Index m = 0; m < slots_; ++m)
      for (Index d = 0; d < dim_; ++d) {
        slot_k_(m, d) *= total[m];
        slot_v_(m, d) *= total[m];
      }
    const Matrix strength = transpose(inverse_.data() + first * slots_, slots_);
    product(slots_, dim_, count - first, strength, {data_.k_slot.data() + entering * dim_, dim_},
            slot_k_.data(), dim_, true);
    product(slots_, dim_, count - first, strength, {data_.v.data() + entering * dim_, dim_},
            slot_v_.data(), dim_, true);
  }

  void product(Index rows, Index columns, Index depth, const Matrix& a, const Matrix& b, float* c,
               Index c_stride, bool add = false) {
    if (rows == 0 || columns == 0 || depth == 0) return;
    products_(rows, columns, depth, a, b, c, c_stride, add);
  }

  const nha_test::RandomCase<float>& data_;
  Index slots_, window_, dim_, block_, padded_slots_, stride_;

 public:
  Buffer out;  // [tokens, dim]

 private:
  Buffer slot_k_, slot_v_;  // [slots, dim]
  Buffer decay_, inverse_;  // [block, slots]
  Buffer scores_;           // [block, slots and band, each padded]
  Buffer pairs_;            // [block, block]
  std::vector<float> sum_, normalizer_;
  Products products_;
};

}  // namespace nha_bench
