# SPDX-License-Identifier: MIT
# Flags of the tests, examples, benchmarks and of nha::compiled: instruction set, warnings, where programs land.
include(CheckCXXCompilerFlag)

if(NOT DEFINED NHA_MARCH)
  set(march "")
  if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CROSSCOMPILING)
    check_cxx_compiler_flag(-march=native NHA_HAS_MARCH_NATIVE)
    if(NHA_HAS_MARCH_NATIVE)
      set(march native)
    endif()
  endif()
  set(NHA_MARCH "${march}" CACHE STRING
    "-march of the programs of this project, for instance native or x86-64-v3; empty: the compiler's")
endif()
if(NHA_MARCH)
  add_compile_options(-march=${NHA_MARCH})
endif()

add_compile_options(-Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(NHA_WERROR)
  add_compile_options(-Werror)
endif()
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-psabi)  # that GCC 10 passes a pair in other registers than GCC 9 did
endif()

# GCC before 13 takes the deliberately undefined registers inside its own AVX-512 intrinsics for
# mistakes of whoever includes them (GCC bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS "-march=${NHA_MARCH}")
  check_cxx_source_compiles("
    #ifndef __AVX512F__
    #error
    #endif
    int main() {}" NHA_MARCH_HAS_AVX512)
  unset(CMAKE_REQUIRED_FLAGS)
  if(NHA_MARCH_HAS_AVX512)
    add_compile_options(-Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
endif()

# The target all_verify_interface_header_sets compiles every public header alone, those whose
# dependencies are here.
set(verified nha nha_model nha_train)
if(NOT json_problem)
  list(APPEND verified nha_io)
endif()
if(NOT eigen_problem)
  list(APPEND verified nha_eigen)
endif()
set_target_properties(${verified} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
set_target_properties(nha PROPERTIES INTERFACE_HEADER_SETS_TO_VERIFY HEADERS)

set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
