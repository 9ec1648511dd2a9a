// SPDX-License-Identifier: MIT
// What a query does not see does not reach it, whatever it holds: NaN and infinite numbers at one
// token change nothing that does not see this token, in any algorithm, forward or back.
#include <nha/nha.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support/random_case.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionOptions;
using nha::AttentionState;
using nha::EmptySlots;
using nha::PrefillAlgorithm;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Where a bad number is: in an input of the operator, or in what comes back for a result.
enum class Part { v, k_window, k_slot, q_window, q_slot, d_o, d_lse, d_slot_share };
constexpr std::array kInputs{Part::v, Part::k_window, Part::k_slot, Part::q_window, Part::q_slot};
constexpr std::array kCotangents{Part::d_o, Part::d_lse, Part::d_slot_share};

bool is_of_query(Part part) {
  return part >= Part::q_window;
}

/// One number: a position of a sequence, a key/value head or a query head, a dimension.
struct Spot {
  Part part;
  Index sequence;
  Index position;
  Index head;
  Index d = 0;

  std::string text() const {
    return "part " + std::to_string(static_cast<int>(part)) + ", sequence " +
           std::to_string(sequence) + ", position " + std::to_string(position) + ", head " +
           std::to_string(head);
  }
};

/// A case, and what each query of it sees.
struct Scene {
  CaseShape shape;
  AttentionOptions options;
  std::vector<Index> positions;  // of bad numbers

  Index length(Index sequence) const {
    return shape.lengths.empty() ? shape.tokens : shape.lengths[static_cast<std::size_t>(sequence)];
  }
  /// Row of the batch and index along the token axis.
  std::array<Index, 2> at(Index sequence, Index position) const {
    if (shape.lengths.empty()) return {sequence, position};
    Index first = 0;
    for (Index n = 0; n < sequence; ++n) first += length(n);
    return {0, first + position};
  }
  Index query_heads() const { return shape.kv_heads * shape.group; }
  Index delay() const { return options.slot_delay.value_or(options.window); }

  bool through_window(Index query, Index token) const {
    return token <= query && query - token < options.window;
  }
  bool through_slots(Index query, Index token) const {
    return shape.slots > 0 && token + delay() <= query;
  }
  /// Whether the query of a position in a head sees a number, or the number is its own.
  bool sees(Index sequence, Index query, Index query_head, const Spot& spot) const {
    if (sequence != spot.sequence) return false;
    if (is_of_query(spot.part)) return query == spot.position && query_head == spot.head;
    if (query_head / shape.group != spot.head) return false;
    const bool in_window = through_window(query, spot.position);
    const bool in_slots = through_slots(query, spot.position);
    if (spot.part == Part::k_window) return in_window;
    if (spot.part == Part::k_slot) return in_slots;
    return in_window || in_slots;
  }
  /// Whether a query that is its own reads what it is for.
  bool reads(Index query, Part part) const {
    if (part == Part::q_window) return options.window > 0;
    // Slots that nothing has entered are read as zeros by the rule `participate`.
    if (part == Part::q_slot)
      return through_slots(query, 0) ||
             (shape.slots > 0 && options.empty_slots == nha::EmptySlots::participate);
    return true;
  }

  /// Bad numbers of these parts at every position, in the last head of the second sequence if there
  /// are several.
  std::vector<Spot> spots(const auto& parts) const {
    std::vector<Spot> all;
    const Index sequence = std::min<Index>(1, shape.sequences() - 1);
    for (const Part part : parts)
      for (const Index position : positions)
        if (position < length(sequence))
          all.push_back(
              {part, sequence, position, (is_of_query(part) ? query_heads() : shape.kv_heads) - 1,
               part == Part::v || part == Part::d_o ? shape.value_dim - 1 : shape.key_dim / 2});
    return all;
  }
};

