// SPDX-License-Identifier: MIT
// A Native Hybrid Attention layer computed the plain way, one number after the other in double,
// from the description of the layer alone: what the tests compare the real one with.
#pragma once

#include <nha/model/layer_options.hpp>
#include <nha/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace nha_test {

using nha::Index;
using Matrix = std::vector<std::vector<double>>;

inline double plain_silu(double x) {
  return x / (1 + std::exp(-x));
}

/// W x for each row x.
inline Matrix plain_linear(const nha::Tensor<double, 2>& weight, const Matrix& x) {
  Matrix y(x.size(), std::vector<double>(static_cast<std::size_t>(weight.extent(0))));
  for (std::size_t t = 0; t < x.size(); ++t)
    for (Index o = 0; o < weight.extent(0); ++o)
      for (Index i = 0; i < weight.extent(1); ++i)
        y[t][static_cast<std::size_t>(o)] += weight(o, i) * x[t][static_cast<std::size_t>(i)];
  return y;
}

class DirectLayer {
 public:
  DirectLayer(const nha::LayerShape& shape, const nha::LayerOptions& options,
              const nha::AttentionWeights<double>& weights)
      : s_(shape), o_(options), w_(weights) {}

  /// The part of each query head's attention that fell on the slots, of the last run. [T][heads]
  Matrix slot_share;

  /// Outputs [T][hidden] of one sequence from its start.
  Matrix run(const Matrix& x) {
    q_ = project(w_.q_proj, w_.q_conv1d, w_.q_conv_bias, x);
    k_ = project(w_.k_proj, w_.k_conv1d, w_.k_conv_bias, x);
    v_ = project(w_.v_proj, w_.v_conv1d, w_.v_conv_bias, x);
    if (o_.value_activation == nha::ValueActivation::silu)
      for (auto& row : v_)
        for (double& value : row) value = plain_silu(value);
    if (s_.slots > 0) f_ = plain_linear(w_.f_proj, x);
    if (o_.gate_bias)
      for (auto& row : f_)
        for (std::size_t g = 0; g < row.size(); ++g)
          row[g] += w_.f_proj_bias(static_cast<Index>(g));
    Matrix heads(x.size(), std::vector<double>(at(s_.query_heads * s_.value_dim)));
    slot_share.assign(x.size(), std::vector<double>(at(s_.query_heads)));
    for (Index h = 0; h < s_.query_heads; ++h) run_head(h, heads);
    if (o_.output == nha::OutputForm::silu_norm)
      for (auto& row : heads) {
        double squares = 0;
        for (double& value : row) {
          value = plain_silu(value);
          squares += value * value;
        }
        const double root =
            std::sqrt(squares / static_cast<double>(row.size()) + o_.output_norm_eps);
        for (std::size_t c = 0; c < row.size(); ++c)
          row[c] = row[c] / root * w_.g_norm(static_cast<Index>(c));
      }
    return plain_linear(w_.o_proj, heads);
  }

 private:
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  Matrix project(const nha::Tensor<double, 2>& weight, const nha::Tensor<double, 3>& kernel,
                 const nha::Tensor<double, 1>& bias, const Matrix& x) const {
    const Matrix raw = plain_linear(weight, x);
    if (o_.convolution_kernel_size == 0) return raw;
    Matrix y = raw;
    for (std::size_t t = 0; t < raw.size(); ++t)
      for (std::size_t c = 0; c < raw[t].size(); ++c) {
        double sum = o_.convolution_bias ? bias(static_cast<Index>(c)) : 0;
        for (Index back = 0; back < o_.convolution_kernel_size && at(back) <= t; ++back)
          sum += kernel(static_cast<Index>(c), 0, o_.convolution_kernel_size - 1 - back) *
                 raw[t - at(back)][c];
        y[t][c] = plain_silu(sum);
      }
    return y;
  }

