// SPDX-License-Identifier: MIT
// Chart: lines between 0 and 1, each the mean of several runs, as elements of SVG.
#pragma once

#include "../common/svg.hpp"
#include "statistics.hpp"

#include <nha/core/index.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

namespace recall {

using nha::Index;

/// The mean of some runs as a thick line, the runs as thin ones, and a band that holds them all.
struct Series {
  std::string colour;
  std::string dashes;  // of the thick line, as stroke-dasharray: it shows where lines coincide
  std::vector<double> x;
  std::vector<std::vector<double>> runs;  // y at each x
};

struct Tick {
  double x = 0;
  std::string label;
};

struct Chart {
  std::string heading;
  std::string axis;  // what x is
  std::vector<Tick> ticks;
  double least_x = 0, most_x = 1;
  bool dots = false;  // at each x
  std::vector<Series> series;
};

/// Where a chart is and how large, without heading and axis; pixels.
struct ChartArea {
  Index left, top, width, height;
};

namespace chart {

/// Points on the picture.
class Scale {
 public:
  Scale(const Chart& chart, const ChartArea& area) : chart_(chart), area_(area) {}

  double x(double at) const {
    const double range = std::max(chart_.most_x - chart_.least_x, 1e-9);
    return static_cast<double>(area_.left) +
           static_cast<double>(area_.width) * (at - chart_.least_x) / range;
  }
  double y(double at) const {
    return static_cast<double>(area_.top) + static_cast<double>(area_.height) * (1 - at);
  }
  std::string point(double at_x, double at_y) const {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f %.1f", x(at_x), y(at_y));
    return text;
  }
  /// "M3.0 4.0L5.0 6.0"
  std::string path(const std::vector<double>& xs, const std::vector<double>& ys) const {
    std::string text;
    for (std::size_t i = 0; i < xs.size(); ++i)
      text.append(i == 0 ? "M" : "L").append(point(xs[i], ys[i]));
    return text;
  }

 private:
  const Chart& chart_;
  const ChartArea& area_;
};

/// What choose(values) gives of the runs' values at each x.
template <class Choose>
std::vector<double> across_runs(const Series& series, Choose&& choose) {
  std::vector<double> chosen;
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    std::vector<double> values;
    for (const std::vector<double>& run : series.runs) values.push_back(run[i]);
    chosen.push_back(choose(values));
  }
  return chosen;
}

inline void draw_frame(std::ostream& svg, const Chart& chart, const ChartArea& area,
                       const Scale& scale) {
  const Index bottom = area.top + area.height;
  svg << "<text class='heading' x='" << area.left << "' y='" << area.top - 12 << "'>"
      << examples_common::escaped(chart.heading) << "</text>\n";
  for (int i = 0; i <= 5; ++i) {
    const double share = 0.2 * i;
    svg << "<path class='grid' d='M" << scale.point(chart.least_x, share) << 'h' << area.width
        << "'/><text class='end' x='" << area.left - 6 << "' y='" << scale.y(share) + 4 << "'>"
        << examples_common::percent(share) << "</text>\n";
  }
  for (const Tick& tick : chart.ticks)
    svg << "<path class='line' d='M" << scale.point(tick.x, 0) << "v5'/><text class='middle' x='"
        << scale.x(tick.x) << "' y='" << bottom + 18 << "'>" << examples_common::escaped(tick.label)
        << "</text>\n";
  svg << "<text class='middle note' x='" << area.left + area.width / 2 << "' y='" << bottom + 36
      << "'>" << examples_common::escaped(chart.axis) << "</text>\n";
}

inline void draw_series(std::ostream& svg, const Series& series, bool dots, const Scale& scale) {
  if (series.x.empty()) return;
  using Values = const std::vector<double>&;
  const auto lowest = [](Values values) { return *std::min_element(values.begin(), values.end()); };
  const auto highest = [](Values values) {
    return *std::max_element(values.begin(), values.end());
  };
  // The upper edge of the band forwards, its lower edge back.
  std::vector<double> around = series.x, edge = across_runs(series, highest);
  const std::vector<double> low = across_runs(series, lowest);
  around.insert(around.end(), series.x.rbegin(), series.x.rend());
  edge.insert(edge.end(), low.rbegin(), low.rend());
  const std::vector<double> mean = across_runs(series, mean_of);
  svg << "<g fill='" << series.colour << "' stroke='" << series.colour
      << "'>\n<path class='band' d='" << scale.path(around, edge) << "z'/>\n";
  for (const std::vector<double>& run : series.runs)
    svg << "<path class='run' d='" << scale.path(series.x, run) << "'/>\n";
  svg << "<path class='mean' stroke-dasharray='" << series.dashes << "' d='"
      << scale.path(series.x, mean) << "'/>\n";
  for (std::size_t i = 0; dots && i < mean.size(); ++i)
    svg << "<circle cx='" << scale.x(series.x[i]) << "' cy='" << scale.y(mean[i]) << "' r='3'/>\n";
  svg << "</g>\n";
}

}  // namespace chart

/// Rules for svg_document(), for pictures with charts.
inline constexpr const char* kChartStyle = R"(.grid{stroke:#ddd;stroke-width:.7}
.band{stroke:none;opacity:.13}
.run{fill:none;stroke-width:.8;opacity:.55}
.mean{fill:none;stroke-width:2.2;stroke-linejoin:round}
)";

/// Later series lie above the ones before.
inline void draw_chart(std::ostream& svg, const Chart& chart, const ChartArea& area) {
  const chart::Scale scale(chart, area);
  chart::draw_frame(svg, chart, area, scale);
  for (const Series& series : chart.series) chart::draw_series(svg, series, chart.dots, scale);
}

}  // namespace recall
