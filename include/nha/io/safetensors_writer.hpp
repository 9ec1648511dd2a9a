// SPDX-License-Identifier: MIT
// Writing the safetensors format: the same tensors always give the same bytes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/little_endian.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/io/new_file.hpp>
#include <nha/io/safetensors_header.hpp>
#include <nha/io/stored_type.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// A tensor to be written: a name and numbers of any strides, which the caller keeps until they
/// have been written.
class TensorToSave {
 public:
  template <class T, Index... Extents>
  TensorToSave(std::string name, const TensorView<T, Extents...>& view)
      : name_(std::move(name)),
        dtype_(stored_type_of<std::remove_cv_t<T>>()),
        data_(reinterpret_cast<const std::byte*>(view.data())) {
    for (int axis = 0; axis < view.rank; ++axis) {
      shape_.push_back(view.extent(axis));
      strides_.push_back(view.stride(axis));
    }
  }
  /// Of any number of axes, row-major.
  /// @throws ArgumentError if there are not as many values as the shape says, or no axes.
  template <class T>
  TensorToSave(std::string name, std::vector<Index> shape, std::span<const T> values)
      : name_(std::move(name)),
        dtype_(stored_type_of<T>()),
        shape_(std::move(shape)),
        strides_(shape_.size()),
        data_(reinterpret_cast<const std::byte*>(values.data())) {
    Index count = 1;
    bool fits = !shape_.empty(), empty = false;
    for (std::size_t axis = shape_.size(); axis-- > 0;) {
      strides_[axis] = count;
      empty = empty || shape_[axis] == 0;
      fits = fits && shape_[axis] >= 0 && detail::multiply_extent(count, shape_[axis]);
    }
    check_argument(fits && values.size() == (empty ? 0 : static_cast<std::size_t>(count)),
                   "tensor '", detail::printable(name_), "' of shape ", detail::shape_text(shape_),
                   " has ", values.size(), " values");
  }

  const std::string& name() const noexcept { return name_; }
  StoredType dtype() const noexcept { return dtype_; }
  const std::vector<Index>& shape() const noexcept { return shape_; }
  std::size_t bytes() const noexcept {
    std::size_t bytes = stored_bytes(dtype_);
    for (const Index extent : shape_) bytes *= static_cast<std::size_t>(extent);
    return bytes;
  }

  /// Hands its elements to write(std::span<const std::byte>) in pieces, row-major, little-endian.
  template <class Write>
  void emit(Write&& write) const {
    if (bytes() == 0) return;
    std::vector<std::byte> row(static_cast<std::size_t>(shape_.back()) * stored_bytes(dtype_));
    emit_axis(0, data_, row, write);
  }

 private:
  template <class Write>
  void emit_axis(std::size_t axis, const std::byte* from, std::vector<std::byte>& row,
                 Write& write) const {
    const std::size_t size = stored_bytes(dtype_);
    const Index step = strides_[axis] * static_cast<Index>(size);
    if (axis + 1 < shape_.size()) {
      for (Index i = 0; i < shape_[axis]; ++i) emit_axis(axis + 1, from + i * step, row, write);
      return;
    }
    std::byte* to = row.data();
    for (Index i = 0; i < shape_[axis]; ++i, to += size) {
      std::copy_n(from + i * step, size, to);
      if constexpr (!kLittleEndianHost) std::reverse(to, to + size);
    }
    write(std::span<const std::byte>(row));
  }

  std::string name_;
  StoredType dtype_;
  std::vector<Index> shape_;
  std::vector<Index> strides_;
  const std::byte* data_;
};

namespace detail {

/// A JSON string.
inline std::string json_quoted(const char* what, std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char kDigits[] = "0123456789abcdef";
      out += {'\\', 'u', '0', '0', kDigits[c >> 4], kDigits[c & 15]};
    } else {
      out += c;
    }
  }
  out += '"';
  check_argument(nlohmann::json::accept(out), what, " '", printable(text), "' is not valid UTF-8");
  return out;
}

