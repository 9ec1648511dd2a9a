// SPDX-License-Identifier: MIT
// The JSON header of a safetensors file: its grammar, checked value by value as it is read.
//
// The reader of whole files is in safetensors.hpp, the writer in safetensors_writer.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/io/stored_type.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Strings that accompany the tensors of a file.
using Metadata = std::map<std::string, std::string, std::less<>>;

namespace detail {

/// One tensor as a header describes it; nothing here has been compared with the file's data.
struct SafetensorsEntry {
  StoredType dtype = StoredType::f32;
  std::vector<Index> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  Metadata metadata;
  std::map<std::string, SafetensorsEntry, std::less<>> tensors;
};

/// Receives the JSON parser's events. What the format does not allow ends the parse at once, with a
/// message: other nesting or types, keys that come twice, numbers that are not sizes. Memory
/// follows the text that was really there, never a number in it.
class SafetensorsHandler {
 public:
  using Json = nlohmann::json;

  SafetensorsHeader header;
  std::string message;

  bool start_object(std::size_t) {
    if (place_ == Place::start) return go(Place::top);
    if (place_ != Place::top) return unexpected("an object");
    return go(name_ == "__metadata__" ? Place::metadata : Place::tensor);
  }
  bool end_object() {
    if (place_ == Place::tensor) {
      if (!has_dtype_) return fail("tensor '", printable(name_), "' has no dtype");
      if (!has_shape_) return fail("tensor '", printable(name_), "' has no shape");
      if (!has_offsets_) return fail("tensor '", printable(name_), "' has no data_offsets");
      header.tensors.emplace(name_, std::exchange(entry_, {}));
      has_dtype_ = has_shape_ = has_offsets_ = false;
    }
    return go(place_ == Place::top ? Place::end : Place::top);
  }
  bool key(std::string& key) {
    if (place_ == Place::top) {
      name_ = std::move(key);
      if (name_ == "__metadata__" ? std::exchange(has_metadata_, true)
                                  : header.tensors.contains(name_))
        return fail("'", printable(name_), "' comes twice");
      return true;
    }
    key_ = std::move(key);
    if (place_ == Place::metadata)
      return !header.metadata.contains(key_) ||
             fail("metadata key '", printable(key_), "' comes twice");
    bool* field = key_ == "dtype"          ? &has_dtype_
                  : key_ == "shape"        ? &has_shape_
                  : key_ == "data_offsets" ? &has_offsets_
                                           : nullptr;
    if (field == nullptr)
      return fail("tensor '", printable(name_), "' has an unknown key '", printable(key_), "'");
    if (std::exchange(*field, true))
      return fail("tensor '", printable(name_), "' has two keys ", key_);
    return true;
  }
  bool string(std::string& value) {
    if (place_ == Place::metadata) {
      header.metadata.emplace(key_, std::move(value));
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return unexpected("a string");
    const auto type = find_stored_type(value);
    if (!type)
      return fail("tensor '", printable(name_), "' has an unknown dtype '", printable(value), "'");
    entry_.dtype = *type;
    return true;
  }
  bool start_array(std::size_t) {
    if (place_ != Place::tensor || key_ == "dtype") return unexpected("an array");
    offsets_ = 0;
    return go(key_ == "shape" ? Place::shape : Place::offsets);
  }
  bool end_array() {
    if (place_ == Place::offsets && offsets_ != 2)
      return fail("data_offsets of tensor '", printable(name_), "' has ", offsets_,
                  " numbers; expected 2");
    return go(Place::tensor);
  }
  bool number_unsigned(std::uint64_t value) {
    if (place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
        return fail("tensor '", printable(name_), "' has an extent of ", value);
      entry_.shape.push_back(static_cast<Index>(value));
      return true;
    }
    if (place_ != Place::offsets || offsets_ == 2) return unexpected("a number");
    (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    return true;
  }
  bool number_integer(std::int64_t) { return unexpected("a negative number"); }
  bool number_float(double, const std::string&) { return unexpected("a number that is no size"); }
  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool binary(Json::binary_t&) { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) {
    return fail("header is not valid JSON in UTF-8, at its byte ", position);
  }

 private:
  enum class Place { start, top, metadata, tensor, shape, offsets, end };

  bool go(Place place) {
    place_ = place;
    return true;
  }
  template <class... Parts>
  bool fail(const Parts&... parts) {
    message = detail::message(parts...);
    return false;
  }
  bool unexpected(const char* what) {
    switch (place_) {
      case Place::start:
      case Place::end:
        return fail("header is ", what, "; expected an object");
      case Place::top:
        return fail("'", printable(name_), "' is ", what, "; expected an object");
      case Place::metadata:
        return fail("metadata '", printable(key_), "' is ", what, "; expected a string");
      case Place::tensor:
      case Place::shape:
      case Place::offsets:
        break;
    }
    return fail(key_, " of tensor '", printable(name_), "' ",
                place_ == Place::tensor ? "is " : "holds ", what, "; expected ",
                key_ == "dtype"   ? "a string"
                : key_ == "shape" ? "an array of sizes"
                                  : "an array of two offsets");
  }

  Place place_ = Place::start;
  std::string name_;  // the top-level key being read
  std::string key_;   // the key inside it
  SafetensorsEntry entry_;
  int offsets_ = 0;
  bool has_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
};

/// Reads the header's text.
/// @param source what messages begin with: the file's path
/// @throws FormatError if it is not what the format allows.
inline SafetensorsHeader parse_safetensors_header(std::string_view text, std::string_view source) {
  check_format(!text.empty() && text.front() == '{', source, ": header does not begin with '{'");
  // The parser takes a zero byte for the end of its input; JSON has none, even inside strings.
  const std::size_t zero = text.find('\0');
  check_format(zero == std::string_view::npos, source, ": header has a zero byte at ", zero);
  SafetensorsHandler handler;
  const bool valid = nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  check_format(valid, source, ": ", handler.message);
  return std::move(handler.header);
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
