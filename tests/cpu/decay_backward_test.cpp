// SPDX-License-Identifier: MIT
// Gradients through the decays of a chunk against Horner's rule walked forward and back, slot by
// slot, in double or wider.
#include <nha/cpu/decay_backward.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

constexpr Index kMostTokens = 64;

enum class Speed { any, fast, forgets_all };

struct DecayBackwardCase {
  Index count, group, slots, first;
  Speed speed = Speed::any;
};

std::vector<DecayBackwardCase> decay_cases(Speed speed) {
  return {{16, 1, 64, 0, speed}, {16, 3, 80, 5, speed},  {1, 1, 16, 0, speed},
          {7, 8, 16, 2, speed},  {33, 2, 32, 33, speed}, {kMostTokens, 1, 16, 0, speed}};
}

/// Two readings of a chunk and the slots it leaves, with random numbers.
template <class T>
struct Problem {
  static constexpr Index kPairStride = kMostTokens + 16;
  static constexpr Index kSpare = 16;  // rows of slots are longer than what is read
  static constexpr T kUnwritten = T{9};

  explicit Problem(const DecayBackwardCase& given) : c(given) {
    std::mt19937 random(7);
    std::uniform_real_distribution<double> uniform;
    std::normal_distribution<double> normal;
    const auto numbers = [&](Index size, auto&& next) {
      std::vector<T> made(static_cast<std::size_t>(size));
      for (T& x : made) x = static_cast<T>(next());
      return made;
    };
    retention = numbers(c.count * c.slots, [&] {
      const double u = uniform(random);
      if (c.speed == Speed::any) return u;
      return c.speed == Speed::fast ? std::exp(-40 + 20 * u) : 0.0;
    });
    write = numbers(c.count * c.slots, [&] { return uniform(random); });
    const auto gaussian = [&] { return normal(random); };
    const Index rows = c.count * c.group;
    for (std::size_t i = 0; i < 2; ++i) {
      start[i] = numbers(rows * (c.slots + kSpare), gaussian);
      weights[i] = numbers(rows * (c.slots + kSpare), gaussian);
      pairs[i] = numbers(rows * kPairStride, gaussian);
    }
    end_start = numbers(c.slots, gaussian);
    end_pairs = numbers(c.count * c.slots, gaussian);
    d_log_retention.assign(retention.size(), kUnwritten);
    d_write.assign(write.size(), kUnwritten);
  }

  template <class Arch>
  void run() {
    const Index stride = c.slots + kSpare;
    std::array<nha::cpu::SlotReading<T>, 2> readings;
    for (std::size_t i = 0; i < 2; ++i)
      readings[i] = {start[i].data(),   stride, pairs[i].data(), kPairStride,
                     weights[i].data(), stride};
    const nha::cpu::EnteringGates<T> gates{retention.data(), write.data(), c.slots, c.first,
                                           c.count};
    nha::cpu::decay_gradients<Arch>(gates, c.group, readings, end_start.data(), end_pairs.data(),
                                    d_log_retention.data(), d_write.data());
  }

  /// Expects every gradient within `tolerance` of the sum of its terms' sizes.
  void check(double tolerance) const {
    const auto at = [](const std::vector<T>& v, Index row, Index stride, Index column) {
      return static_cast<long double>(v[static_cast<std::size_t>(row * stride + column)]);
    };
    const auto count = static_cast<std::size_t>(c.count);
    for (Index m = 0; m < c.slots; ++m) {
      std::vector<long double> d_a(count), d_s(count), size_a(count), size_s(count);
      // h_j = a_j h_(j-1) + s_j x_j from h at the start, the loss being d_h times the last.
      const auto chain = [&](Index end, long double h, long double d_h, auto&& x) {
        std::vector<long double> before(count);
        for (Index j = c.first; j < end; ++j) {
          before[static_cast<std::size_t>(j)] = h;
          h = at(retention, j, c.slots, m) * h + at(write, j, c.slots, m) * x(j);
        }
        for (Index j = end - 1; j >= c.first; --j) {
          const auto i = static_cast<std::size_t>(j);
          // By log a_j: a_j times the derivative by a_j.
          const long double d_log_a = at(retention, j, c.slots, m) * d_h * before[i];
          d_a[i] += d_log_a;
          d_s[i] += d_h * x(j);
          size_a[i] += std::abs(d_log_a);
          size_s[i] += std::abs(d_h * x(j));
          d_h *= at(retention, j, c.slots, m);
        }
      };
      chain(c.count, at(end_start, 0, 0, m), 1,
            [&](Index j) { return at(end_pairs, j, c.slots, m); });
      for (Index row = 0; row < c.count * c.group; ++row)
        for (std::size_t i = 0; i < 2; ++i)
          chain(row / c.group + 1, at(start[i], row, c.slots + kSpare, m),
                at(weights[i], row, c.slots + kSpare, m),
                [&](Index j) { return at(pairs[i], row, kPairStride, j); });
      for (Index j = 0; j < c.count; ++j) {
        const auto i = static_cast<std::size_t>(j);
        const std::string where = "token " + std::to_string(j) + ", slot " + std::to_string(m);
        if (j < c.first) {
          ASSERT_EQ(at(d_log_retention, j, c.slots, m), kUnwritten) << where;
          ASSERT_EQ(at(d_write, j, c.slots, m), kUnwritten) << where;
          continue;
        }
        const auto near = [&](long double value, long double expected, long double size) {
          return std::abs(value - expected) <= tolerance * size;
        };
        ASSERT_TRUE(near(at(d_log_retention, j, c.slots, m), d_a[i], size_a[i])) << where;
        ASSERT_TRUE(near(at(d_write, j, c.slots, m), d_s[i], size_s[i])) << where;
      }
    }
  }

  DecayBackwardCase c;
  std::vector<T> retention, write, end_start, end_pairs, d_log_retention, d_write;
  std::array<std::vector<T>, 2> start, weights, pairs;
};

template <class Arch>
class DecayBackward : public ::testing::Test {
 protected:
  template <class T>
  static void check(Speed speed, double tolerance) {
    for (const DecayBackwardCase& c : decay_cases(speed)) {
      SCOPED_TRACE("tokens " + std::to_string(c.count) + ", group " + std::to_string(c.group));
      Problem<T> problem(c);
      problem.template run<Arch>();
      problem.check(tolerance);
    }
  }
};
TYPED_TEST_SUITE(DecayBackward, nha_test::Architectures);

// Sums of up to 128 terms (64 tokens, two readings), each a chain of up to 64 products: the bounds
// are 100 times the rounding of one operation, of the sizes of what is added.
constexpr double kDouble = 100 * 0x1p-53;
constexpr double kFloat = 100 * 0x1p-24;

TYPED_TEST(DecayBackward, IsTheChainRuleOfHornersRule) {
  this->template check<double>(Speed::any, kDouble);
  this->template check<float>(Speed::any, kFloat);
}

TYPED_TEST(DecayBackward, KeepsItsDigitsWhereAllGatesAreFast) {
  this->template check<double>(Speed::fast, kDouble);
  this->template check<float>(Speed::fast, kFloat);
}

TYPED_TEST(DecayBackward, IsExactWhereASlotForgetsAll) {
  this->template check<double>(Speed::forgets_all, kDouble);
  this->template check<float>(Speed::forgets_all, kFloat);
}

}  // namespace
