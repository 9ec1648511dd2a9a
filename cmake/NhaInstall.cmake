# SPDX-License-Identifier: MIT
# Installs the headers, the CMake package (find_package(nha COMPONENTS ...)) and nha.pc.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# None of this depends on the architecture, so it goes to share.
set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/nha")
install(TARGETS nha nha_model nha_train nha_io nha_eigen EXPORT nhaTargets
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILE_SET openmp DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT nhaTargets NAMESPACE nha:: DESTINATION "${package_dir}")
if(NHA_BUILD_COMPILED)
  install(TARGETS nha_compiled EXPORT nhaCompiledTargets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  install(EXPORT nhaCompiledTargets NAMESPACE nha:: DESTINATION "${CMAKE_INSTALL_LIBDIR}/nha")
endif()
configure_package_config_file(cmake/nhaConfig.cmake.in nhaConfig.cmake
  INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(nhaConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/nhaConfig.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/nhaConfigVersion.cmake" cmake/NhaDependencies.cmake
  DESTINATION "${package_dir}")
configure_file(cmake/nha.pc.in nha.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/nha.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
