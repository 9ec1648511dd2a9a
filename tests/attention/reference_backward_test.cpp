// SPDX-License-Identifier: MIT
// The gradients by their definition, against difference quotients of reference() in double and
// against what must hold between gradients. Those of the golden cases are in
// io/attention_case_gradients_test.cpp.
#include <nha/attention/reference.hpp>
#include <nha/attention/reference_backward.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/random_case.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionOptions;
using nha::AttentionState;
using nha::EmptySlots;
using nha::Tensor;

/// A call of the operator and a loss that is linear in all its results.
struct Problem {
  explicit Problem(const CaseShape& shape, const AttentionOptions& options)
      : c(shape),
        before(c.attention_shape(), options),
        cotangents(random_cotangents<double>(c.shape)) {}

  nha::AttentionInputs<double> inputs() const {
    auto in = c.inputs();
    in.trust_gates = true;  // a step of a difference quotient may take a gate above 0
    return in;
  }
  /// Lets `before` have seen `tokens` tokens of other inputs.
  void begin_after(Index tokens) {
    CaseShape shape = c.shape;
    shape.batch = shape.sequences();
    shape.lengths = {};
    shape.tokens = tokens;
    const RandomCase<double> earlier(shape, 7);
    CaseOutputs<double> out(shape);
    nha::reference(earlier.inputs(), before, out.views());
  }
  void begin_from_slots() {
    const Cotangents<double> slots = random_cotangents<double>(c.shape, 9);
    Tensor<double, 3> mass = slots.mass;
    for (double& m : mass.values()) m = 0.2 + std::abs(m);
    before.set_initial_slots(slots.slot_k, slots.slot_v, mass);
  }

  double loss() const {
    AttentionState<double> state = before;
    CaseOutputs<double> out(c.shape);
    nha::reference(inputs(), state, out.views());
    double sum = 0;
    const auto add = [&](const auto& results, const auto& weights) {
      for (Index i = 0; i < results.size(); ++i)
        if (std::isfinite(results.data()[i])) sum += results.data()[i] * weights.data()[i];
    };
    add(out.o, cotangents.o);
    add(out.lse, cotangents.lse);
    add(out.slot_share, cotangents.slot_share);
    for_each_slot([&](Index n, Index h, Index m) {
      for (Index d = 0; d < c.shape.key_dim; ++d)
        sum += state.slot_k(n, h)(m, d) * cotangents.slot_k(n, h, m, d);
      for (Index d = 0; d < c.shape.value_dim; ++d)
        sum += state.slot_v(n, h)(m, d) * cotangents.slot_v(n, h, m, d);
      sum += state.slot_mass(n, h)(m) * cotangents.mass(n, h, m);
    });
    return sum;
  }

  /// Fourth-order difference quotient of the loss in one number of the inputs.
  double slope(double& x) const {
    constexpr double kStep = 1e-3;
    const double at = x;
    const auto loss_at = [&](double steps) {
      x = at + steps * kStep;
      const double result = loss();
      x = at;
      return result;
    };
    return (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * kStep);
  }

  /// All gradients by difference quotients.
  Gradients<double> slopes() {
    Gradients<double> result = unwritten_gradients(c);
    const auto differentiate = [&](Tensor<double, 4>& input, Tensor<double, 4>& to) {
      for (Index i = 0; i < to.size(); ++i) to.data()[i] = slope(input.data()[i]);
    };
    differentiate(c.q_window, result.q_window);
    differentiate(c.k_window, result.k_window);
    differentiate(c.q_slot, result.q_slot);
    differentiate(c.k_slot, result.k_slot);
    differentiate(c.v, result.v);
    differentiate(c.log_gate, result.log_gate);
    differentiate(c.write, result.write);
    for_each_slot([&](Index n, Index h, Index m) {
      const auto slots = nha::detail::StateAccess::head(before, n, h).slots;
      for (Index d = 0; d < c.shape.key_dim; ++d)
        result.slot_k(n, h, m, d) = slope(slots.key_at(m, d));
      for (Index d = 0; d < c.shape.value_dim; ++d)
        result.slot_v(n, h, m, d) = slope(slots.value_at(m, d));
      result.mass(n, h, m) = slope(slots.mass[m]);
    });
    return result;
  }

