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
#include <string>
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
  // Its parts refer to each other; what is in it between steps is not worth a copy.
  TrainingWorkspace(const TrainingWorkspace&) = delete;
  TrainingWorkspace& operator=(const TrainingWorkspace&) = delete;
  TrainingWorkspace(TrainingWorkspace&&) = default;
  TrainingWorkspace& operator=(TrainingWorkspace&&) = default;
  ~TrainingWorkspace() = default;

  // What follows is for loss_and_gradients() and evaluate().

  /// Consecutive sequences of a batch, which one task computes.
  struct Share {
    Index first = 0, count = 0;
    std::optional<LanguageModelState<T>> state;
    // Of all but the first share, which has the caller's; and what parameters() says of them.
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

  /// Cuts a batch, not an empty one, into at most `shares` shares and takes all memory that its
  /// passes need: a tape and a head's block, of the largest share, for as many shares as `workers`
  /// workers of an executor compute at once, and gradients for each share but the first.
  /// @throws ArgumentError if the number of windows is not that of the layers or one is out of
  /// range
  void prepare(const LanguageModel<T>& model, const Tokens& tokens,
               const std::vector<Index>& windows, Index shares, bool with_gradients,
               Index workers) {
    const Index sequences = tokens.extent(0);
    const Index count = std::min(shares, sequences);
    cut(model, {model.options(), shortened(model, windows, tokens.extent(1)), sequences, count});
    for (Index n = 1; n < count && with_gradients; ++n) {
      Share& share = shares_[static_cast<std::size_t>(n)];
      if (!share.parameters.empty()) continue;
      if (share.gradients.layers.empty()) share.gradients = zero_weights<T>(model.options());
      share.parameters = parameters(model.options(), share.gradients);
    }
    const Share& largest = shares_.back();
    const Tokens most = tokens.template slice<0>(largest.first, largest.count);
    by_share_ = workers > count;
    const auto at_once = static_cast<std::size_t>(std::min(workers, count));
    if (workers_.size() < at_once) workers_.resize(at_once);
    for (Worker& worker : std::span(workers_).first(at_once)) {
      worker.tape.reserve(model, most, *largest.state);
      worker.dx.reserve(static_cast<std::size_t>(most.size() * model.options().shape.hidden) *
                        sizeof(T));
      worker.cross_entropy.reserve(cross_entropy_workspace_bytes<T>(
          most.size(), model.options().shape.hidden, model.options().vocabulary));
    }
  }

  /// Adds the gradients of the other shares to those of the first, in order.
  template <Executor E>
  void add_gradients(const std::vector<Parameter<T>>& first, E&& executor) const {
    for (std::size_t n = 1; n < shares_.size(); ++n) {
      const auto task = [&](Index i, Index) {
        const auto& values = shares_[n].parameters[static_cast<std::size_t>(i)].values;
        const auto& total = first[static_cast<std::size_t>(i)].values;
        for (std::size_t k = 0; k < values.size(); ++k) total[k] += values[k];
      };
      executor.run(static_cast<Index>(first.size()), task);
    }
  }

  std::vector<Share>& shares() noexcept { return shares_; }
  /// What the task of a share works with when a worker of the executor runs it. Where there are
  /// more workers than shares each share has its own, for any of them may run it.
  Worker& worker(Index share, Index worker) noexcept {
    return workers_[static_cast<std::size_t>(by_share_ ? share : worker)];
  }
  const std::vector<Worker>& workers() const noexcept { return workers_; }

 private:
  /// What shares were made for.
  struct Plan {
    ModelOptions model;
    ModelStateOptions windows;  // and nothing else of the states
    Index sequences = 0, shares = 0;
    bool operator==(const Plan&) const = default;
  };

  /// The windows for sequences of `tokens` tokens: longer ones than that change nothing but the
  /// memory they take.
  static ModelStateOptions shortened(const LanguageModel<T>& model,
                                     const std::vector<Index>& windows, Index tokens) {
    ModelStateOptions shortened;
    for (Index n = 0; n < model.options().layers; ++n) {
      AttentionOptions layer = layer_attention_options(model.options(), {.windows = windows}, n);
      const Index most = std::max(tokens, layer.slot_delay.value_or(0));
      shortened.windows.push_back(std::min(layer.window, most));
      if (layer.head_windows.empty()) continue;
      for (Index& window : layer.head_windows) window = std::min(window, most);
      shortened.head_windows.resize(static_cast<std::size_t>(model.options().layers));
      shortened.head_windows[static_cast<std::size_t>(n)] = std::move(layer.head_windows);
    }
    return shortened;
  }

  void cut(const LanguageModel<T>& model, Plan plan) {
    if (plan == plan_) return;
    if (!(plan.model == plan_.model)) shares_.clear();
    plan_ = {};  // in case memory runs out
    shares_.resize(static_cast<std::size_t>(plan.shares));
    for (Index n = 0; n < plan.shares; ++n) {
      Share& share = shares_[static_cast<std::size_t>(n)];
      share.parameters.clear();  // the gradients may have moved
      share.first = plan.sequences * n / plan.shares;
      share.count = plan.sequences * (n + 1) / plan.shares - share.first;
      ModelStateOptions options = plan.windows;
      options.batch = share.count;
      share.state = model.make_state(options);
    }
    plan_ = std::move(plan);
  }

  std::vector<Share> shares_;
  std::vector<Worker> workers_;
  bool by_share_ = false;
  Plan plan_;
};

NHA_ISA_NAMESPACE_END
