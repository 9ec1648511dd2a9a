// SPDX-License-Identifier: MIT
// SlotShare: how much of each head's attention fell on the slots, along a text.
#pragma once

#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>

#include <algorithm>

namespace byte_lm {

using nha::Index;

/// Means over columns of equally many bytes, so that its size does not depend on the text's.
class SlotShare {
 public:
  /// The first `bytes` bytes of a text in at most `most_columns` columns.
  SlotShare(Index layers, Index heads, Index bytes, Index most_columns)
      : bytes_(bytes),
        column_bytes_((bytes + most_columns - 1) / most_columns),
        sums_({layers, heads, (bytes + column_bytes_ - 1) / column_bytes_}) {}

  /// Adds a piece of the text, shares [layers, 1, bytes, heads], that begins at byte `first`; what
  /// lies behind the bytes of interest is passed over.
  void add(const nha::Tensor<float, 4>::ConstView& shares, Index first) {
    for (Index layer = 0; layer < layers(); ++layer)
      for (Index t = 0; t < shares.extent(2) && first + t < bytes_; ++t)
        for (Index head = 0; head < heads(); ++head)
          sums_(layer, head, (first + t) / column_bytes_) += double{shares(layer, 0, t, head)};
  }

  Index layers() const { return sums_.extent(0); }
  Index heads() const { return sums_.extent(1); }
  Index columns() const { return sums_.extent(2); }
  Index bytes() const { return bytes_; }
  Index column_bytes() const { return column_bytes_; }

  /// 0: the window alone was read; 1: the slots alone.
  double mean(Index layer, Index head, Index column) const {
    const Index count = std::min(column_bytes_, bytes_ - column * column_bytes_);
    return sums_(layer, head, column) / static_cast<double>(count);
  }
  /// Over all columns.
  double mean(Index layer, Index head) const {
    double sum = 0;
    for (Index column = 0; column < columns(); ++column) sum += sums_(layer, head, column);
    return sum / static_cast<double>(bytes_);
  }

 private:
  Index bytes_;
  Index column_bytes_;
  nha::Tensor<double, 3> sums_;
};

}  // namespace byte_lm
