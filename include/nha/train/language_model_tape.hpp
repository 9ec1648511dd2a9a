// SPDX-License-Identifier: MIT
// LanguageModelTape: one forward pass of a model that keeps what its backward needs, and that
// backward. From tokens to the rows that the head reads, and back; the head and the loss are the
// caller's (see cross_entropy.hpp).
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/model/block.hpp>
#include <nha/model/block_backward.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/state.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/embedding.hpp>
#include <nha/nn/keep.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/nn/token_batch.hpp>
#include <nha/parallel/executor.hpp>
#include <nha/train/slot_share_loss.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Scratch memory of one forward and backward pass. It grows at the first pass that needs more and
/// serves any models, in turn.
///
///     auto state = model.make_state({.batch = B, .windows = {64}});
///     auto x = tape.forward(model, tokens, state);         // rows that the head reads
///     ... logits = x head^T, the loss, and dx, its gradient with respect to x ...
///     tape.backward(model, tokens, state, dx, gradients);  // adds to gradients
template <std::floating_point T>
class LanguageModelTape {
 public:
  using Model = LanguageModel<T>;
  using Tokens = typename Model::Tokens;
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using PerQuery = TensorView<T, Dynamic, Dynamic, Dynamic>;

  LanguageModelTape() = default;
  // Its parts refer to each other; what is in it between passes is not worth a copy.
  LanguageModelTape(const LanguageModelTape&) = delete;
  LanguageModelTape& operator=(const LanguageModelTape&) = delete;
  LanguageModelTape(LanguageModelTape&&) = default;
  LanguageModelTape& operator=(LanguageModelTape&&) = default;
  ~LanguageModelTape() = default;

  /// Takes memory for passes over tokens [B, T]: after it they allocate nothing.
  template <Executor E = const Serial>
  void reserve(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state,
               E&& executor = Serial{}) {
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    std::size_t kernel = 0;
    for (Index n = 0; n < state.layers(); ++n) {
      const DecoderBlock<T>& block = block_of(model, n);
      kernel = std::max(
          kernel, block.attention().kernel_bytes(batch, state.layer(n), {}, executor.workers()));
      kernel = std::max(kernel, NativeHybridAttentionBackward<T>(block.attention())
                                    .kernel_bytes(batch, state.layer(n), executor.workers()));
    }
    workspace_.kernel.reserve(kernel);
    blocks_.resize(model.blocks().size());
    Arena sizes(nullptr);
    take(sizes, model, batch);
    workspace_.activations.reserve(sizes.used());
    Arena cursor(workspace_.activations.data());
    take(cursor, model, batch);
  }

  /// The rows [B * T, hidden] that the head reads, of tokens [B, T] read from the beginning. They
  /// and all that backward() needs stay until the next pass.
  /// @param state an empty state of B sequences, whose windows are used; it is empty again
  /// afterwards
  /// @throws ArgumentError if a token is not in the vocabulary or the state does not fit; nothing
  ///   has then been touched.
  template <Executor E = const Serial>
  Rows forward(const Model& model, const Tokens& tokens, LanguageModelState<T>& state,
               E&& executor = Serial{}) {
    check(model, tokens, state);
    reserve(model, tokens, state, executor);
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    const Rows x(x_, {batch.rows(), model.options().shape.hidden});
    embed(tokens, model.embeddings(), x);
    table_->fill(batch, state.layer(0), model.options().layer.rope_theta);
    for (Index n = 0; n < state.layers(); ++n) {
      const auto& kept = blocks_[static_cast<std::size_t>(n)];
      block_of(model, n).run(
          x, batch, *table_, state.layer(n), kept, workspace_.kernel,
          block_of(model, n).attention().per_query(kept.attention.slot_share, batch), {}, executor);
    }
    state.reset();
    const Rows normed(normed_, x.extents());
    rms_norm(x, model.norm(), model.options().norm_eps, normed);
    return normed;
  }

