// SPDX-License-Identifier: MIT
// Uses what the component io adds.
#include <nha/io/checkpoint.hpp>
#include <nha/io/safetensors.hpp>

#include <cstddef>
#include <span>
#include <string>

int main() {
  std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  file += header + std::string("\0\0\x80\x3f\0\0\0\x40", 8);  // 1 and 2
  const nha::Safetensors tensors(std::as_bytes(std::span(file)));
  return tensors.at("x").to_vector<float>()[1] == 2.0f && tensors.find("y") == nullptr ? 0 : 1;
}
