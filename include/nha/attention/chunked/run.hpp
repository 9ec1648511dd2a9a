// SPDX-License-Identifier: MIT
// The chunkwise parallel algorithm: many tokens of one key/value head, by matrix products.
//
// A chunk is a few tokens (8 to 64, see chunk_plan.hpp) and the queries of all heads of the group.
// For each chunk:
//   slots    logits of the queries against the slots as of the chunk's start, one product, then
//            moved on to each query's own time inside the chunk (cpu/decay.hpp);
//   window   scores against the packed keys of the window, a band, one product;
//   softmax  over both at once; a band longer than a block is taken in blocks, online;
//   output   weights on the slots go back to the chunk's start and to the tokens that entered
//            since; these share columns with the window, so one product with the values serves
//            both;
//   update   the slots move on by a chunk: two products.
// The result is reference()'s. Memory is independent of the number of tokens unless the window
// holds them all.
#pragma once

#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/read.hpp>
#include <nha/attention/chunked/update.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/numeric.hpp>

#include <cstddef>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Runs the chunked algorithm over a call's tokens of one sequence in one key/value head, on one
/// thread. `state` is the call's; `scratch` has ChunkScratch::bytes() bytes.
template <class Arch, class Call>
void run_chunks(const Call& call, typename Call::State& state,
                const typename Call::Outputs& outputs, std::byte* scratch) noexcept {
  using Acc = typename Call::Acc;
  if (call.span.count == 0) return;
  Arena cursor(scratch);
  const auto s = ChunkScratch<Acc>::take(cursor, call.plan);
  const ChunkUpdate<Arch, Call> update(call, s.update);
  ChunkReader<Arch, Call> reader(call, outputs, s.read);
  call.template widen<Arch>();
  for (Chunk chunk{call.start, 0}; chunk.end() < call.end;) {
    chunk = call.chunk_at(chunk.end());
    reader.load_band(chunk);
    cpu::EnteringGates<Acc> gates = {};
    if (call.slots_are_written(chunk))
      gates = call.template entering_gates<Arch>(chunk, s.retention, s.write);
    const Chunk next = chunk.end() < call.end ? call.chunk_at(chunk.end()) : Chunk{};
    reader.read(chunk, gates, call.slots, next);
    if (call.slots_are_written(chunk))
      update.run(chunk, gates, reader.entering_values(chunk), call.slots, call.slots,
                 reader.next_rows());
    call.template leave_slots<Arch>(state, chunk.end(), call.slots);
  }
  call.template remember_newest<Arch>(s.retention, s.write);
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
