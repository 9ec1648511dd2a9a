// SPDX-License-Identifier: MIT
// What each of the two files of the ABI test offers. Only vocabulary types pass between files: their
// layout and code do not depend on compiler flags.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>

namespace nha_test {

/// Runs prefill over the inputs, with a window of that many tokens, with the code of this file.
/// @return how many floats its vectors hold
/// @throws nha::ArgumentError as prefill does.
int baseline_run(const nha::AttentionInputs<float>& inputs, const nha::AttentionShape& shape,
                 nha::Index window, const nha::AttentionOutputs<float>& outputs);
int v3_run(const nha::AttentionInputs<float>& inputs, const nha::AttentionShape& shape,
           nha::Index window, const nha::AttentionOutputs<float>& outputs);

}  // namespace nha_test
