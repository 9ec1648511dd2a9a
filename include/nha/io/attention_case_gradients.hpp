// SPDX-License-Identifier: MIT
// The tensors of an attention case that belong to the backward: cotangents and gradients by the
// names they have in files.
#pragma once

#include <nha/attention/gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/tensor.hpp>

#include <array>

NHA_ISA_NAMESPACE_BEGIN

/// Owns the cotangents of a case; those that the file does not give are empty. In the file they are
/// d_o, d_lse, d_slot_share, d_slot_k, d_slot_v and d_mass.
template <Scalar T>
struct AttentionCaseCotangents {
  using Acc = accumulate_t<T>;

  Tensor<T, 4> o;
  Tensor<Acc, 3> lse, slot_share;
  Tensor<Acc, 4> slot_k, slot_v;
  Tensor<Acc, 3> mass;

  /// Views of them; they live as long as the tensors.
  AttentionCotangents<T> views() const {
    return {.o = o,
            .lse = lse,
            .slot_share = slot_share,
            .slot_k = slot_k,
            .slot_v = slot_v,
            .mass = mass};
  }
};

/// Owns gradients of a case. Those that are not wanted, or that the file does not give, are empty.
template <Scalar U>
struct AttentionCaseGradients {
  Tensor<U, 4> q_window, k_window, q_slot, k_slot, v, log_gate, write, slot_k, slot_v;
  Tensor<U, 3> mass;

  /// Views to write to, for inputs of type T.
  template <class T>
  AttentionGradients<T> views() {
    return {.q_window = q_window,
            .k_window = k_window,
            .q_slot = q_slot,
            .k_slot = k_slot,
            .v = v,
            .log_gate = log_gate,
            .write = write,
            .slot_k = slot_k,
            .slot_v = slot_v,
            .mass = mass};
  }
};

/// Calls visit(name, tensor of each) for the gradient of each input, with the input's name; in a
/// file it follows "expected.grad." or, in saved results, "grad.".
template <class F, class... Gradients>
void for_each_gradient(F&& visit, Gradients&&... gradients) {
  visit("q_window", gradients.q_window...);
  visit("k_window", gradients.k_window...);
  visit("q_slot", gradients.q_slot...);
  visit("k_slot", gradients.k_slot...);
  visit("v", gradients.v...);
  visit("log_gate", gradients.log_gate...);
  visit("write", gradients.write...);
  visit("initial.slot_k", gradients.slot_k...);
  visit("initial.slot_v", gradients.slot_v...);
  visit("initial.mass", gradients.mass...);
}

NHA_ISA_NAMESPACE_END
