// SPDX-License-Identifier: MIT
#include <nha/io/checkpoint.hpp>
#include <nha/io/safetensors_writer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::FormatError;
using nha::LanguageModel;
using nha::LanguageModelState;
using nha::ModelOptions;
using nha::Safetensors;
using nha::Tensor;

// --- The shipped model against results of an independent implementation in float64 ---------------

const std::string kByteModel = NHA_EXAMPLE_DATA_DIR "/byte_lm";

/// Pieces of a text: all at once, single tokens, and both mixed.
const std::vector<std::pair<std::string, std::vector<Index>>> kWays = {
    {"prefill", {300}}, {"steps", {1}}, {"mixed", {70, 1, 1, 1, 17, 1, 2, 40, 1, 1, 5}}};

std::vector<Index> window_list(const std::string& text) {
  std::vector<Index> windows;
  std::istringstream in(text);
  for (std::string number; std::getline(in, number, ',');) windows.push_back(std::stoll(number));
  return windows;
}

template <class T>
class ByteModel : public testing::Test {
 protected:
  LanguageModel<T> model = nha::load_language_model<T>(kByteModel);
  Safetensors expected{kByteModel + "/expected.safetensors"};
  Tensor<std::int32_t, 2> tokens{Tensor<std::int32_t, 2>({1, 300})};

  ByteModel() {
    const auto stored = expected.at("tokens").template to_vector<std::int64_t>();
    std::copy(stored.begin(), stored.end(), tokens.values().begin());
  }
};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(ByteModel, Reals);

TYPED_TEST(ByteModel, GivesTheExpectedResultsAtEveryWindowInEveryWay) {
  for (const char* name : {"w8", "w32", "w128", "mixed"})
    for (const auto& [way, pieces] : kWays) {
      SCOPED_TRACE(name + (" in " + way));
      const std::string* windows = this->expected.find_metadata(std::string("windows.") + name);
      ASSERT_NE(windows, nullptr);
      auto state = this->model.make_state({.windows = window_list(*windows)});
      const ModelRun<TypeParam> run = run_model(this->model, state, this->tokens.view(), pieces);
      const auto results = [&](const char* what) {
        return this->expected.at(std::string(what) + name).template to_vector<TypeParam>();
      };
      const auto difference = [](const auto& found, const auto& wanted) {
        return largest_difference(found.values(), std::span<const TypeParam>(wanted));
      };
      EXPECT_LT(difference(run.logits, results("logits.")), 1e-4);
      EXPECT_LT(difference(run.hidden, results("hidden.")), 1e-4);
      EXPECT_LT(difference(run.slot_share, results("slot_share.")), 1e-5);
      EXPECT_EQ(state.tokens_seen(0), 300);
    }
}

TYPED_TEST(ByteModel, SaysWhatItsConfigurationSays) {
  const ModelOptions& options = this->model.options();
  EXPECT_EQ(options.vocabulary, 256);
  ASSERT_EQ(options.layers.size(), 4u);
  EXPECT_EQ(options.layers, nha::repeat(4, options.layers.front()));
  const auto& [shape, layer] = options.layers.front();
  EXPECT_EQ(options.intermediate, 384);
  EXPECT_EQ(shape, (nha::LayerShape{.hidden = 128,
                                    .query_heads = 4,
                                    .kv_heads = 2,
                                    .key_dim = 32,
                                    .value_dim = 32,
                                    .slots = 24}));
  EXPECT_EQ(layer.convolution_kernel_size, 4);
  EXPECT_FALSE(layer.convolution_bias);
  EXPECT_EQ(layer.feature_map, nha::FeatureMap::swish);
  EXPECT_EQ(layer.attention.window, 32);
  EXPECT_FALSE(layer.attention.slot_delay.has_value());
  EXPECT_FALSE(options.tied_head);
}

// --- Files that are not quite right
// ---------------------------------------------------------------

constexpr const char* kConfig = R"({"vocab_size": 11, "hidden_size": 12, "num_hidden_layers": 2,
  "num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "num_slots": 3, "intermediate_size": 20,
  "window_size": 5, "empty_slots": "participate")";

