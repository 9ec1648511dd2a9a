// SPDX-License-Identifier: MIT
// Decoding by full softmax attention: one query against the keys and values of all tokens before
// it, whose cost grows with the context where ours does not.
#pragma once

#include <nha/core/numeric.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../support/check.hpp"
#include "../support/decode_problem.hpp"
#include "../support/measure.hpp"
#include "../support/registry.hpp"

namespace nha_bench {

/// Attention of the first query of a case over all its tokens, one key/value head, in double.
inline std::vector<double> attend_to_all(const nha_test::RandomCase<float>& data) {
  const Index dim = data.shape.key_dim;
  const Index tokens = data.shape.tokens;
  std::vector<double> weights(static_cast<std::size_t>(tokens));
  for (Index t = 0; t < tokens; ++t)
    for (Index d = 0; d < dim; ++d)
      weights[static_cast<std::size_t>(t)] +=
          static_cast<double>(data.q_window.data()[d]) *
          static_cast<double>(data.k_window.data()[t * dim + d]) /
          std::sqrt(static_cast<double>(dim));
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  std::vector<double> out(static_cast<std::size_t>(dim));
  for (Index t = 0; t < tokens; ++t)
    for (Index d = 0; d < dim; ++d)
      out[static_cast<std::size_t>(d)] += weights[static_cast<std::size_t>(t)] / sum *
                                          static_cast<double>(data.v.data()[t * dim + d]);
  return out;
}

/// Adds decode/context of a peer. Peer(data) takes a case; run() attends with its first query to
/// all its keys; out() is the result. The counter peer/ours is its time over a step of nha with 64
/// slots and a window of 64 after as many tokens: another operator, and the reason to choose it.
template <class Peer>
void add_decode_peer(const std::string& name) {
  for (Index dim : {64, 128})
    for (Index past : {128, 1024, 8192, 32768, 131072}) {
      const DecodeSize size{.dim = dim, .past = past};
      add_benchmark(
          "decode/context/" + size.name() + "/peer:" + name, [size](benchmark::State& state) {
            const nha_test::RandomCase<float> data(
                {.tokens = size.past, .key_dim = size.dim, .value_dim = size.dim, .slots = 0});
            Peer peer(data);
            peer.run();
            const std::vector<double> expected = attend_to_all(data);
            if (!agrees(state, "softmax attention in double", peer.out(), expected.data(),
                        size.dim))
              return;
            DecodeProblem<float> ours(size);
            ours.go_to(size.past);
            // 2D multiply-adds to a key and value.
            const double operations = 4.0 * static_cast<double>(size.past * size.dim);
            measure(state, {.operations = operations, .tokens = 1}, [&] { peer.run(); },
                    {{"peer/ours", [&] { ours.run(); }}});
          });
    }
}

}  // namespace nha_bench
