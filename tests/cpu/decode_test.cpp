// SPDX-License-Identifier: MIT
#include <nha/cpu/decode.hpp>

#include <nha/core/numeric.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;
using nha::padded;
using Numbers = std::vector<double>;

/// Kernels against plain loops, for a head of any sizes and any number of queries.
template <class Arch>
class Decode : public testing::Test {
 protected:
  static constexpr double kTolerance = 1e-12;

  Numbers numbers(Index count) {
    Numbers out(static_cast<std::size_t>(count));
    for (double& x : out) x = normal_(random_);
    return out;
  }

  /// Slots of random contents, as the memory lays them out.
  struct Slots {
    nha::Buffer buffer;
    nha::SlotMemoryView<double> view;
  };
  Slots slots(Index count, Index key_dim, Index value_dim) {
    nha::Arena size(nullptr);
    nha::SlotMemoryView<double>::take(size, key_dim, value_dim, count);
    Slots s{nha::Buffer(size.used()), {}};
    nha::Arena cursor(s.buffer.data());
    s.view = nha::SlotMemoryView<double>::take(cursor, key_dim, value_dim, count);
    s.view.clear();
    for (Index m = 0; m < count; ++m) {
      for (Index d = 0; d < key_dim; ++d) s.view.key_at(m, d) = normal_(random_);
      for (Index d = 0; d < value_dim; ++d) s.view.value_at(m, d) = normal_(random_);
    }
    return s;
  }

  std::mt19937 random_{7};
  std::normal_distribution<double> normal_;
};
TYPED_TEST_SUITE(Decode, nha_test::Architectures);

TYPED_TEST(Decode, SlotsAreUpdatedOnceAndReadByEveryQuery) {
  for (const auto& [queries, slots, dim] : {std::array<Index, 3>{1, 64, 64},
                                            {2, 16, 5},
                                            {3, 17, 16},
                                            {4, 1, 1},
                                            {5, 80, 33},
                                            {9, 40, 8}})
    for (const bool enters : {true, false}) {
      auto given = this->slots(slots, dim, dim + 3);
      const auto& view = given.view;
      auto expected = this->slots(slots, dim, dim + 3);
      expected.view.copy_from(view);
      Numbers retention = this->numbers(padded(slots)), write = this->numbers(padded(slots));
      const Numbers key = this->numbers(padded(dim)), value = this->numbers(padded(dim + 3));
      const Numbers query = this->numbers(queries * padded(dim));
      const Numbers weights = this->numbers(queries * padded(slots));
      if (enters) expected.view.enter(retention.data(), write.data(), key.data(), value.data(), 0);
      const nha::cpu::EnteringToken<double> token{retention.data(), write.data(), key.data(),
                                                  value.data()};

      Numbers logits(static_cast<std::size_t>(queries * padded(slots)));
      nha::cpu::score_slots<TypeParam>(view, enters ? &token : nullptr, queries,
                                       {query.data(), padded(dim)}, {logits.data(), padded(slots)});
      Numbers output(static_cast<std::size_t>(queries * padded(dim + 3)));
      nha::cpu::read_slots<TypeParam>(view, enters ? &token : nullptr, queries,
                                      {weights.data(), padded(slots)},
                                      {output.data(), padded(dim + 3)});

      for (Index q = 0; q < queries; ++q) {
        for (Index m = 0; m < slots; ++m) {
          double sum = 0;
          for (Index d = 0; d < dim; ++d)
            sum +=
                query[static_cast<std::size_t>(q * padded(dim) + d)] * expected.view.key_at(m, d);
          EXPECT_NEAR(logits[static_cast<std::size_t>(q * padded(slots) + m)], sum,
                      this->kTolerance * 100);
        }
        for (Index d = 0; d < dim + 3; ++d) {
          double sum = 0;
          for (Index m = 0; m < slots; ++m)
            sum += weights[static_cast<std::size_t>(q * padded(slots) + m)] *
                   expected.view.value_at(m, d);
          EXPECT_NEAR(output[static_cast<std::size_t>(q * padded(dim + 3) + d)], sum,
                      this->kTolerance * 100);
        }
      }
      for (Index m = 0; m < slots; ++m) {
        for (Index d = 0; d < dim; ++d)
          EXPECT_NEAR(view.key_at(m, d), expected.view.key_at(m, d), this->kTolerance);
        for (Index d = 0; d < dim + 3; ++d)
          EXPECT_NEAR(view.value_at(m, d), expected.view.value_at(m, d), this->kTolerance);
      }
    }
}

