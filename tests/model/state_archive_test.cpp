// SPDX-License-Identifier: MIT
#include <nha/model/state_archive.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::FormatError;
using nha::LanguageModel;
using nha::LanguageModelState;
using nha::LayerOptions;
using nha::load_state;
using nha::ModelOptions;
using nha::save_state;
using nha::Tensor;

using Bytes = std::vector<std::byte>;

// What follows knows the format by its description only.

template <class Number>
void put(Bytes& bytes, std::size_t at, Number number) {
  const auto value = static_cast<std::uint64_t>(number);
  for (std::size_t i = 0; i < sizeof(Number); ++i)
    bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}
constexpr std::size_t kVersionAt = 8, kSizeAt = 12, kLayersAt = 20, kFirstLengthAt = 24;
constexpr std::size_t kChecksum = 8;

/// Makes size and checksum right again after a change.
Bytes seal(Bytes bytes) {
  put(bytes, kSizeAt, std::uint64_t{bytes.size()});
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < bytes.size() - kChecksum; ++i)
    hash = (hash ^ std::to_integer<std::uint64_t>(bytes[i])) * 0x100000001b3u;
  put(bytes, bytes.size() - kChecksum, hash);
  return bytes;
}

template <class T>
class ModelStateBytes : public testing::Test {
 protected:
  Tensor<T, 3> run(const LanguageModel<T>& model, LanguageModelState<T>& state, Index first,
                   Index count, Index piece = 1) {
    return std::move(
        run_model(model, state,
                  tokens.view().template slice<0>(0, state.batch()).template slice<1>(first, count),
                  {piece})
            .logits);
  }
  Tensor<std::int32_t, 2> tokens = random_tokens(2, 40, 11);
};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(ModelStateBytes, Reals);

TYPED_TEST(ModelStateBytes, LoadedSequencesContinueToTheBit) {
  for (const LayerOptions& layer : {nha::nha_v1(3), nha::nha_v2(6), nha::gsa(), convolving()}) {
    const auto model = random_model<TypeParam>(small_model(layer));
    for (Index seen : {0, 1, 2, 5, 21}) {
      auto state = model.make_state();
      this->run(model, state, 0, seen, 8);
      const Bytes bytes = save_state(state, 0);
      auto loaded = model.make_state();
      this->run(model, loaded, 20, 9);
      load_state(bytes, loaded, 0);
      EXPECT_TRUE(loaded == state) << seen;
      EXPECT_EQ(save_state(loaded, 0), bytes) << seen;
      EXPECT_EQ(
          largest_difference(this->run(model, loaded, seen, 8), this->run(model, state, seen, 8)),
          0)
          << seen;
    }
  }
}

TYPED_TEST(ModelStateBytes, AnyPlaceOfAnyStateOfTheModelTakesThem) {
  const auto model = random_model<TypeParam>(small_model(convolving()));
  auto state = model.make_state({.batch = 2});
  this->run(model, state, 0, 10);
  auto target = model.make_state({.batch = 3, .max_rollback = 5});
  load_state(save_state(state, 1), target, 2);
  EXPECT_EQ(target.tokens_seen(0), 0);
  EXPECT_EQ(target.tokens_seen(2), 10);
  EXPECT_EQ(save_state(target, 2), save_state(state, 1));
  EXPECT_NE(save_state(target, 2), save_state(state, 0));
}

TYPED_TEST(ModelStateBytes, RollbackGoesBackToWhereItWasLoaded) {
  const auto model = random_model<TypeParam>(small_model(convolving()));
  auto state = model.make_state({.max_rollback = 5});
  this->run(model, state, 0, 10);
  const Bytes bytes = save_state(state, 0);
  auto loaded = model.make_state({.max_rollback = 5});
  load_state(bytes, loaded, 0);
  this->run(model, loaded, 10, 3);
  loaded.rollback(0, 3);
  EXPECT_EQ(save_state(loaded, 0), bytes);
  NHA_EXPECT_ERROR(loaded.rollback(0, 1), ArgumentError, "tokens to roll back is 1");
}

// --- Bytes that are not what they should be
// --------------------------------------------------------

