# SPDX-License-Identifier: MIT
# Lists the functions and variables of nha:: that two objects compiled with different flags both define
# under one name. The linker keeps one of each, so none may compute or depend on flags. What may be shared:
# type information, copying and destroying of the values that pass between files, and constants.
cmake_minimum_required(VERSION 3.25)

function(defined_names object result)
  execute_process(COMMAND "${NM}" --defined-only "${object}" OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  # Weak symbols whose mangled name is in nha, or is of something in nha (vtable, guard, local variable).
  string(REGEX MATCHALL "[ ][VvWwuU] _Z[^\n]*3nha[^\n]*" lines "${output}")
  list(TRANSFORM lines REPLACE "^[ ]. " "")
  list(LENGTH lines count)
  if(count LESS 20)
    message(FATAL_ERROR "only ${count} symbols of nha in ${object}: this check sees nothing")
  endif()
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

defined_names("${FIRST}" first)
defined_names("${SECOND}" second)
set(shared "")
foreach(name IN LISTS first)
  if(name IN_LIST second)
    list(APPEND shared "${name}")
  endif()
endforeach()

# Names of the standard library that hold a type of nha are its templates, instantiated: like all of std
# they have one name for all flags, which no library can change.
list(FILTER shared EXCLUDE REGEX "^_ZN?K?S")
# The exceptions and the options, which own memory: what the compiler writes for them.
set(values "N3nha[0-9]+v[0-9]+_[0-9]+(13ArgumentError|11FormatError|16AttentionOptions)")
list(FILTER shared EXCLUDE REGEX "^_ZT[ISV]${values}E$")
list(FILTER shared EXCLUDE REGEX "^_Z${values}([CD]I?[0-9]|aSE)")
# Constants: kName, or kName<type>.
list(FILTER shared EXCLUDE REGEX "^_ZN3nha[0-9]+v[0-9]+_[0-9]+k[A-Z][A-Za-z]*(I[a-z]E)?E$")
# The static extents of a view type.
list(FILTER shared EXCLUDE REGEX "^_ZN3nha[0-9]+v[0-9]+_[0-9]+10TensorView.*8kExtentsE$")
if(shared)
  list(JOIN shared "\n  " text)
  message(FATAL_ERROR "defined under one name in both objects:\n  ${text}")
endif()
list(LENGTH first count)
message(STATUS "no name of nha in both objects, of ${count} in the first")
