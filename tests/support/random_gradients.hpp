// SPDX-License-Identifier: MIT
// Cotangents and gradients for a random case, and how far two sets of gradients differ.
#pragma once

#include <nha/io/attention_case_gradients.hpp>
#include <nha/nha.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>

#include "support/random_case.hpp"

namespace nha_test {

template <class T>
using Cotangents = nha::AttentionCaseCotangents<T>;
template <class T>
using Gradients = nha::AttentionCaseGradients<nha::accumulate_t<T>>;

/// Cotangents of every result of a case; every term of the loss counts.
template <class T>
Cotangents<T> random_cotangents(const CaseShape& s, std::uint32_t seed = 2) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto fill = [&](auto& tensor, const auto& extents) {
    tensor = std::remove_reference_t<decltype(tensor)>(extents);
    for (auto& value : tensor.values())
      value = static_cast<std::remove_reference_t<decltype(value)>>(normal(random));
  };
  using Sizes3 = std::array<Index, 3>;
  using Sizes4 = std::array<Index, 4>;
  const Index query_heads = s.kv_heads * s.group;
  Cotangents<T> c;
  fill(c.o, Sizes4{s.batch, s.tokens, query_heads, s.value_dim});
  fill(c.lse, Sizes3{s.batch, s.tokens, query_heads});
  fill(c.slot_share, Sizes3{s.batch, s.tokens, query_heads});
  fill(c.slot_k, Sizes4{s.sequences(), s.kv_heads, s.slots, s.key_dim});
  fill(c.slot_v, Sizes4{s.sequences(), s.kv_heads, s.slots, s.value_dim});
  fill(c.mass, Sizes3{s.sequences(), s.kv_heads, s.slots});
  return c;
}

/// Gradients of every input of a case, NaN until they are written.
template <class T>
Gradients<T> unwritten_gradients(const RandomCase<T>& c) {
  using Acc = nha::accumulate_t<T>;
  using Tensor4 = nha::Tensor<Acc, 4>;
  const CaseShape& s = c.shape;
  Gradients<T> gradients;
  gradients.q_window = Tensor4(c.q_window.extents());
  gradients.k_window = Tensor4(c.k_window.extents());
  gradients.q_slot = Tensor4(c.q_slot.extents());
  gradients.k_slot = Tensor4(c.k_slot.extents());
  gradients.v = Tensor4(c.v.extents());
  gradients.log_gate = Tensor4(c.log_gate.extents());
  if (s.explicit_write) gradients.write = Tensor4(c.write.extents());
  gradients.slot_k = Tensor4({s.sequences(), s.kv_heads, s.slots, s.key_dim});
  gradients.slot_v = Tensor4({s.sequences(), s.kv_heads, s.slots, s.value_dim});
  gradients.mass = nha::Tensor<Acc, 3>({s.sequences(), s.kv_heads, s.slots});
  nha::for_each_gradient(
      [](const char*, auto& tensor) {
        std::fill(tensor.values().begin(), tensor.values().end(),
                  std::numeric_limits<Acc>::quiet_NaN());
      },
      gradients);
  return gradients;
}

/// reference_backward() for all inputs of a case.
template <class T>
Gradients<T> reference_gradients(const RandomCase<T>& c, const nha::AttentionState<T>& state_before,
                                 const Cotangents<T>& cotangents) {
  Gradients<T> gradients = unwritten_gradients(c);
  nha::reference_backward(c.inputs(), state_before, cotangents.views(),
                          gradients.template views<T>());
  return gradients;
}

/// Expects the relative error of each gradient to be at most `tolerance`; 0 for equal numbers.
template <class A, class B>
void expect_gradients_near(const nha::AttentionCaseGradients<A>& a,
                           const nha::AttentionCaseGradients<B>& b, double tolerance) {
  nha::for_each_gradient(
      [&](const std::string& input, const auto& x, const auto& y) {
        EXPECT_LE(relative_error(x, y), tolerance) << "gradient of " << input;
      },
      a, b);
}

}  // namespace nha_test
