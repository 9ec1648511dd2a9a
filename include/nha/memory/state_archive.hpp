// SPDX-License-Identifier: MIT
// Saving one sequence of an AttentionState to bytes and loading it, into any place of any state of
// the same layer.
//
// The frame of memory/archive.hpp with magic "NHASTATE", version 1 and these sections, each there
// once; unknown ones are skipped:
//   1 layer     dtype u32 (F32 0, F64 1, BF16 2, F16 3), empty_slots u32 (participate 0, masked 1,
//               mass_corrected 2), kv_heads, key_dim, value_dim, slots i64, softmax_scale f64, and per
//               head window, slot_delay i64, defaults filled in, and the slots' dtype u32 where it
//               is not the accumulation type (F64 for F64, else F32): what must match to load
//   2 sequence  tokens_seen i64, has_initial_slots u32
//   3 slots     per head slot_k [M, Dk], slot_v [M, Dv] in the slots' type, mass [M] in the
//               accumulation type
//   4 window    per head the newest min(window, tokens_seen) tokens, oldest first: key [Dk] and
//               value [Dv] in the storage type
//   5 pending   nothing where M = 0, else per head the newest min(slot_delay, tokens_seen) tokens,
//               oldest first: slot key [Dk] in the storage type, retention [M] and write [M] in the
//               accumulation type
// Batch, padding, positions in the rings and the history for rollback() are not part of it: equal
// sequences give equal bytes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/names.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/archive.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline constexpr ArchiveFormat kStateFormat{
    .what = "saved state", .magic = "NHASTATE", .version = 1};

enum class StateSection : std::uint32_t { layer = 1, sequence, slots, window, pending };
inline constexpr const char* kStateSectionNames[] = {"layer", "sequence", "slots", "window",
                                                     "pending"};
inline constexpr StateSection kStateNumbers[] = {StateSection::slots, StateSection::window,
                                                 StateSection::pending};
constexpr std::size_t place_of(StateSection id) noexcept {
  return static_cast<std::size_t>(id) - 1;
}

/// The numbers of section 3, 4 or 5 of a sequence that has seen `seen` tokens. An archive that
/// writes or counts them takes a const state; one that reads them fills a state.
template <class Archive, class State>
void state_numbers(StateSection id, Archive& archive, State& state, Index sequence,
                   std::int64_t seen) {
  const AttentionShape& shape = state.shape();
  for (Index h = 0; h < shape.kv_heads; ++h) {
    const auto [slots, window, pending] = StateAccess::head(state, sequence, h);
    const HeadOptions options = head_options(state.options(), h);
    if (id == StateSection::slots) {
      for (Index m = 0; m < shape.slots; ++m)
        for (Index d = 0; d < shape.key_dim; ++d) archive.number(slots.key_at(m, d));
      for (Index m = 0; m < shape.slots; ++m)
        archive.numbers(&slots.value_at(m, 0), shape.value_dim);
      archive.numbers(slots.mass, shape.slots);
    } else if (id == StateSection::window) {
      for (auto t = std::max<std::int64_t>(0, seen - options.window); t < seen; ++t) {
        archive.numbers(window.key_row(t), shape.key_dim);
        archive.numbers(window.value_row(t), shape.value_dim);
      }
    } else if (shape.slots > 0) {
      for (auto t = std::max<std::int64_t>(0, seen - options.slot_delay); t < seen; ++t) {
        archive.numbers(pending.key_row(t), shape.key_dim);
        archive.numbers(pending.retention_row(t), shape.slots);
        archive.numbers(pending.write_row(t), shape.slots);
      }
    }
  }
}

template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void write_state(ArchiveWriter& writer,
                 const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
                 Index sequence) {
  const AttentionShape& shape = state.shape();
  const std::int64_t seen = state.tokens_seen(sequence);
  writer.section(static_cast<std::uint32_t>(StateSection::layer), [&] {
    writer.number(dtype_code<T>());
    writer.number(static_cast<std::uint32_t>(state.options().empty_slots));
    for (Index size : {shape.kv_heads, shape.key_dim, shape.value_dim, shape.slots})
      writer.number(std::int64_t{size});
    writer.number(softmax_scale(state.options(), shape.key_dim));
    for (Index h = 0; h < shape.kv_heads; ++h) {
      const HeadOptions options = head_options(state.options(), h);
      writer.number(std::int64_t{options.window});
      writer.number(std::int64_t{options.slot_delay});
    }
    if constexpr (!std::is_same_v<SlotScalar, accumulate_t<T>>)
      writer.number(dtype_code<SlotScalar>());
  });
  writer.section(static_cast<std::uint32_t>(StateSection::sequence), [&] {
    writer.number(seen);
    writer.number(std::uint32_t{state.has_initial_slots(sequence)});
  });
  for (StateSection id : kStateNumbers)
    writer.section(static_cast<std::uint32_t>(id),
                   [&] { state_numbers(id, writer, state, sequence, seen); });
}

/// All digits, so that numbers that differ look different.
inline std::string all_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}
inline std::string unknown_code(std::uint32_t code) {
  return message("unknown (", code, ")");
}
inline std::string dtype_text(std::uint32_t code) {
  return code < std::size(kDtypeNames) ? kDtypeNames[code] : unknown_code(code);
}
inline std::string empty_slots_text(std::uint32_t code) {
  return code < std::size(kEmptySlotsNames) ? std::string(kEmptySlotsNames[code].name)
                                            : unknown_code(code);
}