  void expect_gradients_are_slopes() {
    const Gradients<double> gradients = reference_gradients(c, before, cotangents);
    // The quotients' error is about 1e-16 / kStep of rounding and kStep^4 of the fifth derivative.
    expect_gradients_near(gradients, slopes(), 1e-8);
  }

  template <class F>
  void for_each_slot(F&& visit) const {
    for (Index n = 0; n < c.shape.sequences(); ++n)
      for (Index h = 0; h < c.shape.kv_heads; ++h)
        for (Index m = 0; m < c.shape.slots; ++m) visit(n, h, m);
  }

  RandomCase<double> c;
  AttentionState<double> before;
  Cotangents<double> cotangents;
};

CaseShape small_shape() {
  return {.batch = 2,
          .tokens = 7,
          .kv_heads = 2,
          .group = 2,
          .key_dim = 4,
          .value_dim = 3,
          .slots = 3,
          .gates = Gates::mixed};
}

TEST(ReferenceBackward, IsTheSlopeOfEveryInput) {
  Problem(small_shape(), {.window = 3}).expect_gradients_are_slopes();
}

TEST(ReferenceBackward, IsTheSlopeAtEveryDelayAndEmptySlotRule) {
  CaseShape shape = small_shape();
  shape.batch = 1;
  shape.kv_heads = 1;
  for (const auto rule : {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected})
    for (const Index delay : {0, 2, 3}) {
      SCOPED_TRACE("rule " + std::to_string(static_cast<int>(rule)) + ", delay " +
                   std::to_string(delay));
      Problem problem(
          shape, {.window = 3, .slot_delay = delay, .softmax_scale = 0.8, .empty_slots = rule});
      // Corrected by a mass of next to nothing the loss is too crooked for difference quotients.
      if (rule == EmptySlots::mass_corrected) problem.begin_from_slots();
      problem.expect_gradients_are_slopes();
    }
}

TEST(ReferenceBackward, IsTheSlopeWhereWriteStrengthsAreGiven) {
  CaseShape shape = small_shape();
  shape.explicit_write = true;
  for (const auto rule : {EmptySlots::participate, EmptySlots::mass_corrected})
    for (const Index window : {0, 2})
      Problem(shape, {.window = window, .empty_slots = rule}).expect_gradients_are_slopes();
}

TEST(ReferenceBackward, IsTheSlopeWithoutWindowWithoutSlotsAndWithTheWindowAlone) {
  const CaseShape shape = small_shape();
  Problem(shape, {.window = 0}).expect_gradients_are_slopes();
  CaseShape no_slots = shape;
  no_slots.slots = 0;
  Problem(no_slots, {.window = 3}).expect_gradients_are_slopes();
  for (const Index window : {7, 20}) {
    Problem(shape, {.window = window}).expect_gradients_are_slopes();
    Problem(shape, {.window = window, .empty_slots = EmptySlots::masked})
        .expect_gradients_are_slopes();
  }
}

TEST(ReferenceBackward, IsTheSlopeForAWindowOfEachHead) {
  Problem(small_shape(), {.head_windows = {0, 4}}).expect_gradients_are_slopes();
}

TEST(ReferenceBackward, IsTheSlopeForPackedSequences) {
  CaseShape shape = small_shape();
  shape.lengths = {3, 0, 1, 5};
  Problem(shape, {.window = 2}).expect_gradients_are_slopes();
  Problem from_slots(shape, {.window = 2, .empty_slots = EmptySlots::mass_corrected});
  from_slots.begin_from_slots();
  from_slots.expect_gradients_are_slopes();
}

