// SPDX-License-Identifier: MIT
// Random: random numbers that are a function of a seed and of what they are for.
//
// A training run asks for the numbers of step n of a purpose. They are the same whether it ran from
// the beginning or was resumed at n. There is no state of a generator to save.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <cmath>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// 2^64 divided by the golden ratio, made odd: the step of the sequence.
inline constexpr std::uint64_t kGoldenStep = 0x9e3779b97f4a7c15u;

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of the 64-bit
/// numbers. Each bit of the result depends on all bits of x.
constexpr std::uint64_t mix_bits(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace detail

/// What the library draws random numbers for. Numbers of unlike purposes are independent; a program
/// may use any other number for a purpose of its own.
inline constexpr std::uint64_t kRandomWeights = 1;
inline constexpr std::uint64_t kRandomText = 2;
inline constexpr std::uint64_t kRandomWindows = 3;

/// A sequence of random numbers: SplitMix64 from a start that is mixed from a seed, a purpose and
/// an index, a step of training for instance. A value: a copy goes on as the original does. bits(),
/// uniform() and below() are the same on every machine. normal() says what it depends on. Not for
/// secrets.
class Random {
 public:
  constexpr explicit Random(std::uint64_t seed, std::uint64_t purpose = 0,
                            std::uint64_t index = 0) noexcept
      : state_(absorb(absorb(absorb(0, seed), purpose), index)) {}

  /// 64 random bits.
  constexpr std::uint64_t bits() noexcept {
    state_ += detail::kGoldenStep;
    return detail::mix_bits(state_);
  }

  /// A number in [0, 1): one of the multiples of 2^-53.
  constexpr double uniform() noexcept { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  /// A whole number from 0 to n - 1, each as likely as the others.
  /// @throws ArgumentError unless n is 1 or more.
  constexpr Index below(Index n) {
    check_argument(n >= 1, "n of below is ", n, "; expected 1 or more");
    const auto count = static_cast<std::uint64_t>(n);
    // The numbers from 2^64 mod n on are a multiple of n many.
    const std::uint64_t excess = (std::uint64_t{0} - count) % count;
    std::uint64_t drawn = bits();
    while (drawn < excess) drawn = bits();
    return static_cast<Index>(drawn % count);
  }

  /// A number of the normal distribution with mean 0 and variance 1 (Box and Muller, 1958), from
  /// two uniform ones; at most 8.6 in magnitude. It comes from the log and cos of the C library,
  /// so that its last digits may differ between machines.
  double normal() noexcept {
    constexpr double kTwoPi = 6.283185307179586477;
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(kTwoPi * uniform());
  }

 private:
  static constexpr std::uint64_t absorb(std::uint64_t state, std::uint64_t word) noexcept {
    return detail::mix_bits(state + detail::kGoldenStep + word);
  }

  std::uint64_t state_;
};

NHA_ISA_NAMESPACE_END
