# SPDX-License-Identifier: MIT
# Toolchain: 64-bit Arm by Debian's cross compiler (g++-aarch64-linux-gnu), run by qemu-user-static.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Which processor qemu is, for instance max,sve256=on; empty: its own choice.
set(NHA_QEMU_CPU "" CACHE STRING "-cpu of qemu-aarch64")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
if(NHA_QEMU_CPU)
  list(APPEND CMAKE_CROSSCOMPILING_EMULATOR -cpu "${NHA_QEMU_CPU}")
endif()
