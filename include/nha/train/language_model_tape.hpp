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
#include <nha/model/layer_state.hpp>
#include <nha/model/native_hybrid_attention.hpp>
#include <nha/model/native_hybrid_attention_backward.hpp>
#include <nha/model/rotary_table.hpp>
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
#include <vector>

NHA_NAMESPACE_BEGIN

/// What a forward pass of LanguageModelTape is for.
struct TapePass {
  /// The first layer that keeps what backward() reads: LanguageModelTape::first_layer(). Layers
  /// before it share the memory of one, and backward() must not reach them. The number of layers
  /// where no backward() follows.
  Index first_kept = 0;
  /// The auxiliary loss, which slot_share_sum() sums up.
  SlotShareLoss loss = {};
};

NHA_NAMESPACE_END

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
  using PerHead = TensorView<T, Dynamic, Dynamic, Dynamic>;

  LanguageModelTape() = default;
  // Pointers of one part lead into another. Between passes there is nothing in it worth a copy.
  LanguageModelTape(const LanguageModelTape&) = delete;
  LanguageModelTape& operator=(const LanguageModelTape&) = delete;
  LanguageModelTape(LanguageModelTape&&) = default;
  LanguageModelTape& operator=(LanguageModelTape&&) = default;
  ~LanguageModelTape() = default;

  /// The first layer that backward() goes through: the lowest with a gradient that is wanted, or
  /// layer 0 where that of the embeddings is. The number of layers if there is none.
  static Index first_layer(const LanguageModelWeights<T>& gradients) noexcept {
    if (gradients.embeddings.size() > 0) return 0;
    Index n = 0;
    for (; n < static_cast<Index>(gradients.layers.size()); ++n)
      if (has_any(gradients.layers[static_cast<std::size_t>(n)])) break;
    return n;
  }
  /// Whether backward() has anything to do: whether the gradient of the rows that forward() returns
  /// is wanted.
  static bool wants_rows(const LanguageModelWeights<T>& gradients) noexcept {
    return first_layer(gradients) < static_cast<Index>(gradients.layers.size()) ||
           gradients.norm.size() > 0;
  }

  /// Takes memory for passes over tokens [B, T] that keep layers from `first_kept` on. After it
  /// they allocate nothing.
  void reserve(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state,
               Index first_kept = 0, ExecutorRef executor = kSerial) {
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    std::size_t kernel = 0;
    for (Index n = 0; n < state.layers(); ++n) {
      const NativeHybridAttention<T>& layer = block_of(model, n).attention();
      const LayerState<T>& layer_state = state.layer(n);
      kernel = std::max(kernel, layer.kernel_bytes(batch, layer_state, {}, executor.workers()));
      if (n >= first_kept)
        kernel = std::max(kernel, NativeHybridAttentionBackward<T>(layer).kernel_bytes(
                                      batch, layer_state, executor.workers()));
    }
    workspace_.kernel.reserve(kernel);
    blocks_.resize(model.blocks().size());
    Arena sizes(nullptr);
    take(sizes, model, batch, first_kept);
    workspace_.activations.reserve(sizes.used());
    Arena cursor(workspace_.activations.data());
    take(cursor, model, batch, first_kept);
  }

  /// The rows [B * T, hidden] that the head reads, of tokens [B, T] read from the beginning. They
  /// and all that backward() needs stay until the next pass.
  /// @param state an empty state of B sequences, whose windows are used; it is empty again
  ///   afterwards
  /// @throws ArgumentError if a token is not in the vocabulary or the state does not fit; nothing
  ///   has then been touched.
  Rows forward(const Model& model, const Tokens& tokens, LanguageModelState<T>& state,
               const TapePass& pass = {}, ExecutorRef executor = kSerial) {
    check(model, tokens, state);
    reserve(model, tokens, state, pass.first_kept, executor);
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    const Rows x(x_, {batch.rows(), model.options().hidden()});
    embed(tokens, model.embeddings(), x);
    model.rotary_tables().template fill<T>(tables_, batch, state.layer(0));
    slot_share_sum_ = 0;
    for (Index n = 0; n < state.layers(); ++n) {
      const DecoderBlock<T>& block = block_of(model, n);
      const auto& activations = blocks_[static_cast<std::size_t>(n)];
      T* kept = activations.attention.slot_share;
      const PerHead slot_share =
          block.attention().per_head(kept == nullptr ? slot_share_ : kept, batch);
      block.run(x, batch, table(model, n, batch), detail::StateParts::layer(state, n), activations,
                workspace_.kernel, slot_share, {}, executor);
      if (pass.loss.coefficient > 0 && has_both_memories(model, state, n))
        slot_share_sum_ += slot_share_loss(pass.loss, slot_share.data(), slot_share.size(), 0.0,
                                           d_lse_, d_slot_share_);
    }
    state.reset();
    const Rows normed(normed_, x.extents());
    rms_norm(x, model.norm(), model.options().norm_eps, normed);
    return normed;
  }

  /// The sum of the auxiliary losses of all queries of the last forward().
  double slot_share_sum() const noexcept { return slot_share_sum_; }

  /// Adds the gradients of all weights but the head's to `gradients`, given that of the rows which
  /// forward() of the same arguments returned. Each gradient has the shape of its weight, or is
  /// empty: it is then not wanted, and nothing is computed that only it would need.
  ///
  /// Checks nothing: forward() has been the last pass, had the same arguments, and has kept the
  /// layers from first_layer(gradients) on.
  /// @param state the one forward() was given, empty
  /// @param d_normed the gradient of those rows [B * T, hidden], without gaps; used up
  /// @param loss the auxiliary loss, of which `queries` queries make the mean
  void backward(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state,
                const Rows& d_normed, LanguageModelWeights<T>& gradients,
                const SlotShareLoss& loss = {}, Index queries = 1, ExecutorRef executor = kSerial) {
    if (!wants_rows(gradients)) return;
    const TokenBatch batch{tokens.extent(0), tokens.extent(1)};
    const Rows x(x_, {batch.rows(), model.options().hidden()});
    const Index first = first_layer(gradients);
    const Rows& dx = d_normed;
    rms_norm_backward(x, model.norm(), model.options().norm_eps, d_normed,
                      first < state.layers() ? dx : Rows(), gradients.norm.view());
    for (Index n = state.layers() - 1; n >= first; --n) {
      const DecoderBlock<T>& block = block_of(model, n);
      const auto& kept = blocks_[static_cast<std::size_t>(n)];
      PerHead d_lse, d_slot_share;
      if (loss.coefficient > 0 && has_both_memories(model, state, n)) {
        d_lse = block.attention().per_head(d_lse_, batch);
        d_slot_share = block.attention().per_head(d_slot_share_, batch);
        slot_share_loss(loss, kept.attention.slot_share, d_lse.size(),
                        loss.coefficient / static_cast<double>(queries), d_lse_, d_slot_share_);
      }
      const bool input_wanted = n > first || gradients.embeddings.size() > 0;
      const DecoderBlockBackward<T> backward(block);
      Arena scratch(scratch_);
      backward.run(dx, batch, table(model, n, batch), state.layer(n), kept, d_lse, d_slot_share,
                   input_wanted, gradients.layers[static_cast<std::size_t>(n)],
                   backward.take_scratch(scratch, batch.rows()), workspace_.kernel, executor);
    }
    embed_backward(tokens, dx, gradients.embeddings.view());
  }

  /// Query heads that the auxiliary loss is of: those of layers with slots and a window.
  static Index hybrid_query_heads(const Model& model, const LanguageModelState<T>& state) {
    Index count = 0;
    for (Index n = 0; n < state.layers(); ++n)
      if (has_both_memories(model, state, n))
        count += block_of(model, n).attention().shape().query_heads;
    return count;
  }

  /// Bytes of scratch memory.
  std::size_t bytes() const noexcept {
    return workspace_.activations.bytes() + workspace_.kernel.bytes();
  }

 private:
  static const DecoderBlock<T>& block_of(const Model& model, Index n) {
    return model.blocks()[static_cast<std::size_t>(n)];
  }
  static bool has_both_memories(const Model& model, const LanguageModelState<T>& state, Index n) {
    return block_of(model, n).attention().shape().slots > 0 &&
           has_window(state.layer(n).attention().options());
  }
  RotaryTable<T> table(const Model& model, Index n, const TokenBatch& batch) const {
    return model.rotary_tables().template of_layer<T>(tables_, n, batch.rows());
  }

  static void check(const Model& model, const Tokens& tokens, const LanguageModelState<T>& state) {
    detail::check_vocabulary(tokens, model.options().vocabulary);
    model.check_state(state);
    check_argument(state.batch() == tokens.extent(0), "the tokens are of ", tokens.extent(0),
                   " sequences; the state holds ", state.batch());
    for (Index s = 0; s < state.batch(); ++s)
      check_argument(state.tokens_seen(s) == 0, "sequence ", s, " of the state has seen ",
                     state.tokens_seen(s), " tokens; training reads from the beginning");
  }

  void take(Arena& cursor, const Model& model, const TokenBatch& batch, Index first_kept) {
    const Index rows = batch.rows();
    const Index layers = static_cast<Index>(blocks_.size());
    const Index hidden = model.options().hidden();
    const Index queries = rows * model.options().most_query_heads();
    x_ = cursor.take<T>(rows * hidden);
    normed_ = cursor.take<T>(rows * hidden);
    slot_share_ = cursor.take<T>(first_kept > 0 ? queries : 0);
    d_lse_ = cursor.take<T>(queries);
    d_slot_share_ = cursor.take<T>(queries);
    tables_ = model.rotary_tables().template take<T>(cursor, rows);
    // Bytes of the largest of some layers.
    const auto largest = [&](Index first, Index last, const auto& take_of) {
      std::size_t bytes = 0;
      for (Index n = first; n < last; ++n) {
        Arena sizes(nullptr);
        take_of(block_of(model, n), sizes);
        bytes = std::max(bytes, sizes.used());
      }
      return static_cast<Index>(bytes);
    };
    std::byte* const shared = cursor.take<std::byte>(largest(
        0, first_kept, [&](const auto& block, Arena& of) { block.take_activations(of, rows); }));
    for (Index n = 0; n < layers; ++n) {
      Arena of_block(shared);
      blocks_[static_cast<std::size_t>(n)] =
          n < first_kept ? block_of(model, n).take_activations(of_block, rows)
                         : block_of(model, n).take_activations(cursor, rows, Keep::for_backward);
    }
    scratch_ =
        cursor.take<std::byte>(largest(first_kept, layers, [&](const auto& block, Arena& of) {
          DecoderBlockBackward<T>(block).take_scratch(of, rows);
        }));
  }

  LayerWorkspace workspace_;
  // Sections of workspace_.activations.
  T *x_ = nullptr, *normed_ = nullptr;
  T* slot_share_ = nullptr;  // of one layer after another, of those that keep nothing
  T *d_lse_ = nullptr, *d_slot_share_ = nullptr;
  std::byte *tables_ = nullptr, *scratch_ = nullptr;
  std::vector<typename DecoderBlock<T>::Activations> blocks_;
  double slot_share_sum_ = 0;
};

NHA_ISA_NAMESPACE_END
