// SPDX-License-Identifier: MIT
// Models written as checkpoints: a folder with config.json and model.safetensors, under the
// published names, which checkpoint.hpp reads back.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/io/model_config_writer.hpp>
#include <nha/io/new_file.hpp>
#include <nha/io/safetensors_header.hpp>
#include <nha/io/safetensors_writer.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/weights.hpp>
#include <nha/train/parameters.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Makes a folder and those it lies in, where they are not there.
/// @throws FormatError naming it if that fails.
inline void make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check_format(!error, printable(folder), ": cannot make the folder: ", error.message());
}

/// Whether there is a file that holds just this text.
inline bool holds_text(const std::string& path, std::string_view text) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  const MappedFile file(path);
  return std::ranges::equal(file.bytes(), std::as_bytes(std::span<const char>(text)));
}

/// Adds a list of weights or moments to what is to be saved.
template <class T>
void append_tensors(std::vector<TensorToSave>& tensors, const std::vector<Parameter<T>>& list) {
  for (const Parameter<T>& parameter : list)
    tensors.emplace_back(parameter.name, parameter.shape,
                         std::span<const std::remove_const_t<T>>(parameter.values));
}

/// The files of a checkpoint, in a folder that is there.
inline void write_checkpoint(const std::string& folder, std::string_view config,
                             std::span<const TensorToSave> tensors, const Metadata& metadata) {
  const std::string config_path = folder + "/config.json";
  NewFile model(folder + "/model.safetensors");
  emit_safetensors(tensors, metadata,
                   [&](std::span<const std::byte> piece) { model.write(piece); });
  model.close();
  if (holds_text(config_path, config)) {
    NewFile::remove_abandoned(config_path);
  } else {
    NewFile file(config_path);
    file.write(std::as_bytes(std::span<const char>(config)));
    file.close();
    // Weights of another configuration must not be found beside this one.
    model.remove_old();
    file.commit();
  }
  model.commit();
}

template <class T>
void save_weights(const std::string& folder, const ModelOptions& options,
                  const std::vector<Parameter<T>>& weights, const Metadata& metadata) {
  const std::string config = model_config_text(options);
  std::vector<TensorToSave> tensors;
  append_tensors(tensors, weights);
  make_folder(folder);
  write_checkpoint(folder, config, tensors, metadata);
}

}  // namespace detail

/// Writes a model as `folder`/config.json, of ConfigLayout::plain, and `folder`/model.safetensors:
/// load_language_model<T>() gives the same options and the same weights, to the last bit. The same
/// model always gives the same files. The folder is made where it is not there; other files in it
/// stay as they are.
///
/// Both files are written to the disk under other names before the first gets its own. So a full
/// disk leaves a checkpoint that was there as it was.
///
/// Wherever the program is killed, the folder never holds weights beside a configuration that is
/// not theirs. Where config.json already says the same, the old weights stay until the new ones
/// take their name. Otherwise the old weights are removed before config.json is replaced, and there
/// are none until the new ones take their name. The next save removes the temporary files of a
/// killed one.
/// @param metadata strings for the header of model.safetensors
/// @throws ArgumentError if a configuration cannot say the options, or metadata is not UTF-8;
///   FormatError naming the file that cannot be written.
template <std::floating_point T>
void save_language_model(const std::string& folder, const LanguageModel<T>& model,
                         const Metadata& metadata = {}) {
  detail::save_weights(folder, model.options(), parameters(model), metadata);
}
/// The same for weights that are in no model.
/// @throws ArgumentError also if a weight is missing or has another shape than the options ask for.
template <std::floating_point T>
void save_language_model(const std::string& folder, const ModelOptions& options,
                         const LanguageModelWeights<T>& weights, const Metadata& metadata = {}) {
  detail::check_weights(options, weights);
  detail::save_weights(folder, options, parameters(options, weights), metadata);
}

NHA_ISA_NAMESPACE_END
