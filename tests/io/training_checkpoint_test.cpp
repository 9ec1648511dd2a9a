// SPDX-License-Identifier: MIT
#include <nha/io/checkpoint.hpp>
#include <nha/io/training_checkpoint.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/training_step.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/killed_process.hpp"
#include "support/random_model.hpp"
#include "support/temporary_folder.hpp"

namespace {

using nha::AdamW;
using nha::FormatError;
using nha::LanguageModel;
using nha::Metadata;
using nha::TrainingCheckpoint;
using nha::TrainingRecord;

/// A run whose gradients are random numbers that depend on the seed and the step alone, as those of
/// a real one do.
template <class T>
struct ToyRun {
  LanguageModel<T> model;
  AdamW<T> optimizer;
  nha::Index steps = 0;
  std::uint64_t seed;

  explicit ToyRun(const nha::ModelOptions& options, std::uint64_t run_seed = 1,
                  const nha::AdamWOptions& adamw = {})
      : model(nha_test::random_model<T>(options, static_cast<std::uint32_t>(run_seed))),
        optimizer(nha::parameters(model), adamw),
        seed(run_seed) {}

  void train(int count) {
    for (int n = 0; n < count; ++n, ++steps) {
      const auto gradients = nha_test::random_model_weights<T>(
          model.options(), static_cast<std::uint32_t>(seed * 1000 + std::uint64_t(steps)));
      optimizer.step(nha::parameters(model), nha::parameters(model.options(), gradients), 0.01);
    }
  }
  TrainingRecord record() const { return {steps, seed, {{"batch", "8"}}, {{"text", "a book"}}}; }
  void save(const std::string& folder) const {
    nha::save_training(folder, model, optimizer, record());
  }
  void resume(const TrainingCheckpoint& checkpoint) {
    checkpoint.restore(model, optimizer, {{"batch", "8"}});
    steps = checkpoint.record().steps;
    seed = checkpoint.record().seed;
  }
  /// Weights and moments.
  std::vector<T> numbers() const {
    std::vector<T> out;
    for (const auto& list : {nha::parameters(model), optimizer.moments()})
      for (const auto& parameter : list)
        out.insert(out.end(), parameter.values.begin(), parameter.values.end());
    return out;
  }
};

template <class T>
class TrainingRun : public testing::Test {};
using TrainingReals = testing::Types<float, double>;
TYPED_TEST_SUITE(TrainingRun, TrainingReals);

TYPED_TEST(TrainingRun, GoesOnAsIfItHadNeverStopped) {
  const nha_test::TemporaryFolder folder;
  nha::LayerOptions layer = nha_test::convolving(3);
  layer.gate_bias = true;
  const nha::ModelOptions options = nha_test::small_model(layer);
  const nha::AdamWOptions adamw{.beta2 = 0.97, .decay_embeddings = false};
  ToyRun<TypeParam> whole(options, 3, adamw);
  whole.train(7);
  whole.save(folder.path());
  whole.train(5);

  const TrainingCheckpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.options(), options);
  EXPECT_EQ(checkpoint.record(), (TrainingRecord{7, 3, {{"batch", "8"}}, {{"text", "a book"}}}));
  ToyRun<TypeParam> resumed(checkpoint.options(), 99, adamw);
  resumed.resume(checkpoint);
  EXPECT_EQ(resumed.optimizer.steps(), 7);
  resumed.train(5);
  EXPECT_EQ(resumed.numbers(), whole.numbers());
}

TYPED_TEST(TrainingRun, LeavesAModelForOtherPrograms) {
  const nha_test::TemporaryFolder folder;
  ToyRun<TypeParam> run(nha_test::small_model());
  run.train(2);
  run.save(folder.path());
  const auto model = nha::load_language_model<TypeParam>(folder.path());
  EXPECT_EQ(model.options(), run.model.options());
  std::size_t same = 0;
  const auto expected = nha::parameters(std::as_const(run.model));
  for (const auto& weight : nha::parameters(model))
    if (std::ranges::equal(weight.values, expected[same].values)) ++same;
  EXPECT_EQ(same, expected.size());
  EXPECT_EQ(*nha::Safetensors(folder.file("model.safetensors")).find_metadata("steps"), "2");
}

