// SPDX-License-Identifier: MIT
// Views of Eigen's vectors and matrices, and Eigen maps of our views. Nothing is copied.
//
// A matrix of packed projections, one row for each token, becomes the operator's views so:
//   Matrix<float, Dynamic, Dynamic, RowMajor> qkv(tokens, 3 * heads * dim);
//   auto q = nha::view(qkv).slice<1>(0, heads * dim).split<1>(heads).insert_axis<0>();
// which is [1, tokens, heads, dim].
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

#include <Eigen/Core>

#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

constexpr Index extent_of_eigen(Eigen::Index size) noexcept {
  return size == Eigen::Dynamic ? Dynamic : static_cast<Index>(size);
}
constexpr Eigen::Index eigen_of_extent(Index extent) noexcept {
  return extent == Dynamic ? Eigen::Dynamic : static_cast<Eigen::Index>(extent);
}

/// Something of Eigen's that lies in memory: Matrix, Array, Map, Ref, and blocks of these.
template <class E>
concept EigenStored = requires(E& dense) {
  dense.data();
  dense.rowStride();
  dense.colStride();
}
&&std::is_base_of_v<Eigen::DenseBase<std::remove_const_t<E>>, std::remove_const_t<E>>;

template <class E>
using EigenElement = std::remove_pointer_t<decltype(std::declval<E&>().data())>;

}  // namespace detail

/// Element (i, j) of the view is element (i, j) of the matrix, whichever way it is stored: [rows,
/// cols], static where the matrix's type says so. Of a vector: [size].
///
/// The view refers to the matrix's memory and is valid as long as that is. The operator's inputs
/// need neighbouring elements along their last axis: give it row-major matrices.
/// @throws ArgumentError if the sizes or strides of a Map overflow.
template <detail::EigenStored E>
NHA_INLINE auto view(E& dense) {
  using detail::extent_of_eigen;
  using T = detail::EigenElement<E>;
  if constexpr (E::IsVectorAtCompileTime)
    return TensorView<T, extent_of_eigen(E::SizeAtCompileTime)>(
        dense.data(), {static_cast<Index>(dense.size())},
        {static_cast<Index>(dense.innerStride())});
  else
    return TensorView<T, extent_of_eigen(E::RowsAtCompileTime),
                      extent_of_eigen(E::ColsAtCompileTime)>(
        dense.data(), {static_cast<Index>(dense.rows()), static_cast<Index>(dense.cols())},
        {static_cast<Index>(dense.rowStride()), static_cast<Index>(dense.colStride())});
}

/// An Eigen::Map of a view with one or two axes: a column vector, or a row-major matrix. Its size
/// is static where the view's is.
template <class T, Index... Extents>
NHA_INLINE auto map(const TensorView<T, Extents...>& from) noexcept {
  static_assert(sizeof...(Extents) <= 2, "Eigen has vectors and matrices");
  using detail::eigen_of_extent;
  using Element = std::remove_const_t<T>;
  using View = TensorView<T, Extents...>;
  if constexpr (View::rank == 1) {
    using Vector = Eigen::Matrix<Element, eigen_of_extent(View::static_extent(0)), 1>;
    using Target = std::conditional_t<std::is_const_v<T>, const Vector, Vector>;
    return Eigen::Map<Target, Eigen::Unaligned, Eigen::InnerStride<>>(
        from.data(), from.extent(0), Eigen::InnerStride<>(from.stride(0)));
  } else {
    // Eigen knows matrices of one column only as column-major; the strides say the rest.
    constexpr int kOrder = View::static_extent(1) == 1 ? Eigen::ColMajor : Eigen::RowMajor;
    using Matrix = Eigen::Matrix<Element, eigen_of_extent(View::static_extent(0)),
                                 eigen_of_extent(View::static_extent(1)), kOrder>;
    using Target = std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>;
    using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    const Stride stride = kOrder == Eigen::ColMajor ? Stride(from.stride(1), from.stride(0))
                                                    : Stride(from.stride(0), from.stride(1));
    return Eigen::Map<Target, Eigen::Unaligned, Stride>(from.data(), from.extent(0), from.extent(1),
                                                        stride);
  }
}

NHA_ISA_NAMESPACE_END
