// SPDX-License-Identifier: MIT
// Functions that files of unlike -march must not share, for the test of the test: it must see both.
#include <nha/nha.hpp>

NHA_NAMESPACE_BEGIN

/// Computes, in the namespace whose names do not hold the instruction set.
inline float planted_sum(const float* values) {
  float sum = 0;
  for (int i = 0; i < 64; ++i) sum += values[i] * values[i];
  return sum;
}

NHA_NAMESPACE_END

float NHA_ABI_USE(const float* values, float* out) {
  // A batch narrower than the file's own.
  using Batch = xsimd::batch<float, xsimd::sse2>;
  xsimd::zip_lo(Batch::load_unaligned(values), Batch::load_unaligned(values + 4))
      .store_unaligned(out);
  nha::Tensor<float, 4> tensor({1, 1, 1, 1});
  nha::Workspace workspace;
  nha::AttentionState<float> state({.slots = 0}, {.window = 1});
  nha::reference<float>({.q_window = tensor, .k_window = tensor, .v = tensor}, state,
                        {.o = tensor});
  return nha::planted_sum(values);
}
