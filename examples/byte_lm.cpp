// SPDX-License-Identifier: MIT
// byte_lm: a small language model at work. It continues a prompt, is measured at several windows
// with the same weights, and shows in a picture which of its two memories it read.
//
// Three functions below are what a program of your own would do: continue_prompt() generates,
// bits_per_byte() reads a long text in pieces, record_slot_share() looks inside.
#include "byte_lm/command_line.hpp"
#include "byte_lm/display.hpp"
#include "byte_lm/progress.hpp"
#include "byte_lm/sampler.hpp"
#include "byte_lm/slot_share.hpp"
#include "byte_lm/slot_share_plot.hpp"

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor.hpp>
#include <nha/io/checkpoint.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/io/new_file.hpp>
#include <nha/layer/language_model.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using byte_lm::grouped;
using byte_lm::memory_size;
using byte_lm::Options;
using nha::Index;

using Model = nha::LanguageModel<float>;
using State = nha::LanguageModelState<float>;

/// One token is one byte.
constexpr Index kVocabulary = 256;
/// A text enters the state in pieces of so many bytes: scratch memory depends on this alone.
constexpr Index kPiece = 512;

/// What running a model takes besides its weights and a state: scratch memory and threads.
struct Machine {
  explicit Machine(Index workers) : threads(workers) {}

  nha::LayerWorkspace workspace;
  nha::ThreadPool threads;
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point started_ = Clock::now();
};

/// "12,345 tokens/s"
std::string speed(Index tokens, double seconds) {
  if (tokens == 0 || seconds <= 0) return "-";
  return grouped(std::llround(static_cast<double>(tokens) / seconds)) + " tokens/s";
}

/// Calls read(tokens [1, count], first) for the text's pieces one after another.
template <class Read>
void for_each_piece(std::string_view text, Read&& read) {
  std::vector<std::int32_t> tokens;
  for (std::size_t first = 0; first < text.size(); first += tokens.size()) {
    tokens.clear();
    for (char c : text.substr(first, kPiece)) tokens.push_back(static_cast<unsigned char>(c));
    read(Model::Tokens(tokens, {1, static_cast<Index>(tokens.size())}), static_cast<Index>(first));
  }
}

/// A state with one window for all layers; unset: those the model says.
State make_state(const Model& model, std::optional<Index> window) {
  nha::ModelStateOptions options;
  if (window) options.windows = {*window};
  return model.make_state(options);
}

/// "32", or "32, 32, 64, 64" where layers differ.
std::string windows_of(const State& state) {
  std::string all;
  bool same = true;
  const auto window = [&](Index n) { return state.layer(n).attention().options().window; };
  for (Index n = 0; n < state.layers(); ++n) {
    all += (n == 0 ? "" : ", ") + std::to_string(window(n));
    same = same && window(n) == window(0);
  }
  return same ? std::to_string(window(0)) : all;
}

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// ---- The model ----

Model load(const std::string& folder) {
  Model model = nha::load_language_model<float>(folder);
  nha::check_format(model.options().vocabulary == kVocabulary, folder, ": a model of ",
                    model.options().vocabulary, " different tokens; a model of bytes has ",
                    kVocabulary);
  return model;
}

void describe(const Model& model, const std::string& folder, double load_seconds) {
  const nha::LayerShape& shape = model.options().shape;
  std::printf("== The model\n");
  std::printf("folder        %s\n", folder.c_str());
  std::printf("layers        %td, %td channels wide\n", model.options().layers, shape.hidden);
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
  const nha::LayerShape& shape = model.options().shape;
  return tokens * model.options().layers * shape.kv_heads * (shape.key_dim + shape.value_dim) *
         static_cast<Index>(sizeof(float));
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
  std::fputs(byte_lm::shown(c).c_str(), stdout);
}

void continue_prompt(const Model& model, const Options& options, Machine& machine) {
  State state = make_state(model, options.window);
  byte_lm::Sampler sampler(options.temperature, options.seed);
  nha::Tensor<float, 3> logits({1, 1, kVocabulary});  // of the byte that comes next

  std::printf("== Continuing [a prompt]: W = %s, temperature %g, seed %s\n[",
              windows_of(state).c_str(), options.temperature, std::to_string(options.seed).c_str());
  for (char c : options.prompt) print_byte(c);
  std::printf("]");

  // The model must have read something to go on from: after no prompt, the end of a line.
  const std::string prompt = options.prompt.empty() ? "\n" : options.prompt;
  const Stopwatch prefill;
  for_each_piece(prompt, [&](const Model::Tokens& tokens, Index) {
    model.forward(tokens, state, logits, machine.workspace, {}, machine.threads);
  });
  const double prefill_seconds = prefill.seconds();

  double decode_seconds = 0;
  for (Index i = 0; i < options.length; ++i) {
    const Stopwatch decode;
    const auto byte = static_cast<std::int32_t>(sampler(logits.values()));
    model.forward(Model::Tokens(&byte, {1, 1}), state, logits, machine.workspace, {},
                  machine.threads);
    decode_seconds += decode.seconds();
    print_byte(static_cast<char>(byte));
    std::fflush(stdout);
  }

  std::printf("\n\nprefill       %s, the prompt as a whole\n",
              speed(static_cast<Index>(prompt.size()), prefill_seconds).c_str());
  std::printf("decode        %s, one byte after another\n",
              speed(options.length, decode_seconds).c_str());
  print_memory(model, state);
}