/// Few tokens, and every kind of window, delay, rule and group. Infinite keys give logits of both
/// signs.
std::vector<Scene> short_scenes() {
  std::vector<Scene> scenes{
      {{.tokens = 24}, {.window = 16}, {0, 7, 15, 16, 21, 23}},
      {{.tokens = 37, .group = 2, .key_dim = 5, .value_dim = 19, .slots = 7},
       {.window = 0},
       {0, 9, 20, 36}},
      {{.tokens = 40, .group = 3, .slots = 0}, {.window = 11}, {0, 5, 17, 33, 39}},
      {{.tokens = 30, .key_dim = 3, .value_dim = 1, .slots = 17, .explicit_write = true},
       {.window = 40},
       {0, 13, 29}},
      {{.tokens = 33, .slots = 0}, {.window = 1}, {4, 32}},
      {{.batch = 2, .tokens = 26, .kv_heads = 2, .group = 2},
       {.window = 6, .slot_delay = 2},
       {3, 14, 25}},
      {{.kv_heads = 2, .group = 3, .key_dim = 9, .lengths = {5, 20, 0, 17}},
       {.window = 6},
       {0, 4, 11, 19}},
      {{.kv_heads = 2, .slots = 0, .lengths = {5, 20, 3}}, {.window = 6}, {0, 4, 19}}};
  for (const EmptySlots rule :
       {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected})
    for (const Index delay : {0, 4, 9})
      scenes.push_back({{.tokens = 35, .group = 2, .slots = 20},
                        {.window = 9, .slot_delay = delay, .empty_slots = rule},
                        {0, 8, 18, 34}});
  return scenes;
}

/// Windows longer than a block.
std::vector<Scene> long_scenes() {
  return {{{.tokens = 830, .key_dim = 4, .value_dim = 4, .slots = 4}, {.window = 700}, {3, 810}},
          {{.tokens = 830, .key_dim = 4, .value_dim = 4, .slots = 4},
           {.window = 700, .slot_delay = 30},
           {820}},
          {{.tokens = 830, .group = 2, .key_dim = 4, .value_dim = 4, .slots = 0},
           {.window = 690},
           {3, 200, 640}}};
}

/// One head long enough for several workers to share it.
std::vector<Scene> shared_scenes() {
  return {{{.tokens = 300}, {.window = 20}, {5, 150, 299}},
          {{.tokens = 300, .group = 2}, {.window = 0}, {5, 290}},
          {{.tokens = 300, .slots = 0}, {.window = 33}, {5, 150, 290}},
          {{.tokens = 300},
           {.window = 20, .slot_delay = 7, .empty_slots = EmptySlots::mass_corrected},
           {5, 150, 290}}};
}

/// A way to put a case through the operator.
struct Way {
  enum Kind { reference, steps, recurrent, chunked, calls_of_nine, three_workers } kind;
  Index chunk = 0;
};

template <class T>
CaseOutputs<T> outputs_of(const RandomCase<T>& c, const AttentionOptions& options, const Way& way) {
  static nha::ThreadPool pool(3);
  AttentionState<T> state(c.attention_shape(), options);
  CaseOutputs<T> out(c.shape);
  nha::Workspace workspace;
  const auto whole = [&](const nha::PrefillOptions& how, nha::ExecutorRef executor) {
    nha::prefill(c.inputs(), state, out.views(), workspace, how, executor);
  };
  switch (way.kind) {
    case Way::reference:
      nha::reference(c.inputs(), state, out.views());
      break;
    case Way::steps:
      for (Index t = 0; t < c.shape.tokens; ++t)
        nha::step(c.inputs().tokens(t, 1), state, out.tokens(t, 1), workspace);
      break;
    case Way::recurrent:
      whole({.algorithm = PrefillAlgorithm::recurrent}, nha::kSerial);
      break;
    case Way::chunked:
      whole({.algorithm = PrefillAlgorithm::chunked, .chunk = way.chunk}, nha::kSerial);
      break;
    case Way::calls_of_nine:
      prefill_range(c, state, out, 0, c.shape.tokens, 9, {.algorithm = PrefillAlgorithm::chunked});
      break;
    case Way::three_workers:
      whole({}, pool);
      break;
  }
  return out;
}

