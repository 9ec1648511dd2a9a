// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/read.hpp>

#include <gtest/gtest.h>

#include <cmath>

#include "support/architectures.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::detail::Chunk;
using nha::detail::ReadScratch;

template <class Arch>
class ChunkReadOn : public testing::Test {
 protected:
  /// Reads the chunks of a call without slots that `wanted` says, after `past` earlier tokens, and
  /// expects the bits of a whole prefill there and nothing elsewhere.
  template <class Wanted>
  static void check(Index window, Index past, Wanted wanted) {
    const RandomCase<float> c({.tokens = past + 400, .group = 2, .key_dim = 18, .slots = 0});
    AttentionState<float> state(c.attention_shape(), {.window = window}), whole(state);
    CaseOutputs<float> out(c.shape), expected(c.shape), ignored(c.shape);
    prefill_range(c, state, ignored, 0, past, past);
    prefill_range(c, whole, ignored, 0, past, past);
    nha::Workspace workspace;
    nha::prefill<Arch>(c.inputs().tokens(past, 400), whole, expected.tokens(past, 400), workspace,
                       {.chunk = 16});

    const auto inputs = c.inputs().tokens(past, 400);
    const auto outputs = out.tokens(past, 400);
    const auto plan = nha::detail::chunk_plan(state.shape(), nha::head_options(state.options(), 0),
                                              2, 400, past, 16);
    using Call = nha::detail::HeadCall<float>;
    const nha::detail::ChunkedCall<Call> call(nha::detail::head_call(inputs, state, 2, 0, 0), plan,
                                              0);
    nha::Arena size(nullptr);
    ReadScratch<float>::take(size, plan);
    workspace.reserve(size.used());
    nha::Arena cursor(workspace.data());
    nha::detail::ChunkReader<Arch, Call> reader(call,
                                                nha::detail::head_outputs(inputs, outputs, 2, 0, 0),
                                                ReadScratch<float>::take(cursor, plan));
    for (Chunk chunk{past, 0}; chunk.end() < call.end;) {
      chunk = call.chunk_at(chunk.end());
      if (!wanted((chunk.position - past) / 16)) continue;
      reader.load_band(chunk);
      reader.read(chunk, {}, call.memory.slots);
    }
    for (Index t = past; t < past + 400; ++t)
      for (Index h = 0; h < 2; ++h)
        if (wanted((t - past) / 16))
          ASSERT_EQ(out.o(0, t, h, 3), expected.o(0, t, h, 3))
              << "token " << t << ", window " << window << ", past " << past;
        else
          ASSERT_TRUE(std::isnan(out.o(0, t, h, 3))) << "token " << t << " was written";
  }
};
TYPED_TEST_SUITE(ChunkReadOn, Architectures);

TYPED_TEST(ChunkReadOn, HasTheSameBitsWhicheverChunksAreLeftOut) {
  for (const Index window : {1, 20, 70, 1000})
    for (const Index past : {0, 37}) {
      this->check(window, past, [](Index) { return true; });
      this->check(window, past, [](Index i) { return i % 2 == 1; });
      this->check(window, past, [](Index i) { return i % 9 == 4 || i > 20; });
    }
}

}  // namespace
