// SPDX-License-Identifier: MIT
// nha_parity: runs attention cases from files and compares every result with the one in the file.
//
// Any implementation that can write safetensors can be checked so, or check this one: see
// nha/io/attention_case.hpp for what a case holds.
#include <nha/attention/backward.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/attention/reference.hpp>
#include <nha/attention/reference_backward.hpp>
#include <nha/attention/step.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/names.hpp>
#include <nha/core/numeric.hpp>
#include <nha/io/attention_case.hpp>
#include <nha/io/safetensors.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace {

using nha::Index;

constexpr const char* kUsage =
    R"(usage: nha_parity [options] CASE.safetensors...

Runs Native Hybrid Attention on each case and compares the results with those in the file. For each
result: the largest absolute error, and the relative one, ||a - b|| / ||b|| (the largest absolute
one where ||b|| is 0; equal infinities count as equal).

  --algorithm reference|recurrent|chunked|auto   how to compute (auto)
  --dtype f32|f64|bf16|f16   type the inputs are converted to and computed in (f32)
  --device cpu|cuda          where (cpu)
  --backward                 compare gradients too, those of the loss that the case's cotangents
                             make; takes all tokens at once. chunked and auto compute them by
                             chunks, without the forward results and again with them; reference
                             and recurrent by their definition
  --split K                  give each sequence in pieces of K tokens, through the state; recurrent
                             pieces of one token go through step()
  --tolerance X              largest relative error that passes; left out: 5e-6 for f32, 1e-12 for
                             f64, 1e-2 for bf16 and f16. A largest absolute error of 2^-52 times the
                             number of tokens passes too, as rounding of the expected values: where
                             gates are near 0, the usual 1 - exp(gate) has lost its digits to it
  --out FILE                 write the results of the one case given, as safetensors
  --help                     this text

Exit status: 0 all results within tolerance, 1 some not, 2 wrong options or not a valid case.
)";

struct Options {
  nha::PrefillAlgorithm algorithm = nha::PrefillAlgorithm::automatic;
  bool reference = false;  // in place of it: plain loops
  std::string dtype = "F32";
  bool backward = false;
  Index split = 0;  // 0: all tokens at once
  std::optional<double> tolerance;
  std::string out;
  std::vector<std::string> files;
};

/// How far `value` is from what was expected.
struct Error {
  double largest = 0;
  double relative = 0;
};

/// An expected infinity must be met exactly; a NaN anywhere is an infinite error.
template <class T, int Rank>
Error compare(const nha::Tensor<T, Rank>& value, const nha::Tensor<double, Rank>& expected) {
  double differences = 0, norm = 0;
  Error error;
  for (Index i = 0; i < expected.size(); ++i) {
    const auto a = static_cast<double>(nha::widen(value.data()[i]));
    const double b = expected.data()[i];
    const double difference = a == b ? 0 : std::abs(a - b);
    if (!std::isfinite(difference)) return {nha::kInfinity<double>, nha::kInfinity<double>};
    error.largest = std::max(error.largest, difference);
    differences += difference * difference;
    if (std::isfinite(b)) norm += b * b;
  }
  error.relative = norm > 0 ? std::sqrt(differences / norm) : error.largest;
  return error;
}

template <class T>
class CaseRunner {
 public:
  CaseRunner(const nha::AttentionCase<T>& given, const Options& options)
      : case_(given),
        options_(options),
        inputs_(given.inputs()),
        results_(given.make_results()),
        state_(given.shape, given.options),
        state_before_(state_) {
    if (!given.has_initial_slots) return;
    using Mass = typename nha::Tensor<nha::accumulate_t<T>, 3>::ConstView;
    state_.set_initial_slots(given.initial_slot_k, given.initial_slot_v,
                             given.initial_mass ? given.initial_mass->view() : Mass());
    state_before_ = state_;
  }

  nha::AttentionResults<T> run() {
    if (options_.split == 0) {
      run_piece(0, case_.tokens, case_.cu_seqlens);
    } else if (case_.cu_seqlens.empty()) {
      run_pieces();
    } else {
      for (std::size_t n = 0; n + 1 < case_.cu_seqlens.size(); ++n) run_sequence(n);
    }
    store_state();
    return std::move(results_);
  }

  /// Whether gradients come by chunks, and so may use what run() has computed.
  bool has_chunked_backward() const {
    return !options_.reference && options_.algorithm != nha::PrefillAlgorithm::recurrent;
  }
  nha::AttentionCaseGradients<nha::accumulate_t<T>> run_backward(
      const nha::AttentionSaved<T>& saved = {}) {
    auto gradients = case_.make_gradients();
    const auto cotangents = case_.cotangents.views();
    const auto views = gradients.template views<T>();
    if (has_chunked_backward())
      nha::backward(inputs_, state_before_, saved, cotangents, views, workspace_);
    else
      nha::reference_backward(inputs_, state_before_, cotangents, views);
    return gradients;
  }