// ---- Measuring ----

/// Bits that the model was surprised by: -log2 of the probability it gave to what came.
double surprise(std::span<const float> logits, char came) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double{logit} - largest);
  const double logit = logits[static_cast<unsigned char>(came)];
  return (largest + std::log(sum) - logit) / std::log(2.0);
}

/// Mean surprise at every byte of the text but the first.
double bits_per_byte(const Model& model, State& state, std::string_view text, Machine& machine) {
  byte_lm::Progress progress("W = " + windows_of(state), static_cast<Index>(text.size()));
  nha::Tensor<float, 3> logits({1, kPiece, kVocabulary});
  double bits = 0;
  for_each_piece(text, [&](const Model::Tokens& tokens, Index first) {
    const Index count = tokens.extent(1);
    model.forward(tokens, state, logits.view().slice<1>(0, count), machine.workspace, {},
                  machine.threads);
    for (Index t = 0; t < count; ++t)
      if (const auto next = static_cast<std::size_t>(first + t + 1); next < text.size())
        bits += surprise({&logits(0, t, 0), kVocabulary}, text[next]);
    progress.reached(first + count);
  });
  return bits / static_cast<double>(text.size() - 1);
}

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
  byte_lm::Progress progress("picture", static_cast<Index>(text.size()));
  nha::Tensor<float, 4> shares(
      {model.options().layers, 1, kPiece, model.options().shape.query_heads});
  for_each_piece(text, [&](const Model::Tokens& tokens, Index first) {
    const auto piece = shares.view().slice<2>(0, tokens.extent(1));
    model.forward(tokens, state, {}, machine.workspace, {.slot_share = piece}, machine.threads);
    for (byte_lm::SlotShare* record : records) record->add(piece, first);
    progress.reached(first + tokens.extent(1));
  });
}

void draw_slot_share(const Model& model, const Options& options, std::string_view text,
                     Machine& machine, nha::NewFile& file) {
  const Index layers = model.options().layers;
  const Index heads = model.options().shape.query_heads;
  const auto length = static_cast<Index>(text.size());
  const Index letters = std::min(length, byte_lm::kMostLetters);
  byte_lm::SlotShare whole(layers, heads, length, byte_lm::kMostColumns);
  byte_lm::SlotShare start(layers, heads, letters, letters);
  State state = make_state(model, options.window);
  record_slot_share(model, state, text, machine, std::array{&whole, &start});

  const std::string subtitle = file_name(options.text) +
                               ", read with a window of W = " + windows_of(state) + " bytes and " +
                               std::to_string(model.options().shape.slots) + " slots per head";
  const std::string svg = byte_lm::slot_share_svg(
      whole, start, text.substr(0, static_cast<std::size_t>(letters)), subtitle);
  file.write(std::as_bytes(std::span(svg)));
  file.commit();
  std::printf("== Where attention fell, slots or window: %s\n", options.plot.c_str());
}

// ---- The program ----

int fail(const std::string& what) {
  std::fflush(stdout);
  std::fprintf(stderr, "byte_lm: %s\n", what.c_str());
  return 1;
}

/// The exit status of a program that has printed all it had to.
int finish() {
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return written ? 0 : fail("cannot write the results");
}

int run(const Options& options) {
  const Stopwatch loading;
  const Model model = load(options.model);
  const double load_seconds = loading.seconds();

  const nha::MappedFile file(options.text);
  const auto size = static_cast<Index>(file.bytes().size());
  nha::check_format(size >= 2, options.text, ": of length ", size,
                    "; measuring takes 2 bytes or more");
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              static_cast<std::size_t>(std::min(size, options.bytes)));
  // Opened before the work, so that it does not fail after it.
  std::optional<nha::NewFile> plot;
  if (!options.plot.empty()) plot.emplace(options.plot);
  Machine machine(options.threads);

  describe(model, options.model, load_seconds);
  continue_prompt(model, options, machine);
  compare_windows(model, options, text, machine);
  if (plot) draw_slot_share(model, options, text, machine, *plot);
  return finish();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const std::string wrong = byte_lm::parse_arguments({argv + 1, argv + argc}, options);
  if (!wrong.empty()) return fail(wrong + " (--help lists the options)");
  if (options.help) {
    std::fputs(byte_lm::kUsage, stdout);
    return finish();
  }
#if NHA_HAS_EXCEPTIONS
  try {
    return run(options);
  } catch (const std::bad_alloc&) {
    return fail("not enough memory");
  } catch (const std::exception& error) {
    return fail(error.what());
  }
#else
  return run(options);
#endif
}
