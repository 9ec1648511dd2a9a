// SPDX-License-Identifier: MIT
// slot_share_svg(): SlotShare as a picture that needs nothing but itself.
#pragma once

#include "../common/display.hpp"
#include "../common/svg.hpp"
#include "slot_share.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>

namespace byte_lm {

using examples_common::escaped;
using examples_common::grouped;
using examples_common::percent;
using examples_common::round_step;
using examples_common::svg_document;

namespace plot {

// All lengths are pixels.
inline constexpr Index kLeft = 112;  // room for the names of layers and heads
inline constexpr Index kRight = 64;  // room for the means
inline constexpr Index kPlotWidth = 960;
inline constexpr Index kWidth = kLeft + kPlotWidth + kRight;
inline constexpr Index kRow = 14;
inline constexpr Index kLayerGap = 5;
inline constexpr Index kHeader = 96;       // title and legend
inline constexpr Index kPanelHeader = 34;  // heading of a heat map
inline constexpr Index kAxis = 46;         // ticks and the axis's name
inline constexpr Index kTextLine = 18;     // the text below its columns

/// From the window's colour at 0 to the slots' at 1, ever darker, as "#rrggbb".
inline std::string colour(double share) {
  struct Stop {
    double red, green, blue;
  };
  constexpr std::array<Stop, 4> kStops{
      {{255, 246, 219}, {139, 204, 170}, {39, 128, 150}, {24, 30, 84}}};
  const double at = std::clamp(share, 0.0, 1.0) * (kStops.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(at), kStops.size() - 2);
  const double part = at - static_cast<double>(below);
  const auto mix = [part](double from, double to) {
    return static_cast<unsigned>(std::lround(from + part * (to - from)));
  };
  const Stop &from = kStops[below], &to = kStops[below + 1];
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", mix(from.red, to.red) & 0xff,
                mix(from.green, to.green) & 0xff, mix(from.blue, to.blue) & 0xff);
  return text;
}

inline Index rows_height(const SlotShare& share) {
  return share.layers() * (share.heads() * kRow + kLayerGap) - kLayerGap;
}
inline Index row_top(const SlotShare& share, Index layer, Index head) {
  return layer * (share.heads() * kRow + kLayerGap) + head * kRow;
}
inline Index column_width(const SlotShare& share) {
  return std::min<Index>(kPlotWidth / share.columns(), 24);
}

/// The cells, gathered into one path for each of 64 shades: a tenth of the size of one element
/// each.
inline void draw_cells(std::ostream& svg, const SlotShare& share) {
  constexpr int kShades = 64;
  std::array<std::ostringstream, kShades> paths;
  const Index width = column_width(share);
  for (Index layer = 0; layer < share.layers(); ++layer)
    for (Index head = 0; head < share.heads(); ++head)
      for (Index column = 0; column < share.columns(); ++column) {
        const double mean = std::clamp(share.mean(layer, head, column), 0.0, 1.0);
        const auto shade = static_cast<std::size_t>(std::lround(mean * (kShades - 1)));
        paths[shade] << 'M' << column * width << ' ' << row_top(share, layer, head) << 'h' << width
                     << 'v' << kRow - 1 << "h-" << width << 'z';
      }
  for (std::size_t shade = 0; shade < kShades; ++shade)
    if (const std::string path = paths[shade].str(); !path.empty())
      svg << "<path fill='" << colour(static_cast<double>(shade) / (kShades - 1)) << "' d='" << path
          << "'/>\n";
}

/// Names of the rows at the left, their means at the right.
inline void draw_row_names(std::ostream& svg, const SlotShare& share) {
  const Index right = share.columns() * column_width(share) + 8;
  svg << "<text class='note' x='" << right << "' y='-7'>mean</text>\n";
  for (Index layer = 0; layer < share.layers(); ++layer) {
    svg << "<text x='-104' y='" << row_top(share, layer, 0) + share.heads() * kRow / 2 + 4
        << "'>layer " << layer + 1 << "</text>\n";
    for (Index head = 0; head < share.heads(); ++head) {
      const Index y = row_top(share, layer, head) + kRow - 3;
      svg << "<text class='end' x='-6' y='" << y << "'>head " << head + 1 << "</text><text x='"
          << right << "' y='" << y << "'>" << percent(share.mean(layer, head)) << "</text>\n";
    }
  }
}

/// Positions in the text, below the rows from `top` on.
inline void draw_axis(std::ostream& svg, const SlotShare& share, Index top) {
  constexpr double kTickDistance = 70;
  const double byte_width =
      static_cast<double>(column_width(share)) / static_cast<double>(share.column_bytes());
  const Index step = round_step(kTickDistance / byte_width);
  for (Index byte = 0; byte < share.bytes(); byte += step) {
    const auto x = static_cast<Index>(byte_width * static_cast<double>(byte));
    svg << "<path class='line' d='M" << x << ' ' << top + 2 << "v5'/><text class='middle' x='" << x
        << "' y='" << top + 19 << "'>" << grouped(byte) << "</text>\n";
  }
  svg << "<text class='middle note' x='" << share.columns() * column_width(share) / 2 << "' y='"
      << top + 36 << "'>byte of the text</text>\n";
}

/// One heat map with its heading; returns its height.
inline Index draw_panel(std::ostream& svg, const SlotShare& share, Index top,
                        const std::string& heading, std::string_view text) {
  const Index height = rows_height(share);
  svg << "<text class='heading' x='" << kLeft << "' y='" << top + 14 << "'>" << escaped(heading)
      << "</text>\n<g transform='translate(" << kLeft << ' ' << top + kPanelHeader << ")'>\n";
  draw_cells(svg, share);
  draw_row_names(svg, share);
  const Index width = column_width(share);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ') continue;
    svg << "<text class='byte' x='" << static_cast<Index>(i) * width + width / 2 << "' y='"
        << height + 14 << "'>"
        << escaped(text.substr(i, 1), text[i] == '\n' ? "\xc2\xb6" : "\xc2\xb7") << "</text>\n";
  }
  const Index text_height = text.empty() ? 0 : kTextLine;
  draw_axis(svg, share, height + text_height);
  svg << "</g>\n";
  return kPanelHeader + height + text_height + kAxis;
}

