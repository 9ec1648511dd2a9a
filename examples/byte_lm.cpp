// SPDX-License-Identifier: MIT
// byte_lm: a small language model at work. It continues a prompt, is measured at several windows
// with the same weights, and shows in a picture which of its two memories it read.
//
// Three functions are what a program of your own would do: generate() and bits_per_byte() of
// common/byte_model.hpp continue a text and read a long one in pieces, record_slot_share() below
// looks inside.
#include "byte_lm/command_line.hpp"
#include "byte_lm/slot_share.hpp"
#include "byte_lm/slot_share_plot.hpp"
#include "common/byte_model.hpp"
#include "common/display.hpp"
#include "common/program.hpp"
#include "common/progress.hpp"
#include "common/sampler.hpp"
#include "common/stopwatch.hpp"
#include "common/text_file.hpp"

#include <nha/core/error.hpp>
#include <nha/core/tensor.hpp>
#include <nha/io/checkpoint.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/io/new_file.hpp>
#include <nha/model/language_model.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace {

using byte_lm::Options;
using nha::Index;
using namespace examples_common;

// ---- The model ----

Model load(const std::string& folder) {
  Model model = nha::load_language_model<float>(folder);
  nha::check_format(model.options().vocabulary == kVocabulary, folder, ": a model of ",
                    model.options().vocabulary, " different tokens; a model of bytes has ",
                    kVocabulary);
  return model;
}

void describe(const Model& model, const std::string& folder, double load_seconds) {
  const nha::LayerShape& shape = model.options().layers.front().shape;
  std::printf("== The model\n");
  std::printf("folder        %s\n", folder.c_str());
  std::printf("layers        %td, %td channels wide\n", model.options().layer_count(),
              shape.hidden);
  std::printf("heads         %td for queries, %td for keys and values, %td channels each\n",
              shape.query_heads, shape.kv_heads, shape.key_dim);
  std::printf("two memories  %td slots for the whole past, a window of the last W = %s bytes\n",
              shape.slots, windows_of(model.make_state()).c_str());
  std::printf("parameters    %s, loaded in %.1f ms\n\n", grouped(model.parameters()).c_str(),
              1000 * load_seconds);
}

// ---- Continuing a prompt ----

/// What keys and values of `tokens` tokens would take without slots.
Index full_cache_bytes(const Model& model, Index tokens) {
  Index numbers = 0;  // of one token
  for (const auto& [shape, layer] : model.options().layers)
    numbers += shape.kv_heads * (shape.key_dim + shape.value_dim);
  return tokens * numbers * static_cast<Index>(sizeof(float));
}

void print_memory(const Model& model, const State& state) {
  const auto now = static_cast<Index>(state.tokens_seen(0));
  std::printf("\n%-22s %12s   %s\n", "memory at", "this state", "a key/value cache of all bytes");
  for (Index tokens : {now, Index{4096}, Index{32768}, Index{131072}})
    std::printf("%-22s %12s   %s\n",
                (grouped(tokens) + (tokens == now ? " bytes (now)" : " bytes")).c_str(),
                memory_size(static_cast<Index>(state.bytes())).c_str(),
                memory_size(full_cache_bytes(model, tokens)).c_str());
  std::printf("\n");
}

void print_byte(char c) {
  std::fputs(shown(c).c_str(), stdout);
}

void continue_prompt(const Model& model, const Options& options, Machine& machine) {
  State state = make_state(model, options.window);
  Sampler sampler(options.temperature, options.seed);

  std::printf("== Continuing [a prompt]: W = %s, temperature %g, seed %s\n[",
              windows_of(state).c_str(), options.temperature, std::to_string(options.seed).c_str());
  for (char c : options.prompt) print_byte(c);
  std::printf("]");

  // The model must have read something to go on from: after no prompt, the end of a line.
  const std::string prompt = options.prompt.empty() ? "\n" : options.prompt;
  const GenerationTime time =
      generate(model, state, prompt, options.length, sampler, machine, [](char c) {
        print_byte(c);
        std::fflush(stdout);
      });

  std::printf("\n\nprefill       %s, the prompt as a whole\n",
              speed(static_cast<Index>(prompt.size()), time.prefill_seconds).c_str());
  std::printf("decode        %s, one byte after another\n",
              speed(options.length, time.decode_seconds).c_str());
  print_memory(model, state);
}

