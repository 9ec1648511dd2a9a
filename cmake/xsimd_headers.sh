#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# xsimd_headers.sh PLACE: prints the folder that xsimd's headers are in. PLACE is xsimd's source tree, a
# folder of headers, or the URL of a git repository, whose last release is then cloned to build/xsimd.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FOLDER|URL" >&2; exit 2; }
place=$1
if [[ $place == *://* ]]; then
  clone="$(dirname "${BASH_SOURCE[0]}")/../build/xsimd"
  rm -rf "$clone"
  release=$(git ls-remote --tags --refs "$place" | sed -n 's|.*refs/tags/\([0-9.]*\)$|\1|p' | sort -V | tail -n 1)
  git -c advice.detachedHead=false clone --quiet --depth 1 --branch "$release" "$place" "$clone" >&2
  place=$clone
fi
for folder in "$place/include" "$place"; do
  if [ -f "$folder/xsimd/xsimd.hpp" ]; then
    cd "$folder"
    sed -n 's/^#define XSIMD_VERSION_\(M[A-Z]*\|PATCH\) /xsimd \1 /p' xsimd/config/xsimd_config.hpp >&2
    pwd
    exit
  fi
done
echo "there is no xsimd/xsimd.hpp in $place" >&2
exit 1
