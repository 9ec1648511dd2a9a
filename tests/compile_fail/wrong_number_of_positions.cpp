// SPDX-License-Identifier: MIT
// An element is read at as many positions as the view has axes.
// expect: one position for each axis
#include <nha/core/tensor_view.hpp>

float read(nha::TensorView<const float, nha::Dynamic, nha::Dynamic> view) {
#if defined(NHA_MUST_FAIL)
  return view(1, 2, 3);
#else
  return view(1, 2);
#endif
}
