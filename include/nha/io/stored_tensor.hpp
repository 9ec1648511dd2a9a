// SPDX-License-Identifier: MIT
// StoredTensor: a tensor inside a file, seen in place or converted to numbers of our own.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/little_endian.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/io/stored_type.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Name, type, shape and bytes of one tensor; the bytes are the file's and live as long as it does.
///
/// The reader of a format, which fills this in, has checked that `bytes` holds exactly the elements
/// that `shape` counts. No product of extents overflows.
struct StoredTensor {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<Index> shape;
  /// Row-major, little-endian, at any alignment.
  std::span<const std::byte> bytes;

  /// Number of elements; 1 for a scalar, whose shape is empty.
  Index size() const noexcept { return static_cast<Index>(bytes.size() / stored_bytes(dtype)); }

  /// Whether view<T>() can show the elements in place. They must be of type T and aligned for it,
  /// and the host little-endian. convert_to and to_tensor always work.
  template <class T>
  bool viewable() const noexcept {
    return kLittleEndianHost && dtype == stored_type_of<T>() &&
           reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0;
  }

  /// The elements in place, without a copy: rank 1 to 4.
  /// @throws FormatError if the rank is another or the elements are not viewable<T>().
  template <class T, int Rank>
  typename Tensor<T, Rank>::ConstView view() const {
    const auto extents = checked_shape<Rank>();
    check_format(dtype == stored_type_of<T>(), "tensor '", detail::printable(name), "' is ",
                 stored_name(dtype), "; expected ", stored_name(stored_type_of<T>()));
    check_format(viewable<T>(), "tensor '", detail::printable(name),
                 "' is not aligned for its type in the file: it can be copied, not viewed");
    return {reinterpret_cast<const T*>(bytes.data()), extents};
  }

  /// Copies all elements to `to`, converted: floating-point types (F64, F32, F16, BF16) to any
  /// nha::Scalar, integers to std::int64_t. Narrowing rounds to nearest even; F64 reaches the half
  /// types by way of float.
  /// @throws FormatError if the stored type does not convert to T, ArgumentError if `to` has not
  ///   size() elements; nothing has then been written.
  template <class T>
  void convert_to(std::span<T> to) const {
    check_argument(to.size() == static_cast<std::size_t>(size()), "destination of tensor '",
                   detail::printable(name), "' has ", to.size(), " elements; expected ", size());
    if constexpr (Scalar<T>) {
      switch (dtype) {
        case StoredType::f64:
          return convert_from<double>(to);
        case StoredType::f32:
          return convert_from<float>(to);
        case StoredType::f16:
          return convert_from<float16>(to);
        case StoredType::bf16:
          return convert_from<bfloat16>(to);
        default:
          break;
      }
    } else {
      static_assert(std::is_same_v<T, std::int64_t>,
                    "stored numbers convert to an nha::Scalar or to std::int64_t");
      switch (dtype) {
        case StoredType::i64:
          return convert_from<std::int64_t>(to);
        case StoredType::i32:
          return convert_from<std::int32_t>(to);
        case StoredType::i16:
          return convert_from<std::int16_t>(to);
        case StoredType::i8:
          return convert_from<std::int8_t>(to);
        case StoredType::u32:
          return convert_from<std::uint32_t>(to);
        case StoredType::u16:
          return convert_from<std::uint16_t>(to);
        case StoredType::u8:
          return convert_from<std::uint8_t>(to);
        default:
          break;
      }
    }
    check_format(false, "tensor '", detail::printable(name), "' is ", stored_name(dtype),
                 "; expected ", Scalar<T> ? "F64, F32, F16 or BF16" : "an integer type up to I64");
  }

  /// All elements in row-major order, converted as convert_to does.
  template <class T>
  std::vector<T> to_vector() const {
    std::vector<T> out(static_cast<std::size_t>(size()));
    convert_to(std::span<T>(out));
    return out;
  }

  /// A tensor of our own, converted as convert_to does.
  /// @throws FormatError if the rank is another or the stored type does not convert.
  template <class T, int Rank>
  Tensor<T, Rank> to_tensor() const {
    Tensor<T, Rank> out(checked_shape<Rank>());
    convert_to(out.values());
    return out;
  }

 private:
  template <int Rank>
  typename Tensor<float, Rank>::Sizes checked_shape() const {
    check_format(shape.size() == static_cast<std::size_t>(Rank), "tensor '",
                 detail::printable(name), "' has shape ", detail::shape_text(shape), "; expected ",
                 Rank, Rank == 1 ? " axis" : " axes");
    typename Tensor<float, Rank>::Sizes extents{};
    std::copy(shape.begin(), shape.end(), extents.begin());
    return extents;
  }

  template <class From, class T>
  void convert_from(std::span<T> to) const {
    for (std::size_t i = 0; i < to.size(); ++i) {
      const From value = load_little<From>(bytes.data() + i * sizeof(From));
      if constexpr (std::is_same_v<From, T>)
        to[i] = value;
      else if constexpr (Scalar<T> && !std::is_same_v<accumulate_t<T>, T>)
        to[i] = static_cast<T>(static_cast<float>(value));
      else if constexpr (Scalar<T>)
        to[i] = static_cast<T>(static_cast<accumulate_t<From>>(value));
      else
        to[i] = static_cast<T>(value);
    }
  }
};

NHA_ISA_NAMESPACE_END
