// SPDX-License-Identifier: MIT
// Uses what the component eigen adds.
#include <nha/eigen.hpp>
#include <nha/parallel/eigen_executor.hpp>

#include <atomic>

int main() {
  Eigen::Matrix<float, 2, 3> matrix;
  matrix << 1, 2, 3, 4, 5, 6;
  const auto view = nha::view(matrix);
  Eigen::ThreadPool pool(1);
  nha::EigenExecutor executor(pool);
  std::atomic<int> sum = 0;
  const auto add = [&](nha::Index row, nha::Index) noexcept {
    sum += static_cast<int>(view(row, 2));
  };
  executor.run(2, add);
  return sum == 9 ? 0 : 1;
}
