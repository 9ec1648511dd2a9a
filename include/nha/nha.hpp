// SPDX-License-Identifier: MIT
// Everything of the operator on the CPU. Needs xsimd and nothing else, or no xsimd where
// NHA_DISABLE_SIMD is defined. Headers of their own have: parts of layers (nha/nn), models
// (nha/model), training (nha/train), files (nha/io), Eigen's matrices (nha/eigen.hpp), and
// executors for Eigen and OpenMP (nha/parallel).
#pragma once

#include <nha/attention/backward.hpp>
#include <nha/attention/fused_softmax.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/attention/reference.hpp>
#include <nha/attention/reference_backward.hpp>
#include <nha/attention/step.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>
#include <nha/memory/state.hpp>
#include <nha/memory/state_archive.hpp>
#include <nha/parallel/executor.hpp>
#include <nha/parallel/thread_pool.hpp>
#include <nha/version.hpp>
#if defined(NHA_COMPILED)
#include <nha/compiled.hpp>
#endif
