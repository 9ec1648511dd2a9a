// SPDX-License-Identifier: MIT
// The loss of a language model on a batch and its gradients, computed by several threads at once.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/state.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/embedding.hpp>
#include <nha/parallel/executor.hpp>
#include <nha/train/cross_entropy.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/language_model_tape.hpp>
#include <nha/train/parameters.hpp>
#include <nha/train/slot_share_loss.hpp>
#include <nha/train/training_workspace.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

NHA_NAMESPACE_BEGIN

/// Sequences to learn from, each read from its beginning.
struct TrainingBatch {
  /// [B, T]
  TensorView<const std::int32_t, Dynamic, Dynamic> tokens;
  /// What should follow each token [B, T], without gaps; where it is negative, anything may.
  TensorView<const std::int32_t, Dynamic, Dynamic> targets;
};

/// How a batch is learnt from.
struct TrainingOptions {
  /// W of each layer, or one for all, as ModelStateOptions::windows; empty: what the model says.
  /// The same weights may see other windows at every step.
  std::vector<Index> windows = {};
  SlotShareLoss slot_share = {};
  /// Into how many shares of whole sequences a batch is cut, at most one for each sequence. The
  /// shares are computed side by side, at most one by each thread, and their gradients summed in
  /// order: the result depends on this number but not on the threads. Each share keeps a copy of
  /// all gradients, so choose about as many as there are threads, and the same wherever results are
  /// to be compared. Threads beyond this number compute no share and take no memory.
  Index shares = 4;
};

/// What a batch cost.
struct TrainingLoss {
  /// Mean over the counted targets, in nats: -log of the probability that the model gave to each. 0
  /// where none counts.
  double cross_entropy = 0;
  /// Mean of the auxiliary loss, not yet times its coefficient; 0 where there is none.
  double slot_share = 0;
  /// Counted targets, and how many of them the model held most probable.
  Index targets = 0;
  Index correct = 0;