// ---- Measuring ----

void compare_windows(const Model& model, const Options& options, std::string_view text,
                     Machine& machine) {
  const auto length = static_cast<Index>(text.size());
  std::printf("== The same weights at several windows: %s bytes of %s\n", grouped(length).c_str(),
              file_name(options.text).c_str());
  std::printf("Bits the model lacks, on average, to know the next byte: 8 without any model.\n\n");
  std::printf("%8s %14s %18s %14s\n", "W", "bits per byte", "speed", "state");
  bool full_shown = false;  // several windows may be at least as long as the text
  for (Index asked : options.windows) {
    const Index window = std::min(asked, length);
    if (window == length && std::exchange(full_shown, true)) continue;
    State state = make_state(model, window);
    const Stopwatch stopwatch;
    const double bits = bits_per_byte(model, state, text, machine);
    std::printf("%8s %14.3f %18s %14s\n",
                window == length ? "full" : std::to_string(window).c_str(), bits,
                speed(length, stopwatch.seconds()).c_str(),
                memory_size(static_cast<Index>(state.bytes())).c_str());
    std::fflush(stdout);
  }
  std::printf(
      "\nfull: no byte ever leaves the window. Expect much of windows like those a model was\n"
      "trained with, and little of others.\n\n");
}

// ---- Drawing ----

/// Reads the text and adds to each record how much of the attention fell on the slots.
void record_slot_share(const Model& model, State& state, std::string_view text, Machine& machine,
                       std::span<byte_lm::SlotShare* const> records) {
  Progress progress("picture", static_cast<Index>(text.size()));
  nha::Tensor<float, 4> shares(
      {model.options().layer_count(), 1, kPiece, model.options().most_query_heads()});
  for_each_piece(text, [&](const Model::Tokens& tokens, Index first) {
    const auto piece = shares.view().slice<2>(0, tokens.extent(1));
    model.forward(tokens, state, {}, machine.workspace, {.slot_share = piece}, machine.threads);
    for (byte_lm::SlotShare* record : records) record->add(piece, first);
    progress.reached(first + tokens.extent(1));
  });
}

void draw_slot_share(const Model& model, const Options& options, std::string_view text,
                     Machine& machine) {
  const Index layers = model.options().layer_count();
  const Index heads = model.options().most_query_heads();
  const auto length = static_cast<Index>(text.size());
  const Index letters = std::min(length, byte_lm::kMostLetters);
  byte_lm::SlotShare whole(layers, heads, length, byte_lm::kMostColumns);
  byte_lm::SlotShare start(layers, heads, letters, letters);
  State state = make_state(model, options.window);
  record_slot_share(model, state, text, machine, std::array{&whole, &start});

  const std::string subtitle =
      file_name(options.text) + ", read with a window of W = " + windows_of(state) + " bytes and " +
      std::to_string(model.options().layers.front().shape.slots) + " slots per head";
  const std::string svg = byte_lm::slot_share_svg(
      whole, start, text.substr(0, static_cast<std::size_t>(letters)), subtitle);
  nha::NewFile file(options.plot);
  file.write(std::as_bytes(std::span(svg)));
  file.commit();
  std::printf("== Where attention fell, slots or window: %s\n", options.plot.c_str());
}

// ---- The program ----

void run(const Options& options) {
  const Stopwatch loading;
  const Model model = load(options.model);
  const double load_seconds = loading.seconds();

  const nha::MappedFile file(options.text);
  const std::string_view text = characters(file, options.text, 2, "measuring")
                                    .substr(0, static_cast<std::size_t>(options.bytes));
  // That it can be written is seen before the work, and leaves no file if the work is stopped.
  if (!options.plot.empty()) nha::NewFile{options.plot};
  Machine machine(options.threads);

  describe(model, options.model, load_seconds);
  continue_prompt(model, options, machine);
  compare_windows(model, options, text, machine);
  if (!options.plot.empty()) draw_slot_share(model, options, text, machine);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program<Options>("byte_lm", byte_lm::kUsage, {argv + 1, argv + argc},
                              byte_lm::parse_arguments, run);
}
