// SPDX-License-Identifier: MIT
// AttentionCase: inputs, options and expected results of the operator, from one safetensors file.
//
// The exchange format of nha_parity and of the tests. Another implementation writes such files and
// this library runs on them, or the other way round.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/names.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor.hpp>
#include <nha/io/attention_case_gradients.hpp>
#include <nha/io/safetensors.hpp>
#include <nha/io/safetensors_writer.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// All results of the operator over a case. In a case's expected results those that the file does
/// not give are empty.
template <Scalar T>
struct AttentionResults {
  using Acc = accumulate_t<T>;

  Tensor<T, 4> o;             // [B, T, Hq, Dv]
  Tensor<Acc, 3> lse;         // [B, T, Hq]
  Tensor<Acc, 3> slot_share;  // [B, T, Hq]
  Tensor<Acc, 4> slot_k;      // [N, Hkv, M, Dk], after the last token
  Tensor<Acc, 4> slot_v;      // [N, Hkv, M, Dv]
  Tensor<Acc, 3> mass;        // [N, Hkv, M]
};

/// One case: B sequences of T tokens, or N sequences packed along T with cu_seqlens.
///
/// The file holds q_window, k_window, q_slot, k_slot, v, log_gate and optionally write and
/// cu_seqlens, as AttentionInputs describes them. It may hold initial.slot_k with initial.slot_v
/// and optionally initial.mass, as AttentionState::set_initial_slots describes them. Results where
/// known: expected.o, .lse, .slot_share, .slot_k, .slot_v and .mass.
///
/// For the backward it holds cotangents, d_o and as many more as the loss has terms, and
/// expected.grad.<input>. The loss is the sum of each cotangent times its result. A case with
/// window 0 may leave out q_window and k_window; one without q_slot, k_slot and log_gate has no
/// slots. Metadata: window (needed), slot_delay, scale, empty_slots and case, the name; left out
/// they are what AttentionOptions says. Other tensors and metadata are not looked at.
template <Scalar T>
struct AttentionCase {
  using Acc = accumulate_t<T>;

  std::string name;
  AttentionShape shape;  // batch counts sequences, packed ones too
  /// As the file gives them, but window and slot delay at most the number of tokens. What lies
  /// beyond changes no result, and the state stays as small as the case.
  AttentionOptions options;
  Index batch = 0;  // B: extent of the batch axis of the inputs
  Index tokens = 0;
  Index query_heads = 0;

  Tensor<T, 4> q_window, k_window, q_slot, k_slot, v;
  Tensor<Acc, 4> log_gate;
  std::optional<Tensor<Acc, 4>> write;
  std::vector<std::int64_t> cu_seqlens;

  bool has_initial_slots = false;
  Tensor<Acc, 4> initial_slot_k, initial_slot_v;
  std::optional<Tensor<Acc, 3>> initial_mass;

  AttentionCaseCotangents<T> cotangents;
  AttentionResults<double> expected;
  AttentionCaseGradients<double> expected_gradients;
  Metadata metadata;

  /// Views of the inputs; they live as long as the case.
  AttentionInputs<T> inputs() const {
    AttentionInputs<T> in{.q_window = q_window,
                          .k_window = k_window,
                          .q_slot = q_slot,
                          .k_slot = k_slot,
                          .v = v,
                          .log_gate = log_gate,
                          .cu_seqlens = cu_seqlens};
    if (write) in.write = *write;
    return in;
  }

  /// Results of the right shapes, zero.
  AttentionResults<T> make_results() const {
    return {.o = Tensor<T, 4>({batch, tokens, query_heads, shape.value_dim}),
            .lse = Tensor<Acc, 3>({batch, tokens, query_heads}),
            .slot_share = Tensor<Acc, 3>({batch, tokens, query_heads}),
            .slot_k = Tensor<Acc, 4>({shape.batch, shape.kv_heads, shape.slots, shape.key_dim}),
            .slot_v = Tensor<Acc, 4>({shape.batch, shape.kv_heads, shape.slots, shape.value_dim}),
            .mass = Tensor<Acc, 3>({shape.batch, shape.kv_heads, shape.slots})};
  }

