// SPDX-License-Identifier: MIT
// What byte_lm is asked to do, and how the command line says it.
#pragma once

#include <nha/core/dtype.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace byte_lm {

using nha::Index;

/// A window at least as long as any text.
inline constexpr Index kFullWindow = std::numeric_limits<Index>::max();
/// The longest window that may be asked for by number: its state takes memory at once.
inline constexpr Index kLongestWindow = 65536;

inline constexpr const char* kUsage =
    R"(usage: byte_lm [options]

Loads a Native Hybrid Attention language model of bytes, continues a prompt, measures how well it
predicts a text at several windows W with the same weights, and draws where its attention went.

  --model DIR        folder with config.json and model.safetensors (the model shipped with this)
  --prompt TEXT      what to continue (And it came to pass)
  --length N         bytes to write, 0 to 1000000 (400)
  --temperature X    0 always takes the likeliest byte; larger is wilder; up to 100 (0.7)
  --seed N           of the random choices: the same seed writes the same text (1)
  --window W         bytes each layer sees exactly, for the prompt and the picture, 0 to 65536
                     (what the model says)
  --threads N        1 to 256 (1: this model is too small for more to help)
  --text FILE        what to measure and draw (a text shipped with this, not in the training data)
  --bytes N          how much of it, from the start, 2 or more (16384)
  --windows W,W,...  windows to measure; full: no byte ever leaves the window
                     (0,8,16,32,64,128,256,full)
  --plot FILE        where to draw the picture, an SVG (slot_share.svg)
  --no-plot          draw none
  --help             this text

Exit status: 0 done, 1 something was wrong, which one line on stderr names.
)";

struct Options {
  std::string model = NHA_EXAMPLE_DATA_DIR "/byte_lm";
  std::string prompt = "And it came to pass";
  Index length = 400;
  double temperature = 0.7;
  std::uint64_t seed = 1;
  std::optional<Index> window;  // unset: what the model says
  Index threads = 1;
  std::string text = NHA_EXAMPLE_DATA_DIR "/byte_lm/heldout.txt";
  Index bytes = 16384;
  std::vector<Index> windows = {0, 8, 16, 32, 64, 128, 256, kFullWindow};
  std::string plot = "slot_share.svg";  // empty: none
  bool help = false;
};

/// A number from least to most and nothing else.
template <class Number>
std::optional<Number> parse_number(std::string_view text, Number least, Number most) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(number >= least && number <= most)) return std::nullopt;
  return number;
}

/// "8,32,full"
inline std::optional<std::vector<Index>> parse_windows(std::string_view text) {
  std::vector<Index> windows;
  for (std::size_t first = 0; first <= text.size();) {
    const std::size_t comma = std::min(text.find(',', first), text.size());
    const std::string_view entry = text.substr(first, comma - first);
    const auto window =
        entry == "full" ? kFullWindow : parse_number<Index>(entry, 0, kLongestWindow);
    if (!window) return std::nullopt;
    windows.push_back(*window);
    first = comma + 1;
  }
  return windows;
}

/// An option with a value: how to take it over, and what values it may have.
struct ValueOption {
  std::string_view name;
  std::string_view expected;
  std::function<bool(std::string_view)> take;  // whether the value will do
};

/// The options with values, each bound to its place in `options`.
inline std::vector<ValueOption> value_options(Options& options) {
  const auto assign = [](auto& to, const auto& value) {
    if (value) to = *value;
    return value.has_value();
  };
  const auto file = [](std::string& to) {
    return [&to](std::string_view value) {
      to = value;
      return !to.empty();
    };
  };
  const auto number = [assign](auto& to, auto least, auto most) {
    return
        [=, &to](std::string_view value) { return assign(to, parse_number(value, least, most)); };
  };
  constexpr auto kMostBytes = std::numeric_limits<Index>::max();
  constexpr auto kMostSeed = std::numeric_limits<std::uint64_t>::max();
  return {
      {"--model", "the name of a folder", file(options.model)},
      {"--text", "the name of a file", file(options.text)},
      {"--plot", "the name of a file", file(options.plot)},
      {"--prompt", "a text",
       [&options](std::string_view value) {
         options.prompt = value;
         return true;
       }},
      {"--length", "a number from 0 to 1000000", number(options.length, Index{0}, Index{1000000})},
      {"--temperature", "a number from 0 to 100", number(options.temperature, 0.0, 100.0)},
      {"--seed", "a number, 0 or more", number(options.seed, std::uint64_t{0}, kMostSeed)},
      {"--window", "a number from 0 to 65536", number(options.window, Index{0}, kLongestWindow)},
      {"--threads", "a number from 1 to 256", number(options.threads, Index{1}, Index{256})},
      {"--bytes", "a number, 2 or more", number(options.bytes, Index{2}, kMostBytes)},
      {"--windows", "numbers from 0 to 65536, or full, with commas between",
       [=, &options](std::string_view value) {
         return assign(options.windows, parse_windows(value));
       }},
  };
}

/// Fills in `options`; returns what is wrong with the arguments, nothing if they are right.
inline std::string parse_arguments(const std::vector<std::string>& arguments, Options& options) {
  const std::vector<ValueOption> known = value_options(options);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name == "--help") {
      options.help = true;
      return "";
    }
    if (name == "--no-plot") {
      options.plot.clear();
      continue;
    }
    const auto option = std::find_if(known.begin(), known.end(), [&](const ValueOption& candidate) {
      return candidate.name == name;
    });
    if (option == known.end())
      return (name.starts_with("-") ? "unknown option " : "unexpected argument ") + name;
    if (i + 1 == arguments.size()) return name + " needs a value";
    const std::string& value = arguments[++i];
    if (!option->take(value))
      return name + " is '" + value + "'; expected " + std::string(option->expected);
  }
  return "";
}

}  // namespace byte_lm
