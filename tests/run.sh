#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs all tests. Arguments are handed to ctest, for instance: -R TensorView
# The environment variable NHA_PRESET chooses another preset than release: debug, asan, ubsan, tsan,
# tsan-threads, clang, no-exceptions, sse2, scalar, neon (64-bit Arm, run by qemu). NHA_JOBS: how many compilers and tests run
# at once; all cores where it is not set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${NHA_PRESET:-release}
jobs=${NHA_JOBS:-$(nproc)}

packages=(g++ cmake ninja-build libxsimd-dev libeigen3-dev nlohmann-json3-dev libgtest-dev libbenchmark-dev)
if [ "$preset" = asan ] || [ "$preset" = clang ]; then
  packages+=(clang libclang-rt-dev)
fi
if [ "$preset" = neon ]; then
  packages+=(g++-aarch64-linux-gnu qemu-user-static googletest)
fi
bash cmake/install_packages.sh "${packages[@]}"
echo "== Configuring build/$preset"
cmake --preset "$preset"
echo "== Building"
cmake --build --preset "$preset" --parallel "$jobs"
echo "== Running the tests"
ctest --preset "$preset" --parallel "$jobs" "$@"