  /// Whether there is anything to go back from.
  bool has_cotangents() const { return cotangents.o.extent(3) > 0; }
  /// Gradients of the right shapes, zero, for every input that the case has.
  AttentionCaseGradients<Acc> make_gradients() const {
    AttentionCaseGradients<Acc> gradients;
    gradients.q_window = Tensor<Acc, 4>(q_window.extents());
    gradients.k_window = Tensor<Acc, 4>(k_window.extents());
    gradients.q_slot = Tensor<Acc, 4>(q_slot.extents());
    gradients.k_slot = Tensor<Acc, 4>(k_slot.extents());
    gradients.v = Tensor<Acc, 4>(v.extents());
    gradients.log_gate = Tensor<Acc, 4>(log_gate.extents());
    if (write) gradients.write = Tensor<Acc, 4>(write->extents());
    if (has_initial_slots) {
      gradients.slot_k = Tensor<Acc, 4>(initial_slot_k.extents());
      gradients.slot_v = Tensor<Acc, 4>(initial_slot_v.extents());
    }
    if (initial_mass) gradients.mass = Tensor<Acc, 3>(initial_mass->extents());
    return gradients;
  }
};

namespace detail {

/// Reads a case step by step; every step checks before it takes memory.
template <Scalar T>
class AttentionCaseReader {
 public:
  using Acc = accumulate_t<T>;

  explicit AttentionCaseReader(const Safetensors& file) : file_(file) {}

  AttentionCase<T> read() {
    read_shape();
    read_options();
    read_sequences();
    check_state_size();
    read_inputs();
    read_initial_slots();
    read_results("expected.", case_.expected);
    read_results("d_", case_.cotangents);
    read_backward();
    return std::move(case_);
  }

 private:
  template <std::size_t Rank>
  using Sizes = std::array<Index, Rank>;

  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    check_format(ok, file_.source(), ": ", parts...);
  }

  /// The four extents of a tensor that must be there.
  Sizes<4> extents(std::string_view name) const {
    const StoredTensor& tensor = file_.at(name);
    check(tensor.shape.size() == 4, "tensor '", name, "' has shape ", shape_text(tensor.shape),
          "; expected 4 axes");
    return {tensor.shape[0], tensor.shape[1], tensor.shape[2], tensor.shape[3]};
  }

  void read_shape() {
    const Sizes<4> v = extents("v");
    case_.batch = case_.shape.batch = v[0];
    case_.tokens = v[1];
    case_.shape.kv_heads = v[2];
    case_.shape.value_dim = v[3];
    has_window_ = file_.find("q_window") != nullptr || file_.find("k_window") != nullptr;
    has_slots_ = file_.find("q_slot") != nullptr || file_.find("k_slot") != nullptr ||
                 file_.find("log_gate") != nullptr;
    check(has_window_ || has_slots_, "neither q_window nor q_slot is there");
    const Sizes<4> q = extents(has_slots_ ? "q_slot" : "q_window");
    case_.query_heads = q[2];
    case_.shape.key_dim = q[3];
    case_.shape.slots = has_slots_ ? extents("log_gate")[3] : 0;
    const auto check_size = [&](const char* what, Index size, Index least) {
      check(size >= least && size <= kLargestSize, what, " is ", size, "; expected ", least, " to ",
            kLargestSize);
    };
    check_size("the number of sequences", case_.batch, 0);
    check_size("the number of key/value heads", case_.shape.kv_heads, 1);
    check_size("the number of query heads", case_.query_heads, 1);
    check_size("the key dimension", case_.shape.key_dim, 1);
    check_size("the value dimension", case_.shape.value_dim, 1);
    check_size("the number of slots", case_.shape.slots, 0);
    check(case_.query_heads % case_.shape.kv_heads == 0, case_.query_heads,
          " query heads; expected a multiple of the ", case_.shape.kv_heads, " key/value heads");
  }

  /// A metadata string that is a number and nothing else.
  template <class Number>
  std::optional<Number> number(std::string_view key) const {
    const std::string* text = file_.find_metadata(key);
    if (text == nullptr) return std::nullopt;
    Number value{};
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    check(error == std::errc() && end == text->data() + text->size(), "metadata ", key, " is '",
          printable(*text), "'; expected a number");
    return value;
  }