TEST(ReferenceBackward, IsTheSlopeFromInitialSlots) {
  for (const auto rule :
       {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected}) {
    Problem problem(small_shape(), {.window = 2, .empty_slots = rule});
    problem.begin_from_slots();
    problem.expect_gradients_are_slopes();
  }
}

TEST(ReferenceBackward, TokensOfEarlierCallsAreConstantsAndTheirSlotsAreNot) {
  for (const Index earlier : {2, 9})
    for (const auto rule : {EmptySlots::masked, EmptySlots::mass_corrected}) {
      // Tokens of the earlier call are still in the window, and enter the slots during this one.
      Problem problem(small_shape(), {.window = 4, .slot_delay = 3, .empty_slots = rule});
      if (rule == EmptySlots::mass_corrected) problem.begin_from_slots();
      problem.begin_after(earlier);
      problem.expect_gradients_are_slopes();
    }
}

TEST(ReferenceBackward, CallsChainThroughTheSlotsExactlyWhereThereIsNoWindow) {
  Problem whole(small_shape(), {.window = 0, .empty_slots = EmptySlots::masked});
  const Gradients<double> expected = reference_gradients(whole.c, whole.before, whole.cotangents);

  Gradients<double> chained = unwritten_gradients(whole.c);
  AttentionState<double> between = whole.before;
  CaseOutputs<double> out(whole.c.shape);
  nha::reference(whole.c.inputs().tokens(0, 4), between, out.tokens(0, 4));
  const auto piece = [&](Index first, Index count, auto cotangents, auto gradients,
                         const AttentionState<double>& before) {
    const auto slice = [&](auto& view) { view = view.template slice<1>(first, count); };
    slice(cotangents.o);
    slice(cotangents.lse);
    slice(cotangents.slot_share);
    slice(gradients.q_window);
    slice(gradients.k_window);
    slice(gradients.q_slot);
    slice(gradients.k_slot);
    slice(gradients.v);
    slice(gradients.log_gate);
    nha::reference_backward(whole.c.inputs().tokens(first, count), before, cotangents, gradients);
  };
  piece(4, 3, whole.cotangents.views(), chained.views<double>(), between);
  Cotangents<double> of_first = whole.cotangents;
  of_first.slot_k = chained.slot_k;
  of_first.slot_v = chained.slot_v;
  of_first.mass = chained.mass;
  piece(0, 4, of_first.views(), chained.views<double>(), whole.before);
  expect_gradients_near(chained, expected, 1e-14);
}

TEST(ReferenceBackward, PackedSequencesAreSequencesOnTheirOwn) {
  CaseShape shape = small_shape();
  shape.lengths = {4, 3};
  const Problem packed(shape, {.window = 2});
  const Gradients<double> all = reference_gradients(packed.c, packed.before, packed.cotangents);
  AttentionState<double> one({.kv_heads = 2, .key_dim = 4, .value_dim = 3, .slots = 3},
                             {.window = 2});
  const auto of_second = [](const auto& tensor) { return tensor.view().template slice<1>(4, 3); };
  const auto slots_of_second = [](const auto& tensor) {
    return tensor.view().template slice<0>(1, 1);
  };
  Tensor<double, 4> v({1, 3, 2, 3}), slot_k({1, 2, 3, 4});
  nha::reference_backward(packed.c.inputs().tokens(4, 3), one,
                          {.o = of_second(packed.cotangents.o),
                           .lse = of_second(packed.cotangents.lse),
                           .slot_share = of_second(packed.cotangents.slot_share),
                           .slot_k = slots_of_second(packed.cotangents.slot_k),
                           .slot_v = slots_of_second(packed.cotangents.slot_v),
                           .mass = slots_of_second(packed.cotangents.mass)},
                          {.v = v, .slot_k = slot_k});
  for (Index t = 0; t < 3; ++t)
    for (Index h = 0; h < 2; ++h)
      for (Index d = 0; d < 3; ++d) EXPECT_EQ(v(0, t, h, d), all.v(0, 4 + t, h, d));
  EXPECT_EQ(slot_k(0, 1, 2, 3), all.slot_k(1, 1, 2, 3));
}

