// SPDX-License-Identifier: MIT
// A training run on disk: the model as a checkpoint for any program, and training.safetensors. From
// the latter alone the run goes on as if it had never stopped.
//
// training.safetensors holds, in the numbers' own type,
//   <name>                each weight, under its published name
//   first_moment.<name>, second_moment.<name>   the optimiser's moments of each that trains
// and these metadata:
//   format     "nha training checkpoint 1"
//   config     the model's options, as in config.json
//   steps, seed                            of the run
//   optimizer  "AdamW"
//   optimizer.steps, optimizer.option.<name>  its steps and options
//   setting.<key>, note.<key>              of the program that trains
//   checksum   FNV-1a over all other metadata and all tensors
#pragma once

#include <nha/config.hpp>
#include <nha/core/checksum.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/little_endian.hpp>
#include <nha/io/checkpoint_writer.hpp>
#include <nha/io/model_config.hpp>
#include <nha/io/model_config_writer.hpp>
#include <nha/io/safetensors.hpp>
#include <nha/io/safetensors_writer.hpp>
#include <nha/io/stored_tensor.hpp>
#include <nha/io/stored_type.hpp>
#include <nha/model/language_model.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/weights.hpp>
#include <nha/train/adamw.hpp>
#include <nha/train/parameters.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// What a run is besides its model and its optimiser.
struct TrainingRecord {
  /// Steps that the run has taken: the number of the next one.
  Index steps = 0;
  /// Of what each step draws.
  std::uint64_t seed = 0;
  /// What must be the same for the run to go on as the same run: the data, the batch, the schedule.
  /// It is compared when the run is resumed.
  Metadata settings = {};
  /// Whatever else the program wants to find again.
  Metadata notes = {};

  friend bool operator==(const TrainingRecord&, const TrainingRecord&) = default;
};

namespace detail {

inline constexpr std::string_view kTrainingFormat = "nha training checkpoint 1";

/// The settings of an optimiser by name; each number as text that gives it back to the bit.
template <std::floating_point T>
Metadata optimizer_settings(const AdamW<T>& optimizer) {
  const AdamWOptions& options = optimizer.options();
  const auto text = [](auto value) { return nlohmann::json(value).dump(); };
  return {{"beta1", text(options.beta1)},
          {"beta2", text(options.beta2)},
          {"epsilon", text(options.epsilon)},
          {"weight_decay", text(options.weight_decay)},
          {"decay_embeddings", text(options.decay_embeddings)}};
}

/// `from` with `prefix` before its keys, added to `to`.
inline void add_with_prefix(Metadata& to, std::string_view prefix, const Metadata& from) {
  for (const auto& [key, value] : from) to.emplace(std::string(prefix) + key, value);
}
/// Those of `from` whose keys have the prefix, without it.
inline Metadata with_prefix(const Metadata& from, std::string_view prefix) {
  Metadata out;
  for (const auto& [key, value] : from)
    if (std::string_view(key).starts_with(prefix)) out.emplace(key.substr(prefix.size()), value);
  return out;
}

/// FNV-1a that is fed piece by piece. Texts count with their length, so that none can borrow bytes
/// from the next.
class TrainingChecksum {
 public:
  explicit TrainingChecksum(const Metadata& metadata) {
    for (const auto& [key, value] : metadata) {
      if (key == "checksum") continue;
      add(key);
      add(value);
    }
  }
  void add(std::string_view text) {
    std::array<std::byte, 8> length;
    store_little(static_cast<std::uint64_t>(text.size()), length.data());
    add(std::span<const std::byte>(length));
    add(std::as_bytes(std::span<const char>(text)));
  }
  void add(std::span<const std::byte> bytes) { hash_ = fnv1a(bytes, hash_); }
  std::string text() const { return std::to_string(hash_); }

