// SPDX-License-Identifier: MIT
// Training one model from one seed, and measuring it: what a program of your own would do.
#pragma once

#include "../common/stopwatch.hpp"
#include "command_line.hpp"
#include "contestants.hpp"
#include "task.hpp"

#include <nha/core/index.hpp>
#include <nha/model/language_model.hpp>
#include <nha/train/adamw.hpp>
#include <nha/train/gradient_norm.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/parameters.hpp>
#include <nha/train/random.hpp>
#include <nha/train/schedule.hpp>
#include <nha/train/training_step.hpp>
#include <nha/train/training_workspace.hpp>
#include <nha/train/window_choice.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace recall {

/// What random sequences are drawn for, beside the purposes the library has.
inline constexpr std::uint64_t kTrainingSequences = 100;
inline constexpr std::uint64_t kHeldoutSequences = 101;

/// Means over the steps since the point before; of sequences that had not been learnt from yet.
struct CurvePoint {
  Index step = 0;  // the last of them, counted from 1
  double loss = 0;
  double accuracy = 0;
};

/// The nearest that a question can be: behind the value of the last pair.
inline constexpr Index kNearest = 2;

/// Distances of questions from their keys, above more_than and at most `most`.
struct DistanceRange {
  Index more_than = 0;
  Index most = 0;
};

/// What became of one model and seed. Accuracies are parts of 1, NaN where nothing was asked.
struct RunResult {
  std::vector<CurvePoint> curve;
  double seconds = 0;  // of training
  /// Steps that were left out because the gradients were not finite.
  Index left_out = 0;

  double accuracy = 0;
  std::vector<double> by_distance;  // for each of distance_ranges()
  std::vector<double> by_pairs;     // for each of Options::measured_pairs
  std::vector<double> by_window;    // for each of Options::measured_windows; of the hybrid alone
};

/// Ranges that end at an eighth, a quarter and a half of the tokens, and at all of them.
inline std::vector<DistanceRange> distance_ranges(const Task& task) {
  std::vector<DistanceRange> ranges;
  Index more_than = 0;
  for (const Index most : {task.tokens / 8, task.tokens / 4, task.tokens / 2, task.tokens - 1})
    if (most > more_than && most >= kNearest)
      ranges.push_back({std::exchange(more_than, most), most});
  return ranges;
}

/// The same sequences for all models and seeds.
inline Sequences heldout_sequences(const Options& options, Index pairs) {
  return draw_sequences(options.task.with_pairs(pairs), options.heldout,
                        nha::Random(0, kHeldoutSequences, static_cast<std::uint64_t>(pairs)));
}

/// A model and all it takes to train it, on the calling thread alone.
class Trainer {
 public:
  Trainer(const Options& options, const nha::ModelOptions& model, Index seed)
      : options_(options),
        seed_(static_cast<std::uint64_t>(seed)),
        model_(model, nha::initial_weights<float>(
                          model, {.seed = seed_,
                                  .standard_deviation = options.initial_spread,
                                  .embedding_standard_deviation = options.embedding_spread,
                                  .gate_standard_deviation = options.gate_spread,
                                  .gate_bias = options.gate_bias})),
        gradients_(nha::zero_weights<float>(model)),
        weights_list_(nha::parameters(model_)),
        gradients_list_(nha::parameters(model, gradients_)),
        optimizer_(weights_list_, {.beta2 = options.beta2, .weight_decay = options.weight_decay}),
        schedule_{.peak = options.learning_rate,
                  .warmup_steps = options.warmup,
                  .total_steps = options.steps,
                  .floor = options.learning_rate / 20} {}

  /// Learns from new sequences, in step n counted from 0; `windows` as in TrainingOptions. Returns
  /// what they cost before that.
  nha::TrainingLoss step(Index n, const std::vector<Index>& windows) {
    nha::Random random(seed_, kTrainingSequences, static_cast<std::uint64_t>(n));
    Task task = options_.task;
    task.pairs = pairs_of_step(n, random);
    const Sequences sequences = draw_sequences(task, options_.batch, random);
    const nha::TrainingLoss loss =
        nha::loss_and_gradients(model_, sequences.batch(), gradients_, workspace_,
                                {.windows = windows, .micro_batches = 1});
    if (std::isfinite(nha::clip_gradients(gradients_list_, options_.clip)))
      optimizer_.step(weights_list_, gradients_list_, schedule_.learning_rate(n));
    return loss;
  }
  /// Steps that changed the weights.
  Index steps_taken() const { return optimizer_.steps(); }

