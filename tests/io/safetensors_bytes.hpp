// SPDX-License-Identifier: MIT
// Safetensors files for the tests, written by hand so that any part may lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nha_test {

/// A file with that header, `data_bytes` bytes of data 0, 1, 2, ..., and the header length given,
/// by default the true one.
inline std::vector<std::byte> safetensors_file(const std::string& header, std::size_t data_bytes,
                                               std::uint64_t header_length = ~std::uint64_t{0}) {
  if (header_length == ~std::uint64_t{0}) header_length = header.size();
  std::vector<std::byte> out;
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::byte>(header_length >> (8 * i)));
  for (const char c : header) out.push_back(static_cast<std::byte>(c));
  for (std::size_t i = 0; i < data_bytes; ++i) out.push_back(static_cast<std::byte>(i));
  return out;
}

/// One tensor of a header: "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

}  // namespace nha_test
