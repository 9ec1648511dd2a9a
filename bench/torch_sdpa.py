#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""PyTorch's scaled_dot_product_attention on one CPU thread, at the sizes of nha_bench.

  python -m venv torch_env && torch_env/bin/pip install torch numpy
  torch_env/bin/python bench/torch_sdpa.py --nha build/release/bin/nha_bench --out torch.json

Full causal attention, a window of 64 in blocks of 64 queries, and decoding. With --nha the same sizes of
nha_bench run in turn with PyTorch's, size by size, and the column peer/ours is the ratio of the times.
Results are compared with attention in float64 before any time is taken. --out writes JSON that plot.py
reads beside that of nha_bench.
"""
import argparse
import datetime
import json
import math
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import torch
from torch.nn.functional import scaled_dot_product_attention as attention

WINDOW = 64
BLOCK = 64


def full(dim, tokens):
    q, k, v = (torch.randn(1, 1, tokens, dim) for _ in range(3))

    def exact():
        return attention(q.double(), k.double(), v.double(), is_causal=True)

    return lambda: attention(q, k, v, is_causal=True), exact, 2.0 * dim * (tokens + 1) * tokens, tokens


def windowed(dim, tokens):
    """Blocks of queries are a batch: each sees the block before it and its own, without a copy."""
    q, k, v = (torch.randn(tokens, dim) for _ in range(3))
    blocks = tokens // BLOCK

    def with_previous(x):
        padded = torch.cat([torch.zeros(BLOCK, dim), x])
        return padded.unfold(0, 2 * BLOCK, BLOCK).transpose(1, 2)[:, None]

    keys, values = with_previous(k), with_previous(v)
    row = torch.arange(BLOCK)[:, None] + BLOCK
    column = torch.arange(2 * BLOCK)[None]
    inside = (column <= row) & (column > row - WINDOW)
    mask = inside.repeat(blocks, 1, 1, 1)
    mask[0] &= column >= BLOCK  # nothing lies before the first block

    def run():
        return attention(q.view(blocks, 1, BLOCK, dim), keys, values,
                         attn_mask=mask).view(tokens, dim)

    def exact():
        t = torch.arange(tokens)
        seen = (t[None] <= t[:, None]) & (t[None] > t[:, None] - WINDOW)
        return attention(q.double()[None], k.double()[None], v.double()[None], attn_mask=seen)[0]

    return run, exact, 4.0 * WINDOW * dim * tokens, tokens


def decode(dim, past):
    q = torch.randn(1, 1, 1, dim)
    k, v = (torch.randn(1, 1, past, dim) for _ in range(2))

    def exact():
        return attention(q.double(), k.double(), v.double())

    return lambda: attention(q, k, v), exact, 4.0 * dim * past, 1


def median_time(run, rounds):
    """CPU time of one call: the median over the rounds."""
    run()
    start = time.thread_time()
    run()
    calls = max(1, math.ceil(1e-3 / max(time.thread_time() - start, 1e-9)))
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            run()
        times.append((time.thread_time() - start) / calls)
    return statistics.median(times)


def nha_time(program, name, rounds):
    """Seconds of nha_bench's benchmark of that name, without its peers."""
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "result.json"
        subprocess.run([program, f"--benchmark_filter=^{re.escape(name)}(/F32)?/iterations",
                        f"--rounds={rounds}", f"--benchmark_out={result}",
                        "--benchmark_out_format=json"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(result.read_text())["benchmarks"][0]["real_time"] * 1e-6


def sizes():
    for dim in (64, 128):
        for tokens in (512, 1024, 2048, 4096, 8192):
            yield f"full_window/D:{dim}/T:{tokens}", full, dim, tokens
        for tokens in (2048, 8192, 32768):
            yield f"prefill/M:0/W:{WINDOW}/D:{dim}/T:{tokens}/G:1/gates:usual", windowed, dim, tokens
        for past in (128, 1024, 8192, 32768, 131072):
            yield f"decode/context/M:64/W:64/D:{dim}/B:1/G:1/K:1/past:{past}", decode, dim, past


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nha", metavar="PROGRAM", help="nha_bench, to compare with")
    parser.add_argument("--filter", default="", help="sizes to run, a regular expression")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", metavar="FILE", help="JSON for plot.py")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)

    entries = []
    print(f"{'benchmark':76}  {'us':>10}  {'ns/token':>12}  {'GFLOP/s':>8}  {'peer/ours':>9}")
    with torch.inference_mode():
        for name, make, dim, count in sizes():
            full_name = f"{name}/peer:torch"
            if not re.search(arguments.filter, full_name):
                continue
            run, exact, operations, tokens = make(dim, count)
            if count <= 8192 or make is decode:  # the mask of the exact result is T x T
                expected = exact()
                error = ((run().double() - expected).norm() / expected.norm()).item()
                if error > 1e-4:
                    print(f"{full_name:76}  differs from float64, relative error {error:.1e}")
                    continue
            seconds = median_time(run, arguments.rounds)
            entry = {"name": full_name, "real_time": 1e6 * seconds, "time_unit": "us",
                     "ns/token": 1e9 * seconds / tokens, "GFLOP/s": 1e-9 * operations / seconds}
            ratio = ""
            if arguments.nha:
                entry["peer/ours"] = seconds / nha_time(arguments.nha, name, arguments.rounds)
                ratio = f"{entry['peer/ours']:.2f}"
            entries.append(entry)
            print(f"{full_name:76}  {1e6 * seconds:10.2f}  {entry['ns/token']:12.1f}  "
                  f"{entry['GFLOP/s']:8.1f}  {ratio:>9}", flush=True)

    if arguments.out:
        context = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                   "torch": torch.__version__}
        pathlib.Path(arguments.out).write_text(
            json.dumps({"context": context, "benchmarks": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
