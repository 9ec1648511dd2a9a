// SPDX-License-Identifier: MIT
// A view has at most four axes.
// expect: nha::TensorView has one to four axes
#include <nha/core/tensor_view.hpp>

float memory[24] = {};

#if defined(NHA_MUST_FAIL)
nha::TensorView<float, 1, 2, 3, 4, 5> view;
#else
nha::TensorView<float, 1, 2, 3, 4> view;
#endif
