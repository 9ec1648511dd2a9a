// SPDX-License-Identifier: MIT
// A text file as characters.
#pragma once

#include <nha/core/error.hpp>
#include <nha/io/mapped_file.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace examples_common {

/// The bytes of a mapped file, valid as long as that.
/// @throws FormatError naming `path` if it has fewer than `least` bytes, which `why` is given for.
inline std::string_view characters(const nha::MappedFile& file, const std::string& path,
                                   std::size_t least, const char* why) {
  const auto bytes = file.bytes();
  nha::check_format(bytes.size() >= least, path, ": of length ", bytes.size(), "; ", why, " takes ",
                    least, " bytes or more");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace examples_common
