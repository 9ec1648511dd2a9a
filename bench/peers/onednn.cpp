// SPDX-License-Identifier: MIT
// oneDNN: its matrix products in the place of ours, on one thread. A primitive is made once for
// each shape and kept.
#include <omp.h>

#include <dnnl.hpp>
#include <map>
#include <tuple>

#include "matrix_peer.hpp"

namespace {

using namespace nha_bench;

class DnnlProducts {
 public:
  void operator()(Index rows, Index columns, Index depth, const Matrix& a, const Matrix& b,
                  float* c, Index c_stride, bool add) {
    const Key key{rows,     columns,      depth,        a.stride, b.stride,
                  c_stride, a.transposed, b.transposed, add};
    auto found = products_.find(key);
    if (found == products_.end()) found = products_.emplace(key, make(key)).first;
    Product& product = found->second;
    // The library's memory objects are not const, but it only reads these two.
    product.a.set_data_handle(const_cast<float*>(a.data));
    product.b.set_data_handle(const_cast<float*>(b.data));
    product.c.set_data_handle(c);
    product.primitive.execute(stream_, product.arguments);
  }

 private:
  /// Sizes, strides, transposed a, transposed b, add.
  using Key = std::tuple<Index, Index, Index, Index, Index, Index, bool, bool, bool>;
  struct Product {
    dnnl::memory a, b, c;
    dnnl::matmul primitive;
    std::unordered_map<int, dnnl::memory> arguments;
  };

  Product make(const Key& key) const {
    const auto [rows, columns, depth, a_stride, b_stride, c_stride, a_transposed, b_transposed,
                add] = key;
    const auto describe = [](Index height, Index width, Index stride, bool transposed) {
      return dnnl::memory::desc(
          {height, width}, dnnl::memory::data_type::f32,
          transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1});
    };
    const auto a = describe(rows, depth, a_stride, a_transposed);
    const auto b = describe(depth, columns, b_stride, b_transposed);
    const auto c = describe(rows, columns, c_stride, false);
    dnnl::primitive_attr attributes;
    if (add) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc description(engine_, a, b, c, attributes);
#else
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes,
                                                   engine_);
#endif
    Product product{dnnl::memory(a, engine_, nullptr),
                    dnnl::memory(b, engine_, nullptr),
                    dnnl::memory(c, engine_, nullptr),
                    dnnl::matmul(description),
                    {}};
    product.arguments = {
        {DNNL_ARG_SRC, product.a}, {DNNL_ARG_WEIGHTS, product.b}, {DNNL_ARG_DST, product.c}};
    return product;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<Key, Product> products_;
};

const Group group([] {
  const dnnl_version_t& version = *dnnl_version();
  add_version("onednn", std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
                            std::to_string(version.patch));
  omp_set_num_threads(1);
  add_matrix_peer<DnnlProducts>("onednn");
});

}  // namespace
