// SPDX-License-Identifier: MIT
#include <nha/io/stored_tensor.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::bfloat16;
using nha::float16;
using nha::Index;
using nha::StoredTensor;
using nha::StoredType;

/// Little-endian bytes of numbers, at an address that is `offset` past an aligned one.
template <class T>
class Stored {
 public:
  explicit Stored(const std::vector<T>& numbers, std::vector<Index> shape = {},
                  std::size_t offset = 0)
      : buffer_(numbers.size() * sizeof(T) + offset + 1) {
    for (std::size_t i = 0; i < numbers.size(); ++i)
      nha::store_little(numbers[i], buffer_.data() + offset + i * sizeof(T));
    if (shape.empty()) shape = {static_cast<Index>(numbers.size())};
    tensor = {"a tensor",
              nha::stored_type_of<T>(),
              std::move(shape),
              {buffer_.data() + offset, numbers.size() * sizeof(T)}};
  }
  StoredTensor tensor;

 private:
  std::vector<std::byte> buffer_;
};

TEST(StoredTensor, ViewShowsTheBytesInPlace) {
  if (!nha::kLittleEndianHost) GTEST_SKIP() << "views need a little-endian host";
  const Stored<float> stored({1, 2, 3, 4, 5, 6}, {2, 3});
  const auto view = stored.tensor.view<float, 2>();
  EXPECT_EQ(static_cast<const void*>(view.data()), stored.tensor.bytes.data());
  EXPECT_EQ(view.extent(0), 2);
  EXPECT_EQ(view(1, 2), 6.0f);
  EXPECT_TRUE(stored.tensor.viewable<float>());
}

TEST(StoredTensor, ViewChecksTypeRankAndAlignment) {
  const Stored<float> stored({1, 2, 3, 4, 5, 6}, {2, 3});
  NHA_EXPECT_ERROR((stored.tensor.view<double, 2>()), nha::FormatError,
                   "'a tensor' is F32; expected F64");
  NHA_EXPECT_ERROR((stored.tensor.view<std::int32_t, 2>()), nha::FormatError, "expected I32");
  NHA_EXPECT_ERROR((stored.tensor.view<float, 3>()), nha::FormatError,
                   "has shape [2, 3]; expected 3 axes");
  const Stored<float> odd({1, 2, 3}, {3}, 1);
  EXPECT_FALSE(odd.tensor.viewable<float>());
  NHA_EXPECT_ERROR((odd.tensor.view<float, 1>()), nha::FormatError, "not aligned");
  EXPECT_EQ(odd.tensor.to_vector<float>(), (std::vector<float>{1, 2, 3}));
}

TEST(StoredTensor, ConvertsEveryFloatingTypeToEveryOther) {
  const std::vector<float> values{0.0f, -0.0f, 1.5f, -2.0f, 1024.0f, 0x1p-20f, INFINITY};
  const auto check = [&](const StoredTensor& tensor) {
    const auto as_double = tensor.to_vector<double>();
    const auto as_float = tensor.to_vector<float>();
    const auto as_bfloat16 = tensor.to_vector<bfloat16>();
    const auto as_float16 = tensor.to_vector<float16>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(as_double[i], static_cast<double>(values[i]));
      EXPECT_EQ(as_float[i], values[i]);
      EXPECT_EQ(std::signbit(as_float[i]), std::signbit(values[i]));
      EXPECT_EQ(as_bfloat16[i], bfloat16(values[i]));
      EXPECT_EQ(as_float16[i], float16(values[i]));
    }
  };
  check(Stored<float>(values).tensor);
  check(Stored<double>({values.begin(), values.end()}).tensor);
  std::vector<bfloat16> bfloats;
  std::vector<float16> halves;
  for (float value : values) {
    bfloats.push_back(bfloat16(value));
    halves.push_back(float16(value));
  }
  check(Stored<bfloat16>(bfloats).tensor);
  check(Stored<float16>(halves).tensor);
}

TEST(StoredTensor, NarrowingRounds) {
  const Stored<double> stored({1.0 + 0x1p-30, 0.1});
  EXPECT_EQ(stored.tensor.to_vector<float>(), (std::vector<float>{1.0f, 0.1f}));
  EXPECT_EQ(stored.tensor.to_vector<bfloat16>()[1], bfloat16(0.1f));
}

TEST(StoredTensor, ConvertsIntegers) {
  using Numbers = std::vector<std::int64_t>;
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(Stored<std::int64_t>({least, 7}).tensor.to_vector<std::int64_t>(), (Numbers{least, 7}));
  EXPECT_EQ(Stored<std::int32_t>({-5, 7}).tensor.to_vector<std::int64_t>(), (Numbers{-5, 7}));
  EXPECT_EQ(Stored<std::int8_t>({-128, 127}).tensor.to_vector<std::int64_t>(),
            (Numbers{-128, 127}));
  EXPECT_EQ(Stored<std::uint32_t>({4294967295u}).tensor.to_vector<std::int64_t>(),
            (Numbers{4294967295}));
}

TEST(StoredTensor, DoesNotConvertBetweenIntegersAndFloats) {
  NHA_EXPECT_ERROR(Stored<float>({1}).tensor.to_vector<std::int64_t>(), nha::FormatError,
                   "'a tensor' is F32; expected an integer");
  NHA_EXPECT_ERROR(Stored<std::int64_t>({1}).tensor.to_vector<float>(), nha::FormatError,
                   "'a tensor' is I64; expected F64, F32, F16 or BF16");
}

TEST(StoredTensor, ConvertChecksTheDestination) {
  const Stored<float> stored({1, 2, 3});
  std::array<float, 2> two{};
  NHA_EXPECT_ERROR(stored.tensor.convert_to(std::span<float>(two)), nha::ArgumentError,
                   "has 2 elements; expected 3");
}

TEST(StoredTensor, BecomesATensor) {
  const Stored<bfloat16> stored({bfloat16(1), bfloat16(2), bfloat16(3), bfloat16(4)}, {1, 2, 2});
  const auto tensor = stored.tensor.to_tensor<float, 3>();
  EXPECT_EQ(tensor(0, 1, 0), 3.0f);
  NHA_EXPECT_ERROR((stored.tensor.to_tensor<float, 1>()), nha::FormatError,
                   "has shape [1, 2, 2]; expected 1 axis");
}

}  // namespace
