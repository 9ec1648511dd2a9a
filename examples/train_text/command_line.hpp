// SPDX-License-Identifier: MIT
// What train_text is asked to do, and how the command line says it.
#pragma once

#include "../common/command_line.hpp"

#include <nha/core/index.hpp>
#include <nha/core/options.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace train_text {

using nha::Index;

inline constexpr const char* kUsage =
    R"(usage: train_text --text FILE [options]

Trains a Native Hybrid Attention language model of bytes on a text, each step with a window W drawn
from a list, so that the same weights serve all of them; measures it on text it has not seen; and
saves it for byte_lm --model DIR.

  --text FILE        what to learn: any file
  --heldout X        what to measure on and never learn: a file, or the part of the text, 0.001 to
                     0.5, that is cut off its end for that (0.05)
  --heldout-bytes N  how much of it to measure at the end, from its start, 2 or more (65536)
  --out DIR          where the run is saved (train_text.out)
  --resume           go on with the run that is there, exactly as if it had not stopped; give the
                     other options as they were, except --minutes, --stop-at, --threads,
                     --heldout-bytes, --measure and --sample, and except --heldout if it is a file
  --minutes X        stop and save after so long; --resume goes on
  --stop-at N        stop and save after step N; --resume goes on
  --measure W,...    windows to measure (those of --windows)
  --sample N         bytes to write at the end, 0 to 1000000 (400)
  --threads N        1 to 256; they change no number (2)

how to learn
  --steps N          1 or more (6000)
  --batch N          pieces of the text in each step, 1 to 4096 (8)
  --length N         bytes of each piece, 1 to 65536 (256)
  --windows W,...    windows to draw from; one that stands there twice is drawn twice as often; full:
                     no byte ever leaves the window (8,16,32,64,128)
  --lr X             the highest learning rate, after a rise over the first 5% of the steps and
                     before half a cosine down to a hundredth, more than 0 to 1 (0.003)
  --decay X          weight decay, 0 to 10 (0.1)
  --seed N           of the first weights and of what each step draws (1)

the model
  --layers N         1 to 256 (4)
  --width N          channels, a multiple of twice the heads, 1 to 65536 (128)
  --heads N          for queries, 1 to 1024 (4)
  --kv-heads N       for keys and values; divides the heads (2)
  --slots N          for each of these, 0 to 4096 (32)
  --gate-divisor X   gates are log_sigmoid(...) / X, 0.01 to 1000 (8)
  --gate-bias X      gates have a bias, which starts from X, -100 to 100 (no bias)
  --gate-spread X    standard deviation that the projection to the gates starts with, 0 to 10 (0.02,
                     as all weights)
  --convolution N    kernel size of a short convolution over queries, keys and values, 0 to 64; 0: none
                     (4)
  --empty-slots E    how slots count that nothing was written to: participate, masked or
                     mass_corrected (participate)
  --help             this text

Ctrl-C stops after the step under way and saves; a second one at once, and the last save stays whole.
Exit status: 0 done or stopped, 1 something was wrong, which one line on stderr names.
)";

struct Options {
  std::string text;
  std::string heldout = "0.05";
  Index heldout_bytes = 65536;
  std::string out = "train_text.out";
  bool resume = false;
  std::optional<double> minutes;
  std::optional<Index> stop_at;
  std::vector<Index> measure;  // empty: those of `windows`
  Index sample = 400;
  Index threads = 2;

  Index steps = 6000;
  Index batch = 8;
  Index length = 256;
  std::vector<Index> windows = {8, 16, 32, 64, 128};
  double learning_rate = 3e-3;
  double weight_decay = 0.1;
  std::uint64_t seed = 1;

  Index layers = 4;
  Index width = 128;
  Index heads = 4;
  Index kv_heads = 2;
  Index slots = 32;
  double gate_divisor = 8;
  std::optional<double> gate_bias;
  double gate_spread = 0.02;
  Index convolution = 4;
  nha::EmptySlots empty_slots = nha::EmptySlots::participate;