TEST(TrainingCheckpointFile, WeightsOutsideAModelServeToo) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  ToyRun<float> run(options);
  run.train(1);
  run.save(folder.path());
  auto weights = nha_test::random_model_weights<float>(options, 5);
  AdamW<float> optimizer(nha::parameters(options, weights));
  TrainingCheckpoint(folder.path()).restore(options, weights, optimizer, {{"batch", "8"}});
  nha::save_training(folder.file("again"), options, weights, optimizer, run.record());
  for (const char* name : {"training.safetensors", "model.safetensors", "config.json"})
    EXPECT_EQ(nha_test::read_text(folder.file(name)),
              nha_test::read_text(folder.file("again/") + name));
}

// --- What must not be resumed
// --------------------------------------------------------------------

TEST(TrainingCheckpointFile, OtherRunsAreNotResumedAndLeftAsTheyWere) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  ToyRun<float> run(options);
  run.train(2);
  run.save(folder.path());
  const TrainingCheckpoint checkpoint(folder.path());
  const auto refuses = [&](auto other, const Metadata& settings, const std::string& message) {
    other.train(1);
    const auto before = other.numbers();
    NHA_EXPECT_ERROR(checkpoint.restore(other.model, other.optimizer, settings), FormatError,
                     "training.safetensors: " + message);
    EXPECT_EQ(other.numbers(), before);
    EXPECT_EQ(other.optimizer.steps(), 1);
  };
  const Metadata same{{"batch", "8"}};
  refuses(ToyRun<float>(options), {{"batch", "9"}}, "setting 'batch' is '8'; this run has '9'");
  refuses(ToyRun<float>(options), {}, "setting 'batch' is '8'; this run has no such setting");
  refuses(ToyRun<float>(options), {{"batch", "8"}, {"data", "x"}},
          "has no setting 'data'; this run has 'x'");
  refuses(ToyRun<float>(options, 1, {.beta1 = 0.8}), same,
          "optimizer option 'beta1' is '0.9'; this run has '0.8'");
  refuses(ToyRun<float>(options, 1, {.decay_embeddings = false}), same,
          "optimizer option 'decay_embeddings' is 'true'; this run has 'false'");
  refuses(ToyRun<double>(options), same, "its tensors are F32; expected F64");
  nha::ModelOptions other = options;
  nha_test::set_windows(other, {6, 6});
  refuses(ToyRun<float>(other), same,
          "is of a model with \"window_size\": 5, where this one has \"window_size\": 6,");
  other = options;
  other.tied_head = true;
  refuses(ToyRun<float>(other), same,
          "is of a model with \"tie_word_embeddings\": false, where this one has "
          "\"tie_word_embeddings\": true,");
}

TEST(TrainingCheckpointFile, AnOptimizerOfAnotherModelIsRefused) {
  const nha_test::TemporaryFolder folder;
  nha::ModelOptions options = nha_test::small_model();
  ToyRun<float> run(options);
  run.save(folder.path());
  options.vocabulary = 12;
  ToyRun<float> larger(options);
  NHA_EXPECT_ERROR(nha::save_training(folder.path(), run.model, larger.optimizer, run.record()),
                   nha::ArgumentError,
                   "the optimizer has first_moment.model.embeddings.weight [12, 12]; the model has "
                   "no such weight");
  options.vocabulary = 11;
  options.tied_head = true;
  ToyRun<float> tied(options);
  NHA_EXPECT_ERROR(nha::save_training(folder.path(), tied.model, run.optimizer, run.record()),
                   nha::ArgumentError,
                   "the optimizer has first_moment.lm_head.weight [11, 12]; the model has no such");
  const TrainingCheckpoint checkpoint(folder.path());
  NHA_EXPECT_ERROR(checkpoint.restore(run.model, larger.optimizer, {{"batch", "8"}}),
                   nha::ArgumentError, "the optimizer has first_moment.model.embeddings.weight");
}

