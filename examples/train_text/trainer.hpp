// SPDX-License-Identifier: MIT
// Trainer: a training run. What a program of your own would do is here: step() learns from a batch,
// save() and the constructor stop and resume.
#pragma once

#include "command_line.hpp"

#include <nha/core/checksum.hpp>
#include <nha/core/error.hpp>
#include <nha/io/training_checkpoint.hpp>
#include <nha/model/language_model.hpp>
#include <nha/parallel/thread_pool.hpp>
#include <nha/train/adamw.hpp>
#include <nha/train/gradient_norm.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/parameters.hpp>
#include <nha/train/schedule.hpp>
#include <nha/train/text_batches.hpp>
#include <nha/train/training_step.hpp>
#include <nha/train/window_choice.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace train_text {

/// The model that the options ask for.
inline nha::ModelOptions model_options(const Options& options) {
  // What the model says where nothing else is asked for: the middle one of its windows.
  std::vector<Index> windows = options.windows;
  std::ranges::sort(windows);
  nha::LayerSpec layer{
      .shape = {.hidden = options.width,
                .query_heads = options.heads,
                .kv_heads = options.kv_heads,
                .key_dim = options.width / options.heads,
                .value_dim = options.width / options.heads,
                .slots = options.slots},
      .options = nha::nha_v1(std::min(windows[windows.size() / 2], options.length))};
  layer.options.attention.empty_slots = options.empty_slots;
  layer.options.feature_map = nha::FeatureMap::swish;
  layer.options.gate_divisor = options.gate_divisor;
  layer.options.gate_bias = options.gate_bias.has_value();
  layer.options.convolution_kernel_size = options.convolution;
  return {.vocabulary = 256,
          .intermediate = 3 * options.width,
          .layers = nha::repeat(options.layers, layer)};
}

/// What a step saw and did.
struct StepReport {
  double bits_per_byte = 0;  // of its batch
  double learning_rate = 0;
  double gradient_norm = 0;  // before it was clipped
};

class Trainer {
 public:
  /// A run from its beginning, or from where options.out was saved. The text must stay.
  /// @throws FormatError if the run that is there cannot go on with these options.
  Trainer(const Options& options, std::string_view text)
      : model_(model_options(options),
               nha::initial_weights<float>(model_options(options),
                                           {.seed = options.seed,
                                            .gate_standard_deviation = options.gate_spread,
                                            .gate_bias = options.gate_bias.value_or(0)})),
        gradients_(nha::zero_weights<float>(model_.options())),
        weights_list_(nha::parameters(model_)),
        gradients_list_(nha::parameters(model_.options(), gradients_)),
        optimizer_(weights_list_, {.weight_decay = options.weight_decay}),
        batches_(std::as_bytes(std::span(text)), options.batch, options.length, options.seed),
        windows_{.windows = options.windows, .seed = options.seed},
        schedule_{.peak = options.learning_rate,
                  .warmup_steps = options.steps / 20,
                  .total_steps = options.steps,
                  .floor = options.learning_rate / 100},
        record_{.seed = options.seed, .settings = settings(options, text)},
        threads_(options.threads) {
    if (!options.resume) return;
    const nha::TrainingCheckpoint saved(options.out);
    nha::check_format(saved.record().seed == options.seed, options.out, ": its --seed was ",
                      saved.record().seed, "; this one is ", options.seed);
    saved.restore(model_, optimizer_, record_.settings);
    record_.steps = saved.record().steps;
  }

  /// Steps that were taken, those before a stop among them.
  Index steps() const { return record_.steps; }
  /// Those of them that changed nothing.
  Index steps_left_out() const { return record_.steps - optimizer_.steps(); }
  const nha::LanguageModel<float>& model() const { return model_; }

  /// One step. Where the gradients are not finite, as they may be after too large ones, the weights
  /// stay as they are: see steps_left_out().
  StepReport step() {
    constexpr double kLongestGradient = 1;
    const Index n = record_.steps;
    const nha::TextBatch batch = batches_.at(n);
    // A fixed number of micro-batches, so that the threads change no number.
    const nha::TrainingLoss loss = nha::loss_and_gradients(
        model_, {batch.tokens.view(), batch.targets.view()}, gradients_, workspace_,
        {.windows = windows_.windows_at(n), .micro_batches = kMicroBatches}, threads_);
    StepReport report{.bits_per_byte = loss.cross_entropy / std::log(2.0),
                      .learning_rate = schedule_.learning_rate(n),
                      .gradient_norm = nha::clip_gradients(gradients_list_, kLongestGradient)};
    if (std::isfinite(report.gradient_norm))
      optimizer_.step(weights_list_, gradients_list_, report.learning_rate, threads_);
    ++record_.steps;
    return report;
  }

  /// Writes what byte_lm runs and what resumes the run.
  /// @throws FormatError naming the file that cannot be written; what was there then stays whole.
  void save(const std::string& folder) const {
    nha::save_training(folder, model_, optimizer_, record_);
  }

 private:
  static constexpr Index kMicroBatches = 8;

  /// What makes the run what it is, besides the model and the seed.
  static nha::Metadata settings(const Options& options, std::string_view text) {
    char rate[32];
    std::snprintf(rate, sizeof rate, "%.17g", options.learning_rate);
    return {{"text", std::to_string(text.size()) + " bytes, FNV-1a " +
                         std::to_string(nha::fnv1a(std::as_bytes(std::span(text))))},
            {"batch", std::to_string(options.batch)},
            {"length", std::to_string(options.length)},
            {"windows", examples_common::window_list(options.windows)},
            {"steps", std::to_string(options.steps)},
            {"lr", rate}};
  }

  nha::LanguageModel<float> model_;
  nha::LanguageModelWeights<float> gradients_;
  std::vector<nha::Parameter<float>> weights_list_;
  std::vector<nha::Parameter<float>> gradients_list_;
  nha::AdamW<float> optimizer_;
  nha::TextBatches batches_;
  nha::WindowChoice windows_;
  nha::CosineSchedule schedule_;
  nha::TrainingRecord record_;
  nha::TrainingWorkspace<float> workspace_;
  nha::ThreadPool threads_;
};

}  // namespace train_text