/// A visitor that remembers weights by name, for files.
struct NameWeights {
  std::map<std::string, nha::TensorToSave>& named;
  template <int Rank>
  void operator()(const std::string& name, const Tensor<float, Rank>& weight,
                  const typename Tensor<float, Rank>::Sizes&) {
    named.insert_or_assign(name, nha::TensorToSave(name, weight.view()));
  }
};

/// A folder with a small model, whose tensors a test may change before it is read.
class Checkpoint : public testing::Test {
 protected:
  void use(const std::string& more_config = "}") {
    write_text(folder.file("config.json"), kConfig + more_config);
    options = nha::load_model_config(folder.file("config.json"));
    weights = random_model_weights<float>(options, 7);
    NameWeights visit{named};
    nha::visit_weights(options, weights, visit);
  }
  template <class T, int Rank>
  void put(const std::string& name, const Tensor<T, Rank>& tensor) {
    named.insert_or_assign(name, nha::TensorToSave(name, tensor.view()));
  }
  /// The tensors as another type, rounded.
  template <class To>
  std::vector<Tensor<To, 1>> convert_all() {
    std::vector<Tensor<To, 1>> kept;
    const std::vector<std::byte> bytes = saved();
    const Safetensors file(bytes);
    for (const nha::StoredTensor& stored : file.tensors()) {
      kept.push_back(Tensor<To, 1>({stored.size()}));
      stored.convert_to(kept.back().values());
      To* data = kept.back().data();
      if (stored.shape.size() == 1)
        named.insert_or_assign(stored.name, nha::TensorToSave(stored.name, kept.back().view()));
      else
        named.insert_or_assign(
            stored.name,
            nha::TensorToSave(stored.name, nha::TensorView<To, nha::Dynamic, nha::Dynamic>(
                                               data, {stored.shape[0], stored.shape[1]})));
    }
    return kept;
  }
  std::vector<std::byte> saved() const {
    std::vector<nha::TensorToSave> list;
    for (const auto& [name, tensor] : named) list.push_back(tensor);
    return nha::safetensors_bytes(list);
  }
  template <class T = float>
  LanguageModel<T> load() {
    std::vector<nha::TensorToSave> list;
    for (const auto& [name, tensor] : named) list.push_back(tensor);
    nha::save_safetensors(folder.file("model.safetensors"), list);
    return nha::load_language_model<T>(folder.path());
  }
  template <class T>
  static Tensor<T, 3> logits(const LanguageModel<T>& model) {
    LanguageModelState<T> state = model.make_state();
    return std::move(run_model(model, state, random_tokens(1, 9, 11).view(), {9}).logits);
  }

  TemporaryFolder folder;
  ModelOptions options;
  nha::LanguageModelWeights<float> weights;
  std::map<std::string, nha::TensorToSave> named;
};

TEST_F(Checkpoint, EveryWeightReachesItsPlace) {
  use(R"(, "feature_map": "t2r", "use_short_conv": true, "conv_size": 3, "conv_bias": true})");
  const LanguageModel<float> loaded = load();
  EXPECT_EQ(loaded.options(), options);
  EXPECT_EQ(named.size(), 1 + 2 * (2 + 6 + 1 + 6 + 3) + 2u);
  // The random weights all differ, so a single one in another's place would change the logits.
  const auto expected = logits(LanguageModel<float>(options, std::move(weights)));
  EXPECT_EQ(largest_difference(logits(loaded), expected), 0);
}

TEST_F(Checkpoint, HalfTypesAreConvertedOnReading) {
  use();
  const auto exact = logits(load<double>());
  {
    const auto kept = convert_all<nha::float16>();
    const auto half = logits(load<float>());
    EXPECT_LT(largest_difference(half, exact), 0.05);
    EXPECT_GT(largest_difference(half, exact), 1e-5);
  }
  use();
  {
    const auto kept = convert_all<nha::bfloat16>();
    const auto half = logits(load<float>());
    EXPECT_LT(largest_difference(half, exact), 0.4);
    EXPECT_GT(largest_difference(half, exact), 1e-4);
  }
  use();
  const auto kept = convert_all<double>();
  EXPECT_LT(largest_difference(logits(load<float>()), exact), 1e-4);
}

