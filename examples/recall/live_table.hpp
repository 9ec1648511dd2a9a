// SPDX-License-Identifier: MIT
// LiveTable: how far each run has come, while several threads train.
#pragma once

#include "../common/display.hpp"
#include "../common/progress.hpp"
#include "../common/stopwatch.hpp"
#include "../common/svg.hpp"
#include "contestants.hpp"
#include "statistics.hpp"

#include <nha/core/index.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

namespace recall {

/// A row for each model and a column for each seed, on stderr: on a terminal redrawn in place,
/// elsewhere one line every so often. Any thread may call stepped() and finished().
class LiveTable {
 public:
  LiveTable(const std::vector<Contestant>& contestants, Index seeds, Index steps)
      : contestants_(contestants),
        steps_(steps),
        cells_(contestants.size(), std::vector<Cell>(static_cast<std::size_t>(seeds))),
        status_(std::chrono::seconds(10)) {}

  /// @param accuracy of late
  void stepped(std::size_t contestant, std::size_t seed, Index steps, double accuracy) {
    const std::lock_guard lock(mutex_);
    cells_[contestant][seed] = {steps, accuracy, false};
    if (status_.due()) status_.show(status_.on_terminal() ? table() : line());
  }
  /// @param accuracy measured
  void finished(std::size_t contestant, std::size_t seed, double accuracy) {
    const std::lock_guard lock(mutex_);
    cells_[contestant][seed] = {steps_, accuracy, true};
  }

 private:
  /// One run.
  struct Cell {
    Index steps = 0;
    double accuracy = std::numeric_limits<double>::quiet_NaN();
    bool finished = false;
  };

  /// "12 runs: 34% after 1:02, about 2:00 left"
  std::string progress() const {
    double done = 0, all = 0;
    for (const auto& row : cells_)
      for (const Cell& cell : row) {
        done += static_cast<double>(cell.steps);
        all += static_cast<double>(steps_);
      }
    const double seconds = stopwatch_.seconds();
    return std::to_string(cells_.size() * cells_.front().size()) +
           " runs: " + examples_common::percent(done / all) + " after " +
           examples_common::duration(seconds) + ", about " +
           examples_common::duration(seconds * (all - done) / std::max(done, 1.0)) + " left";
  }
  /// Over the runs that have something to show; NaN where none has.
  double mean(std::size_t contestant) const {
    std::vector<double> accuracies;
    for (const Cell& cell : cells_[contestant])
      if (!std::isnan(cell.accuracy)) accuracies.push_back(cell.accuracy);
    return mean_of(accuracies);
  }

  std::string line() const {
    std::string text = progress() + "; accuracy";
    for (std::size_t i = 0; i < contestants_.size(); ++i)
      text += (i == 0 ? " " : ", ") + contestants_[i].name + " " + shown_accuracy(mean(i));
    return text;
  }

  std::string table() const {
    char text[64];
    std::snprintf(text, sizeof text, "%-16s %10s", "model", "state");
    std::string rows = progress() + "\n" + text;
    for (std::size_t seed = 1; seed <= cells_.front().size(); ++seed) {
      std::snprintf(text, sizeof text, " %13s", ("seed " + std::to_string(seed)).c_str());
      rows += text;
    }
    std::snprintf(text, sizeof text, " %8s", "mean");
    rows += text;
    for (std::size_t i = 0; i < contestants_.size(); ++i) {
      std::snprintf(text, sizeof text, "\n%-16s %10s", contestants_[i].name.c_str(),
                    shown_state(contestants_[i].model).c_str());
      rows += text;
      for (const Cell& cell : cells_[i]) {
        std::snprintf(text, sizeof text, " %13s", shown(cell).c_str());
        rows += text;
      }
      std::snprintf(text, sizeof text, " %8s", shown_accuracy(mean(i)).c_str());
      rows += text;
    }
    return rows;
  }
  std::string shown(const Cell& cell) const {
    if (cell.steps == 0) return "-";
    if (cell.finished) return shown_accuracy(cell.accuracy);
    const double part = static_cast<double>(cell.steps) / static_cast<double>(steps_);
    return examples_common::percent(part) + "  " + shown_accuracy(cell.accuracy);
  }

  const std::vector<Contestant>& contestants_;
  Index steps_;
  std::mutex mutex_;
  std::vector<std::vector<Cell>> cells_;  // [contestants][seeds]
  examples_common::Stopwatch stopwatch_;
  examples_common::StatusLine status_;
};

}  // namespace recall
