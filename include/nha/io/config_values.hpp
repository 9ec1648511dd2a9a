// SPDX-License-Identifier: MIT
// ConfigValues: the values of a JSON object, and of the objects in its lists, asked for by key and
// type.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// An array or object. What is inside is of interest only where it is nothing but sizes or, in the
/// outermost object, nothing but objects.
struct NestedValue {
  bool is_sizes = false;
  bool is_objects = false;
  std::vector<Index> sizes = {};
};
using ConfigValue = std::variant<std::nullptr_t, bool, std::int64_t, std::uint64_t, double,
                                 std::string, NestedValue>;
using ConfigMap = std::map<std::string, ConfigValue, std::less<>>;
/// The objects of each array of objects, by the key of the array.
using ConfigLists = std::map<std::string, std::vector<ConfigMap>, std::less<>>;

/// Receives the JSON parser's events. Keeps the values of the outermost object, and of objects that
/// are the elements of an array in it.
class ConfigHandler {
 public:
  using Json = nlohmann::json;

  ConfigMap values;
  ConfigLists lists;
  std::string message;

  bool start_object(std::size_t) {
    // An element of an array of objects: what follows are its values.
    if (depth_ == 2 && nested()->is_objects) {
      nested()->is_sizes = false;
      element_ = &lists[key_].emplace_back();
      ++depth_;
      return true;
    }
    return start(NestedValue());
  }
  bool end_object() {
    if (depth_ == kElementDepth) element_ = nullptr;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ == 0) return fail("is an array; expected an object");
    if (depth_ == 1) lists[key_];
    return start({.is_sizes = true, .is_objects = depth_ == 1});
  }
  bool end_array() { return end_object(); }
  bool key(std::string& key) {
    if (depth_ != object_depth()) return true;
    (element_ == nullptr ? key_ : element_key_) = std::move(key);
    return !object().contains(current_key()) ||
           fail("has the key '" + printable(current_key()) + "' twice");
  }
  bool string(std::string& value) { return scalar(std::move(value)); }
  bool number_unsigned(std::uint64_t value) {
    NestedValue* list = depth_ == object_depth() + 1 ? nested() : nullptr;
    if (list == nullptr || !list->is_sizes || value > static_cast<std::uint64_t>(kLargestSize))
      return scalar(value);
    list->is_objects = false;
    list->sizes.push_back(static_cast<Index>(value));
    return true;
  }
  bool number_integer(std::int64_t value) { return scalar(value); }
  bool number_float(double value, const std::string&) { return scalar(value); }
  bool null() { return scalar(nullptr); }
  bool boolean(bool value) { return scalar(value); }
  bool binary(Json::binary_t&) { return fail("holds binary data"); }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) {
    return fail("is not valid JSON in UTF-8, at its byte " + std::to_string(position));
  }

 private:
  bool start(NestedValue value) {
    if (depth_ > 0) put(std::move(value));
    ++depth_;
    return true;
  }
  template <class Value>
  bool scalar(Value&& value) {
    if (depth_ == 0) return fail("is a single value; expected an object");
    put(std::forward<Value>(value));
    return true;
  }
  /// Keeps a value of the object that is read. What lies deeper has no type.
  void put(ConfigValue value) {
    if (depth_ == object_depth()) {
      object().emplace(current_key(), std::move(value));
      return;
    }
    nested()->is_sizes = false;
    if (element_ == nullptr && depth_ == 2) nested()->is_objects = false;
  }

  // The object whose values are kept: the outermost one, or an element of an array in it.
  int object_depth() const noexcept { return element_ == nullptr ? 1 : kElementDepth; }
  ConfigMap& object() noexcept { return element_ == nullptr ? values : *element_; }
  const std::string& current_key() const noexcept {
    return element_ == nullptr ? key_ : element_key_;
  }
  /// The array or object in it that is being read.
  NestedValue* nested() { return std::get_if<NestedValue>(&object().find(current_key())->second); }
  bool fail(std::string text) {
    message = std::move(text);
    return false;
  }

  static constexpr int kElementDepth = 3;  // within the outermost object and an array

  int depth_ = 0;
  std::string key_, element_key_;
  ConfigMap* element_ = nullptr;
};

}  // namespace detail

/// A JSON object whose values are asked for by key. A key that is null counts as left out, as
/// configurations write it. An object in a list stands before the one that the list is in: a key
/// that it does not have is looked up there.
class ConfigValues {
 public:
  /// @throws FormatError if the text is not a JSON object or has a key twice.
  ConfigValues(std::string_view text, std::string_view source)
      : source_(detail::printable(source)) {
    // The parser takes a zero byte for the end of its input; JSON has none, even inside strings.
    const std::size_t zero = text.find('\0');
    check_format(zero == std::string_view::npos, source_, " has a zero byte at ", zero);
    detail::ConfigHandler handler;
    const bool valid = nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
    check_format(valid, source_, " ", handler.message);
    values_ = std::move(handler.values);
    lists_ = std::move(handler.lists);
  }