  /// The part of the questions that the model answers right.
  double accuracy(const Sequences& sequences, const std::vector<Index>& windows) {
    // In micro-batches of a batch at most, so that measuring needs no more memory than training.
    const Index parts = (sequences.count() + options_.batch - 1) / options_.batch;
    const nha::TrainingLoss loss = nha::evaluate(model_, sequences.batch(), workspace_,
                                                 {.windows = windows, .micro_batches = parts});
    if (loss.targets == 0) return std::numeric_limits<double>::quiet_NaN();
    return static_cast<double>(loss.correct) / static_cast<double>(loss.targets);
  }

 private:
  /// Few pairs at first: with a few to tell apart a model is right often enough to find out how.
  Index pairs_of_step(Index n, nha::Random& random) const {
    const double growing = options_.curriculum * static_cast<double>(options_.steps);
    if (static_cast<double>(n) >= growing) return options_.task.pairs;
    const double reached = static_cast<double>(n) / growing;
    return 1 + random.below(
                   1 + static_cast<Index>(reached * static_cast<double>(options_.task.pairs - 1)));
  }

  const Options& options_;
  std::uint64_t seed_;
  nha::LanguageModel<float> model_;
  nha::LanguageModelWeights<float> gradients_;
  std::vector<nha::Parameter<float>> weights_list_;
  std::vector<nha::Parameter<float>> gradients_list_;
  nha::AdamW<float> optimizer_;
  nha::CosineSchedule schedule_;
  nha::TrainingWorkspace<float> workspace_;
};

/// All training steps; calls report(steps done, accuracy of late) after each. That is NaN at first.
template <class Report>
void train(const Options& options, bool random_windows, Index seed, Trainer& trainer,
           RunResult& result, Report&& report) {
  const nha::WindowChoice choice{.windows = options.random_windows,
                                 .seed = static_cast<std::uint64_t>(seed)};
  const Index interval = (options.steps + 59) / 60;
  CurvePoint sum;
  Index summed = 0;
  for (Index n = 0; n < options.steps; ++n) {
    const nha::TrainingLoss loss =
        trainer.step(n, random_windows ? choice.windows_at(n) : std::vector<Index>());
    sum.loss += loss.cross_entropy;
    sum.accuracy += static_cast<double>(loss.correct) / static_cast<double>(loss.targets);
    ++summed;
    if ((n + 1) % interval == 0 || n + 1 == options.steps) {
      const auto steps = static_cast<double>(summed);
      result.curve.push_back({n + 1, sum.loss / steps, sum.accuracy / steps});
      sum = {};
      summed = 0;
    }
    report(n + 1, result.curve.empty() ? std::numeric_limits<double>::quiet_NaN()
                                       : result.curve.back().accuracy);
  }
  result.left_out = options.steps - trainer.steps_taken();
}

/// Trains a model from a seed and measures it. The result depends on the arguments alone, but for
/// the time.
template <class Report>
RunResult train_and_measure(const Options& options, const Contestant& contestant, bool hybrid,
                            Index seed, Report&& report) {
  RunResult result;
  Trainer trainer(options, contestant.model, seed);
  const examples_common::Stopwatch stopwatch;
  train(options, hybrid && !options.random_windows.empty(), seed, trainer, result, report);
  result.seconds = stopwatch.seconds();

  const Sequences heldout = heldout_sequences(options, options.task.pairs);
  result.accuracy = trainer.accuracy(heldout, {});
  for (const auto& [more_than, most] : distance_ranges(options.task))
    result.by_distance.push_back(trainer.accuracy(only_distances(heldout, more_than, most), {}));
  for (const Index pairs : options.measured_pairs)
    result.by_pairs.push_back(trainer.accuracy(heldout_sequences(options, pairs), {}));
  if (hybrid)
    for (const Index window : options.measured_windows)
      result.by_window.push_back(trainer.accuracy(heldout, {window}));
  return result;
}

}  // namespace recall
