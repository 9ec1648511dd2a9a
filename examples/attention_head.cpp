// SPDX-License-Identifier: MIT
// One attention head built from the three ideas: slots, window, one softmax. nha::step() gives the
// same numbers; a program would use that, and read this to know what it does.
#include <nha/attention/step.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

int main() {
  constexpr nha::Index kTokens = 40, kDim = 8, kSlots = 4, kWindow = 6;
  nha::Tensor<float, 4> q({1, kTokens, 1, kDim}), k({1, kTokens, 1, kDim}),
      v({1, kTokens, 1, kDim});
  nha::Tensor<float, 4> log_gate({1, kTokens, 1, kSlots});
  for (nha::Index i = 0; i < q.size(); ++i) {
    q.data()[i] = std::sin(0.3f * static_cast<float>(i));
    k.data()[i] = std::cos(0.7f * static_cast<float>(i));
    v.data()[i] = std::sin(1.1f * static_cast<float>(i));
  }
  for (float& gate : log_gate.values()) gate = -0.1f;

  // The head: two memories, one softmax over both.
  nha::SlotMemory<float> slots(kDim, kDim, kSlots);
  nha::SlidingWindow<float> window(kWindow, kDim, kDim);
  nha::FusedSoftmax<float> softmax(kDim);
  const float scale = 1 / std::sqrt(static_cast<float>(kDim));
  nha::Tensor<float, 1> o({kDim});
  for (nha::Index t = 0; t < kTokens; ++t) {
    const nha::Index leaving = t - kWindow;  // enters the slots as it leaves the window
    if (leaving >= 0)
      slots.enter(log_gate.view()[0][leaving][0], {}, k.view()[0][leaving][0],
                  v.view()[0][leaving][0]);
    window.push(k.view()[0][t][0], v.view()[0][t][0]);
    softmax.clear();
    softmax.read(slots, q.view()[0][t][0], scale);
    softmax.read(window, q.view()[0][t][0], scale);
    softmax.finish(o);
  }
  std::printf("three ideas  %.5f %.5f ...\n", o(0), o(1));

  // The same by the library.
  nha::AttentionState<float> state({.key_dim = kDim, .value_dim = kDim, .slots = kSlots},
                                   {.window = kWindow});
  nha::Tensor<float, 4> out({1, 1, 1, kDim});
  nha::Workspace workspace;
  const nha::AttentionInputs<float> in{
      .q_window = q, .k_window = k, .q_slot = q, .k_slot = k, .v = v, .log_gate = log_gate};
  for (nha::Index t = 0; t < kTokens; ++t) nha::step(in.tokens(t, 1), state, {.o = out}, workspace);
  std::printf("step         %.5f %.5f ...\n", out(0, 0, 0, 0), out(0, 0, 0, 1));

  float difference = 0;
  for (nha::Index d = 0; d < kDim; ++d)
    difference = std::max(difference, std::abs(o(d) - out(0, 0, 0, d)));
  return difference < 1e-5f ? 0 : 1;
}
