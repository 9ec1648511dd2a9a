// SPDX-License-Identifier: MIT
// What recall is asked to do, and how the command line says it.
#pragma once

#include "../common/command_line.hpp"
#include "task.hpp"

#include <nha/core/index.hpp>
#include <nha/core/options.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace recall {

using nha::Index;

inline constexpr const char* kUsage =
    R"(usage: recall [options]

Trains four small models to recall values by their keys, side by side: Native Hybrid Attention, a
sliding window alone and slots alone, each with a state of the same size, and full attention. Then
measures each with other numbers of pairs, and the hybrid one, with the same weights, at other
windows.

the task: pairs of a key and a value, then every key again at a random place, asking for its value
  --pairs N             in a sequence, 1 to 4096 (16)
  --keys N              to choose from, 1 to 65536 (32)
  --values N            to choose from, 2 to 65536 (32)
  --tokens N            length of a sequence, at least three for each pair, 3 to 65536 (64)
  --random-filler       fill what is left with random values, not with one token of its own

the models
  --models NAME,...     those to train: nha, window, slots, full (all)
  --layers N            1 to 64 (2)
  --width N             channels, a multiple of twice the heads, 2 to 4096 (64)
  --heads N             1 to 64 (2)
  --slots N             of the hybrid, for each head, 1 to 4096 (16)
  --window W            of the hybrid, 1 to 65536 (8)
  --convolution N       kernel size of a short convolution over queries, keys and values, 0 to 64; 0:
                        none; in all four models (0)
  --empty-slots E       how slots count that nothing was written to: participate, masked or
                        mass_corrected (mass_corrected)
  --gate-divisor X      gates are log_sigmoid(...) / X, 0.01 to 1000 (8)
  --gate-bias X         what the bias of the gates starts from, -100 to 100 (4)
  --gate-spread X       standard deviation that the projection to the gates starts with, 0 to 10
                        (0.4)
  --embedding-spread X  the same of the embeddings, 0 to 10 (1)
  --initial-spread X    the same of all other weights, 0 to 10 (0.08)

training
  --steps N             2 to 10000000 (600)
  --curriculum X        the part of the steps, 0 to 1, over which sequences grow from one pair to
                        --pairs; each of these steps draws its number from one to what is reached
                        by then (0.5)
  --batch N             sequences in each step, 1 to 4096 (32)
  --lr X                the highest learning rate, before half a cosine down to a twentieth, more
                        than 0 to 1 (0.005)
  --warmup N            steps until it is reached, 0 or more (50)
  --weight-decay X      0 to 10 (0.01)
  --beta2 X             of AdamW, 0 to 0.9999 (0.95)
  --clip X              longest gradient, 0.000001 to 1000000 (1)
  --random-windows W,.. train the hybrid with a window drawn from these at each step; full: all
                        tokens (none: always --window)
  --seeds N             how often each model is trained, from other first weights and on other
                        sequences, 1 to 100 (3)
  --threads N           1 to 256; they change no number (one for each core)

measuring
  --heldout N           sequences to measure on, 1 to 65536 (256)
  --measure-windows W,. windows to measure the hybrid with (0,2,4,8,16,32,full)
  --measure-pairs N,..  numbers of pairs to measure with; those that do not fit are left out
                        (2,4,8,12,16,20)
  --plot FILE           where to draw the results, an SVG (recall.svg)
  --no-plot             draw none
  --help                this text

Exit status: 0 done, 1 something was wrong, which one line on stderr names.
)";

struct Options {
  Task task = {};

  std::vector<std::string> models = {"nha", "window", "slots", "full"};
  Index layers = 2;
  Index width = 64;
  Index heads = 2;
  Index slots = 16;
  Index window = 8;
  Index convolution = 0;
  nha::EmptySlots empty_slots = nha::EmptySlots::mass_corrected;
  double gate_divisor = 8;
  double gate_bias = 4;
  double gate_spread = 0.4;
  double embedding_spread = 1;
  double initial_spread = 0.08;

  Index steps = 600;
  double curriculum = 0.5;
  Index batch = 32;
  double learning_rate = 5e-3;
  Index warmup = 50;
  double weight_decay = 0.01;
  double beta2 = 0.95;
  double clip = 1;
  std::vector<Index> random_windows;  // empty: always `window`
  Index seeds = 3;
  Index threads = 0;  // 0: one for each core

  Index heldout = 256;
  std::vector<Index> measured_windows = {0, 2, 4, 8, 16, 32, examples_common::kFullWindow};
  std::vector<Index> measured_pairs = {2, 4, 8, 12, 16, 20};
  std::string plot = "recall.svg";  // empty: none
  bool help = false;
};

/// Names of models with commas between.
inline examples_common::TakeValue take_models(std::vector<std::string>& to) {
  return [&to](std::string_view value) {
    const std::vector<std::string> known = Options().models;
    std::vector<std::string> names;
    for (std::size_t first = 0; first <= value.size();) {
      const std::size_t comma = std::min(value.find(',', first), value.size());
      names.emplace_back(value.substr(first, comma - first));
      if (std::find(known.begin(), known.end(), names.back()) == known.end()) return false;
      first = comma + 1;
    }
    to = names;
    return true;
  };
}

