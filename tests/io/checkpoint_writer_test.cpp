// SPDX-License-Identifier: MIT
#include <nha/io/checkpoint.hpp>
#include <nha/io/checkpoint_writer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/killed_process.hpp"
#include "support/random_model.hpp"
#include "support/temporary_folder.hpp"

namespace {

/// Every bit of the weights, with their names.
template <class T>
std::vector<std::pair<std::string, std::vector<T>>> weight_bits(
    const nha::ModelOptions& options, const nha::LanguageModelWeights<T>& weights) {
  std::vector<std::pair<std::string, std::vector<T>>> out;
  for (const auto& parameter : nha::parameters(options, weights))
    out.push_back({parameter.name, {parameter.values.begin(), parameter.values.end()}});
  return out;
}
template <class T>
bool same_bits(const nha::ModelOptions& options, const nha::LanguageModelWeights<T>& a,
               const nha::LanguageModelWeights<T>& b) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return std::ranges::equal(
      weight_bits(options, a), weight_bits(options, b), [](const auto& x, const auto& y) {
        return x.first == y.first && std::ranges::equal(x.second, y.second, [](T p, T q) {
                 return std::bit_cast<Bits>(p) == std::bit_cast<Bits>(q);
               });
      });
}
template <class T>
nha::LanguageModelWeights<T> stored_weights(const std::string& folder,
                                            const nha::ModelOptions& options) {
  return nha::read_weights<T>(nha::Safetensors(folder + "/model.safetensors"), options);
}

nha::ModelOptions convolving_model() {
  nha::LayerOptions layer = nha_test::convolving(3);
  layer.convolution_bias = true;
  layer.feature_map = nha::FeatureMap::t2r;
  layer.gate_bias = true;
  return nha_test::small_model(layer);
}

template <class T>
class CheckpointWriter : public testing::Test {};
using WriterReals = testing::Types<float, double>;
TYPED_TEST_SUITE(CheckpointWriter, WriterReals);

TYPED_TEST(CheckpointWriter, WhatIsWrittenIsReadBackToTheBit) {
  nha::ModelOptions tied_options = convolving_model();
  tied_options.tied_head = true;
  for (const nha::ModelOptions& options :
       {convolving_model(), tied_options, nha_test::unlike_layers()}) {
    const nha_test::TemporaryFolder folder;
    auto weights = nha_test::random_model_weights<TypeParam>(options, 3);
    weights.norm(0) = std::numeric_limits<TypeParam>::denorm_min();
    weights.norm(1) = -TypeParam{0};
    weights.norm(2) = std::numeric_limits<TypeParam>::quiet_NaN();
    nha::save_language_model(folder.path(), options, weights, {{"steps", "7"}});
    EXPECT_EQ(nha::load_model_config(folder.file("config.json")), options);
    EXPECT_TRUE(same_bits(options, weights, stored_weights<TypeParam>(folder.path(), options)));
    EXPECT_EQ(nha::load_language_model<TypeParam>(folder.path()).options(), options);
    EXPECT_EQ(*nha::Safetensors(folder.file("model.safetensors")).find_metadata("steps"), "7");
    EXPECT_EQ(folder.names().size(), 2u);
  }
}

TEST(SaveLanguageModel, AModelAndItsWeightsGiveTheSameFiles) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = convolving_model();
  const auto weights = nha_test::random_model_weights<float>(options);
  nha::save_language_model(folder.file("a"), options, weights);
  nha::save_language_model(folder.file("b"), nha::LanguageModel<float>(options, weights));
  for (const char* name : {"/config.json", "/model.safetensors"})
    EXPECT_EQ(nha_test::read_text(folder.file("a") + name),
              nha_test::read_text(folder.file("b") + name));
}

TEST(SaveLanguageModel, MakesTheFolder) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  const auto weights = nha_test::random_model_weights<float>(options);
  nha::save_language_model(folder.file("a/b"), options, weights);
  EXPECT_TRUE(same_bits(options, weights, stored_weights<float>(folder.file("a/b"), options)));
  nha_test::write_text(folder.file("c"), "");
  NHA_EXPECT_ERROR(nha::save_language_model(folder.file("c/d"), options, weights), nha::FormatError,
                   "c/d: cannot make the folder: ");
}

