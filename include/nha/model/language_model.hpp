// SPDX-License-Identifier: MIT
// LanguageModel: embedding, decoder blocks, norm and head.
#pragma once

#include <nha/attention/prefill.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/model/block.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/rotary_table.hpp>
#include <nha/model/state.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/embedding.hpp>
#include <nha/nn/linear.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/nn/token_batch.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// What a call of LanguageModel::forward may return besides the logits, and how it computes.
template <std::floating_point T>
struct ForwardOptions {
  /// Packed sequences, as in AttentionInputs: the state's N sequences along the tokens of batch 1.
  std::span<const std::int64_t> cu_seqlens = {};
  /// The residual stream after each block. [layers, B, T, hidden]
  TensorView<T, Dynamic, Dynamic, Dynamic, Dynamic> hidden = {};
  /// The part of each query head's attention that fell on the slots. [layers, B, T, query heads].
  /// There are as many heads as in the layer that has most; in a layer with fewer the rest stays as
  /// it was.
  TensorView<T, Dynamic, Dynamic, Dynamic, Dynamic> slot_share = {};
  /// The operator's algorithm; the result is the same within rounding.
  PrefillOptions attention = {};
};

/// A model of float or double: weights, used with any number of states. Const calls from several
/// threads are safe as long as each has its own state and workspace and nobody changes the weights.
template <std::floating_point T>
class LanguageModel {
 public:
  using Tokens = TensorView<const std::int32_t, Dynamic, Dynamic>;
  using Logits = TensorView<T, Dynamic, Dynamic, Dynamic>;

  /// @throws ArgumentError if an option is out of range or a weight has another shape than the
  ///   options ask for.
  NHA_COLD LanguageModel(const ModelOptions& options, LanguageModelWeights<T> weights)
      : options_(options), rotary_tables_(options.layers) {
    validate(options);
    detail::check_weights(options, weights);
    nha::visit_weights(options, weights, [&](const std::string&, const auto& weight, const auto&) {
      parameters_ += weight.size();
    });
    embeddings_ = std::move(weights.embeddings);
    blocks_.reserve(weights.layers.size());
    for (std::size_t n = 0; n < weights.layers.size(); ++n)
      blocks_.emplace_back(options.layers[n], options.intermediate, options.norm_eps,
                           std::move(weights.layers[n]));
    norm_ = std::move(weights.norm);
    head_ = std::move(weights.head);
  }

  const ModelOptions& options() const noexcept { return options_; }
  const std::vector<DecoderBlock<T>>& blocks() const noexcept { return blocks_; }
  const RotaryTables& rotary_tables() const noexcept { return rotary_tables_; }
  /// Number of weights; those of a tied head count once.
  Index parameters() const noexcept { return parameters_; }

  /// Calls visit(name, tensor, extents) for each weight, as visit_weights() does. In a model that
  /// is not const the numbers may be changed between calls, the shapes may not.
  template <class Visit>
  void visit_weights(Visit&& visit) {
    visit_model_weights(
        options_, embeddings_,
        [&](Index n) { return blocks_[static_cast<std::size_t>(n)].weights(); }, norm_, head_,
        visit);
  }
  template <class Visit>
  void visit_weights(Visit&& visit) const {
    visit_model_weights(
        options_, embeddings_,
        [&](Index n) { return blocks_[static_cast<std::size_t>(n)].weights(); }, norm_, head_,
        visit);
  }
  const Tensor<T, 2>& embeddings() const noexcept { return embeddings_; }
  /// Of the norm before the head.
  const Tensor<T, 1>& norm() const noexcept { return norm_; }
  /// The head's weights; those of the embeddings where it is tied to them.
  const Tensor<T, 2>& head() const noexcept { return options_.tied_head ? embeddings_ : head_; }

  /// An empty state. The weights serve any windows: they are the state's.
  /// @throws ArgumentError if an option is out of range.
  NHA_COLD LanguageModelState<T> make_state(
      const ModelStateOptions& options = {},
      std::pmr::memory_resource* memory = std::pmr::get_default_resource()) const {
    return LanguageModelState<T>(options_, options, memory);
  }

  /// That a state was made for this model, or one whose layers have the same sizes. No sequence is
  /// looked at: the layers of a state are in step.
  /// @throws ArgumentError naming the first layer that differs.
  void check_state(const LanguageModelState<T>& state) const {
    check_argument(state.layers() == options_.layer_count(), "the state is of ", state.layers(),
                   " layers; the model has ", options_.layer_count());
    for (Index n = 0; n < state.layers(); ++n) {
      const NativeHybridAttention<T>& layer = block(n).attention();
      const bool same =
          state.layer(n).is_of(layer.shape(), layer.options().convolution_kernel_size);
      check_argument(same, "layer ", n, " of the state is that of a layer of another shape");
    }
  }

