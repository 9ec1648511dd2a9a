// SPDX-License-Identifier: MIT
// Saving one sequence of a LanguageModelState to bytes and loading it, into any place of any state
// of the same model.
//
// The frame of memory/archive.hpp with magic "NHAMODEL", version 1 and this content:
//   layers    u32, then for each layer
//     attention     u64 length, then as many bytes in the format of memory/state_archive.hpp
//     convolutions  u32, 0 or 3 (over q, k and v), then for each: channels and kept (kernel size - 1)
//                   i64, and the newest min(kept, tokens seen) inputs [channels], oldest first
// Equal sequences give equal bytes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/memory/archive.hpp>
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

inline constexpr ArchiveFormat kModelStateFormat{
    .what = "saved state of a model", .magic = "NHAMODEL", .version = 1};

/// The inputs a convolution keeps, for an archive that writes, counts or reads them.
template <class Archive, class Convolution>
void convolution_inputs(Archive& archive, Convolution& convolution, Index sequence) {
  for (auto t = convolution.oldest_input(sequence); t < convolution.tokens_seen(sequence); ++t)
    archive.numbers(convolution.input(sequence, t), convolution.channels());
}

/// @param attention the bytes of each layer's slots and windows
template <class T>
void write_model_state(ArchiveWriter& writer, const LanguageModelState<T>& state, Index sequence,
                       const std::vector<std::vector<std::byte>>& attention) {
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
}

/// Reads one layer into a state of one sequence.
template <class T>
void read_layer_state(ArchiveReader& reader, Index number, LayerState<T>& layer) {
  const std::string of_layer = message(" of layer ", number);
  const auto length = reader.number<std::uint64_t>();
  check_format(length <= reader.left(), "attention", of_layer, " of the saved state says it has ",
               length, " bytes; there are ", reader.left());
  load_state(reader.take(length), StateParts::attention(layer), 0);
  const std::int64_t seen = layer.tokens_seen(0);
  check_archive_field("number of convolutions" + of_layer,
                      std::uint64_t{reader.number<std::uint32_t>()},
                      std::uint64_t{layer.convolutions().size()});
  for (ConvolutionState<T>& convolution : StateParts::convolutions(layer)) {
    check_archive_field("channels of a convolution" + of_layer, reader.number<std::int64_t>(),
                        std::int64_t{convolution.channels()});
    check_archive_field("inputs kept by a convolution" + of_layer, reader.number<std::int64_t>(),
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
  return detail::write_archive(detail::kModelStateFormat, [&](detail::ArchiveWriter& writer) {
    detail::write_model_state(writer, state, sequence, attention);
  });
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
  detail::ArchiveReader reader = detail::open_archive(detail::kModelStateFormat, bytes);
  detail::check_archive_field("number of layers", std::int64_t{reader.number<std::uint32_t>()},
                              std::int64_t{state.layers()});

  // Every layer is read before the first is put in its place, so that an error changes nothing.
  std::vector<LayerState<T>> layers;
  for (Index n = 0; n < state.layers(); ++n) {
    layers.push_back(state.layer(n).empty_sequence());
    detail::read_layer_state(reader, n, layers.back());
    detail::check_archive_field(detail::message("tokens_seen of layer ", n),
                                layers.back().tokens_seen(0), layers.front().tokens_seen(0));
  }
  reader.finish();
  for (Index n = 0; n < state.layers(); ++n)
    layers[static_cast<std::size_t>(n)].fork(0, detail::StateParts::layer(state, n), sequence);
}

NHA_ISA_NAMESPACE_END
