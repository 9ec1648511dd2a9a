// SPDX-License-Identifier: MIT
// The machine's limits: the peak, and the bandwidth of each level of memory.
#include "support/bandwidth.hpp"
#include "support/measure.hpp"
#include "support/registry.hpp"

#include <string>

namespace {

using namespace nha_bench;

const Group group([] {
  add_benchmark("machine/peak", [](benchmark::State& state) {
    measure(state, {.operations = kPeakOperations}, fma_loop);
  });
  for (int kib : {16, 128, 1024, 8192, 65536, 524288})
    add_benchmark("machine/bandwidth/KiB:" + std::to_string(kib), [kib](benchmark::State& state) {
      Bandwidth whole(1024.0 * kib);
      Bandwidth half(1024.0 * kib, 512.0 * kib);
      Bandwidth all(1024.0 * kib, 1024.0 * kib);
      const auto count = static_cast<std::size_t>(rounds());
      std::vector<double> read(count), half_written(count), written(count);
      for (auto _ : state) {
        for (std::size_t round = 0; round < count; ++round) {
          read[round] = whole.read_rate();
          half_written[round] = half.update_rate();
          written[round] = all.update_rate();
        }
        state.SetIterationTime(1024.0 * kib / median(read));
      }
      state.counters["read_GB/s"] = 1e-9 * median(read);
      state.counters["half_written_GB/s"] = 1e-9 * median(half_written);
      state.counters["all_written_GB/s"] = 1e-9 * median(written);
    });
});

}  // namespace
