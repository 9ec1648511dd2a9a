// SPDX-License-Identifier: MIT
// The version of the library. CMake reads it from here, so it is written once.
#pragma once

#define NHA_VERSION_MAJOR 0
#define NHA_VERSION_MINOR 1
#define NHA_VERSION_PATCH 0
