// SPDX-License-Identifier: MIT
// nha_bench: every benchmark of the library in one program. Beside the flags of Google Benchmark it
// takes --rounds=N, how often each benchmark measures (15). Exits with 1 if a result was wrong.
#include <benchmark/benchmark.h>
#include <nha/cpu/simd.hpp>
#include <nha/version.hpp>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <type_traits>

#include "support/check.hpp"
#include "support/measure.hpp"
#include "support/registry.hpp"

namespace {

/// "model name" of the first processor, where the system tells.
std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

/// The instruction set of the vectors.
template <class Arch>
std::string vectors() {
  if constexpr (std::is_same_v<Arch, nha::cpu::simd::scalar>)
    return "scalar";
  else
    return Arch::name();
}

/// Takes --rounds=N out of the arguments.
bool take_rounds(int& argc, char** argv) {
  const std::string flag = "--rounds=";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind(flag, 0) != 0) {
      argv[kept++] = argv[i];
      continue;
    }
    nha_bench::rounds() = std::atoi(argument.c_str() + flag.size());
    if (nha_bench::rounds() < 1) {
      std::fprintf(stderr, "%s: expected --rounds=N with N of 1 or more\n", argument.c_str());
      return false;
    }
  }
  argc = kept;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (!take_rounds(argc, argv)) return 2;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("cpu", cpu_model());
  benchmark::AddCustomContext("compiler", NHA_BENCH_COMPILER);
  benchmark::AddCustomContext("flags", NHA_BENCH_FLAGS);
  benchmark::AddCustomContext("vectors", vectors<nha::cpu::simd::default_arch>());
  benchmark::AddCustomContext("nha", std::to_string(NHA_VERSION_MAJOR) + "." +
                                         std::to_string(NHA_VERSION_MINOR) + "." +
                                         std::to_string(NHA_VERSION_PATCH));
  for (void (*add)() : nha_bench::groups()) add();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return nha_bench::differences() == 0 ? 0 : 1;
}
