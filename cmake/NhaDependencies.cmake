# SPDX-License-Identifier: MIT
# Finds what the headers of nha include. Used by the source tree and, installed beside nhaConfig.cmake,
# by the package. Each function sets its last argument to what is wrong, or to nothing.
#
# No function gives find_package a version: the version files of xsimd and Eigen accept one major
# version only, so a minimum would refuse newer releases. The minimum is checked by hand.

# Cross-compiling, the machine's own /usr/include must not come before the headers of the target: in place
# of a folder of headers, one with nothing but the link to those of one library.
function(nha_isolate_headers include_dir library)
  if(CMAKE_CROSSCOMPILING)
    set(isolated "${CMAKE_CURRENT_BINARY_DIR}/${library}_include")
    file(MAKE_DIRECTORY "${isolated}")
    file(CREATE_LINK "${${include_dir}}/${library}" "${isolated}/${library}" SYMBOLIC)
    set(${include_dir} "${isolated}" PARENT_SCOPE)
  endif()
endfunction()

# The directory of xsimd's headers: NHA_XSIMD_INCLUDE_DIR where that is set, with xsimd/xsimd.hpp in it,
# else that of an installed xsimd. Only the directory is taken from xsimd's target: Debian 12's links
# "xtl", a library that does not exist.
function(nha_find_xsimd include_dir problem)
  if(NHA_XSIMD_INCLUDE_DIR)
    set(found "${NHA_XSIMD_INCLUDE_DIR}")
    if(NOT EXISTS "${found}/xsimd/xsimd.hpp")
      set(${problem} "NHA_XSIMD_INCLUDE_DIR is ${found}; there is no xsimd/xsimd.hpp in it" PARENT_SCOPE)
      return()
    endif()
  else()
    find_package(xsimd QUIET)
    if(NOT xsimd_FOUND)
      set(${problem} "nha needs xsimd 8.1 or newer (Debian: libxsimd-dev; NHA_XSIMD_INCLUDE_DIR names the folder its headers are in), or NHA_DISABLE_SIMD=ON to compute without SIMD" PARENT_SCOPE)
      return()
    endif()
    if(xsimd_VERSION VERSION_LESS 8.1)
      set(${problem} "nha needs xsimd 8.1 or newer; found ${xsimd_VERSION}" PARENT_SCOPE)
      return()
    endif()
    get_target_property(found xsimd INTERFACE_INCLUDE_DIRECTORIES)
  endif()
  nha_isolate_headers(found xsimd)
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
  elseif(CMAKE_CROSSCOMPILING)
    get_target_property(found nlohmann_json::nlohmann_json INTERFACE_INCLUDE_DIRECTORIES)
    list(GET found 0 found)
    nha_isolate_headers(found nlohmann)
    set_target_properties(nlohmann_json::nlohmann_json PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${found}")
  endif()
endfunction()
