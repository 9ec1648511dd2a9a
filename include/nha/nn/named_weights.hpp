// SPDX-License-Identifier: MIT
// Weights by name: those of the feed-forward layer, and what is asked of the weights of any layer.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>

#include <concepts>
#include <string>

NHA_ISA_NAMESPACE_BEGIN

/// Weights of a SwiGLU layer; each is [out, in].
template <std::floating_point T>
struct FeedForwardWeights {
  Tensor<T, 2> gate_proj, up_proj, down_proj;
};

/// Calls visit(name, tensor, extents) for each weight: its name in a checkpoint, the tensor, and
/// the extents it must have.
template <class Weights, class Visit>
NHA_COLD void visit_feed_forward_weights(Index hidden, Index intermediate,
                                         const std::string& prefix, Weights& weights,
                                         Visit&& visit) {
  using Sizes = Tensor<float, 2>::Sizes;
  visit(prefix + "gate_proj.weight", weights.gate_proj, Sizes{intermediate, hidden});
  visit(prefix + "up_proj.weight", weights.up_proj, Sizes{intermediate, hidden});
  visit(prefix + "down_proj.weight", weights.down_proj, Sizes{hidden, intermediate});
}

namespace detail {

/// A visitor that checks each weight's shape.
struct CheckWeights {
  template <class T, int Rank>
  void operator()(const std::string& name, const Tensor<T, Rank>& tensor,
                  const typename Tensor<T, Rank>::Sizes& extents) const {
    check_argument(tensor.extents() == extents, "weight ", name, " is ",
                   shape_text(tensor.extents()), "; expected ", shape_text(extents));
  }
};

template <class... Tensors>
bool any_present(const Tensors&... tensors) noexcept {
  return (... || (tensors.size() > 0));
}

}  // namespace detail

/// Whether any of the tensors is there. Of gradients: whether any is wanted.
template <std::floating_point T>
bool has_any(const FeedForwardWeights<T>& w) noexcept {
  return detail::any_present(w.gate_proj, w.up_proj, w.down_proj);
}

NHA_ISA_NAMESPACE_END