 private:
  std::uint64_t hash_ = kFnv1aStart;
};

/// That an optimiser was made for some or all of these weights.
template <class T, class U>
void check_optimizer(const std::vector<Parameter<T>>& weights,
                     const std::vector<Parameter<U>>& moments) {
  std::set<std::string> known;
  for (const Parameter<T>& weight : weights)
    for (const char* prefix : {"first_moment.", "second_moment."})
      known.insert(prefix + weight.name + ' ' + shape_text(weight.shape));
  for (const Parameter<U>& moment : moments) {
    const std::string found = moment.name + ' ' + shape_text(moment.shape);
    check_argument(known.contains(found), "the optimizer has ", printable(found),
                   "; the model has no such weight");
  }
}

template <std::floating_point T, class Weight>
void save_training(const std::string& folder, const ModelOptions& options,
                   const std::vector<Parameter<Weight>>& weights, const AdamW<T>& optimizer,
                   const TrainingRecord& record) {
  const std::string config = model_config_text(options);
  const std::vector<Parameter<const T>> moments = optimizer.moments();
  check_optimizer(weights, moments);
  check_argument(record.steps >= 0, "steps is ", record.steps, "; expected 0 or more");

  std::vector<TensorToSave> tensors;
  append_tensors(tensors, weights);
  const std::size_t weight_count = tensors.size();
  append_tensors(tensors, moments);

  Metadata metadata{{"format", std::string(kTrainingFormat)},
                    {"config", config},
                    {"steps", std::to_string(record.steps)},
                    {"seed", std::to_string(record.seed)},
                    {"optimizer", "AdamW"},
                    {"optimizer.steps", std::to_string(optimizer.steps())}};
  add_with_prefix(metadata, "optimizer.option.", optimizer_settings(optimizer));
  add_with_prefix(metadata, "setting.", record.settings);
  add_with_prefix(metadata, "note.", record.notes);
  TrainingChecksum checksum(metadata);
  std::vector<const TensorToSave*> by_name;
  for (const TensorToSave& tensor : tensors) by_name.push_back(&tensor);
  std::ranges::sort(by_name, {},
                    [](const auto* tensor) { return std::string_view(tensor->name()); });
  for (const TensorToSave* tensor : by_name) {
    checksum.add(tensor->name());
    tensor->emit([&](std::span<const std::byte> piece) { checksum.add(piece); });
  }
  metadata.emplace("checksum", checksum.text());

  make_folder(folder);
  save_safetensors(folder + "/training.safetensors", tensors, metadata);
  write_checkpoint(folder, config, std::span<const TensorToSave>(tensors).first(weight_count),
                   {{"steps", std::to_string(record.steps)}});
}

}  // namespace detail

/// Writes a training run: `folder`/training.safetensors, from which TrainingCheckpoint resumes it,
/// and the model as save_language_model() does, for programs that run it.
///
/// All that a run resumes from is in the one file, which appears whole or not at all. So wherever
/// the program is killed, the folder resumes exactly as it was after this save or after the one
/// before, never from a mixture. The model beside it may then be that of the save before. It is
/// itself whole, by the rules of save_language_model(), and the next save puts it right.
///
/// The optimiser may be of some of the weights only: the others are frozen, and saved without
/// moments.
/// @throws ArgumentError if the optimiser is not of the model's weights, a configuration cannot say
///   the model's options, steps is negative, or a setting or note is not UTF-8; FormatError naming
///   the file that cannot be written.
template <std::floating_point T>
void save_training(const std::string& folder, const LanguageModel<T>& model,
                   const AdamW<T>& optimizer, const TrainingRecord& record) {
  detail::save_training(folder, model.options(), parameters(model), optimizer, record);
}
/// The same for weights that are in no model.
template <std::floating_point T>
void save_training(const std::string& folder, const ModelOptions& options,
                   const LanguageModelWeights<T>& weights, const AdamW<T>& optimizer,
                   const TrainingRecord& record) {
  detail::check_weights(options, weights);
  detail::save_training(folder, options, parameters(options, weights), optimizer, record);
}

