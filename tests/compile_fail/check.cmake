# SPDX-License-Identifier: MIT
# cmake -DSOURCE=... -DCOMPILE=compiler;flags -P check.cmake
# SOURCE must compile as it is, and with NHA_MUST_FAIL must fail with the text after "// expect: ".
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${COMPILE} "${SOURCE}" RESULT_VARIABLE status ERROR_VARIABLE output)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile without NHA_MUST_FAIL:\n${output}")
endif()

file(STRINGS "${SOURCE}" expected REGEX "^// expect: ")
string(REPLACE "// expect: " "" expected "${expected}")
if(expected STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line '// expect: '")
endif()
execute_process(COMMAND ${COMPILE} -DNHA_MUST_FAIL "${SOURCE}" RESULT_VARIABLE status ERROR_VARIABLE output)
if(status EQUAL 0)
  message(FATAL_ERROR "compiles with NHA_MUST_FAIL")
endif()
string(FIND "${output}" "${expected}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "fails without the message '${expected}':\n${output}")
endif()
