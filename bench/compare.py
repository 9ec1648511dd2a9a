#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the speed of two revisions of the library.

  bench/compare.py HEAD~1                         the working tree against a revision
  bench/compare.py v0.1 v0.2 --filter ^prefill/   one revision against another

Builds nha_bench of both in a temporary folder, runs them in turn several times, and prints for each
benchmark both have the median of the ratios of neighbouring runs (after / before: below 1 is faster)
and the spread of these ratios. Exits with 1 if a benchmark has become slower by more than --worse in
every pair of runs, or gives no time any more: because its results are wrong, or it is gone.
"""
import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Names end in /iterations:1/manual_time, those of peers in /peer:NAME before it.
OURS = "^(prefill|full_window|decode|backward)/.*(gates:[a-z]*|T:[0-9]*|F32|BF16|F16)/iterations"


def run(command, **options):
    return subprocess.run(command, check=True, **options)


def build(source, build_folder, cmake_options):
    """Builds nha_bench of a source tree; returns the program."""
    quiet = {"stdout": subprocess.DEVNULL}
    run(["cmake", "-S", source, "-B", build_folder, "-DCMAKE_BUILD_TYPE=Release",
         "-DNHA_BUILD_TESTS=OFF", "-DNHA_BUILD_EXAMPLES=OFF", *cmake_options], **quiet)
    run(["cmake", "--build", build_folder, "--target", "nha_bench", "--parallel", "2"], **quiet)
    return build_folder / "bin" / "nha_bench"


def measure(program, pattern, rounds, result):
    """Runs the benchmarks; returns {name: microseconds} of those whose results are right."""
    subprocess.run([program, f"--benchmark_filter={pattern}", f"--rounds={rounds}",
         f"--benchmark_out={result}", "--benchmark_out_format=json"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    times = {}
    for entry in json.loads(result.read_text())["benchmarks"]:
        if entry.get("error_occurred"):
            print(f"{entry['name']}: {entry['error_message']}", file=sys.stderr)
        else:
            times[re.sub(r"/iterations:1/manual_time$", "", entry["name"])] = entry["real_time"]
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a git revision")
    parser.add_argument("after", nargs="?", help="a git revision; left out: the working tree")
    parser.add_argument("--filter", default=OURS,
                        help="benchmarks to run, a regular expression (default: prefill, full "
                        "window, decode and backward without the peers)")
    parser.add_argument("--runs", type=int, default=5, help="of each program, in turn (default 5)")
    parser.add_argument("--rounds", type=int, default=7, help="of each benchmark in a run")
    parser.add_argument("--worse", type=float, default=0.05, help="what counts as slower (0.05)")
    parser.add_argument("--cmake", action="append", default=[], metavar="OPTION",
                        help="an option for CMake, such as --cmake=-DNHA_MARCH=x86-64-v3")
    arguments = parser.parse_args()

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="nha_compare_"))
    worktrees = []

    def checked_out(revision, name):
        if revision is None:
            return ROOT
        run(["git", "-C", ROOT, "worktree", "add", "--detach", "--quiet", scratch / name, revision])
        worktrees.append(scratch / name)
        return scratch / name

    try:
        programs = [build(checked_out(arguments.before, "before"), scratch / "build_before",
                          arguments.cmake),
                    build(checked_out(arguments.after, "after"), scratch / "build_after",
                          arguments.cmake)]
        ratios, last, lost = {}, {}, set()
        for _ in range(arguments.runs):
            before, after = (measure(program, arguments.filter, arguments.rounds,
                                     scratch / "result.json") for program in programs)
            lost |= before.keys() - after.keys()
            for name in before.keys() & after.keys():
                ratios.setdefault(name, []).append(after[name] / before[name])
                last[name] = (before[name], after[name])
    finally:
        for worktree in worktrees:
            run(["git", "-C", ROOT, "worktree", "remove", "--force", worktree])
        shutil.rmtree(scratch, ignore_errors=True)

    if not ratios:
        sys.exit("no benchmark of that name in both revisions")
    slower = []
    width = max(map(len, ratios))
    print(f"{'benchmark':{width}}  {'before us':>10}  {'after us':>10}  {'ratio':>6}  spread")
    for name in sorted(last):
        values = ratios[name]
        print(f"{name:{width}}  {last[name][0]:10.2f}  {last[name][1]:10.2f}  "
              f"{statistics.median(values):6.3f}  {min(values):.3f}-{max(values):.3f}")
        if min(values) > 1 + arguments.worse:
            slower.append(name)
    everything = [statistics.median(values) for values in ratios.values()]
    print(f"geometric mean of the ratios: {statistics.geometric_mean(everything):.3f}")
    if lost:
        sys.exit("no time any more: " + ", ".join(sorted(lost)))
    if slower:
        sys.exit("slower in every run: " + ", ".join(sorted(slower)))


if __name__ == "__main__":
    main()
