// SPDX-License-Identifier: MIT
// NewFile: a file that appears whole or not at all.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/io/mapped_file.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

NHA_ISA_NAMESPACE_BEGIN

/// Writes a file under a temporary name beside its own and gives it its name at the end, replacing
/// a file that had it. Until commit() a file of that name is as it was; one that is never committed
/// leaves nothing behind, unless the program is killed. Through a symbolic link, the file it names
/// is replaced. What exists and is no file, a device or a pipe, is written to directly.
class NewFile {
 public:
  /// @throws FormatError naming the path if no file can be made beside it.
  explicit NewFile(std::string path) : path_(std::move(path)) {
    namespace fs = std::filesystem;
    std::error_code ignored;  // what cannot be looked at cannot be opened either
    if (fs::is_symlink(path_, ignored))
      if (fs::path target = fs::weakly_canonical(path_, ignored); !target.empty())
        path_ = target.string();
    if (fs::exists(path_, ignored) && !fs::is_regular_file(path_, ignored)) {
      stream_ = std::fopen(path_.c_str(), "wb");
    } else {
      constexpr int kTries = 100;  // names in use belong to other writers, or dead ones left them
      for (int i = 0; i < kTries && stream_ == nullptr; ++i) {
        temporary_ = path_ + ".partial" + std::to_string(i);
        stream_ = std::fopen(temporary_.c_str(), "wbx");
        if (stream_ == nullptr && errno != EEXIST) break;
      }
    }
    check_format(stream_ != nullptr, detail::printable(path_),
                 ": cannot write: ", detail::system_message(errno));
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (stream_ != nullptr) std::fclose(stream_);
    if (!temporary_.empty()) std::remove(temporary_.c_str());
  }

  /// @throws FormatError naming the path if the bytes cannot be written.
  void write(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    if (std::fwrite(bytes.data(), 1, bytes.size(), stream_) != bytes.size()) fail();
  }

  /// Brings all that was written to the disk, so that commit() has nothing left to do but to give
  /// the name: of several files that belong together, each is closed before the first gets its
  /// name. Nothing may be written after that.
  /// @throws FormatError naming the path if that fails.
  void close() {
    if (stream_ == nullptr) return;
    if (std::fflush(stream_) != 0) fail();
#if defined(__unix__) || defined(__APPLE__)
    // The data must be on the disk before the name is, or a crash could leave an empty file.
    if (!temporary_.empty() && ::fsync(::fileno(stream_)) != 0) fail();
#endif
    if (std::fclose(std::exchange(stream_, nullptr)) != 0) fail();
  }

  /// Removes the file that has the name now, where there is one: what must not be found with files
  /// that get their names before this one does.
  /// @throws FormatError naming the path if that fails.
  void remove_old() {
    if (temporary_.empty()) return;
    std::error_code error;
    std::filesystem::remove(path_, error);
    check_format(!error, detail::printable(path_), ": cannot remove: ", error.message());
  }

  /// Makes the file appear under its name; nothing may be written after that.
  /// @throws FormatError naming the path if that fails; what had the name, if anything, then has it
  ///   still.
  void commit() {
    close();
    if (temporary_.empty()) return;
    std::error_code error;
    std::filesystem::rename(temporary_, path_, error);
    check_format(!error, detail::printable(path_), ": cannot write: ", error.message());
    temporary_.clear();
  }

 private:
  void fail() const {
    check_format(false, detail::printable(path_),
                 ": cannot write: ", detail::system_message(errno));
  }

  std::string path_;
  std::string temporary_;  // empty where the path is written to directly
  std::FILE* stream_ = nullptr;
};

NHA_ISA_NAMESPACE_END
