// SPDX-License-Identifier: MIT
// What an attention layer is: its shape and its options, and the checks of both.
#pragma once

#include <nha/config.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>

#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

NHA_NAMESPACE_BEGIN

/// Sizes of the state of an attention layer.
struct AttentionShape {
  /// Sequences, each with its own state and length.
  Index batch = 1;
  Index kv_heads = 1;
  Index key_dim = 64;
  Index value_dim = 64;
  /// M: slots per key/value head; 0 for a sliding window alone.
  Index slots = 64;

  NHA_INLINE friend bool operator==(const AttentionShape&, const AttentionShape&) = default;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// Options of the operator; every layer may have its own, the weights are the same.
struct AttentionOptions {
  /// W: how many of the newest tokens a query sees exactly, the current one included. With 0 the
  /// slots are alone (a linear RNN); any number of tokens or more is full attention.
  Index window = 64;
  /// After how many tokens a token enters the slots, 0 to window. Unset: window, so that slots and
  /// window never hold the same token. 0: at once.
  std::optional<Index> slot_delay = std::nullopt;
  /// Factor of all logits, above 0 and finite. Unset: key_dim^-1/2.
  std::optional<double> softmax_scale = std::nullopt;
  EmptySlots empty_slots = EmptySlots::participate;
  /// One window for each key/value head, in place of `window`; empty: all heads have `window`. An
  /// unset slot_delay is then each head's own window.
  std::vector<Index> head_windows = {};

  NHA_INLINE friend bool operator==(const AttentionOptions&, const AttentionOptions&) = default;
};

/// The options of one key/value head, defaults filled in.
struct HeadOptions {
  Index window;
  Index slot_delay;
};

/// Window and delay of key/value head `head`.
inline HeadOptions head_options(const AttentionOptions& options, Index head) {
  const Index window = options.head_windows.empty()
                           ? options.window
                           : options.head_windows[static_cast<std::size_t>(head)];
  return {window, options.slot_delay.value_or(window)};
}

/// The factor of the logits for keys of the given dimension.
inline double softmax_scale(const AttentionOptions& options, Index key_dim) {
  return options.softmax_scale ? *options.softmax_scale
                               : 1.0 / std::sqrt(static_cast<double>(key_dim));
}

/// Whether any head has a window.
inline bool has_window(const AttentionOptions& options) {
  if (options.head_windows.empty()) return options.window > 0;
  for (Index window : options.head_windows)
    if (window > 0) return true;
  return false;
}

/// @throws ArgumentError naming the first size that is out of range.
NHA_COLD inline void validate(const AttentionShape& shape) {
  check_size("batch", shape.batch, 0);
  check_size("kv_heads", shape.kv_heads, 1);
  check_size("key_dim", shape.key_dim, 1);
  check_size("value_dim", shape.value_dim, 1);
  check_size("slots", shape.slots, 0);
}

/// @throws ArgumentError naming the first option that is out of range for `kv_heads` heads.
NHA_COLD inline void validate(const AttentionOptions& options, Index kv_heads) {
  check_argument(options.head_windows.empty() ||
                     options.head_windows.size() == static_cast<std::size_t>(kv_heads),
                 "head_windows has ", options.head_windows.size(),
                 " entries; expected one for each of ", kv_heads, " key/value heads, or none");
  for (Index head = 0; head < kv_heads; ++head) {
    const HeadOptions resolved = head_options(options, head);
    const bool one_window = options.head_windows.empty();
    check_argument(resolved.window >= 0, one_window ? "window" : "head_windows", " is ",
                   resolved.window, "; expected 0 or more");
    const bool delay_fits = resolved.slot_delay >= 0 && resolved.slot_delay <= resolved.window;
    check_argument(delay_fits || !one_window, "slot_delay is ", resolved.slot_delay,
                   "; expected 0 to the window, ", resolved.window);
    check_argument(delay_fits, "slot_delay is ", resolved.slot_delay,
                   "; expected 0 to the window of head ", head, ", ", resolved.window);
    if (one_window) break;
  }
  check_argument(!options.softmax_scale ||
                     (std::isfinite(*options.softmax_scale) && *options.softmax_scale > 0),
                 "softmax_scale is ", options.softmax_scale.value_or(0.0),
                 "; expected a positive number");
  check_argument(
      options.empty_slots == EmptySlots::participate || options.empty_slots == EmptySlots::masked ||
          options.empty_slots == EmptySlots::mass_corrected,
      "empty_slots is ", static_cast<int>(options.empty_slots), "; expected a value of EmptySlots");
}

NHA_ISA_NAMESPACE_END
