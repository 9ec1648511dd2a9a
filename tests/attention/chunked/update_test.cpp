// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/prefill_head.hpp>
#include <nha/attention/chunked/update.hpp>
#include <nha/attention/reference.hpp>

#include <gtest/gtest.h>

#include "support/architectures.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::detail::Chunk;
using nha::detail::ChunkScratch;

template <class Arch>
class ChunkUpdateOn : public testing::Test {
 protected:
  /// The slots after two chunks, the second written elsewhere than it was read.
  static void check(const CaseShape& shape, const nha::AttentionOptions& options) {
    const RandomCase<float> c(shape);
    AttentionState<float> state(c.attention_shape(), options), other(state), expected(state);
    CaseOutputs<float> ignored(c.shape);
    nha::reference(c.inputs(), expected, ignored.views());

    const auto inputs = c.inputs();
    const auto plan = nha::detail::chunk_plan(state.shape(), nha::head_options(options, 0),
                                              shape.group, shape.tokens, 0, 16);
    using Call = nha::detail::HeadCall<float>;
    const nha::detail::ChunkedCall<Call> call(
        nha::detail::head_call(inputs, state, shape.group, 0, 0), plan, 0);
    nha::Workspace workspace;
    workspace.reserve(ChunkScratch<float>::bytes(plan));
    nha::Arena cursor(workspace.data());
    const auto s = ChunkScratch<float>::take(cursor, plan);
    const nha::detail::ChunkUpdate<Arch, Call> update(call, s.update);
    const auto found = nha::detail::StateAccess::head(state, 0, 0).slots;
    const auto elsewhere = nha::detail::StateAccess::head(other, 0, 0).slots;
    const auto advance = [&](const Chunk& chunk, const auto& from, const auto& to) {
      const auto gates = call.template entering_gates<Arch>(chunk, s.retention, s.write);
      update.run(chunk, gates, update.pack_values(chunk), from, to);
    };
    advance({0, 16}, found, found);
    advance({16, shape.tokens - 16}, found, elsewhere);
    EXPECT_LT(slot_error(other, expected), 2e-6);
  }
};
TYPED_TEST_SUITE(ChunkUpdateOn, Architectures);

TYPED_TEST(ChunkUpdateOn, IsTheRecurrence) {
  this->check({.tokens = 32, .key_dim = 18, .value_dim = 20, .slots = 24}, {.window = 5});
  this->check({.tokens = 29, .slots = 7, .gates = Gates::mixed, .explicit_write = true}, {});
}

TYPED_TEST(ChunkUpdateOn, LeavesOutWhatIsBeforeTheSequence) {
  this->check({.tokens = 32}, {.window = 5, .slot_delay = 5});
  this->check({.tokens = 32}, {.window = 20, .slot_delay = 20});
}

}  // namespace
