// SPDX-License-Identifier: MIT
// What each of the two files of the ABI test offers. Only vocabulary types pass between files:
// their layout does not depend on compiler flags.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/core/options.hpp>

namespace nha_test {

/// Runs prefill over the inputs with the code of this file, and returns how many floats its vectors
/// hold. Raises nha::ArgumentError as prefill does.
int baseline_run(const nha::AttentionInputs<float>& inputs, const nha::AttentionShape& shape,
                 const nha::AttentionOptions& options, const nha::AttentionOutputs<float>& outputs);
int v3_run(const nha::AttentionInputs<float>& inputs, const nha::AttentionShape& shape,
           const nha::AttentionOptions& options, const nha::AttentionOutputs<float>& outputs);

}  // namespace nha_test
