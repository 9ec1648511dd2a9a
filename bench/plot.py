#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the results of nha_bench as SVG. Needs nothing but Python.

  nha_bench --benchmark_filter='prefill|full_window|decode/context' \\
      --benchmark_out=result.json --benchmark_out_format=json
  bench/plot.py result.json [more.json ...] --out bench/plots

Files: prefill_D64.svg, full_window_D64.svg (time per token against T, ours and the peers),
peak_D64.svg (share of peak against T), decode_D64.svg (time of a step against the context),
memory_D64.svg (bytes of a state against a key/value cache), and the same for D = 128. A file without
data is not written. More than one result may be given, those of torch_sdpa.py among them.
"""
import argparse
import json
import math
import pathlib
import re

# Colours that differ in lightness as well, by name so that a peer has the same one everywhere.
COLOURS = {"nha": "#c2410c", "eigen": "#0f766e", "onednn": "#1d4ed8", "openblas": "#7c3aed",
           "ggml": "#4d7c0f", "torch": "#be185d"}
OTHERS = ["#c2410c", "#1d4ed8", "#4d7c0f", "#7c3aed", "#0f766e", "#be185d", "#57534e"]
WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 78, 170, 56, 54


class Benchmark:
    """A name such as prefill/M:64/T:2048/peer:eigen taken apart, and its counters."""

    def __init__(self, entry):
        parts = re.sub(r"/iterations:1/manual_time$", "", entry["name"]).split("/")
        self.group = "/".join(part for part in parts if ":" not in part)
        self.sizes = dict(part.split(":", 1) for part in parts if ":" in part)
        self.peer = self.sizes.pop("peer", "nha")
        self.counters = entry

    def matches(self, group, **sizes):
        return self.group == group and all(self.sizes.get(name) == str(value)
                                           for name, value in sizes.items())


def read(paths):
    found, contexts = [], []
    for path in paths:
        result = json.loads(pathlib.Path(path).read_text())
        contexts.append(result["context"])
        # With repetitions the median stands for all of them.
        entries = [e for e in result["benchmarks"] if not e.get("error_occurred")]
        medians = [e for e in entries if e.get("aggregate_name") == "median"]
        for entry in medians or [e for e in entries if e.get("run_type") != "aggregate"]:
            entry["name"] = entry.get("run_name", entry["name"])
            found.append(Benchmark(entry))
    return found, contexts


def series(benchmarks, x, y):
    """{label: [(x, y), ...]}, by peer."""
    lines = {}
    for b in benchmarks:
        if x in b.sizes and y in b.counters:
            lines.setdefault(b.peer, []).append((float(b.sizes[x]), float(b.counters[y])))
    return {label: sorted(points) for label, points in lines.items()}


def number(value):
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def power_of_two(value):
    return f"{value / 1024:g}k" if value >= 1024 else f"{value:g}"


def ticks(low, high, logarithmic):
    if not logarithmic:
        step = 10 ** math.floor(math.log10(high - low))
        step = next(step * f for f in (0.1, 0.2, 0.5, 1) if (high - low) / (step * f) <= 10)
        return [low + step * i for i in range(int((high - low) / step + 1e-9) + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    return [10.0 ** d * f for d in decades for f in factors if low <= 10.0 ** d * f <= high]


def chart(title, subtitle, x_title, y_title, lines, logarithmic=True):
    """An SVG of lines over a logarithmic x axis."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    x_low, x_high = math.log(xs[0]), math.log(xs[-1]) if xs[-1] > xs[0] else math.log(xs[0]) + 1
    y_low, y_high = (min(ys) / 1.3, max(ys) * 1.3) if logarithmic else (0.0, max(1.0, max(ys)))
    scale = math.log if logarithmic else float

    def at_x(x):
        return LEFT + (math.log(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(y):
        return HEIGHT - BOTTOM - ((scale(y) - scale(y_low)) / (scale(y_high) - scale(y_low))
                                  * (HEIGHT - TOP - BOTTOM))

    def text(x, y, content, style="", anchor="start"):
        content = content.replace("&", "&amp;").replace("<", "&lt;")
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{content}</text>'

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12" fill="#1c1917">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           text(LEFT, 22, title, 'font-size="15" font-weight="bold"'),
           text(LEFT, 40, subtitle, 'font-size="11" fill="#57534e"')]
    for y in ticks(y_low, y_high, logarithmic):
        svg.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}" '
                   'stroke="#e7e5e4"/>')
        label = number(y) if logarithmic else f"{100 * y:.0f}%"
        svg.append(text(LEFT - 8, at_y(y) + 4, label, anchor="end"))
    for x in xs:
        svg.append(text(at_x(x), HEIGHT - BOTTOM + 18, power_of_two(x), anchor="middle"))
    svg.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, anchor="middle"))
    svg.append(text(18, (TOP + HEIGHT - BOTTOM) / 2, y_title, anchor="middle",
                    style=f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"'))
    # Labels at the lines' ends, moved apart where they would overlap.
    spots = []
    for i, (label, points) in enumerate(sorted(lines.items(), key=lambda line: line[1][-1][1])):
        colour = COLOURS.get(label.split(",")[0], OTHERS[i % len(OTHERS)])
        dashes = ' stroke-dasharray="6 4"' if label.endswith(", full") else ""
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                   f'stroke-width="{3 if label == "nha" else 1.6}"{dashes}/>')
        svg += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>'
                for x, y in points]
        spots.append([at_y(points[-1][1]) + 4, at_x(points[-1][0]) + 8, label, colour])
    for below, above in zip(spots, spots[1:]):
        above[0] = min(above[0], below[0] - 15)
    svg += [text(x, y, label, f'fill="{colour}" font-weight="bold"') for y, x, label, colour in spots]
    return "\n".join(svg + ["</svg>", ""])