inline examples_common::CommandLine known_options(Options& options) {
  using namespace examples_common;
  constexpr Index kMostSteps = 10000000;
  const auto count = [](std::string_view name, Index& to, Index least, Index most) {
    return CommandLine::Value{
        name, "a number from " + std::to_string(least) + " to " + std::to_string(most),
        take_number(to, least, most)};
  };
  return {
      .values =
          {
              count("--pairs", options.task.pairs, 1, 4096),
              count("--keys", options.task.keys, 1, 65536),
              count("--values", options.task.values, 2, 65536),
              count("--tokens", options.task.tokens, 3, 65536),
              {"--models", "names from nha, window, slots and full, with commas between",
               take_models(options.models)},
              count("--layers", options.layers, 1, 64),
              count("--width", options.width, 2, 4096),
              count("--heads", options.heads, 1, 64),
              count("--slots", options.slots, 1, 4096),
              count("--window", options.window, 1, kLongestWindow),
              count("--convolution", options.convolution, 0, 64),
              {"--empty-slots", "participate, masked or mass_corrected",
               take_empty_slots(options.empty_slots)},
              {"--gate-divisor", "a number from 0.01 to 1000",
               take_number(options.gate_divisor, 0.01, 1000.0)},
              {"--gate-bias", "a number from -100 to 100",
               take_number(options.gate_bias, -100.0, 100.0)},
              {"--gate-spread", "a number from 0 to 10",
               take_number(options.gate_spread, 0.0, 10.0)},
              {"--embedding-spread", "a number from 0 to 10",
               take_number(options.embedding_spread, 0.0, 10.0)},
              {"--initial-spread", "a number from 0 to 10",
               take_number(options.initial_spread, 0.0, 10.0)},
              count("--steps", options.steps, 2, kMostSteps),
              {"--curriculum", "a number from 0 to 1", take_number(options.curriculum, 0.0, 1.0)},
              count("--batch", options.batch, 1, 4096),
              {"--lr", "a number, more than 0 to 1",
               take_number(options.learning_rate, 1e-12, 1.0)},
              count("--warmup", options.warmup, 0, kMostSteps),
              {"--weight-decay", "a number from 0 to 10",
               take_number(options.weight_decay, 0.0, 10.0)},
              {"--beta2", "a number from 0 to 0.9999", take_number(options.beta2, 0.0, 0.9999)},
              {"--clip", "a number from 0.000001 to 1000000", take_number(options.clip, 1e-6, 1e6)},
              {"--random-windows", kWindowsExpected, take_windows(options.random_windows)},
              count("--seeds", options.seeds, 1, 100),
              count("--threads", options.threads, 1, 256),
              count("--heldout", options.heldout, 1, 65536),
              {"--measure-windows", kWindowsExpected, take_windows(options.measured_windows)},
              {"--measure-pairs", "numbers from 1 to 4096, with commas between",
               take_numbers(options.measured_pairs, 1, 4096)},
              {"--plot", "the name of a file", take_name(options.plot)},
          },
      .flags = {{"--random-filler", [&options] { options.task.random_filler = true; }},
                {"--no-plot", [&options] { options.plot.clear(); }}}};
}

/// Each window once, none longer than a sequence.
inline std::vector<Index> shortened(const std::vector<Index>& windows, Index tokens) {
  std::vector<Index> once;
  for (const Index window : windows)
    if (std::find(once.begin(), once.end(), std::min(window, tokens)) == once.end())
      once.push_back(std::min(window, tokens));
  return once;
}

/// Fills in `options`; returns what is wrong with the arguments, nothing if they are right.
inline std::string parse_arguments(const std::vector<std::string>& arguments, Options& options) {
  const std::string wrong = known_options(options).parse(arguments, options.help);
  if (!wrong.empty() || options.help) return wrong;
  const Task& task = options.task;
  if (task.pairs > task.keys)
    return "--pairs is " + std::to_string(task.pairs) + "; expected at most --keys, " +
           std::to_string(task.keys);
  if (!task.possible())
    return "--tokens is " + std::to_string(task.tokens) + "; expected 3 * --pairs, " +
           std::to_string(3 * task.pairs) + ", or more";
  if (options.width % (2 * options.heads) != 0)
    return "--width is " + std::to_string(options.width) + "; expected a multiple of twice --heads";
  if (options.warmup >= options.steps)
    return "--warmup is " + std::to_string(options.warmup) + "; expected less than --steps, " +
           std::to_string(options.steps);
  options.measured_windows = shortened(options.measured_windows, task.tokens);
  std::erase_if(options.measured_pairs,
                [&](Index pairs) { return !task.with_pairs(pairs).possible(); });
  return "";
}

}  // namespace recall
