// SPDX-License-Identifier: MIT
#include <nha/io/safetensors.hpp>
#include <nha/io/safetensors_writer.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "io/safetensors_bytes.hpp"
#include "support/expect_error.hpp"
#include "support/golden.hpp"
#include "support/temporary_folder.hpp"

namespace {

using nha::Safetensors;
using nha_test::entry;
using nha_test::safetensors_file;

static_assert(!std::is_copy_constructible_v<Safetensors>);
static_assert(std::is_nothrow_move_constructible_v<Safetensors>);

void open(const std::vector<std::byte>& bytes) {
  Safetensors{std::span<const std::byte>(bytes), "file"};
}
void open(const std::string& header, std::size_t data_bytes) {
  open(safetensors_file(header, data_bytes));
}

TEST(Safetensors, ReadsWhatTheHeaderNames) {
  const auto bytes = safetensors_file("{" + entry("second", "U8", "[2,2]", "[4,8]") + "," +
                                          entry("first", "I16", "[2]", "[0,4]") +
                                          ",\"__metadata__\":{\"k\":\"v\"}}",
                                      8);
  const Safetensors file{std::span<const std::byte>(bytes)};
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "first");
  EXPECT_EQ(file.tensors()[1].name, "second");
  EXPECT_EQ(file.at("first").to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{0x0100, 0x0302}));
  EXPECT_EQ(file.at("second").to_vector<std::int64_t>(), (std::vector<std::int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(file.at("second").shape, (std::vector<nha::Index>{2, 2}));
  ASSERT_NE(file.find_metadata("k"), nullptr);
  EXPECT_EQ(*file.find_metadata("k"), "v");
  EXPECT_EQ(file.find_metadata("none"), nullptr);
  EXPECT_EQ(file.find("none"), nullptr);
  EXPECT_EQ(file.find("fir"), nullptr);
}

TEST(Safetensors, SaysWhichTensorIsMissing) {
  const auto bytes = safetensors_file("{}", 0);
  const Safetensors file(std::span<const std::byte>(bytes), "some.file");
  NHA_EXPECT_ERROR(file.at("weight"), nha::FormatError, "some.file: no tensor 'weight'");
}

TEST(Safetensors, EmptyTensorsAndScalarsAreTensors) {
  const auto bytes = safetensors_file("{" + entry("none", "F32", "[0,5]", "[0,0]") + "," +
                                          entry("scalar", "U8", "[]", "[0,1]") + "," +
                                          entry("none2", "F64", "[0]", "[1,1]") + "}",
                                      1);
  const Safetensors file{std::span<const std::byte>(bytes)};
  EXPECT_EQ(file.at("none").size(), 0);
  EXPECT_EQ((file.at("none").to_tensor<float, 2>().extent(1)), 5);
  EXPECT_EQ(file.at("scalar").to_vector<std::int64_t>(), (std::vector<std::int64_t>{0}));
}

TEST(Safetensors, StaysValidWhenItMoves) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("a"), nha_test::as_text(safetensors_file(
                                             "{" + entry("x", "U8", "[3]", "[0,3]") + "}", 3)));
  Safetensors first(folder.file("a"));
  const std::byte* data = first.at("x").bytes.data();
  Safetensors second(std::move(first));
  EXPECT_EQ(second.at("x").bytes.data(), data);
  EXPECT_EQ(second.at("x").to_vector<std::int64_t>(), (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(Safetensors, NamesTheFileInErrors) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("bad"), "short");
  NHA_EXPECT_ERROR(Safetensors(folder.file("bad")), nha::FormatError, "/bad: 5 bytes");
  NHA_EXPECT_ERROR(Safetensors("no/such/file"), nha::FormatError, "no/such/file: cannot open");
}

TEST(Safetensors, RefusesFilesThatEndEarly) {
  NHA_EXPECT_ERROR(open(std::vector<std::byte>()), nha::FormatError, "file: 0 bytes");
  NHA_EXPECT_ERROR(open(std::vector<std::byte>(7)), nha::FormatError, "file: 7 bytes");
  NHA_EXPECT_ERROR(open(std::vector<std::byte>(8)), nha::FormatError, "begin with '{'");
  NHA_EXPECT_ERROR(open("{" + entry("a", "F32", "[2]", "[0,8]") + "}", 7), nha::FormatError,
                   "tensor 'a' lies at 0 to 8; the data has 7 bytes");
}

TEST(Safetensors, RefusesHeaderLengthsThatLie) {
  NHA_EXPECT_ERROR(open(safetensors_file("{}", 3, 6)), nha::FormatError,
                   "header of 6 bytes; the file has 5");
  NHA_EXPECT_ERROR(open(safetensors_file("{}", 0, 100'000'001)), nha::FormatError,
                   "header of 100000001 bytes; expected at most 100000000");
  NHA_EXPECT_ERROR(open(safetensors_file("{}", 0, ~std::uint64_t{0} - 1)), nha::FormatError,
                   "header of 18446744073709551614 bytes");
  NHA_EXPECT_ERROR(open(safetensors_file("{}", 0, 1)), nha::FormatError, "not valid JSON");
}

