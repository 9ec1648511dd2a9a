// SPDX-License-Identifier: MIT
// What lets a function run on a GPU as well: the mark, and what the standard library has for hosts
// alone.
#pragma once

#include <nha/config.hpp>

/// Before a function that device code may call. Host compilers see nothing.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define NHA_HOST_DEVICE __host__ __device__
#else
#define NHA_HOST_DEVICE
#endif

NHA_NAMESPACE_BEGIN

/// The bits of `from` as a To of the same size: std::bit_cast, which CUDA keeps to hosts.
template <class To, class From>
NHA_HOST_DEVICE NHA_INLINE constexpr To bits_as(const From& from) noexcept {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

NHA_NAMESPACE_END
