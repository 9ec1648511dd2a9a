// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/update.hpp>

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
    prefill_range(c, expected, ignored, 0, shape.tokens, shape.tokens,
                  {.algorithm = nha::PrefillAlgorithm::reference});

    const auto inputs = c.inputs();
    const auto plan = nha::detail::chunk_plan(state.shape(), nha::head_options(options, 0),
                                              shape.group, shape.tokens, 0, 16);
    nha::Arena none(nullptr);
    const nha::detail::ChunkCall call(inputs, state, plan, 0, 0, none);
    std::vector<std::byte> memory(ChunkScratch<float>::bytes(plan) + nha::kAlignment);
    void* aligned = memory.data();
    std::size_t space = memory.size();
    std::align(nha::kAlignment, 1, aligned, space);
    nha::Arena cursor(static_cast<std::byte*>(aligned));
    const auto s = ChunkScratch<float>::take(cursor, plan);
    const nha::detail::ChunkUpdate<Arch, std::remove_const_t<decltype(call)>> update(call,
                                                                                     s.update);
    const auto elsewhere = nha::detail::StateAccess::head(other, 0, 0).slots;
    const auto advance = [&](const Chunk& chunk, const auto& from, const auto& to) {
      const auto gates = call.template entering_gates<Arch>(chunk, s.retention, s.write);
      update.run(chunk, gates, update.pack_values(chunk), from, to);
    };
    advance({0, 16}, call.memory.slots, call.memory.slots);
    advance({16, shape.tokens - 16}, call.memory.slots, elsewhere);
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
