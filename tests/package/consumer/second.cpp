// SPDX-License-Identifier: MIT
// A second file with the same headers: everything in them must be inline.
#include <nha/nha.hpp>

double in_second_file() {
  nha::AttentionState<double> state({.kv_heads = 1, .key_dim = 1, .value_dim = 1, .slots = 0},
                                    {.window = 1});
  nha::Tensor<double, 4> one({1, 1, 1, 1}), o({1, 1, 1, 1});
  one(0, 0, 0, 0) = 1;
  nha::reference<double>({.q_window = one, .k_window = one, .v = one}, state, {.o = o});
  return o(0, 0, 0, 0);
}
