// SPDX-License-Identifier: MIT
// The operator and its gradients on PyTorch's tensors, for nha_attention.py beside it.
//
// Nothing here computes: tensors become views, results go into tensors that PyTorch allocates, and
// PyTorch's threads run the tasks. Another framework needs the same three things.
#include <nha/attention/backward.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/core/error.hpp>
#include <nha/core/names.hpp>
#include <nha/core/tensor.hpp>

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace {

using nha::Index;
using OptionalTensor = std::optional<at::Tensor>;

/// The arguments of nha_attention() in their order; those left out are empty.
enum Input {
  q_window,
  k_window,
  q_slot,
  k_slot,
  v,
  log_gate,
  write_strength,
  slot_k,
  slot_v,
  mass,
  input_count
};
using Inputs = std::array<OptionalTensor, input_count>;
constexpr std::array<const char*, input_count> kInputNames{
    "q_window", "k_window", "q_slot", "k_slot", "v",
    "log_gate", "write",    "slot_k", "slot_v", "mass"};

/// What a call computes; slots and mass are those after the last token.
enum Result { o, lse, slot_share, final_slot_k, final_slot_v, final_mass, result_count };
using Results = std::array<OptionalTensor, result_count>;

/// PyTorch's name for a type of the library. Its half types have the same bits.
template <class T>
constexpr at::ScalarType kScalarType = at::ScalarType::Undefined;
template <>
constexpr at::ScalarType kScalarType<float> = at::kFloat;
template <>
constexpr at::ScalarType kScalarType<double> = at::kDouble;
template <>
constexpr at::ScalarType kScalarType<nha::bfloat16> = at::kBFloat16;
template <>
constexpr at::ScalarType kScalarType<nha::float16> = at::kHalf;
template <>
constexpr at::ScalarType kScalarType<std::int64_t> = at::kLong;

/// Runs tasks on PyTorch's threads, as many as torch.set_num_threads() says.
struct TorchExecutor {
  Index workers() const { return at::get_num_threads(); }
  void run(Index tasks, nha::TaskRef task) const {
    std::atomic<Index> next{0};
    at::parallel_for(0, std::min(tasks, workers()), 1, [&](Index first, Index last) {
      for (Index worker = first; worker < last; ++worker)
        for (Index i = next++; i < tasks; i = next++) task(i, worker);
    });
  }
};

/// Scratch memory, kept for the thread's next call.
nha::Workspace& workspace() {
  thread_local nha::Workspace kept;
  return kept;
}

/// A tensor as a view; the view without data where it was left out.
/// @throws nha::ArgumentError if device, type or number of axes is another.
template <class View>
View view_of(const char* name, const OptionalTensor& tensor) {
  using T = typename View::value_type;
  if (!tensor) return View();
  nha::check_argument(tensor->device().is_cpu(), name, " is on ", tensor->device().str(),
                      "; expected cpu");
  nha::check_argument(tensor->scalar_type() == kScalarType<T>, name, " is of type ",
                      at::toString(tensor->scalar_type()), "; expected ",
                      at::toString(kScalarType<T>));
  nha::check_argument(tensor->dim() == View::rank, name, " has ", tensor->dim(), " axes; expected ",
                      View::rank);
  typename View::Sizes sizes, strides;
  std::copy_n(tensor->sizes().begin(), sizes.size(), sizes.begin());
  std::copy_n(tensor->strides().begin(), strides.size(), strides.begin());
  return View(static_cast<T*>(tensor->data_ptr()), sizes, strides);
}

/// The tensor, or a copy of it where its last axis is not contiguous, as the library wants it.
OptionalTensor with_rows(const OptionalTensor& tensor) {
  if (!tensor || tensor->dim() == 0 || tensor->size(-1) <= 1 || tensor->stride(-1) == 1)
    return tensor;
  return tensor->contiguous();
}

/// One call's inputs as the library takes them, and the state it begins from.
template <class T>
class Call {
  using Acc = nha::accumulate_t<T>;
  template <class U, int Rank>
  using ConstView = typename nha::Tensor<U, Rank>::ConstView;

 public:
  Call(const nha::AttentionOptions& options, const Inputs& given, const OptionalTensor& cu_seqlens)
      : options_(options), cu_seqlens_(cu_seqlens) {
    std::transform(given.begin(), given.end(), given_.begin(), with_rows);
    inputs_ = {.q_window = view<T>(q_window),
               .k_window = view<T>(k_window),
               .q_slot = view<T>(q_slot),
               .k_slot = view<T>(k_slot),
               .v = view<T>(v),
               .log_gate = view<Acc>(log_gate),
               .write = view<Acc>(write_strength)};
    if (cu_seqlens_) {
      const auto offsets = view_of<ConstView<std::int64_t, 1>>("cu_seqlens", cu_seqlens_);
      nha::check_argument(offsets.size() >= 2 && offsets.stride(0) == 1,
                          "cu_seqlens is not contiguous or has fewer than two entries");
      inputs_.cu_seqlens = {offsets.data(), static_cast<std::size_t>(offsets.size())};
    }
    // A layer of windows alone has no slot tensors, one of slots alone no window tensors.
    const auto& queries = given_[q_window] ? inputs_.q_window : inputs_.q_slot;
    query_heads_ = queries.extent(2);
    shape_ = {.batch = cu_seqlens_ ? cu_seqlens_->size(0) - 1 : inputs_.v.extent(0),
              .kv_heads = inputs_.v.extent(2),
              .key_dim = queries.extent(3),
              .value_dim = inputs_.v.extent(3),
              .slots = inputs_.log_gate.extent(3)};
  }

  const nha::AttentionInputs<T>& inputs() const { return inputs_; }
  const nha::AttentionShape& shape() const { return shape_; }
  std::array<Index, 3> query_sizes() const {
    return {inputs_.v.extent(0), inputs_.v.extent(1), query_heads_};
  }

  /// The state as of the first token. Making it anew is cheaper than keeping it for the backward.
  nha::AttentionState<T> make_state() const {
    nha::AttentionState<T> state(shape_, options_);
    if (given_[slot_k] || given_[slot_v] || given_[mass])
      state.set_initial_slots(view<Acc>(slot_k), view<Acc>(slot_v),
                              view_of<ConstView<Acc, 3>>(kInputNames[mass], given_[mass]));
    return state;
  }

 private:
  template <class U>
  ConstView<U, 4> view(Input input) const {
    return view_of<ConstView<U, 4>>(kInputNames[input], given_[input]);
  }

  nha::AttentionOptions options_;
  Inputs given_;
  OptionalTensor cu_seqlens_;
  nha::AttentionInputs<T> inputs_;
  nha::AttentionShape shape_;
  Index query_heads_ = 0;
};

template <class T, int Rank>
using View = typename nha::Tensor<T, Rank>::View;

/// Copies the slots out of a state, which keeps them in an order of its own.
template <class Acc, class State>
void nha::cpu::read_slots(const State& state, Results& results) {
  const nha::AttentionShape& s = state.shape();
  const at::TensorOptions type(kScalarType<Acc>);
  results[final_slot_k] = at::empty({s.batch, s.kv_heads, s.slots, s.key_dim}, type);
  results[final_slot_v] = at::empty({s.batch, s.kv_heads, s.slots, s.value_dim}, type);
  results[final_mass] = at::empty({s.batch, s.kv_heads, s.slots}, type);
  const auto keys = view_of<View<Acc, 4>>("slot_k", results[final_slot_k]);
  const auto values = view_of<View<Acc, 4>>("slot_v", results[final_slot_v]);
  const auto masses = view_of<View<Acc, 3>>("mass", results[final_mass]);
  for (Index n = 0; n < s.batch; ++n)
    for (Index h = 0; h < s.kv_heads; ++h)
      for (Index m = 0; m < s.slots; ++m) {
        for (Index d = 0; d < s.key_dim; ++d) keys(n, h, m, d) = state.slot_k(n, h)(m, d);
        for (Index d = 0; d < s.value_dim; ++d) values(n, h, m, d) = state.slot_v(n, h)(m, d);
        masses(n, h, m) = state.slot_mass(n, h)(m);
      }
}

/// The operator. Without `full` only o and lse, which the backward can use, are computed.
template <class T>
Results forward(const nha::AttentionOptions& options, const Inputs& given,
                const OptionalTensor& cu_seqlens, bool full) {
  using Acc = nha::accumulate_t<T>;
  const Call<T> call(options, given, cu_seqlens);
  const auto [batch, tokens, heads] = call.query_sizes();
  Results results;
  results[o] = at::empty({batch, tokens, heads, call.shape().value_dim}, kScalarType<T>);
  results[lse] = at::empty({batch, tokens, heads}, kScalarType<Acc>);
  if (full) results[slot_share] = at::empty({batch, tokens, heads}, kScalarType<Acc>);
  auto state = call.make_state();
  nha::prefill(call.inputs(), state,
               {.o = view_of<View<T, 4>>("o", results[o]),
                .lse = view_of<View<Acc, 3>>("lse", results[lse]),
                .slot_share = view_of<View<Acc, 3>>("slot_share", results[slot_share])},
               workspace(), TorchExecutor());
  if (full) nha::cpu::read_slots<Acc>(state, results);
  return results;
}

/// The gradients of the inputs that are wanted, in the types of the inputs.
template <class T>
Inputs backward(const nha::AttentionOptions& options, const Inputs& given,
                const OptionalTensor& cu_seqlens, const Results& saved, Results cotangents,
                const std::array<bool, input_count>& wanted) {
  using Acc = nha::accumulate_t<T>;
  const Call<T> call(options, given, cu_seqlens);
  // Where the loss does not depend on a result, PyTorch gives nothing.
  if (!cotangents[o]) cotangents[o] = at::zeros_like(*saved[o]);
  std::transform(cotangents.begin(), cotangents.end(), cotangents.begin(), with_rows);

  Inputs gradients;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i]) gradients[i] = at::empty(given[i]->sizes(), kScalarType<Acc>);
  const auto read3 = [](const char* name, const OptionalTensor& tensor) {
    return view_of<typename nha::Tensor<Acc, 3>::ConstView>(name, tensor);
  };
  const auto read4 = [](const char* name, const OptionalTensor& tensor) {
    return view_of<typename nha::Tensor<Acc, 4>::ConstView>(name, tensor);
  };
  const auto read_o = [](const char* name, const OptionalTensor& tensor) {
    return view_of<typename nha::Tensor<T, 4>::ConstView>(name, tensor);
  };
  const auto written = [&](Input input) {
    return view_of<View<Acc, 4>>(kInputNames[input], gradients[input]);
  };
  nha::backward(call.inputs(), call.make_state(),
                {.o = read_o("o", saved[o]),
                 .lse = read3("lse", saved[lse]),
                 .slot_share = read3("slot_share", saved[slot_share])},
                {.o = read_o("gradient of o", cotangents[o]),
                 .lse = read3("gradient of lse", cotangents[lse]),
                 .slot_share = read3("gradient of slot_share", cotangents[slot_share]),
                 .slot_k = read4("gradient of the final slot_k", cotangents[final_slot_k]),
                 .slot_v = read4("gradient of the final slot_v", cotangents[final_slot_v]),
                 .mass = read3("gradient of the final mass", cotangents[final_mass])},
                {.q_window = written(q_window),
                 .k_window = written(k_window),
                 .q_slot = written(q_slot),
                 .k_slot = written(k_slot),
                 .v = written(v),
                 .log_gate = written(log_gate),
                 .write = written(write_strength),
                 .slot_k = written(slot_k),
                 .slot_v = written(slot_v),
                 .mass = view_of<View<Acc, 3>>("mass", gradients[mass])},
                workspace(), {}, TorchExecutor());
  // Float32 where the inputs are of a half type; autograd wants the inputs' own.
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i]) gradients[i] = gradients[i]->to(given[i]->scalar_type());
  return gradients;
}