  /// Adds the gradients of all weights but the head's to `gradients`, which have the shapes of the
  /// model's weights, given that of the rows which forward() of the same arguments returned.
  /// Checks nothing: forward() has been the last pass, and had the same arguments.
  /// @param state the one forward() was given, empty
  /// @param d_normed the gradient of those rows [B * T, hidden], without gaps; used up
  /// @param loss the auxiliary loss, of which `queries` queries make the mean
  /// @return the sum of the auxiliary losses of all queries
  template <Executor E = const Serial>
  double backward(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state,
                  const Rows& d_normed, LanguageModelWeights<T>& gradients,
                  const SlotShareLoss& loss = {}, Index queries = 1, E&& executor = Serial{}) {
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    const Rows x(x_, {batch.rows(), model.options().shape.hidden});
    const Rows& dx = d_normed;
    rms_norm_backward(x, model.norm(), model.options().norm_eps, d_normed, dx,
                      gradients.norm.view());
    double sum = 0;
    for (Index n = state.layers() - 1; n >= 0; --n) {
      const DecoderBlock<T>& block = block_of(model, n);
      const auto& kept = blocks_[static_cast<std::size_t>(n)];
      PerQuery d_lse, d_slot_share;
      if (loss.coefficient > 0 && has_both_memories(model, state, n)) {
        d_lse = block.attention().per_query(d_lse_, batch);
        d_slot_share = block.attention().per_query(d_slot_share_, batch);
        sum +=
            slot_share_loss(loss, kept.attention.slot_share, d_lse.size(),
                            loss.coefficient / static_cast<double>(queries), d_lse_, d_slot_share_);
      }
      DecoderBlockBackward<T>(block).run(
          dx, batch, *table_, state.layer(n), kept, d_lse, d_slot_share,
          gradients.layers[static_cast<std::size_t>(n)], scratch_, workspace_.kernel, executor);
    }
    embed_backward(tokens, dx, gradients.embeddings.view());
    return sum;
  }

  /// The same auxiliary loss after forward(), without any gradient.
  double slot_share_losses(const Model& model, const Tokens& tokens,
                           const LanguageModelState<T>& state, const SlotShareLoss& loss) const {
    double sum = 0;
    const Index count = tokens.size() * model.options().shape.query_heads;
    for (Index n = 0; n < state.layers(); ++n)
      if (loss.coefficient > 0 && has_both_memories(model, state, n))
        sum += slot_share_loss(loss, blocks_[static_cast<std::size_t>(n)].attention.slot_share,
                               count, 0.0, d_lse_, d_slot_share_);
    return sum;
  }

  /// Number of layers that the auxiliary loss is of: those with slots and a window.
  static Index hybrid_layers(const Model& model, const LanguageModelState<T>& state) {
    Index count = 0;
    for (Index n = 0; n < state.layers(); ++n) count += has_both_memories(model, state, n) ? 1 : 0;
    return count;
  }

 private:
  static const DecoderBlock<T>& block_of(const Model& model, Index n) {
    return model.blocks()[static_cast<std::size_t>(n)];
  }
  static bool has_both_memories(const Model& model, const LanguageModelState<T>& state, Index n) {
    return model.options().shape.slots > 0 && has_window(state.layer(n).attention().options());
  }

  static void check(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state) {
    detail::check_vocabulary(tokens, model.options().vocabulary);
    check_argument(state.layers() == model.options().layers, "the state is of ", state.layers(),
                   " layers; the model has ", model.options().layers);
    check_argument(state.batch() == tokens.extent(0), "the tokens are of ", tokens.extent(0),
                   " sequences; the state holds ", state.batch());
    for (Index n = 0; n < state.layers(); ++n) {
      block_of(model, n).attention().check_state(state.layer(n));
      for (Index s = 0; s < state.batch(); ++s)
        check_argument(state.layer(n).tokens_seen(s) == 0, "sequence ", s,
                       " of the state has seen ", state.layer(n).tokens_seen(s),
                       " tokens; training reads from the beginning");
    }
  }

  void take(Arena& cursor, const Model& model, const TokenBatch& batch) {
    const Index rows = batch.rows();
    const LayerShape& shape = model.options().shape;
    x_ = cursor.take<T>(rows * shape.hidden);
    normed_ = cursor.take<T>(rows * shape.hidden);
    d_lse_ = cursor.take<T>(rows * shape.query_heads);
    d_slot_share_ = cursor.take<T>(rows * shape.query_heads);
    table_ = RotaryTable<T>::take(cursor, shape, rows);
    for (std::size_t n = 0; n < blocks_.size(); ++n)
      blocks_[n] = model.blocks()[n].take_activations(cursor, rows, Keep::for_backward);
    scratch_ = DecoderBlockBackward<T>(model.blocks().front()).take_scratch(cursor, rows);
  }

  LayerWorkspace workspace_;
  T *x_ = nullptr, *normed_ = nullptr, *d_lse_ = nullptr, *d_slot_share_ = nullptr;
  std::optional<RotaryTable<T>> table_;
  std::vector<typename DecoderBlock<T>::Activations> blocks_;
  typename DecoderBlockBackward<T>::Scratch scratch_{};
};

NHA_ISA_NAMESPACE_END