  std::vector<double> slice(const std::vector<double>& row, Index head, Index dim) const {
    const auto first = row.begin() + static_cast<std::ptrdiff_t>(head * dim);
    return {first, first + static_cast<std::ptrdiff_t>(dim)};
  }
  std::vector<double> rotated(const std::vector<double>& x, std::size_t position) const {
    std::vector<double> y(x.size());
    const std::size_t half = x.size() / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(o_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(x.size()));
      y[i] = x[i] * std::cos(angle) - x[i + half] * std::sin(angle);
      y[i + half] = x[i + half] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return y;
  }
  std::vector<double> mapped(const std::vector<double>& x) const {
    std::vector<double> y = x;
    if (o_.feature_map == nha::FeatureMap::t2r)
      for (std::size_t i = 0; i < x.size(); ++i) {
        y[i] = 0;
        for (std::size_t j = 0; j < x.size(); ++j)
          y[i] += w_.feature_map(static_cast<Index>(i), static_cast<Index>(j)) * x[j];
      }
    for (double& value : y) {
      if (o_.feature_map == nha::FeatureMap::swish) value = plain_silu(value);
      if (o_.feature_map == nha::FeatureMap::relu || o_.feature_map == nha::FeatureMap::t2r)
        value = value > 0 ? value : 0;
    }
    return y;
  }
  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }

  void run_head(Index head, Matrix& out) {
    const Index kv = head / (s_.query_heads / s_.kv_heads);
    const auto [window, delay] = nha::head_options(o_.attention, kv);
    const double scale = nha::softmax_scale(o_.attention, s_.key_dim);
    Matrix slot_k(at(s_.slots), std::vector<double>(at(s_.key_dim)));
    Matrix slot_v(at(s_.slots), std::vector<double>(at(s_.value_dim)));
    for (Index t = 0; t < static_cast<Index>(q_.size()); ++t) {
      const Index j = t - delay;
      for (Index m = 0; m < s_.slots && j >= 0; ++m) {
        const double sigmoid = 1 / (1 + std::exp(-f_[at(j)][at(kv * s_.slots + m)]));
        const double keep = std::pow(sigmoid, 1 / o_.gate_divisor);
        const auto key = mapped(slice(k_[at(j)], kv, s_.key_dim));
        const auto value = slice(v_[at(j)], kv, s_.value_dim);
        for (std::size_t d = 0; d < key.size(); ++d)
          slot_k[at(m)][d] = keep * slot_k[at(m)][d] + (1 - keep) * key[d];
        for (std::size_t d = 0; d < value.size(); ++d)
          slot_v[at(m)][d] = keep * slot_v[at(m)][d] + (1 - keep) * value[d];
      }
      const auto q = slice(q_[at(t)], head, s_.key_dim);
      double total = 0, on_slots = 0;
      std::vector<double> sum(at(s_.value_dim));
      const auto read = [&](double logit, const std::vector<double>& value) {
        total += std::exp(logit);
        for (std::size_t d = 0; d < value.size(); ++d) sum[d] += std::exp(logit) * value[d];
      };
      const bool slots_take_part =
          o_.attention.empty_slots == nha::EmptySlots::participate || j >= 0;
      for (Index m = 0; m < s_.slots && slots_take_part; ++m)
        read(scale * dot(slot_k[at(m)], mapped(q)), slot_v[at(m)]);
      on_slots = total;
      for (Index i = std::max<Index>(0, t - window + 1); i <= t; ++i)
        read(scale * dot(rotated(slice(k_[at(i)], kv, s_.key_dim), at(i)), rotated(q, at(t))),
             slice(v_[at(i)], kv, s_.value_dim));
      slot_share[at(t)][at(head)] = on_slots / total;
      for (std::size_t d = 0; d < sum.size(); ++d)
        out[at(t)][at(head * s_.value_dim) + d] = sum[d] / total;
    }
  }

  nha::LayerShape s_;
  nha::LayerOptions o_;
  const nha::AttentionWeights<double>& w_;
  Matrix q_, k_, v_, f_;
};

}  // namespace nha_test