/// A training run that was saved. Opening it checks the file as a whole; restore() puts its numbers
/// into a model and an optimiser that the program has made for it.
class TrainingCheckpoint {
 public:
  /// Opens `folder`/training.safetensors and reads all of it once, for its checksum.
  /// @throws FormatError naming the file, and what is wrong, if it is no training checkpoint or is
  ///   damaged.
  explicit TrainingCheckpoint(const std::string& folder) : file_(folder + "/training.safetensors") {
    const std::string* format = file_.find_metadata("format");
    check(format != nullptr, "no training checkpoint: its metadata have no format");
    check(*format == detail::kTrainingFormat, "format is '", detail::printable(*format),
          "'; expected '", detail::kTrainingFormat, "'");
    check_checksum();
    config_ = text("config");
    options_ = parse_model_config(config_, ConfigLayout::plain, file_.source() + ": config");
    check_tensors();
    constexpr auto kMostSteps = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
    record_.steps = static_cast<Index>(number("steps", kMostSteps));
    record_.seed = number("seed", std::numeric_limits<std::uint64_t>::max());
    record_.settings = detail::with_prefix(file_.metadata(), "setting.");
    record_.notes = detail::with_prefix(file_.metadata(), "note.");
    optimizer_steps_ = static_cast<Index>(number("optimizer.steps", kMostSteps));
    check(text("optimizer") == "AdamW", "optimizer is '", detail::printable(text("optimizer")),
          "'; expected 'AdamW'");
  }

  /// Of the saved model. The file holds every number that a model of these options has.
  const ModelOptions& options() const noexcept { return options_; }
  const TrainingRecord& record() const noexcept { return record_; }

  /// Weights, moments and the optimiser's steps as they were when the run was saved, to the bit.
  /// The record's seed and steps are the caller's to compare and to go on from.
  /// @param settings of this run, to be compared with the record's
  /// @throws FormatError naming the first thing that differs if the checkpoint is of a model of
  ///   other options, of numbers of another type, or of a run with other settings, another
  ///   optimiser or other weights that train; ArgumentError if the optimiser is not of the model's
  ///   weights. Nothing has then been changed.
  template <std::floating_point T>
  void restore(LanguageModel<T>& model, AdamW<T>& optimizer, const Metadata& settings) const {
    restore(model.options(), parameters(model), optimizer, settings);
  }
  /// The same for weights that are in no model, but have their shapes.
  template <std::floating_point T>
  void restore(const ModelOptions& options, LanguageModelWeights<T>& weights, AdamW<T>& optimizer,
               const Metadata& settings) const {
    detail::check_weights(options, weights);
    restore(options, parameters(options, weights), optimizer, settings);
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    check_format(ok, file_.source(), ": ", parts...);
  }

  const std::string& text(std::string_view key) const {
    const std::string* value = file_.find_metadata(key);
    check(value != nullptr, "its metadata have no ", key);
    return *value;
  }
  std::uint64_t number(std::string_view key, std::uint64_t most) const {
    const std::string& value = text(key);
    std::uint64_t out = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
    check(error == std::errc() && end == value.data() + value.size() && out <= most, key, " is '",
          detail::printable(value), "'; expected an integer from 0 to ", most);
    return out;
  }
  void check_checksum() const {
    detail::TrainingChecksum checksum(file_.metadata());
    for (const StoredTensor& tensor : file_.tensors()) {
      checksum.add(tensor.name);
      checksum.add(tensor.bytes);
    }
    check(text("checksum") == checksum.text(), "damaged: its checksum does not match");
  }

  /// That the tensors are the weights and moments of the options. A model made of these then takes
  /// no more memory than the file has numbers for.
  void check_tensors() {
    const std::span<const StoredTensor> tensors = file_.tensors();
    check(options_.layers.size() <= tensors.size(), tensors.size(), " tensors; too few for the ",
          options_.layers.size(), " layers of its configuration");
    LanguageModelWeights<float> empty;  // for the names and shapes
    empty.layers.resize(options_.layers.size());
    std::set<std::string, std::less<>> names;
    type_ = file_.at("model.embeddings.weight").dtype;
    visit_weights(options_, empty, [&](const std::string& name, const auto&, const auto& extents) {
      const bool trains = file_.find("first_moment." + name) != nullptr ||
                          file_.find("second_moment." + name) != nullptr;
      for (const char* prefix : {"", "first_moment.", "second_moment."}) {
        if (!trains && prefix[0] != '\0') continue;
        const StoredTensor& stored = file_.at(prefix + name);
        check(std::ranges::equal(stored.shape, extents), "tensor '", stored.name, "' has shape ",
              detail::shape_text(stored.shape), "; its configuration makes it ",
              detail::shape_text(extents));
        check(stored.dtype == type_, "tensor '", stored.name, "' is ", stored_name(stored.dtype),
              "; the first one is ", stored_name(type_));
        names.insert(stored.name);
      }
    });
    for (const StoredTensor& tensor : tensors)
      check(names.contains(tensor.name), "tensor '", detail::printable(tensor.name),
            "' belongs to no part of the run");
  }

