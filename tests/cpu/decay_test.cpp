// SPDX-License-Identifier: MIT
// The decays inside a chunk against the closed form, in double with exponents of differences.
#include <nha/cpu/decay.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

struct DecayCase {
  Index count, group, slots, first;
  double gate_scale;
};

std::vector<DecayCase> decay_cases() {
  return {{16, 1, 64, 0, 0.1}, {16, 1, 16, 0, 40.0}, {16, 3, 80, 5, 1e-6}, {1, 1, 16, 0, 1.0},
          {7, 8, 16, 2, 5.0},  {33, 2, 32, 33, 1.0}, {16, 5, 16, 15, 1.0}};
}

template <class Arch>
class Decay : public ::testing::Test {
 protected:
  void make(const DecayCase& c) {
    std::mt19937 random(7);
    std::uniform_real_distribution<double> uniform;
    std::normal_distribution<double> normal;
    const auto size = static_cast<std::size_t>(c.count * c.slots);
    log_gate.resize(size), retention.resize(size), write.resize(size);
    for (std::size_t i = 0; i < size; ++i) {
      log_gate[i] = -c.gate_scale * uniform(random);
      retention[i] = std::exp(log_gate[i]);
      write[i] = uniform(random);
    }
    gates = {retention.data(), write.data(), c.slots, c.first, c.count};
    const auto rows = static_cast<std::size_t>(c.count * c.group);
    values.resize(rows * static_cast<std::size_t>(c.slots));
    pairs.resize(rows * 48);
    for (double& x : values) x = normal(random);
    for (double& x : pairs) x = normal(random);
  }
  double at(const std::vector<double>& v, Index i, Index stride, Index j) const {
    return v[static_cast<std::size_t>(i * stride + j)];
  }
  /// exp of the sum of the log gates of entering tokens (j, i].
  double decay(Index i, Index j, Index m) const {
    double sum = 0;
    for (Index l = std::max(j + 1, gates.first); l <= i; ++l)
      sum += at(log_gate, l, gates.stride, m);
    return std::exp(sum);
  }

  std::vector<double> log_gate, retention, write, values, pairs;
  nha::cpu::EnteringGates<double> gates{};
};
TYPED_TEST_SUITE(Decay, nha_test::Architectures);

TYPED_TEST(Decay, LogitsAreMovedToEachQuerysTime) {
  for (const DecayCase& c : decay_cases()) {
    this->make(c);
    auto logits = this->values;
    nha::cpu::decay_logits<TypeParam>(this->gates, c.group, this->pairs.data(), 48, logits.data(),
                                      c.slots);
    for (Index row = 0; row < c.count * c.group; ++row)
      for (Index m = 0; m < c.slots; ++m) {
        const Index i = row / c.group;
        double expected = this->at(this->values, row, c.slots, m) * this->decay(i, -1, m);
        for (Index j = c.first; j <= i; ++j)
          expected += this->at(this->pairs, row, 48, j) * this->at(this->write, j, c.slots, m) *
                      this->decay(i, j, m);
        ASSERT_NEAR(this->at(logits, row, c.slots, m), expected, 1e-13);
      }
  }
}

TYPED_TEST(Decay, WeightsGoBackToTheChunksStartAndToItsTokens) {
  for (const DecayCase& c : decay_cases()) {
    this->make(c);
    auto weights = this->values;
    std::vector<double> to_tokens(this->pairs.size(), 1.0);
    nha::cpu::decay_weights<TypeParam>(this->gates, c.group, weights.data(), c.slots,
                                       to_tokens.data(), 48);
    for (Index row = 0; row < c.count * c.group; ++row) {
      const Index i = row / c.group;
      for (Index m = 0; m < c.slots; ++m)
        ASSERT_NEAR(this->at(weights, row, c.slots, m),
                    this->at(this->values, row, c.slots, m) * this->decay(i, -1, m), 1e-13);
      for (Index j = 0; j < 48; ++j) {
        double expected = 1.0;  // added to what was there
        if (j >= c.first && j <= i)
          for (Index m = 0; m < c.slots; ++m)
            expected += this->at(this->values, row, c.slots, m) *
                        this->at(this->write, j, c.slots, m) * this->decay(i, j, m);
        ASSERT_NEAR(this->at(to_tokens, row, 48, j), expected, 1e-12);
      }
    }
  }
}