  void read_options() {
    case_.metadata = file_.metadata();
    if (const std::string* name = file_.find_metadata("case")) case_.name = printable(*name);
    AttentionOptions& options = case_.options;
    const auto window = number<std::int64_t>("window");
    check(window.has_value(), "metadata window is missing");
    check(*window >= 0, "metadata window is ", *window, "; expected 0 or more");
    check(*window == 0 || has_window_, "q_window and k_window are missing; window is ", *window);
    const std::int64_t delay = number<std::int64_t>("slot_delay").value_or(*window);
    check(delay >= 0 && delay <= *window, "metadata slot_delay is ", delay,
          "; expected 0 to the window, ", *window);
    options.window = static_cast<Index>(std::min<std::int64_t>(*window, case_.tokens));
    options.slot_delay = static_cast<Index>(std::min<std::int64_t>(delay, case_.tokens));
    options.softmax_scale = number<double>("scale");
    check(!options.softmax_scale ||
              (std::isfinite(*options.softmax_scale) && *options.softmax_scale > 0),
          "metadata scale is ", options.softmax_scale.value_or(0.0),
          "; expected a positive number");
    if (const std::string* rule = file_.find_metadata("empty_slots")) {
      const std::optional<EmptySlots> value = find_value(kEmptySlotsNames, *rule);
      check(value.has_value(), "metadata empty_slots is '", printable(*rule), "'; expected ",
            name_list(kEmptySlotsNames));
      options.empty_slots = *value;
    }
  }

  void read_sequences() {
    const StoredTensor* stored = file_.find("cu_seqlens");
    if (stored == nullptr) return;
    check(stored->shape.size() == 1 && stored->shape[0] >= 1, "cu_seqlens has shape ",
          shape_text(stored->shape), "; expected [N + 1]");
    check(case_.batch == 1, "with cu_seqlens the batch axis has extent ", case_.batch,
          "; expected 1");
    case_.cu_seqlens = stored->template to_vector<std::int64_t>();
    const auto& cu = case_.cu_seqlens;
    check(cu.front() == 0 && cu.back() == case_.tokens, "cu_seqlens goes from ", cu.front(), " to ",
          cu.back(), "; expected 0 to ", case_.tokens);
    check(std::is_sorted(cu.begin(), cu.end()), "cu_seqlens does not ascend");
    case_.shape.batch = static_cast<Index>(cu.size()) - 1;
  }

  /// A few tokens of few numbers can ask for a state of any size; no case worth checking needs one
  /// of 2 GiB.
  void check_state_size() const {
    const AttentionShape& s = case_.shape;
    const auto real = [](Index size) { return static_cast<double>(size); };
    const double dims = real(s.key_dim) + real(s.value_dim);
    const double per_head =
        real(s.slots) * (dims + 1) +
        real(case_.options.window) * (dims + real(s.key_dim) + 2 * real(s.slots));
    const double numbers = real(s.batch) * real(s.kv_heads) * per_head;
    check(numbers <= kMostCaseNumbers, "its state would hold ", numbers,
          " numbers; expected at most ", kMostCaseNumbers);
    // Extents of tensors without elements take no bytes in the file.
    const double rows = real(case_.batch) * real(case_.tokens) * real(case_.query_heads);
    check(rows * dims <= kMostCaseNumbers, "its queries and outputs would hold ", rows * dims,
          " numbers; expected at most ", kMostCaseNumbers);
  }

  template <class U>
  Tensor<U, 4> read_tokens(std::string_view name, Index heads, Index last) const {
    return read_sized<U, 4>(name, {case_.batch, case_.tokens, heads, last});
  }
  template <class U, int Rank>
  Tensor<U, Rank> read_sized(std::string_view name,
                             const Sizes<static_cast<std::size_t>(Rank)>& sizes) const {
    const StoredTensor& tensor = file_.at(name);
    check(std::equal(sizes.begin(), sizes.end(), tensor.shape.begin(), tensor.shape.end()),
          "tensor '", name, "' has shape ", shape_text(tensor.shape), "; expected ",
          shape_text(sizes));
    return tensor.template to_tensor<U, Rank>();
  }

  void read_inputs() {
    const AttentionShape& s = case_.shape;
    if (has_window_) {
      case_.q_window = read_tokens<T>("q_window", case_.query_heads, s.key_dim);
      case_.k_window = read_tokens<T>("k_window", s.kv_heads, s.key_dim);
    }
    if (has_slots_) {
      case_.q_slot = read_tokens<T>("q_slot", case_.query_heads, s.key_dim);
      case_.k_slot = read_tokens<T>("k_slot", s.kv_heads, s.key_dim);
      case_.log_gate = read_tokens<Acc>("log_gate", s.kv_heads, s.slots);
      if (file_.find("write") != nullptr)
        case_.write = read_tokens<Acc>("write", s.kv_heads, s.slots);
    }
    case_.v = read_tokens<T>("v", s.kv_heads, s.value_dim);
  }

