// SPDX-License-Identifier: MIT
// Results are compared before any time is taken.
#pragma once

#include <benchmark/benchmark.h>
#include <nha/core/index.hpp>

#include <string>

#include "random_case.hpp"

namespace nha_bench {

/// How many results have differed.
inline int& differences() {
  static int count = 0;
  return count;
}

/// Whether the results agree to `tolerance` (relative, by norm); if not, the benchmark reports the
/// difference instead of a time and its body must return.
template <class T, class U>
bool agrees(benchmark::State& state, const char* with, const T* result, const U* expected,
            nha::Index count, double tolerance = 1e-4) {
  const double error = nha_test::relative_error(result, expected, count);
  if (error <= tolerance) return true;
  ++differences();
  state.SkipWithError(
      ("differs from " + std::string(with) + ", relative error " + std::to_string(error)).c_str());
  return false;
}

}  // namespace nha_bench
