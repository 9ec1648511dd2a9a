// SPDX-License-Identifier: MIT
// What the library nha::compiled holds of language models; see nha/compiled.hpp.
#pragma once

#include <nha/compiled.hpp>
#include <nha/config.hpp>
#include <nha/model/language_model.hpp>

/// The functions for models of T; KEYWORD is extern to declare them, and empty to define them.
#define NHA_DETAIL_COMPILED_MODEL(KEYWORD, T) KEYWORD template class LanguageModel<T>;

#if defined(NHA_COMPILED)
NHA_ISA_NAMESPACE_BEGIN

NHA_DETAIL_COMPILED_MODEL(extern, float)
NHA_DETAIL_COMPILED_MODEL(extern, double)

NHA_ISA_NAMESPACE_END
#endif
