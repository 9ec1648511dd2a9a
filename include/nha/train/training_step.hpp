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

NHA_ISA_NAMESPACE_BEGIN

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
  /// Into how many micro-batches of whole sequences a batch is cut, at most one for each sequence.
  /// They are computed side by side, at most one by each thread, and their gradients summed in
  /// order. So the result depends on this number but not on the threads.
  ///
  /// Each micro-batch keeps a copy of the gradients, so choose about as many as there are threads.
  /// Choose the same number wherever results are to be compared. Threads beyond this number have
  /// nothing to do and take no memory.
  Index micro_batches = 4;
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
  check_argument(options.micro_batches >= 1, "micro_batches is ", options.micro_batches,
                 "; expected 1 or more");
  return counted;
}

/// The loss; with gradients, overwrites these. `list` is what parameters() says of them.
template <std::floating_point T>
TrainingLoss training_pass(const LanguageModel<T>& model, const TrainingBatch& batch,
                           LanguageModelWeights<T>* gradients,
                           const std::vector<Parameter<T>>& list, TrainingWorkspace<T>& workspace,
                           const TrainingOptions& options, ExecutorRef executor) {
  using Rows = TensorView<T, Dynamic, Dynamic>;
  const Index counted = check_training(model, batch, options);
  if (batch.tokens.empty()) {
    set_to_zero(list);
    return {};
  }
  using Tape = LanguageModelTape<T>;
  const TapePass pass{.first_kept = gradients == nullptr ? model.options().layer_count()
                                                         : Tape::first_layer(*gradients),
                      .loss = options.slot_share};
  workspace.prepare(model, batch.tokens,
                    {.windows = options.windows,
                     .micro_batches = options.micro_batches,
                     .first_kept = pass.first_kept,
                     .gradients = gradients == nullptr ? nullptr : &list},
                    executor.workers());
  const Index length = batch.tokens.extent(1);
  const double scale = counted == 0 ? 0.0 : 1.0 / static_cast<double>(counted);
  const LanguageModelState<T>& any_state = *workspace.micro_batches().front().state;
  const Index queries = batch.tokens.size() * Tape::hybrid_query_heads(model, any_state);

  const auto task = [&](Index n, Index worker_index) {
    auto& part = workspace.micro_batches()[static_cast<std::size_t>(n)];
    auto& worker = workspace.worker(n, worker_index);
    const auto tokens = batch.tokens.template slice<0>(part.first, part.count);
    const TensorView<const std::int32_t, Dynamic> targets(
        batch.targets.data() + part.first * length, {part.count * length});
    const Rows x = worker.tape.forward(model, tokens, *part.state, pass);
    part.slot_share = worker.tape.slot_share_sum();
    if (gradients == nullptr) {
      part.cross_entropy = cross_entropy<T>(x, model.head(), targets, worker.cross_entropy);
      return;
    }
    LanguageModelWeights<T>& sum = n == 0 ? *gradients : part.gradients;
    set_to_zero(n == 0 ? list : part.parameters);
    const Rows dx(reinterpret_cast<T*>(worker.dx.data()), x.extents());
    Tensor<T, 2>& d_head = model.options().tied_head ? sum.embeddings : sum.head;
    part.cross_entropy = cross_entropy<T>(
        x, model.head(), targets, worker.cross_entropy,
        {.scale = scale, .dx = Tape::wants_rows(sum) ? dx : Rows(), .dhead = d_head.view()});
    worker.tape.backward(model, tokens, *part.state, dx, sum, options.slot_share, queries);
  };
  const auto count = static_cast<Index>(workspace.micro_batches().size());
  executor.run(count, task);

  TrainingLoss loss{.targets = counted};
  for (const auto& part : workspace.micro_batches()) {
    loss.cross_entropy += part.cross_entropy.loss;
    loss.slot_share += part.slot_share;
    loss.correct += part.cross_entropy.correct;
  }
  if (counted > 0) loss.cross_entropy /= static_cast<double>(counted);
  if (queries > 0) loss.slot_share /= static_cast<double>(queries);
  if (gradients != nullptr) workspace.add_gradients(list, executor);
  return loss;
}

}  // namespace detail

/// The loss of a model on a batch: the mean cross-entropy of its targets, and the auxiliary loss if
/// there is one. `gradients` are those of TrainingLoss::sum(), but for
/// SlotShareLoss::through_window.
///
/// An empty gradient is not wanted: its weight is frozen, and nothing is computed that only this
/// gradient would need. Layers below the lowest one that trains keep no results.
///
/// Memory beyond the gradients: a copy of them for each micro-batch but the first. For each
/// micro-batch that is computed at once with others, also the results of every step of every layer
/// for its tokens, but no logits.
///
/// After a step of these sizes another allocates only the list of the gradients. Where the windows
/// are others it allocates states too.
/// @param gradients overwritten: weights of the model's shapes, such as zero_weights() makes; some
///   may be empty
/// @throws ArgumentError if a token or target is not in the vocabulary, shapes do not fit, or an
///   option is out of range; nothing has then been touched.
template <std::floating_point T>
TrainingLoss loss_and_gradients(const LanguageModel<T>& model, const TrainingBatch& batch,
                                LanguageModelWeights<T>& gradients, TrainingWorkspace<T>& workspace,
                                const TrainingOptions& options = {},
                                ExecutorRef executor = kSerial) {
  return detail::training_pass(model, batch, &gradients, parameters(model.options(), gradients),
                               workspace, options, executor);
}

/// The same with default options, on an executor.
template <std::floating_point T>
TrainingLoss loss_and_gradients(const LanguageModel<T>& model, const TrainingBatch& batch,
                                LanguageModelWeights<T>& gradients, TrainingWorkspace<T>& workspace,
                                ExecutorRef executor) {
  return loss_and_gradients(model, batch, gradients, workspace, TrainingOptions(), executor);
}

/// The same loss alone. It takes memory for the results of one layer, not of all.
/// @throws ArgumentError as loss_and_gradients() does.
template <std::floating_point T>
TrainingLoss evaluate(const LanguageModel<T>& model, const TrainingBatch& batch,
                      TrainingWorkspace<T>& workspace, const TrainingOptions& options = {},
                      ExecutorRef executor = kSerial) {
  return detail::training_pass<T>(model, batch, nullptr, {}, workspace, options, executor);
}

/// The same with default options, on an executor.
template <std::floating_point T>
TrainingLoss evaluate(const LanguageModel<T>& model, const TrainingBatch& batch,
                      TrainingWorkspace<T>& workspace, ExecutorRef executor) {
  return evaluate(model, batch, workspace, TrainingOptions(), executor);
}

NHA_ISA_NAMESPACE_END
