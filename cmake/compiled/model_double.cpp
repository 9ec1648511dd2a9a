// SPDX-License-Identifier: MIT
#include <nha/model/compiled.hpp>

NHA_ISA_NAMESPACE_BEGIN
NHA_DETAIL_COMPILED_MODEL(, double)
NHA_ISA_NAMESPACE_END
