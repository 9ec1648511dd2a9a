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
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Holds the lock of a file that is being written, for as long as its name is a temporary one. A
/// lock ends with its process, so that a file without one belongs to no writer.
class PartialFileLock {
 public:
  PartialFileLock() = default;
  PartialFileLock(const PartialFileLock&) = delete;
  PartialFileLock& operator=(const PartialFileLock&) = delete;
  ~PartialFileLock() { release(); }

#if defined(__unix__) || defined(__APPLE__)
  /// @return false if the file has been removed meanwhile: taken for one that no writer has.
  bool take(std::FILE* stream) noexcept {
    file_ = ::fcntl(::fileno(stream), F_DUPFD_CLOEXEC, 0);
    if (file_ < 0 || ::flock(file_, LOCK_EX | LOCK_NB) != 0) return errno != EWOULDBLOCK;
    struct stat status {};
    return ::fstat(file_, &status) != 0 || status.st_nlink > 0;
  }
  void release() noexcept {
    if (file_ >= 0) ::close(std::exchange(file_, -1));
  }

  /// Removes a file that no writer has.
  static void remove_abandoned(const std::string& name) noexcept {
    const int file = ::open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) return;
    struct stat opened {
    }, named{};
    const bool abandoned = ::flock(file, LOCK_EX | LOCK_NB) == 0 && ::fstat(file, &opened) == 0 &&
                           ::lstat(name.c_str(), &named) == 0 && S_ISREG(opened.st_mode) &&
                           opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
    if (abandoned) ::unlink(name.c_str());
    ::close(file);
  }

 private:
  int file_ = -1;
#else
  // Nothing tells whether a file has a writer: those of killed programs stay.
  bool take(std::FILE*) noexcept {
    return true;
  }
  void release() noexcept {}
  static void remove_abandoned(const std::string&) noexcept {}
#endif
};

}  // namespace detail

/// Writes a file under a temporary name beside its own and gives it its name at the end, replacing
/// a file that had it. Until commit() a file of that name is as it was. A file that is never
/// committed leaves nothing behind. If the program is killed, the temporary file stays until the
/// next NewFile of the same path removes it, where the system has file locks.
///
/// Through a symbolic link, the file it names is replaced. What exists and is no file, a device or
/// a pipe, is written to directly.
class NewFile {
 public:
  /// @throws FormatError naming the path if no file can be made beside it.
  explicit NewFile(std::string path) : path_(resolved(std::move(path))) {
    namespace fs = std::filesystem;
    std::error_code ignored;  // what cannot be looked at cannot be opened either
    if (fs::exists(path_, ignored) && !fs::is_regular_file(path_, ignored)) {
      stream_ = std::fopen(path_.c_str(), "wb");
    } else {
      remove_abandoned(path_);
      for (int i = 0; i < kTemporaryNames && stream_ == nullptr; ++i) {
        temporary_ = temporary_name(path_, i);
        stream_ = std::fopen(temporary_.c_str(), "wbx");
        if (stream_ == nullptr && errno != EEXIST) break;
        if (stream_ == nullptr || lock_.take(stream_)) continue;
        std::fclose(std::exchange(stream_, nullptr));
        lock_.release();
      }
    }
    check_format(stream_ != nullptr, detail::printable(path_),
                 ": cannot write: ", detail::system_message(errno));
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  /// Removes what killed programs have left of files of this path: what the constructor does too.
  static void remove_abandoned(const std::string& path) {
    const std::string file = resolved(path);
    for (int i = 0; i < kTemporaryNames; ++i)
      detail::PartialFileLock::remove_abandoned(temporary_name(file, i));
  }
  ~NewFile() {
    if (stream_ != nullptr) std::fclose(stream_);
    if (!temporary_.empty()) std::remove(temporary_.c_str());
  }

  /// @throws FormatError naming the path if the bytes cannot be written.
  void write(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    if (std::fwrite(bytes.data(), 1, bytes.size(), stream_) != bytes.size()) fail();
  }

  /// Brings all that was written to the disk, so that commit() has only to give the name. Of
  /// several files that belong together, each is closed before the first gets its name. Nothing may
  /// be written after that.
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

  /// Removes the file that has the name now, where there is one. It is for files that must not be
  /// found beside others that get their names first.
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
    lock_.release();
  }

 private:
  /// Those in use belong to other writers of the same path.
  static constexpr int kTemporaryNames = 100;

  static std::string temporary_name(const std::string& path, int number) {
    return path + ".partial" + std::to_string(number);
  }
  /// The path of the file that a symbolic link names; other paths as they are.
  static std::string resolved(std::string path) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    if (fs::is_symlink(path, ignored))
      if (const fs::path target = fs::weakly_canonical(path, ignored); !target.empty())
        return target.string();
    return path;
  }

  void fail() const {
    check_format(false, detail::printable(path_),
                 ": cannot write: ", detail::system_message(errno));
  }

  std::string path_;
  std::string temporary_;  // empty where the path is written to directly
  std::FILE* stream_ = nullptr;
  detail::PartialFileLock lock_;
};

NHA_ISA_NAMESPACE_END
