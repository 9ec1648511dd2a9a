// SPDX-License-Identifier: MIT
// The definition of Native Hybrid Attention (arXiv 2510.07019): one query head and its key/value
// head, one sequence of T tokens, in double. Dk and Dv are the sizes of keys and values, M slots.
//
//   inputs   q_window, k_window, q_slot, k_slot [T, Dk]   v [T, Dv]   log_gate, write [T, M]
//   slots    key [M, Dk]   value [M, Dv]   mass [M]
//   results  o [T, Dv]   lse, slot_share [T]
//
// Nothing here is fast. reference() keeps a state and is tested against this page; all other code
// is tested against reference().
#pragma once

#include <nha/config.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

NHA_ISA_NAMESPACE_BEGIN

/// The long-term memory. mass is the decayed sum of the write strengths of each slot.
struct DefinitionSlots {
  Tensor<double, 2> key, value;
  Tensor<double, 1> mass;
};

/// What definition() reads. Without `write`, write strengths are 1 - exp(log_gate). Without
/// initial_slots, slots begin as zeros that nothing has entered.
struct DefinitionInputs {
  using Matrix = TensorView<const double, Dynamic, Dynamic>;
  Matrix q_window, k_window, q_slot, k_slot, v, log_gate;
  Matrix write = {};
  std::optional<DefinitionSlots> initial_slots = std::nullopt;
};

/// What definition() returns. The slots are those after the last token.
struct DefinitionResults {
  Tensor<double, 2> o;
  Tensor<double, 1> lse, slot_share;
  DefinitionSlots slots;
};

/// The operator. The first `sinks` tokens stay visible to every query and never enter the slots.
/// A NaN among the logits of a token gives NaN results; a token with nothing to read gets o = 0,
/// lse = -infinity and slot_share = 0. One head has one window: options.head_windows is not read.
inline DefinitionResults definition(const DefinitionInputs& in, const AttentionOptions& options,
                                    Index sinks = 0) {
  using Vector = Tensor<double, 1>;
  using Matrix = Tensor<double, 2>;
  const Index T = in.v.extent(0), M = in.log_gate.extent(1), Dv = in.v.extent(1);
  const Index Dk = std::max(in.q_slot.extent(1), in.q_window.extent(1));
  const Index W = options.window, slot_delay = options.slot_delay.value_or(W);
  const double scale = softmax_scale(options, Dk);
  const auto dot = [&](const auto& query, const auto& key) {
    double sum = 0;
    for (Index d = 0; d < Dk; ++d) sum += query(d) * key(d);
    return sum;
  };

  const DefinitionSlots zeros{Matrix({M, Dk}), Matrix({M, Dv}), Vector({M})};
  DefinitionResults out{Matrix({T, Dv}), Vector({T}), Vector({T}),
                        in.initial_slots.value_or(zeros)};
  Matrix &slot_k = out.slots.key, &slot_v = out.slots.value;
  Vector& mass = out.slots.mass;
  bool written = in.initial_slots.has_value();
  // A mass-corrected slot is the weighted mean of what was written to it.
  const EmptySlots rule = options.empty_slots;
  const auto divisor = [&](Index m) { return rule == EmptySlots::mass_corrected ? mass(m) : 1.0; };

  Vector logits({M + T});
  for (Index t = 0; t < T; ++t) {
    // Token j, slot_delay tokens old, enters: each slot keeps alpha of itself and takes in s of j.
    if (const Index j = t - slot_delay; j >= sinks) {
      written = true;
      for (Index m = 0; m < M; ++m) {
        const double g = in.log_gate(j, m), alpha = std::exp(g);
        const double s = in.write.data() != nullptr ? in.write(j, m) : -std::expm1(g);
        for (Index d = 0; d < Dk; ++d) slot_k(m, d) = alpha * slot_k(m, d) + s * in.k_slot(j, d);
        for (Index d = 0; d < Dv; ++d) slot_v(m, d) = alpha * slot_v(m, d) + s * in.v(j, d);
        mass(m) = alpha * mass(m) + s;
      }
    }

    // Logits of the slots and of the tokens so far; -infinity for what token t may not read.
    for (Index m = 0; m < M; ++m) {
      const bool takes_part = rule == EmptySlots::participate || (written && !(divisor(m) <= 0));
      const double product = dot(in.q_slot[t], slot_k.view()[m]) / divisor(m);
      logits(m) = takes_part ? scale * product + std::log(divisor(m)) : -kInfinity<double>;
    }
    for (Index i = 0; i <= t; ++i) {
      const bool visible = i > t - W || i < sinks;
      logits(M + i) = visible ? scale * dot(in.q_window[t], in.k_window[i]) : -kInfinity<double>;
    }

    // One softmax over both memories.
    double maximum = -kInfinity<double>, sum = 0, slot_sum = 0;
    for (Index i = 0; i <= M + t; ++i) maximum = std::max(maximum, logits(i));
    for (Index i = 0; i <= M + t; ++i) {
      if (logits(i) == -kInfinity<double>) continue;
      const double weight = std::exp(logits(i) - maximum);
      sum += weight;
      if (i < M) slot_sum += weight;
      for (Index d = 0; d < Dv; ++d)
        out.o(t, d) += weight * (i < M ? slot_v(i, d) / divisor(i) : in.v(i - M, d));
    }
    for (Index d = 0; d < Dv; ++d) out.o(t, d) = sum == 0 ? 0 : out.o(t, d) / sum;
    out.lse(t) = maximum + std::log(sum);
    out.slot_share(t) = sum == 0 ? 0 : slot_sum / sum;
  }
  return out;
}

NHA_ISA_NAMESPACE_END