TYPED_TEST(Decay, StrengthsAreWhatIsLeftAtTheChunksEnd) {
  for (const DecayCase& c : decay_cases()) {
    this->make(c);
    std::vector<double> total(static_cast<std::size_t>(c.slots));
    std::vector<double> strength(this->write.size(), 9.0);
    nha::cpu::chunk_strengths<TypeParam>(this->gates, total.data(), strength.data());
    for (Index m = 0; m < c.slots; ++m) {
      ASSERT_NEAR(total[static_cast<std::size_t>(m)], this->decay(c.count - 1, -1, m), 1e-14);
      for (Index j = 0; j < c.count; ++j)
        ASSERT_NEAR(this->at(strength, j, c.slots, m),
                    j < c.first
                        ? 9.0
                        : this->at(this->write, j, c.slots, m) * this->decay(c.count - 1, j, m),
                    1e-14);
    }
  }
}

template <class Arch>
class DecayMass : public ::testing::Test {};
TYPED_TEST_SUITE(DecayMass, nha_test::Architectures);

TYPED_TEST(DecayMass, IsWhatEachTokenSees) {
  // Two slots in rows of 16; the first token lies before the sequence.
  float retention[48], write[48], seen[48], inverse[48], log[48];
  std::fill_n(retention, 48, 0.5f);
  std::fill_n(write, 48, 0.0f);
  for (int i = 0; i < 3; ++i) write[i * 16] = 0.5f;
  const float mass[16] = {0.5f};
  nha::cpu::decay_mass<TypeParam, float>({retention, write, 16, 1, 3}, mass, seen, inverse, log);
  EXPECT_EQ(seen[0], 0.5f);
  EXPECT_EQ(seen[16], 0.75f);
  EXPECT_EQ(seen[32], 0.875f);
  EXPECT_FLOAT_EQ(inverse[16], 1 / 0.75f);
  EXPECT_FLOAT_EQ(log[32], std::log(0.875f));
  EXPECT_EQ(seen[33], 0.0f);
  EXPECT_EQ(inverse[33], 0.0f);
  EXPECT_EQ(log[33], -INFINITY);
}

template <class Arch, class T>
void check_mass_terms() {
  using Limits = std::numeric_limits<T>;
  const T ordinary[] = {T{1}, T{0.375}, T{1000}, Limits::min(), Limits::max()};
  // Neither 0 nor a negative number is a mass, and a subnormal one has no inverse.
  const T nothing[] = {
      T{0}, -T{0}, T{-1}, Limits::denorm_min(), Limits::min() / 2, -Limits::infinity()};
  T mass[32], inverse[32], log[32];
  std::fill_n(mass, 32, T{1});
  std::copy(std::begin(ordinary), std::end(ordinary), mass);
  std::copy(std::begin(nothing), std::end(nothing), mass + 10);
  mass[20] = Limits::quiet_NaN();
  mass[31] = Limits::infinity();
  nha::cpu::mass_terms<Arch>(mass, 32, inverse, log);
  for (std::size_t i = 0; i < std::size(ordinary); ++i) {
    EXPECT_EQ(inverse[i], T{1} / ordinary[i]) << ordinary[i];
    EXPECT_NEAR(log[i], std::log(ordinary[i]), std::abs(std::log(ordinary[i])) * Limits::epsilon())
        << ordinary[i];
  }
  for (std::size_t i = 0; i < std::size(nothing); ++i) {
    EXPECT_EQ(inverse[10 + i], T{0}) << nothing[i];
    EXPECT_EQ(log[10 + i], -Limits::infinity()) << nothing[i];
  }
  EXPECT_TRUE(std::isnan(inverse[20]));
  EXPECT_TRUE(std::isnan(log[20]));
  EXPECT_EQ(inverse[31], T{0});
  EXPECT_EQ(log[31], Limits::infinity());
  EXPECT_EQ(inverse[30], T{1});
  EXPECT_EQ(log[30], T{0});
}

TYPED_TEST(DecayMass, TermsAreInverseAndLogarithmOrThoseOfAnEmptySlot) {
  check_mass_terms<TypeParam, float>();
  check_mass_terms<TypeParam, double>();
}

}  // namespace
