// SPDX-License-Identifier: MIT
#include <nha/memory/archive.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::FormatError;
using nha::Index;
using nha::detail::ArchiveFormat;
using nha::detail::ArchiveReader;
using nha::detail::ArchiveWriter;
using ArchiveBytes = std::vector<std::byte>;

constexpr ArchiveFormat kTestFormat{.what = "test archive", .magic = "NHATESTS", .version = 3};
constexpr const char* kTestSections[] = {"first", "second"};

ArchiveBytes two_sections() {
  return nha::detail::write_archive(kTestFormat, [](ArchiveWriter& writer) {
    const double values[] = {1.5, -2};
    writer.section(2, [&] { writer.numbers(values, 2); });
    writer.section(9, [&] { writer.number(std::uint32_t{1}); });  // of a later writer
    writer.section(1, [&] { writer.number(std::int64_t{-7}); });
  });
}
/// Makes the checksum right again after a change.
ArchiveBytes sealed(ArchiveBytes bytes) {
  const std::size_t covered = bytes.size() - 8;
  nha::store_little(nha::fnv1a(std::span(bytes).first(covered)), bytes.data() + covered);
  return bytes;
}
void archive_refused(const ArchiveBytes& bytes, const std::string& message) {
  NHA_EXPECT_ERROR(
      {
        ArchiveReader reader = nha::detail::open_archive(kTestFormat, bytes);
        (void)nha::detail::read_sections("test archive", reader, kTestSections);
      },
      FormatError, message);
}

TEST(Archive, FramesWhatIsWritten) {
  const ArchiveBytes bytes = nha::detail::write_archive(
      kTestFormat, [](ArchiveWriter& writer) { writer.number(std::uint16_t{0x0201}); });
  const unsigned char expected[] = {'N', 'H', 'A', 'T', 'E', 'S', 'T', 'S', 3, 0, 0,
                                    0,   30,  0,   0,   0,   0,   0,   0,   0, 1, 2};
  ASSERT_EQ(bytes.size(), 30u);
  for (std::size_t i = 0; i < sizeof expected; ++i)
    EXPECT_EQ(std::to_integer<unsigned>(bytes[i]), expected[i]) << i;
  ArchiveReader reader = nha::detail::open_archive(kTestFormat, bytes);
  EXPECT_EQ(reader.number<std::uint16_t>(), 0x0201u);
  reader.finish();
}

TEST(Archive, CountsWhatItWrites) {
  const auto content = [](ArchiveWriter& writer) {
    const float values[] = {1, 2, 3};
    writer.section(1, [&] { writer.numbers(values, 3); });
    writer.bytes(std::as_bytes(std::span(values)));
  };
  EXPECT_EQ(nha::detail::archive_size(kTestFormat, content),
            nha::detail::write_archive(kTestFormat, content).size());
}

TEST(Archive, SectionsAreFoundInAnyOrderAndUnknownOnesSkipped) {
  const ArchiveBytes bytes = two_sections();
  ArchiveReader reader = nha::detail::open_archive(kTestFormat, bytes);
  const auto sections = nha::detail::read_sections("test archive", reader, kTestSections);
  EXPECT_EQ(ArchiveReader("first", sections[0]).number<std::int64_t>(), -7);
  double values[2];
  ArchiveReader second("second", sections[1]);
  second.numbers(values, 2);
  EXPECT_EQ(values[0], 1.5);
  EXPECT_EQ(values[1], -2);
  NHA_EXPECT_ERROR(second.number<std::uint32_t>(), FormatError, "second ends 4 bytes too early");
}

TEST(Archive, EveryChangedByteAndEveryMissingOneIsFound) {
  const ArchiveBytes good = two_sections();
  for (std::size_t i = 0; i < good.size(); ++i) {
    ArchiveBytes bad = good;
    bad[i] ^= std::byte{0x10};
    archive_refused(bad, "test archive");
    archive_refused(ArchiveBytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i)),
                    "test archive");
  }
}

TEST(Archive, LengthsAreNotTrusted) {
  ArchiveBytes bytes = two_sections();
  nha::store_little(~std::uint64_t{0}, bytes.data() + 20 + 4);  // of the first section
  archive_refused(sealed(bytes), "section 2 of the test archive says it has 18446744073709551615");
  bytes = two_sections();
  nha::store_little(std::uint32_t{2}, bytes.data() + 20 + 12 + 16);  // the unknown one's id
  archive_refused(sealed(bytes), "test archive has two second sections");
  bytes = two_sections();
  nha::store_little(std::uint32_t{8}, bytes.data() + 20);
  archive_refused(sealed(bytes), "test archive has no second section");
  ArchiveReader reader("test archive", {});
  NHA_EXPECT_ERROR((void)reader.take(~std::uint64_t{0}), FormatError, "bytes too early");
}

TEST(Archive, OtherFormatsAndVersionsAreNamed) {
  ArchiveBytes bytes = two_sections();
  bytes[0] = std::byte{'X'};
  archive_refused(sealed(bytes), "not a test archive: it does not begin with NHATESTS");
  bytes = two_sections();
  bytes[8] = std::byte{4};
  archive_refused(sealed(bytes), "test archive has format version 4; this library reads version 3");
}

}  // namespace
