// SPDX-License-Identifier: MIT
// Saving one sequence of an AttentionState to bytes and loading it, into any place of any state of
// the same layer.
//
// Format version 1, every number little-endian:
//   magic     8 bytes, "NHASTATE"
//   version   u32
//   size      u64, all bytes from the magic to the checksum
//   sections  each u32 id, u64 length of what follows, content; in any order, unknown ids skipped
//   checksum  u64, FNV-1a over all bytes before it: no change of a single byte goes unnoticed
// The sections, each there once:
//   1 layer     dtype u32 (F32 0, F64 1, BF16 2, F16 3), empty_slots u32 (participate 0, masked 1,
//               mass_corrected 2), kv_heads, key_dim, value_dim, slots i64, scale f64, and per
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
#include <nha/core/checksum.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/little_endian.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t kStateMagic = 0x455441545341484eu;  // "NHASTATE" in file order
inline constexpr std::uint32_t kStateVersion = 1;
inline constexpr std::size_t kStateHeader = 8 + 4 + 8;
inline constexpr std::size_t kStateChecksum = 8;

enum class StateSection : std::uint32_t { layer = 1, sequence, slots, window, pending };
inline constexpr std::size_t kStateSections = 5;
inline constexpr StateSection kStateNumbers[] = {StateSection::slots, StateSection::window,
                                                 StateSection::pending};
inline const char* state_section_name(StateSection id) noexcept {
  constexpr const char* names[kStateSections] = {"layer", "sequence", "slots", "window", "pending"};
  return names[static_cast<std::size_t>(id) - 1];
}

/// Writes numbers one after the other. Without a destination it only adds up, so the size of what
/// is written and the writing are the same code.
class StateWriter {
 public:
  explicit StateWriter(std::byte* out) noexcept : out_(out) {}

  template <class T>
  void number(const T& value) noexcept {
    put(used_, value);
    used_ += sizeof(T);
  }
  template <class T>
  void numbers(const T* values, Index count) noexcept {
    if (out_ == nullptr)
      used_ += static_cast<std::size_t>(count) * sizeof(T);
    else
      for (Index i = 0; i < count; ++i) number(values[i]);
  }
  void bytes(std::span<const std::byte> values) noexcept {
    if (out_ != nullptr) std::copy(values.begin(), values.end(), out_ + used_);
    used_ += values.size();
  }
  /// A section with the content that `write_content` writes.
  template <class F>
  void section(StateSection id, F&& write_content) {
    number(static_cast<std::uint32_t>(id));
    const std::size_t length_at = used_;
    number(std::uint64_t{});
    const std::size_t start = used_;
    write_content();
    put(length_at, std::uint64_t{used_ - start});
  }
  /// Puts a number at a place already passed.
  template <class T>
  void put(std::size_t at, const T& value) noexcept {
    if (out_ != nullptr) store_little(value, out_ + at);
  }
  std::size_t used() const noexcept { return used_; }

 private:
  std::byte* out_;
  std::size_t used_ = 0;
};

/// Reads what StateWriter wrote, never past the end of the bytes.
class StateReader {
 public:
  explicit StateReader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

