// SPDX-License-Identifier: MIT
// The bandwidth of the level of memory that a given number of bytes sits in.
#pragma once

#include <benchmark/benchmark.h>
#include <nha/core/tensor.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>

#include "clock.hpp"

namespace nha_bench {

/// A buffer that is read, or read and partly written back, as a benchmark of the same size does it.
class Bandwidth {
 public:
  /// @param bytes   the size of the buffer: what one call of the benchmark touches
  /// @param written how many of them it also writes
  explicit Bandwidth(double bytes, double written = 0)
      : buffer_({std::max(nha::padded(static_cast<nha::Index>(bytes / sizeof(float))) / kStep,
                          nha::Index{1}) *
                 kStep}),
        written_(std::min(static_cast<nha::Index>(written / sizeof(float)) / kStep * kStep,
                          buffer_.size())) {
    std::fill_n(buffer_.data(), buffer_.size(), 1.0f);
    passes_ = 1;
    const double once = seconds([this] { read(0); });
    passes_ = std::max(1, static_cast<int>(kLeastSeconds / std::max(once, 1e-9)));
  }

  /// Bytes per second of a sum of the buffer.
  double read_rate() {
    return rate([this] { read(0); });
  }
  /// Bytes per second, each counted once, where the first part is written back as well.
  double update_rate() {
    return rate([this] {
      update();
      read(written_);
    });
  }

 private:
  using V = nha::cpu::simd::vec<float, nha::cpu::simd::default_arch>;
  static constexpr nha::Index kLanes = nha::cpu::simd::lanes<float, nha::cpu::simd::default_arch>;
  static constexpr int kVectors = 8;
  static constexpr nha::Index kStep = std::max<nha::Index>(kVectors * kLanes, nha::kRowPadding);
  static constexpr double kLeastSeconds = 3e-4;

  template <class F>
  double seconds(F&& pass) {
    const double start = thread_seconds();
    for (int i = 0; i < passes_; ++i) {
      pass();
      benchmark::ClobberMemory();
    }
    return thread_seconds() - start;
  }
  template <class F>
  double rate(F&& pass) {
    return static_cast<double>(buffer_.size()) * sizeof(float) * passes_ / seconds(pass);
  }

  void read(nha::Index from) {
    V sum[kVectors];
    for (V& s : sum) s = V(0.0f);
    const float* data = buffer_.data();
    for (nha::Index i = from; i < buffer_.size(); i += kVectors * kLanes)
      nha::cpu::simd::unroll<kVectors>([&](auto v) NHA_INLINE_LAMBDA {
        sum[v] = sum[v] + nha::cpu::simd::load<V>(data + i + v * kLanes);
      });
    float total = 0;
    for (const V& s : sum) total += nha::cpu::simd::reduce_add(s);
    benchmark::DoNotOptimize(total);
  }
  void update() {
    float* data = buffer_.data();
    volatile float one = 1.0f;  // read anew, so that the multiplication is not removed
    const V factor(one);
    for (nha::Index i = 0; i < written_; i += kVectors * kLanes)
      nha::cpu::simd::unroll<kVectors>([&](auto v) NHA_INLINE_LAMBDA {
        nha::cpu::simd::store(data + i + v * kLanes,
                              nha::cpu::simd::load<V>(data + i + v * kLanes) * factor);
      });
  }

  nha::Tensor<float, 1> buffer_;
  nha::Index written_;
  int passes_ = 1;
};

}  // namespace nha_bench
