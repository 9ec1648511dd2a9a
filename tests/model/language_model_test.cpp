// SPDX-License-Identifier: MIT
#include <nha/model/language_model.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "model/direct_layer.hpp"
#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"
#include "support/watching_memory.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::Dynamic;
using nha::ForwardOptions;
using nha::LanguageModel;
using nha::LanguageModelState;
using nha::LanguageModelWeights;
using nha::LayerOptions;
using nha::LayerWorkspace;
using nha::ModelOptions;
using nha::Tensor;

constexpr Index kModelTokens = 23;

std::vector<std::pair<std::string, ModelOptions>> models() {
  std::vector<std::pair<std::string, ModelOptions>> all;
  for (const auto& [name, layer] : {std::pair{"nha_v1", nha::nha_v1(3)},
                                    {"nha_v2", nha::nha_v2(5)},
                                    {"gsa", nha::gsa()},
                                    {"full window", nha::nha_v1(100)}})
    all.emplace_back(name, small_model(layer));
  LayerOptions layer = nha::nha_v1(4);
  layer.convolution_kernel_size = 4;
  layer.feature_map = nha::FeatureMap::t2r;
  ModelOptions options = small_model(layer);
  set_windows(options, {0, 6});
  options.tied_head = true;
  all.emplace_back("convolutions, tied head, windows of layers", options);
  all.emplace_back("unlike layers", unlike_layers());
  return all;
}

// --- Values
// ----------------------------------------------------------------------------------------

Matrix plain_rms_norm(const Matrix& x, const Tensor<double, 1>& weight, double eps) {
  Matrix y = x;
  for (auto& row : y) {
    double squares = 0;
    for (double value : row) squares += value * value;
    const double root = std::sqrt(squares / static_cast<double>(row.size()) + eps);
    for (std::size_t c = 0; c < row.size(); ++c)
      row[c] = row[c] / root * weight(static_cast<Index>(c));
  }
  return y;
}
void add(const Matrix& update, Matrix& x) {
  for (std::size_t t = 0; t < x.size(); ++t)
    for (std::size_t c = 0; c < x[t].size(); ++c) x[t][c] += update[t][c];
}

/// Logits of one text, the plain way.
Matrix direct_logits(const ModelOptions& options, const LanguageModelWeights<double>& weights,
                     const Tensor<std::int32_t, 2>& tokens) {
  Matrix x;
  for (std::int32_t token : tokens.values()) {
    const double* row = &weights.embeddings(token, 0);
    x.emplace_back(row, row + options.hidden());
  }
  for (Index n = 0; n < options.layer_count(); ++n) {
    const auto& block = weights.layers[static_cast<std::size_t>(n)];
    nha::LayerSpec layer = options.layers[static_cast<std::size_t>(n)];
    layer.options.attention = nha::layer_attention_options(options, {}, n);
    DirectLayer attention(layer.shape, layer.options, block.attn);
    add(attention.run(plain_rms_norm(x, block.attn_norm, options.norm_eps)), x);
    const Matrix normed = plain_rms_norm(x, block.mlp_norm, options.norm_eps);
    Matrix gate = plain_linear(block.mlp.gate_proj, normed);
    const Matrix up = plain_linear(block.mlp.up_proj, normed);
    for (std::size_t t = 0; t < gate.size(); ++t)
      for (std::size_t c = 0; c < gate[t].size(); ++c)
        gate[t][c] = plain_silu(gate[t][c]) * up[t][c];
    add(plain_linear(block.mlp.down_proj, gate), x);
  }
  return plain_linear(options.tied_head ? weights.embeddings : weights.head,
                      plain_rms_norm(x, weights.norm, options.norm_eps));
}

TEST(LanguageModel, EqualsADirectEvaluation) {
  const auto tokens = random_tokens(1, kModelTokens, 11);
  for (const auto& [name, options] : models()) {
    SCOPED_TRACE(name);
    const auto weights = random_model_weights<double>(options);
    const Matrix expected = direct_logits(options, weights, tokens);
    const LanguageModel<double> model(options, weights);
    LanguageModelState<double> state = model.make_state();
    const auto logits = std::move(run_model(model, state, tokens.view(), {kModelTokens}).logits);
    for (Index t = 0; t < kModelTokens; ++t)
      for (Index c = 0; c < options.vocabulary; ++c)
        ASSERT_NEAR(logits(0, t, c),
                    expected[static_cast<std::size_t>(t)][static_cast<std::size_t>(c)], 1e-10)
            << t;
  }
}