TEST(ReferenceBackward, IsLinearInTheCotangents) {
  Problem problem(small_shape(), {.window = 3});
  const Gradients<double> once = reference_gradients(problem.c, problem.before, problem.cotangents);
  const auto scale_cotangents = [&](double factor) {
    const auto scale = [&](auto& tensor) {
      for (double& value : tensor.values()) value *= factor;
    };
    Cotangents<double>& c = problem.cotangents;
    scale(c.o), scale(c.lse), scale(c.slot_share), scale(c.slot_k), scale(c.slot_v), scale(c.mass);
  };
  scale_cotangents(2);
  Gradients<double> twice = reference_gradients(problem.c, problem.before, problem.cotangents);
  nha::for_each_gradient(
      [](const char*, auto& tensor) {
        for (double& value : tensor.values()) value /= 2;
      },
      twice);
  expect_gradients_near(twice, once, 0);  // powers of two change no digit
  scale_cotangents(0);
  nha::for_each_gradient(
      [](const char* input, const auto& tensor) {
        for (const double value : tensor.values()) EXPECT_EQ(value, 0) << input;
      },
      reference_gradients(problem.c, problem.before, problem.cotangents));
}

TEST(ReferenceBackward, CotangentsLeftOutAreZero) {
  Problem problem(small_shape(), {.window = 3});
  Gradients<double> without = unwritten_gradients(problem.c);
  nha::reference_backward(problem.c.inputs(), problem.before, {.o = problem.cotangents.o},
                          without.views<double>());
  for (Tensor<double, 3>* tensor :
       {&problem.cotangents.lse, &problem.cotangents.slot_share, &problem.cotangents.mass})
    for (double& value : tensor->values()) value = 0;
  for (Tensor<double, 4>* tensor : {&problem.cotangents.slot_k, &problem.cotangents.slot_v})
    for (double& value : tensor->values()) value = 0;
  expect_gradients_near(without, reference_gradients(problem.c, problem.before, problem.cotangents),
                        0);
}

TEST(ReferenceBackward, EachGradientMayBeWantedAlone) {
  CaseShape shape = small_shape();
  shape.explicit_write = true;
  const Problem problem(shape, {.window = 3});
  const Gradients<double> all = reference_gradients(problem.c, problem.before, problem.cotangents);
  const Gradients<double> nothing;
  nha::for_each_gradient(
      [&](const std::string& wanted, const auto&) {
        Gradients<double> one = unwritten_gradients(problem.c);
        nha::for_each_gradient(
            [&](const std::string& input, auto& tensor) {
              if (input != wanted) tensor = {};
            },
            one);
        nha::reference_backward(problem.c.inputs(), problem.before, problem.cotangents.views(),
                                one.views<double>());
        nha::for_each_gradient(
            [&](const std::string& input, const auto& tensor, const auto& expected) {
              if (input != wanted) return;
              EXPECT_EQ(relative_error(tensor, expected), 0) << input;
            },
            one, all);
      },
      nothing);
}

TEST(ReferenceBackward, TakesAnyStrides) {
  const Problem problem(small_shape(), {.window = 3});
  const CaseShape& s = problem.c.shape;
  // One cotangent for all tokens and heads, and both gradients of a query side by side.
  Tensor<double, 4> one({1, 1, 1, s.value_dim}), repeated({s.batch, s.tokens, 4, s.value_dim});
  for (Index i = 0; i < repeated.size(); ++i)
    repeated.data()[i] = one.data()[i % s.value_dim] = 1.0 + static_cast<double>(i % s.value_dim);
  Tensor<double, 4> both({s.batch, s.tokens, 4, 2 * s.key_dim}), q_slot(problem.c.q_slot.extents()),
      q_window(problem.c.q_slot.extents());
  nha::reference_backward(problem.c.inputs(), problem.before,
                          {.o = {one.data(), {s.batch, s.tokens, 4, s.value_dim}, {0, 0, 0, 1}}},
                          {.q_window = both.view().slice<3>(s.key_dim, s.key_dim),
                           .q_slot = both.view().slice<3>(0, s.key_dim)});
  nha::reference_backward(problem.c.inputs(), problem.before, {.o = repeated},
                          {.q_window = q_window, .q_slot = q_slot});
  for (Index t = 0; t < s.tokens; ++t)
    for (Index d = 0; d < s.key_dim; ++d) {
      EXPECT_EQ(both(1, t, 3, d), q_slot(1, t, 3, d));
      EXPECT_EQ(both(1, t, 3, s.key_dim + d), q_window(1, t, 3, d));
    }
}

