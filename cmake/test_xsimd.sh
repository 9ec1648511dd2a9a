#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_xsimd.sh PLACE [PRESET...]: all tests with another release of xsimd than the installed one. PLACE: see
# xsimd_headers.sh. Without presets: native, SSE2 and NEON.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
headers=$(bash cmake/xsimd_headers.sh "${1:?usage: $0 FOLDER|URL [PRESET...]}")
shift
[ $# -gt 0 ] || set -- release sse2 neon
bash cmake/install_packages.sh g++ cmake ninja-build libeigen3-dev nlohmann-json3-dev libgtest-dev \
  libbenchmark-dev g++-aarch64-linux-gnu qemu-user-static googletest
status=0
for preset in "$@"; do
  build=build/$preset-xsimd
  cmake --preset "$preset" -B "$build" -DNHA_XSIMD_INCLUDE_DIR="$headers"
  cmake --build "$build" --parallel "$(nproc)"
  ctest --test-dir "$build" --no-tests=error --output-on-failure --parallel "$(nproc)" || status=1
done
exit $status
