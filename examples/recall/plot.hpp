// SPDX-License-Identifier: MIT
// recall_svg(): the results as a picture that needs nothing but itself.
#pragma once

#include "../common/display.hpp"
#include "../common/svg.hpp"
#include "chart.hpp"
#include "command_line.hpp"
#include "contestants.hpp"
#include "report.hpp"
#include "training.hpp"

#include <nha/core/index.hpp>

#include <array>
#include <cstddef>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace recall {

namespace plot {

/// Of the contestants, distinguishable without red and green (Okabe and Ito, 2008).
inline constexpr std::array<const char*, 4> kColours{"#0072b2", "#e69f00", "#cc79a7", "#333333"};
inline constexpr std::array<const char*, 4> kDashes{"none", "9 3", "3 2", "1.5 3"};

/// One line of a chart: x of each point, and y of each run and point.
template <class Read>
Series series_of(const Contestant& contestant, const std::vector<double>& x, const Runs& runs,
                 Read&& read) {
  Series series{kColours[contestant.look], kDashes[contestant.look], x, {}};
  for (const RunResult& run : runs) series.runs.push_back(read(run));
  return series;
}

inline Chart learning_curves(const Options& options, const std::vector<Contestant>& contestants,
                             const std::vector<Runs>& results) {
  Chart chart{.heading = "While learning",
              .axis = "step",
              .ticks = {},
              .most_x = static_cast<double>(options.steps),
              .series = {}};
  const Index step = examples_common::round_step(static_cast<double>(options.steps) / 6);
  for (Index at = 0; at <= options.steps; at += step)
    chart.ticks.push_back({static_cast<double>(at), examples_common::grouped(at)});
  std::vector<double> x;
  for (const CurvePoint& point : results.front().front().curve)
    x.push_back(static_cast<double>(point.step));
  for (std::size_t i = 0; i < results.size(); ++i)
    chart.series.push_back(series_of(contestants[i], x, results[i], [](const RunResult& run) {
      std::vector<double> y;
      for (const CurvePoint& point : run.curve) y.push_back(point.accuracy);
      return y;
    }));
  return chart;
}

/// A chart with points at equal distances, one for each label.
inline Chart chart_of_choices(const std::string& heading, const std::string& axis,
                              const std::vector<std::string>& labels) {
  Chart chart{.heading = heading,
              .axis = axis,
              .ticks = {},
              .least_x = -0.3,
              .most_x = static_cast<double>(labels.size()) - 0.7,
              .dots = true,
              .series = {}};
  for (const std::string& label : labels)
    chart.ticks.push_back({static_cast<double>(chart.ticks.size()), label});
  return chart;
}
inline std::vector<double> tick_places(const Chart& chart) {
  std::vector<double> x;
  for (const Tick& tick : chart.ticks) x.push_back(tick.x);
  return x;
}

/// Empty where the hybrid is not among the models.
inline Chart windows_chart(const Options& options, const std::vector<Contestant>& contestants,
                           const std::vector<Runs>& results) {
  std::vector<std::string> labels;
  for (const Index window : options.measured_windows)
    labels.push_back(window == options.task.tokens ? "full" : std::to_string(window));
  Chart chart = chart_of_choices("NHA at other windows, the same weights", "window W", labels);
  const std::size_t hybrid = place_of_hybrid(contestants);
  if (hybrid < contestants.size())
    chart.series.push_back(series_of(contestants[hybrid], tick_places(chart), results[hybrid],
                                     [](const RunResult& run) { return run.by_window; }));
  return chart;
}

inline Chart pairs_chart(const Options& options, const std::vector<Contestant>& contestants,
                         const std::vector<Runs>& results) {
  std::vector<std::string> labels;
  for (const Index pairs : options.measured_pairs) labels.push_back(std::to_string(pairs));
  Chart chart = chart_of_choices("With other numbers of pairs", "pairs to remember", labels);
  for (std::size_t i = 0; i < results.size(); ++i)
    chart.series.push_back(series_of(contestants[i], tick_places(chart), results[i],
                                     [](const RunResult& run) { return run.by_pairs; }));
  return chart;
}

/// A line with its model's name, memory and state, one below the other.
inline void draw_legend(std::ostream& svg, const std::vector<Contestant>& contestants, Index left,
                        Index top, Index distance) {
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    const Contestant& contestant = contestants[i];
    const Index x = left + static_cast<Index>(i) * distance;
    svg << "<path class='mean' stroke='" << kColours[contestant.look] << "' stroke-dasharray='"
        << kDashes[contestant.look] << "' d='M" << x << ' ' << top << "h22'/><text x='" << x + 28
        << "' y='" << top + 4 << "'>" << examples_common::escaped(contestant.name)
        << "</text><text class='note' x='" << x + 28 << "' y='" << top + 18 << "'>"
        << examples_common::escaped(contestant.memory + ", " + shown_state(contestant.model))
        << "</text>\n";
  }
}

}  // namespace plot

/// The picture: learning curves, accuracy against windows and against numbers of pairs; results
/// [contestants][seeds].
inline std::string recall_svg(const Options& options, const std::vector<Contestant>& contestants,
                              const std::vector<Runs>& results) {
  constexpr Index kLeft = 56, kTop = 146, kHeight = 250, kGap = 64, kBelow = 56, kRight = 24;
  constexpr std::array<Index, 3> kWidths{420, 270, 270};
  const std::array<Chart, 3> charts{plot::learning_curves(options, contestants, results),
                                    plot::windows_chart(options, contestants, results),
                                    plot::pairs_chart(options, contestants, results)};
  std::ostringstream body;
  plot::draw_legend(body, contestants, kLeft, 82, 270);
  Index left = kLeft;
  for (std::size_t i = 0; i < charts.size(); ++i) {
    // Nothing to show where the hybrid is not among the models, or nothing was measured.
    if (charts[i].series.empty() || charts[i].ticks.empty()) continue;
    draw_chart(body, charts[i], {left, kTop, kWidths[i], kHeight});
    left += kWidths[i] + kGap;
  }
  const Task& task = options.task;
  const std::string subtitle = "Accuracy: " + std::to_string(task.pairs) + " pairs of " +
                               std::to_string(task.keys) + " keys and " +
                               std::to_string(task.values) + " values, then each key again, in " +
                               std::to_string(task.tokens) + " tokens. Thick lines: means of " +
                               std::to_string(options.seeds) + " seeds; thin ones: each of them.";
  return examples_common::svg_document(left - kGap + kRight, kTop + kHeight + kBelow, kLeft,
                                       "Recalling values by their keys", subtitle, kChartStyle,
                                       body.str());
}

}  // namespace recall