/// A state that bytes are refused by, and what becomes of it: nothing.
class RefusedBytes : public testing::Test {
 protected:
  RefusedBytes() {
    run_model(model, state, random_tokens(1, 9, 11).view(), {1});
    saved = save_state(state, 0);
    run_model(model, state, random_tokens(1, 3, 11).view(), {1});
  }
  void refuses(std::span<const std::byte> bytes, const std::string& message) {
    const LanguageModelState<float> before = state;
    NHA_EXPECT_ERROR(load_state(bytes, state, 0), FormatError, message);
    EXPECT_TRUE(state == before) << message;
  }
  Bytes from(const ModelOptions& other_options, const nha::ModelStateOptions& state_options = {}) {
    const auto other = random_model<float>(other_options);
    auto other_state = other.make_state(state_options);
    run_model(other, other_state, random_tokens(1, 9, 11).view(), {9});
    return save_state(other_state, 0);
  }

  ModelOptions options = small_model(convolving());
  LanguageModel<float> model = random_model<float>(options);
  LanguageModelState<float> state = model.make_state();
  Bytes saved;
};

TEST_F(RefusedBytes, EveryTruncationIsNoticed) {
  for (std::size_t size = 0; size < saved.size(); size += size < 40 ? 1 : 97)
    refuses(std::span(saved).first(size), "saved state of a model");
  saved.push_back(std::byte{});
  refuses(saved, "saved state of a model says it has");
}

TEST_F(RefusedBytes, EveryDamagedByteIsNoticed) {
  for (std::size_t at = 0; at < saved.size(); at += at < 40 ? 1 : 61) {
    Bytes damaged = saved;
    damaged[at] ^= std::byte{4};
    refuses(damaged, "saved state");
  }
}

TEST_F(RefusedBytes, HeadersThatLieAreNamed) {
  Bytes bytes = saved;
  bytes[0] = std::byte{'X'};
  refuses(seal(bytes), "it does not begin with NHAMODEL");
  bytes = saved;
  put(bytes, kVersionAt, std::uint32_t{2});
  refuses(seal(bytes), "format version 2; this library reads version 1");
  bytes = saved;
  put(bytes, kLayersAt, std::uint32_t{0xffffffff});
  refuses(seal(bytes), "number of layers is 4294967295 in the saved state and 2 in the state");
  bytes = saved;
  put(bytes, kFirstLengthAt, ~std::uint64_t{});
  refuses(seal(bytes), "attention of layer 0 of the saved state says it has 18446744073709551615");
  bytes = saved;
  bytes.insert(bytes.end() - kChecksum, 5, std::byte{});
  refuses(seal(bytes), "saved state of a model is 5 bytes too long");
  bytes.erase(bytes.end() - kChecksum - 9, bytes.end() - kChecksum);
  refuses(seal(bytes), "ends 4 bytes too early");
}

TEST_F(RefusedBytes, SomethingElseIsRefused) {
  refuses(save_state(state.layer(0).attention(), 0), "it does not begin with NHAMODEL");
}

TEST_F(RefusedBytes, WhatDiffersBetweenTheModelsIsNamed) {
  ModelOptions other = options;
  other.layers.push_back(other.layers.front());
  refuses(from(other), "number of layers is 3 in the saved state and 2 in the state");
  other = options;
  other.layers[0].shape.slots = 4;
  refuses(from(other), "slots is 4 in the saved state and 3");
  refuses(from(options, {.windows = {3, 4}}), "window of head 0 is 4 in the saved state and 3");
  other = options;
  other.layers[0].options = nha::nha_v1(3);
  refuses(from(other), "number of convolutions of layer 0 is 0 in the saved state and 3");
  other.layers[0].options = convolving(3);
  refuses(from(other),
          "inputs kept by a convolution of layer 0 is 2 in the saved state and 3 in the state");
  other = options;
  other.layers[0].shape.query_heads = 2;
  refuses(from(other),
          "channels of a convolution of layer 0 is 12 in the saved state and 24 in the state");
  const auto doubles = random_model<double>(options);
  refuses(save_state(doubles.make_state(), 0), "dtype is");
}

TEST_F(RefusedBytes, SequencesThatDoNotExistAreRefused) {
  NHA_EXPECT_ERROR(save_state(state, 1), ArgumentError, "sequence is 1; expected 0 to 0");
  NHA_EXPECT_ERROR(load_state(saved, state, -1), ArgumentError, "sequence is -1");
}

}  // namespace
