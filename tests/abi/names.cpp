// SPDX-License-Identifier: MIT
// What nha/nha.hpp offers, used once: compiled for several processors, to compare the functions in the objects.
#include <nha/nha.hpp>

namespace {

template <class T, class SlotScalar>
void use(nha::AttentionState<T, nha::Dynamic, nha::Dynamic, nha::Dynamic, SlotScalar>& state,
         const nha::AttentionInputs<T>& inputs, const nha::AttentionOutputs<T>& outputs,
         nha::Workspace& workspace) {
  nha::prefill(inputs, state, outputs, workspace);
  nha::step(inputs, state, outputs, workspace);
  nha::reference(inputs, state, outputs);
  auto copy = state;
  nha::load_state(nha::save_state(state, 0), copy, 0);
  state = std::move(copy);
  state.rollback(0, 1);
}

}  // namespace

void NHA_ABI_USE(nha::AttentionState<float>& state, const nha::AttentionInputs<float>& inputs,
                 const nha::AttentionOutputs<float>& outputs,
                 const nha::AttentionCotangents<float>& cotangents,
                 const nha::AttentionGradients<float>& gradients) {
  nha::Workspace workspace;
  use(state, inputs, outputs, workspace);
  nha::backward(inputs, state, {}, cotangents, gradients, workspace);
  nha::reference_backward(inputs, state, cotangents, gradients);
  nha::ThreadPool threads(2);
  nha::prefill(inputs, state, outputs, workspace, {}, threads);
}

void NHA_ABI_USE(nha::AttentionState<nha::bfloat16, nha::Dynamic, nha::Dynamic, nha::Dynamic,
                                     nha::float16>& state,
                 const nha::AttentionInputs<nha::bfloat16>& inputs,
                 const nha::AttentionOutputs<nha::bfloat16>& outputs, nha::Workspace& workspace) {
  use(state, inputs, outputs, workspace);
}
