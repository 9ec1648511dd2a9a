// SPDX-License-Identifier: MIT
#include <nha/model/compiled.hpp>

NHA_ISA_NAMESPACE_BEGIN
NHA_DETAIL_COMPILED_MODEL(, float)
NHA_ISA_NAMESPACE_END
