#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints the results of nha_bench as Markdown tables. Needs nothing but Python.

  bench/table.py result.json [more.json ...] > table.md

A table for each group, with our own figures, and one with the peers' times over ours from the same
rounds. More than one result may be given, those of torch_sdpa.py among them.
"""
import argparse

import plot

# Counters worth a column, where a group has them, and how they are written.
COLUMNS = {"ns/token": "{:.0f}", "of_peak": "{:.0%}", "GFLOP/s": "{:.1f}", "GB/s": "{:.1f}",
           "read_GB/s": "{:.1f}", "half_written_GB/s": "{:.1f}", "all_written_GB/s": "{:.1f}",
           "over_G:1": "{:.2f}", "over_T:2048": "{:.2f}",
           "of_bandwidth": "{:.2f}", "of_traffic": "{:.2f}", "ours/float32": "{:.2f}",
           "backward/forward": "{:.2f}", "speedup": "{:.2f}", "peak_speedup": "{:.2f}",
           "ours/reference": "{:.2f}", "ours/xsimd": "{:.2f}", "odd/even": "{:.2f}",
           "state_bytes": "{:,.0f}", "workspace_bytes": "{:,.0f}"}


def print_table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def sizes_of(benchmarks):
    """The sizes that differ between benchmarks; the others are the same in every row."""
    names = list(dict.fromkeys(name for b in benchmarks for name in b.sizes))
    return [n for n in names if len({b.sizes.get(n) for b in benchmarks}) > 1] or names[:1]


def order(benchmark):
    """By the sizes as numbers, so that T = 512 comes before T = 2048."""
    return [(0, float(v), "") if v.replace(".", "", 1).isdigit() else (1, 0, v)
            for v in benchmark.sizes.values()]


def heading(benchmarks, sizes):
    same = [f"{n} = {v}" for n, v in benchmarks[0].sizes.items() if n not in sizes]
    return f" ({', '.join(same)})" if same else ""


def written(column, value):
    return f"{value:.2f}" if column == "ns/token" and value < 10 else COLUMNS[column].format(value)


def print_group(group, benchmarks):
    ours = sorted((b for b in benchmarks if b.peer == "nha"), key=order)
    if ours:
        sizes = sizes_of(ours)
        columns = [c for c in COLUMNS if any(c in b.counters for b in ours)]
        print(f"### {group}{heading(ours, sizes)}\n")
        print_table(sizes + columns,
                    [[b.sizes.get(n, "") for n in sizes] +
                     [written(c, b.counters[c]) if c in b.counters else "" for c in columns]
                     for b in ours])
    theirs = [b for b in benchmarks if b.peer != "nha" and "peer/ours" in b.counters]
    if theirs:
        sizes = sizes_of(theirs)
        peers = list(dict.fromkeys(b.peer for b in theirs))
        rows = {}
        for b in sorted(theirs, key=order):
            rows.setdefault(tuple(b.sizes.get(n, "") for n in sizes), {})[b.peer] = b
        print(f"### {group}: peers' time over ours{heading(theirs, sizes)}\n")
        print_table(sizes + peers,
                    [list(key) + [f"{found[p].counters['peer/ours']:.2f}" if p in found else ""
                                  for p in peers] for key, found in rows.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="JSON from --benchmark_out")
    benchmarks, contexts = plot.read(parser.parse_args().results)
    peers = {n: v for c in contexts for n, v in c.items() if n.startswith("peer ") or n == "torch"}
    print("; ".join([plot.describe(contexts[0])] +
                    [f"{name.removeprefix('peer ')} {peers[name]}" for name in sorted(peers)]) + "\n")
    groups = {}
    for b in benchmarks:
        groups.setdefault(b.group, []).append(b)
    for group, found in groups.items():
        print_group(group, found)


if __name__ == "__main__":
    main()
