// SPDX-License-Identifier: MIT
// MappedFile: the bytes of a file, mapped read-only where the system can, read into memory
// elsewhere.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// What the system says about error number `error`.
inline std::string system_message(int error) {
  return std::generic_category().message(error);
}

#if defined(__unix__) || defined(__APPLE__)

/// A mapping, or nothing; unmaps when it ends.
class FileContents {
 public:
  FileContents() noexcept = default;
  explicit FileContents(const std::string& path) {
    // Not blocking: opening a pipe must fail below, not wait for someone to write.
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    check_format(file.number >= 0, printable(path), ": cannot open: ", system_message(errno));
    struct stat status {};
    check_format(::fstat(file.number, &status) == 0, printable(path),
                 ": cannot examine: ", system_message(errno));
    check_format(S_ISREG(status.st_mode), printable(path), ": not a regular file");
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return;
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
    check_format(data != MAP_FAILED, printable(path), ": cannot map: ", system_message(errno));
    bytes_ = {static_cast<const std::byte*>(data), size};
  }
  FileContents(FileContents&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  FileContents& operator=(FileContents&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~FileContents() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  struct Descriptor {
    int number;
    ~Descriptor() {
      if (number >= 0) ::close(number);
    }
  };

  std::span<const std::byte> bytes_;
};

#else

/// A copy of the file; moving it leaves the bytes where they are.
class FileContents {
 public:
  FileContents() noexcept = default;
  explicit FileContents(const std::string& path) {
    const Stream file{std::fopen(path.c_str(), "rb")};
    check_format(file.stream != nullptr, printable(path), ": cannot open: ", system_message(errno));
    constexpr std::size_t kPiece = std::size_t{1} << 20;
    std::size_t read = kPiece;
    while (read == kPiece) {
      const std::size_t used = bytes_.size();
      bytes_.resize(used + kPiece);
      read = std::fread(bytes_.data() + used, 1, kPiece, file.stream);
      bytes_.resize(used + read);
    }
    check_format(std::ferror(file.stream) == 0, printable(path),
                 ": cannot read: ", system_message(errno));
  }
  FileContents(FileContents&&) noexcept = default;
  FileContents& operator=(FileContents&&) noexcept = default;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  struct Stream {
    std::FILE* stream;
    ~Stream() {
      if (stream != nullptr) std::fclose(stream);
    }
  };

  std::vector<std::byte> bytes_;
};

#endif

}  // namespace detail

/// The bytes of a file, read-only. Moves, does not copy; moving leaves the bytes in their place.
///
/// Where files can be mapped nothing is read until it is used. The file must not be made shorter
/// while it is mapped: the system ends programs that read past its end.
class MappedFile {
 public:
  /// No file, no bytes.
  MappedFile() noexcept = default;
  /// @throws FormatError naming the path and the reason if it is not a file that can be read.
  explicit MappedFile(std::string path) : path_(std::move(path)), contents_(path_) {}

  std::span<const std::byte> bytes() const noexcept { return contents_.bytes(); }
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  detail::FileContents contents_;
};

NHA_ISA_NAMESPACE_END