/// Puts a number into an input.
template <class T>
void put(RandomCase<T>& c, const Scene& scene, const Spot& spot, double number) {
  const auto [b, t] = scene.at(spot.sequence, spot.position);
  const auto x = static_cast<T>(number);
  switch (spot.part) {
    case Part::v:
      c.v(b, t, spot.head, spot.d) = x;
      break;
    case Part::k_window:
      c.k_window(b, t, spot.head, spot.d) = x;
      break;
    case Part::k_slot:
      c.k_slot(b, t, spot.head, spot.d) = x;
      break;
    case Part::q_window:
      c.q_window(b, t, spot.head, spot.d) = x;
      break;
    case Part::q_slot:
      c.q_slot(b, t, spot.head, spot.d) = x;
      break;
    default:
      break;
  }
}
/// Puts a number into what comes back.
void put(Cotangents<double>& cotangents, const Scene& scene, const Spot& spot, double number) {
  const auto [b, t] = scene.at(spot.sequence, spot.position);
  if (spot.part == Part::d_o) cotangents.o(b, t, spot.head, spot.d) = number;
  if (spot.part == Part::d_lse) cotangents.lse(b, t, spot.head) = number;
  if (spot.part == Part::d_slot_share) cotangents.slot_share(b, t, spot.head) = number;
}

bool is_near(double x, double y, double tolerance) {
  return x == y || std::abs(x - y) <= tolerance * (1 + std::abs(y));
}

/// Expects a bad number to change what sees it alone, and a NaN to make that NaN.
template <class T>
void check_outputs(const Scene& scene, const std::vector<Way>& ways) {
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-5;
  const RandomCase<T> good(scene.shape);
  for (const Way& way : ways) {
    const bool by_token = way.kind == Way::steps || way.kind == Way::calls_of_nine;
    if (by_token && !scene.shape.lengths.empty()) continue;
    const CaseOutputs<T> expected = outputs_of(good, scene.options, way);
    for (const Spot& spot : scene.spots(kInputs))
      for (const double number : {kNaN, kInf}) {
        RandomCase<T> bad(scene.shape);
        put(bad, scene, spot, number);
        const CaseOutputs<T> out = outputs_of(bad, scene.options, way);
        for (Index n = 0; n < scene.shape.sequences(); ++n)
          for (Index p = 0; p < scene.length(n); ++p)
            for (Index h = 0; h < scene.query_heads(); ++h) {
              const auto [b, t] = scene.at(n, p);
              const bool sees = scene.sees(n, p, h, spot);
              const bool of_value = spot.part == Part::v;
              const auto where = [&] {
                return spot.text() + " is " + std::to_string(number) + ": sequence " +
                       std::to_string(n) + ", token " + std::to_string(p) + ", head " +
                       std::to_string(h) + ", window " + std::to_string(scene.options.window) +
                       ", delay " + std::to_string(scene.delay()) + ", way " +
                       std::to_string(way.kind) + ", chunk " + std::to_string(way.chunk);
              };
              // Of values each dimension is alone.
              for (Index d = 0; d < scene.shape.value_dim; ++d) {
                if (!sees || (of_value && d != spot.d)) {
                  ASSERT_TRUE(is_near(out.o(b, t, h, d), expected.o(b, t, h, d), tolerance))
                      << where();
                } else if (std::isnan(number) && scene.reads(p, spot.part)) {
                  ASSERT_TRUE(std::isnan(out.o(b, t, h, d))) << where();
                }
              }
              if (!sees || of_value) {
                ASSERT_TRUE(is_near(out.lse(b, t, h), expected.lse(b, t, h), tolerance)) << where();
                ASSERT_TRUE(
                    is_near(out.slot_share(b, t, h), expected.slot_share(b, t, h), tolerance))
                    << where();
              } else if (std::isnan(number) && scene.reads(p, spot.part)) {
                ASSERT_TRUE(std::isnan(out.lse(b, t, h))) << where();
                ASSERT_TRUE(std::isnan(out.slot_share(b, t, h))) << where();
              }
            }
      }
  }
}

