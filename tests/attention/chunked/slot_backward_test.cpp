// SPDX-License-Identifier: MIT
// The slots' part of the backward against the slots themselves: their recurrence in plain loops,
// and its differences where an input moves.
#include <nha/attention/chunked/slot_backward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/architectures.hpp"
#include "support/backward_call.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::EmptySlots;
using nha::detail::Chunk;
using Doubles = std::vector<double>;

Doubles random_numbers(Index count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Doubles numbers(static_cast<std::size_t>(count));
  for (double& x : numbers) x = normal(random);
  return numbers;
}

/// One chunk of tokens, all of a call, after earlier ones whose slots it begins with. One sequence
/// and key/value head.
struct SlotProblem {
  SlotProblem(const CaseShape& shape, const nha::AttentionOptions& options, Index earlier)
      : past(earlier),
        tokens(shape.tokens - earlier),
        b(shape, options, earlier, tokens),
        slot_k({shape.slots, shape.key_dim}),
        slot_v({shape.slots, shape.value_dim}),
        mass({shape.slots}),
        cotangents(random_cotangents<double>(piece(shape))),
        gradients(unwritten_gradients(RandomCase<double>(piece(shape)))),
        weights(random_numbers(rows() * shape.slots, 11)),
        d_logits(random_numbers(rows() * shape.slots, 12)) {
    for (double& x : weights) x = std::abs(x);
    for (Index m = 0; m < shape.slots; ++m) {
      for (Index d = 0; d < shape.key_dim; ++d) slot_k(m, d) = b.state.slot_k(0, 0)(m, d);
      for (Index d = 0; d < shape.value_dim; ++d) slot_v(m, d) = b.state.slot_v(0, 0)(m, d);
      mass(m) = b.state.slot_mass(0, 0)(m);
    }
  }

  CaseShape piece(CaseShape shape) const {
    shape.tokens = tokens;
    return shape;
  }
  Index rows() const { return tokens * b.c.shape.group; }
  std::size_t at(Index row, Index slot) const {
    return static_cast<std::size_t>(row * b.c.shape.slots + slot);
  }

  /// What the rows read of the slots: their logits, and d_output times their values. Returns the
  /// sum of logits times d_logits, readings of values times weights, and slots at the end times
  /// their cotangents.
  double forward(Doubles* logits = nullptr, Doubles* values = nullptr) const {
    const CaseShape& s = b.c.shape;
    const nha::AttentionOptions& options = b.state.options();
    auto k = slot_k, v = slot_v;
    auto m = mass;
    double loss = 0;
    for (Index t = past; t < past + tokens; ++t) {
      const Index j = t - b.plan.chunks.slot_delay;
      for (Index slot = 0; slot < s.slots && j >= 0; ++slot) {
        const double keep = std::exp(b.c.log_gate(0, j, 0, slot));
        const double add = s.explicit_write ? b.c.write(0, j, 0, slot) : 1 - keep;
        for (Index d = 0; d < s.key_dim; ++d)
          k(slot, d) = keep * k(slot, d) + add * b.c.k_slot(0, j, 0, d);
        for (Index d = 0; d < s.value_dim; ++d)
          v(slot, d) = keep * v(slot, d) + add * b.c.v(0, j, 0, d);
        m(slot) = keep * m(slot) + add;
      }
      for (Index row = (t - past) * s.group; row < (t - past + 1) * s.group; ++row)
        for (Index slot = 0; slot < s.slots; ++slot) {
          double logit = 0, value = 0;
          for (Index d = 0; d < s.key_dim; ++d)
            logit += b.c.q_slot(0, t, row % s.group, d) * k(slot, d) /
                     std::sqrt(static_cast<double>(s.key_dim));
          for (Index d = 0; d < s.value_dim; ++d)
            value += cotangents.o(0, t - past, row % s.group, d) * v(slot, d);
          if (options.empty_slots == EmptySlots::mass_corrected) {
            logit = logit / m(slot) + std::log(m(slot));
            value /= m(slot);
          }
          loss += d_logits[at(row, slot)] * logit + weights[at(row, slot)] * value;
          if (logits != nullptr) logits->push_back(logit);
          if (values != nullptr) values->push_back(value);
        }
    }
    for (Index slot = 0; slot < s.slots; ++slot) {
      for (Index d = 0; d < s.key_dim; ++d) loss += cotangents.slot_k(0, 0, slot, d) * k(slot, d);
      for (Index d = 0; d < s.value_dim; ++d) loss += cotangents.slot_v(0, 0, slot, d) * v(slot, d);
      loss += cotangents.mass(0, 0, slot) * m(slot);
    }
    return loss;
  }

