// SPDX-License-Identifier: MIT
// The length of all gradients together, and shortening them to a greatest length.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/train/parameters.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// In eight sums, number i into sum i % 8, so that their additions do not wait for each other.
template <class T>
double squares_in_double(std::span<T> values) noexcept {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= values.size(); i += kSums)
    for (std::size_t s = 0; s < kSums; ++s) {
      const auto value = static_cast<double>(values[i + s]);
      sums[s] += value * value;
    }
  for (std::size_t s = 0; i < values.size(); ++i, ++s) {
    const auto value = static_cast<double>(values[i]);
    sums[s] += value * value;
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

template <class T>
double norm_of(std::span<const Parameter<T>> gradients) noexcept {
  double total = 0;
  for (const Parameter<T>& gradient : gradients) total += squares_in_double(gradient.values);
  return std::sqrt(total);
}

}  // namespace detail

/// The square root of the sum of the squares of all gradients, summed in double and in an order
/// that depends on their sizes alone. NaN if a gradient is NaN; infinite if one is, or if squares
/// are beyond double, which those of float never are.
template <std::floating_point T>
double gradient_norm(const std::vector<Parameter<T>>& gradients) noexcept {
  return detail::norm_of(std::span<const Parameter<T>>(gradients));
}
template <std::floating_point T>
double gradient_norm(const std::vector<Parameter<const T>>& gradients) noexcept {
  return detail::norm_of(std::span<const Parameter<const T>>(gradients));
}

/// Multiplies all gradients by max_norm / norm where their norm is greater than max_norm: the
/// direction stays, the length becomes max_norm.
///
/// Gradients whose norm is NaN or infinite stay as they are: no factor mends them, and a step with
/// them would spoil the weights. The caller sees it by the norm and leaves the step out.
/// @param max_norm infinity to change nothing.
/// @return the norm before, as gradient_norm().
/// @throws ArgumentError unless max_norm is positive.
template <std::floating_point T>
double clip_gradients(const std::vector<Parameter<T>>& gradients, double max_norm) {
  check_argument(max_norm > 0, "max_norm is ", max_norm, "; expected a positive number");
  const double norm = gradient_norm(gradients);
  if (std::isfinite(norm) && norm > max_norm) {
    const double factor = max_norm / norm;
    for (const Parameter<T>& gradient : gradients)
      for (T& value : gradient.values) value = static_cast<T>(static_cast<double>(value) * factor);
  }
  return norm;
}

NHA_ISA_NAMESPACE_END
