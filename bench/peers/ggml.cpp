// SPDX-License-Identifier: MIT
// ggml: its flash attention on one thread. Full windows, windows in blocks of queries, and
// decoding.
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "decode_peer.hpp"
#include "matrix_peer.hpp"

namespace {

using namespace nha_bench;

/// Queries to a block of a window; ggml's faster kernel wants at least 64.
constexpr Index kQueries = 64;

/// A graph of flash attention nodes over memory that is ours.
class FlashGraph {
 public:
  FlashGraph(Index nodes, Index dim)
      : context_(ggml_init({room(nodes), nullptr, true})),
        graph_(ggml_new_graph_custom(context_, most_tensors(nodes), false)),
        dim_(dim) {}
  FlashGraph(const FlashGraph&) = delete;
  FlashGraph& operator=(const FlashGraph&) = delete;
  ~FlashGraph() {
    ggml_threadpool_free(threads_);
    ggml_free(context_);
  }

  /// A tensor [rows, columns] over given memory, which ggml only reads.
  ggml_tensor* tensor(ggml_type type, const void* data, Index columns, Index rows) {
    ggml_tensor* view = ggml_new_tensor_2d(context_, type, columns, rows);
    view->data = const_cast<void*>(data);
    return view;
  }
  /// out [queries, dim] = attention of queries to keys and values, mask [queries, keys] or null.
  void attend(const float* q, Index queries, ggml_tensor* keys, ggml_tensor* values,
              ggml_tensor* mask, float* out) {
    ggml_tensor* node =
        ggml_flash_attn_ext(context_, tensor(GGML_TYPE_F32, q, dim_, queries), keys, values, mask,
                            1.0f / std::sqrt(static_cast<float>(dim_)), 0.0f, 0.0f);
    ggml_flash_attn_ext_set_prec(node, GGML_PREC_F32);
    node->data = out;
    ggml_build_forward_expand(graph_, node);
  }
  void run() {
    if (threads_ == nullptr) {
      ggml_threadpool_params parameters = ggml_threadpool_params_default(1);
      threads_ = ggml_threadpool_new(&parameters);
      plan_ = ggml_graph_plan(graph_, 1, threads_);
      work_.resize(plan_.work_size);
      plan_.work_data = work_.data();
    }
    ggml_graph_compute(graph_, &plan_);
  }

 private:
  /// A node with its queries, keys, values and mask.
  static std::size_t most_tensors(Index nodes) { return static_cast<std::size_t>(5 * nodes); }
  static std::size_t room(Index nodes) {
    return ggml_tensor_overhead() * most_tensors(nodes) +
           ggml_graph_overhead_custom(most_tensors(nodes), false);
  }

  ggml_context* context_;
  ggml_cgraph* graph_;
  Index dim_;
  ggml_threadpool* threads_ = nullptr;
  ggml_cplan plan_ = {};
  std::vector<std::uint8_t> work_;
};

/// A window alone, or full attention: queries in blocks, each against the keys that any of them
/// sees.
class GgmlWindow {
 public:
  /// @param block queries to a block
  GgmlWindow(const nha_test::RandomCase<float>& data, Index window, Index block)
      : out({data.shape.tokens, data.shape.key_dim}),
        graph_((data.shape.tokens + block - 1) / block, data.shape.key_dim) {
    const Index dim = data.shape.key_dim;
    const Index tokens = data.shape.tokens;
    for (Index start = 0; start < tokens; start += block) {
      const Index count = std::min(block, tokens - start);
      const Index first = std::max<Index>(0, start - window + 1);
      const Index keys = start + count - first;
      graph_.attend(data.q_window.data() + start * dim, count,
                    graph_.tensor(GGML_TYPE_F32, data.k_window.data() + first * dim, dim, keys),
                    graph_.tensor(GGML_TYPE_F32, data.v.data() + first * dim, dim, keys),
                    mask(start - first, window, count, keys), out.data() + start * dim);
    }
  }
  void run() { graph_.run(); }

  nha::Tensor<float, 2> out;  // [tokens, dim]

 private:
  /// 0 where query i, which lies at key offset + i, sees a key; blocks alike share a mask.
  ggml_tensor* mask(Index offset, Index window, Index count, Index keys) {
    for (const Mask& made : masks_)
      if (made.offset == offset && made.count == count) return made.tensor;
    std::vector<ggml_fp16_t> numbers(static_cast<std::size_t>(count * keys),
                                     ggml_fp32_to_fp16(-INFINITY));
    for (Index i = 0; i < count; ++i)
      for (Index j = std::max<Index>(0, offset + i - window + 1); j <= offset + i; ++j)
        numbers[static_cast<std::size_t>(i * keys + j)] = ggml_fp32_to_fp16(0.0f);
    ggml_tensor* tensor = graph_.tensor(GGML_TYPE_F16, numbers.data(), keys, count);
    masks_.push_back({offset, count, std::move(numbers), tensor});
    return tensor;
  }

  struct Mask {
    Index offset;
    Index count;
    std::vector<ggml_fp16_t> numbers;
    ggml_tensor* tensor;
  };
  FlashGraph graph_;
  std::vector<Mask> masks_;
};

/// One query against a float32 cache of keys and values. (With the float16 cache that is its
/// default it also sums in float16, and at 8k tokens differs from softmax attention by 1e-2.)
class GgmlDecode {
 public:
  explicit GgmlDecode(const nha_test::RandomCase<float>& data)
      : out_(static_cast<std::size_t>(data.shape.value_dim)), graph_(1, data.shape.key_dim) {
    const Index tokens = data.shape.tokens;
    const Index dim = data.shape.key_dim;
    graph_.attend(data.q_window.data(), 1,
                  graph_.tensor(GGML_TYPE_F32, data.k_window.data(), dim, tokens),
                  graph_.tensor(GGML_TYPE_F32, data.v.data(), dim, tokens), nullptr, out_.data());
  }
  void run() { graph_.run(); }
  const float* out() const { return out_.data(); }

 private:
  std::vector<float> out_;
  FlashGraph graph_;
};

void add(const std::string& name, const PrefillSize& size, Index block) {
  add_benchmark(name + "/peer:ggml", [size, block](benchmark::State& state) {
    PrefillProblem ours(size);
    GgmlWindow peer(ours.data, size.window, block);
    measure_peer(state, size, ours, peer);
  });
}

const Group group([] {
  add_version("ggml", ggml_version());
  ggml_cpu_init();
  for (Index dim : {64, 128}) {
    for (Index tokens : {2048, 8192, 32768}) {
      const PrefillSize size{.slots = 0, .dim = dim, .tokens = tokens};
      add("prefill/" + size.name(), size, kQueries);
    }
    for (Index tokens : {512, 1024, 2048, 4096, 8192}) {
      const PrefillSize size{.slots = 0, .window = tokens, .dim = dim, .tokens = tokens};
      add("full_window/D:" + std::to_string(dim) + "/T:" + std::to_string(tokens), size, tokens);
    }
  }
  add_decode_peer<GgmlDecode>("ggml");
});

}  // namespace
