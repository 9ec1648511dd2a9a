# SPDX-License-Identifier: MIT
# The headers one reads first stay light: core/, memory/ and the reference include neither xsimd nor
# Eigen nor a JSON library, and compile in well under a second.
cmake_minimum_required(VERSION 3.25)

file(GLOB headers RELATIVE "${INCLUDE}" "${INCLUDE}/nha/core/*.hpp" "${INCLUDE}/nha/memory/*.hpp")
list(APPEND headers nha/attention/reference.hpp)
set(source "${SCRATCH}/light_headers.cpp")
list(TRANSFORM headers REPLACE "(.+)" "#include <\\1>")
list(JOIN headers "\n" text)
file(WRITE "${source}" "${text}\nint main() {}\n")
set(compile "${CXX}" -std=c++20 "-I${INCLUDE}" "${source}")

execute_process(COMMAND ${compile} -M OUTPUT_VARIABLE included COMMAND_ERROR_IS_FATAL ANY)
foreach(heavy xsimd/ Eigen/ nlohmann/)
  string(FIND "${included}" "${heavy}" place)
  if(NOT place EQUAL -1)
    message(FATAL_ERROR "the light headers include ${heavy}")
  endif()
endforeach()

# Best of three. The budget is 0.6 s; a shared machine may take longer, so only three times that fails.
set(best 1000000000)
foreach(attempt RANGE 2)
  string(TIMESTAMP start "%s%f")
  execute_process(COMMAND ${compile} -O2 -c -o "${SCRATCH}/light_headers.o" COMMAND_ERROR_IS_FATAL ANY)
  string(TIMESTAMP end "%s%f")
  math(EXPR elapsed "(${end} - ${start}) / 1000")
  if(elapsed LESS best)
    set(best ${elapsed})
  endif()
endforeach()
message(STATUS "core, memory and the reference compile in ${best} ms (budget 600 ms)")
if(best GREATER 1800)
  message(FATAL_ERROR "that is three times the budget")
endif()