// --- Frozen weights
// ------------------------------------------------------------------------------

/// A run that trains the layers alone.
struct FrozenRun {
  static bool trains(std::string_view name) { return name.starts_with("model.layers."); }

  nha::LanguageModel<float> model;
  AdamW<float> optimizer{nha::parameters(model, trains), {}};

  void train(int first, int last) {
    nha::TrainingWorkspace<float> workspace;
    auto gradients = nha::zero_weights<float>(model.options(), trains);
    const auto list = nha::parameters(model.options(), gradients);
    for (int step = first; step < last; ++step) {
      const auto tokens = nha_test::random_tokens(2, 9, model.options().vocabulary,
                                                  static_cast<std::uint32_t>(step));
      nha::loss_and_gradients(model, {tokens, tokens}, gradients, workspace);
      optimizer.step(nha::parameters(model, trains), list, 0.01);
    }
  }
};

TEST(TrainingCheckpointFile, RunsWithFrozenWeightsGoOnAsIfTheyHadNeverStopped) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  FrozenRun whole{nha_test::random_model<float>(options, 3)};
  whole.train(0, 4);
  nha::save_training(folder.path(), whole.model, whole.optimizer, {.steps = 4});
  whole.train(4, 7);
  FrozenRun resumed{nha_test::random_model<float>(options, 99)};
  TrainingCheckpoint(folder.path()).restore(resumed.model, resumed.optimizer, {});
  resumed.train(4, 7);
  const auto expected = nha::parameters(std::as_const(whole.model));
  const auto found = nha::parameters(std::as_const(resumed.model));
  for (std::size_t n = 0; n < found.size(); ++n)
    EXPECT_TRUE(std::ranges::equal(found[n].values, expected[n].values)) << found[n].name;
  const nha::Safetensors file(folder.file("training.safetensors"));
  EXPECT_EQ(file.find("first_moment.lm_head.weight"), nullptr);
  EXPECT_NE(file.find("lm_head.weight"), nullptr);
}

TEST(TrainingCheckpointFile, OtherWeightsThatTrainAreNamed) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  FrozenRun frozen{nha_test::random_model<float>(options, 3)};
  ToyRun<float> all(options, 3);
  nha::save_training(folder.file("frozen"), frozen.model, frozen.optimizer, {});
  nha::save_training(folder.file("all"), all.model, all.optimizer, {});
  NHA_EXPECT_ERROR(TrainingCheckpoint(folder.file("frozen")).restore(all.model, all.optimizer, {}),
                   FormatError,
                   "has no first_moment.model.embeddings.weight; this run trains that weight");
  NHA_EXPECT_ERROR(
      TrainingCheckpoint(folder.file("all")).restore(frozen.model, frozen.optimizer, {}),
      FormatError, "has first_moment.lm_head.weight; this run does not train that weight");
}

// --- Damaged and foreign files
// -------------------------------------------------------------------

