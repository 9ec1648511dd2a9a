// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/pipeline.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <cstring>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;

/// Says it has several workers but runs the tasks one after the other, the last first.
struct OneByOne {
  Index workers() const { return 3; }
  void run(Index tasks, nha::TaskRef task) const {
    for (Index i = tasks; i-- > 0;) task(i, i % 3);
  }
};

bool same_bits(const nha::Tensor<float, 4>& a, const nha::Tensor<float, 4>& b) {
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

/// Prefills one head twice in two calls, on one thread and on `executor`: same bits everywhere.
template <class E>
void check_sharing(const CaseShape& shape, const nha::AttentionOptions& options, E&& executor,
                   Index max_rollback = 0) {
  const RandomCase<float> c(shape);
  AttentionState<float> alone(c.attention_shape(), options, max_rollback), shared(alone);
  CaseOutputs<float> expected(c.shape), out(c.shape);
  nha::Workspace workspace;
  const Index first = shape.tokens / 3;
  for (const auto& [from, count] :
       {std::pair<Index, Index>{0, first}, {first, shape.tokens - first}}) {
    const auto inputs = c.inputs().tokens(from, count);
    nha::prefill(inputs, alone, expected.tokens(from, count), workspace);
    nha::prefill(inputs, shared, out.tokens(from, count), workspace, executor);
  }
  EXPECT_TRUE(same_bits(out.o, expected.o));
  EXPECT_EQ(alone, shared);
  if (max_rollback > 0) {
    alone.rollback(0, max_rollback);
    shared.rollback(0, max_rollback);
    EXPECT_EQ(alone, shared);
  }
}

template <class E>
void check_sharing_cases(E&& executor) {
  check_sharing({.tokens = 1500}, {.window = 20}, executor);
  check_sharing({.tokens = 1501, .group = 3, .key_dim = 18, .slots = 24}, {.window = 0}, executor);
  check_sharing({.tokens = 1300, .gates = Gates::mixed, .explicit_write = true},
                {.window = 90, .slot_delay = 37, .empty_slots = nha::EmptySlots::mass_corrected},
                executor);
  check_sharing({.tokens = 1300, .slots = 0}, {.window = 1300}, executor);
  check_sharing({.tokens = 1300}, {.window = 600, .slot_delay = 600}, executor);
  check_sharing({.tokens = 1500}, {.window = 20}, executor, 7);
}

TEST(ChunkPipeline, AreThoseOfOneThreadToTheBit) {
  nha::ThreadPool two(2), five(5);
  check_sharing_cases(two);
  check_sharing_cases(five);
}

TEST(ChunkPipeline, DoNotWaitForTasksThatHaveNotBegun) {
  check_sharing_cases(OneByOne());
}

}  // namespace
