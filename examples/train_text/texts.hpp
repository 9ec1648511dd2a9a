// SPDX-License-Identifier: MIT
// Texts: what is learnt and what is held out.
#pragma once

#include "../common/text_file.hpp"
#include "command_line.hpp"

#include <nha/core/error.hpp>
#include <nha/io/mapped_file.hpp>

#include <cmath>
#include <cstddef>
#include <optional>
#include <string_view>

namespace train_text {

/// The two texts of a run, of two files or of one.
class Texts {
 public:
  /// @throws FormatError naming the file if one cannot be read, or there is too little text to
  ///   learn from (one byte more than a piece) or to measure on (2 bytes).
  explicit Texts(const Options& options) : text_file_(options.text) {
    using examples_common::characters;
    learnt_ = characters(text_file_, options.text, 1, "learning");
    if (const auto part = heldout_part(options)) {
      const auto size = static_cast<double>(learnt_.size());
      const std::size_t kept = learnt_.size() - static_cast<std::size_t>(std::ceil(size * *part));
      heldout_ = learnt_.substr(kept);
      learnt_ = learnt_.substr(0, kept);
      nha::check_format(heldout_.size() >= 2, options.text, ": --heldout ", options.heldout,
                        " of its ", size, " bytes is too little to measure on");
    } else {
      heldout_file_.emplace(options.heldout);
      heldout_ = characters(*heldout_file_, options.heldout, 2, "measuring");
    }
    nha::check_format(learnt_.size() > static_cast<std::size_t>(options.length), options.text, ": ",
                      learnt_.size(), " bytes to learn from; pieces of --length ", options.length,
                      " take one more than that or more");
    heldout_ = heldout_.substr(0, static_cast<std::size_t>(options.heldout_bytes));
  }

  std::string_view learnt() const { return learnt_; }
  /// As much as is to be measured.
  std::string_view heldout() const { return heldout_; }

 private:
  nha::MappedFile text_file_;
  std::optional<nha::MappedFile> heldout_file_;
  std::string_view learnt_, heldout_;
};

}  // namespace train_text