/// A saved run whose file a test changes.
class TrainingFile : public testing::Test {
 protected:
  TrainingFile() {
    ToyRun<float> run(nha_test::small_model());
    run.train(1);
    run.save(folder.path());
    original = nha_test::read_text(path);
  }
  /// The file written anew with other metadata and tensors, and a checksum that suits them.
  template <class Change>
  void rewrite(const Change& change) {
    nha_test::write_text(path, original);
    Metadata metadata;
    std::vector<nha::TensorToSave> tensors;
    const std::string kept = original;
    const nha::Safetensors file(std::as_bytes(std::span<const char>(kept)));
    metadata = file.metadata();
    std::vector<std::vector<float>> values;
    for (const nha::StoredTensor& stored : file.tensors()) {
      values.push_back(stored.to_vector<float>());
      tensors.emplace_back(stored.name, stored.shape, std::span<const float>(values.back()));
    }
    change(metadata, tensors);
    nha::detail::TrainingChecksum checksum(metadata);
    std::ranges::sort(tensors, {}, [](const auto& tensor) { return tensor.name(); });
    for (const nha::TensorToSave& tensor : tensors) {
      checksum.add(tensor.name());
      tensor.emit([&](std::span<const std::byte> piece) { checksum.add(piece); });
    }
    metadata["checksum"] = checksum.text();
    nha::save_safetensors(path, tensors, metadata);
  }

  nha_test::TemporaryFolder folder;
  std::string path = folder.file("training.safetensors");
  std::string original;
};

TEST_F(TrainingFile, NoDamagedByteGoesUnnoticed) {
#if !NHA_HAS_EXCEPTIONS
  GTEST_SKIP() << "a process for each of hundreds of bytes";
#endif
  for (std::size_t at = 0; at < original.size(); at += at < 6000 ? 7 : 97) {
    std::string damaged = original;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    nha_test::write_text(path, damaged);
    NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError, "training.safetensors");
  }
}

TEST_F(TrainingFile, PartsOfAFileAreNone) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{100},
                                 original.size() / 2, original.size() - 1}) {
    nha_test::write_text(path, original.substr(0, size));
    NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError, "training.safetensors: ");
  }
  std::filesystem::remove(path);
  NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError,
                   "training.safetensors: cannot open");
}

TEST_F(TrainingFile, DamagedNumbersAreNamedAsSuch) {
  std::string damaged = original;
  damaged.back() = static_cast<char>(damaged.back() ^ 64);
  nha_test::write_text(path, damaged);
  NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError,
                   "training.safetensors: damaged: its checksum does not match");
}

TEST_F(TrainingFile, AModelAloneIsNoTrainingCheckpoint) {
  std::filesystem::copy_file(folder.file("model.safetensors"), path,
                             std::filesystem::copy_options::overwrite_existing);
  NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError,
                   "no training checkpoint: its metadata have no format");
}

TEST_F(TrainingFile, WrongMetadataAreNamed) {
  rewrite([](Metadata&, auto&) {});
  EXPECT_EQ(nha_test::read_text(path), original);  // what follows is refused for what it changes
  const auto refuses = [&](const char* key, const char* value, const std::string& message) {
    rewrite([&](Metadata& metadata, auto&) {
      if (value == nullptr)
        metadata.erase(key);
      else
        metadata[key] = value;
    });
    NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError,
                     "training.safetensors: " + message);
  };
  refuses("format", "nha training checkpoint 2",
          "format is 'nha training checkpoint 2'; expected 'nha training checkpoint 1'");
  refuses("steps", nullptr, "its metadata have no steps");
  refuses("steps", "-1", "steps is '-1'; expected an integer from 0 to 9223372036854775807");
  refuses("steps", "9223372036854775808", "steps is '9223372036854775808'; expected an integer");
  refuses("seed", "1 ", "seed is '1 '; expected an integer");
  refuses("optimizer", "SGD", "optimizer is 'SGD'; expected 'AdamW'");
  refuses("optimizer.steps", "", "optimizer.steps is ''; expected an integer");
  refuses("config", nullptr, "its metadata have no config");
  refuses("config", "{}", "config: the key vocab_size is missing");
}