template <class T>
void expect_same_in_all_pieces(double tolerance) {
  const auto tokens = random_tokens(2, kModelTokens, 11);
  for (const auto& [name, options] : models()) {
    const auto model = random_model<T>(options);
    LanguageModelState<T> state = model.make_state({.batch = 2});
    const ModelRun<T> whole = run_model(model, state, tokens.view(), {kModelTokens});
    for (const std::vector<Index>& pieces :
         {std::vector<Index>{1}, {2}, {5}, {22}, {9, 1, 1, 4, 1}}) {
      SCOPED_TRACE(name + " in pieces of " + std::to_string(pieces.front()));
      LanguageModelState<T> other = model.make_state({.batch = 2});
      EXPECT_LT(largest_difference(run_model(model, other, tokens.view(), pieces), whole),
                tolerance);
      EXPECT_EQ(other.tokens_seen(1), kModelTokens);
    }
  }
}
TEST(LanguageModel, PrefillEqualsStepsEqualsPieces) {
  expect_same_in_all_pieces<double>(1e-11);
}
TEST(LanguageModel, PrefillEqualsStepsEqualsPiecesInFloat) {
  expect_same_in_all_pieces<float>(2e-4);
}

TEST(LanguageModel, AlgorithmsOfTheOperatorAgree) {
  const auto tokens = random_tokens(1, kModelTokens, 11);
  for (const auto& [name, options] : models()) {
    SCOPED_TRACE(name);
    const auto model = random_model<double>(options);
    std::vector<Tensor<double, 3>> found;
    for (const auto algorithm :
         {nha::PrefillAlgorithm::recurrent, nha::PrefillAlgorithm::chunked}) {
      LanguageModelState<double> state = model.make_state();
      LayerWorkspace workspace;
      found.emplace_back(Tensor<double, 3>::Sizes{1, kModelTokens, 11});
      ForwardOptions<double> how;
      how.attention = {.algorithm = algorithm, .chunk = 4};
      model.forward(tokens.view(), state, found.back().view(), workspace, how);
    }
    EXPECT_LT(largest_difference(found[1], found[0]), 1e-11);
  }
}

TEST(LanguageModel, KnowsTheNumberOfItsWeights) {
  for (bool tied : {false, true}) {
    ModelOptions options = small_model();
    options.tied_head = tied;
    // Embeddings and head, the last norm, and two layers: two norms, q, k, v, f, o, g_norm, SwiGLU.
    const Index layer = 2 * 12 + 24 * 12 + 12 * 12 + 10 * 12 + 6 * 12 + 12 * 20 + 20 + 3 * 20 * 12;
    EXPECT_EQ(random_model<float>(options).parameters(), (tied ? 1 : 2) * 11 * 12 + 12 + 2 * layer);
  }
}

// --- Batches
// ---------------------------------------------------------------------------------------

TEST(LanguageModel, ShowsItsWeightsInTheOrderOfACheckpoint) {
  for (const bool tied : {false, true}) {
    LayerOptions layer = convolving();
    layer.gate_bias = true;
    ModelOptions options = small_model(layer);
    options.tied_head = tied;
    const auto weights = random_model_weights<float>(options);
    const LanguageModel<float> model(options, weights);
    std::vector<std::string> names;
    std::vector<float> values;
    nha::visit_weights(options, weights, [&](const std::string& name, const auto& w, const auto&) {
      names.push_back(name);
      values.insert(values.end(), w.values().begin(), w.values().end());
    });
    std::vector<std::string> found_names;
    std::vector<float> found;
    model.visit_weights([&](const std::string& name, const auto& w, const auto& extents) {
      static_assert(std::is_const_v<std::remove_reference_t<decltype(w)>>);
      EXPECT_EQ(w.extents(), extents) << name;
      found_names.push_back(name);
      found.insert(found.end(), w.values().begin(), w.values().end());
    });
    EXPECT_EQ(found_names, names);
    EXPECT_EQ(found, values);
    EXPECT_EQ(static_cast<Index>(found.size()), model.parameters());
  }
}

