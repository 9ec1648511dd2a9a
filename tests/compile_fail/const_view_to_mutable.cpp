// SPDX-License-Identifier: MIT
// A view of const elements does not give write access.
// expect: no matching
#include <nha/core/tensor_view.hpp>

float memory[4] = {};
void fill(nha::TensorView<float, nha::Dynamic> view);

void use() {
#if defined(NHA_MUST_FAIL)
  const nha::TensorView<const float, nha::Dynamic> view(memory, {4});
#else
  const nha::TensorView<float, nha::Dynamic> view(memory, {4});
#endif
  fill(nha::TensorView<float, nha::Dynamic>(view));
}
