// SPDX-License-Identifier: MIT
#include <nha/io/new_file.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "support/expect_error.hpp"
#include "support/killed_process.hpp"
#include "support/temporary_folder.hpp"

namespace {

void write(nha::NewFile& file, const std::string& text) {
  file.write(std::as_bytes(std::span<const char>(text)));
}

TEST(NewFile, AppearsWhole) {
  const nha_test::TemporaryFolder folder;
  nha::NewFile file(folder.file("a"));
  write(file, "one ");
  write(file, "");
  write(file, "two");
  EXPECT_FALSE(std::filesystem::exists(folder.file("a")));
  file.commit();
  EXPECT_EQ(nha_test::read_text(folder.file("a")), "one two");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(NewFile, ClosedItIsOnTheDiskUnderAnotherName) {
  const nha_test::TemporaryFolder folder;
  {
    nha::NewFile file(folder.file("a"));
    write(file, "one");
    file.close();
    ASSERT_EQ(folder.names().size(), 1u);
    EXPECT_NE(folder.names()[0], "a");
    EXPECT_EQ(nha_test::read_text(folder.file(folder.names()[0])), "one");
    file.commit();
    EXPECT_EQ(folder.names(), std::vector<std::string>{"a"});
  }
  {
    nha::NewFile file(folder.file("b"));
    write(file, "two");
    file.close();
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a"});
}

TEST(NewFile, LeavesNothingWithoutCommit) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("a"), "old");
  {
    nha::NewFile file(folder.file("a"));
    write(file, "new");
  }
  EXPECT_EQ(nha_test::read_text(folder.file("a")), "old");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(NewFile, ReplacesAFile) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("a"), "old and longer");
  nha::NewFile file(folder.file("a"));
  write(file, "new");
  file.commit();
  EXPECT_EQ(nha_test::read_text(folder.file("a")), "new");
}

TEST(NewFile, TwoWritersDoNotMeet) {
  const nha_test::TemporaryFolder folder;
  nha::NewFile first(folder.file("a"));
  nha::NewFile second(folder.file("a"));
  write(first, "first");
  write(second, "second");
  second.commit();
  EXPECT_EQ(nha_test::read_text(folder.file("a")), "second");
  first.commit();
  EXPECT_EQ(nha_test::read_text(folder.file("a")), "first");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(NewFile, ReplacesTheFileThatALinkNames) {
  const nha_test::TemporaryFolder folder;
  nha_test::write_text(folder.file("target"), "old");
  std::filesystem::create_symlink("target", folder.file("link"));
  nha::NewFile file(folder.file("link"));
  write(file, "new");
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(folder.file("link")));
  EXPECT_EQ(nha_test::read_text(folder.file("target")), "new");
}

TEST(NewFile, RemovesTheOldFileBeforehandWhereAsked) {
  const nha_test::TemporaryFolder folder;
  nha::NewFile first(folder.file("target"));
  first.remove_old();  // there is none
  first.commit();
  std::filesystem::create_symlink("target", folder.file("link"));
  nha::NewFile second(folder.file("link"));
  write(second, "new");
  second.remove_old();
  EXPECT_FALSE(std::filesystem::exists(folder.file("target")));
  second.commit();
  EXPECT_EQ(nha_test::read_text(folder.file("link")), "new");
  EXPECT_EQ(folder.names().size(), 2u);
}

#if NHA_TEST_CAN_KILL
TEST(NewFile, RemovesWhatKilledProgramsHaveLeft) {
  const nha_test::TemporaryFolder folder;
  const std::string path = folder.file("a");
  nha_test::write_text(path + ".partial", "the user's");
  const auto leave_behind = [&](const std::string& partial) {
    nha_test::run_and_kill(
        [&](int) {
          nha::NewFile file(path);
          write(file, "half");
          while (true) std::this_thread::yield();
        },
        [&] { return std::filesystem::exists(partial); });
  };
  leave_behind(path + ".partial0");
  {
    // A writer that lives keeps its file, also once it is closed.
    nha::NewFile open(path);
    leave_behind(path + ".partial1");
    write(open, "whole");
    open.close();
    nha::NewFile::remove_abandoned(path);
    EXPECT_EQ(folder.names().size(), 2u);
    open.commit();
  }
  EXPECT_EQ(nha_test::read_text(path), "whole");
  std::vector<std::string> names = folder.names();
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "a.partial"}));
}
#endif

TEST(NewFile, WritesToADeviceAndLeavesItOne) {
  if (!std::filesystem::is_character_file("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  nha::NewFile nothing("/dev/null");
  write(nothing, "new");
  nothing.commit();
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  const auto fill = [&] {
    nha::NewFile full("/dev/full");
    write(full, "new");
    full.commit();
  };
  NHA_EXPECT_ERROR(fill(), nha::FormatError, "/dev/full: cannot write: No space left");
}

TEST(NewFile, SaysWhereItCannotWrite) {
  NHA_EXPECT_ERROR(nha::NewFile("no/such/folder/a"), nha::FormatError,
                   "no/such/folder/a: cannot write: No such file");
}

TEST(NewFile, DoesNotReplaceAFolder) {
  const nha_test::TemporaryFolder folder;
  std::filesystem::create_directory(folder.file("a"));
  const auto commit = [&] {
    nha::NewFile file(folder.file("a"));
    file.commit();
  };
  NHA_EXPECT_ERROR(commit(), nha::FormatError, "/a: cannot write: ");
#if NHA_HAS_EXCEPTIONS
  EXPECT_EQ(folder.names().size(), 1u);
#endif
}

}  // namespace
