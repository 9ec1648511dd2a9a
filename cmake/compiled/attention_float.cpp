// SPDX-License-Identifier: MIT
#include <nha/compiled.hpp>

NHA_ISA_NAMESPACE_BEGIN
NHA_DETAIL_COMPILED_ATTENTION(, float)
NHA_ISA_NAMESPACE_END