TEST(Visibility, WhatAQueryDoesNotSeeDoesNotReachItsOutputs) {
  for (const Scene& scene : short_scenes()) {
    check_outputs<float>(scene, {{Way::reference},
                                 {Way::steps},
                                 {Way::recurrent},
                                 {Way::chunked},
                                 {Way::chunked, 1},
                                 {Way::chunked, 7},
                                 {Way::chunked, 64},
                                 {Way::calls_of_nine},
                                 {Way::three_workers}});
    check_outputs<double>(scene, {{Way::recurrent}, {Way::chunked}});
  }
}

TEST(Visibility, NorInWindowsLongerThanABlock) {
  for (const Scene& scene : long_scenes())
    check_outputs<float>(scene, {{Way::chunked}, {Way::chunked, 7}, {Way::three_workers}});
}

TEST(Visibility, NorWhereSeveralWorkersShareAHead) {
  for (const Scene& scene : shared_scenes()) check_outputs<float>(scene, {{Way::three_workers}});
}

TEST(Visibility, AnInfiniteValueLeavesEarlierTokensOfItsChunkAlone) {
  RandomCase<float> c({.tokens = 24});
  for (Index d = 0; d < 16; ++d) c.v(0, 21, 0, d) = INFINITY;
  const auto out = outputs_of(c, {.window = 16}, {Way::chunked});
  for (Index t = 0; t < 24; ++t)
    for (Index d = 0; d < 16; ++d)
      EXPECT_EQ(std::isfinite(out.o(0, t, 0, d)), t < 21) << "token " << t;
}

TEST(Visibility, ATokenThatHasLeftTheWindowIsForgottenWhereThereAreNoSlots) {
  for (const Way& way : {Way{Way::reference}, Way{Way::steps}, Way{Way::chunked},
                         Way{Way::chunked, 5}, Way{Way::calls_of_nine}}) {
    RandomCase<float> c({.tokens = 60, .slots = 0});
    for (Index d = 0; d < 16; ++d) c.v(0, 20, 0, d) = c.k_window(0, 20, 0, d) = NAN;
    const auto out = outputs_of(c, {.window = 11}, way);
    for (Index t = 0; t < 60; ++t)
      EXPECT_EQ(std::isnan(out.lse(0, t, 0)), t >= 20 && t < 31) << "token " << t;
  }
}

TEST(Visibility, TokensThatWereTakenBackOrResetLeaveNothingBehind) {
  const RandomCase<float> good({.tokens = 40, .group = 2});
  RandomCase<float> bad({.tokens = 6, .group = 2});
  for (auto* tensor : {&bad.v, &bad.k_window, &bad.k_slot})
    for (float& x : tensor->values()) x = NAN;
  for (const Index window : {0, 5, 50})
    for (const Index delay : {Index{0}, window / 2, window}) {
      const AttentionOptions options{.window = window, .slot_delay = delay};
      AttentionState<float> clean(good.attention_shape(), options, 8), state(clean);
      CaseOutputs<float> expected(good.shape), out(good.shape), ignored(bad.shape);
      prefill_range(good, clean, expected, 0, 40, 40);
      nha::Workspace workspace;
      nha::prefill(bad.inputs(), state, ignored.views(), workspace);
      state.reset(0);
      prefill_range(good, state, out, 0, 20, 20);
      for (Index t = 0; t < 6; ++t)
        nha::step(bad.inputs().tokens(t, 1), state, ignored.tokens(t, 1), workspace);
      state.rollback(0, 6);
      prefill_range(good, state, out, 20, 40, 20);
      EXPECT_LT(relative_error(out, expected), 2e-6) << window << ' ' << delay;
    }
}