TEST(LanguageModel, PartsOutsideTheBlocksAreThoseItWasGiven) {
  ModelOptions options = small_model();
  const auto weights = random_model_weights<float>(options);
  const auto same = [](const auto& a, const auto& b) {
    return a.extents() == b.extents() &&
           std::equal(a.values().begin(), a.values().end(), b.values().begin());
  };
  const LanguageModel<float> model(options, weights);
  EXPECT_TRUE(same(model.embeddings(), weights.embeddings));
  EXPECT_TRUE(same(model.norm(), weights.norm));
  EXPECT_TRUE(same(model.head(), weights.head));
  options.tied_head = true;
  const LanguageModel<float> tied(options, random_model_weights<float>(options));
  EXPECT_EQ(&tied.head(), &tied.embeddings());
}

TEST(LanguageModel, ComputesWithWeightsThatHaveChanged) {
  const ModelOptions options = small_model();
  auto weights = random_model_weights<double>(options, 1);
  LanguageModel<double> model(options, weights);
  const LanguageModel<double> other = random_model<double>(options, 2);
  std::vector<double> values;
  other.visit_weights([&](const std::string&, const auto& w, const auto&) {
    values.insert(values.end(), w.values().begin(), w.values().end());
  });
  auto next = values.begin();
  model.visit_weights([&](const std::string&, auto& w, const auto&) {
    for (double& value : w.values()) value = *next++;
  });
  EXPECT_EQ(next, values.end());
  const auto tokens = random_tokens(1, kModelTokens, options.vocabulary);
  auto state = model.make_state(), other_state = other.make_state();
  EXPECT_EQ(largest_difference(run_model(model, state, tokens, {kModelTokens}),
                               run_model(other, other_state, tokens, {kModelTokens})),
            0);
}

TEST(LanguageModel, RowsOfABatchAreIndependent) {
  const auto tokens = random_tokens(3, kModelTokens, 11);
  for (const auto& [name, options] : models()) {
    SCOPED_TRACE(name);
    const auto model = random_model<double>(options);
    LanguageModelState<double> together = model.make_state({.batch = 3});
    const auto all = std::move(run_model(model, together, tokens.view(), {10}).logits);
    for (Index b = 0; b < 3; ++b) {
      LanguageModelState<double> alone = model.make_state();
      const auto one =
          std::move(run_model(model, alone, tokens.view().slice<0>(b, 1), {10}).logits);
      const auto row = all.values().subspan(static_cast<std::size_t>(b * one.size()),
                                            static_cast<std::size_t>(one.size()));
      EXPECT_LT(largest_difference(row, one.values()), 1e-12) << b;
    }
  }
}

TEST(LanguageModel, PackedSequencesEqualSeparateOnes) {
  const auto tokens = random_tokens(1, kModelTokens, 11);
  const std::vector<std::int64_t> cu = {0, 9, 9, 10, kModelTokens};
  for (const auto& [name, options] : models()) {
    SCOPED_TRACE(name);
    const auto model = random_model<double>(options);
    LanguageModelState<double> packed = model.make_state({.batch = 4}), last = packed;
    ModelRun<double> run(options, 1, kModelTokens);
    Tensor<double, 3> ends({4, 1, 11});
    std::fill(ends.values().begin(), ends.values().end(), 7.0);
    LayerWorkspace workspace;
    ForwardOptions<double> how{
        .cu_seqlens = cu, .hidden = run.hidden, .slot_share = run.slot_share};
    model.forward(tokens.view(), packed, run.logits.view(), workspace, how);
    model.forward(tokens.view(), last, ends.view(), workspace, {.cu_seqlens = cu});
    EXPECT_TRUE(packed == last);
    for (Index n : {0, 2, 3}) {
      SCOPED_TRACE(n);
      const auto first = static_cast<Index>(cu[static_cast<std::size_t>(n)]);
      const auto count = static_cast<Index>(cu[static_cast<std::size_t>(n) + 1]) - first;
      LanguageModelState<double> alone = model.make_state();
      const ModelRun<double> one =
          run_model(model, alone, tokens.view().slice<1>(first, count), {count});
      for (Index t = 0; t < count; ++t)
        for (Index c = 0; c < 11; ++c)
          ASSERT_NEAR(run.logits(0, first + t, c), one.logits(0, t, c), 1e-12);
      for (Index c = 0; c < 11; ++c) ASSERT_NEAR(ends(n, 0, c), one.logits(0, count - 1, c), 1e-12);
      EXPECT_NEAR(run.hidden(1, 0, first, 3), one.hidden(1, 0, 0, 3), 1e-12);
      EXPECT_NEAR(run.slot_share(1, 0, first, 2), one.slot_share(1, 0, 0, 2), 1e-12);
    }
    EXPECT_EQ(ends(1, 0, 4), 7);  // a sequence without tokens has no logits
    EXPECT_EQ(packed.tokens_seen(1), 0);
  }
}

