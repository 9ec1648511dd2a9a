// SPDX-License-Identifier: MIT
// Slots are sums, so they are kept in float or double.
// expect: slots are kept in float or double
#include <nha/memory/slot_memory.hpp>

#if defined(NHA_MUST_FAIL)
nha::SlotMemory<nha::bfloat16> memory(16, 16, 4);
#else
nha::SlotMemory<float> memory(16, 16, 4);
#endif