  bool help = false;
};

/// The part of the text that --heldout names; nothing if it names a file.
inline std::optional<double> heldout_part(const Options& options) {
  return examples_common::parse_number(options.heldout, 0.001, 0.5);
}

inline examples_common::CommandLine known_options(Options& options) {
  using namespace examples_common;
  constexpr auto kMost = std::numeric_limits<Index>::max();
  constexpr auto kMostSeed = std::numeric_limits<std::uint64_t>::max();
  constexpr double kLeastRate = 1e-12;
  const auto size = [](Index& to, Index least, Index most) { return take_number(to, least, most); };
  return {
      .values =
          {
              {"--text", "the name of a file", take_name(options.text)},
              {"--heldout", "the name of a file or a number from 0.001 to 0.5",
               take_name(options.heldout)},
              {"--heldout-bytes", "a number, 2 or more", size(options.heldout_bytes, 2, kMost)},
              {"--out", "the name of a folder", take_name(options.out)},
              {"--minutes", "a number, 0 or more", take_number(options.minutes, 0.0, 1e9)},
              {"--stop-at", "a number, 1 or more", take_number(options.stop_at, Index{1}, kMost)},
              {"--measure", kWindowsExpected, take_windows(options.measure)},
              {"--sample", "a number from 0 to 1000000", size(options.sample, 0, 1000000)},
              {"--threads", "a number from 1 to 256", size(options.threads, 1, 256)},
              {"--steps", "a number, 1 or more", size(options.steps, 1, kMost)},
              {"--batch", "a number from 1 to 4096", size(options.batch, 1, 4096)},
              {"--length", "a number from 1 to 65536", size(options.length, 1, 65536)},
              {"--windows", kWindowsExpected, take_windows(options.windows)},
              {"--lr", "a number, more than 0 to 1",
               take_number(options.learning_rate, kLeastRate, 1.0)},
              {"--decay", "a number from 0 to 10", take_number(options.weight_decay, 0.0, 10.0)},
              {"--seed", "a number, 0 or more",
               take_number(options.seed, std::uint64_t{0}, kMostSeed)},
              {"--layers", "a number from 1 to 256", size(options.layers, 1, 256)},
              {"--width", "a number from 1 to 65536", size(options.width, 1, 65536)},
              {"--heads", "a number from 1 to 1024", size(options.heads, 1, 1024)},
              {"--kv-heads", "a number from 1 to 1024", size(options.kv_heads, 1, 1024)},
              {"--slots", "a number from 0 to 4096", size(options.slots, 0, 4096)},
              {"--gate-divisor", "a number from 0.01 to 1000",
               take_number(options.gate_divisor, 0.01, 1000.0)},
              {"--gate-bias", "a number from -100 to 100",
               take_number(options.gate_bias, -100.0, 100.0)},
              {"--gate-spread", "a number from 0 to 10",
               take_number(options.gate_spread, 0.0, 10.0)},
              {"--convolution", "a number from 0 to 64", size(options.convolution, 0, 64)},
              {"--empty-slots", "participate, masked or mass_corrected",
               take_empty_slots(options.empty_slots)},
          },
      .flags = {{"--resume", [&options] { options.resume = true; }}}};
}

/// Fills in `options`; returns what is wrong with the arguments, nothing if they are right.
inline std::string parse_arguments(const std::vector<std::string>& arguments, Options& options) {
  const std::string wrong = known_options(options).parse(arguments, options.help);
  if (!wrong.empty() || options.help) return wrong;
  if (options.text.empty()) return "--text FILE is missing";
  if (options.width % (2 * options.heads) != 0)
    return "--width is " + std::to_string(options.width) + "; expected a multiple of twice --heads";
  if (options.heads % options.kv_heads != 0)
    return "--kv-heads is " + std::to_string(options.kv_heads) + "; expected a divisor of --heads";
  if (options.measure.empty()) options.measure = options.windows;
  return "";
}

}  // namespace train_text