  void read_initial_slots() {
    const bool key = file_.find("initial.slot_k") != nullptr;
    const bool value = file_.find("initial.slot_v") != nullptr;
    const bool mass = file_.find("initial.mass") != nullptr;
    check(key == value && (key || !mass),
          "initial.slot_k and initial.slot_v must both be there, or no initial tensor at all");
    if (!key) return;
    const AttentionShape& s = case_.shape;
    case_.has_initial_slots = true;
    case_.initial_slot_k =
        read_sized<Acc, 4>("initial.slot_k", {s.batch, s.kv_heads, s.slots, s.key_dim});
    case_.initial_slot_v =
        read_sized<Acc, 4>("initial.slot_v", {s.batch, s.kv_heads, s.slots, s.value_dim});
    if (mass)
      case_.initial_mass = read_sized<Acc, 3>("initial.mass", {s.batch, s.kv_heads, s.slots});
  }

  /// Reads a tensor where it is there.
  template <class U, int Rank>
  void read_optional(Tensor<U, Rank>& to, std::string_view name,
                     const Sizes<static_cast<std::size_t>(Rank)>& sizes) const {
    if (file_.find(name) != nullptr) to = read_sized<U, Rank>(name, sizes);
  }

  /// Results, or what has their shapes, by the names they have after `prefix`.
  template <class Results>
  void read_results(const std::string& prefix, Results& to) const {
    const AttentionShape& s = case_.shape;
    const Index b = case_.batch, t = case_.tokens, hq = case_.query_heads;
    read_optional(to.o, prefix + "o", {b, t, hq, s.value_dim});
    read_optional(to.lse, prefix + "lse", {b, t, hq});
    read_optional(to.slot_share, prefix + "slot_share", {b, t, hq});
    read_optional(to.slot_k, prefix + "slot_k", {s.batch, s.kv_heads, s.slots, s.key_dim});
    read_optional(to.slot_v, prefix + "slot_v", {s.batch, s.kv_heads, s.slots, s.value_dim});
    read_optional(to.mass, prefix + "mass", {s.batch, s.kv_heads, s.slots});
  }

  void read_backward() {
    const AttentionCaseCotangents<T>& c = case_.cotangents;
    const Index others =
        c.lse.size() + c.slot_share.size() + c.slot_k.size() + c.slot_v.size() + c.mass.size();
    check(others == 0 || file_.find("d_o") != nullptr,
          "it has cotangents but no d_o; expected one, zeros where o does not matter");
    for_each_gradient(
        [&]<int Rank>(const std::string& input, Tensor<double, Rank>& to) {
          const std::string name = "expected.grad." + input;
          if (file_.find(name) == nullptr) return;
          const std::vector<Index>& shape = file_.at(input).shape;
          Sizes<static_cast<std::size_t>(Rank)> sizes{};
          check(shape.size() == sizes.size(), "tensor '", input, "' has shape ", shape_text(shape),
                "; expected ", Rank, " axes");
          std::copy(shape.begin(), shape.end(), sizes.begin());
          to = read_sized<double, Rank>(name, sizes);
        },
        case_.expected_gradients);
  }

  const Safetensors& file_;
  AttentionCase<T> case_;
  bool has_window_ = false;
  bool has_slots_ = false;
};

}  // namespace detail

/// Reads a case; floating-point tensors are converted to T (gates, write strengths and initial
/// slots to accumulate_t<T>), expected results to double.
/// @throws FormatError naming the file and what is wrong if it is not a case. The values of gates,
///   write strengths and masses are left to validate() and set_initial_slots().
template <Scalar T>
AttentionCase<T> read_attention_case(const Safetensors& file) {
  return detail::AttentionCaseReader<T>(file).read();
}

/// Writes results by the names o, lse, slot_share, slot_k, slot_v and mass, gradients that are
/// there by grad.<input>, with the case's metadata.
/// @throws FormatError naming the path if it cannot be written.
template <Scalar T>
void save_attention_results(const std::string& path, const AttentionResults<T>& results,
                            const Metadata& metadata = {},
                            const AttentionCaseGradients<accumulate_t<T>>& gradients = {}) {
  std::vector<TensorToSave> tensors{{"o", results.o.view()},
                                    {"lse", results.lse.view()},
                                    {"slot_share", results.slot_share.view()},
                                    {"slot_k", results.slot_k.view()},
                                    {"slot_v", results.slot_v.view()},
                                    {"mass", results.mass.view()}};
  for_each_gradient(
      [&](const char* input, const auto& tensor) {
        if (tensor.size() > 0) tensors.emplace_back(std::string("grad.") + input, tensor.view());
      },
      gradients);
  save_safetensors(path, tensors, metadata);
}

NHA_ISA_NAMESPACE_END