TEST_F(Checkpoint, ATiedHeadIsTheEmbedding) {
  use(R"(, "tie_word_embeddings": true})");
  EXPECT_EQ(named.count("lm_head.weight"), 0u);
  const auto tied = logits(load());
  ModelOptions untied = options;
  untied.tied_head = false;
  nha::LanguageModelWeights<float> copy = weights;
  copy.head = weights.embeddings;
  EXPECT_EQ(largest_difference(tied, logits(LanguageModel<float>(untied, std::move(copy)))), 0);
  // Some files hold it all the same.
  put("lm_head.weight", weights.embeddings);
  EXPECT_EQ(largest_difference(tied, logits(load())), 0);
}

TEST_F(Checkpoint, AHeadThatIsNotTheOneItIsTiedToIsRefused) {
  use(R"(, "tie_word_embeddings": true})");
  Tensor<float, 2> head = weights.embeddings;
  head(3, 4) += 1;
  put("lm_head.weight", head);
  NHA_EXPECT_ERROR(load(), FormatError,
                   "tensor 'lm_head.weight' differs from 'model.embeddings.weight'; the "
                   "configuration says tie_word_embeddings");
  const Tensor<std::int64_t, 1> integers({3});
  put("lm_head.weight", integers);
  NHA_EXPECT_ERROR(load(), FormatError,
                   "tensor 'lm_head.weight' is I64 [3]; the configuration says "
                   "tie_word_embeddings, and the embeddings are F32 [11, 12]");
  const Tensor<float, 2> turned({12, 11});
  put("lm_head.weight", turned);
  NHA_EXPECT_ERROR(load(), FormatError, "tensor 'lm_head.weight' is F32 [12, 11]; the");
}

TEST_F(Checkpoint, MissingTensorsAreNamed) {
  use();
  named.erase("model.layers.1.attn.f_proj.weight");
  NHA_EXPECT_ERROR(load(), FormatError, "no tensor 'model.layers.1.attn.f_proj.weight'");
}

TEST_F(Checkpoint, UnknownTensorsAreNamed) {
  use();
  const Tensor<float, 1> bias({24});
  put("model.layers.0.attn.q_proj.bias", bias);
  NHA_EXPECT_ERROR(load(), FormatError,
                   "tensor 'model.layers.0.attn.q_proj.bias' belongs to no part of the model");
}

TEST_F(Checkpoint, LayersBeyondTheConfigurationAreUnknown) {
  use();
  put("model.layers.2.attn_norm.weight", weights.norm);
  NHA_EXPECT_ERROR(load(), FormatError, "'model.layers.2.attn_norm.weight' belongs to no part");
}

TEST_F(Checkpoint, WrongShapesAreNamed) {
  use();
  const Tensor<float, 2> turned({12, 24});
  put("model.layers.0.attn.q_proj.weight", turned);
  NHA_EXPECT_ERROR(load(), FormatError,
                   "tensor 'model.layers.0.attn.q_proj.weight' has shape [12, 24]; "
                   "the configuration makes it [24, 12]");
  use();
  const Tensor<float, 2> matrix({12, 1});
  put("model.norm.weight", matrix);
  NHA_EXPECT_ERROR(load(), FormatError, "'model.norm.weight' has shape [12, 1]");
}

TEST_F(Checkpoint, WrongTypesAreNamed) {
  use();
  const Tensor<std::int32_t, 1> norm({12});
  put("model.norm.weight", norm);
  NHA_EXPECT_ERROR(load(), FormatError,
                   "tensor 'model.norm.weight' is I32; expected F64, F32, F16 or BF16");
}

TEST_F(Checkpoint, FilesMustBeThere) {
  NHA_EXPECT_ERROR(nha::load_language_model<float>(folder.path()), FormatError,
                   "config.json: cannot open");
  use();
  NHA_EXPECT_ERROR(nha::load_language_model<float>(folder.path()), FormatError,
                   "model.safetensors: cannot open");
  write_text(folder.file("model.safetensors"), "short");
  NHA_EXPECT_ERROR(nha::load_language_model<float>(folder.path()), FormatError,
                   "5 bytes; a safetensors file has at least 8");
}

TEST_F(Checkpoint, TakesNoMemoryForLayersThatAreMerelyClaimed) {
  use();
  options.layers = nha::repeat(1 << 20, options.layers.front());
  const std::vector<std::byte> bytes = saved();
  NHA_EXPECT_ERROR(nha::read_weights<float>(Safetensors(bytes), options), FormatError,
                   "25 tensors; too few for the 1048576 layers");
}

}  // namespace
