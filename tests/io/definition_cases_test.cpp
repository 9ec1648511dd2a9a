// SPDX-License-Identifier: MIT
// The definition against the golden cases: float64 results of another implementation.
#include <nha/attention/definition.hpp>
#include <nha/io/attention_case.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "support/golden.hpp"
#include "support/random_case.hpp"
#include "support/run_definition.hpp"

namespace {

void expect_golden_results(const std::string& path) {
  SCOPED_TRACE(path);
  const nha::Safetensors file(path);
  const auto c = nha::read_attention_case<double>(file);
  std::optional<nha_test::InitialSlots> initial;
  if (c.has_initial_slots)
    initial = nha_test::InitialSlots{c.initial_slot_k, c.initial_slot_v, c.initial_mass};
  const std::string* sinks = file.find_metadata("sinks");
  const auto out = nha_test::run_definition(c.inputs(), c.shape, c.query_heads, c.options, initial,
                                            sinks == nullptr ? 0 : std::stoi(*sinks));
  // Both compute in double, so only the order of sums differs. But the cases take 1 - exp(g) as it
  // stands, which for the gates of never_forget, near -1e-6, loses digits that -expm1(g) keeps.
  const double tolerance = 2e-13;
  const double slot_tolerance = c.name == "never_forget" ? 1e-10 : tolerance;
  EXPECT_LT(nha_test::relative_error(out.o, c.expected.o), tolerance);
  EXPECT_LT(nha_test::relative_error(out.lse, c.expected.lse), tolerance);
  EXPECT_LT(nha_test::relative_error(out.slot_share, c.expected.slot_share), tolerance);
  EXPECT_LT(nha_test::relative_error(out.slot_k, c.expected.slot_k), slot_tolerance);
  EXPECT_LT(nha_test::relative_error(out.slot_v, c.expected.slot_v), slot_tolerance);
  EXPECT_LT(nha_test::relative_error(out.mass, c.expected.mass), slot_tolerance);
}

TEST(DefinitionCases, GoldenResultsAreThoseOfTheDefinition) {
  for (const auto name : nha_test::kGoldenCases) expect_golden_results(nha_test::golden_path(name));
}

TEST(DefinitionCases, GoldenResultsWithSinksAreThoseOfTheDefinition) {
  for (const auto name : nha_test::kGoldenSinkCases)
    expect_golden_results(nha_test::golden_sinks_path(name));
}

}  // namespace
