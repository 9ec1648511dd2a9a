// SPDX-License-Identifier: MIT
#include <nha/io/safetensors.hpp>
#include <nha/io/safetensors_writer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace {

using nha::Index;
using nha::Safetensors;
using nha::TensorToSave;
using nha::TensorView;

std::vector<float> counting(std::size_t count) {
  std::vector<float> out(count);
  std::iota(out.begin(), out.end(), 0.0f);
  return out;
}
Safetensors read(const std::vector<std::byte>& bytes) {
  return Safetensors(std::span<const std::byte>(bytes));
}

TEST(SafetensorsWriter, WritesTheFormatByteForByte) {
  const std::vector<float> numbers{1, -2};
  const std::vector<TensorToSave> tensors{
      {"a", TensorView<const float, nha::Dynamic>(numbers.data(), {2})}};
  std::string header =
      "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
      "\"data_offsets\":[0,8]}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string expected(1, static_cast<char>(header.size()));
  expected += std::string(7, '\0') + header;
  expected += std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8);
  EXPECT_EQ(nha_test::as_text(nha::safetensors_bytes(tensors, {{"k", "v"}})), expected);
}

TEST(SafetensorsWriter, TakesValuesWithAShapeToo) {
  const auto numbers = counting(24);
  const std::span<const float> values(numbers);
  const std::vector<TensorToSave> by_shape{{"a", {2, 3, 2, 2}, values}};
  const std::vector<TensorToSave> by_view{
      {"a", TensorView<const float, 2, 3, 2, 2>(numbers.data(), {2, 3, 2, 2})}};
  EXPECT_EQ(nha::safetensors_bytes(by_shape), nha::safetensors_bytes(by_view));
  NHA_EXPECT_ERROR(TensorToSave("a", {5, 5}, values), nha::ArgumentError,
                   "tensor 'a' of shape [5, 5] has 24 values");
  NHA_EXPECT_ERROR(TensorToSave("a", {}, values.first(1)), nha::ArgumentError,
                   "tensor 'a' of shape [] has 1 values");
  // Shapes whose product is right only where a sign or an overflow is overlooked.
  constexpr Index huge = Index{1} << 32;
  NHA_EXPECT_ERROR(TensorToSave("a", {-4, -6}, values), nha::ArgumentError, "of shape [-4, -6]");
  NHA_EXPECT_ERROR(TensorToSave("a", {huge, huge}, values.first(0)), nha::ArgumentError,
                   "has 0 values");
  NHA_EXPECT_ERROR(TensorToSave("a", {0, huge, huge}, values.first(0)), nha::ArgumentError,
                   "has 0 values");
}

TEST(SafetensorsWriter, WhatIsWrittenIsRead) {
  const auto numbers = counting(24);
  const std::vector<std::int64_t> integers{-1, 1ll << 40};
  const std::vector<nha::float16> halves{nha::float16(0.5f)};
  const double pi = 3.14159;
  const nha::Metadata metadata{{"quote\"", "back\\slash"}, {"line\n\x01", "\xe2\x82\xac"}};
  const std::vector<TensorToSave> tensors{
      {"numbers", TensorView<const float, 2, 3, nha::Dynamic, 2>(numbers.data(), {2, 3, 2, 2})},
      {"integers", TensorView<const std::int64_t, 2>(integers.data(), {2})},
      {"\"halves\"\t", TensorView<const nha::float16, 1>(halves.data(), {1})},
      {"none", TensorView<const float, 0, 4>()},
      {"pi", TensorView<const double, 1>(&pi, {1})}};
  const auto bytes = nha::safetensors_bytes(tensors, metadata);
  const Safetensors file = read(bytes);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.at("numbers").to_vector<float>(), numbers);
  EXPECT_EQ(file.at("numbers").shape, (std::vector<Index>{2, 3, 2, 2}));
  EXPECT_EQ(file.at("integers").to_vector<std::int64_t>(), integers);
  EXPECT_EQ(file.at("\"halves\"\t").dtype, nha::StoredType::f16);
  EXPECT_EQ(file.at("\"halves\"\t").to_vector<nha::float16>(), halves);
  EXPECT_EQ(file.at("none").shape, (std::vector<Index>{0, 4}));
  EXPECT_EQ(file.at("pi").to_vector<double>()[0], pi);
}

