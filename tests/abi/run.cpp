// SPDX-License-Identifier: MIT
// Compiled twice, with different -march flags; NHA_ABI_RUN is the name of its function.
#include "run.hpp"

#include <nha/attention/prefill.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/memory/state.hpp>

int nha_test::NHA_ABI_RUN(const nha::AttentionInputs<float>& inputs,
                          const nha::AttentionShape& shape, nha::Index window,
                          const nha::AttentionOutputs<float>& outputs) {
  nha::AttentionState<float> state(shape, {.window = window});
  const nha::AttentionState<float> copy = state;
  nha::Workspace workspace;
  nha::prefill(inputs, state, outputs, workspace);
  state = copy;
  nha::prefill(inputs, state, outputs, workspace, {.algorithm = nha::PrefillAlgorithm::chunked});
  return static_cast<int>(nha::cpu::simd::lanes<float, nha::cpu::simd::default_arch>);
}
