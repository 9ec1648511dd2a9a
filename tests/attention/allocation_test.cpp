// SPDX-License-Identifier: MIT
// step, prefill and backward with a workspace allocate nothing: global operator new and a counting
// memory resource watch.
#include <nha/attention/backward.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/attention/reference.hpp>
#include <nha/attention/step.hpp>

#include <gtest/gtest.h>

#include <memory_resource>

#include "support/counted_allocations.hpp"
#include "support/random_case.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;

class CountingResource : public std::pmr::memory_resource {
 public:
  long count = 0;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    ++count;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

TEST(Allocation, TheCounterCounts) {
  const long before = new_calls;
  nha::Workspace workspace;
  workspace.reserve(100);
  EXPECT_GT(new_calls, before);
}

template <class T>
void expect_no_allocation(const nha::AttentionOptions& options, const CaseShape& shape) {
  const RandomCase<T> c(shape);
  CountingResource memory;
  AttentionState<T> state(c.attention_shape(), options, 4, &memory);
  CaseOutputs<T> out(c.shape);
  nha::Workspace workspace(&memory);
  const Index query_heads = shape.kv_heads * shape.group;
  // The window is not full yet: what is reserved must do for when it is.
  prefill_range(c, state, out, 0, c.shape.tokens, c.shape.tokens);
  workspace.reserve(std::max(nha::prefill_workspace_bytes(state, query_heads, c.shape.tokens),
                             nha::step_workspace_bytes(state, query_heads)));
  const long made = memory.count;
  const long before = new_calls;
  nha::prefill(c.inputs(), state, out.views(), workspace);
  for (Index t = 0; t < 10; ++t)
    nha::step(c.inputs().tokens(t, 1), state, out.tokens(t, 1), workspace);
  state.rollback(0, 3);
  state.reset(0);
  EXPECT_EQ(new_calls, before);
  EXPECT_EQ(memory.count, made);
}

TEST(Allocation, StepAndPrefillWithAWorkspaceMakeNone) {
  const CaseShape shape{.batch = 2, .tokens = 80, .kv_heads = 2, .group = 3, .key_dim = 20};
  expect_no_allocation<float>({.window = 20}, shape);
  expect_no_allocation<double>({.window = 0}, shape);
  expect_no_allocation<nha::bfloat16>({.window = 200}, shape);
  expect_no_allocation<float>({.window = 9, .empty_slots = nha::EmptySlots::mass_corrected}, shape);
}

template <class T>
void expect_no_allocation_backward(const nha::AttentionOptions& options, const CaseShape& shape,
                                   const nha::BackwardOptions& backward_options = {}) {
  const RandomCase<T> c(shape);
  CountingResource memory;
  AttentionState<T> state(c.attention_shape(), options, 4, &memory);
  const auto cotangents = random_cotangents<T>(shape);
  auto gradients = unwritten_gradients(c);
  const Index query_heads = shape.kv_heads * shape.group;
  nha::Workspace workspace(&memory);
  workspace.reserve(
      nha::backward_workspace_bytes(state, query_heads, shape.tokens, backward_options));
  const auto run = [&] {
    nha::backward(c.inputs(), state, {}, cotangents.views(), gradients.template views<T>(),
                  workspace, backward_options);
  };
  const long made = memory.count;
  const long before = new_calls;
  run();
  EXPECT_EQ(new_calls, before);
  EXPECT_EQ(memory.count, made);
  // Nor when the state has seen tokens: here the pass over them may allocate, not the backward.
  CaseOutputs<T> out(c.shape);
  prefill_range(c, state, out, 0, shape.tokens, 7);
  const long after = new_calls;
  run();
  EXPECT_EQ(new_calls, after);
  EXPECT_EQ(memory.count, made);
}

TEST(Allocation, BackwardWithAWorkspaceMakesNone) {
  const CaseShape shape{.batch = 2, .tokens = 80, .kv_heads = 2, .group = 3, .key_dim = 20};
  expect_no_allocation_backward<float>({.window = 20}, shape);
  expect_no_allocation_backward<float>({.window = 20}, shape, {.chunk = 5});
  expect_no_allocation_backward<double>({.window = 0}, shape);
  expect_no_allocation_backward<nha::bfloat16>({.window = 200}, shape);
  expect_no_allocation_backward<float>(
      {.window = 9, .empty_slots = nha::EmptySlots::mass_corrected}, shape);
  // The window passes from short to long between the first call and the second.
  expect_no_allocation_backward<float>({.window = 1100}, {.tokens = 400, .group = 2, .slots = 4});
}

TEST(Allocation, WhatIsReservedBeforehandDoesWhileTheWindowFills) {
  for (const Index window : {100, 600, 1100})
    for (const Index piece : {5, 64}) {
      const RandomCase<float> c({.tokens = 1200, .group = 2});
      AttentionState<float> state(c.attention_shape(), {.window = window});
      CaseOutputs<float> out(c.shape);
      nha::Workspace workspace;
      workspace.reserve(nha::prefill_workspace_bytes(state, 2, piece));
      const long before = new_calls;
      for (Index t = 0; t + piece <= 1200; t += piece)
        nha::prefill(c.inputs().tokens(t, piece), state, out.tokens(t, piece), workspace);
      EXPECT_EQ(new_calls, before) << window << ' ' << piece;
    }
}

TEST(Allocation, AWorkspaceThatGrowsStepByStepDoesSoInFewSteps) {
  const RandomCase<float> c({.tokens = 1024});
  AttentionState<float> state(c.attention_shape(), {.window = 1024});
  CaseOutputs<float> out(c.shape);
  nha::Workspace workspace;
  const long before = new_calls;
  for (Index t = 0; t < 1024; t += 8)
    nha::prefill(c.inputs().tokens(t, 8), state, out.tokens(t, 8), workspace);
  EXPECT_LT(new_calls, before + 10);
}

TEST(Allocation, TheReferenceMakesNoneForFurtherHeads) {
  const auto allocations = [](Index heads) {
    const RandomCase<float> c({.batch = heads, .tokens = 9, .kv_heads = heads});
    AttentionState<float> state(c.attention_shape(), {.window = 3});
    CaseOutputs<float> out(c.shape);
    const long before = new_calls;
    nha::reference(c.inputs(), state, out.views());
    return new_calls - before;
  };
  EXPECT_GT(allocations(1), 0);
  EXPECT_EQ(allocations(3), allocations(1));
}

TEST(Allocation, AStateMakesOneForItsMemory) {
  CountingResource memory;
  const AttentionState<float> state({.batch = 3, .kv_heads = 2}, {.window = 8}, 2, &memory);
  EXPECT_EQ(memory.count, 1);
}

}  // namespace
