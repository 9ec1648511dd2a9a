// SPDX-License-Identifier: MIT
// Accuracies of several seeds: their mean, and how they are written.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace recall {

/// NaN if there are none.
inline double mean_of(const std::vector<double>& numbers) {
  if (numbers.empty()) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (const double number : numbers) sum += number;
  return sum / static_cast<double>(numbers.size());
}

/// "0.987"; "-" for NaN: nothing was asked.
inline std::string shown_accuracy(double accuracy) {
  if (std::isnan(accuracy)) return "-";
  char text[16];
  std::snprintf(text, sizeof text, "%.3f", accuracy);
  return text;
}

}  // namespace recall
