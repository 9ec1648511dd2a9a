// SPDX-License-Identifier: MIT
// The results in tables.
#pragma once

#include "../common/display.hpp"
#include "command_line.hpp"
#include "contestants.hpp"
#include "statistics.hpp"
#include "training.hpp"

#include <nha/core/index.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace recall {

/// Of one model, a run for each seed.
using Runs = std::vector<RunResult>;

/// What read(run) gives, for each run.
template <class Read>
std::vector<double> of_each(const Runs& runs, Read&& read) {
  std::vector<double> numbers;
  for (const RunResult& run : runs) numbers.push_back(read(run));
  return numbers;
}

inline void print_accuracies(const std::vector<double>& accuracies) {
  for (const double accuracy : accuracies) std::printf(" %8s", shown_accuracy(accuracy).c_str());
}
/// Each seed, then their mean, the lowest and the highest.
inline void print_seeds(const std::vector<double>& accuracies) {
  print_accuracies(accuracies);
  const auto [lowest, highest] = std::minmax_element(accuracies.begin(), accuracies.end());
  print_accuracies({mean_of(accuracies), *lowest, *highest});
}
inline void print_seed_names(Index seeds) {
  for (Index seed = 1; seed <= seeds; ++seed)
    std::printf(" %8s", ("seed " + std::to_string(seed)).c_str());
  std::printf(" %8s %8s %8s", "mean", "lowest", "highest");
}

inline void print_comparison(const Options& options, const std::vector<Contestant>& contestants,
                             const std::vector<Runs>& results) {
  std::printf("== Accuracy on %s held-out sequences\n",
              examples_common::grouped(options.heldout).c_str());
  std::printf("%-16s %-17s %10s", "model", "memory", "state");
  print_seed_names(options.seeds);
  std::printf(" %9s   %s\n", "training", "loss, nats");
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    const Runs& runs = results[i];
    std::printf("%-16s %-17s %10s", contestants[i].name.c_str(), contestants[i].memory.c_str(),
                shown_state(contestants[i].model).c_str());
    print_seeds(of_each(runs, [](const RunResult& run) { return run.accuracy; }));
    const auto mean = [&](auto&& read) { return mean_of(of_each(runs, read)); };
    std::printf(" %8.1fs   %.2f to %.2f\n", mean([](const RunResult& run) { return run.seconds; }),
                mean([](const RunResult& run) { return run.curve.front().loss; }),
                mean([](const RunResult& run) { return run.curve.back().loss; }));
  }
  std::printf(
      "\nA guess is right once in %s. training: of one run, on one thread. loss: of the batches "
      "at\n"
      "the start and at the end.\n",
      examples_common::grouped(options.task.values).c_str());
  for (std::size_t i = 0; i < contestants.size(); ++i)
    for (std::size_t seed = 0; seed < results[i].size(); ++seed)
      if (results[i][seed].left_out > 0)
        std::printf("%s, seed %zu: %td steps were left out, their gradients were not finite.\n",
                    contestants[i].name.c_str(), seed + 1, results[i][seed].left_out);
  std::printf("\n");
}

inline void print_windows(const Options& options, const Contestant& hybrid, const Runs& runs) {
  if (options.measured_windows.empty()) return;
  std::printf(
      "== %s at other windows: the same weights, not trained again (%s)\n", hybrid.name.c_str(),
      options.random_windows.empty() ? ("trained at W = " + std::to_string(options.window)).c_str()
                                     : "trained at random windows");
  std::printf("%8s %10s", "W", "state");
  print_seed_names(options.seeds);
  std::printf("\n");
  for (std::size_t i = 0; i < options.measured_windows.size(); ++i) {
    const Index window = options.measured_windows[i];
    std::printf("%8s %10s",
                (window == options.task.tokens ? "full" : std::to_string(window)).c_str(),
                shown_state(model_options(options, options.slots, window)).c_str());
    print_seeds(of_each(runs, [i](const RunResult& run) { return run.by_window[i]; }));
    std::printf("\n");
  }
  std::printf("\n");
}

/// "9-16"
inline std::string shown_range(const DistanceRange& range) {
  const Index least = std::max(range.more_than + 1, kNearest);
  const std::string most = std::to_string(range.most);
  return least == range.most ? most : std::to_string(least) + "-" + most;
}

/// A column for each name: means over the seeds of what read(run, column) gives.
template <class Read>
void print_columns(const std::string& title, const std::vector<std::string>& names,
                   const std::vector<Contestant>& contestants, const std::vector<Runs>& results,
                   Read&& read) {
  if (names.empty()) return;
  std::printf("== %s\n%-16s", title.c_str(), "model");
  for (const std::string& name : names) std::printf(" %8s", name.c_str());
  std::printf("\n");
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    std::printf("%-16s", contestants[i].name.c_str());
    for (std::size_t column = 0; column < names.size(); ++column)
      print_accuracies(
          {mean_of(of_each(results[i], [&](const RunResult& run) { return read(run)[column]; }))});
    std::printf("\n");
  }
  std::printf("\n");
}

/// All tables; results [contestants][seeds].
inline void print_report(const Options& options, const std::vector<Contestant>& contestants,
                         const std::vector<Runs>& results) {
  print_comparison(options, contestants, results);
  if (const std::size_t hybrid = place_of_hybrid(contestants); hybrid < contestants.size())
    print_windows(options, contestants[hybrid], results[hybrid]);

  std::vector<std::string> names;
  for (const Index pairs : options.measured_pairs) names.push_back(std::to_string(pairs));
  print_columns(
      "With other numbers of pairs: means over the seeds, not trained again", names, contestants,
      results, [](const RunResult& run) -> const auto& { return run.by_pairs; });

  names.clear();
  for (const DistanceRange& range : distance_ranges(options.task))
    names.push_back(shown_range(range));
  print_columns(
      "By distance from a key's pair to its question", names, contestants, results,
      [](const RunResult& run) -> const auto& { return run.by_distance; });
}

}  // namespace recall
