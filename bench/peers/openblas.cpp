// SPDX-License-Identifier: MIT
// OpenBLAS: its matrix products in the place of ours, on one thread.
#include <cblas.h>

#include "matrix_peer.hpp"

namespace {

using namespace nha_bench;

struct BlasProducts {
  void operator()(Index rows, Index columns, Index depth, const Matrix& a, const Matrix& b,
                  float* c, Index c_stride, bool add) const {
    const auto order = [](const Matrix& m) { return m.transposed ? CblasTrans : CblasNoTrans; };
    const auto size = [](Index n) { return static_cast<blasint>(n); };
    cblas_sgemm(CblasRowMajor, order(a), order(b), size(rows), size(columns), size(depth), 1.0f,
                a.data, size(a.stride), b.data, size(b.stride), add ? 1.0f : 0.0f, c,
                size(c_stride));
  }
};

const Group group([] {
  add_version("openblas", openblas_get_config());
  openblas_set_num_threads(1);
  add_matrix_peer<BlasProducts>("openblas");
});

}  // namespace