 private:
  /// Pieces of one packed sequence; the others get no tokens.
  void run_sequence(std::size_t sequence) {
    const auto first = static_cast<Index>(case_.cu_seqlens[sequence]);
    const auto last = static_cast<Index>(case_.cu_seqlens[sequence + 1]);
    for (Index t = first; t < last; t += options_.split) {
      const Index count = std::min(options_.split, last - t);
      std::vector<std::int64_t> offsets(case_.cu_seqlens.size(), 0);
      std::fill(offsets.begin() + static_cast<std::ptrdiff_t>(sequence) + 1, offsets.end(), count);
      run_piece(t, count, offsets);
    }
  }
  void run_pieces() {
    for (Index t = 0; t < case_.tokens; t += options_.split)
      run_piece(t, std::min(options_.split, case_.tokens - t), {});
  }
  void run_piece(Index first, Index count, std::span<const std::int64_t> cu_seqlens) {
    auto inputs = inputs_.tokens(first, count);
    inputs.cu_seqlens = cu_seqlens;
    const auto outputs =
        nha::AttentionOutputs<T>{
            .o = results_.o, .lse = results_.lse, .slot_share = results_.slot_share}
            .tokens(first, count);
    if (options_.reference)
      nha::reference(inputs, state_, outputs);
    else if (options_.algorithm == nha::PrefillAlgorithm::recurrent && options_.split == 1)
      nha::step(inputs, state_, outputs, workspace_);
    else
      nha::prefill(inputs, state_, outputs, workspace_, {.algorithm = options_.algorithm});
  }

  void store_state() {
    const nha::AttentionShape& shape = case_.shape;
    for (Index n = 0; n < shape.batch; ++n)
      for (Index h = 0; h < shape.kv_heads; ++h)
        for (Index m = 0; m < shape.slots; ++m) {
          results_.mass(n, h, m) = state_.slot_mass(n, h)(m);
          for (Index d = 0; d < shape.key_dim; ++d)
            results_.slot_k(n, h, m, d) = state_.slot_k(n, h)(m, d);
          for (Index d = 0; d < shape.value_dim; ++d)
            results_.slot_v(n, h, m, d) = state_.slot_v(n, h)(m, d);
        }
  }

  const nha::AttentionCase<T>& case_;
  const Options& options_;
  nha::AttentionInputs<T> inputs_;
  nha::AttentionResults<T> results_;
  nha::AttentionState<T> state_;
  nha::AttentionState<T> state_before_;
  nha::Workspace workspace_;
};

/// The largest relative error that passes unless the user says another.
template <class T>
constexpr double kTolerance = std::is_same_v<T, double>  ? 1e-12
                              : std::is_same_v<T, float> ? 5e-6
                                                         : 1e-2;

struct Totals {
  int cases = 0;
  int results = 0;
  int failures = 0;
};

template <class T>
void run_case(const std::string& path, const Options& options, Totals& totals) {
  const nha::Safetensors file(path);
  const auto c = nha::read_attention_case<T>(file);
  const bool any_expected = std::any_of(
      file.tensors().begin(), file.tensors().end(),
      [](const nha::StoredTensor& tensor) { return tensor.name.starts_with("expected."); });
  nha::check_format(any_expected || !options.out.empty(), path,
                    ": no expected results to compare with (--out FILE writes the results)");

  CaseRunner<T> runner(c, options);
  const nha::AttentionResults<T> results = runner.run();
  const bool backward = options.backward && c.has_cotangents();
  nha::AttentionCaseGradients<nha::accumulate_t<T>> gradients;
  if (backward) gradients = runner.run_backward();
  const double tolerance = options.tolerance.value_or(kTolerance<T>);
  const double rounding = 0x1p-52 * static_cast<double>(c.tokens);
  std::printf("%s: B %td, T %td, Hq %td, Hkv %td, Dk %td, Dv %td, M %td, W %td, tolerance %.1e\n",
              c.name.empty() ? path.c_str() : c.name.c_str(), c.shape.batch, c.tokens,
              c.query_heads, c.shape.kv_heads, c.shape.key_dim, c.shape.value_dim, c.shape.slots,
              c.options.window, tolerance);
  const auto report = [&](const std::string& name, const auto& value, const auto& expected) {
    if (file.find("expected." + name) == nullptr) return;
    const Error error = compare(value, expected);
    const bool close = error.relative <= tolerance;
    const bool pass = close || error.largest <= rounding;
    std::printf("  %-*s  largest %8.2e  relative %8.2e  %s\n", options.backward ? 19 : 10,
                name.c_str(), error.largest, error.relative,
                close  ? "pass"
                : pass ? "pass, within rounding"
                       : "FAIL");
    ++totals.results;
    if (!pass) ++totals.failures;
  };
  report("o", results.o, c.expected.o);
  report("lse", results.lse, c.expected.lse);
  report("slot_share", results.slot_share, c.expected.slot_share);
  report("slot_k", results.slot_k, c.expected.slot_k);
  report("slot_v", results.slot_v, c.expected.slot_v);
  report("mass", results.mass, c.expected.mass);
  const auto report_gradients = [&](const auto& given) {
    nha::for_each_gradient([&](const std::string& input, const auto& value,
                               const auto& expected) { report("grad." + input, value, expected); },
                           given, c.expected_gradients);
  };
  if (backward) report_gradients(gradients);
  if (backward && runner.has_chunked_backward()) {
    std::printf("  given the forward results:\n");
    report_gradients(runner.run_backward(
        {.o = results.o, .lse = results.lse, .slot_share = results.slot_share}));
  }
  if (options.backward && !backward) std::printf("  no cotangents (d_o): no gradients\n");
  ++totals.cases;
  if (!options.out.empty())
    nha::save_attention_results(options.out, results, c.metadata, gradients);
}