TEST(Visibility, ScratchMemoryMayHoldAnything) {
  for (const auto& scenes : {short_scenes(), long_scenes()})
    for (const Scene& scene : scenes) {
      const RandomCase<float> c(scene.shape);
      const Index tokens = c.shape.tokens;
      AttentionState<float> a(c.attention_shape(), scene.options), b(a);
      const AttentionState<float> before(a);
      CaseOutputs<float> expected(c.shape), out(c.shape);
      const auto cotangents = random_cotangents<float>(c.shape);
      auto expected_gradients = unwritten_gradients(c), gradients = unwritten_gradients(c);
      nha::Workspace fresh, used;
      used.reserve(std::max(nha::prefill_workspace_bytes(b, scene.query_heads(), tokens),
                            nha::backward_workspace_bytes(b, scene.query_heads(), tokens)));
      const auto spoil = [&] { std::fill_n(used.data(), used.bytes(), std::byte{0xff}); };  // NaN
      nha::prefill(c.inputs(), a, expected.views(), fresh);
      spoil();
      nha::prefill(c.inputs(), b, out.views(), used);
      EXPECT_EQ(relative_error(out, expected), 0.0);
      nha::backward(c.inputs(), before, {}, cotangents.views(), expected_gradients.views<float>(),
                    fresh);
      spoil();
      nha::backward(c.inputs(), before, {}, cotangents.views(), gradients.views<float>(), used);
      expect_gradients_near(gradients, expected_gradients, 0);
    }
}

/// Position and head of a query.
struct Query {
  Index position;
  Index head;
};
/// The queries that see a number.
std::vector<Query> queries_that_see(const Scene& scene, const Spot& spot) {
  std::vector<Query> queries;
  for (Index p = 0; p < scene.length(spot.sequence); ++p)
    for (Index h = 0; h < scene.query_heads(); ++h)
      if (scene.sees(spot.sequence, p, h, spot)) queries.push_back({p, h});
  return queries;
}

/// Expects gradients that a bad number may not reach to be as without it. Those of a query and of
/// all that it sees may be reached by what comes back for it and by all that it sees.
void check_gradients_near_where_unreached(const Scene& scene, const Spot& bad,
                                          const Gradients<double>& gradients,
                                          const Gradients<double>& expected) {
  const CaseShape& shape = scene.shape;
  const std::vector<Query> spoilt = queries_that_see(scene, bad);
  const auto same = [&](const auto& tensor, const auto& good, Index b, Index t, Index h) {
    for (Index d = 0; d < tensor.extent(3); ++d)
      if (!is_near(tensor(b, t, h, d), good(b, t, h, d), 1e-10)) return false;
    return true;
  };
  for (Index n = 0; n < shape.sequences(); ++n) {
    for (Index p = 0; p < scene.length(n); ++p) {
      const auto [b, t] = scene.at(n, p);
      SCOPED_TRACE("sequence " + std::to_string(n) + ", token " + std::to_string(p));
      for (Index h = 0; h < scene.query_heads(); ++h) {
        if (scene.sees(n, p, h, bad)) continue;
        ASSERT_TRUE(same(gradients.q_window, expected.q_window, b, t, h)) << "q_window " << h;
        ASSERT_TRUE(same(gradients.q_slot, expected.q_slot, b, t, h)) << "q_slot " << h;
      }
      for (Index h = 0; h < shape.kv_heads; ++h) {
        const auto unreached = [&](Part part) {
          const Spot spot{part, n, p, h};
          return n != bad.sequence ||
                 std::none_of(spoilt.begin(), spoilt.end(), [&](const Query& q) {
                   return scene.sees(n, q.position, q.head, spot);
                 });
        };
        if (unreached(Part::k_window)) {
          ASSERT_TRUE(same(gradients.k_window, expected.k_window, b, t, h)) << "k_window";
        }
        if (unreached(Part::v)) {
          ASSERT_TRUE(same(gradients.v, expected.v, b, t, h)) << "v";
        }
        if (!unreached(Part::k_slot)) continue;
        ASSERT_TRUE(same(gradients.k_slot, expected.k_slot, b, t, h)) << "k_slot";
        ASSERT_TRUE(same(gradients.log_gate, expected.log_gate, b, t, h)) << "log_gate";
        if (shape.explicit_write) {
          ASSERT_TRUE(same(gradients.write, expected.write, b, t, h)) << "write";
        }
      }
    }
    for (Index h = 0; h < shape.kv_heads; ++h) {
      // Every query may read slots as the call found them.
      const bool reached = std::any_of(spoilt.begin(), spoilt.end(),
                                       [&](const Query& q) { return q.head / shape.group == h; });
      if (n == bad.sequence && reached) continue;
      for (Index m = 0; m < shape.slots; ++m) {
        ASSERT_TRUE(same(gradients.slot_k, expected.slot_k, n, h, m)) << "slot_k";
        ASSERT_TRUE(same(gradients.slot_v, expected.slot_v, n, h, m)) << "slot_v";
        ASSERT_TRUE(is_near(gradients.mass(n, h, m), expected.mass(n, h, m), 1e-10)) << "mass";
      }
    }
  }
}

