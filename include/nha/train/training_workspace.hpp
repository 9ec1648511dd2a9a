// SPDX-License-Identifier: MIT
// TrainingWorkspace: the memory of training steps that several threads compute.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/state.hpp>
#include <nha/model/weights.hpp>
#include <nha/parallel/executor.hpp>
#include <nha/train/cross_entropy.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/language_model_tape.hpp>
#include <nha/train/parameters.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <std::floating_point T>
void set_to_zero(const std::vector<Parameter<T>>& list) noexcept {
  for (const Parameter<T>& parameter : list)
    std::fill(parameter.values.begin(), parameter.values.end(), T{0});
}

}  // namespace detail

/// Scratch memory of training steps: grows at the first step that needs more, and serves steps of
/// any models, batches and windows in turn.
template <std::floating_point T>
class TrainingWorkspace {
 public:
  using Tokens = typename LanguageModel<T>::Tokens;

  TrainingWorkspace() = default;
  // Pointers of one part lead into another. Between steps there is nothing in it worth a copy.
  TrainingWorkspace(const TrainingWorkspace&) = delete;
  TrainingWorkspace& operator=(const TrainingWorkspace&) = delete;
  TrainingWorkspace(TrainingWorkspace&&) = default;
  TrainingWorkspace& operator=(TrainingWorkspace&&) = default;
  ~TrainingWorkspace() = default;

  // What follows is for loss_and_gradients() and evaluate().

  /// Consecutive sequences of a batch, which one task computes.
  struct MicroBatch {
    Index first = 0, count = 0;
    std::optional<LanguageModelState<T>> state;
    // Of all but the first micro-batch, which has the caller's; and what parameters() says of them.
    LanguageModelWeights<T> gradients;
    std::vector<Parameter<T>> parameters;
    CrossEntropy cross_entropy = {};
    double slot_share = 0;
  };
  /// What a task works with.
  struct Worker {
    LanguageModelTape<T> tape;
    Workspace cross_entropy;
    Workspace dx;
  };
  /// What passes over a batch are for.
  struct Pass {
    const std::vector<Index>& windows;  // as in TrainingOptions
    Index micro_batches;
    Index first_kept;  // as in TapePass
    /// What parameters() says of the caller's gradients; null where there are none.
    const std::vector<Parameter<T>>* gradients;
  };

  /// Cuts a batch, not an empty one, into micro-batches and takes all memory that its passes need.
  /// There are as many tapes and head's blocks as an executor of `workers` workers computes
  /// micro-batches at once, each of the size of the largest. Each micro-batch but the first has
  /// gradients.
  /// @throws ArgumentError if the number of windows is not that of the layers, or one is out of
  ///   range.
  void prepare(const LanguageModel<T>& model, const Tokens& tokens, const Pass& pass,
               Index workers) {
    const Index sequences = tokens.extent(0);
    const Index count = std::min(pass.micro_batches, sequences);
    cut(model, shortened(model, pass.windows, tokens.extent(1)), sequences, count);
    if (pass.gradients != nullptr)
      for (std::size_t n = 1; n < micro_batches_.size(); ++n)
        prepare_gradients(model, *pass.gradients, micro_batches_[n]);
    const MicroBatch& largest = micro_batches_.back();
    const Tokens most = tokens.template slice<0>(largest.first, largest.count);
    by_micro_batch_ = workers > count;
    const auto at_once = static_cast<std::size_t>(std::min(workers, count));
    if (workers_.size() < at_once) workers_.resize(at_once);
    const auto rows = static_cast<std::size_t>(most.size() * model.options().hidden());
    for (Worker& worker : std::span(workers_).first(at_once)) {
      worker.tape.reserve(model, most, *largest.state, pass.first_kept);
      if (pass.gradients != nullptr) worker.dx.reserve(rows * sizeof(T));
      worker.cross_entropy.reserve(cross_entropy_workspace_bytes<T>(
          most.size(), model.options().hidden(), model.options().vocabulary));
    }
  }

