// SPDX-License-Identifier: MIT
// recall: what the two memories are for. Four small models learn to recall values by their keys,
// three of them with equally large states: slots and a window together, a window alone, slots
// alone, and full attention, which keeps everything.
//
// What a program of your own would do is in recall/training.hpp; here is what the user sees.
#include "common/display.hpp"
#include "common/program.hpp"
#include "recall/command_line.hpp"
#include "recall/contestants.hpp"
#include "recall/live_table.hpp"
#include "recall/plot.hpp"
#include "recall/report.hpp"
#include "recall/training.hpp"

#include <nha/core/index.hpp>
#include <nha/io/new_file.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace {

using examples_common::grouped;
using nha::Index;
using recall::Contestant;
using recall::Options;
using recall::RunResult;
using recall::Runs;

void describe(const Options& options, Index threads) {
  const recall::Task& task = options.task;
  std::printf("== The task\n");
  std::printf(
      "sequence      %td tokens: %td pairs of %td keys and %td values, then every key again\n",
      task.tokens, task.pairs, task.keys, task.values);
  std::printf("models        %td layers, %td channels, %td heads", options.layers, options.width,
              options.heads);
  if (options.convolution > 0)
    std::printf(", convolutions of kernel size %td", options.convolution);
  std::printf("\ntraining      %s steps of %td sequences, %td seeds, %td threads\n\n",
              grouped(options.steps).c_str(), options.batch, options.seeds, threads);
  std::fflush(stdout);
}

/// Every run is a task of the pool and computed by one thread: threads change no number. Returns
/// [contestants][seeds].
std::vector<Runs> train_all(const Options& options, const std::vector<Contestant>& contestants,
                            nha::ThreadPool& threads) {
  const std::size_t models = contestants.size();
  std::vector<Runs> results(models, Runs(static_cast<std::size_t>(options.seeds)));
  recall::LiveTable table(contestants, options.seeds, options.steps);
  // One seed of all models, then the next one.
  const auto run = [&](Index n, Index) {
    const std::size_t model = static_cast<std::size_t>(n) % models;
    const std::size_t seed = static_cast<std::size_t>(n) / models;
    RunResult& result = results[model][seed];
    result = recall::train_and_measure(
        options, contestants[model], model == recall::place_of_hybrid(contestants),
        static_cast<Index>(seed) + 1,
        [&](Index steps, double accuracy) { table.stepped(model, seed, steps, accuracy); });
    table.finished(model, seed, result.accuracy);
  };
  threads.run(static_cast<Index>(models) * options.seeds, run);
  return results;
}

void run(const Options& options) {
  const std::vector<Contestant> contestants = recall::contestants(options);
  // That it can be written is seen before the work, and leaves no file if the work is stopped.
  if (!options.plot.empty()) nha::NewFile{options.plot};
  nha::ThreadPool threads(options.threads);

  describe(options, threads.workers());
  const std::vector<Runs> results = train_all(options, contestants, threads);
  recall::print_report(options, contestants, results);
  if (!options.plot.empty()) {
    const std::string svg = recall::recall_svg(options, contestants, results);
    nha::NewFile plot(options.plot);
    plot.write(std::as_bytes(std::span(svg)));
    plot.commit();
    std::printf("== The same in a picture: %s\n", options.plot.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  return examples_common::run_program<Options>("recall", recall::kUsage, {argv + 1, argv + argc},
                                               recall::parse_arguments, run);
}
