// SPDX-License-Identifier: MIT
// Runs a language model over a text in pieces of any lengths, and compares what comes out.
#pragma once

#include <nha/model/language_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace nha_test {

using nha::Index;

/// Everything that LanguageModel::forward gives for tokens [B, T].
template <class T>
struct ModelRun {
  ModelRun(const nha::ModelOptions& options, Index batch, Index tokens)
      : logits({batch, tokens, options.vocabulary}),
        hidden({options.layer_count(), batch, tokens, options.hidden()}),
        slot_share({options.layer_count(), batch, tokens, options.most_query_heads()}) {}

  nha::Tensor<T, 3> logits;
  nha::Tensor<T, 4> hidden;
  nha::Tensor<T, 4> slot_share;
};

/// Puts tokens [B, T] into the state, in pieces of the given lengths again and again, the last as
/// short as it must be.
template <class T>
ModelRun<T> run_model(const nha::LanguageModel<T>& model, nha::LanguageModelState<T>& state,
                      const nha::TensorView<const std::int32_t, nha::Dynamic, nha::Dynamic>& tokens,
                      const std::vector<Index>& pieces) {
  const Index count = tokens.extent(1);
  ModelRun<T> run(model.options(), tokens.extent(0), count);
  nha::LayerWorkspace workspace;
  Index t = 0;
  for (std::size_t i = 0; t < count; ++i) {
    const Index piece = std::min(pieces[i % pieces.size()], count - t);
    nha::ForwardOptions<T> options;
    options.hidden = run.hidden.view().template slice<2>(t, piece);
    options.slot_share = run.slot_share.view().template slice<2>(t, piece);
    model.forward(tokens.template slice<1>(t, piece), state,
                  run.logits.view().template slice<1>(t, piece), workspace, options);
    t += piece;
  }
  return run;
}

/// The largest difference between two lists of numbers; a NaN in either counts as infinite, and so
/// do lists of unlike length.
template <class A, class B>
double largest_difference(std::span<A> a, std::span<B> b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return kInfinity;
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= largest)) largest = std::isnan(difference) ? kInfinity : difference;
  }
  return largest;
}
template <class A, class B, int Rank>
double largest_difference(const nha::Tensor<A, Rank>& a, const nha::Tensor<B, Rank>& b) {
  return largest_difference(a.values(), b.values());
}
/// The same over everything a model gives.
template <class T>
double largest_difference(const ModelRun<T>& a, const ModelRun<T>& b) {
  return std::max({largest_difference(a.logits, b.logits), largest_difference(a.hidden, b.hidden),
                   largest_difference(a.slot_share, b.slot_share)});
}

}  // namespace nha_test
