// SPDX-License-Identifier: MIT
// What byte_lm is asked to do, and how the command line says it.
#pragma once

#include "../common/command_line.hpp"

#include <nha/core/index.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace byte_lm {

using examples_common::kFullWindow;
using nha::Index;

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

/// Fills in `options`; returns what is wrong with the arguments, nothing if they are right.
inline std::string parse_arguments(const std::vector<std::string>& arguments, Options& options) {
  using namespace examples_common;
  constexpr auto kMostBytes = std::numeric_limits<Index>::max();
  constexpr auto kMostSeed = std::numeric_limits<std::uint64_t>::max();
  const CommandLine known{
      .values =
          {
              {"--model", "the name of a folder", take_name(options.model)},
              {"--text", "the name of a file", take_name(options.text)},
              {"--plot", "the name of a file", take_name(options.plot)},
              {"--prompt", "a text", take_text(options.prompt)},
              {"--length", "a number from 0 to 1000000",
               take_number(options.length, Index{0}, Index{1000000})},
              {"--temperature", "a number from 0 to 100",
               take_number(options.temperature, 0.0, 100.0)},
              {"--seed", "a number, 0 or more",
               take_number(options.seed, std::uint64_t{0}, kMostSeed)},
              {"--window", "a number from 0 to 65536",
               take_number(options.window, Index{0}, kLongestWindow)},
              {"--threads", "a number from 1 to 256",
               take_number(options.threads, Index{1}, Index{256})},
              {"--bytes", "a number, 2 or more", take_number(options.bytes, Index{2}, kMostBytes)},
              {"--windows", kWindowsExpected, take_windows(options.windows)},
          },
      .flags = {{"--no-plot", [&options] { options.plot.clear(); }}}};
  return known.parse(arguments, options.help);
}

}  // namespace byte_lm