/// A way back: reference_backward(), or chunks of some size, perhaps with the saved results.
struct WayBack {
  std::optional<Index> chunk = std::nullopt;
  bool with_saved = false;
};

Gradients<double> gradients_of(const RandomCase<double>& c, const AttentionOptions& options,
                               const Cotangents<double>& cotangents, const WayBack& way) {
  AttentionState<double> state(c.attention_shape(), options);
  const AttentionState<double> before(state);
  if (!way.chunk) return reference_gradients(c, before, cotangents);
  CaseOutputs<double> out(c.shape);
  nha::Workspace workspace;
  if (way.with_saved) nha::prefill(c.inputs(), state, out.views(), workspace);
  const nha::AttentionSaved<double> saved{.o = out.o, .lse = out.lse, .slot_share = out.slot_share};
  Gradients<double> gradients = unwritten_gradients(c);
  nha::backward(c.inputs(), before, way.with_saved ? saved : nha::AttentionSaved<double>(),
                cotangents.views(), gradients.views<double>(), workspace, {.chunk = *way.chunk});
  return gradients;
}

void check_backward(const Scene& scene, const std::vector<WayBack>& ways,
                    const std::vector<double>& numbers) {
  const RandomCase<double> good(scene.shape);
  const Cotangents<double> given = random_cotangents<double>(good.shape);
  for (const WayBack& way : ways) {
    const Gradients<double> expected = gradients_of(good, scene.options, given, way);
    std::vector<Spot> spots = scene.spots(kInputs), of_results = scene.spots(kCotangents);
    spots.insert(spots.end(), of_results.begin(), of_results.end());
    for (const Spot& spot : spots)
      for (const double number : numbers) {
        SCOPED_TRACE(spot.text() + " is " + std::to_string(number) + ", window " +
                     std::to_string(scene.options.window) + ", delay " +
                     std::to_string(scene.delay()) + ", chunk " +
                     std::to_string(way.chunk.value_or(-1)));
        RandomCase<double> bad(scene.shape);
        Cotangents<double> cotangents = random_cotangents<double>(good.shape);
        put(bad, scene, spot, number);
        put(cotangents, scene, spot, number);
        const Gradients<double> gradients = gradients_of(bad, scene.options, cotangents, way);
        check_gradients_near_where_unreached(scene, spot, gradients, expected);
        if (testing::Test::HasFatalFailure()) return;
        // What is reached is: the gradient of the query itself.
        if (spot.part == Part::d_o && scene.options.window > 0) {
          const auto [b, t] = scene.at(spot.sequence, spot.position);
          ASSERT_FALSE(std::isfinite(gradients.q_window(b, t, spot.head, 0)));
        }
      }
  }
}

TEST(Visibility, WhatAQueryDoesNotSeeDoesNotReachGradients) {
  for (const Scene& scene : short_scenes()) {
    check_backward(scene, {{}, {0}, {1}, {7}, {64}}, {kNaN, kInf});
    if (HasFatalFailure()) return;
  }
}

TEST(Visibility, NorGradientsInWindowsLongerThanABlock) {
  for (const Scene& scene : long_scenes()) {
    check_backward(scene, {{0}, {0, true}}, {kNaN});
    if (HasFatalFailure()) return;
  }
}