  template <std::floating_point T>
  void restore(const ModelOptions& options, const std::vector<Parameter<T>>& weights,
               AdamW<T>& optimizer, const Metadata& settings) const {
    std::vector<Parameter<T>> targets = optimizer.moments();
    detail::check_optimizer(weights, targets);
    check_options(options);
    check_settings("optimizer option", detail::with_prefix(file_.metadata(), "optimizer.option."),
                   detail::optimizer_settings(optimizer));
    check_settings("setting", record_.settings, settings);

    check_moments(targets);
    check(type_ == stored_type_of<T>(), "its tensors are ", stored_name(type_), "; expected ",
          stored_name(stored_type_of<T>()));

    // With the same options, names and shapes are those that check_tensors() has seen.
    targets.insert(targets.end(), weights.begin(), weights.end());
    for (const Parameter<T>& target : targets)
      file_.at(target.name).template convert_to<T>(target.values);
    optimizer.resume_at(optimizer_steps_);
  }

  /// That the run trained the weights that the optimiser is of, and no others.
  template <class T>
  void check_moments(const std::vector<Parameter<T>>& moments) const {
    std::set<std::string_view> wanted;
    for (const Parameter<T>& moment : moments) {
      check(file_.find(moment.name) != nullptr, "has no ", detail::printable(moment.name),
            "; this run trains that weight");
      wanted.insert(moment.name);
    }
    for (const StoredTensor& tensor : file_.tensors()) {
      const bool is_moment =
          tensor.name.starts_with("first_moment.") || tensor.name.starts_with("second_moment.");
      check(!is_moment || wanted.contains(tensor.name), "has ", detail::printable(tensor.name),
            "; this run does not train that weight");
    }
  }

  /// Shows the first line of the two configurations that differs.
  void check_options(const ModelOptions& options) const {
    if (options == options_) return;
    std::string_view found = config_;
    const std::string config = model_config_text(options);
    std::string_view expected = config;
    const auto next_line = [](std::string_view& rest) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      return line.substr(std::min(line.find_first_not_of(' '), line.size()));
    };
    std::string_view found_line, expected_line;
    while (found_line == expected_line && !(found.empty() && expected.empty())) {
      found_line = next_line(found);
      expected_line = next_line(expected);
    }
    check(false, "is of a model with ", detail::printable(found_line), " where this one has ",
          detail::printable(expected_line));
  }

  /// Names the first key whose value is not the same in both.
  void check_settings(const char* what, const Metadata& found, const Metadata& expected) const {
    for (const auto& [key, value] : found) {
      const auto place = expected.find(key);
      check(place != expected.end(), what, " '", detail::printable(key), "' is '",
            detail::printable(value), "'; this run has no such ", what);
      check(place->second == value, what, " '", detail::printable(key), "' is '",
            detail::printable(value), "'; this run has '", detail::printable(place->second), "'");
    }
    for (const auto& [key, value] : expected)
      check(found.contains(key), "has no ", what, " '", detail::printable(key), "'; this run has '",
            detail::printable(value), "'");
  }

  Safetensors file_;
  std::string config_;
  ModelOptions options_;
  TrainingRecord record_;
  Index optimizer_steps_ = 0;
  StoredType type_ = StoredType::f32;
};

NHA_ISA_NAMESPACE_END
