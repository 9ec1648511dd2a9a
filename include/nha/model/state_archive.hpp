// SPDX-License-Identifier: MIT
// Saving one sequence of a LanguageModelState to bytes and loading it, into any place of any state
// of the same model.
//
// Format version 1, every number little-endian:
//   magic     8 bytes, "NHAMODEL"
//   version   u32
//   size      u64, all bytes from the magic to the checksum
//   layers    u32, then for each layer
//     attention     u64 length, then as many bytes in the format of memory/state_archive.hpp
//     convolutions  u32, 0 or 3 (over q, k and v), then for each: channels and kept (kernel size - 1)
//                   i64, and the newest min(kept, tokens seen) inputs [channels], oldest first
//   checksum  u64, FNV-1a over all bytes before it
// Equal sequences give equal bytes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/checksum.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/memory/state_archive.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/state.hpp>
#include <nha/nn/short_convolution.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t kModelStateMagic = 0x4c45444f4d41484eu;  // "NHAMODEL" in file order
inline constexpr std::uint32_t kModelStateVersion = 1;
inline constexpr std::size_t kModelStateHeader = 8 + 4 + 8 + 4;

/// The inputs a convolution keeps, for an archive that writes, counts or reads them.
template <class Archive, class Convolution>
void convolution_inputs(Archive& archive, Convolution& convolution, Index sequence) {
  for (auto t = convolution.oldest_input(sequence); t < convolution.tokens_seen(sequence); ++t)
    archive.numbers(convolution.input(sequence, t), convolution.channels());
}

/// @param attention the bytes of each layer's slots and windows
template <class T>
void write_model_state(StateWriter& writer, const LanguageModelState<T>& state, Index sequence,
                       const std::vector<std::vector<std::byte>>& attention) {
  writer.number(kModelStateMagic);
  writer.number(kModelStateVersion);
  const std::size_t size_at = writer.used();
  writer.number(std::uint64_t{});
  writer.number(static_cast<std::uint32_t>(state.layers()));
  for (Index n = 0; n < state.layers(); ++n) {
    const LayerState<T>& layer = state.layer(n);
    const std::vector<std::byte>& bytes = attention[static_cast<std::size_t>(n)];
    writer.number(std::uint64_t{bytes.size()});
    writer.bytes(bytes);
    writer.number(static_cast<std::uint32_t>(layer.convolutions().size()));
    for (const ConvolutionState<T>& convolution : layer.convolutions()) {
      writer.number(std::int64_t{convolution.channels()});
      writer.number(std::int64_t{convolution.kept()});
      convolution_inputs(writer, convolution, sequence);
    }
  }
  writer.put(size_at, std::uint64_t{writer.used() + kStateChecksum});
}

/// Reads one layer into a state of one sequence.
template <class T>
void read_layer_state(StateReader& reader, Index number, LayerState<T>& layer) {
  const std::string of_layer = message(" of layer ", number);
  const auto length = reader.number<std::uint64_t>();
  check_format(length <= reader.left(), "attention", of_layer, " of the saved state says it has ",
               length, " bytes; there are ", reader.left());
  load_state(reader.take(static_cast<std::size_t>(length)), StateParts::attention(layer), 0);
  const std::int64_t seen = layer.tokens_seen(0);
  check_state_field("number of convolutions" + of_layer,
                    std::uint64_t{reader.number<std::uint32_t>()},
                    std::uint64_t{layer.convolutions().size()});
  for (ConvolutionState<T>& convolution : StateParts::convolutions(layer)) {
    check_state_field("channels of a convolution" + of_layer, reader.number<std::int64_t>(),
                      std::int64_t{convolution.channels()});
    check_state_field("inputs kept by a convolution" + of_layer, reader.number<std::int64_t>(),
                      std::int64_t{convolution.kept()});
    convolution.begin_history(0, seen);
    convolution_inputs(reader, convolution, 0);
  }
}

}  // namespace detail

/// One sequence of a model's state as bytes, in the format at the head of this file. A text that
/// has been read once need never be read again. The same on every machine; a later version of the
/// library reads it.
/// @throws ArgumentError if there is no such sequence.
template <std::floating_point T>
std::vector<std::byte> save_state(const LanguageModelState<T>& state, Index sequence) {
  std::vector<std::vector<std::byte>> attention;
  for (Index n = 0; n < state.layers(); ++n)
    attention.push_back(save_state(state.layer(n).attention(), sequence));
  detail::StateWriter counter(nullptr);
  detail::write_model_state(counter, state, sequence, attention);
  std::vector<std::byte> bytes(counter.used() + detail::kStateChecksum);
  detail::StateWriter writer(bytes.data());
  detail::write_model_state(writer, state, sequence, attention);
  writer.number(fnv1a(std::span(bytes).first(writer.used())));
  return bytes;
}

/// Puts a saved sequence in place `sequence` of a state, whatever was there; other sequences stay.
/// It continues to the bit as the saved one would have. The states may differ in batch and
/// max_rollback. rollback() can take back tokens given after loading, not those before.
///
/// Weights are not looked at: bytes saved with one model load with any other of the same sizes.
/// @throws ArgumentError if there is no such sequence.
/// @throws FormatError if the bytes are damaged, truncated or of another format, or come from a
///   state that differs in the number of layers, or in a layer's dtype, sizes, windows, delays,
///   scale, empty_slots or convolutions. The state is then as it was.
template <std::floating_point T>
void load_state(std::span<const std::byte> bytes, LanguageModelState<T>& state, Index sequence) {
  state.layer(0).attention().check_sequence(sequence);
  check_format(bytes.size() >= detail::kModelStateHeader + detail::kStateChecksum,
               "saved state of a model is truncated: it has ", bytes.size(),
               " bytes, fewer than any");
  const auto covered = bytes.first(bytes.size() - detail::kStateChecksum);
  detail::StateReader reader(covered);
  check_format(reader.number<std::uint64_t>() == detail::kModelStateMagic,
               "not a saved state of a model: it does not begin with NHAMODEL");
  const auto version = reader.number<std::uint32_t>();
  check_format(version == detail::kModelStateVersion, "saved state of a model has format version ",
               version, "; this library reads version ", detail::kModelStateVersion);
  const auto size = reader.number<std::uint64_t>();
  check_format(size == bytes.size(), "saved state of a model says it has ", size,
               " bytes; there are ", bytes.size());
  const auto checksum =
      detail::StateReader(bytes.last(detail::kStateChecksum)).number<std::uint64_t>();
  check_format(checksum == fnv1a(covered),
               "saved state of a model is damaged: its checksum does not match");
  detail::check_state_field("number of layers", std::int64_t{reader.number<std::uint32_t>()},
                            std::int64_t{state.layers()});

  // Every layer is read before the first is put in its place, so that an error changes nothing.
  std::vector<LayerState<T>> layers;
  for (Index n = 0; n < state.layers(); ++n) {
    layers.push_back(state.layer(n).empty_sequence());
    detail::read_layer_state(reader, n, layers.back());
    detail::check_state_field(detail::message("tokens_seen of layer ", n),
                              layers.back().tokens_seen(0), layers.front().tokens_seen(0));
  }
  check_format(reader.left() == 0, "saved state of a model is ", reader.left(), " bytes too long");
  for (Index n = 0; n < state.layers(); ++n)
    layers[static_cast<std::size_t>(n)].fork(0, detail::StateParts::layer(state, n), sequence);
}

NHA_ISA_NAMESPACE_END
