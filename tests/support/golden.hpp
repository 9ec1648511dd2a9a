// SPDX-License-Identifier: MIT
// The golden cases: their names and where they are.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace nha_test {

/// One case for each thing that can go wrong; what each is for, its name says.
inline constexpr std::array<std::string_view, 29> kGoldenCases{
    "chunk_exact",   "chunk_plus_one", "explicit_write",
    "fast_forget",   "full_window",    "full_window_masked",
    "grouped_query", "huge_logits",    "initial_state",
    "linear_only",   "long",           "many_slots",
    "masked",        "mass_corrected", "mass_corrected_linear",
    "mixed_gates",   "multi_query",    "never_forget",
    "odd_dims",      "one_token",      "overlap",
    "partial_delay", "single_slot",    "tiny",
    "unit_scale",    "varlen",         "varlen_initial",
    "wide_head",     "window_one"};

/// Cases whose first tokens stay visible; so far the definition alone has sinks.
inline constexpr std::array<std::string_view, 9> kGoldenSinkCases{"sinks",
                                                                  "sinks_full_window",
                                                                  "sinks_linear",
                                                                  "sinks_masked_one",
                                                                  "sinks_mass_corrected",
                                                                  "sinks_no_slots",
                                                                  "sinks_overlap",
                                                                  "sinks_varlen_initial",
                                                                  "sinks_wider_than_window"};

/// The file of a case of kGoldenCases.
inline std::string golden_path(std::string_view name) {
  return std::string(NHA_TEST_DATA_DIR "/golden/") + std::string(name) + ".safetensors";
}
/// The file of a case of kGoldenSinkCases.
inline std::string golden_sinks_path(std::string_view name) {
  return std::string(NHA_TEST_DATA_DIR "/golden_sinks/") + std::string(name) + ".safetensors";
}

}  // namespace nha_test
