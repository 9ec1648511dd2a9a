# SPDX-License-Identifier: MIT
# Toolchain: 64-bit Arm by Debian's cross compiler (g++-aarch64-linux-gnu), run by qemu-user-static.
# Programs are linked statically, so that the emulated machine needs no files of its own.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static CACHE STRING "What runs the programs")
