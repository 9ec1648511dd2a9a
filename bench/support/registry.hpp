// SPDX-License-Identifier: MIT
// How the files of the program announce their benchmarks: each has a Group, main() adds them all.
#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

namespace nha_bench {

inline std::vector<void (*)()>& groups() {
  static std::vector<void (*)()> all;
  return all;
}

/// A file's benchmarks: `add` calls add_benchmark() for each.
struct Group {
  explicit Group(void (*add)()) { groups().push_back(add); }
};

/// Says with the results which version of a peer they are of.
inline void add_version(const std::string& peer, const std::string& version) {
  benchmark::AddCustomContext("peer " + peer, version);
}

/// Adds one benchmark, body(benchmark::State&), which calls measure().
template <class Body>
void add_benchmark(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(body))
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace nha_bench