TEST(LanguageModel, LogitsOfTheLastTokensAloneAreTheSame) {
  const auto model = random_model<double>(small_model());
  const auto tokens = random_tokens(3, kModelTokens, 11);
  LanguageModelState<double> all = model.make_state({.batch = 3}), last = all, none = all;
  const auto expected = std::move(run_model(model, all, tokens.view(), {kModelTokens}).logits);
  Tensor<double, 3> ends({3, 1, 11});
  LayerWorkspace workspace;
  model.forward(tokens.view(), last, ends.view(), workspace);
  for (Index b = 0; b < 3; ++b)
    for (Index c = 0; c < 11; ++c)
      EXPECT_NEAR(ends(b, 0, c), expected(b, kModelTokens - 1, c), 1e-13);
  model.forward(tokens.view(), none, {}, workspace);
  EXPECT_TRUE(none == all);
  EXPECT_TRUE(last == all);
}

TEST(LanguageModel, ResultsDoNotDependOnTheExecutor) {
  ModelOptions options = small_model();
  options.intermediate = 700;  // products large enough to be shared between threads
  const auto model = random_model<float>(options);
  const auto tokens = random_tokens(2, 40, 11);
  LanguageModelState<float> serial = model.make_state({.batch = 2}), threaded = serial;
  Tensor<float, 3> expected({2, 40, 11}), found({2, 40, 11});
  LayerWorkspace workspace;
  model.forward(tokens.view(), serial, expected.view(), workspace);
  nha::ThreadPool pool(3);
  model.forward(tokens.view(), threaded, found.view(), workspace, {}, pool);
  EXPECT_EQ(largest_difference(found, expected), 0);
  EXPECT_TRUE(threaded == serial);
}

// --- Windows
// ---------------------------------------------------------------------------------------

TEST(LanguageModel, WindowsBelongToTheState) {
  ModelOptions options = small_model(nha::nha_v1(3));
  const auto tokens = random_tokens(1, kModelTokens, 11);
  const auto model = random_model<double>(options);
  set_windows(options, {7, 2});
  const auto other = random_model<double>(options);
  LanguageModelState<double> asked = model.make_state({.windows = {7, 2}});
  LanguageModelState<double> own = other.make_state(), narrow = model.make_state();
  const auto found = run_model(model, asked, tokens.view(), {8});
  EXPECT_EQ(largest_difference(found, run_model(other, own, tokens.view(), {8})), 0);
  EXPECT_GT(largest_difference(found, run_model(model, narrow, tokens.view(), {8})), 1e-3);
}

TEST(LanguageModel, HeadsMayHaveWindowsOfTheirOwn) {
  const auto tokens = random_tokens(1, kModelTokens, 11);
  const auto model = random_model<double>(small_model(nha::nha_v1(3)));
  const auto run = [&](const nha::ModelStateOptions& options, Index piece) {
    LanguageModelState<double> state = model.make_state(options);
    return run_model(model, state, tokens.view(), {piece});
  };
  const auto wide = run({.windows = {9}}, 8);
  const auto all_wide = run({.head_windows = {{9, 9}, {9, 9}}}, 8);
  EXPECT_LT(largest_difference(all_wide, wide), 1e-12);
  const auto mixed = run({.head_windows = {{9, 0}, {}}}, 8);
  EXPECT_LT(largest_difference(mixed, run({.head_windows = {{9, 0}, {}}}, 1)), 1e-11);
  EXPECT_GT(largest_difference(mixed, wide), 1e-3);
  // In the first layer the heads whose windows agree read the same past.
  EXPECT_NEAR(mixed.slot_share(0, 0, 20, 0), wide.slot_share(0, 0, 20, 0), 1e-12);
  EXPECT_EQ(mixed.slot_share(0, 0, 20, 3), 1);
}

// --- Errors
// ----------------------------------------------------------------------------------------