inline std::string json_numbers(const std::vector<Index>& numbers) {
  std::string out = "[";
  for (const Index number : numbers) {
    if (out.size() > 1) out += ',';
    out += std::to_string(number);
  }
  return out + "]";
}

/// Hands a whole safetensors file to write(std::span<const std::byte>), in pieces.
template <class Write>
void emit_safetensors(std::span<const TensorToSave> tensors, const Metadata& metadata,
                      Write&& write) {
  std::vector<const TensorToSave*> by_name;
  for (const TensorToSave& tensor : tensors) by_name.push_back(&tensor);
  std::sort(by_name.begin(), by_name.end(),
            [](const auto* a, const auto* b) { return a->name() < b->name(); });
  for (std::size_t i = 0; i < by_name.size(); ++i) {
    const std::string& name = by_name[i]->name();
    check_argument(name != "__metadata__", "a tensor is named __metadata__, which means another");
    check_argument(i == 0 || by_name[i - 1]->name() != name, "two tensors are named '",
                   printable(name), "'");
  }
  // Widest elements first, so that every tensor is aligned for its type when the file is mapped.
  std::vector<const TensorToSave*> by_width = by_name;
  std::stable_sort(by_width.begin(), by_width.end(), [](const auto* a, const auto* b) {
    return stored_bytes(a->dtype()) > stored_bytes(b->dtype());
  });
  std::map<std::string_view, std::size_t> begins;
  std::size_t end = 0;
  for (const TensorToSave* tensor : by_width) {
    begins[tensor->name()] = end;
    end += tensor->bytes();
  }

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (header.back() != '{') header += ',';
      header += json_quoted("metadata key", key) + ':' + json_quoted("metadata value", value);
    }
    header += '}';
  }
  for (const TensorToSave* tensor : by_name) {
    if (header.back() != '{') header += ',';
    const std::size_t begin = begins[tensor->name()];
    header += json_quoted("tensor name", tensor->name()) + ":{\"dtype\":\"";
    header += stored_name(tensor->dtype());
    header += "\",\"shape\":" + json_numbers(tensor->shape()) + ",\"data_offsets\":[" +
              std::to_string(begin) + ',' + std::to_string(begin + tensor->bytes()) + "]}";
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');

  std::array<std::byte, 8> length;
  store_little(static_cast<std::uint64_t>(header.size()), length.data());
  write(std::span<const std::byte>(length));
  write(std::as_bytes(std::span<const char>(header)));
  for (const TensorToSave* tensor : by_width) tensor->emit(write);
}

}  // namespace detail

/// The bytes of a safetensors file that holds `tensors` and `metadata`. They depend on nothing
/// else: not on the order of `tensors`, their strides or the host. Every tensor begins at a
/// multiple of its element size.
/// @throws ArgumentError if two tensors have one name, or a name or a metadata string is not UTF-8.
inline std::vector<std::byte> safetensors_bytes(std::span<const TensorToSave> tensors,
                                                const Metadata& metadata = {}) {
  std::vector<std::byte> out;
  detail::emit_safetensors(tensors, metadata, [&](std::span<const std::byte> piece) {
    out.insert(out.end(), piece.begin(), piece.end());
  });
  return out;
}

/// Writes the same bytes to a file, which appears whole or not at all. A file that had the name is
/// replaced; it is left as it was if anything fails.
/// @throws ArgumentError as safetensors_bytes() says, FormatError naming the path if it cannot be
///   written.
inline void save_safetensors(const std::string& path, std::span<const TensorToSave> tensors,
                             const Metadata& metadata = {}) {
  NewFile file(path);
  detail::emit_safetensors(tensors, metadata,
                           [&](std::span<const std::byte> piece) { file.write(piece); });
  file.commit();
}

NHA_ISA_NAMESPACE_END
