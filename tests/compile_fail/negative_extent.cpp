// SPDX-License-Identifier: MIT
// An extent is a size or Dynamic.
// expect: an extent of nha::TensorView is a size or nha::Dynamic
#include <nha/core/tensor_view.hpp>

float memory[24] = {};

#if defined(NHA_MUST_FAIL)
nha::TensorView<float, nha::Dynamic, -4> view;
#else
nha::TensorView<float, nha::Dynamic, 4> view;
#endif
