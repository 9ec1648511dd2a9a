// SPDX-License-Identifier: MIT
#include <nha/io/mapped_file.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#endif

namespace {

static_assert(!std::is_copy_constructible_v<nha::MappedFile>);
static_assert(std::is_nothrow_move_constructible_v<nha::MappedFile>);

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const nha_test::TemporaryFolder folder;
  const std::string text("one\0two\n", 8);
  nha_test::write_text(folder.file("a"), text);
  const nha::MappedFile file(folder.file("a"));
  EXPECT_EQ(nha_test::as_text(file.bytes()), text);
  EXPECT_EQ(file.path(), folder.file("a"));
}

TEST(MappedFile, EmptyFileHasNoBytes) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("empty"), "");
  EXPECT_TRUE(nha::MappedFile(folder.file("empty")).bytes().empty());
  EXPECT_TRUE(nha::MappedFile().bytes().empty());
}

TEST(MappedFile, MovingLeavesTheBytesInPlace) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("a"), "abc");
  nha_test::write_text(folder.file("b"), "other");
  nha::MappedFile first(folder.file("a"));
  const std::byte* data = first.bytes().data();
  nha::MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().data(), data);
  nha::MappedFile third(folder.file("b"));
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), data);
  EXPECT_EQ(nha_test::as_text(third.bytes()), "abc");
}

TEST(MappedFile, SaysWhichFileIsMissing) {
  NHA_EXPECT_ERROR(nha::MappedFile("no/such/file"), nha::FormatError,
                   "no/such/file: cannot open: No such file");
}

TEST(MappedFile, RefusesFolders) {
  const nha_test::TemporaryFolder folder;
  NHA_EXPECT_ERROR(nha::MappedFile(folder.path()), nha::FormatError, folder.path());
}

#if defined(__unix__) || defined(__APPLE__)
TEST(MappedFile, RefusesPipesWithoutWaitingForAWriter) {
  const nha_test::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  NHA_EXPECT_ERROR(nha::MappedFile(folder.file("pipe")), nha::FormatError, "not a regular file");
}
#endif

}  // namespace