/// Calls f with a number of the type that v has.
template <class F>
auto with_type(const Inputs& given, F&& f) {
  nha::check_argument(given[v].has_value(), "v was left out");
  const at::ScalarType type = given[v]->scalar_type();
  nha::check_argument(
      type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf,
      "v is of type ", at::toString(type), "; expected Float, Double, BFloat16 or Half");
  if (type == at::kDouble) return f(double{});
  if (type == at::kBFloat16) return f(nha::bfloat16{});
  if (type == at::kHalf) return f(nha::float16{});
  return f(float{});
}

nha::AttentionOptions make_options(const std::variant<Index, std::vector<Index>>& window,
                                   std::optional<Index> slot_delay, std::optional<double> scale,
                                   const std::string& empty_slots) {
  nha::AttentionOptions options{.slot_delay = slot_delay, .softmax_scale = scale};
  if (const auto* windows = std::get_if<std::vector<Index>>(&window))
    options.head_windows = *windows;
  else
    options.window = std::get<Index>(window);
  const std::optional<nha::EmptySlots> rule = nha::find_value(nha::kEmptySlotsNames, empty_slots);
  nha::check_argument(rule.has_value(), "empty_slots is '", empty_slots, "'; expected ",
                      nha::name_list(nha::kEmptySlotsNames));
  options.empty_slots = *rule;
  return options;
}

}  // namespace

// nha::ArgumentError is a std::invalid_argument, which pybind11 turns into Python's ValueError.
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  namespace py = pybind11;
  using ReleaseLock = py::call_guard<py::gil_scoped_release>;
  py::class_<nha::AttentionOptions>(module, "AttentionOptions")
      .def(py::init(&make_options), py::arg("window"), py::arg("slot_delay"), py::arg("scale"),
           py::arg("empty_slots"));
  module.def(
      "forward",
      [](const nha::AttentionOptions& options, const Inputs& given,
         const OptionalTensor& cu_seqlens, bool full) {
        return with_type(given,
                         [&]<class T>(T) { return forward<T>(options, given, cu_seqlens, full); });
      },
      ReleaseLock());
  module.def(
      "backward",
      [](const nha::AttentionOptions& options, const Inputs& given,
         const OptionalTensor& cu_seqlens, const Results& saved, const Results& cotangents,
         const std::array<bool, input_count>& wanted) {
        return with_type(given, [&]<class T>(T) {
          return backward<T>(options, given, cu_seqlens, saved, cotangents, wanted);
        });
      },
      ReleaseLock());
}
