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
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

NHA_ISA_NAMESPACE_BEGIN

/// The long-term memory: M keys and values, and the decayed sum of what was written to each.
struct DefinitionSlots {
  Tensor<double, 2> key, value;
  Tensor<double, 1> mass;
};

struct DefinitionInputs {
  using Matrix = TensorView<const double, Dynamic, Dynamic>;
  Matrix q_window, k_window, q_slot, k_slot, v, log_gate;
  Matrix write = {};  // left out: 1 - exp(log_gate)
  std::optional<DefinitionSlots> initial_slots =
      {};  // left out: zeros, to which nothing was written
};

struct DefinitionResults {
  Tensor<double, 2> o;
  Tensor<double, 1> lse, slot_share;
  DefinitionSlots slots;  // after the last token
};

/// The operator. The first `sinks` tokens stay visible to every query and never enter the slots.
/// A NaN among the logits of a token gives NaN results; a token with nothing to read gets o = 0,
/// lse = -infinity and slot_share = 0. One head has one window: options.head_windows is not read.
inline DefinitionResults definition(const DefinitionInputs& in, const AttentionOptions& options,
                                    Index sinks = 0) {
  const Index tokens = in.v.extent(0), slot_count = in.log_gate.extent(1);
  const Index key_dim = std::max(in.q_slot.extent(1), in.q_window.extent(1));
  const Index value_dim = in.v.extent(1);
  const Index window = options.window, slot_delay = options.slot_delay.value_or(window);
  const double scale = softmax_scale(options, key_dim);
  const EmptySlots rule = options.empty_slots;

  const Tensor<double, 1> none({tokens});
  const DefinitionSlots empty{Tensor<double, 2>({slot_count, key_dim}),
                              Tensor<double, 2>({slot_count, value_dim}),
                              Tensor<double, 1>({slot_count})};
  DefinitionResults out{Tensor<double, 2>({tokens, value_dim}), none, none,
                        in.initial_slots.value_or(empty)};
  auto &slot_k = out.slots.key, &slot_v = out.slots.value;
  auto& mass = out.slots.mass;
  bool written = in.initial_slots.has_value();

  const auto dot = [&](const auto& query, const auto& key) {
    double sum = 0;
    for (Index d = 0; d < key_dim; ++d) sum += query(d) * key(d);
    return sum;
  };
  // A mass-corrected slot is the weighted mean of what was written to it.
  const auto divisor = [&](Index m) { return rule == EmptySlots::mass_corrected ? mass(m) : 1.0; };

  Tensor<double, 1> logits({slot_count + tokens});
  for (Index t = 0; t < tokens; ++t) {
    // Token j is slot_delay tokens old: the slots forget by their gates and take token j in.
    if (const Index j = t - slot_delay; j >= sinks) {
      written = true;
      for (Index m = 0; m < slot_count; ++m) {
        const double alpha = std::exp(in.log_gate(j, m));
        const double s =
            in.write.data() != nullptr ? in.write(j, m) : -std::expm1(in.log_gate(j, m));
        for (Index d = 0; d < key_dim; ++d)
          slot_k(m, d) = alpha * slot_k(m, d) + s * in.k_slot(j, d);
        for (Index d = 0; d < value_dim; ++d) slot_v(m, d) = alpha * slot_v(m, d) + s * in.v(j, d);
        mass(m) = alpha * mass(m) + s;
      }
    }

    // Logits of the slots and of the tokens so far; -infinity for what token t may not read.
    for (Index m = 0; m < slot_count; ++m) {
      const bool takes_part = rule == EmptySlots::participate || (written && divisor(m) != 0);
      logits(m) = takes_part ? scale * dot(in.q_slot[t], slot_k.view()[m]) / divisor(m) +
                                   std::log(divisor(m))
                             : -kInfinity<double>;
    }
    for (Index i = 0; i <= t; ++i) {
      const bool visible = i > t - window || i < sinks;
      logits(slot_count + i) =
          visible ? scale * dot(in.q_window[t], in.k_window[i]) : -kInfinity<double>;
    }

    // One softmax over both memories: no weights that mix their results.
    double maximum = -kInfinity<double>, sum = 0, slot_sum = 0;
    for (Index i = 0; i <= slot_count + t; ++i) maximum = std::max(maximum, logits(i));
    for (Index i = 0; i <= slot_count + t; ++i) {
      if (logits(i) == -kInfinity<double>) continue;
      const double weight = std::exp(logits(i) - maximum);
      const bool is_slot = i < slot_count;
      sum += weight;
      if (is_slot) slot_sum += weight;
      for (Index d = 0; d < value_dim; ++d)
        out.o(t, d) += weight * (is_slot ? slot_v(i, d) / divisor(i) : in.v(i - slot_count, d));
    }
    out.lse(t) = sum == 0 ? -kInfinity<double> : maximum + std::log(sum);
    out.slot_share(t) = sum == 0 ? 0 : slot_sum / sum;
    for (Index d = 0; d < value_dim; ++d) out.o(t, d) = sum == 0 ? 0 : out.o(t, d) / sum;
  }
  return out;
}

NHA_ISA_NAMESPACE_END
