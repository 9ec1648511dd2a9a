// SPDX-License-Identifier: MIT
// Static extents whose product is no Index are refused by the type.
// expect: the static extents of nha::TensorView make too many elements
#include <nha/core/tensor_view.hpp>

constexpr nha::Index half = nha::Index{1} << 31;
#if defined(NHA_MUST_FAIL)
nha::TensorView<float, half, nha::Dynamic, half, 2> view;
#else
nha::TensorView<float, half, nha::Dynamic, half> view;
#endif
