// SPDX-License-Identifier: MIT
// Checkpoints: a folder with config.json and model.safetensors, under the published names, read
// into a LanguageModel.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor.hpp>
#include <nha/io/model_config.hpp>
#include <nha/io/safetensors.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/weights.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <set>
#include <string>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A visitor that reads each weight from a file, and remembers which tensors it has read.
template <std::floating_point T>
struct ReadWeights {
  const Safetensors& file;
  std::set<std::string, std::less<>> names = {};

  template <int Rank>
  void operator()(const std::string& name, Tensor<T, Rank>& weight,
                  const typename Tensor<T, Rank>::Sizes& extents) {
    const StoredTensor& stored = file.at(name);
    check_format(
        std::equal(extents.begin(), extents.end(), stored.shape.begin(), stored.shape.end()),
        file.source(), ": tensor '", name, "' has shape ", shape_text(stored.shape),
        "; the configuration makes it ", shape_text(extents));
    check_format(stored.dtype == StoredType::f32 || stored.dtype == StoredType::f16 ||
                     stored.dtype == StoredType::bf16 || stored.dtype == StoredType::f64,
                 file.source(), ": tensor '", name, "' is ", stored_name(stored.dtype),
                 "; expected F64, F32, F16 or BF16");
    weight = stored.template to_tensor<T, Rank>();
    names.insert(name);
  }
};

/// Whether a file of a model with a tied head holds that head all the same.
/// @throws FormatError if the file has a head that is not the embeddings.
inline bool has_tied_head(const Safetensors& file) {
  const StoredTensor* head = file.find("lm_head.weight");
  if (head == nullptr) return false;
  const StoredTensor& embeddings = file.at("model.embeddings.weight");
  const bool same_kind = head->dtype == embeddings.dtype && head->shape == embeddings.shape;
  check_format(same_kind, file.source(), ": tensor 'lm_head.weight' is ", stored_name(head->dtype),
               " ", shape_text(head->shape),
               "; the configuration says tie_word_embeddings, and the embeddings are ",
               stored_name(embeddings.dtype), " ", shape_text(embeddings.shape));
  check_format(
      std::ranges::equal(head->bytes, embeddings.bytes), file.source(),
      ": tensor 'lm_head.weight' differs from 'model.embeddings.weight'; the configuration "
      "says tie_word_embeddings, which makes them the same");
  return true;
}

}  // namespace detail

/// Reads the weights of a model from a file: F32, F16, BF16 or F64, converted to T. Every weight
/// must be there in the shape the options make it, and nothing else.
///
/// A tied head may be stored as lm_head.weight too: with the type, shape and bytes of the
/// embeddings.
/// @throws FormatError naming the tensor that is missing, unknown or of another shape or type, or
///   lm_head.weight if the configuration ties the head and this tensor is not the embeddings.
template <std::floating_point T>
LanguageModelWeights<T> read_weights(const Safetensors& file, const ModelOptions& options) {
  validate(options);
  LanguageModelWeights<T> weights;
  // Before memory is taken for what the configuration merely claims.
  check_format(options.layers.size() <= file.tensors().size(), file.source(), ": ",
               file.tensors().size(), " tensors; too few for the ", options.layers.size(),
               " layers of the configuration");
  weights.layers.resize(options.layers.size());
  detail::ReadWeights<T> reader{file};
  visit_weights(options, weights, reader);
  if (options.tied_head && detail::has_tied_head(file)) reader.names.insert("lm_head.weight");
  for (const StoredTensor& tensor : file.tensors())
    check_format(reader.names.contains(tensor.name), file.source(), ": tensor '",
                 detail::printable(tensor.name), "' belongs to no part of the model");
  return weights;
}

/// Reads a model from a folder that holds config.json and model.safetensors. The file of weights is
/// memory-mapped while it is read and closed afterwards.
/// @param layout whose layer the configuration describes, where the file does not say
/// @throws FormatError naming the file, and the key or tensor, that is wrong.
template <std::floating_point T>
NHA_COLD LanguageModel<T> load_language_model(const std::string& folder,
                                              ConfigLayout layout = ConfigLayout::automatic) {
  const ModelOptions options = load_model_config(folder + "/config.json", layout);
  const Safetensors file(folder + "/model.safetensors");
  return LanguageModel<T>(options, read_weights<T>(file, options));
}

NHA_ISA_NAMESPACE_END