template <class Arch, class T>
void check_window(Index queries, Index capacity, Index dim, Index tokens) {
  using Acc = nha::accumulate_t<T>;
  nha::Arena size(nullptr);
  nha::SlidingWindowView<T>::take(size, capacity, dim, dim + 2);
  nha::Buffer buffer(size.used());
  nha::Arena cursor(buffer.data());
  const auto window = nha::SlidingWindowView<T>::take(cursor, capacity, dim, dim + 2);
  std::mt19937 random(3);
  const auto small = [&] { return static_cast<float>(static_cast<int>(random() % 17) - 8); };
  for (Index t = 0; t < tokens; ++t) {
    std::vector<T> key(static_cast<std::size_t>(dim)), value(static_cast<std::size_t>(dim + 2));
    for (T& x : key) x = T(small());
    for (T& x : value) x = T(small());
    window.push(t, key.data(), value.data());
  }
  const Index visible = std::min(tokens, capacity);
  const std::int64_t oldest = tokens - visible;
  const auto rows = [&](Index stride, Index used) {
    std::vector<Acc> out(static_cast<std::size_t>(queries * stride), Acc{0});
    for (Index q = 0; q < queries; ++q)
      for (Index i = 0; i < used; ++i)
        out[static_cast<std::size_t>(q * stride + i)] = static_cast<Acc>(small());
    return out;
  };
  const std::vector<Acc> query = rows(padded(dim), dim);
  const std::vector<Acc> weights = rows(padded(capacity), visible);
  std::vector<Acc> logits(static_cast<std::size_t>(queries * padded(capacity)), Acc{-1});
  nha::cpu::score_window<Arch>(window, oldest, visible, queries, {query.data(), padded(dim)},
                               {logits.data(), padded(capacity)});
  std::vector<Acc> output = rows(padded(dim + 2), dim + 2);
  const std::vector<Acc> before = output;
  nha::cpu::read_window<Arch>(window, oldest, visible, queries, {weights.data(), padded(capacity)},
                              {output.data(), padded(dim + 2)});
  // Small whole numbers: every sum is exact.
  for (Index q = 0; q < queries; ++q) {
    for (Index i = 0; i < padded(capacity); ++i) {
      Acc sum = i < visible ? Acc{0} : Acc{-1};  // past the tokens nothing is written
      for (Index d = 0; i < visible && d < dim; ++d)
        sum += query[static_cast<std::size_t>(q * padded(dim) + d)] *
               nha::widen(window.key_row(oldest + i)[d]);
      ASSERT_EQ(logits[static_cast<std::size_t>(q * padded(capacity) + i)], sum) << q << ' ' << i;
    }
    for (Index d = 0; d < dim + 2; ++d) {
      const auto at = static_cast<std::size_t>(q * padded(dim + 2) + d);
      Acc sum = before[at];
      for (Index i = 0; i < visible; ++i)
        sum += weights[static_cast<std::size_t>(q * padded(capacity) + i)] *
               nha::widen(window.value_row(oldest + i)[d]);
      ASSERT_EQ(output[at], sum) << q << ' ' << d;
    }
  }
}

TYPED_TEST(Decode, WindowIsReadInOrderWhereverTheRingWraps) {
  for (const Index tokens : {1, 7, 16, 20, 37, 64})
    for (const Index queries : {1, 2, 3, 4, 6}) {
      check_window<TypeParam, float>(queries, 16, 24, tokens);
      check_window<TypeParam, float>(queries, 21, 5, tokens);
      check_window<TypeParam, double>(queries, 21, 16, tokens);
      check_window<TypeParam, nha::bfloat16>(queries, 21, 33, tokens);
      check_window<TypeParam, nha::float16>(queries, 17, 16, tokens);
    }
}

TYPED_TEST(Decode, EmptyWindowChangesNothing) {
  check_window<TypeParam, float>(2, 16, 8, 0);
}

}  // namespace
