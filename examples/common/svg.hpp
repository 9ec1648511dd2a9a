// SPDX-License-Identifier: MIT
// What pictures in SVG have in common: the document around them, its style, and text.
#pragma once

#include "display.hpp"

#include <nha/core/index.hpp>

#include <cmath>
#include <sstream>
#include <string>
#include <string_view>

namespace examples_common {

/// Text for XML: markup escaped, anything but printable ASCII replaced by `other`.
inline std::string escaped(std::string_view text, std::string_view other = "?") {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (is_printable(c))
      out += c;
    else
      out += other;
  }
  return out;
}

inline std::string percent(double share) {
  return std::to_string(std::lround(100 * share)) + "%";
}

/// The smallest of 1, 2, 5, 10, 20, ... that is not below `least`: between the ticks of an axis.
inline nha::Index round_step(double least) {
  for (nha::Index power = 1;; power *= 10)
    for (nha::Index factor : {1, 2, 5})
      if (static_cast<double>(factor * power) >= least) return factor * power;
}

/// A whole picture on white, with its title and a line below that; lengths are pixels.
/// @param left where these two begin
/// @param style more rules of CSS; classes that are there: title, heading, note, middle, end, line,
///   frame
/// @param body elements of SVG
inline std::string svg_document(nha::Index width, nha::Index height, nha::Index left,
                                const std::string& title, const std::string& subtitle,
                                const std::string& style, const std::string& body) {
  std::ostringstream svg;
  svg << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << height
      << "' viewBox='0 0 " << width << ' ' << height << "' role='img'>\n<title>" << escaped(title)
      << "</title>\n"
      << R"(<style>
text{font:11px Helvetica,Arial,sans-serif;fill:#222}
.title{font-size:17px;font-weight:bold}
.heading{font-size:13px;font-weight:bold}
.note{fill:#555}
.middle{text-anchor:middle}
.end{text-anchor:end}
.line,.frame{stroke:#777;stroke-width:.7}
)" << style
      << "</style>\n<rect width='100%' height='100%' fill='#ffffff'/>\n<text class='title' x='"
      << left << "' y='34'>" << escaped(title) << "</text>\n<text class='note' x='" << left
      << "' y='54'>" << escaped(subtitle) << "</text>\n"
      << body << "</svg>\n";
  return svg.str();
}

}  // namespace examples_common
