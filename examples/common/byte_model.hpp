// SPDX-License-Identifier: MIT
// A language model of bytes at work: reading a text, continuing it, measuring how well it is
// predicted. generate() and bits_per_byte() are what a program of your own would do.
#pragma once

#include "progress.hpp"
#include "sampler.hpp"
#include "stopwatch.hpp"

#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/model/language_model.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace examples_common {

using nha::Index;

using Model = nha::LanguageModel<float>;
using State = nha::LanguageModelState<float>;

/// One token is one byte.
inline constexpr Index kVocabulary = 256;
/// A text enters the state in pieces of so many bytes: scratch memory depends on this alone.
inline constexpr Index kPiece = 512;

/// What running a model takes besides its weights and a state: scratch memory and threads.
struct Machine {
  explicit Machine(Index workers) : threads(workers) {}

  nha::LayerWorkspace workspace;
  nha::ThreadPool threads;
};

/// Calls read(tokens [1, count], first) for the text's pieces one after another.
template <class Read>
void for_each_piece(std::string_view text, Read&& read) {
  std::vector<std::int32_t> tokens;
  for (std::size_t first = 0; first < text.size(); first += tokens.size()) {
    tokens.clear();
    for (char c : text.substr(first, kPiece)) tokens.push_back(static_cast<unsigned char>(c));
    read(Model::Tokens(tokens, {1, static_cast<Index>(tokens.size())}), static_cast<Index>(first));
  }
}

/// A state with one window for all layers; unset: those the model says.
inline State make_state(const Model& model, std::optional<Index> window) {
  nha::ModelStateOptions options;
  if (window) options.windows = {*window};
  return model.make_state(options);
}

/// "32", or "32, 32, 64, 64" where layers differ.
inline std::string windows_of(const State& state) {
  std::string all;
  bool same = true;
  const auto window = [&](Index n) { return state.layer(n).attention().options().window; };
  for (Index n = 0; n < state.layers(); ++n) {
    all += (n == 0 ? "" : ", ") + std::to_string(window(n));
    same = same && window(n) == window(0);
  }
  return same ? std::to_string(window(0)) : all;
}

/// How long a text took to generate.
struct GenerationTime {
  double prefill_seconds = 0;  ///< the prompt as a whole
  double decode_seconds = 0;   ///< one byte after another
};

/// Reads the prompt, which is not empty, into the state and hands the `length` bytes that the
/// sampler chooses after it to write(char), each as soon as it is known.
template <class Write>
GenerationTime generate(const Model& model, State& state, std::string_view prompt, Index length,
                        Sampler& sampler, Machine& machine, Write&& write) {
  GenerationTime time;
  nha::Tensor<float, 3> logits({1, 1, kVocabulary});  // of the byte that comes next
  const Stopwatch prefill;
  for_each_piece(prompt, [&](const Model::Tokens& tokens, Index) {
    model.forward(tokens, state, logits, machine.workspace, {}, machine.threads);
  });
  time.prefill_seconds = prefill.seconds();
  for (Index i = 0; i < length; ++i) {
    const Stopwatch decode;
    const auto byte = static_cast<std::int32_t>(sampler(logits.values()));
    model.forward(Model::Tokens(&byte, {1, 1}), state, logits, machine.workspace, {},
                  machine.threads);
    time.decode_seconds += decode.seconds();
    write(static_cast<char>(byte));
  }
  return time;
}

/// Bits that the model was surprised by: -log2 of the probability it gave to what came.
inline double surprise(std::span<const float> logits, char came) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double{logit} - largest);
  const double logit = logits[static_cast<unsigned char>(came)];
  return (largest + std::log(sum) - logit) / std::log(2.0);
}

/// Mean surprise at every byte of the text but the first; the text has two bytes or more.
inline double bits_per_byte(const Model& model, State& state, std::string_view text,
                            Machine& machine) {
  Progress progress("W = " + windows_of(state), static_cast<Index>(text.size()));
  nha::Tensor<float, 3> logits({1, kPiece, kVocabulary});
  double bits = 0;
  for_each_piece(text, [&](const Model::Tokens& tokens, Index first) {
    const Index count = tokens.extent(1);
    model.forward(tokens, state, logits.view().slice<1>(0, count), machine.workspace, {},
                  machine.threads);
    for (Index t = 0; t < count; ++t)
      if (const auto next = static_cast<std::size_t>(first + t + 1); next < text.size())
        bits += surprise({&logits(0, t, 0), kVocabulary}, text[next]);
    progress.reached(first + count);
  });
  return bits / static_cast<double>(text.size() - 1);
}

}  // namespace examples_common
