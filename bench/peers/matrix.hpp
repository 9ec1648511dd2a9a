// SPDX-License-Identifier: MIT
// What the peers' matrix products take.
#pragma once

#include <nha/core/index.hpp>

namespace nha_bench {

using nha::Index;

/// A row-major matrix in someone else's memory; `transposed` means that the product takes it so.
struct Matrix {
  const float* data;
  Index stride;
  bool transposed = false;
};
inline Matrix transpose(const float* data, Index stride) {
  return {data, stride, true};
}

}  // namespace nha_bench
