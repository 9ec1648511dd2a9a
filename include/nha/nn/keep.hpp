// SPDX-License-Identifier: MIT
// What a forward pass leaves behind in its scratch memory.
#pragma once

#include <nha/config.hpp>

#include <cstdint>

NHA_NAMESPACE_BEGIN

/// Whether the scratch memory of a forward pass still holds, when it returns, what a backward pass
/// reads. It decides how much memory is taken, not what is computed: intermediate results that
/// would overwrite each other get places of their own.
enum class Keep : std::uint8_t { nothing, for_backward };

NHA_NAMESPACE_END