  /// An object in the list `key` of `outer`, which must stay.
  ConfigValues(const ConfigValues& outer, std::string_view key, std::size_t place)
      : source_(detail::message(outer.source_, ": ", key, "[", place, "]")),
        values_(outer.objects(key)[place]),
        outer_(&outer) {}

  const std::string& source() const noexcept { return source_; }

  /// Number of objects in an array of objects.
  /// @throws FormatError if it is anything else or left out.
  std::size_t object_count(std::string_view key) const { return objects(key).size(); }
  /// The keys of this object alone.
  std::vector<std::string> keys() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : values_) keys.push_back(key);
    return keys;
  }

  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// An integer from `least` to kLargestSize; `otherwise` where left out.
  /// @throws FormatError if it is anything else.
  Index size(std::string_view key, Index otherwise, Index least = 1) const {
    return has(key) ? needed_size(key, least) : otherwise;
  }
  Index needed_size(std::string_view key, Index least = 1) const {
    const detail::ConfigValue& value = needed(key);
    const auto* positive = std::get_if<std::uint64_t>(&value);
    const auto* negative = std::get_if<std::int64_t>(&value);
    check_type(positive != nullptr || negative != nullptr, key, "an integer");
    check_format(positive != nullptr && *positive >= static_cast<std::uint64_t>(least) &&
                     *positive <= static_cast<std::uint64_t>(kLargestSize),
                 source_, ": ", key, " is ",
                 positive != nullptr ? std::to_string(*positive) : std::to_string(*negative),
                 "; expected ", least, " to ", kLargestSize);
    return static_cast<Index>(*positive);
  }

  /// An array of integers from 0 to kLargestSize; empty where left out.
  /// @throws FormatError if it is anything else.
  std::vector<Index> sizes(std::string_view key) const {
    const detail::ConfigValue* value = find(key);
    if (value == nullptr) return {};
    const auto* list = std::get_if<detail::NestedValue>(value);
    check_format(list != nullptr && list->is_sizes, source_, ": ", key,
                 " is not an array of integers from 0 to ", kLargestSize);
    return list->sizes;
  }

  /// A finite number.
  double number(std::string_view key, double otherwise) const {
    const detail::ConfigValue* value = find(key);
    if (value == nullptr) return otherwise;
    if (const auto* real = std::get_if<double>(value)) {
      check_format(std::isfinite(*real), source_, ": ", key, " is not finite");
      return *real;
    }
    if (const auto* positive = std::get_if<std::uint64_t>(value))
      return static_cast<double>(*positive);
    const auto* negative = std::get_if<std::int64_t>(value);
    check_type(negative != nullptr, key, "a number");
    return static_cast<double>(*negative);
  }

  bool flag(std::string_view key, bool otherwise) const {
    const detail::ConfigValue* value = find(key);
    if (value == nullptr) return otherwise;
    check_type(std::holds_alternative<bool>(*value), key, "true or false");
    return *std::get_if<bool>(value);
  }

  std::string text(std::string_view key, std::string_view otherwise) const {
    const detail::ConfigValue* value = find(key);
    if (value == nullptr) return std::string(otherwise);
    check_type(std::holds_alternative<std::string>(*value), key, "a string");
    return *std::get_if<std::string>(value);
  }

 private:
  const detail::ConfigValue* find(std::string_view key) const {
    const auto place = values_.find(key);
    if (place == values_.end() && outer_ != nullptr) return outer_->find(key);
    return place == values_.end() || std::holds_alternative<std::nullptr_t>(place->second)
               ? nullptr
               : &place->second;
  }
  const std::vector<detail::ConfigMap>& objects(std::string_view key) const {
    if (outer_ != nullptr && !values_.contains(key)) return outer_->objects(key);
    const auto* list = std::get_if<detail::NestedValue>(&needed(key));
    check_format(list != nullptr && list->is_objects, source_, ": ", key,
                 " is not an array of objects");
    return lists_.find(key)->second;
  }
  const detail::ConfigValue& needed(std::string_view key) const {
    const detail::ConfigValue* value = find(key);
    check_format(value != nullptr, source_, ": the key ", key, " is missing");
    return *value;
  }
  void check_type(bool ok, std::string_view key, const char* expected) const {
    check_format(ok, source_, ": ", key, " is not ", expected);
  }

  std::string source_;
  detail::ConfigMap values_;
  detail::ConfigLists lists_;
  const ConfigValues* outer_ = nullptr;
};

NHA_ISA_NAMESPACE_END