TEST_F(TrainingFile, TensorsMustBeThoseOfItsConfiguration) {
  const auto refuses = [&](const auto& change, const std::string& message) {
    rewrite(change);
    NHA_EXPECT_ERROR(TrainingCheckpoint(folder.path()), FormatError,
                     "training.safetensors: " + message);
  };
  const std::vector<float> floats(12);
  const std::vector<double> doubles(12);
  using Tensors = std::vector<nha::TensorToSave>;
  const auto erase = [](Tensors& tensors, const std::string& name) {
    std::erase_if(tensors, [&](const auto& tensor) { return tensor.name() == name; });
  };
  refuses([&](Metadata&, Tensors& tensors) { erase(tensors, "second_moment.model.norm.weight"); },
          "no tensor 'second_moment.model.norm.weight'");
  refuses(
      [&](Metadata&, Tensors& tensors) {
        tensors.emplace_back("third_moment.model.norm.weight", std::vector<nha::Index>{12},
                             std::span<const float>(floats));
      },
      "tensor 'third_moment.model.norm.weight' belongs to no part of the run");
  refuses(
      [&](Metadata&, Tensors& tensors) {
        erase(tensors, "model.norm.weight");
        tensors.emplace_back("model.norm.weight", std::vector<nha::Index>{6, 2},
                             std::span<const float>(floats));
      },
      "tensor 'model.norm.weight' has shape [6, 2]; its configuration makes it [12]");
  refuses(
      [&](Metadata&, Tensors& tensors) {
        erase(tensors, "model.norm.weight");
        tensors.emplace_back("model.norm.weight", std::vector<nha::Index>{12},
                             std::span<const double>(doubles));
      },
      "tensor 'model.norm.weight' is F64; the first one is F32");
  refuses(
      [&](Metadata& metadata, Tensors&) {
        nha::ModelOptions options = nha_test::small_model();
        options.layers = nha::repeat(1 << 16, options.layers.front());
        metadata["config"] = nha::model_config_text(options);
      },
      "75 tensors; too few for the 65536 layers of its configuration");
}

// --- Programs that are killed
// --------------------------------------------------------------------

#if NHA_TEST_CAN_KILL
TEST(TrainingCheckpointFile, KilledProgramsLeaveOneOfTheirSaves) {
  const nha_test::TemporaryFolder folder;
  // Two runs of unlike models in turn: what is read must be of one of them and whole.
  nha::ModelOptions options = nha_test::small_model();
  ToyRun<float> first(options, 1);
  nha_test::set_windows(options, {9, 9});
  ToyRun<float> second(options, 2);
  first.train(1);
  second.train(2);
  first.save(folder.path());
  std::mt19937 random(7);
  int models = 0;
  for (int round = 0; round < 12; ++round) {
    const std::chrono::microseconds time(std::uniform_int_distribution<int>(200, 30000)(random));
    nha_test::run_and_kill([&](int n) { (n % 2 == 0 ? second : first).save(folder.path()); },
                           nha_test::AfterTime(time));
    const TrainingCheckpoint checkpoint(folder.path());
    const ToyRun<float>& saved = checkpoint.record().seed == 1 ? first : second;
    ToyRun<float> resumed(checkpoint.options(), 3);
    resumed.resume(checkpoint);
    EXPECT_EQ(resumed.model.options(), saved.model.options());
    EXPECT_EQ(resumed.numbers(), saved.numbers());
    EXPECT_EQ(checkpoint.record(), saved.record());
    // The model beside it may be of the save before, or not there for a moment, but it is whole.
    if (!std::filesystem::exists(folder.file("model.safetensors"))) continue;
    ++models;
    const auto model = nha::load_language_model<float>(folder.path());
    const ToyRun<float>& run = model.options() == first.model.options() ? first : second;
    const auto expected = nha::parameters(run.model);
    const auto found = nha::parameters(model);
    for (std::size_t n = 0; n < expected.size(); ++n)
      EXPECT_TRUE(std::ranges::equal(found[n].values, expected[n].values)) << expected[n].name;
  }
  EXPECT_GT(models, 0);
  // What the killed ones had not finished goes with the next save.
  second.save(folder.path());
  first.save(folder.path());
  EXPECT_EQ(folder.names().size(), 3u);
}
#endif

}  // namespace
