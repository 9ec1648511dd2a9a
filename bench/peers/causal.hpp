// SPDX-License-Identifier: MIT
// Causal softmax attention by the products of a library: blocks of queries against blocks of keys
// up to the diagonal, softmax carried from block to block.
#pragma once

#include <nha/core/tensor.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "matrix.hpp"
#include "random_case.hpp"

namespace nha_bench {

/// One head. Products as in blockwise.hpp.
template <class Products>
class Causal {
 public:
  // With oneDNN and OpenBLAS the fastest of 64 or 128 queries and 256 or 512 keys.
  static constexpr Index kQueries = 128;
  static constexpr Index kKeys = 512;

  explicit Causal(const nha_test::RandomCase<float>& given)
      : out({given.shape.tokens, given.shape.key_dim}),
        data_(given),
        scores_({kQueries, kKeys}),
        softmax_(kQueries) {}

  void run() {
    for (Index start = 0; start < data_.shape.tokens; start += kQueries)
      queries(start, std::min(kQueries, data_.shape.tokens - start));
  }

  nha::Tensor<float, 2> out;  // [tokens, dim]

 private:
  void queries(Index start, Index count) {
    const Index dim = data_.shape.key_dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    float* o = out.data() + start * dim;
    std::fill(softmax_.begin(), softmax_.end(), nha::SoftmaxState<float>{});
    for (Index first = 0; first < start + count; first += kKeys) {
      const Index keys = std::min(kKeys, start + count - first);
      products_(count, keys, dim, Matrix{data_.q_window.data() + start * dim, dim},
                transpose(data_.k_window.data() + first * dim, dim), scores_.data(), kKeys, false);
      for (Index i = 0; i < count; ++i) {
        float* row = &scores_(i, 0);
        const Index visible = std::min(keys, start + i + 1 - first);
        for (Index j = 0; j < visible; ++j) row[j] *= scale;
        std::fill(row + visible, row + nha::padded(keys), -nha::kInfinity<float>);
        const float factor = nha::cpu::online_softmax_update(softmax_[static_cast<std::size_t>(i)],
                                                             row, nha::padded(keys));
        if (first > 0)
          for (Index d = 0; d < dim; ++d) o[i * dim + d] *= factor;
      }
      products_(count, dim, keys, Matrix{scores_.data(), kKeys},
                Matrix{data_.v.data() + first * dim, dim}, o, dim, first > 0);
    }
    for (Index i = 0; i < count; ++i) {
      const float normalizer = softmax_[static_cast<std::size_t>(i)].normalizer();
      for (Index d = 0; d < dim; ++d) o[i * dim + d] *= normalizer;
    }
  }

  const nha_test::RandomCase<float>& data_;
  nha::Tensor<float, 2> scores_;
  std::vector<nha::SoftmaxState<float>> softmax_;
  Products products_;
};

}  // namespace nha_bench