def describe(context):
    flags = f"{context.get('compiler', '')} {context.get('flags', '')}".strip()
    return ", ".join(part for part in (context.get("cpu", ""), flags, context.get("date", "")[:10])
                     if part)


def charts(benchmarks, dim):
    """(file name, title, x title, y title, lines, logarithmic) of everything there is for a D."""
    def of(group, **sizes):
        return [b for b in benchmarks if b.matches(group, D=dim, **sizes)]

    hybrid = of("prefill", M=64, W=64, G=1, gates="usual")
    full = of("full_window")
    context = of("decode/context/F32") + of("decode/context")
    lines = {("nha" if b == "nha" else f"{b}, blocks"): p
             for b, p in series(hybrid, "T", "ns/token").items()}
    lines |= {f"{b}, full": p for b, p in series(full, "T", "ns/token").items()}
    yield (f"prefill_D{dim}", f"Prefill, M = W = 64, D = {dim}, one head", "tokens T",
           "ns per token", lines, True)
    yield (f"full_window_D{dim}", f"Causal softmax attention (window of T), D = {dim}, one head",
           "tokens T", "ns per token", series(full, "T", "ns/token"), True)
    shares = {}
    for label, sizes in (("M 64, W 16", {"M": 64, "W": 16, "G": 1}),
                         ("M 64, W 64", {"M": 64, "W": 64, "G": 1}),
                         ("M 64, W 256", {"M": 64, "W": 256, "G": 1}),
                         ("slots alone", {"M": 64, "W": 0}), ("window 64 alone", {"M": 0, "W": 64})):
        found = series(of("prefill", gates="usual", **sizes), "T", "of_peak")
        if "nha" in found:
            shares[label] = found["nha"]
    found = series(full, "T", "of_peak")
    if "nha" in found:
        shares["full window"] = found["nha"]
    yield (f"peak_D{dim}", f"Share of the FMA peak, nha, D = {dim}", "tokens T", "of peak", shares,
           False)
    yield (f"decode_D{dim}", f"One step of decoding, M = W = 64, D = {dim}, one head",
           "tokens before", "ns per token", series(context, "past", "ns/token"), True)
    states = series(context, "past", "state_bytes")
    if "nha" in states:
        cache = [(past, 2 * past * dim * 4) for past, _ in states["nha"]]
        yield (f"memory_D{dim}", f"Memory of a sequence, M = W = 64, D = {dim}, one head",
               "tokens before", "bytes",
               {"nha": states["nha"], "float32 key/value cache": cache}, True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="JSON from --benchmark_out")
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "plots", type=pathlib.Path)
    arguments = parser.parse_args()
    benchmarks, contexts = read(arguments.results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for dim in (64, 128):
        for name, title, x_title, y_title, lines, logarithmic in charts(benchmarks, dim):
            if not lines:
                continue
            path = arguments.out / f"{name}.svg"
            path.write_text(chart(title, describe(contexts[0]), x_title, y_title, lines, logarithmic))
            print(path)


if __name__ == "__main__":
    main()
