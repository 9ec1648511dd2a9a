// SPDX-License-Identifier: MIT
// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2).
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/parallel/executor.hpp>
#include <nha/train/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

NHA_NAMESPACE_BEGIN

/// Constants of AdamW; the learning rate is given with each step. These are the ones that GPT-3 was
/// trained with (Brown et al., 2020, appendix B). With a beta2 of 0.95, Adam's being 0.999, the
/// size of early gradients is forgotten within tens of steps rather than thousands. Short runs and
/// a changing loss need that.
struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  /// The part of a weight that a step with learning rate 1 takes away. It acts on tensors of two
  /// axes or more; the weights of norms and biases do not decay.
  double weight_decay = 0.1;
  /// Whether it acts on the embeddings too, as it does where all matrices decay alike, the usual
  /// practice. Rows of tokens that are never seen then shrink.
  bool decay_embeddings = true;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// What a step multiplies with, the same for all numbers of a tensor.
template <class T>
struct AdamWFactors {
  T beta1, rest1, beta2, rest2;  // rest: 1 - beta
  T root;                        // 1 / sqrt(1 - beta2^t)
  T epsilon;
  T keep;  // 1 - learning rate * decay
  T rate;  // learning rate / (1 - beta1^t)
};

/// One vector of weights and moments.
template <class V, class T>
NHA_INLINE void adamw_vector(const AdamWFactors<T>& f, T* weight, const T* gradient, T* first,
                             T* second) noexcept {
  const V g = cpu::simd::load<V>(gradient);
  const V m = cpu::simd::fma(V(f.beta1), cpu::simd::load<V>(first), V(f.rest1) * g);
  const V v = cpu::simd::fma(V(f.beta2), cpu::simd::load<V>(second), V(f.rest2) * g * g);
  cpu::simd::store(first, m);
  cpu::simd::store(second, v);
  const V size = cpu::simd::fma(cpu::simd::sqrt(v), V(f.root), V(f.epsilon));
  cpu::simd::store(weight, cpu::simd::fma(V(-f.rate), cpu::simd::divide(m, size),
                                          V(f.keep) * cpu::simd::load<V>(weight)));
}

/// The step for `count` numbers. Numbers are treated alike wherever they stand.
template <class Arch, class T>
void adamw_numbers(const AdamWFactors<T>& factors, T* weight, const T* gradient, T* first,
                   T* second, Index count) noexcept {
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    adamw_vector<cpu::simd::vec<T, Arch>>(factors, weight + i, gradient + i, first + i, second + i);
  for (; i < count; ++i) adamw_vector<T>(factors, weight + i, gradient + i, first + i, second + i);
}

}  // namespace detail

/// The optimiser of a list of weights: it holds their two moments and the number of steps taken.
///
/// With m and v the moments, g the gradient, t the number of this step from 1:
///   m = beta1 m + (1 - beta1) g             v = beta2 v + (1 - beta2) g^2
///   w = w - rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay w)
/// Everything in T but the factors, which are computed in double. Numbers below the least normal
/// one of T are taken as 0 (see FlushSubnormals); the second moment of a weight whose gradient is 0
/// gets there.
///
/// To resume a run exactly, save steps() and the numbers of moments(). Then make an AdamW of the
/// same weights, copy the numbers back and call resume_at(). save_training() does all that.
///
/// Weights that do not train are not in its lists: see AllWeights.
template <std::floating_point T>
class AdamW {
 public:
  /// Moments of 0 for tensors of these names and shapes.
  /// @throws ArgumentError if an option is out of range: beta1 and beta2 in [0, 1), epsilon a
  ///   positive normal number of T, weight_decay 0 or more.
  explicit AdamW(std::span<const Parameter<T>> weights, const AdamWOptions& options = {})
      : options_(options) {
    const auto check_beta = [](const char* name, double beta) {
      check_argument(beta >= 0 && beta < 1, name, " is ", beta, "; expected 0 to less than 1");
    };
    check_beta("beta1", options.beta1);
    check_beta("beta2", options.beta2);
    // A smaller one would be taken as 0, and a weight without a gradient become 0 / 0.
    constexpr double kLeast = std::numeric_limits<T>::min();
    constexpr double kMost = std::numeric_limits<T>::max();
    check_argument(options.epsilon >= kLeast && options.epsilon <= kMost, "epsilon is ",
                   options.epsilon, "; expected ", kLeast, " to ", kMost);
    check_argument(std::isfinite(options.weight_decay) && options.weight_decay >= 0,
                   "weight_decay is ", options.weight_decay, "; expected 0 or more");
    Index size = 0;
    for (const Parameter<T>& weight : weights) {
      const auto count = static_cast<Index>(weight.values.size());
      for (Index first = 0; first < count; first += kBlock)
        blocks_.push_back({tensors_.size(), first, std::min(kBlock, count - first)});
      tensors_.push_back({weight.name, weight.shape, size, count, decays(weight)});
      size += count;
    }
    first_ = Tensor<T, 1>({size});
    second_ = Tensor<T, 1>({size});
  }

  const AdamWOptions& options() const noexcept { return options_; }
  /// Steps taken.
  Index steps() const noexcept { return steps_; }