  /// Puts tokens [B, T], with cu_seqlens [1, T], into the state and gives the logits of what
  /// follows each. These are [B, T, vocabulary], or [sequences, 1, vocabulary] for what follows the
  /// last token of each sequence alone. A sequence without tokens then leaves its row as it was.
  /// Logits that are left out are not computed.
  ///
  /// A text may come in pieces of any length, down to one token: the results are the same within
  /// rounding. Scratch memory grows with B * T; once it is large enough, calls allocate nothing.
  /// A NaN in the weights or from an overflow reaches the logits of its sequence, and stays in the
  /// state until reset.
  ///
  /// Scratch memory is that of the largest layer. It is reserved before the first layer runs, so no
  /// error leaves the layers out of step.
  /// @throws ArgumentError if a token is not in the vocabulary, a shape does not fit, elements of
  ///   an output share memory, or the state is that of another model; nothing has then been
  ///   touched.
  void forward(const Tokens& tokens, LanguageModelState<T>& state, const Logits& logits,
               LayerWorkspace& workspace, const ForwardOptions<T>& options = {},
               ExecutorRef executor = kSerial) const;
  /// The same with default options, on an executor.
  void forward(const Tokens& tokens, LanguageModelState<T>& state, const Logits& logits,
               LayerWorkspace& workspace, ExecutorRef executor) const {
    forward(tokens, state, logits, workspace, ForwardOptions<T>(), executor);
  }

 private:
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using PerHead = TensorView<T, Dynamic, Dynamic, Dynamic>;

  struct Activations {
    T* x;
    std::byte* tables;
    std::byte* block;  // of one block after another
    T* normed;         // the rows that the head reads
    T* logits;
  };
  Activations take_activations(Arena& cursor, const TokenBatch& batch,
                               std::size_t block_bytes) const noexcept {
    const Index hidden = options_.hidden();
    Activations a{};
    a.x = cursor.take<T>(batch.rows() * hidden);
    a.tables = rotary_tables_.template take<T>(cursor, batch.rows());
    a.block = cursor.take<std::byte>(static_cast<Index>(block_bytes));
    a.normed = cursor.take<T>(std::max(batch.rows(), batch.sequences()) * hidden);
    a.logits = cursor.take<T>(batch.sequences() * options_.vocabulary);
    return a;
  }

  const DecoderBlock<T>& block(Index n) const noexcept {
    return blocks_[static_cast<std::size_t>(n)];
  }

  static bool is_last_only(const Logits& logits, const TokenBatch& batch) noexcept {
    return logits.extent(0) == batch.sequences() && logits.extent(1) == 1;
  }

  void check(const Tokens& tokens, const TokenBatch& batch, const LanguageModelState<T>& state,
             const Logits& logits, const ForwardOptions<T>& options) const {
    check_state(state);
    validate(batch, state.batch());
    detail::check_vocabulary(tokens, options_.vocabulary);
    check_argument(logits.data() == nullptr ||
                       ((is_last_only(logits, batch) ||
                         (logits.extent(0) == batch.batch && logits.extent(1) == batch.tokens)) &&
                        logits.extent(2) == options_.vocabulary && logits.has_contiguous_rows()),
                   "logits are [", logits.extent(0), ", ", logits.extent(1), ", ", logits.extent(2),
                   "]; expected [", batch.batch, ", ", batch.tokens, ", ", options_.vocabulary,
                   "] or [", batch.sequences(), ", 1, ", options_.vocabulary, "], rows contiguous");
    if (logits.data() != nullptr && !logits.empty()) {
      detail::check_rows("logits", logits[0]);
      detail::check_distinct("logits", logits);
    }
    check_per_layer("hidden", options.hidden, batch, options_.hidden());
    check_per_layer("slot_share", options.slot_share, batch, options_.most_query_heads());
    check_argument(options.attention.chunk >= 0, "chunk is ", options.attention.chunk,
                   "; expected 0 or more");
  }
  template <class View>
  void check_per_layer(const char* name, const View& view, const TokenBatch& batch,
                       Index last) const {
    check_argument(view.data() == nullptr ||
                       (view.extent(0) == options_.layer_count() && view.extent(1) == batch.batch &&
                        view.extent(2) == batch.tokens && view.extent(3) == last),
                   name, " is [", view.extent(0), ", ", view.extent(1), ", ", view.extent(2), ", ",
                   view.extent(3), "]; expected [", options_.layer_count(), ", ", batch.batch, ", ",
                   batch.tokens, ", ", last, "]");
    if (view.data() != nullptr) detail::check_distinct(name, view);
  }

