#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs the main example, byte_lm. Arguments are handed to it: --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash cmake/install_packages.sh g++ cmake ninja-build libxsimd-dev libeigen3-dev nlohmann-json3-dev
echo "== Configuring build/release"
cmake --preset release -DNHA_BUILD_TESTS=OFF -DNHA_BUILD_BENCH=OFF
echo "== Building"
cmake --build --preset release --parallel "${NHA_JOBS:-$(nproc)}" --target byte_lm
echo "== Running build/release/bin/byte_lm"
build/release/bin/byte_lm "$@"
