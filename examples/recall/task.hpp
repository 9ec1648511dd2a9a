// SPDX-License-Identifier: MIT
// The task: multi-query associative recall (Arora et al., 2023, "Zoology").
//
// A sequence begins with pairs of a key and a value. Later each key comes once more, at a random
// place among filler tokens, and what should follow it is its value. Nothing else is asked for, so
// a model answers right if and only if it has kept the pair:
//
//   k3 v7 k1 v2 .  .  k1 .  k3 .  .
//                     v2    v7         what should follow
#pragma once

#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/train/random.hpp>
#include <nha/train/training_step.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace recall {

using nha::Index;

/// Sizes of the task. Tokens 0 to keys - 1 are keys, the next ones values, the last one is filler.
struct Task {
  Index pairs = 16;
  /// How many keys and values there are to choose from.
  Index keys = 32, values = 32;
  /// Length of a sequence.
  Index tokens = 64;
  /// Whether the filler is random values instead of a token of its own.
  bool random_filler = false;

  Index vocabulary() const { return keys + values + 1; }
  Task with_pairs(Index other) const {
    Task task = *this;
    task.pairs = other;
    return task;
  }
  /// Whether the keys are enough, and each has a place to be asked for behind the pairs.
  bool possible() const { return pairs >= 1 && pairs <= keys && 3 * pairs <= tokens; }
};

/// Sequences with their right answers.
struct Sequences {
  nha::Tensor<std::int32_t, 2> tokens;     // [count, tokens]
  nha::Tensor<std::int32_t, 2> targets;    // values at the places of questions, -1 elsewhere
  nha::Tensor<std::int32_t, 2> distances;  // of questions from their keys' first places

  nha::TrainingBatch batch() const { return {tokens.view(), targets.view()}; }
  Index count() const { return tokens.extent(0); }
};

/// The numbers from `first` to before `last`; the first `count` of them are drawn at random, each
/// order of each choice as likely as any other.
inline std::vector<Index> draw(Index first, Index last, Index count, nha::Random& random) {
  std::vector<Index> numbers(static_cast<std::size_t>(last - first));
  std::iota(numbers.begin(), numbers.end(), first);
  for (Index i = 0; i < count; ++i)
    std::swap(numbers[static_cast<std::size_t>(i)],
              numbers[static_cast<std::size_t>(i + random.below(last - first - i))]);
  return numbers;
}

/// Draws sequences. Keys of one differ from each other; values may be the same.
inline Sequences draw_sequences(const Task& task, Index count, nha::Random random) {
  const auto token = [](Index number) { return static_cast<std::int32_t>(number); };
  const auto any_value = [&] { return token(task.keys + random.below(task.values)); };
  Sequences drawn{nha::Tensor<std::int32_t, 2>({count, task.tokens}),
                  nha::Tensor<std::int32_t, 2>({count, task.tokens}),
                  nha::Tensor<std::int32_t, 2>({count, task.tokens})};
  for (Index b = 0; b < count; ++b) {
    for (Index t = 0; t < task.tokens; ++t) {
      drawn.tokens(b, t) = task.random_filler ? any_value() : token(task.keys + task.values);
      drawn.targets(b, t) = -1;
    }
    const std::vector<Index> keys = draw(0, task.keys, task.pairs, random);
    const std::vector<Index> places = draw(2 * task.pairs, task.tokens, task.pairs, random);
    for (Index i = 0; i < task.pairs; ++i) {
      const std::int32_t key = token(keys[static_cast<std::size_t>(i)]);
      const std::int32_t value = any_value();
      const Index place = places[static_cast<std::size_t>(i)];
      drawn.tokens(b, 2 * i) = key;
      drawn.tokens(b, 2 * i + 1) = value;
      drawn.tokens(b, place) = key;
      drawn.targets(b, place) = value;
      drawn.distances(b, place) = token(place - 2 * i);
    }
  }
  return drawn;
}

/// The same sequences, of whose questions only those count whose distance lies above `more_than`
/// and is at most `most`.
inline Sequences only_distances(Sequences sequences, Index more_than, Index most) {
  for (Index b = 0; b < sequences.count(); ++b)
    for (Index t = 0; t < sequences.tokens.extent(1); ++t)
      if (sequences.distances(b, t) <= more_than || sequences.distances(b, t) > most)
        sequences.targets(b, t) = -1;
  return sequences;
}

}  // namespace recall
