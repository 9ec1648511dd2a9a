// SPDX-License-Identifier: MIT
// The weights of a model as one flat list: what optimisers, norms and checkpoints of a training run
// walk over.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/weights.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// One weight tensor, its gradient, or a moment of either: the name it has in a checkpoint, its
/// extents, and its numbers, row-major. It owns no numbers: the span is valid as long as the tensor
/// it was made from. T is const where they may only be read.
template <class T>
struct Parameter {
  std::string name;
  std::vector<Index> shape;
  std::span<T> values;
};

namespace detail {

/// A visitor that lists what it visits.
template <class T>
struct ListParameters {
  std::vector<Parameter<T>> found = {};

  template <class Tensor, class Extents>
  void operator()(const std::string& name, Tensor& tensor, const Extents& extents) {
    found.push_back({name, std::vector<Index>(extents.begin(), extents.end()), tensor.values()});
  }
};

/// The list for T or const T; Weights is const in the second case.
template <class T, class Weights>
std::vector<Parameter<T>> list_parameters(const ModelOptions& options, Weights& weights) {
  check_argument(weights.layers.size() == options.layers.size(), "the weights are of ",
                 weights.layers.size(), " layers; expected ", options.layers.size());
  const CheckWeights check;
  ListParameters<T> list;
  visit_weights(options, weights, [&](const std::string& name, auto& tensor, const auto& extents) {
    if (tensor.size() == 0) return;
    check(name, tensor, extents);
    list(name, tensor, extents);
  });
  return std::move(list.found);
}

}  // namespace detail

/// The choice of weights that train, where no other is given: all. A choice is called with the name
/// that a weight has in a checkpoint, and returns whether that weight trains:
///
///     const auto trains = [](std::string_view name) { return name.ends_with("proj.weight"); };
///     auto gradients = zero_weights<float>(model.options(), trains);
///     AdamW<float> optimizer(parameters(model, trains));
struct AllWeights {
  constexpr bool operator()(std::string_view) const noexcept { return true; }
};

/// The weights or gradients of a model with these options, in the order of visit_weights(); a tied
/// head is not there twice. Empty ones are left out: gradients that are not wanted. The numbers are
/// those of `weights` themselves.
/// @throws ArgumentError if the weights are of another number of layers, or one that is not empty
///   has another shape than the options ask for.
template <std::floating_point T>
std::vector<Parameter<T>> parameters(const ModelOptions& options,
                                     LanguageModelWeights<T>& weights) {
  return detail::list_parameters<T>(options, weights);
}
/// The same of weights that are only read.
template <std::floating_point T>
std::vector<Parameter<const T>> parameters(const ModelOptions& options,
                                           const LanguageModelWeights<T>& weights) {
  return detail::list_parameters<const T>(options, weights);
}

/// The weights of a model that `trains` chooses, whose numbers may change between calls, as an
/// optimiser changes them.
template <std::floating_point T, class Trains = AllWeights>
std::vector<Parameter<T>> parameters(LanguageModel<T>& model, const Trains& trains = {}) {
  detail::ListParameters<T> list;
  model.visit_weights(list);
  std::erase_if(list.found, [&](const Parameter<T>& weight) { return !trains(weight.name); });
  return std::move(list.found);
}
/// The same of a model that is only read.
template <std::floating_point T, class Trains = AllWeights>
std::vector<Parameter<const T>> parameters(const LanguageModel<T>& model,
                                           const Trains& trains = {}) {
  detail::ListParameters<const T> list;
  model.visit_weights(list);
  std::erase_if(list.found, [&](const Parameter<const T>& weight) { return !trains(weight.name); });
  return std::move(list.found);
}

NHA_ISA_NAMESPACE_END
