// SPDX-License-Identifier: MIT
// Views whose static extents differ are not converted.
// expect: views whose static extents differ cannot be converted
#include <nha/core/tensor_view.hpp>

float memory[24] = {};
nha::TensorView<float, nha::Dynamic, 4> view(memory, {6, 4});

#if defined(NHA_MUST_FAIL)
nha::TensorView<const float, nha::Dynamic, 8> copy(view);
#else
nha::TensorView<const float, nha::Dynamic, 4> copy(view);
#endif