/// The layer section against the state that is to take the sequence.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void check_state_layer(std::span<const std::byte> section,
                       const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state) {
  const AttentionShape& shape = state.shape();
  const AttentionOptions& options = state.options();
  ArchiveReader reader(kStateFormat.what, section);
  check_archive_field("dtype", dtype_text(reader.number<std::uint32_t>()),
                      std::string(dtype_name<T>()));
  const auto empty_slots = reader.number<std::uint32_t>();
  const auto check_size = [&](const char* name, Index size) {
    check_archive_field(name, reader.number<std::int64_t>(), std::int64_t{size});
  };
  check_size("kv_heads", shape.kv_heads);
  check_size("key_dim", shape.key_dim);
  check_size("value_dim", shape.value_dim);
  check_size("slots", shape.slots);
  check_archive_field("empty_slots", empty_slots_text(empty_slots),
                      empty_slots_text(static_cast<std::uint32_t>(options.empty_slots)));
  check_archive_field("softmax_scale", all_digits(reader.number<double>()),
                      all_digits(softmax_scale(options, shape.key_dim)));
  for (Index h = 0; h < shape.kv_heads; ++h) {
    const HeadOptions head = head_options(options, h);
    const std::string of_head = message(" of head ", h);
    check_archive_field("window" + of_head, reader.number<std::int64_t>(),
                        std::int64_t{head.window});
    check_archive_field("slot_delay" + of_head, reader.number<std::int64_t>(),
                        std::int64_t{head.slot_delay});
  }
  const auto slot_dtype = reader.left() >= sizeof(std::uint32_t) ? reader.number<std::uint32_t>()
                                                                 : dtype_code<accumulate_t<T>>();
  check_archive_field("slot dtype", dtype_text(slot_dtype), std::string(dtype_name<SlotScalar>()));
  check_format(reader.left() == 0, "layer section of the saved state is ", reader.left(),
               " bytes too long");
}

}  // namespace detail

/// Bytes that save_state() makes of a sequence. Grows with the tokens until the window is full,
/// then stays.
/// @throws ArgumentError if there is no such sequence.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::size_t state_bytes_size(const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
                             Index sequence) {
  state.check_sequence(sequence);
  return detail::archive_size(detail::kStateFormat, [&](detail::ArchiveWriter& writer) {
    detail::write_state(writer, state, sequence);
  });
}

/// One sequence of a state as bytes, in the format at the head of this file. The same on every
/// machine; a later version of the library reads it.
/// @throws ArgumentError if there is no such sequence.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::vector<std::byte> save_state(
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index sequence) {
  state.check_sequence(sequence);
  return detail::write_archive(detail::kStateFormat, [&](detail::ArchiveWriter& writer) {
    detail::write_state(writer, state, sequence);
  });
}

/// Puts a saved sequence in place `sequence` of a state, whatever was there; other sequences stay.
/// It continues to the bit as the saved one would have. The states may differ in batch and
/// max_rollback. rollback() can take back tokens given after loading, not those before.
///
/// The numbers themselves are taken as they are, infinities and NaN included: a state holds what
/// its inputs made of it.
/// @throws ArgumentError if there is no such sequence.
/// @throws FormatError if the bytes are damaged, truncated or of another format, or if the layer
///   differs: in dtypes, sizes, windows, delays, scale or empty_slots. The state is then as it was.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void load_state(std::span<const std::byte> bytes,
                AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index sequence) {
  using detail::StateSection;
  state.check_sequence(sequence);
  constexpr std::string_view what = detail::kStateFormat.what;
  detail::ArchiveReader archive = detail::open_archive(detail::kStateFormat, bytes);
  const auto sections = detail::read_sections(what, archive, detail::kStateSectionNames);
  const auto content = [&](StateSection id) { return sections[detail::place_of(id)]; };
  detail::check_state_layer(content(StateSection::layer), state);

  detail::ArchiveReader reader(what, content(StateSection::sequence));
  const auto seen = reader.number<std::int64_t>();
  const auto initial_slots = reader.number<std::uint32_t>();
  check_format(seen >= 0 && seen <= kMostTokensSeen, "tokens_seen of the saved state is ", seen,
               "; expected 0 to ", kMostTokensSeen);
  check_format(initial_slots <= 1, "has_initial_slots of the saved state is ", initial_slots,
               "; expected 0 or 1");
  check_format(reader.left() == 0, "sequence section of the saved state is ", reader.left(),
               " bytes too long");

  for (StateSection id : detail::kStateNumbers) {
    detail::ArchiveWriter counter(nullptr);
    detail::state_numbers(id, counter, std::as_const(state), sequence, seen);
    check_format(content(id).size() == counter.used(),
                 detail::kStateSectionNames[detail::place_of(id)],
                 " section of the saved state has ", content(id).size(), " bytes; expected ",
                 counter.used());
  }
  state.reset(sequence);
  for (StateSection id : detail::kStateNumbers) {
    detail::ArchiveReader section(what, content(id));
    detail::state_numbers(id, section, state, sequence, seen);
  }
  detail::StateAccess::begin_history(state, sequence, seen, initial_slots == 1);
}

NHA_ISA_NAMESPACE_END
