// SPDX-License-Identifier: MIT
// Sampler: chooses the next byte from a model's logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace examples_common {

/// Draws from softmax(logits / temperature); at temperature 0 takes the largest. The same seed and
/// logits give the same choices on every machine.
class Sampler {
 public:
  Sampler(double temperature, std::uint64_t seed) : temperature_(temperature), random_(seed) {}

  std::size_t operator()(std::span<const float> logits) {
    const auto largest = std::max_element(logits.begin(), logits.end());
    const auto likeliest = static_cast<std::size_t>(largest - logits.begin());
    if (temperature_ == 0) return likeliest;

    weights_.resize(logits.size());
    double total = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
      total += weights_[i] = std::exp((double{logits[i]} - double{*largest}) / temperature_);
    double left = total * uniform();
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      left -= weights_[i];
      if (left < 0) return i;
    }
    return likeliest;  // rounding has left a crumb behind the last one
  }

 private:
  /// In [0, 1). The standard's distributions differ from one library to the next; this does not.
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  double temperature_;
  std::mt19937_64 random_;
  std::vector<double> weights_;
};

}  // namespace examples_common