void run_file(const std::string& path, const Options& options, Totals& totals) {
  nha::with_dtype(options.dtype,
                  [&](auto number) { run_case<decltype(number)>(path, options, totals); });
}

/// Runs one file; says in one line what is wrong with a file that is not a valid case.
bool try_file(const std::string& path, const Options& options, Totals& totals) {
#if NHA_HAS_EXCEPTIONS
  try {
    run_file(path, options, totals);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    const std::string_view what = error.what();
    const bool named = what.find(path) != std::string_view::npos;
    std::fprintf(stderr, "nha_parity: %s%s%s\n", named ? "" : path.c_str(), named ? "" : ": ",
                 error.what());
    return false;
  }
#else
  run_file(path, options, totals);
#endif
  return true;
}

[[nodiscard]] int usage_error(const std::string& what) {
  std::fprintf(stderr, "nha_parity: %s\n\n%s", what.c_str(), kUsage);
  return 2;
}

/// A number and nothing else.
template <class Number>
std::optional<Number> parse(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Fills in `options`; returns an exit status where the program ends here.
std::optional<int> parse_arguments(const std::vector<std::string>& arguments, Options& options) {
  bool only_files = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (only_files || !argument.starts_with("-")) {
      options.files.push_back(argument);
      continue;
    }
    if (argument == "--") {
      only_files = true;
      continue;
    }
    if (argument == "--help") {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (argument == "--backward") {
      options.backward = true;
      continue;
    }
    if (argument != "--algorithm" && argument != "--dtype" && argument != "--device" &&
        argument != "--split" && argument != "--tolerance" && argument != "--out")
      return usage_error("unknown option " + argument);
    if (i + 1 == arguments.size()) return usage_error(argument + " needs a value");
    const std::string& value = arguments[++i];
    const std::string wrong = argument + " is '" + value + "'; expected ";
    if (argument == "--algorithm") {
      if (value == "reference")
        options.reference = true;
      else if (value == "recurrent")
        options.algorithm = nha::PrefillAlgorithm::recurrent;
      else if (value == "chunked")
        options.algorithm = nha::PrefillAlgorithm::chunked;
      else if (value == "auto")
        options.algorithm = nha::PrefillAlgorithm::automatic;
      else
        return usage_error(wrong + "reference, recurrent, chunked or auto");
    } else if (argument == "--dtype") {
      options.dtype.clear();
      for (const char c : value)
        options.dtype += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      if (!nha::with_dtype(options.dtype, [](auto) {}))
        return usage_error(wrong + "f32, f64, bf16 or f16");
    } else if (argument == "--device") {
      if (value != "cpu" && value != "cuda") return usage_error(wrong + "cpu or cuda");
      if (value == "cuda") {
        std::fputs("nha_parity: --device cuda is not built in\n", stderr);
        return 2;
      }
    } else if (argument == "--split") {
      const auto split = parse<Index>(value);
      if (!split || *split < 1) return usage_error(wrong + "a number of tokens, 1 or more");
      options.split = *split;
    } else if (argument == "--tolerance") {
      options.tolerance = parse<double>(value);
      if (!options.tolerance || !(*options.tolerance >= 0))
        return usage_error(wrong + "a number, 0 or more");
    } else {
      options.out = value;
    }
  }
  if (options.files.empty()) return usage_error("no case given");
  if (options.backward && options.split > 0)
    return usage_error("--backward takes all tokens at once: gradients stop where a call begins");
  if (!options.out.empty() && options.files.size() != 1)
    return usage_error("--out takes the results of one case; " +
                       std::to_string(options.files.size()) + " were given");
  return std::nullopt;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (const auto status = parse_arguments({argv + 1, argv + argc}, options)) return *status;
  Totals totals;
  bool all_valid = true;
  for (const std::string& path : options.files)
    all_valid = try_file(path, options, totals) && all_valid;
  if (totals.cases > 0)
    std::printf(
        "%d of %zu cases, %d results: %s\n", totals.cases, options.files.size(), totals.results,
        totals.failures == 0 ? "all within tolerance"
                             : (std::to_string(totals.failures) + " NOT within tolerance").c_str());
  return !all_valid ? 2 : totals.failures > 0 ? 1 : 0;
}