class ModelErrors : public testing::Test {
 protected:
  /// Expects that a call is refused with the message and leaves the state alone.
  void refuses(const std::string& message, const ForwardOptions<float>& options = {}) {
    NHA_EXPECT_ERROR(model.forward(tokens.view(), state, logits.view(), workspace, options),
                     ArgumentError, message);
    EXPECT_TRUE(state == before) << message;
  }

  LanguageModel<float> model = random_model<float>(small_model());
  LanguageModelState<float> state = model.make_state({.batch = 2}), before = state;
  Tensor<std::int32_t, 2> tokens = random_tokens(2, 4, 11);
  Tensor<float, 3> logits{Tensor<float, 3>({2, 4, 11})};
  LayerWorkspace workspace;
};

TEST_F(ModelErrors, TokensOutsideTheVocabularyAreNamed) {
  tokens(1, 2) = 11;
  refuses("token 2 of row 1 is 11; expected 0 to 10");
  tokens(1, 2) = -1;
  refuses("token 2 of row 1 is -1; expected 0 to 10");
}

TEST_F(ModelErrors, ShapesThatDoNotFitAreNamed) {
  logits = Tensor<float, 3>({2, 4, 10});
  refuses("logits are [2, 4, 10]; expected [2, 4, 11] or [2, 1, 11], rows contiguous");
  logits = Tensor<float, 3>({2, 2, 11});
  refuses("logits are [2, 2, 11]; expected [2, 4, 11] or [2, 1, 11]");
  logits = Tensor<float, 3>({2, 4, 11});
  Tensor<float, 4> hidden({2, 2, 4, 11});
  refuses("hidden is [2, 2, 4, 11]; expected [2, 2, 4, 12]", {.hidden = hidden});
  Tensor<float, 4> share({1, 2, 4, 4});
  refuses("slot_share is [1, 2, 4, 4]; expected [2, 2, 4, 4]", {.slot_share = share});
  refuses("chunk is -1; expected 0 or more", {.attention = {.chunk = -1}});
  tokens = random_tokens(3, 4, 11);
  refuses("the tokens are of 3 sequences; the state holds 2");
}

TEST_F(ModelErrors, OutputsWhoseElementsShareMemoryAreRefused) {
  std::vector<float> memory(200);
  const auto repeated =
      [&](const nha::TensorView<float, Dynamic, Dynamic, Dynamic>::Sizes& strides) {
        NHA_EXPECT_ERROR(
            model.forward(tokens.view(), state,
                          LanguageModel<float>::Logits(memory.data() + 40, {2, 4, 11}, strides),
                          workspace),
            ArgumentError, "logits has stride");
        EXPECT_TRUE(state == before);
      };
  repeated({44, 0, 1});
  repeated({0, 11, 1});
  repeated({44, 10, 1});
  repeated({44, -11, 1});
  using View = nha::TensorView<float, Dynamic, Dynamic, Dynamic, Dynamic>;
  refuses("hidden has stride 0", {.hidden = View(memory.data(), {2, 2, 4, 12}, {0, 0, 0, 1})});
  refuses("slot_share has stride 0",
          {.slot_share = View(memory.data(), {2, 2, 4, 4}, {16, 0, 4, 1})});
}

TEST_F(ModelErrors, MemoryIsReservedForAllLayersBeforeTheFirstRuns) {
  // The second layer needs more scratch memory than the first.
  state = model.make_state({.batch = 2, .windows = {1, 300}});
  before = state;
  tokens = random_tokens(2, 100, 11);
  WatchingMemory memory([&] { return state == before; });
  LayerWorkspace watched{nha::Workspace(&memory), nha::Workspace(&memory)};
  model.forward(tokens.view(), state, {}, watched);
  EXPECT_EQ(state.tokens_seen(1), 100);
  EXPECT_EQ(memory.allocations(), 2);
  EXPECT_TRUE(memory.always());
}

TEST(LanguageModel, ScratchMemoryIsThatOfItsLargestLayer) {
  ModelOptions options = small_model(nha::nha_v1(3));
  nha::LayerSpec large = options.layers.front();
  large.shape.slots = 40;
  large.shape.value_dim = 20;
  const auto bytes = [&](std::vector<nha::LayerSpec> layers) {
    options.layers = std::move(layers);
    const auto model = random_model<float>(options);
    LanguageModelState<float> state = model.make_state();
    LayerWorkspace workspace;
    model.forward(random_tokens(1, 9, 11), state, {}, workspace);
    return workspace.activations.bytes();
  };
  const nha::LayerSpec small = options.layers.front();
  EXPECT_EQ(bytes({small, large, small}), bytes({large}));
  EXPECT_LT(bytes({small, small}), bytes({large}));
}

