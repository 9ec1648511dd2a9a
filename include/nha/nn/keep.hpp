// SPDX-License-Identifier: MIT
// Keep: what a forward pass leaves in its scratch memory.
#pragma once

#include <nha/config.hpp>

#include <cstdint>

NHA_NAMESPACE_BEGIN

/// Whether a forward pass keeps the intermediate results that a backward pass reads. It decides how
/// much scratch memory is taken, not what is computed: results that would overwrite each other get
/// places of their own.
enum class Keep : std::uint8_t { nothing, for_backward };

NHA_NAMESPACE_END
