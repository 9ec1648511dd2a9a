// SPDX-License-Identifier: MIT
// Counts what a test program takes with operator new, by replacing it, or refuses it. Include it in
// one file of a program.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace nha_test {

inline std::atomic<long> new_calls{0};
/// Bytes of the largest call.
inline std::atomic<std::size_t> new_largest{0};
/// While it is true, there is no memory: the program ends where operator new is called.
inline std::atomic<bool> new_refused{false};

__attribute__((noinline)) inline void* counted_new(std::size_t bytes, std::size_t alignment) {
  if (new_refused) std::abort();
  ++new_calls;
  std::size_t largest = new_largest;
  while (bytes > largest && !new_largest.compare_exchange_weak(largest, bytes)) {
  }
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace nha_test

#if defined(__GNUC__) && !defined(__clang__)
// Inlined, GCC sees malloc's memory given to free by way of operators it takes for the usual ones.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

void* operator new(std::size_t bytes) {
  return nha_test::counted_new(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return nha_test::counted_new(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
