#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_sve.sh PLACE [BITS...]: the tests on SVE vectors of 256 bits, or of those given, under qemu. The code is
# compiled for one length: on a processor of another it computes nonsense, so qemu is told the same.
# PLACE: xsimd 9 or newer (8.1 has no SVE); see xsimd_headers.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
headers=$(bash cmake/xsimd_headers.sh "${1:?usage: $0 FOLDER|URL [BITS...]}")
shift
[ $# -gt 0 ] || set -- 256
bash cmake/install_packages.sh cmake ninja-build g++-aarch64-linux-gnu qemu-user-static googletest \
  libeigen3-dev nlohmann-json3-dev
# These step through thousands of tokens or the example's whole model: minutes each here, and no kernel
# that others do not run.
slow='Rollback|ByteModel'
status=0
for bits in "$@"; do
  build=build/sve$bits
  cmake --preset neon -B "$build" -DNHA_XSIMD_INCLUDE_DIR="$headers" -DNHA_MARCH=armv8-a+sve \
    -DCMAKE_CXX_FLAGS="-O1 -msve-vector-bits=$bits" -DNHA_QEMU_CPU="max,sve$bits=on"
  cmake --build "$build" --parallel "$(nproc)"
  ctest --test-dir "$build" --no-tests=error --output-on-failure --parallel "$(nproc)" \
    --exclude-regex "$slow" || status=1
done
exit $status
