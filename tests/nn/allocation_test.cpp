// SPDX-License-Identifier: MIT
// Layers take no memory but what they are given.
#include <nha/nn/linear.hpp>
#include <nha/nn/linear_backward.hpp>
#include <nha/parallel/thread_pool.hpp>

#include "support/counted_allocations.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

namespace {

using nha::Index;
using nha::Tensor;

/// linear() and linear_backward() of `rows` rows, large enough for tasks.
template <class T>
struct LinearCalls {
  explicit LinearCalls(Index rows)
      : x(nha_test::random_tensor<T, 2>({rows, 203})),
        weight(nha_test::random_tensor<T, 2>({1030, 203}, 2)),
        dy(nha_test::random_tensor<T, 2>({rows, 1030}, 3)),
        y({rows, 1030}),
        dx({rows, 203}),
        dweight({1030, 203}) {}

  template <class E>
  void run(E&& executor) {
    nha::linear(x, weight, y.view(), executor);
    nha::linear_backward(x, weight, dy, dx.view(), dweight.view(), executor);
  }

  Tensor<T, 2> x, weight, dy, y, dx, dweight;
};

TEST(Allocation, LinearLayersAndTheirGradientsTakeNone) {
  nha::ThreadPool pool(2);
  for (Index rows : {1, 5, 70}) {
    LinearCalls<float> floats(rows);
    LinearCalls<double> doubles(rows);
    const long before = nha_test::new_calls;
    floats.run(nha::Serial());
    floats.run(pool);
    doubles.run(nha::Serial());
    doubles.run(pool);
    EXPECT_EQ(nha_test::new_calls, before) << rows << " rows";
  }
}

TEST(Allocation, LinearLayersSucceedWhereThereIsNoMemory) {
  LinearCalls<float> calls(70);
  nha_test::new_refused = true;
  calls.run(nha::Serial());
  nha_test::new_refused = false;
  EXPECT_NE(calls.y(69, 1029), 0.0f);
  EXPECT_NE(calls.dx(69, 202), 0.0f);
  EXPECT_NE(calls.dweight(1029, 202), 0.0f);
}

}  // namespace
