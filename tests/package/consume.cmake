# SPDX-License-Identifier: MIT
# Builds and runs consumer/ against nha in one WAY: install, compiled (installed with
# nha::compiled), subdirectory or pkg_config.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE "${SCRATCH}")
set(consumer "${CMAKE_CURRENT_LIST_DIR}/consumer")
set(prefix "${SCRATCH}/prefix")
set(build "${SCRATCH}/build")

if(WAY STREQUAL "compiled")
  # The library is compiled in a build of its own, little optimised, as it is to link and not to be fast.
  set(BUILD "${SCRATCH}/library")
  run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${BUILD}" -G "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${CXX}"
    -DCMAKE_CXX_FLAGS=-O1 "-DNHA_MARCH=${MARCH}" "-DNHA_DISABLE_SIMD=${DISABLE_SIMD}" -DNHA_BUILD_COMPILED=ON
    -DNHA_BUILD_TESTS=OFF -DNHA_BUILD_EXAMPLES=OFF -DNHA_BUILD_BENCH=OFF)
  run("${CMAKE_COMMAND}" --build "${BUILD}")
endif()

if(NOT WAY STREQUAL "subdirectory")
  run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}")
  # The installed tree is moved, so nothing in it may point at where it was made.
  file(GLOB_RECURSE package_files "${prefix}/share/*" "${prefix}/lib*/*.cmake")
  foreach(file IN LISTS package_files)
    file(READ "${file}" text)
    foreach(place "${SOURCE}" "${BUILD}" "${prefix}")
      string(FIND "${text}" "${place}" found)
      if(NOT found EQUAL -1)
        message(FATAL_ERROR "${file} names ${place}")
      endif()
    endforeach()
  endforeach()
  file(RENAME "${prefix}" "${prefix}_moved")
  set(prefix "${prefix}_moved")
endif()

if(WAY STREQUAL "pkg_config")
  set(ENV{PKG_CONFIG_PATH} "${prefix}/share/pkgconfig")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs nha OUTPUT_VARIABLE flags
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  file(MAKE_DIRECTORY "${build}")
  run("${CXX}" -std=c++20 "${consumer}/main.cpp" "${consumer}/second.cpp" ${flags} -o "${build}/consumer")
  run("${build}/consumer")
  return()
endif()

list(JOIN COMPONENTS " " components)
set(configure "${CMAKE_COMMAND}" -S "${consumer}" -B "${build}" -G "${GENERATOR}"
  "-DCMAKE_CXX_COMPILER=${CXX}" "-DNHA_COMPONENTS=${components}" "-DNHA_DISABLE_SIMD=${DISABLE_SIMD}")
if(WAY STREQUAL "subdirectory")
  list(APPEND configure "-DNHA_SOURCE=${SOURCE}")
else()
  list(APPEND configure "-DCMAKE_PREFIX_PATH=${prefix}")
endif()
if(WAY STREQUAL "compiled")
  list(APPEND configure -DNHA_COMPONENTS=compiled "-DNHA_README_PROGRAM=${README_PROGRAM}")
  run(${configure} "-DCMAKE_CXX_FLAGS=-march=${MARCH}")
  run("${CMAKE_COMMAND}" --build "${build}" --target consumer_compiled)
  run("${build}/consumer_compiled")
  # With another -march the linker says what is missing, and for which instruction set.
  run(${configure} "-DCMAKE_CXX_FLAGS=-march=${OTHER_MARCH}")
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" --target consumer_compiled
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(status EQUAL 0 OR NOT output MATCHES "undefined reference[^\n]* nha::v[0-9_a-z]*::prefill")
    message(FATAL_ERROR "linking with -march=${OTHER_MARCH} must fail for prefill, not:\n${output}")
  endif()
  return()
endif()

run(${configure})
run("${CMAKE_COMMAND}" --build "${build}")
run("${build}/consumer")
foreach(component IN LISTS COMPONENTS)
  run("${build}/consumer_${component}")
endforeach()

# Configures the consumer with the component and the further options; find_package must fail with the message.
function(expect_not_found component message)
  file(REMOVE_RECURSE "${SCRATCH}/wrong")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -S "${consumer}" -B "${SCRATCH}/wrong" -G "${GENERATOR}"
      "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_PREFIX_PATH=${prefix}" "-DNHA_COMPONENTS=${component}"
      "-DNHA_DISABLE_SIMD=${DISABLE_SIMD}" ${ARGN}
    RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE output)
  string(REGEX REPLACE "[ \n]+" " " output "${output}")
  if(status EQUAL 0 OR NOT output MATCHES "${message}")
    message(FATAL_ERROR "find_package(nha COMPONENTS ${component}) with '${ARGN}' must fail and say '${message}', not:\n${output}")
  endif()
endfunction()

if(WAY STREQUAL "install")
  expect_not_found(egien "nha has no component egien; it has model, train, io, eigen and compiled")
  expect_not_found(compiled "nha was installed without nha::compiled")
  expect_not_found(io "nha::io needs nlohmann_json 3.11 or newer"
    -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)
  expect_not_found(eigen "nha::eigen needs Eigen 3.4 or newer"
    -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON)
  if(NOT DISABLE_SIMD)
    expect_not_found(model "nha needs xsimd 8.1 or newer" -DCMAKE_DISABLE_FIND_PACKAGE_xsimd=ON)
  endif()
endif()