  std::size_t left() const noexcept { return bytes_.size(); }
  /// The next `count` bytes, as they are.
  std::span<const std::byte> take(std::size_t count) {
    check_format(count <= left(), "saved state ends ", count - left(), " bytes too early");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  template <class T>
  void number(T& value) {
    value = load_little<T>(take(sizeof(T)).data());
  }
  template <class T>
  T number() {
    T value{};
    number(value);
    return value;
  }
  template <class T>
  void numbers(T* values, Index count) {
    for (Index i = 0; i < count; ++i) number(values[i]);
  }

 private:
  std::span<const std::byte> bytes_;
};

/// The numbers of section 3, 4 or 5 of a sequence that has seen `seen` tokens, for an archive that
/// writes, counts or reads them.
template <class Archive, class State>
void state_numbers(StateSection id, Archive& archive, const State& state, Index sequence,
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

inline constexpr const char* kStateDtypes[] = {dtype_name<float>(), dtype_name<double>(),
                                               dtype_name<bfloat16>(), dtype_name<float16>()};
inline constexpr const char* kStateEmptySlots[] = {"participate", "masked", "mass_corrected"};

template <Scalar T>
std::uint32_t state_dtype() noexcept {
  const auto* found = std::find(std::begin(kStateDtypes), std::end(kStateDtypes),
                                std::string_view(dtype_name<T>()));
  return static_cast<std::uint32_t>(found - std::begin(kStateDtypes));
}

template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void write_state(StateWriter& writer,
                 const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
                 Index sequence) {
  const AttentionShape& shape = state.shape();
  const std::int64_t seen = state.tokens_seen(sequence);
  writer.number(kStateMagic);
  writer.number(kStateVersion);
  const std::size_t size_at = writer.used();
  writer.number(std::uint64_t{});
  writer.section(StateSection::layer, [&] {
    writer.number(state_dtype<T>());
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
      writer.number(state_dtype<SlotScalar>());
  });
  writer.section(StateSection::sequence, [&] {
    writer.number(seen);
    writer.number(std::uint32_t{state.has_initial_slots(sequence)});
  });
  for (StateSection id : kStateNumbers)
    writer.section(id, [&] { state_numbers(id, writer, state, sequence, seen); });
  writer.put(size_at, std::uint64_t{writer.used() + kStateChecksum});
}

using StateSections = std::array<std::span<const std::byte>, kStateSections>;

/// The content of the sections, found without trusting any length.
inline StateSections find_state_sections(std::span<const std::byte> bytes) {
  check_format(bytes.size() >= kStateHeader + kStateChecksum, "saved state is truncated: it has ",
               bytes.size(), " bytes, fewer than any");
  StateReader header(bytes);
  check_format(header.number<std::uint64_t>() == kStateMagic,
               "not a saved state: it does not begin with NHASTATE");
  const auto version = header.number<std::uint32_t>();
  check_format(version == kStateVersion, "saved state has format version ", version,
               "; this library reads version ", kStateVersion);
  const auto size = header.number<std::uint64_t>();
  check_format(size == bytes.size(), "saved state says it has ", size, " bytes; there are ",
               bytes.size());
  const auto covered = bytes.first(bytes.size() - kStateChecksum);
  check_format(StateReader(bytes.last(kStateChecksum)).number<std::uint64_t>() == fnv1a(covered),
               "saved state is damaged: its checksum does not match");

  StateSections sections;
  std::array<bool, kStateSections> found{};
  StateReader reader(covered.subspan(kStateHeader));
  while (reader.left() > 0) {
    const auto id = reader.number<std::uint32_t>();
    const auto length = reader.number<std::uint64_t>();
    check_format(length <= reader.left(), "section ", id, " of the saved state says it has ",
                 length, " bytes; there are ", reader.left());
    const auto content = reader.take(static_cast<std::size_t>(length));
    if (id == 0 || id > kStateSections) continue;  // of a later writer
    check_format(!found[id - 1], "saved state has two ", state_section_name(StateSection{id}),
                 " sections");
    found[id - 1] = true;
    sections[id - 1] = content;
  }
  for (std::uint32_t id = 1; id <= kStateSections; ++id)
    check_format(found[id - 1], "saved state has no ", state_section_name(StateSection{id}),
                 " section");
  return sections;
}

/// Raises FormatError unless a field of the layer is the same in the saved state and the one that
/// is to take it.
template <class Value>
void check_state_field(const std::string& name, const Value& saved, const Value& state) {
  check_format(saved == state, name, " is ", saved, " in the saved state and ", state,
               " in the state to load into");
}
/// All digits, so that numbers that differ look different.
inline std::string all_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}
template <std::size_t Count>
std::string state_code_name(std::uint32_t code, const char* const (&names)[Count]) {
  return code < Count ? std::string(names[code]) : message("unknown (", code, ")");
}

/// The layer section against the state that is to take the sequence.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void check_state_layer(std::span<const std::byte> section,
                       const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state) {
  const AttentionShape& shape = state.shape();
  const AttentionOptions& options = state.options();
  StateReader reader(section);
  check_state_field("dtype", state_code_name(reader.number<std::uint32_t>(), kStateDtypes),
                    std::string(dtype_name<T>()));
  const auto empty_slots = reader.number<std::uint32_t>();
  const auto check_size = [&](const char* name, Index size) {
    check_state_field(name, reader.number<std::int64_t>(), std::int64_t{size});
  };
  check_size("kv_heads", shape.kv_heads);
  check_size("key_dim", shape.key_dim);
  check_size("value_dim", shape.value_dim);
  check_size("slots", shape.slots);
  check_state_field(
      "empty_slots", state_code_name(empty_slots, kStateEmptySlots),
      state_code_name(static_cast<std::uint32_t>(options.empty_slots), kStateEmptySlots));
  check_state_field("scale", all_digits(reader.number<double>()),
                    all_digits(softmax_scale(options, shape.key_dim)));
  for (Index h = 0; h < shape.kv_heads; ++h) {
    const HeadOptions head = head_options(options, h);
    const std::string of_head = message(" of head ", h);
    check_state_field("window" + of_head, reader.number<std::int64_t>(), std::int64_t{head.window});
    check_state_field("slot_delay" + of_head, reader.number<std::int64_t>(),
                      std::int64_t{head.slot_delay});
  }
  const auto slot_dtype = reader.left() >= sizeof(std::uint32_t) ? reader.number<std::uint32_t>()
                                                                 : state_dtype<accumulate_t<T>>();
  check_state_field("slot dtype", state_code_name(slot_dtype, kStateDtypes),
                    std::string(dtype_name<SlotScalar>()));
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
  detail::StateWriter writer(nullptr);
  detail::write_state(writer, state, sequence);
  return writer.used() + detail::kStateChecksum;
}