TEST(Visibility, WhatComesBackForTheSlotsReachesNoQuery) {
  for (const Scene& scene : short_scenes()) {
    if (scene.shape.slots == 0) continue;
    const RandomCase<double> c(scene.shape);
    const Cotangents<double> good = random_cotangents<double>(c.shape);
    const Index sequence = std::min<Index>(1, scene.shape.sequences() - 1);
    for (const WayBack& way : {WayBack{}, WayBack{0}, WayBack{7}}) {
      const auto expected = gradients_of(c, scene.options, good, way);
      for (const int which : {0, 1, 2}) {
        Cotangents<double> bad = random_cotangents<double>(c.shape);
        if (which == 0) bad.slot_k(sequence, 0, 1, 0) = kNaN;
        if (which == 1) bad.slot_v(sequence, 0, 1, 0) = kNaN;
        if (which == 2) bad.mass(sequence, 0, 1) = kNaN;
        const auto gradients = gradients_of(c, scene.options, bad, way);
        SCOPED_TRACE("cotangent " + std::to_string(which) + ", window " +
                     std::to_string(scene.options.window) + ", chunk " +
                     std::to_string(way.chunk.value_or(-1)));
        EXPECT_LT(relative_error(gradients.q_window, expected.q_window), 1e-12);
        EXPECT_LT(relative_error(gradients.q_slot, expected.q_slot), 1e-12);
        EXPECT_LT(relative_error(gradients.k_window, expected.k_window), 1e-12);
        for (Index n = 0; n < scene.shape.sequences(); ++n)
          for (Index h = 0; h < scene.shape.kv_heads; ++h)
            for (Index p = 0; p < scene.length(n); ++p) {
              // Tokens that enter the slots after the call, and other sequences and heads.
              const bool enters = p + scene.delay() < scene.length(n);
              if (n == sequence && h == 0 && enters) continue;
              const auto [b, t] = scene.at(n, p);
              for (Index d = 0; d < scene.shape.value_dim; ++d)
                ASSERT_TRUE(is_near(gradients.v(b, t, h, d), expected.v(b, t, h, d), 1e-10));
              for (Index d = 0; d < scene.shape.key_dim; ++d)
                ASSERT_TRUE(
                    is_near(gradients.k_slot(b, t, h, d), expected.k_slot(b, t, h, d), 1e-10));
              for (Index m = 0; m < scene.shape.slots; ++m)
                ASSERT_TRUE(
                    is_near(gradients.log_gate(b, t, h, m), expected.log_gate(b, t, h, m), 1e-10));
            }
      }
    }
  }
}

TEST(NaNQuery, MakesItsOwnResultsNaN) {
  for (const Way& way : {Way{Way::reference}, Way{Way::steps}, Way{Way::recurrent},
                         Way{Way::chunked}, Way{Way::chunked, 7}, Way{Way::three_workers}})
    for (const EmptySlots rule :
         {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected})
      for (const bool of_slots : {false, true}) {
        RandomCase<float> c({.tokens = 300, .group = 2});
        // Of the last number alone: the row's first numbers say nothing about it.
        (of_slots ? c.q_slot : c.q_window)(0, 200, 1, 15) = NAN;
        const auto out = outputs_of(c, {.window = 12, .empty_slots = rule}, way);
        for (Index t = 0; t < 300; ++t)
          for (Index h = 0; h < 2; ++h) {
            const bool nan = t == 200 && h == 1;
            ASSERT_EQ(std::isnan(out.lse(0, t, h)), nan) << t;
            ASSERT_EQ(std::isnan(out.slot_share(0, t, h)), nan) << t;
            ASSERT_FALSE(std::isinf(out.lse(0, t, h))) << t;
            for (Index d = 0; d < 16; ++d) ASSERT_EQ(std::isnan(out.o(0, t, h, d)), nan) << t;
          }
      }
}

TEST(NaNQuery, OfSlotsThatTakeNoPartChangesNothing) {
  for (const Way& way : {Way{Way::reference}, Way{Way::steps}, Way{Way::recurrent},
                         Way{Way::chunked}, Way{Way::chunked, 7}})
    for (const EmptySlots rule : {EmptySlots::masked, EmptySlots::mass_corrected}) {
      const AttentionOptions options{.window = 12, .empty_slots = rule};
      RandomCase<float> c({.tokens = 30});
      const auto expected = outputs_of(c, options, way);
      c.q_slot(0, 11, 0, 3) = NAN;  // the last token before the first enters the slots
      EXPECT_EQ(relative_error(outputs_of(c, options, way), expected), 0);
    }
}

}  // namespace