TEST(Safetensors, RefusesOffsetsThatLie) {
  const auto two = [](const char* first, const char* second, std::size_t data_bytes) {
    open("{" + entry("a", "U8", "[4]", first) + "," + entry("b", "U8", "[4]", second) + "}",
         data_bytes);
  };
  two("[0,4]", "[4,8]", 8);
  two("[4,8]", "[0,4]", 8);
  NHA_EXPECT_ERROR(two("[0,4]", "[3,7]", 8), nha::FormatError, "begins at 3 inside one");
  NHA_EXPECT_ERROR(two("[0,4]", "[0,4]", 8), nha::FormatError, "begins at 0 inside one");
  NHA_EXPECT_ERROR(two("[0,4]", "[5,9]", 9), nha::FormatError, "begins at 5, leaving a hole");
  NHA_EXPECT_ERROR(two("[1,5]", "[5,9]", 9), nha::FormatError, "begins at 1, leaving a hole");
  NHA_EXPECT_ERROR(two("[0,4]", "[4,8]", 10), nha::FormatError, "2 bytes after the last tensor");
  NHA_EXPECT_ERROR(two("[4,0]", "[4,8]", 8), nha::FormatError, "'a' lies at 4 to 0");
  NHA_EXPECT_ERROR(two("[0,4]", "[4,9]", 9), nha::FormatError, "'b' has 5 bytes; U8 [4] takes 4");
  NHA_EXPECT_ERROR(two("[0,4]", "[18446744073709551612,0]", 4), nha::FormatError, "'b' lies at");
  NHA_EXPECT_ERROR(two("[0,4]", "[4,18446744073709551615]", 8), nha::FormatError, "'b' lies at");
}

TEST(Safetensors, RefusesShapesLargerThanMemory) {
  const auto one = [](const char* shape) {
    open("{" + entry("a", "F32", shape, "[0,4]") + "}", 4);
  };
  one("[1,1,1,1,1]");
  const char* larger = "is larger than any memory";
  NHA_EXPECT_ERROR(one("[9223372036854775807]"), nha::FormatError, larger);
  NHA_EXPECT_ERROR(one("[4294967296,4294967296]"), nha::FormatError, larger);
  NHA_EXPECT_ERROR(one("[2147483648,2147483648,4]"), nha::FormatError, larger);
  NHA_EXPECT_ERROR(one("[0,9223372036854775807,9223372036854775807]"), nha::FormatError, larger);
  NHA_EXPECT_ERROR(one("[1000000000000]"), nha::FormatError,
                   "has 4 bytes; F32 [1000000000000] takes 4000000000000");
}

TEST(Safetensors, OpensEveryGoldenCase) {
  for (const auto name : nha_test::kGoldenCases) {
    const Safetensors file(nha_test::golden_path(name));
    ASSERT_NE(file.find_metadata("case"), nullptr);
    EXPECT_EQ(*file.find_metadata("case"), name);
    for (const nha::StoredTensor& tensor : file.tensors()) {
      if (tensor.name == "cu_seqlens")
        EXPECT_GT(tensor.to_vector<std::int64_t>().back(), 0);
      else
        EXPECT_EQ(static_cast<nha::Index>(tensor.to_vector<double>().size()), tensor.size());
    }
  }
}

#if NHA_HAS_EXCEPTIONS
/// Whether the bytes are a valid file, all of whose numbers can be read; a FormatError if not, and
/// nothing else.
bool survives(std::vector<std::byte> bytes) {
  bytes.shrink_to_fit();  // so that a sanitizer sees a read past the end
  try {
    const Safetensors file{std::span<const std::byte>(bytes)};
    for (const nha::StoredTensor& tensor : file.tensors()) {
      try {
        tensor.to_vector<float>();
      } catch (const nha::FormatError&) {
      }
    }
    return true;
  } catch (const nha::FormatError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return false;
  }
}

std::vector<std::byte> small_file() {
  const std::vector<float> numbers{1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> integers{7};
  const std::vector<nha::bfloat16> halves(3);
  const std::vector<nha::TensorToSave> tensors{
      {"weight", nha::TensorView<const float, 2, 3>(numbers.data(), {2, 3})},
      {"count", nha::TensorView<const std::int64_t, 1>(integers.data(), {1})},
      {"half", nha::TensorView<const nha::bfloat16, 3>(halves.data(), {3})}};
  return nha::safetensors_bytes(tensors, {{"format", "pt"}, {"text", "gr\xc3\xb6\xc3\x9f e"}});
}

TEST(Safetensors, SurvivesEveryTruncation) {
  const auto bytes = small_file();
  EXPECT_TRUE(survives(bytes));
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(survives({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}));
}

TEST(Safetensors, SurvivesRandomDamage) {
  const auto bytes = small_file();
  std::mt19937 random(20251007);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  // Damage in JSON's own alphabet gets further into the parser than any byte does.
  const std::string alphabet = "{}[]\",:0123456789-.eE+\\untfF32 ";
  int valid = 0, invalid = 0;
  for (int round = 0; round < 5000; ++round) {
    auto damaged = bytes;
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const auto place = damaged.begin() + static_cast<std::ptrdiff_t>(below(damaged.size()));
      const auto letter = static_cast<std::byte>(alphabet[below(alphabet.size())]);
      switch (below(5)) {
        case 0:
          *place ^= static_cast<std::byte>(1 << below(8));
          break;
        case 1:
          *place = static_cast<std::byte>(below(256));
          break;
        case 2:
          *place = letter;
          break;
        case 3:
          damaged.insert(place, letter);
          break;
        default:
          damaged.erase(place);
          break;
      }
    }
    (survives(damaged) ? valid : invalid) += 1;
  }
  EXPECT_GT(valid, 50);  // damage to data or to names leaves a valid file
  EXPECT_GT(invalid, 1000);
}
#endif

}  // namespace
