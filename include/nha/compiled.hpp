// SPDX-License-Identifier: MIT
// What the library nha::compiled holds of the operator: the usual types, compiled once. Programs
// that link with it have NHA_COMPILED defined, include nha/nha.hpp and do not compile these
// functions again. Without the macro this header declares nothing.
//
// The names of the functions hold the instruction set. A program compiled with another -march than
// the library does not link, and the linker's message names both. Other types are compiled in the
// program.
#pragma once

#include <nha/attention/backward.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/attention/step.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

/// The functions for states of T; KEYWORD is extern to declare them, and empty to define them.
#define NHA_DETAIL_COMPILED_ATTENTION(KEYWORD, T)                                                \
  KEYWORD template class AttentionStateBase<T>;                                                  \
  KEYWORD template class AttentionState<T>;                                                      \
  KEYWORD template void step<cpu::simd::default_arch>(                                           \
      const AttentionInputs<T>&, AttentionStateBase<T>&, const AttentionOutputs<T>&, Workspace&, \
      ExecutorRef);                                                                              \
  KEYWORD template void prefill<cpu::simd::default_arch>(                                        \
      const AttentionInputs<T>&, AttentionStateBase<T>&, const AttentionOutputs<T>&, Workspace&, \
      const PrefillOptions&, ExecutorRef);                                                       \
  KEYWORD template void backward<cpu::simd::default_arch>(                                       \
      const AttentionInputs<T>&, const AttentionStateBase<T>&, const AttentionSaved<T>&,         \
      const AttentionCotangents<T>&, const AttentionGradients<T>&, Workspace&,                   \
      const BackwardOptions&, ExecutorRef);

#if defined(NHA_COMPILED)
NHA_ISA_NAMESPACE_BEGIN

NHA_DETAIL_COMPILED_ATTENTION(extern, float)
NHA_DETAIL_COMPILED_ATTENTION(extern, double)
NHA_DETAIL_COMPILED_ATTENTION(extern, bfloat16)
NHA_DETAIL_COMPILED_ATTENTION(extern, float16)

NHA_ISA_NAMESPACE_END
#endif