  NHA_INLINE double sum(const SlotShareLoss& options) const noexcept {
    return cross_entropy + options.coefficient * slot_share;
  }
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// @return the number of targets that count
template <std::floating_point T>
Index check_training(const LanguageModel<T>& model, const TrainingBatch& batch,
                     const TrainingOptions& options) {
  const auto& tokens = batch.tokens;
  const auto& targets = batch.targets;
  check_vocabulary(tokens, model.options().vocabulary);
  check_argument(targets.extents() == tokens.extents(), "targets are [", targets.extent(0), ", ",
                 targets.extent(1), "]; expected [", tokens.extent(0), ", ", tokens.extent(1), "]");
  check_argument(tokens.empty() || targets.data() != nullptr, "targets have no data");
  check_argument(targets.has_contiguous_rows() &&
                     (targets.extent(0) <= 1 || targets.stride(0) == targets.extent(1)),
                 "targets have strides ", targets.stride(0), " and ", targets.stride(1),
                 "; expected ", targets.extent(1), " and 1: no gaps");
  Index counted = 0;
  for (Index b = 0; b < targets.extent(0); ++b)
    for (Index t = 0; t < targets.extent(1); ++t) {
      check_argument(targets(b, t) < model.options().vocabulary, "target ", t, " of row ", b,
                     " is ", targets(b, t), "; expected at most ", model.options().vocabulary - 1);
      counted += targets(b, t) >= 0 ? 1 : 0;
    }
  validate(options.slot_share);
  check_argument(options.shares >= 1, "shares is ", options.shares, "; expected 1 or more");
  return counted;
}

/// The loss; with gradients, overwrites these. `list` is what parameters() says of them.
template <std::floating_point T, Executor E>
TrainingLoss training_pass(const LanguageModel<T>& model, const TrainingBatch& batch,
                           LanguageModelWeights<T>* gradients,
                           const std::vector<Parameter<T>>& list, TrainingWorkspace<T>& workspace,
                           const TrainingOptions& options, E&& executor) {
  using Rows = TensorView<T, Dynamic, Dynamic>;
  const Index counted = check_training(model, batch, options);
  if (batch.tokens.empty()) {
    set_to_zero(list);
    return {};
  }
  workspace.prepare(model, batch.tokens, options.windows, options.shares, gradients != nullptr,
                    executor.workers());
  const Index length = batch.tokens.extent(1);
  const double scale = counted == 0 ? 0.0 : 1.0 / static_cast<double>(counted);
  const LanguageModelState<T>& any_state = *workspace.shares().front().state;
  const Index hybrid = LanguageModelTape<T>::hybrid_layers(model, any_state);
  const Index queries = batch.tokens.size() * model.options().shape.query_heads * hybrid;

  const auto task = [&](Index n, Index worker_index) {
    auto& share = workspace.shares()[static_cast<std::size_t>(n)];
    auto& worker = workspace.worker(n, worker_index);
    const auto tokens = batch.tokens.template slice<0>(share.first, share.count);
    const TensorView<const std::int32_t, Dynamic> targets(
        batch.targets.data() + share.first * length, {share.count * length});
    const Rows x = worker.tape.forward(model, tokens, *share.state);
    if (gradients == nullptr) {
      share.cross_entropy = cross_entropy<T>(x, model.head(), targets, worker.cross_entropy);
      share.slot_share =
          worker.tape.slot_share_losses(model, tokens, *share.state, options.slot_share);
      return;
    }
    LanguageModelWeights<T>& sum = n == 0 ? *gradients : share.gradients;
    set_to_zero(n == 0 ? list : share.parameters);
    const Rows dx(reinterpret_cast<T*>(worker.dx.data()), x.extents());
    Tensor<T, 2>& d_head = model.options().tied_head ? sum.embeddings : sum.head;
    share.cross_entropy = cross_entropy<T>(x, model.head(), targets, worker.cross_entropy,
                                           {.scale = scale, .dx = dx, .dhead = d_head.view()});
    share.slot_share =
        worker.tape.backward(model, tokens, *share.state, dx, sum, options.slot_share, queries);
  };
  const auto count = static_cast<Index>(workspace.shares().size());
  executor.run(count, task);

  TrainingLoss loss{.targets = counted};
  for (const auto& share : workspace.shares()) {
    loss.cross_entropy += share.cross_entropy.loss;
    loss.slot_share += share.slot_share;
    loss.correct += share.cross_entropy.correct;
  }
  if (counted > 0) loss.cross_entropy /= static_cast<double>(counted);
  if (queries > 0) loss.slot_share /= static_cast<double>(queries);
  if (gradients != nullptr) workspace.add_gradients(list, executor);
  return loss;
}

}  // namespace detail

/// The loss of a model on a batch: the mean cross-entropy of its targets, and the auxiliary loss if
/// it has a coefficient. `gradients` are those of TrainingLoss::sum(), but for
/// SlotShareLoss::through_window.
///
/// Memory beyond the gradients: for each share that is computed at once with others the results of
/// every step of every layer for its tokens, but no logits; for each share but the first a copy of
/// the gradients. After a step of these sizes another allocates only the list of the gradients, and
/// states where the windows are others.
/// @param gradients overwritten: weights of the model's shapes, such as zero_weights() makes
/// @throws ArgumentError if a token or target is not in the vocabulary, shapes do not fit, or an
///   option is out of range; nothing has then been touched.
template <std::floating_point T, Executor E = const Serial>
TrainingLoss loss_and_gradients(const LanguageModel<T>& model, const TrainingBatch& batch,
                                LanguageModelWeights<T>& gradients, TrainingWorkspace<T>& workspace,
                                const TrainingOptions& options = {}, E&& executor = Serial{}) {
  return detail::training_pass(model, batch, &gradients, parameters(model.options(), gradients),
                               workspace, options, executor);
}

/// The same loss alone.
/// @throws ArgumentError as loss_and_gradients() does.
template <std::floating_point T, Executor E = const Serial>
TrainingLoss evaluate(const LanguageModel<T>& model, const TrainingBatch& batch,
                      TrainingWorkspace<T>& workspace, const TrainingOptions& options = {},
                      E&& executor = Serial{}) {
  return detail::training_pass<T>(model, batch, nullptr, {}, workspace, options, executor);
}

NHA_ISA_NAMESPACE_END