  /// Runs SlotBackward: sees what each row reads in `logits` and `values`, and takes back `weights`
  /// and `d_logits`.
  template <class Arch>
  void backward(Doubles& logits, Doubles& values) {
    const CaseShape& shape = b.c.shape;
    const auto given = b.head_part(cotangents.views());
    const auto wanted = b.head_part(gradients.views<double>());
    const Chunk chunk{past, tokens};
    nha::detail::BackwardBand<double> band(b.plan, b.scratch.window.band, b.call.end);
    band.load(b.call, past, b.call.end);
    nha::detail::BackwardRows<BackwardCall<double>::Call> queries{b.call, given, b.scratch.rows};
    queries.pack(chunk, true);
    nha::detail::SlotBackward<Arch, BackwardCall<double>::Call> slots(b.call, given, wanted,
                                                                      b.scratch.slots);
    slots.products(queries, b.call.memory.slots);
    for (Index row = 0; row < rows(); ++row) {
      double* scores = queries.scores(row);
      double* d_scores = queries.d_scores(row);
      logits.insert(logits.end(), scores, scores + shape.slots);
      values.insert(values.end(), d_scores, d_scores + shape.slots);
      // Padding has weight 0, and the cotangent of the share is in the derivatives by the weights.
      std::fill_n(scores, b.plan.chunks.slots, 0.0);
      std::copy_n(&weights[at(row, 0)], shape.slots, scores);
      for (Index m = 0; m < shape.slots; ++m) d_scores[m] += queries.number(given.slot_share, row);
      slots.keep_d_values(queries, row);
      std::fill_n(d_scores, b.plan.chunks.slots, 0.0);
      std::copy_n(&d_logits[at(row, 0)], shape.slots, d_scores);
    }
    nha::cpu::RowPrefetcher nothing;
    slots.run(queries, b.call.memory.slots, band, nothing);
    slots.store();
    for (Index t = 0; t < tokens; ++t)
      std::copy_n(band.d_values(band.column(past + t)), shape.value_dim, &gradients.v(0, t, 0, 0));
  }

  /// Expects the gradient of some numbers, `count` of them, to be the difference of the loss where
  /// they move along a random direction.
  void check(const char* name, double* numbers, const double* gradient, Index count) const {
    constexpr double kStep = 1e-5;
    const Doubles direction = random_numbers(count, 13);
    const Doubles before(numbers, numbers + count);
    double expected = 0, derivative = 0, size = 0;
    for (const double sign : {1.0, -1.0}) {
      for (std::size_t i = 0; i < before.size(); ++i)
        numbers[i] = before[i] + sign * kStep * direction[i];
      expected += sign * forward() / (2 * kStep);
      std::copy(before.begin(), before.end(), numbers);
    }
    for (std::size_t i = 0; i < before.size(); ++i) {
      derivative += gradient[i] * direction[i];
      size += gradient[i] * gradient[i];
    }
    const double rounding = 0x1p-52 * std::abs(forward()) / kStep;
    EXPECT_NEAR(derivative, expected, 1e-7 * std::sqrt(size) + rounding) << "gradient of " << name;
  }

  void check_all() {
    const CaseShape& s = b.c.shape;
    // Tokens that enter the slots during the call.
    const Index entering = tokens - b.plan.chunks.slot_delay;
    const auto check_tokens = [&](const char* name, auto& numbers, const auto& gradient,
                                  Index count, Index width) {
      check(name, &numbers(0, past, 0, 0), gradient.data(), count * width);
    };
    check_tokens("q_slot", b.c.q_slot, gradients.q_slot, tokens, s.group * s.key_dim);
    check_tokens("k_slot", b.c.k_slot, gradients.k_slot, entering, s.key_dim);
    check_tokens("v", b.c.v, gradients.v, tokens, s.value_dim);
    check_tokens("log_gate", b.c.log_gate, gradients.log_gate, entering, s.slots);
    if (s.explicit_write) check_tokens("write", b.c.write, gradients.write, entering, s.slots);
    check("slot_k", slot_k.data(), gradients.slot_k.data(), slot_k.size());
    check("slot_v", slot_v.data(), gradients.slot_v.data(), slot_v.size());
    check("mass", mass.data(), gradients.mass.data(), mass.size());
  }

  Index past;
  Index tokens;
  BackwardCall<double> b;
  nha::Tensor<double, 2> slot_k, slot_v;
  nha::Tensor<double, 1> mass;
  Cotangents<double> cotangents;
  Gradients<double> gradients;
  Doubles weights, d_logits;  // [rows, slots]
};

template <class Arch>
class SlotBackwardOn : public testing::Test {
 protected:
  static void check(const CaseShape& shape, const nha::AttentionOptions& options, Index past) {
    SlotProblem problem(shape, options, past);
    Doubles logits, values, expected_logits, expected_values;
    problem.forward(&expected_logits, &expected_values);
    problem.template backward<Arch>(logits, values);
    const auto size = static_cast<Index>(logits.size());
    EXPECT_LT(relative_error(logits.data(), expected_logits.data(), size), 1e-14);
    EXPECT_LT(relative_error(values.data(), expected_values.data(), size), 1e-14);
    problem.check_all();
  }
};
TYPED_TEST_SUITE(SlotBackwardOn, Architectures);

TYPED_TEST(SlotBackwardOn, IsTheDerivativeOfTheSlots) {
  this->check({.tokens = 40, .group = 2, .key_dim = 5, .value_dim = 18, .slots = 20}, {.window = 0},
              20);
  this->check({.tokens = 33, .explicit_write = true}, {.window = 0}, 20);
}

TYPED_TEST(SlotBackwardOn, IsTheDerivativeWhereTokensEnterLate) {
  for (const Index past : {0, 3, 30})
    this->check({.tokens = past + 20, .group = 3}, {.window = 7}, past);
}

TYPED_TEST(SlotBackwardOn, IsTheDerivativeForFastAndSlowGates) {
  for (const Gates gates : {Gates::fast, Gates::slow, Gates::mixed})
    this->check({.tokens = 40, .gates = gates, .explicit_write = true}, {.window = 4}, 20);
}

TYPED_TEST(SlotBackwardOn, IsTheDerivativeOfSlotsAsWeightedMeans) {
  for (const bool explicit_write : {false, true})
    this->check({.tokens = 40, .group = 2, .slots = 20, .explicit_write = explicit_write},
                {.window = 3, .empty_slots = EmptySlots::mass_corrected}, 20);
}

}  // namespace
