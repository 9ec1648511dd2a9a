// SPDX-License-Identifier: MIT
// Eigen: its matrix products in the place of ours.
#include <Eigen/Core>

#include <cmath>

#include "decode_peer.hpp"
#include "matrix_peer.hpp"

namespace {

using namespace nha_bench;

struct EigenProducts {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Given = Eigen::Map<const Rows, 0, Eigen::OuterStride<>>;

  void operator()(Index rows, Index columns, Index depth, const Matrix& a, const Matrix& b,
                  float* c, Index c_stride, bool add) const {
    Eigen::Map<Rows, 0, Eigen::OuterStride<>> out(c, rows, columns, Eigen::OuterStride<>(c_stride));
    const auto assign = [&](const auto& product) {
      if (add)
        out.noalias() += product;
      else
        out.noalias() = product;
    };
    const Given left(a.data, a.transposed ? depth : rows, a.transposed ? rows : depth,
                     Eigen::OuterStride<>(a.stride));
    const Given right(b.data, b.transposed ? columns : depth, b.transposed ? depth : columns,
                      Eigen::OuterStride<>(b.stride));
    if (a.transposed)
      assign(left.transpose() * right);
    else if (b.transposed)
      assign(left * right.transpose());
    else
      assign(left * right);
  }
};

/// One query against all keys and values.
class EigenDecode {
 public:
  explicit EigenDecode(const nha_test::RandomCase<float>& data)
      : keys_(data.k_window.data(), data.shape.tokens, data.shape.key_dim),
        values_(data.v.data(), data.shape.tokens, data.shape.value_dim),
        query_(data.q_window.data(), data.shape.key_dim),
        weights_(data.shape.tokens),
        out_(data.shape.value_dim) {}

  void run() {
    weights_.noalias() = keys_ * query_;
    weights_ *= 1.0f / std::sqrt(static_cast<float>(keys_.cols()));
    weights_ = (weights_.array() - weights_.maxCoeff()).exp();
    out_.noalias() = values_.transpose() * weights_;
    out_ /= weights_.sum();
  }
  const float* out() const { return out_.data(); }

 private:
  Eigen::Map<const EigenProducts::Rows> keys_, values_;
  Eigen::Map<const Eigen::VectorXf> query_;
  Eigen::VectorXf weights_, out_;
};

const Group group([] {
  add_version("eigen", std::to_string(EIGEN_WORLD_VERSION) + "." +
                           std::to_string(EIGEN_MAJOR_VERSION) + "." +
                           std::to_string(EIGEN_MINOR_VERSION));
  add_matrix_peer<EigenProducts>("eigen");
  add_decode_peer<EigenDecode>("eigen");
});

}  // namespace