TEST(SafetensorsWriter, WritesViewsOfAnyStrides) {
  const auto numbers = counting(12);
  const TensorView<const float, 3, 4> matrix(numbers.data(), {3, 4});
  const TensorView<const float, 4, 3> transposed(numbers.data(), {4, 3}, {1, 4});
  const TensorView<const float, 3> backwards(numbers.data() + 11, {3}, {-4});
  const std::vector<TensorToSave> tensors{
      {"slice", matrix.slice<1>(1, 2)}, {"transposed", transposed}, {"backwards", backwards}};
  const auto bytes = nha::safetensors_bytes(tensors);
  const Safetensors file = read(bytes);
  EXPECT_EQ(file.at("slice").to_vector<float>(), (std::vector<float>{1, 2, 5, 6, 9, 10}));
  EXPECT_EQ(file.at("transposed").to_vector<float>(),
            (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(file.at("backwards").to_vector<float>(), (std::vector<float>{11, 7, 3}));
}

TEST(SafetensorsWriter, EveryTensorIsAlignedForItsType) {
  const std::vector<std::uint8_t> bytes3(3, 1);
  const std::vector<nha::bfloat16> halves(3);
  const auto numbers = counting(3);
  const std::vector<double> doubles(3, 0.5);
  const std::vector<TensorToSave> tensors{
      {"a", TensorView<const std::uint8_t, 3>(bytes3.data(), {3})},
      {"b", TensorView<const nha::bfloat16, 3>(halves.data(), {3})},
      {"c", TensorView<const float, 3>(numbers.data(), {3})},
      {"d", TensorView<const double, 3>(doubles.data(), {3})}};
  const auto bytes = nha::safetensors_bytes(tensors);
  const Safetensors file = read(bytes);
  for (const nha::StoredTensor& tensor : file.tensors())
    EXPECT_EQ(static_cast<std::size_t>(tensor.bytes.data() - bytes.data()) %
                  nha::stored_bytes(tensor.dtype),
              0u)
        << tensor.name;
}

TEST(SafetensorsWriter, OrderOfTheTensorsDoesNotMatter) {
  const auto numbers = counting(4);
  std::vector<TensorToSave> tensors;
  for (const char* name : {"c", "a", "b"})
    tensors.emplace_back(name, TensorView<const float, 4>(numbers.data(), {4}));
  const auto bytes = nha::safetensors_bytes(tensors);
  std::swap(tensors[0], tensors[2]);
  EXPECT_EQ(nha::safetensors_bytes(tensors), bytes);
}

TEST(SafetensorsWriter, NothingIsAFileToo) {
  const auto bytes = nha::safetensors_bytes({});
  EXPECT_EQ(bytes.size(), 16u);
  EXPECT_TRUE(read(bytes).tensors().empty());
}

TEST(SafetensorsWriter, RefusesNamesNoReaderCouldFind) {
  const auto numbers = counting(1);
  const auto write = [&](std::vector<std::string> names, const nha::Metadata& metadata = {}) {
    std::vector<TensorToSave> tensors;
    for (const std::string& name : names)
      tensors.emplace_back(name, TensorView<const float, 1>(numbers.data(), {1}));
    nha::safetensors_bytes(tensors, metadata);
  };
  NHA_EXPECT_ERROR(write({"a", "b", "a"}), nha::ArgumentError, "two tensors are named 'a'");
  NHA_EXPECT_ERROR(write({"__metadata__"}), nha::ArgumentError, "__metadata__");
  NHA_EXPECT_ERROR(write({"\xff"}), nha::ArgumentError, "tensor name '?' is not valid UTF-8");
  NHA_EXPECT_ERROR(write({}, {{"k", "\xc3"}}), nha::ArgumentError, "metadata value");
}

TEST(SafetensorsWriter, SavesTheSameBytes) {
  const nha_test::TemporaryFolder folder;
  const auto numbers = counting(4);
  const std::vector<TensorToSave> tensors{{"a", TensorView<const float, 4>(numbers.data(), {4})}};
  nha::save_safetensors(folder.file("x"), tensors, {{"k", "v"}});
  EXPECT_EQ(nha_test::read_text(folder.file("x")),
            nha_test::as_text(nha::safetensors_bytes(tensors, {{"k", "v"}})));
  EXPECT_EQ(Safetensors(folder.file("x")).at("a").to_vector<float>(), numbers);
}

#if NHA_HAS_EXCEPTIONS
TEST(SafetensorsWriter, LeavesTheOldFileIfItFails) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("x"), "old");
  const auto numbers = counting(1);
  const TensorToSave tensor("a", TensorView<const float, 1>(numbers.data(), {1}));
  const std::vector<TensorToSave> twice{tensor, tensor};
  EXPECT_THROW(nha::save_safetensors(folder.file("x"), twice), nha::ArgumentError);
  EXPECT_EQ(nha_test::read_text(folder.file("x")), "old");
  EXPECT_EQ(folder.names().size(), 1u);
}
#endif

}  // namespace