/// What the colours mean, at the right of the header.
inline void draw_legend(std::ostream& svg) {
  constexpr int kStops = 12;
  constexpr Index kLegendWidth = 240;
  svg << "<defs><linearGradient id='shares'>";
  for (int i = 0; i <= kStops; ++i)
    svg << "<stop offset='" << 100.0 * i / kStops << "%' stop-color='"
        << colour(static_cast<double>(i) / kStops) << "'/>";
  svg << "</linearGradient></defs>\n<g transform='translate(" << kLeft + kPlotWidth - kLegendWidth
      << " 28)'>\n<rect class='frame' width='" << kLegendWidth
      << "' height='12' fill='url(#shares)'/>\n<text x='0' y='-6'>window only</text><text "
         "class='end' x='"
      << kLegendWidth << "' y='-6'>slots only</text>\n";
  for (int i = 0; i <= 4; ++i)
    svg << "<text class='middle' x='" << kLegendWidth * i / 4 << "' y='26'>" << 25 * i
        << "%</text>\n";
  svg << "</g>\n";
}

/// Letters of the text, below its columns.
inline constexpr const char* kByteStyle = ".byte{text-anchor:middle;font:12px monospace}\n";

}  // namespace plot

/// How many columns a picture has room for, and how many with a letter below each.
inline constexpr Index kMostColumns = plot::kPlotWidth / 2;
inline constexpr Index kMostLetters = plot::kPlotWidth / 8;

/// The picture: a heat map of the whole text where it is longer than `start`, and one of its start
/// with a column for each byte and the text below. `subtitle` says what was read, `beginning` is
/// the text that `start` covers.
inline std::string slot_share_svg(const SlotShare& whole, const SlotShare& start,
                                  std::string_view beginning, const std::string& subtitle) {
  std::ostringstream panels;
  Index bottom = plot::kHeader;
  if (whole.bytes() > start.bytes()) {
    std::string heading = "The whole text: " + grouped(whole.bytes()) + " bytes";
    if (whole.column_bytes() > 1)
      heading += ", the mean of " + grouped(whole.column_bytes()) + " in each column";
    bottom += plot::draw_panel(panels, whole, bottom, heading, "");
  }
  const std::string which = whole.bytes() > start.bytes() ? "Its start" : "The whole text";
  bottom +=
      plot::draw_panel(panels, start, bottom,
                       which + ": " + grouped(start.bytes()) + " bytes, a column each", beginning);

  std::ostringstream legend;
  plot::draw_legend(legend);
  return svg_document(plot::kWidth, bottom, plot::kLeft,
                      "How much of each head's attention fell on the slots", subtitle,
                      plot::kByteStyle, legend.str() + panels.str());
}

}  // namespace byte_lm
