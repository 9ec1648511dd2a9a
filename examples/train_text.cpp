// SPDX-License-Identifier: MIT
// train_text: trains a language model of bytes on a text, measures it at several windows with the
// same weights, and saves it for byte_lm. A run that was stopped goes on as if it had not been.
//
// What a program of your own would do is in train_text/trainer.hpp; here is what the user sees.
#include "common/byte_model.hpp"
#include "common/display.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/sampler.hpp"
#include "common/stopwatch.hpp"
#include "train_text/command_line.hpp"
#include "train_text/texts.hpp"
#include "train_text/trainer.hpp"

#include <nha/core/error.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace {

using nha::Index;
using train_text::Options;
using train_text::StepReport;
using train_text::Texts;
using train_text::Trainer;
using namespace examples_common;

// ---- Stopping ----

volatile std::sig_atomic_t interrupted = 0;

/// The first Ctrl-C asks the run to stop, the second one ends the program.
extern "C" void interrupt(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

/// Whether a run goes on, and how long it will.
class Limits {
 public:
  explicit Limits(const Options& options)
      : last_step_(std::min(options.steps, options.stop_at.value_or(options.steps))),
        most_seconds_(60 * options.minutes.value_or(std::numeric_limits<double>::infinity())) {}

  /// At least one step is made where one is left.
  bool reached(Index steps, Index steps_before) const {
    return interrupted != 0 || steps >= last_step_ ||
           (steps > steps_before && stopwatch_.seconds() >= most_seconds_);
  }
  double seconds() const { return stopwatch_.seconds(); }
  double seconds_left(Index steps, double seconds_per_step) const {
    return std::min(most_seconds_ - seconds(),
                    seconds_per_step * static_cast<double>(last_step_ - steps));
  }

 private:
  Index last_step_;
  double most_seconds_;
  Stopwatch stopwatch_;
};

// ---- What is shown ----

void describe(const Options& options, const Texts& texts, const Trainer& trainer) {
  const auto bytes = [](std::string_view text) {
    return grouped(static_cast<Index>(text.size())) + " bytes";
  };
  const nha::ModelOptions& model = trainer.model().options();
  const nha::LayerShape& shape = model.layers.front().shape;  // all layers have the same
  std::printf("== The run\n");
  std::printf("text          %s, %s to learn\n", file_name(options.text).c_str(),
              bytes(texts.learnt()).c_str());
  std::printf("held out      %s of %s\n", bytes(texts.heldout()).c_str(),
              train_text::heldout_part(options) ? "its end" : file_name(options.heldout).c_str());
  std::printf(
      "model         %td layers, %td channels, %td query and %td key/value heads, %td slots\n",
      model.layer_count(), model.hidden(), shape.query_heads, shape.kv_heads, shape.slots);
  std::printf("parameters    %s\n", grouped(trainer.model().parameters()).c_str());
  std::printf("each step     %td pieces of %td bytes, a window of %s\n", options.batch,
              options.length, window_list(options.windows, ", ").c_str());
  std::printf("steps         %s, each byte about %.2g times\n", grouped(options.steps).c_str(),
              static_cast<double>(options.steps) *
                  static_cast<double>(options.batch * options.length) /
                  static_cast<double>(texts.learnt().size()));
  if (options.resume)
    std::printf("resumed       after step %s\n", grouped(trainer.steps()).c_str());
  std::printf("saved in      %s\n\n", options.out.c_str());
}

/// A table of bits per byte, a row for each measurement.
class Table {
 public:
  explicit Table(const std::vector<Index>& windows) {
    std::printf(
        "== Bits per byte: of the batches since the last line, and held out with windows W\n");
    std::printf("%9s %9s %9s", "step", "time", "batches");
    for (const Index window : windows) std::printf(" %9s", ("W = " + window_name(window)).c_str());
    std::printf("\n");
    std::fflush(stdout);
  }

  void add_step(double bits) {
    bits_ += bits;
    ++steps_;
  }
  void print(Index step, double seconds, const std::vector<double>& heldout) {
    std::printf("%9s %9s", grouped(step).c_str(), duration(seconds).c_str());
    if (steps_ == 0)
      std::printf(" %9s", "-");
    else
      std::printf(" %9.3f", bits_ / static_cast<double>(steps_));
    for (const double bits : heldout) std::printf(" %9.3f", bits);
    std::printf("\n");
    std::fflush(stdout);
    bits_ = 0;
    steps_ = 0;
  }

 private:
  double bits_ = 0;
  Index steps_ = 0;
};

std::vector<double> measure(const Model& model, const std::vector<Index>& windows,
                            std::string_view text, Machine& machine) {
  std::vector<double> bits;
  for (const Index window : windows) {
    State state = make_state(model, std::min(window, static_cast<Index>(text.size())));
    bits.push_back(bits_per_byte(model, state, text, machine));
  }
  return bits;
}

void write_sample(const Options& options, const Trainer& trainer, std::string_view heldout,
                  Machine& machine) {
  constexpr std::size_t kPrompt = 80;
  constexpr double kTemperature = 0.7;
  const std::string_view prompt = heldout.substr(0, kPrompt);
  const auto print_byte = [](char c) { std::fputs(shown(c).c_str(), stdout); };
  State state = make_state(trainer.model(), {});
  Sampler sampler(kTemperature, options.seed);
  std::printf("\n== Continuing [the start of the held-out text]: W = %s, temperature %g\n[",
              windows_of(state).c_str(), kTemperature);
  for (const char c : prompt) print_byte(c);
  std::printf("]");
  generate(trainer.model(), state, prompt, options.sample, sampler, machine, print_byte);
  std::printf("\n");
}

// ---- The run ----

/// Steps until the limits are reached; measures and saves every tenth of the run, and saves every
/// other minute.
void train(const Options& options, const Texts& texts, Trainer& trainer, Table& table,
           const Limits& limits, Machine& machine) {
  constexpr std::size_t kGlance = 16384;  // bytes to measure along the way
  constexpr double kSaveSeconds = 120;
  const Index every = std::max<Index>(options.steps / 10, 1);
  const Index steps_before = trainer.steps();
  const Index bytes_per_step = options.batch * options.length;
  StatusLine line(std::chrono::seconds(10));
  double seconds = 0;  // of steps alone
  double recent = 0;   // bits per byte, a mean of about the last 20 steps
  double saved_at = 0;
  while (!limits.reached(trainer.steps(), steps_before)) {
    const Stopwatch stopwatch;
    const StepReport report = trainer.step();
    seconds += stopwatch.seconds();
    table.add_step(report.bits_per_byte);
    const Index step = trainer.steps();
    const Index made = step - steps_before;
    recent += (report.bits_per_byte - recent) / static_cast<double>(std::min<Index>(made, 20));

    const double per_step = seconds / static_cast<double>(made);
    if (line.due()) {
      char text[200];
      std::snprintf(text, sizeof text,
                    "%2.0f%%  step %s  %.3f bits/byte  %s  rate %.1e  norm %.2f  %s left",
                    100 * static_cast<double>(step) / static_cast<double>(options.steps),
                    grouped(step).c_str(), recent, speed(made * bytes_per_step, seconds).c_str(),
                    report.learning_rate, report.gradient_norm,
                    duration(std::max(limits.seconds_left(step, per_step), 0.0)).c_str());
      line.show(text);
    }
    const bool measures = step % every == 0 && step < options.steps;
    if (measures) {
      line.wipe();
      table.print(
          step, limits.seconds(),
          measure(trainer.model(), options.measure, texts.heldout().substr(0, kGlance), machine));
    }
    if (measures || limits.seconds() - saved_at >= kSaveSeconds) {
      trainer.save(options.out);
      saved_at = limits.seconds();
    }
  }
}

/// Refuses a folder that saving would change: one with a run, or a model from anywhere.
void check_folder(const std::string& folder) {
  const auto holds = [&](const char* file) { return std::filesystem::exists(folder + file); };
  nha::check_format(!holds("/training.safetensors"), folder,
                    ": holds a run already: --resume goes on with it, --out names another folder");
  nha::check_format(!holds("/model.safetensors") && !holds("/config.json"), folder,
                    ": holds a model already: --out names another folder");
}

void run(const Options& options) {
  if (!options.resume) check_folder(options.out);
  const Texts texts(options);
  Trainer trainer(options, texts.learnt());
  Machine machine(options.threads);
  // Before the work, so that it does not fail after it.
  if (!options.resume) trainer.save(options.out);
  describe(options, texts, trainer);

  std::signal(SIGINT, interrupt);
  const Limits limits(options);
  Table table(options.measure);
  train(options, texts, trainer, table, limits, machine);
  std::signal(SIGINT, SIG_DFL);
  trainer.save(options.out);

  const bool done = trainer.steps() >= options.steps;
  table.print(trainer.steps(), limits.seconds(),
              measure(trainer.model(), options.measure, texts.heldout(), machine));
  std::printf("The last line is of %s held-out bytes, lines before it of at most 16,384.\n",
              grouped(static_cast<Index>(texts.heldout().size())).c_str());
  if (trainer.steps_left_out() > 0)
    std::printf("%s steps were left out, their gradients were not finite; a lower --lr may help.\n",
                grouped(trainer.steps_left_out()).c_str());
  if (options.sample > 0) write_sample(options, trainer, texts.heldout(), machine);
  if (done)
    std::printf("\nSaved. byte_lm --model %s runs it.\n", options.out.c_str());
  else
    std::printf(
        "\nStopped after step %s of %s and saved; --resume goes on, byte_lm --model %s runs it.\n",
        grouped(trainer.steps()).c_str(), grouped(options.steps).c_str(), options.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program<Options>("train_text", train_text::kUsage, {argv + 1, argv + argc},
                              train_text::parse_arguments, run);
}