TEST(SaveLanguageModel, ReplacesACheckpointAndNothingElse) {
  const nha_test::TemporaryFolder folder;
  nha::ModelOptions options = nha_test::small_model();
  nha_test::write_text(folder.file("README.md"), "words");
  nha::save_language_model(folder.path(), options, nha_test::random_model_weights<float>(options));
  for (const int seed : {2, 3}) {
    const auto weights =
        nha_test::random_model_weights<float>(options, static_cast<std::uint32_t>(seed));
    nha::save_language_model(folder.path(), options, weights);
    EXPECT_EQ(nha::load_model_config(folder.file("config.json")), options);
    EXPECT_TRUE(same_bits(options, weights, stored_weights<float>(folder.path(), options)));
    EXPECT_EQ(folder.names().size(), 3u);
    nha_test::set_windows(options, {9, 9});  // the second time, config.json is another too
  }
  EXPECT_EQ(nha_test::read_text(folder.file("README.md")), "words");
}

#if NHA_HAS_EXCEPTIONS
TEST(SaveLanguageModel, ErrorsLeaveTheOldCheckpoint) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  auto weights = nha_test::random_model_weights<float>(options);
  nha::save_language_model(folder.path(), options, weights);
  const std::string before = nha_test::read_text(folder.file("model.safetensors"));
  nha::ModelOptions other = options;
  nha_test::set_windows(other, {9, 9});
  NHA_EXPECT_ERROR(nha::save_language_model(folder.path(), other, weights, {{"k", "\xff"}}),
                   nha::ArgumentError, "metadata value");
  other.layers[1].options.convolution_bias = true;
  NHA_EXPECT_ERROR(nha::save_language_model(folder.path(), other, weights), nha::ArgumentError,
                   "convolution_bias");
  weights.norm = nha::Tensor<float, 1>({11});
  NHA_EXPECT_ERROR(nha::save_language_model(folder.path(), options, weights), nha::ArgumentError,
                   "weight model.norm.weight is [11]; expected [12]");
  weights.norm = {};
  NHA_EXPECT_ERROR(nha::save_language_model(folder.path(), options, weights), nha::ArgumentError,
                   "weight model.norm.weight is [0]; expected [12]");
  EXPECT_EQ(nha_test::read_text(folder.file("model.safetensors")), before);
  EXPECT_EQ(nha::load_model_config(folder.file("config.json")), options);
  EXPECT_EQ(folder.names().size(), 2u);
}

// A folder in the place of config.json stops the second of the two files, after the first has been
// written under its temporary name.
TEST(SaveLanguageModel, WeightsDoNotAppearWithoutTheirConfiguration) {
  const nha_test::TemporaryFolder folder;
  const nha::ModelOptions options = nha_test::small_model();
  std::filesystem::create_directory(folder.file("config.json"));
  NHA_EXPECT_ERROR(nha::save_language_model(folder.path(), options,
                                            nha_test::random_model_weights<float>(options)),
                   nha::FormatError, "config.json: cannot write: ");
  EXPECT_EQ(folder.names().size(), 1u);
}
#endif

#if NHA_TEST_CAN_KILL
// Killed as soon as config.json is another, before the weights have followed it.
TEST(SaveLanguageModel, KilledProgramsLeaveNoWeightsOfAnotherConfiguration) {
  const nha_test::TemporaryFolder folder;
  nha::ModelOptions options = nha_test::small_model();
  const nha::LanguageModel<float> first = nha_test::random_model<float>(options, 1);
  nha_test::set_windows(options,
                        {9, 9});  // the same shapes: nothing but the numbers tells them apart
  const nha::LanguageModel<float> second = nha_test::random_model<float>(options, 2);
  nha::save_language_model(folder.path(), first);
  for (int round = 0; round < 12; ++round) {
    nha_test::run_and_kill(
        [&](int n) { nha::save_language_model(folder.path(), n % 2 == 0 ? second : first); },
        nha_test::AfterReplacing(folder.file("config.json")));
    const nha::ModelOptions found = nha::load_model_config(folder.file("config.json"));
    if (!std::filesystem::exists(folder.file("model.safetensors"))) continue;
    const auto weights = stored_weights<float>(folder.path(), found);
    const nha::LanguageModel<float>& expected = found == first.options() ? first : second;
    EXPECT_EQ(found, expected.options());
    EXPECT_TRUE(std::ranges::equal(weights.norm.values(), expected.norm().values()));
  }
}
#endif

}  // namespace