/// One sequence of a state as bytes, in the format at the head of this file. The same on every
/// machine; a later version of the library reads it.
/// @throws ArgumentError if there is no such sequence.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::vector<std::byte> save_state(
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index sequence) {
  std::vector<std::byte> bytes(state_bytes_size(state, sequence));
  detail::StateWriter writer(bytes.data());
  detail::write_state(writer, state, sequence);
  writer.number(fnv1a(std::span(bytes).first(writer.used())));
  return bytes;
}

/// Puts a saved sequence in place `sequence` of a state, whatever was there; other sequences stay.
/// It continues to the bit as the saved one would have. The states may differ in batch and
/// max_rollback. rollback() can take back tokens given after loading, not those before.
///
/// The numbers themselves are taken as they are, infinities and NaN included: a state holds what
/// its inputs made of it.
/// @throws ArgumentError if there is no such sequence.
/// @throws FormatError if the bytes are damaged, truncated or of another format, or come from a
///   layer that differs in dtypes, sizes, windows, delays, scale or empty_slots. The state is then
///   as it was.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void load_state(std::span<const std::byte> bytes,
                AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index sequence) {
  using detail::StateSection;
  state.check_sequence(sequence);
  const detail::StateSections sections = detail::find_state_sections(bytes);
  const auto content = [&](StateSection id) { return sections[static_cast<std::size_t>(id) - 1]; };
  detail::check_state_layer(content(StateSection::layer), state);

  // Positions beyond this are damage; adding to them must not overflow.
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 62;
  detail::StateReader reader(content(StateSection::sequence));
  const auto seen = reader.number<std::int64_t>();
  const auto initial_slots = reader.number<std::uint32_t>();
  check_format(seen >= 0 && seen <= kMostTokens, "tokens_seen of the saved state is ", seen,
               "; expected 0 to ", kMostTokens);
  check_format(initial_slots <= 1, "has_initial_slots of the saved state is ", initial_slots,
               "; expected 0 or 1");
  check_format(reader.left() == 0, "sequence section of the saved state is ", reader.left(),
               " bytes too long");

  for (StateSection id : detail::kStateNumbers) {
    detail::StateWriter counter(nullptr);
    detail::state_numbers(id, counter, state, sequence, seen);
    check_format(content(id).size() == counter.used(), detail::state_section_name(id),
                 " section of the saved state has ", content(id).size(), " bytes; expected ",
                 counter.used());
  }
  state.reset(sequence);
  for (StateSection id : detail::kStateNumbers) {
    detail::StateReader section(content(id));
    detail::state_numbers(id, section, state, sequence, seen);
  }
  detail::StateAccess::begin_history(state, sequence, seen, initial_slots == 1);
}

NHA_ISA_NAMESPACE_END
