// SPDX-License-Identifier: MIT
// Uses what the component model adds.
#include <nha/core/tensor.hpp>
#include <nha/nn/linear.hpp>

int main() {
  nha::Tensor<float, 2> x({1, 2}), weight({1, 2}), y({1, 1});
  x(0, 0) = 2;
  x(0, 1) = 3;
  weight(0, 0) = 5;
  weight(0, 1) = 7;
  nha::linear(x.view(), weight.view(), y.view());
  return y(0, 0) == 31.0f ? 0 : 1;
}