  /// The rows [B * T, C] of x into a view [B, T, C].
  static void copy_rows(const Rows& x, const Logits& to) noexcept {
    for (Index b = 0; b < to.extent(0); ++b)
      for (Index t = 0; t < to.extent(1); ++t)
        for (Index c = 0; c < to.extent(2); ++c) to(b, t, c) = x(b * to.extent(1) + t, c);
  }

  void read_out(const Rows& x, const TokenBatch& batch, const Logits& logits, const Activations& a,
                ExecutorRef executor) const {
    if (!is_last_only(logits, batch)) {
      const Rows normed(a.normed, x.extents());
      rms_norm(x, norm_, options_.norm_eps, normed);
      for (Index b = 0; b < batch.batch; ++b)
        linear(normed.template slice<0>(b * batch.tokens, batch.tokens), head(), logits[b],
               executor);
      return;
    }
    // The last rows, gathered, so that the head's weights are read once for all sequences.
    Index rows = 0;
    for (Index n = 0; n < batch.sequences(); ++n) {
      if (batch.count(n) == 0) continue;
      const Index last = batch.first_row(n) + batch.count(n) - 1;
      rms_norm(x.template slice<0>(last, 1), norm_, options_.norm_eps,
               Rows(a.normed + rows++ * x.extent(1), {1, x.extent(1)}));
    }
    const Rows found(a.logits, {rows, options_.vocabulary});
    linear(Rows(a.normed, {rows, x.extent(1)}), head(), found, executor);
    rows = 0;
    for (Index n = 0; n < batch.sequences(); ++n)
      if (batch.count(n) > 0) std::copy_n(&found(rows++, 0), options_.vocabulary, &logits(n, 0, 0));
  }

  ModelOptions options_;
  Tensor<T, 2> embeddings_;
  std::vector<DecoderBlock<T>> blocks_;
  Tensor<T, 1> norm_;
  Tensor<T, 2> head_;
  RotaryTables rotary_tables_;
  Index parameters_ = 0;
};

// Not in the class, where it would be inline and every program would compile it again.
template <std::floating_point T>
void LanguageModel<T>::forward(const Tokens& tokens, LanguageModelState<T>& state,
                               const Logits& logits, LayerWorkspace& workspace,
                               const ForwardOptions<T>& options, ExecutorRef executor) const {
  const TokenBatch batch{tokens.extent(0), tokens.extent(1), options.cu_seqlens};
  check(tokens, batch, state, logits, options);
  if (batch.rows() == 0) return;

  std::size_t block_bytes = 0, kernel_bytes = 0;
  for (Index n = 0; n < state.layers(); ++n) {
    Arena sizes(nullptr);
    block(n).take_activations(sizes, batch.rows());
    block_bytes = std::max(block_bytes, sizes.used());
    kernel_bytes =
        std::max(kernel_bytes, block(n).attention().kernel_bytes(
                                   batch, state.layer(n), options.attention, executor.workers()));
  }
  Arena sizes(nullptr);
  take_activations(sizes, batch, block_bytes);
  workspace.activations.reserve(sizes.used());
  workspace.kernel.reserve(kernel_bytes);
  Arena cursor(workspace.activations.data());
  const Activations a = take_activations(cursor, batch, block_bytes);

  const Rows x(a.x, {batch.rows(), options_.hidden()});
  embed(tokens, embeddings_, x);
  rotary_tables_.template fill<T>(a.tables, batch, state.layer(0));
  for (Index n = 0; n < state.layers(); ++n) {
    const PerHead slot_share =
        options.slot_share.data() == nullptr
            ? PerHead()
            : options.slot_share[n].template slice<2>(0, block(n).attention().shape().query_heads);
    Arena of_block(a.block);
    block(n).run(x, batch, rotary_tables_.template of_layer<T>(a.tables, n, batch.rows()),
                 detail::StateParts::layer(state, n),
                 block(n).take_activations(of_block, batch.rows()), workspace.kernel, slot_share,
                 options.attention, executor);
    if (options.hidden.data() != nullptr) copy_rows(x, options.hidden[n]);
  }
  if (logits.data() != nullptr) read_out(x, batch, logits, a, executor);
}

NHA_ISA_NAMESPACE_END

#if defined(NHA_COMPILED)
#include <nha/model/compiled.hpp>
#endif