TEST_F(ModelErrors, TokensWithoutDataAreRefused) {
  const LanguageModel<float>::Tokens none(nullptr, {2, 4});
  NHA_EXPECT_ERROR(model.forward(none, state, logits.view(), workspace), ArgumentError,
                   "tokens have no data");
}

TEST_F(ModelErrors, OffsetsThatLieAreRefused) {
  tokens = random_tokens(1, 4, 11);
  logits = Tensor<float, 3>({1, 4, 11});
  const std::vector<std::int64_t> falling = {0, 5, 4}, beyond = {0, 2, 5};
  refuses("cu_seqlens falls from 5 to 4", {.cu_seqlens = falling});
  refuses("cu_seqlens goes from 0 to 5; expected 0 to 4", {.cu_seqlens = beyond});
}

TEST_F(ModelErrors, StatesOfOtherModelsAreRefused) {
  ModelOptions options = small_model();
  options.layers.push_back(options.layers.front());
  state = LanguageModelState<float>(options, {.batch = 2});
  before = state;
  refuses("the state is of 3 layers; the model has 2");
  options = small_model();
  options.layers[1].shape.value_dim = 6;
  state = LanguageModelState<float>(options, {.batch = 2});
  before = state;
  refuses("layer 1 of the state is that of a layer of another shape");
  options = small_model(convolving());
  state = LanguageModelState<float>(options, {.batch = 2});
  before = state;
  refuses("layer 0 of the state is that of a layer of another shape");
}

TEST_F(ModelErrors, WeightsThatDoNotFitTheOptionsAreNamed) {
  const auto refuses_weights = [](auto change, const std::string& message) {
    auto weights = random_model_weights<float>(small_model());
    change(weights);
    NHA_EXPECT_ERROR(LanguageModel<float>(small_model(), weights), ArgumentError, message);
  };
  refuses_weights([](auto& w) { w.layers.pop_back(); }, "the weights are of 1 layers; expected 2");
  refuses_weights([](auto& w) { w.head = {}; },
                  "weight lm_head.weight is [0, 0]; expected [11, 12]");
  refuses_weights([](auto& w) { w.layers[1].mlp_norm = {}; },
                  "weight model.layers.1.mlp_norm.weight is [0]; expected [12]");
  ModelOptions options = small_model();
  options.vocabulary = -1;
  NHA_EXPECT_ERROR(LanguageModel<float>(options, {}), ArgumentError, "vocabulary is -1");
}

TEST_F(ModelErrors, NoTokensAreNoError) {
  tokens = Tensor<std::int32_t, 2>({2, 0});
  Tensor<float, 3> last({2, 1, 11});
  last(1, 0, 3) = 5;
  model.forward(tokens.view(), state, last.view(), workspace);
  EXPECT_EQ(last(1, 0, 3), 5);
  EXPECT_TRUE(state == before);
  LanguageModelState<float> nobody = model.make_state({.batch = 0});
  Tensor<std::int32_t, 2> nothing({0, 4});
  model.forward(nothing.view(), nobody, {}, workspace);
}

TEST_F(ModelErrors, NaNInTheWeightsReachesTheLogitsAndTheStateRecoversByReset) {
  auto weights = random_model_weights<float>(small_model());
  weights.layers[1].attn_norm(0) = std::numeric_limits<float>::quiet_NaN();
  const LanguageModel<float> broken(small_model(), weights);
  broken.forward(tokens.view(), state, logits.view(), workspace);
  for (float logit : logits.values()) ASSERT_TRUE(std::isnan(logit));
  model.forward(tokens.view(), state, logits.view(), workspace);
  for (float logit : logits.values()) ASSERT_TRUE(std::isnan(logit));
  state.reset();
  model.forward(tokens.view(), state, logits.view(), workspace);
  Tensor<float, 3> expected({2, 4, 11});
  model.forward(tokens.view(), before, expected.view(), workspace);
  EXPECT_EQ(largest_difference(logits, expected), 0);
}

}  // namespace
