# SPDX-License-Identifier: MIT
# Finds what the headers of nha include. Used by the source tree and, installed beside nhaConfig.cmake,
# by the package. Each function sets its last argument to what is wrong, or to nothing.
#
# No function gives find_package a version: the version files of xsimd and Eigen accept one major
# version only, so a minimum would refuse newer releases. The minimum is checked by hand.

# The directory of xsimd's headers. Only that is taken from xsimd's target: Debian 12's links "xtl", a
# library that does not exist.
function(nha_find_xsimd include_dir problem)
  find_package(xsimd QUIET)
  if(NOT xsimd_FOUND)
    set(${problem} "nha needs xsimd 8.1 or newer (Debian: libxsimd-dev), or NHA_DISABLE_SIMD=ON to compute without SIMD" PARENT_SCOPE)
    return()
  endif()
  if(xsimd_VERSION VERSION_LESS 8.1)
    set(${problem} "nha needs xsimd 8.1 or newer; found ${xsimd_VERSION}" PARENT_SCOPE)
    return()
  endif()
  get_target_property(found xsimd INTERFACE_INCLUDE_DIRECTORIES)
  if(CMAKE_CROSSCOMPILING)
    # The machine's own /usr/include must not come before the headers of the target.
    file(MAKE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/xsimd_include")
    file(CREATE_LINK "${found}/xsimd" "${CMAKE_CURRENT_BINARY_DIR}/xsimd_include/xsimd" SYMBOLIC)
    set(found "${CMAKE_CURRENT_BINARY_DIR}/xsimd_include")
  endif()
  set(${include_dir} "${found}" PARENT_SCOPE)
  set(${problem} "" PARENT_SCOPE)
endfunction()

# Eigen3::Eigen, visible to the whole project.
function(nha_find_eigen problem)
  set(${problem} "" PARENT_SCOPE)
  find_package(Eigen3 QUIET NO_MODULE GLOBAL)
  if(NOT Eigen3_FOUND)
    set(${problem} "nha::eigen needs Eigen 3.4 or newer (Debian: libeigen3-dev)" PARENT_SCOPE)
  elseif(Eigen3_VERSION VERSION_LESS 3.4)
    set(${problem} "nha::eigen needs Eigen 3.4 or newer; found ${Eigen3_VERSION}" PARENT_SCOPE)
  endif()
endfunction()

# nlohmann_json::nlohmann_json, visible to the whole project.
function(nha_find_json problem)
  set(${problem} "" PARENT_SCOPE)
  find_package(nlohmann_json QUIET GLOBAL)
  if(NOT nlohmann_json_FOUND)
    set(${problem} "nha::io needs nlohmann_json 3.11 or newer (Debian: nlohmann-json3-dev)" PARENT_SCOPE)
  elseif(nlohmann_json_VERSION VERSION_LESS 3.11)
    set(${problem} "nha::io needs nlohmann_json 3.11 or newer; found ${nlohmann_json_VERSION}" PARENT_SCOPE)
  endif()
endfunction()
