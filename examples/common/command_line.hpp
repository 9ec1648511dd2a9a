// SPDX-License-Identifier: MIT
// Command lines of options with values and of flags.
#pragma once

#include <nha/core/index.hpp>
#include <nha/core/names.hpp>
#include <nha/core/options.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace examples_common {

using nha::Index;

/// A window at least as long as any text.
inline constexpr Index kFullWindow = std::numeric_limits<Index>::max();
/// The longest window that may be asked for by number: its state takes memory at once.
inline constexpr Index kLongestWindow = 65536;
inline constexpr const char* kWindowsExpected =
    "numbers from 0 to 65536, or full, with commas between";

/// A number from least to most and nothing else.
template <class Number>
std::optional<Number> parse_number(std::string_view text, Number least, Number most) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(number >= least && number <= most)) return std::nullopt;
  return number;
}

/// Entries with commas between, each read by parse(entry), which returns an optional number.
template <class Parse>
std::optional<std::vector<Index>> parse_list(std::string_view text, Parse&& parse) {
  std::vector<Index> list;
  for (std::size_t first = 0; first <= text.size();) {
    const std::size_t comma = std::min(text.find(',', first), text.size());
    const std::optional<Index> entry = parse(text.substr(first, comma - first));
    if (!entry) return std::nullopt;
    list.push_back(*entry);
    first = comma + 1;
  }
  return list;
}

/// "8,32,full"
inline std::optional<std::vector<Index>> parse_windows(std::string_view text) {
  return parse_list(text, [](std::string_view entry) {
    return entry == "full" ? kFullWindow : parse_number<Index>(entry, 0, kLongestWindow);
  });
}

/// "full" or the number.
inline std::string window_name(Index window) {
  return window == kFullWindow ? "full" : std::to_string(window);
}
/// "8,32,full", or with another text between.
inline std::string window_list(const std::vector<Index>& windows, const char* between = ",") {
  std::string list;
  for (const Index window : windows) list += (list.empty() ? "" : between) + window_name(window);
  return list;
}

/// Takes over the value of an option; returns whether it will do.
using TakeValue = std::function<bool(std::string_view)>;

/// A number from least to most.
template <class To, class Number>
TakeValue take_number(To& to, Number least, Number most) {
  return [=, &to](std::string_view value) {
    const std::optional<Number> number = parse_number(value, least, most);
    if (number) to = *number;
    return number.has_value();
  };
}
/// The name of a file or folder.
inline TakeValue take_name(std::string& to) {
  return [&to](std::string_view value) {
    to = value;
    return !to.empty();
  };
}
inline TakeValue take_text(std::string& to) {
  return [&to](std::string_view value) {
    to = value;
    return true;
  };
}
inline TakeValue take_windows(std::vector<Index>& to) {
  return [&to](std::string_view value) {
    const auto windows = parse_windows(value);
    if (windows) to = *windows;
    return windows.has_value();
  };
}
/// Numbers from least to most.
inline TakeValue take_numbers(std::vector<Index>& to, Index least, Index most) {
  return [=, &to](std::string_view value) {
    const auto numbers = parse_list(
        value, [=](std::string_view entry) { return parse_number<Index>(entry, least, most); });
    if (numbers) to = *numbers;
    return numbers.has_value();
  };
}
inline TakeValue take_empty_slots(nha::EmptySlots& to) {
  return [&to](std::string_view value) {
    const std::optional<nha::EmptySlots> rule = nha::find_value(nha::kEmptySlotsNames, value);
    if (rule) to = *rule;
    return rule.has_value();
  };
}

/// What a command line may hold.
struct CommandLine {
  /// --name VALUE
  struct Value {
    std::string_view name;
    std::string expected;
    TakeValue take;
  };
  /// --name
  struct Flag {
    std::string_view name;
    std::function<void()> set;
  };

  std::vector<Value> values;
  std::vector<Flag> flags;

  /// Takes the arguments over; returns what is wrong with them, nothing if they are right. --help
  /// sets `help`, and what follows it is not looked at.
  std::string parse(const std::vector<std::string>& arguments, bool& help) const {
    const auto find = [](const auto& list, const std::string& name) {
      return std::find_if(list.begin(), list.end(),
                          [&](const auto& candidate) { return candidate.name == name; });
    };
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const std::string& name = arguments[i];
      if (name == "--help") {
        help = true;
        return "";
      }
      if (const auto flag = find(flags, name); flag != flags.end()) {
        flag->set();
        continue;
      }
      const auto option = find(values, name);
      if (option == values.end())
        return (name.starts_with("-") ? "unknown option " : "unexpected argument ") + name;
      if (i + 1 == arguments.size()) return name + " needs a value";
      const std::string& value = arguments[++i];
      if (!option->take(value)) return name + " is '" + value + "'; expected " + option->expected;
    }
    return "";
  }
};

}  // namespace examples_common
