// SPDX-License-Identifier: MIT
// Runs the operator on a few tokens, whole and token by token, through the installed headers.
#include <nha/nha.hpp>

#include <cmath>
#include <cstdio>

double in_second_file();

int main() {
  constexpr nha::Index tokens = 12, heads = 2, dim = 8, slots = 4;
  nha::Tensor<float, 4> qkv({1, tokens, heads, 3 * dim}), gate({1, tokens, heads, slots});
  for (nha::Index i = 0; i < qkv.size(); ++i)
    qkv.data()[i] = std::sin(0.7f * static_cast<float>(i));
  for (nha::Index i = 0; i < gate.size(); ++i)
    gate.data()[i] = -0.1f - 0.05f * static_cast<float>(i % slots);

  const auto inputs = [&](nha::Index first, nha::Index count) {
    const auto rows = qkv.view().slice<1>(first, count);
    const auto q = rows.slice<3>(0, dim), k = rows.slice<3>(dim, dim),
               v = rows.slice<3>(2 * dim, dim);
    return nha::AttentionInputs<float>{.q_window = q,
                                       .k_window = k,
                                       .q_slot = q,
                                       .k_slot = k,
                                       .v = v,
                                       .log_gate = gate.view().slice<1>(first, count)};
  };
  const nha::AttentionShape shape{
      .kv_heads = heads, .key_dim = dim, .value_dim = dim, .slots = slots};
  nha::AttentionState<float> whole(shape, {.window = 4}), single(shape, {.window = 4});
  nha::Tensor<float, 4> a({1, tokens, heads, dim}), b({1, tokens, heads, dim});
  nha::Workspace workspace;
  nha::prefill(inputs(0, tokens), whole, {.o = a}, workspace);
  for (nha::Index t = 0; t < tokens; ++t)
    nha::step(inputs(t, 1), single, {.o = b.view().slice<1>(t, 1)}, workspace);

  double largest = 0;
  for (nha::Index i = 0; i < a.size(); ++i)
    largest = std::fmax(largest, std::fabs(static_cast<double>(a.data()[i] - b.data()[i])));
  std::printf("nha %d.%d.%d: largest difference %g\n", NHA_VERSION_MAJOR, NHA_VERSION_MINOR,
              NHA_VERSION_PATCH, largest);
  return largest < 1e-5 && a(0, tokens - 1, 0, 0) != 0.0f && in_second_file() == 1.0 ? 0 : 1;
}
