// SPDX-License-Identifier: MIT
// The frame that every saved state has, and reading and writing inside it.
//
// Every number little-endian:
//   magic     8 bytes
//   version   u32
//   size      u64, all bytes from the magic to the checksum
//   content
//   checksum  u64, FNV-1a over all bytes before it: no change of a single byte goes unnoticed
// The content may be in sections, each u32 id, u64 length of what follows, bytes; in any order.
#pragma once

#include <nha/config.hpp>
#include <nha/core/checksum.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/little_endian.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// What a kind of saved state is called and begins with.
struct ArchiveFormat {
  std::string_view what;   // for messages: "saved state"
  std::string_view magic;  // 8 characters
  std::uint32_t version;
};

inline constexpr std::size_t kArchiveHeader = 8 + 4 + 8;
inline constexpr std::size_t kArchiveChecksum = 8;

/// Writes numbers one after the other. Without a destination it only adds up, so the size of what
/// is written and the writing are the same code.
class ArchiveWriter {
 public:
  explicit ArchiveWriter(std::byte* out) noexcept : out_(out) {}

  template <class T>
  void number(const T& value) noexcept {
    put(used_, value);
    used_ += sizeof(T);
  }
  template <class T>
  void numbers(const T* values, Index count) noexcept {
    if (out_ == nullptr)
      used_ += static_cast<std::size_t>(count) * sizeof(T);
    else
      for (Index i = 0; i < count; ++i) number(values[i]);
  }
  void bytes(std::span<const std::byte> values) noexcept {
    if (out_ != nullptr) std::copy(values.begin(), values.end(), out_ + used_);
    used_ += values.size();
  }
  /// A section with the content that `write_content` writes.
  template <class F>
  void section(std::uint32_t id, F&& write_content) {
    number(id);
    const std::size_t length_at = used_;
    number(std::uint64_t{});
    const std::size_t start = used_;
    write_content();
    put(length_at, std::uint64_t{used_ - start});
  }
  /// Puts a number at a place already passed.
  template <class T>
  void put(std::size_t at, const T& value) noexcept {
    if (out_ != nullptr) store_little(value, out_ + at);
  }
  std::size_t used() const noexcept { return used_; }

 private:
  std::byte* out_;
  std::size_t used_ = 0;
};

/// Reads what ArchiveWriter wrote, never past the end of the bytes.
class ArchiveReader {
 public:
  /// @param what the bytes are, for messages
  ArchiveReader(std::string_view what, std::span<const std::byte> bytes) noexcept
      : what_(what), bytes_(bytes) {}

  std::size_t left() const noexcept { return bytes_.size(); }
  /// The next `count` bytes, as they are.
  std::span<const std::byte> take(std::uint64_t count) {
    check_format(count <= left(), what_, " ends ", count - left(), " bytes too early");
    const auto taken = bytes_.first(static_cast<std::size_t>(count));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }
  template <class T>
  void number(T& value) {
    value = load_little<T>(take(sizeof(T)).data());
  }
  template <class T>
  T number() {
    T value{};
    number(value);
    return value;
  }
  template <class T>
  void numbers(T* values, Index count) {
    for (Index i = 0; i < count; ++i) number(values[i]);
  }
  /// @throws FormatError if bytes are left.
  void finish() const { check_format(left() == 0, what_, " is ", left(), " bytes too long"); }

 private:
  std::string_view what_;
  std::span<const std::byte> bytes_;
};

/// Writes a frame around what `write_content(ArchiveWriter&)` writes.
template <class F>
void write_framed(ArchiveWriter& writer, const ArchiveFormat& format, F&& write_content) {
  writer.bytes(std::as_bytes(std::span(format.magic)));
  writer.number(format.version);
  const std::size_t size_at = writer.used();
  writer.number(std::uint64_t{});
  write_content(writer);
  writer.put(size_at, std::uint64_t{writer.used() + kArchiveChecksum});
}

/// Bytes that write_archive() makes.
template <class F>
std::size_t archive_size(const ArchiveFormat& format, F&& write_content) {
  ArchiveWriter counter(nullptr);
  write_framed(counter, format, write_content);
  return counter.used() + kArchiveChecksum;
}

/// The frame, the content that `write_content(ArchiveWriter&)` writes, and the checksum.
/// write_content is called twice and must write the same each time.
template <class F>
std::vector<std::byte> write_archive(const ArchiveFormat& format, F&& write_content) {
  std::vector<std::byte> bytes(archive_size(format, write_content));
  ArchiveWriter writer(bytes.data());
  write_framed(writer, format, write_content);
  writer.number(fnv1a(std::span(bytes).first(writer.used())));
  return bytes;
}

/// The content of a frame.
/// @throws FormatError if the bytes are truncated, damaged, or of another format or version.
inline ArchiveReader open_archive(const ArchiveFormat& format, std::span<const std::byte> bytes) {
  check_format(bytes.size() >= kArchiveHeader + kArchiveChecksum, format.what,
               " is truncated: it has ", bytes.size(), " bytes, fewer than any");
  const auto magic = std::as_bytes(std::span(format.magic));
  check_format(std::equal(magic.begin(), magic.end(), bytes.begin()), "not a ", format.what,
               ": it does not begin with ", format.magic);
  const auto covered = bytes.first(bytes.size() - kArchiveChecksum);
  ArchiveReader reader(format.what, covered.subspan(magic.size()));
  const auto version = reader.number<std::uint32_t>();
  check_format(version == format.version, format.what, " has format version ", version,
               "; this library reads version ", format.version);
  const auto size = reader.number<std::uint64_t>();
  check_format(size == bytes.size(), format.what, " says it has ", size, " bytes; there are ",
               bytes.size());
  check_format(load_little<std::uint64_t>(bytes.data() + covered.size()) == fnv1a(covered),
               format.what, " is damaged: its checksum does not match");
  return reader;
}

/// The sections that the rest of an archive is made of, found without trusting any length. `names`
/// are those of the sections with ids 1, 2, ..., each there once; other ids are of a later writer.
template <std::size_t Count>
std::array<std::span<const std::byte>, Count> read_sections(std::string_view what,
                                                            ArchiveReader& reader,
                                                            const char* const (&names)[Count]) {
  std::array<std::span<const std::byte>, Count> sections;
  std::array<bool, Count> found{};
  while (reader.left() > 0) {
    const auto id = reader.number<std::uint32_t>();
    const auto length = reader.number<std::uint64_t>();
    check_format(length <= reader.left(), "section ", id, " of the ", what, " says it has ", length,
                 " bytes; there are ", reader.left());
    const auto content = reader.take(length);
    if (id == 0 || id > Count) continue;
    check_format(!found[id - 1], what, " has two ", names[id - 1], " sections");
    found[id - 1] = true;
    sections[id - 1] = content;
  }
  for (std::size_t n = 0; n < Count; ++n)
    check_format(found[n], what, " has no ", names[n], " section");
  return sections;
}

/// Raises FormatError unless a field is the same in the saved state and in the one that is to take
/// it.
template <class Value>
void check_archive_field(const std::string& name, const Value& saved, const Value& state) {
  check_format(saved == state, name, " is ", saved, " in the saved state and ", state,
               " in the state to load into");
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