  /// One step: changes the weights and the moments. Each number is changed on its own, so that the
  /// executor makes no difference to the result. A gradient that is NaN makes its weight NaN for
  /// ever: look at the norm of the gradients first (train/gradient_norm.hpp). Allocates nothing.
  /// @throws ArgumentError if the lists are not of the tensors of the constructor, in its order, or
  ///   the learning rate is negative or not finite; nothing has then been changed.
  void step(std::span<const Parameter<T>> weights, std::span<const Parameter<const T>> gradients,
            double learning_rate, ExecutorRef executor = kSerial) {
    take_step(weights, gradients, learning_rate, executor);
  }
  void step(std::span<const Parameter<T>> weights, std::span<const Parameter<T>> gradients,
            double learning_rate, ExecutorRef executor = kSerial) {
    take_step(weights, gradients, learning_rate, executor);
  }

  /// The moments under the names of their weights with "first_moment." or "second_moment." before
  /// them: all first ones, then all second ones. Valid as long as this optimiser.
  std::vector<Parameter<T>> moments() { return list_moments<T>(*this); }
  std::vector<Parameter<const T>> moments() const { return list_moments<const T>(*this); }

  /// Goes on as after this many steps; the moments are set through moments().
  /// @throws ArgumentError if `steps` is negative.
  void resume_at(Index steps) {
    check_argument(steps >= 0, "steps is ", steps, "; expected 0 or more");
    steps_ = steps;
  }

 private:
  /// Numbers in one task: their four arrays take part of an L2 cache.
  static constexpr Index kBlock = 1 << 14;

  struct Entry {
    std::string name;
    std::vector<Index> shape;
    Index first, count;  // where its moments are
    bool decays;
  };
  struct Block {
    std::size_t tensor;
    Index first, count;
  };

  template <class U>
  void take_step(std::span<const Parameter<T>> weights, std::span<const Parameter<U>> gradients,
                 double learning_rate, ExecutorRef executor) {
    check_list("weights", weights);
    check_list("gradients", gradients);
    check_argument(std::isfinite(learning_rate) && learning_rate >= 0, "learning_rate is ",
                   learning_rate, "; expected 0 or more");
    ++steps_;
    const auto task = [&](Index n, Index) noexcept {
      const FlushSubnormals mode;
      const Block& block = blocks_[static_cast<std::size_t>(n)];
      const Entry& tensor = tensors_[block.tensor];
      const Index at = tensor.first + block.first;
      detail::adamw_numbers<cpu::simd::default_arch>(
          factors(learning_rate, tensor.decays), weights[block.tensor].values.data() + block.first,
          gradients[block.tensor].values.data() + block.first, first_.data() + at,
          second_.data() + at, block.count);
    };
    executor.run(static_cast<Index>(blocks_.size()), task);
  }

  bool decays(const Parameter<T>& weight) const noexcept {
    const bool embeddings = std::string_view(weight.name).ends_with("embeddings.weight");
    return weight.shape.size() >= 2 && (options_.decay_embeddings || !embeddings);
  }

  template <class U>
  void check_list(const char* what, std::span<const Parameter<U>> list) const {
    check_argument(list.size() == tensors_.size(), what, " of AdamW have ", list.size(),
                   " tensors; expected ", tensors_.size());
    for (std::size_t n = 0; n < list.size(); ++n) {
      // The words are put together only where they are needed.
      const bool same_name = list[n].name == tensors_[n].name;
      if (!same_name)
        check_argument(same_name, "tensor ", n, " of the ", what, " of AdamW is ",
                       detail::printable(list[n].name), "; expected ",
                       detail::printable(tensors_[n].name));
      const bool same_shape = list[n].shape == tensors_[n].shape &&
                              static_cast<Index>(list[n].values.size()) == tensors_[n].count;
      if (!same_shape)
        check_argument(same_shape, list[n].name, " of the ", what, " of AdamW is ",
                       detail::shape_text(list[n].shape), "; expected ",
                       detail::shape_text(tensors_[n].shape));
    }
  }

  detail::AdamWFactors<T> factors(double rate, bool decays) const noexcept {
    const auto t = static_cast<double>(steps_);
    const double decay = decays ? rate * options_.weight_decay : 0.0;
    return {.beta1 = static_cast<T>(options_.beta1),
            .rest1 = static_cast<T>(1 - options_.beta1),
            .beta2 = static_cast<T>(options_.beta2),
            .rest2 = static_cast<T>(1 - options_.beta2),
            .root = static_cast<T>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
            .epsilon = static_cast<T>(options_.epsilon),
            .keep = static_cast<T>(1 - decay),
            .rate = static_cast<T>(rate / (1 - std::pow(options_.beta1, t)))};
  }

  template <class U, class Self>
  static std::vector<Parameter<U>> list_moments(Self& self) {
    std::vector<Parameter<U>> list;
    const auto append = [&](const char* prefix, auto& moment) {
      for (const Entry& tensor : self.tensors_)
        list.push_back({prefix + tensor.name, tensor.shape,
                        moment.values().subspan(static_cast<std::size_t>(tensor.first),
                                                static_cast<std::size_t>(tensor.count))});
    };
    append("first_moment.", self.first_);
    append("second_moment.", self.second_);
    return list;
  }

  AdamWOptions options_;
  std::vector<Entry> tensors_;
  std::vector<Block> blocks_;
  Tensor<T, 1> first_, second_;
  Index steps_ = 0;
};

NHA_ISA_NAMESPACE_END
