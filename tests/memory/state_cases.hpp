// SPDX-License-Identifier: MIT
// What the tests of the state share: layers of every kind, stepping through a case, and comparison
// bit by bit.
#pragma once

#include <nha/attention/step.hpp>
#include <nha/memory/state.hpp>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "support/random_case.hpp"

namespace nha_test {

struct StateSetting {
  std::string name;
  nha::AttentionOptions options;
  Index slots = 5;
  bool initial_slots = false;
};

/// Layers that treat slots, window and delay in every way there is.
inline std::vector<StateSetting> state_settings() {
  using nha::EmptySlots;
  return {
      {"delay as long as the window", {.window = 6}},
      {"delay 0", {.window = 6, .slot_delay = 0}},
      {"delay between", {.window = 6, .slot_delay = 2}},
      {"no window", {.window = 0}},
      {"window of one", {.window = 1}},
      {"window beyond the tokens", {.window = 100, .slot_delay = 7}},
      {"no slots", {.window = 6}, 0},
      {"a window for each head", {.head_windows = {0, 9}}},
      {"a window for each head, one delay", {.slot_delay = 3, .head_windows = {3, 8}}},
      {"initial slots", {.window = 4, .empty_slots = EmptySlots::masked}, 5, true},
      {"initial slots, by mass", {.window = 0, .empty_slots = EmptySlots::mass_corrected}, 5, true},
      {"many slots", {.window = 3, .empty_slots = EmptySlots::mass_corrected}, 17},
  };
}

/// A small case with two heads of three queries each; nothing is a multiple of the row padding.
inline CaseShape small_case(const StateSetting& setting, Index tokens, Index batch = 1) {
  return {.batch = batch,
          .tokens = tokens,
          .kv_heads = 2,
          .group = 3,
          .key_dim = 3,
          .value_dim = 5,
          .slots = setting.slots};
}

template <class T, class SlotScalar>
using StateOf = nha::AttentionState<T, nha::Dynamic, nha::Dynamic, nha::Dynamic, SlotScalar>;

/// An empty state for a case, or one with initial slots that differ in every sequence.
template <class T, class SlotScalar = nha::accumulate_t<T>>
StateOf<T, SlotScalar> make_state(const RandomCase<T>& c, const StateSetting& setting,
                                  Index max_rollback = 0) {
  using Acc = nha::accumulate_t<T>;
  const nha::AttentionShape shape = c.attention_shape();
  StateOf<T, SlotScalar> state(shape, setting.options, max_rollback);
  if (!setting.initial_slots) return state;
  nha::Tensor<Acc, 4> key({shape.batch, shape.kv_heads, shape.slots, shape.key_dim});
  nha::Tensor<Acc, 4> value({shape.batch, shape.kv_heads, shape.slots, shape.value_dim});
  nha::Tensor<Acc, 3> mass({shape.batch, shape.kv_heads, shape.slots});
  for (Index i = 0; i < key.size(); ++i) key.data()[i] = static_cast<Acc>(i % 7) / 4 - 1;
  for (Index i = 0; i < value.size(); ++i) value.data()[i] = static_cast<Acc>(i % 11) / 8;
  for (Index i = 0; i < mass.size(); ++i) mass.data()[i] = static_cast<Acc>(1 + i % 3);
  state.set_initial_slots(key, value, mass);
  return state;
}

/// Tokens [first, last) of every sequence, one at a time.
template <class T, class State>
void step_range(const RandomCase<T>& c, State& state, CaseOutputs<T>& out, Index first,
                Index last) {
  nha::Workspace workspace;
  for (Index t = first; t < last; ++t)
    nha::step(c.inputs().tokens(t, 1), state, out.tokens(t, 1), workspace);
}

/// Whether two tensors [batch, tokens, ...] are the same bit for bit in tokens [first, last).
template <class T, int Rank>
bool same_bits(const nha::Tensor<T, Rank>& a, const nha::Tensor<T, Rank>& b, Index first,
               Index last) {
  const Index row = a.extent(1) > 0 ? a.size() / (a.extent(0) * a.extent(1)) : 0;
  for (Index n = 0; n < a.extent(0); ++n) {
    const Index start = (n * a.extent(1) + first) * row;
    const auto bytes = static_cast<std::size_t>((last - first) * row) * sizeof(T);
    if (bytes > 0 && std::memcmp(a.data() + start, b.data() + start, bytes) != 0) return false;
  }
  return true;
}
template <class T>
bool same_bits(const CaseOutputs<T>& a, const CaseOutputs<T>& b, Index first, Index last) {
  return same_bits(a.o, b.o, first, last) && same_bits(a.lse, b.lse, first, last) &&
         same_bits(a.slot_share, b.slot_share, first, last);
}

}  // namespace nha_test
