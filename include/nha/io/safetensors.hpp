// SPDX-License-Identifier: MIT
// Safetensors: named tensors and metadata in a file of the safetensors format, read in place.
//
// The format begins with the header's length as 8 little-endian bytes. The header is a JSON object
// that gives each tensor's dtype, shape and place. The data follow, row-major and little-endian;
// every byte of them is in exactly one tensor. Writing it is in safetensors_writer.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/little_endian.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/io/safetensors_header.hpp>
#include <nha/io/stored_tensor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The tensors of a safetensors file. Opening one reads and checks the header alone: what it says
/// of tensors is compared with the bytes that are there. No memory is taken for data until a tensor
/// is converted.
///
/// Moves, does not copy; tensors and views of them stay valid when it moves. Const access may be
/// shared between threads.
class Safetensors {
 public:
  /// Over bytes that the caller keeps.
  /// @param source what error messages begin with
  /// @throws FormatError if they are not a valid safetensors file.
  explicit Safetensors(std::span<const std::byte> bytes,
                       std::string_view source = "safetensors data") {
    parse(bytes, detail::printable(source));
  }
  /// Over a file, which it keeps mapped.
  /// @throws FormatError naming the file if it is not a valid safetensors file.
  explicit Safetensors(MappedFile file) : file_(std::move(file)) {
    parse(file_.bytes(), detail::printable(file_.path()));
  }
  /// Opens and maps the file at `path`.
  /// @throws FormatError naming the file if it cannot be read or is not a valid safetensors file.
  explicit Safetensors(const std::string& path) : Safetensors(MappedFile(path)) {}
  explicit Safetensors(const char* path) : Safetensors(std::string(path)) {}

  Safetensors(Safetensors&&) noexcept = default;
  Safetensors& operator=(Safetensors&&) noexcept = default;

  /// All tensors, in the order of their names.
  std::span<const StoredTensor> tensors() const noexcept { return tensors_; }
  /// The tensor of that name, or null.
  const StoredTensor* find(std::string_view name) const noexcept {
    const auto place =
        std::lower_bound(tensors_.begin(), tensors_.end(), name,
                         [](const StoredTensor& t, std::string_view n) { return t.name < n; });
    return place != tensors_.end() && place->name == name ? &*place : nullptr;
  }
  /// The tensor of that name.
  /// @throws FormatError if there is none.
  const StoredTensor& at(std::string_view name) const {
    const StoredTensor* tensor = find(name);
    check_format(tensor != nullptr, source_, ": no tensor '", detail::printable(name), "'");
    return *tensor;
  }

  const Metadata& metadata() const noexcept { return metadata_; }
  /// The metadata string of that key, or null.
  const std::string* find_metadata(std::string_view key) const noexcept {
    const auto place = metadata_.find(key);
    return place != metadata_.end() ? &place->second : nullptr;
  }

  /// What error messages about this file begin with: its path where it has one.
  const std::string& source() const noexcept { return source_; }

 private:
  void parse(std::span<const std::byte> bytes, std::string source) {
    source_ = std::move(source);
    constexpr std::size_t kPrefix = 8;
    check_format(bytes.size() >= kPrefix, source_, ": ", bytes.size(),
                 " bytes; a safetensors file has at least 8");
    const auto length = load_little<std::uint64_t>(bytes.data());
    check_format(length <= kLongestSafetensorsHeader, source_, ": header of ", length,
                 " bytes; expected at most ", kLongestSafetensorsHeader);
    check_format(length <= bytes.size() - kPrefix, source_, ": header of ", length,
                 " bytes; the file has ", bytes.size() - kPrefix, " after its length");
    const auto header_bytes = bytes.subspan(kPrefix, static_cast<std::size_t>(length));
    const std::string_view text(reinterpret_cast<const char*>(header_bytes.data()),
                                header_bytes.size());
    auto header = detail::parse_safetensors_header(text, source_);
    check_layout(header, bytes.subspan(kPrefix + static_cast<std::size_t>(length)));
    metadata_ = std::move(header.metadata);
  }

  /// Gives every tensor its bytes; together they must be all of the data, each byte once.
  NHA_COLD void check_layout(detail::SafetensorsHeader& header, std::span<const std::byte> data) {
    std::vector<const detail::SafetensorsEntry*> places;
    tensors_.reserve(header.tensors.size());
    places.reserve(header.tensors.size());
    for (auto& [name, entry] : header.tensors) {
      const std::string shown = detail::printable(name);
      const std::uint64_t bytes = bytes_of(entry, shown);
      check_format(entry.begin <= entry.end && entry.end <= data.size(), source_, ": tensor '",
                   shown, "' lies at ", entry.begin, " to ", entry.end, "; the data has ",
                   data.size(), " bytes");
      check_format(entry.end - entry.begin == bytes, source_, ": tensor '", shown, "' has ",
                   entry.end - entry.begin, " bytes; ", stored_name(entry.dtype), " ",
                   detail::shape_text(entry.shape), " takes ", bytes);
      places.push_back(&entry);
    }
    std::sort(places.begin(), places.end(), [](const auto* a, const auto* b) {
      return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
    });
    std::uint64_t covered = 0;
    for (const detail::SafetensorsEntry* entry : places) {
      check_format(
          entry->begin == covered, source_, ": a tensor begins at ", entry->begin,
          entry->begin < covered ? " inside one that ends at " : ", leaving a hole after byte ",
          covered, " of the data");
      covered = entry->end;
    }
    check_format(covered == data.size(), source_, ": ", data.size() - covered,
                 " bytes after the last tensor");
    for (auto& [name, entry] : header.tensors)
      tensors_.push_back({name, entry.dtype, std::move(entry.shape),
                          data.subspan(static_cast<std::size_t>(entry.begin),
                                       static_cast<std::size_t>(entry.end - entry.begin))});
  }

  /// Bytes the elements take. Extents of 0 make an empty tensor, but the others must still be
  /// sizes: strides are products of them.
  std::uint64_t bytes_of(const detail::SafetensorsEntry& entry, const std::string& name) const {
    std::uint64_t bytes = stored_bytes(entry.dtype);
    bool empty = false;
    for (const Index extent : entry.shape) {
      const auto count = static_cast<std::uint64_t>(extent);
      empty |= count == 0;
      if (count == 0) continue;
      check_format(bytes <= static_cast<std::uint64_t>(std::numeric_limits<Index>::max()) / count,
                   source_, ": tensor '", name, "' of shape ", detail::shape_text(entry.shape),
                   " is larger than any memory");
      bytes *= count;
    }
    return empty ? 0 : bytes;
  }

  MappedFile file_;
  std::string source_;
  Metadata metadata_;
  std::vector<StoredTensor> tensors_;
};

NHA_ISA_NAMESPACE_END