TEST(ReferenceBackward, GatesOfMinusInfinityAreTheLimitOfFastOnes) {
  Problem problem(small_shape(), {.window = 2});
  const double infinity = std::numeric_limits<double>::infinity();
  const auto with_gate = [&](double gate) {
    for (const Index t : {1, 2, 4})
      for (Index m = 0; m < 2; ++m) problem.c.log_gate(0, t, 1, m) = gate;
    return reference_gradients(problem.c, problem.before, problem.cotangents);
  };
  const Gradients<double> limit = with_gate(-infinity);
  EXPECT_EQ(limit.log_gate(0, 2, 1, 1), 0);
  expect_gradients_near(with_gate(-800), limit, 0);
  expect_gradients_near(with_gate(-40), limit, 1e-15);
}

TEST(ReferenceBackward, PendingTokensReachTheLossThroughTheWindowAlone) {
  const Problem problem(small_shape(), {.window = 3});
  const Gradients<double> g = reference_gradients(problem.c, problem.before, problem.cotangents);
  for (Index t = 4; t < 7; ++t) {
    EXPECT_EQ(g.k_slot(0, t, 0, 0), 0);
    EXPECT_EQ(g.log_gate(1, t, 1, 2), 0);
    EXPECT_NE(g.k_window(0, t, 0, 0), 0);
    EXPECT_NE(g.v(0, t, 0, 0), 0);
  }
  EXPECT_NE(g.k_slot(0, 3, 0, 0), 0);
}

TEST(ReferenceBackward, WhatReadsNothingHasNoGradient) {
  CaseShape shape = small_shape();
  shape.slots = 0;
  const Problem problem(shape, {.window = 0});
  nha::for_each_gradient(
      [](const char* input, const auto& tensor) {
        for (const double value : tensor.values()) EXPECT_EQ(value, 0) << input;
      },
      reference_gradients(problem.c, problem.before, problem.cotangents));
}

TEST(ReferenceBackward, WithoutTokensGradientsOfTheSlotsAreTheirCotangents) {
  CaseShape shape = small_shape();
  shape.tokens = 0;
  Problem problem(shape, {.window = 3});
  problem.begin_after(5);
  const Gradients<double> g = reference_gradients(problem.c, problem.before, problem.cotangents);
  EXPECT_EQ(relative_error(g.slot_k, problem.cotangents.slot_k), 0);
  EXPECT_EQ(relative_error(g.slot_v, problem.cotangents.slot_v), 0);
  EXPECT_EQ(relative_error(g.mass, problem.cotangents.mass), 0);
}

TEST(ReferenceBackward, OnlyReadsTheStateItBeganFrom) {
  Problem problem(small_shape(), {.window = 3});
  problem.begin_after(5);
  const AttentionState<double> copy = problem.before;
  reference_gradients(problem.c, problem.before, problem.cotangents);
  EXPECT_TRUE(problem.before == copy);
}

/// The same case with numbers in another type.
template <class T>
RandomCase<double> in_double(const RandomCase<T>& c) {
  RandomCase<double> wide(c.shape);
  const auto copy = [](const auto& from, auto& to) {
    for (Index i = 0; i < from.size(); ++i)
      to.data()[i] = static_cast<double>(nha::widen(from.data()[i]));
  };
  copy(c.q_window, wide.q_window);
  copy(c.k_window, wide.k_window);
  copy(c.q_slot, wide.q_slot);
  copy(c.k_slot, wide.k_slot);
  copy(c.v, wide.v);
  copy(c.log_gate, wide.log_gate);
  return wide;
}

