// SPDX-License-Identifier: MIT
#include <nha/attention/prefill.hpp>
#include <nha/io/attention_case.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/golden.hpp"
#include "support/random_case.hpp"
#include "support/temporary_folder.hpp"

namespace {

using nha::AttentionCase;
using nha::Index;
using nha::Safetensors;

/// A case file that tests may spoil: tensors of zeros by name and shape, and metadata.
struct Draft {
  std::map<std::string, std::vector<Index>> shapes{
      {"q_window", {1, 4, 2, 3}}, {"k_window", {1, 4, 1, 3}}, {"q_slot", {1, 4, 2, 3}},
      {"k_slot", {1, 4, 1, 3}},   {"v", {1, 4, 1, 5}},        {"log_gate", {1, 4, 1, 2}}};
  std::vector<std::int64_t> cu_seqlens;
  nha::Metadata metadata{{"case", "draft"}, {"window", "2"}};

  std::vector<std::byte> bytes() const {
    const std::vector<float> zeros(1000);
    std::vector<nha::TensorToSave> tensors;
    for (const auto& [name, shape] : shapes) {
      if (shape.size() == 4)
        tensors.emplace_back(name, nha::Tensor<float, 4>::ConstView(
                                       zeros.data(), {shape[0], shape[1], shape[2], shape[3]}));
      else if (shape.size() == 3)
        tensors.emplace_back(
            name, nha::Tensor<float, 3>::ConstView(zeros.data(), {shape[0], shape[1], shape[2]}));
      else
        tensors.emplace_back(name, nha::Tensor<float, 1>::ConstView(zeros.data(), {shape[0]}));
    }
    if (!cu_seqlens.empty())
      tensors.emplace_back("cu_seqlens",
                           nha::TensorView<const std::int64_t, nha::Dynamic>(
                               cu_seqlens.data(), {static_cast<Index>(cu_seqlens.size())}));
    return nha::safetensors_bytes(tensors, metadata);
  }
  template <class T = float>
  AttentionCase<T> read() const {
    const auto file = bytes();
    return nha::read_attention_case<T>(Safetensors(std::span<const std::byte>(file), "file"));
  }
};

/// Reads the draft after `spoil` has changed it.
AttentionCase<float> read_spoiled(const std::function<void(Draft&)>& spoil) {
  Draft draft;
  spoil(draft);
  return draft.read();
}

TEST(AttentionCase, FillsInWhatTheFileLeavesOut) {
  const auto c = Draft().read();
  EXPECT_EQ(c.name, "draft");
  EXPECT_EQ(c.shape, (nha::AttentionShape{
                         .batch = 1, .kv_heads = 1, .key_dim = 3, .value_dim = 5, .slots = 2}));
  EXPECT_EQ(c.query_heads, 2);
  EXPECT_EQ(c.tokens, 4);
  EXPECT_EQ(c.options.window, 2);
  EXPECT_EQ(c.options.slot_delay, 2);
  EXPECT_FALSE(c.options.softmax_scale);
  EXPECT_EQ(c.options.empty_slots, nha::EmptySlots::participate);
  EXPECT_EQ(c.inputs().write.data(), nullptr);
  EXPECT_TRUE(c.inputs().cu_seqlens.empty());
  EXPECT_FALSE(c.has_initial_slots);
  EXPECT_EQ(c.expected.o.size(), 0);
}

TEST(AttentionCase, ReadsMetadata) {
  Draft draft;
  draft.metadata = {
      {"window", "3"}, {"slot_delay", "1"}, {"scale", "0.25"}, {"empty_slots", "mass_corrected"}};
  const auto c = draft.read();
  EXPECT_EQ(c.name, "");
  EXPECT_EQ(c.options, (nha::AttentionOptions{.window = 3,
                                              .slot_delay = 1,
                                              .softmax_scale = 0.25,
                                              .empty_slots = nha::EmptySlots::mass_corrected}));
  EXPECT_EQ(c.metadata, draft.metadata);
}

TEST(AttentionCase, WindowsBeyondTheTokensTakeNoMemory) {
  Draft draft;
  draft.metadata["window"] = "9223372036854775807";
  const auto c = draft.read();
  EXPECT_EQ(c.options.window, 4);
  EXPECT_EQ(c.options.slot_delay, 4);
}

TEST(AttentionCase, LayersWithoutWindowOrWithoutSlotsLeaveTensorsOut) {
  Draft linear;
  linear.metadata["window"] = "0";
  linear.shapes.erase("q_window");
  linear.shapes.erase("k_window");
  EXPECT_EQ(linear.read().inputs().q_window.data(), nullptr);
  Draft window;
  window.shapes.erase("q_slot");
  window.shapes.erase("k_slot");
  window.shapes.erase("log_gate");
  EXPECT_EQ(window.read().shape.slots, 0);
}

TEST(AttentionCase, ReadsPackedSequences) {
  Draft draft;
  draft.cu_seqlens = {0, 3, 3, 4};
  const auto c = draft.read();
  EXPECT_EQ(c.shape.batch, 3);
  EXPECT_EQ(c.batch, 1);
  EXPECT_EQ(c.inputs().cu_seqlens.size(), 4u);
}

TEST(AttentionCase, RefusesShapesThatDoNotFit) {
  const auto with_shape = [](const char* name, std::vector<Index> shape) {
    return read_spoiled([&](Draft& draft) { draft.shapes[name] = std::move(shape); });
  };
  NHA_EXPECT_ERROR(with_shape("v", {1, 4, 5}), nha::FormatError,
                   "file: tensor 'v' has shape [1, 4, 5]; expected 4 axes");
  NHA_EXPECT_ERROR(with_shape("k_window", {1, 3, 1, 3}), nha::FormatError,
                   "'k_window' has shape [1, 3, 1, 3]; expected [1, 4, 1, 3]");
  NHA_EXPECT_ERROR(with_shape("q_window", {1, 4, 3, 3}), nha::FormatError, "'q_window'");
  NHA_EXPECT_ERROR(with_shape("log_gate", {1, 4, 2, 2}), nha::FormatError, "'log_gate'");
  NHA_EXPECT_ERROR(with_shape("write", {1, 4, 1, 3}), nha::FormatError, "'write'");
  NHA_EXPECT_ERROR(with_shape("v", {1, 4, 0, 5}), nha::FormatError,
                   "number of key/value heads is 0; expected 1 to");
  NHA_EXPECT_ERROR(with_shape("v", {1, 4, 3, 5}), nha::FormatError,
                   "2 query heads; expected a multiple of the 3");
  NHA_EXPECT_ERROR(with_shape("expected.o", {1, 4, 2, 3}), nha::FormatError,
                   "'expected.o' has shape [1, 4, 2, 3]; expected [1, 4, 2, 5]");
  NHA_EXPECT_ERROR(with_shape("expected.mass", {1, 1, 3}), nha::FormatError, "'expected.mass'");
  NHA_EXPECT_ERROR(with_shape("initial.slot_k", {1, 1, 2, 3}), nha::FormatError,
                   "initial.slot_k and initial.slot_v must both be there");
  NHA_EXPECT_ERROR(with_shape("initial.mass", {1, 1, 2}), nha::FormatError, "must both be there");
  NHA_EXPECT_ERROR(with_shape("cu_seqlens", {2}), nha::FormatError,
                   "'cu_seqlens' is F32; expected an integer");
}

TEST(AttentionCase, ReadsCotangentsAndExpectedGradients) {
  Draft draft;
  EXPECT_FALSE(draft.read().has_cotangents());
  draft.shapes["d_o"] = {1, 4, 2, 5};
  draft.shapes["d_slot_share"] = {1, 4, 2};
  draft.shapes["d_mass"] = {1, 1, 2};
  draft.shapes["expected.grad.v"] = {1, 4, 1, 5};
  draft.shapes["initial.slot_k"] = {1, 1, 2, 3};
  draft.shapes["initial.slot_v"] = {1, 1, 2, 5};
  draft.shapes["initial.mass"] = {1, 1, 2};
  draft.shapes["expected.grad.initial.mass"] = {1, 1, 2};
  const auto c = draft.read<nha::bfloat16>();
  EXPECT_TRUE(c.has_cotangents());
  EXPECT_EQ(c.cotangents.o.size(), 40);
  EXPECT_EQ(c.cotangents.slot_share.size(), 8);
  EXPECT_EQ(c.cotangents.mass.size(), 2);
  EXPECT_EQ(c.cotangents.views().lse.data(), nullptr);
  EXPECT_EQ(c.expected_gradients.v.size(), 20);
  EXPECT_EQ(c.expected_gradients.mass.size(), 2);
  EXPECT_EQ(c.expected_gradients.q_slot.size(), 0);
  EXPECT_EQ(c.make_gradients().q_window.size(), 24);
  EXPECT_EQ(c.make_gradients().mass.size(), 2);
  EXPECT_EQ(c.make_gradients().write.size(), 0);
}

TEST(AttentionCase, RefusesGradientsThatDoNotFit) {
  const auto with_shape = [](const char* name, std::vector<Index> shape) {
    return read_spoiled([&](Draft& draft) { draft.shapes[name] = std::move(shape); });
  };
  NHA_EXPECT_ERROR(with_shape("d_o", {1, 4, 2, 3}), nha::FormatError,
                   "'d_o' has shape [1, 4, 2, 3]; expected [1, 4, 2, 5]");
  NHA_EXPECT_ERROR(with_shape("d_slot_k", {1, 1, 2, 3}), nha::FormatError,
                   "file: it has cotangents but no d_o");
  NHA_EXPECT_ERROR(with_shape("expected.grad.k_slot", {1, 4, 2, 3}), nha::FormatError,
                   "'expected.grad.k_slot' has shape [1, 4, 2, 3]; expected [1, 4, 1, 3]");
  NHA_EXPECT_ERROR(with_shape("expected.grad.write", {1, 4, 1, 2}), nha::FormatError,
                   "no tensor 'write'");
  // Without slots nothing else looks at write strengths.
  NHA_EXPECT_ERROR(read_spoiled([](Draft& draft) {
                     for (const char* name : {"q_slot", "k_slot", "log_gate"})
                       draft.shapes.erase(name);
                     draft.shapes["write"] = {2};
                     draft.shapes["expected.grad.write"] = {1, 4, 1, 0};
                   }),
                   nha::FormatError, "tensor 'write' has shape [2]; expected 4 axes");
}

TEST(AttentionCase, RefusesMissingTensors) {
  for (const char* name : {"q_window", "k_window", "q_slot", "k_slot", "v", "log_gate"})
    NHA_EXPECT_ERROR(read_spoiled([&](Draft& draft) { draft.shapes.erase(name); }),
                     nha::FormatError, std::string("no tensor '") + name + "'");
}

TEST(AttentionCase, RefusesMetadataThatIsWrong) {
  const auto with_metadata = [](const char* key, const char* value) {
    return read_spoiled([&](Draft& draft) { draft.metadata[key] = value; });
  };
  NHA_EXPECT_ERROR(read_spoiled([](Draft& draft) { draft.metadata.erase("window"); }),
                   nha::FormatError, "file: metadata window is missing");
  NHA_EXPECT_ERROR(with_metadata("window", "-1"), nha::FormatError, "window is -1");
  NHA_EXPECT_ERROR(with_metadata("window", ""), nha::FormatError, "window is ''");
  NHA_EXPECT_ERROR(with_metadata("window", "2.5"), nha::FormatError, "expected a number");
  NHA_EXPECT_ERROR(with_metadata("window", "2\n"), nha::FormatError, "window is '2?'");
  NHA_EXPECT_ERROR(with_metadata("window", "9223372036854775808"), nha::FormatError, "window");
  NHA_EXPECT_ERROR(with_metadata("slot_delay", "3"), nha::FormatError,
                   "slot_delay is 3; expected 0 to the window, 2");
  NHA_EXPECT_ERROR(with_metadata("scale", "0"), nha::FormatError, "scale is 0");
  NHA_EXPECT_ERROR(with_metadata("scale", "nan"), nha::FormatError, "scale is");
  NHA_EXPECT_ERROR(with_metadata("scale", "fast"), nha::FormatError, "scale is 'fast'");
  NHA_EXPECT_ERROR(with_metadata("empty_slots", "ignored"), nha::FormatError,
                   "empty_slots is 'ignored'; expected participate");
}

TEST(AttentionCase, RefusesOffsetsThatAreNotSequences) {
  const auto with_offsets = [](std::vector<std::int64_t> offsets) {
    return read_spoiled([&](Draft& draft) { draft.cu_seqlens = std::move(offsets); });
  };
  NHA_EXPECT_ERROR(with_offsets({0, 3}), nha::FormatError,
                   "cu_seqlens goes from 0 to 3; expected 0 to 4");
  NHA_EXPECT_ERROR(with_offsets({1, 4}), nha::FormatError, "goes from 1");
  NHA_EXPECT_ERROR(with_offsets({0, 3, 2, 4}), nha::FormatError, "does not ascend");
  NHA_EXPECT_ERROR(with_offsets({0, 5, 4}), nha::FormatError, "does not ascend");
}

TEST(AttentionCase, RefusesStatesOfAnySizeThatFewNumbersAskFor) {
  const auto huge = [](Index batch) {
    return read_spoiled([&](Draft& draft) {
      for (auto& [name, shape] : draft.shapes) shape = {batch, 0, 1 << 20, 1 << 20};
    });
  };
  NHA_EXPECT_ERROR(huge(1), nha::FormatError, "its state would hold");
  NHA_EXPECT_ERROR(huge(1 << 20), nha::FormatError, "its state would hold");
}

TEST(AttentionCase, ReadsEveryGoldenCaseInEveryType) {
  for (const auto name : nha_test::kGoldenCases) {
    const Safetensors file(nha_test::golden_path(name));
    const auto in_double = nha::read_attention_case<double>(file);
    const auto in_half = nha::read_attention_case<nha::bfloat16>(file);
    EXPECT_EQ(in_double.name, name);
    EXPECT_EQ(in_double.q_slot.data()[0],
              static_cast<double>(file.at("q_slot").to_vector<float>()[0]));
    EXPECT_EQ(in_half.q_slot.data()[0], nha::bfloat16(file.at("q_slot").to_vector<float>()[0]));
    EXPECT_EQ(in_half.expected.o.size(), in_half.make_results().o.size());
    EXPECT_EQ(in_half.expected.mass.size(), in_half.make_results().mass.size());
  }
}

TEST(AttentionCase, RunsToItsExpectedResults) {
  for (const char* name : {"explicit_write", "masked", "varlen_initial"}) {
    const Safetensors file(nha_test::golden_path(name));
    const auto c = nha::read_attention_case<double>(file);
    nha::AttentionState<double> state(c.shape, c.options);
    if (c.has_initial_slots) state.set_initial_slots(c.initial_slot_k, c.initial_slot_v);
    auto results = c.make_results();
    nha::Workspace workspace;
    nha::prefill(c.inputs(), state,
                 {.o = results.o, .lse = results.lse, .slot_share = results.slot_share}, workspace);
    EXPECT_LT(nha_test::relative_error(results.o, c.expected.o), 1e-12) << name;
    EXPECT_LT(nha_test::relative_error(results.slot_share, c.expected.slot_share), 1e-12) << name;
  }
}

// Every golden case with slots stored in a half type.
template <class SlotScalar>
void check_half_slots(double tolerance) {
  for (const auto name : nha_test::kGoldenCases) {
    const Safetensors file(nha_test::golden_path(name));
    const auto c = nha::read_attention_case<float>(file);
    for (const auto algorithm :
         {nha::PrefillAlgorithm::recurrent, nha::PrefillAlgorithm::chunked}) {
      nha::AttentionState<float, nha::Dynamic, nha::Dynamic, nha::Dynamic, SlotScalar> state(
          c.shape, c.options);
      if (c.has_initial_slots)
        c.initial_mass
            ? state.set_initial_slots(c.initial_slot_k, c.initial_slot_v, *c.initial_mass)
            : state.set_initial_slots(c.initial_slot_k, c.initial_slot_v);
      auto results = c.make_results();
      nha::Workspace workspace;
      nha::prefill(c.inputs(), state,
                   {.o = results.o, .lse = results.lse, .slot_share = results.slot_share},
                   workspace, {.algorithm = algorithm});
      EXPECT_LT(nha_test::relative_error(results.o, c.expected.o), tolerance) << name;
      EXPECT_LT(nha_test::relative_error(results.lse, c.expected.lse), tolerance) << name;
    }
  }
}

TEST(AttentionCase, RunsWithHalfSlots) {
  check_half_slots<nha::bfloat16>(1e-2);
  check_half_slots<nha::float16>(2e-3);
}

TEST(AttentionCase, ResultsAreSavedByName) {
  const nha_test::TemporaryFolder folder;
  const auto c = Draft().read<nha::bfloat16>();
  auto results = c.make_results();
  results.o(0, 3, 1, 4) = nha::bfloat16(2.5f);
  results.mass(0, 0, 1) = 0.75f;
  nha::save_attention_results(folder.file("out"), results, c.metadata);
  const Safetensors file(folder.file("out"));
  EXPECT_EQ(file.metadata(), c.metadata);
  EXPECT_EQ(file.tensors().size(), 6u);
  EXPECT_EQ(file.at("o").dtype, nha::StoredType::bf16);
  EXPECT_EQ(file.at("o").shape, (std::vector<Index>{1, 4, 2, 5}));
  EXPECT_EQ(file.at("o").to_vector<float>().back(), 2.5f);
  EXPECT_EQ(file.at("mass").to_vector<float>(), (std::vector<float>{0, 0.75f}));
  for (const char* name : {"lse", "slot_share", "slot_k", "slot_v"})
    EXPECT_NE(file.find(name), nullptr) << name;
}

TEST(AttentionCase, GradientsAreSavedByTheInputTheyAreOf) {
  const nha_test::TemporaryFolder folder;
  const auto c = Draft().read<nha::bfloat16>();
  auto gradients = c.make_gradients();
  gradients.log_gate(0, 3, 0, 1) = 0.75f;
  nha::save_attention_results(folder.file("out"), c.make_results(), c.metadata, gradients);
  const Safetensors file(folder.file("out"));
  EXPECT_EQ(file.tensors().size(), 12u);
  EXPECT_EQ(file.at("grad.log_gate").dtype, nha::StoredType::f32);
  EXPECT_EQ(file.at("grad.log_gate").to_vector<float>().back(), 0.75f);
  EXPECT_EQ(file.at("grad.q_slot").shape, (std::vector<Index>{1, 4, 2, 3}));
  EXPECT_EQ(file.find("grad.write"), nullptr);
}

#if NHA_HAS_EXCEPTIONS
TEST(AttentionCase, SurvivesRandomDamageToTheHeader) {
  Draft draft;
  draft.cu_seqlens = {0, 1, 4};
  draft.metadata["slot_delay"] = "1";
  const auto bytes = draft.bytes();
  std::mt19937 random(7);
  const auto header_size = static_cast<std::size_t>(std::to_integer<unsigned>(bytes[0]) +
                                                    256u * std::to_integer<unsigned>(bytes[1]));
  std::uniform_int_distribution<std::size_t> places(8, 8 + header_size - 1);
  const std::string digits = "0123456789";
  std::uniform_int_distribution<std::size_t> letters(0, digits.size() - 1);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    auto damaged = bytes;
    damaged[places(random)] = static_cast<std::byte>(digits[letters(random)]);
    try {
      const Safetensors file{std::span<const std::byte>(damaged)};
      const auto c = nha::read_attention_case<float>(file);
      const nha::AttentionState<float> state(c.shape, c.options);
      EXPECT_GT(state.bytes(), 0u);
    } catch (const nha::FormatError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}
#endif

}  // namespace
