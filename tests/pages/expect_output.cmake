# SPDX-License-Identifier: MIT
# Runs PROGRAM, a command, and compares what it prints with the file OUTPUT.
cmake_minimum_required(VERSION 3.25)
file(READ "${OUTPUT}" expected)
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "printed:\n${printed}\nexpected:\n${expected}")
endif()