template <class T>
void expect_sums_in_double() {
  const RandomCase<T> c(small_shape());
  const Cotangents<T> cotangents = random_cotangents<T>(c.shape);
  Cotangents<double> wide = random_cotangents<double>(c.shape);
  for (Index i = 0; i < wide.o.size(); ++i)
    wide.o.data()[i] = static_cast<double>(nha::widen(cotangents.o.data()[i]));
  const AttentionState<T> state(c.attention_shape(), {.window = 3});
  const AttentionState<double> wide_state(c.attention_shape(), {.window = 3});
  // Gradients are float32; half of its last place is 6e-8 of a number.
  expect_gradients_near(reference_gradients(c, state, cotangents),
                        reference_gradients(in_double(c), wide_state, wide), 6e-8);
}

TEST(ReferenceBackward, SumsInDoubleWhateverTheType) {
  expect_sums_in_double<float>();
  expect_sums_in_double<nha::bfloat16>();
  expect_sums_in_double<nha::float16>();
}

TEST(ReferenceBackward, StaticExtentsGiveTheSame) {
  const Problem problem(small_shape(), {.window = 3});
  AttentionState<double, 4, 3, 3> state(problem.c.attention_shape(), {.window = 3});
  const auto in = problem.c.inputs();
  Tensor<double, 4> v(problem.c.v.extents());
  using View4 = nha::TensorView<const double, nha::Dynamic, nha::Dynamic, nha::Dynamic, 4>;
  using View3 = nha::TensorView<const double, nha::Dynamic, nha::Dynamic, nha::Dynamic, 3>;
  nha::reference_backward({.q_window = View4(in.q_window),
                           .k_window = View4(in.k_window),
                           .q_slot = View4(in.q_slot),
                           .k_slot = View4(in.k_slot),
                           .v = View3(in.v),
                           .log_gate = View3(in.log_gate)},
                          state, {.o = View3(problem.cotangents.o.view())},
                          {.v = nha::TensorView<double, -1, -1, -1, 3>(v.view())});
  Tensor<double, 4> expected(problem.c.v.extents());
  nha::reference_backward(in, problem.before, {.o = problem.cotangents.o}, {.v = expected});
  EXPECT_EQ(relative_error(v, expected), 0);
}

using nha::detail::DoubleSlots;

TEST(DoubleSlots, ATokenEntersOneSlot) {
  DoubleSlots slots(2, 3, 1);
  const std::array<float, 3> key{1, 2, 3};
  const float value = 5;
  slots.enter(1, 0.5, 4.0, key.data(), &value);
  slots.enter(1, 0.5, 2.0, key.data(), &value);
  EXPECT_EQ(slots.key.numbers, (std::vector<double>{0, 0, 0, 4, 8, 12}));
  EXPECT_EQ(slots.value.numbers, (std::vector<double>{0, 20}));
  EXPECT_EQ(slots.mass.numbers, (std::vector<double>{0, 4}));
  slots.scale(1, 0.25);
  EXPECT_EQ(slots.key.numbers, (std::vector<double>{0, 0, 0, 1, 2, 3}));
  EXPECT_EQ(*slots.mass.row(1), 1);
}

TEST(DoubleSlots, SumsKeepWhatFloatsWouldLose) {
  const std::array<float, 3> a{1e8f, 1, -1e8f};
  const std::array<double, 3> ones{1, 1, 1};
  EXPECT_EQ(nha::detail::dot_in_double(a.data(), ones.data(), 3), 1);
  double sum = 1e8;
  const nha::bfloat16 one(1.0f);
  nha::detail::add_in_double(0.5, &one, 1, &sum);
  EXPECT_EQ(sum, 1e8 + 0.5);
}

}  // namespace