  /// Adds the gradients of the other micro-batches to those of the first, in order.
  void add_gradients(const std::vector<Parameter<T>>& first, ExecutorRef executor) const {
    for (std::size_t n = 1; n < micro_batches_.size(); ++n) {
      const auto task = [&](Index i, Index) {
        const auto& values = micro_batches_[n].parameters[static_cast<std::size_t>(i)].values;
        const auto& total = first[static_cast<std::size_t>(i)].values;
        for (std::size_t k = 0; k < values.size(); ++k) total[k] += values[k];
      };
      executor.run(static_cast<Index>(first.size()), task);
    }
  }

  std::vector<MicroBatch>& micro_batches() noexcept { return micro_batches_; }
  /// What the task of a micro-batch works with when a worker of the executor runs it. Where there
  /// are more workers than micro-batches each micro-batch has its own, for any of them may run it.
  Worker& worker(Index micro_batch, Index worker) noexcept {
    return workers_[static_cast<std::size_t>(by_micro_batch_ ? micro_batch : worker)];
  }
  const std::vector<Worker>& workers() const noexcept { return workers_; }

 private:
  /// What micro-batches were made for.
  struct Plan {
    ModelOptions model;
    ModelStateOptions windows;  // and nothing else of the states
    Index sequences = 0;
  };

  /// The windows for sequences of `tokens` tokens: longer ones than that change nothing but the
  /// memory they take.
  static ModelStateOptions shortened(const LanguageModel<T>& model,
                                     const std::vector<Index>& windows, Index tokens) {
    ModelStateOptions shortened;
    const std::size_t layers = model.options().layers.size();
    for (std::size_t n = 0; n < layers; ++n) {
      AttentionOptions layer =
          layer_attention_options(model.options(), {.windows = windows}, static_cast<Index>(n));
      const Index most = std::max(tokens, layer.slot_delay.value_or(0));
      shortened.windows.push_back(std::min(layer.window, most));
      if (layer.head_windows.empty()) continue;
      for (Index& window : layer.head_windows) window = std::min(window, most);
      shortened.head_windows.resize(layers);
      shortened.head_windows[n] = std::move(layer.head_windows);
    }
    return shortened;
  }

  void cut(const LanguageModel<T>& model, ModelStateOptions windows, Index sequences, Index count) {
    const bool same_model = plan_.model == model.options();
    if (same_model && plan_.windows == windows && plan_.sequences == sequences &&
        static_cast<Index>(micro_batches_.size()) == count)
      return;
    if (!same_model) micro_batches_.clear();
    plan_ = {};  // in case memory runs out
    micro_batches_.resize(static_cast<std::size_t>(count));
    for (Index n = 0; n < count; ++n) {
      MicroBatch& part = micro_batches_[static_cast<std::size_t>(n)];
      part.first = sequences * n / count;
      part.count = sequences * (n + 1) / count - part.first;
      windows.batch = part.count;
      part.state = model.make_state(windows);
    }
    windows.batch = 1;
    plan_ = {model.options(), std::move(windows), sequences};
  }

  /// Makes a micro-batch's gradients: of the weights of which the caller's are wanted.
  static void prepare_gradients(const LanguageModel<T>& model,
                                const std::vector<Parameter<T>>& wanted, MicroBatch& part) {
    const auto same_name = [](const auto& a, const auto& b) { return a.name == b.name; };
    if (!part.gradients.layers.empty() && std::ranges::equal(part.parameters, wanted, same_name))
      return;
    part.parameters.clear();
    part.gradients = zero_weights<T>(model.options(), [&](std::string_view name) {
      return std::ranges::any_of(wanted, [&](const auto& weight) { return weight.name == name; });
    });
    part.parameters = parameters(model.options(), part.gradients);
  }

  std::vector<MicroBatch> micro_batches_;
  std::vector<Worker> workers_;
  bool by_micro_batch_ = false;
  Plan plan_;
};

NHA_ISA_NAMESPACE_END
