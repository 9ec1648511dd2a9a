// SPDX-License-Identifier: MIT
// Names and codes of enumerations and number types, as files, command lines and messages have them.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/options.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// A value and its name; the names of an enumeration are an array of these.
template <class Value>
struct Named {
  std::string_view name;
  Value value;
};

/// The name of a value, if it has one.
template <class Value, std::size_t Count>
constexpr std::optional<std::string_view> find_name(const Named<Value> (&names)[Count],
                                                    Value value) noexcept {
  for (const Named<Value>& entry : names)
    if (entry.value == value) return entry.name;
  return std::nullopt;
}

/// The value of that name, if there is one.
template <class Value, std::size_t Count>
constexpr std::optional<Value> find_value(const Named<Value> (&names)[Count],
                                          std::string_view name) noexcept {
  for (const Named<Value>& entry : names)
    if (entry.name == name) return entry.value;
  return std::nullopt;
}

/// All names for a message: "participate, masked or mass_corrected".
template <class Value, std::size_t Count>
std::string name_list(const Named<Value> (&names)[Count]) {
  std::string out;
  for (std::size_t n = 0; n < Count; ++n) {
    if (n > 0) out += n + 1 < Count ? ", " : " or ";
    out += names[n].name;
  }
  return out;
}

/// Of the rules for empty slots. In saved states the code of one is its place here.
inline constexpr Named<EmptySlots> kEmptySlotsNames[] = {
    {"participate", EmptySlots::participate},
    {"masked", EmptySlots::masked},
    {"mass_corrected", EmptySlots::mass_corrected}};

/// Of the number types, as checkpoints write them. In saved states the code of one is its place
/// here.
inline constexpr const char* kDtypeNames[] = {"F32", "F64", "BF16", "F16"};

/// The code of a number type in saved states.
template <Scalar T>
constexpr std::uint32_t dtype_code() noexcept {
  if constexpr (std::is_same_v<T, float>) return 0;
  if constexpr (std::is_same_v<T, double>) return 1;
  if constexpr (std::is_same_v<T, bfloat16>) return 2;
  return 3;
}

/// The name of a number type: "F32", "F64", "BF16" or "F16".
template <Scalar T>
constexpr const char* dtype_name() noexcept {
  return kDtypeNames[dtype_code<T>()];
}

/// Calls `visit` with a number of the type of that name. False where no type has the name.
template <class F>
bool with_dtype(std::string_view name, F&& visit) {
  const auto try_type = [&](auto number) {
    if (name != dtype_name<decltype(number)>()) return false;
    visit(number);
    return true;
  };
  return try_type(float()) || try_type(double()) || try_type(bfloat16()) || try_type(float16());
}

NHA_ISA_NAMESPACE_END
