#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds kernels/profiles/<gpu>/<stack>/ from a folder of measured kernel times.

    kernels/profiles/build_profiles.py MEASUREMENTS kernels/profiles

MEASUREMENTS holds <gpu>/<stack>/<table>.csv[.gz] and <gpu>/nccl/nccl.csv.gz. Nothing is fitted here: rows are screened by the
rules below, thinned where interpolation is as good, and written as one small gzip table per kernel and number format.
Rules, each row counted where it fails:
  impossible  faster than the chip's roofline: FLOPs / dense rate or compulsory bytes / (memory bandwidth, or, where
              the operands fit the L2 cache, three times it)
  slow        slower than 1.15 x another row of the same kernel that does at least as much work in every dimension, or than
              1.15 x a smaller row repeated until it has done as much
  untrusted   prefill attention of a GPU where more than a tenth of the rows is impossible: the others can't be told apart
  with quantisation  8-bit products that take longer than 16-bit ones
  launch-bound  latent attention, timed eagerly: shorter than 1.5 x the median of the rows that have next to no work
Format, columns and licences: docs/profiles.md. stack.toml files are written by hand and left alone.
"""

import csv
import gzip
import io
import math
import os
import sys
from collections import defaultdict

# Dense rates (FLOP/s), memory bandwidth (B/s), L2 (B): the makers' data sheets, as in platforms/catalogue/gpus.
CHIPS = {
    "h100-sxm": dict(bf16=989e12, fp8=1979e12, bandwidth=3.35e12, l2=50e6),
    "h200-sxm": dict(bf16=989e12, fp8=1979e12, bandwidth=4.8e12, l2=60e6),
    "a100-sxm-80gb": dict(bf16=312e12, fp8=0, bandwidth=2.039e12, l2=40e6),
    "rtx-4090": dict(bf16=165e12, fp8=330e12, bandwidth=1.008e12, l2=72e6),
    "rtx-pro-6000": dict(bf16=503.8e12, fp8=1007.6e12, bandwidth=1.792e12, l2=128e6),
}
SOURCES = {"a100-sxm-80gb": "a100-sxm"}  # catalogue name -> folder name of the measurements, where they differ
STACKS = {
    "h100-sxm": ["vllm-0.14", "torch-2.11"],
    "a100-sxm-80gb": ["vllm-0.14"],
    "h200-sxm": ["vllm-0.19", "torch-2.11"],
    "rtx-4090": ["vllm-0.19"],
    "rtx-pro-6000": ["vllm-0.19"],
}
SLOW = 1.15
FORMATS = {"bfloat16": "bf16", "bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "int4_wo": "int4"}
BYTES = {"bf16": 2, "fp8": 1, "fp8_block": 1, "int4": 0.5}


def read(path):
    for candidate in (path, path + ".gz"):
        if os.path.exists(candidate):
            opener = gzip.open if candidate.endswith(".gz") else open
            with opener(candidate, "rt", newline="") as f:
                return list(csv.DictReader(f))
    return []


def number(text):
    value = float(text)
    return int(value) if value == int(value) else value


def write(path, columns, rows, digits=5):
    """Deterministic gzip CSV: no time stamp, more digits than the noise."""
    text = io.StringIO()
    text.write(",".join(columns) + "\n")
    for row in rows:
        text.write(",".join(f"{v:.{digits}g}" if c == "seconds" else str(v) for c, v in zip(columns, row)) + "\n")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=9, filename="") as z:
        z.write(text.getvalue().encode())


class Screen:
    """Counts what each rule drops, and prints it."""

    def __init__(self, where):
        self.where, self.kept, self.dropped = where, 0, defaultdict(int)

    def possible(self, chip, rate, flops, bytes_, seconds):
        bandwidth = chip["bandwidth"] * (3 if bytes_ < chip["l2"] else 1)
        if seconds >= max(flops / rate if rate else 0, bytes_ / bandwidth) * 0.98:
            return True
        self.dropped["impossible"] += 1
        return False

    def keep_monotone(self, rows, key, work, repeat=False, slow=SLOW):
        """Rows (…, seconds) grouped by key; drops one `slow` times slower than any row of more work, and with `repeat` one that
        is `slow` times slower than running a smaller one several times."""
        groups = defaultdict(list)
        for row in rows:
            groups[key(row)].append(row)
        kept = []
        for group in groups.values():
            group.sort(key=work, reverse=True)
            best, good = math.inf, []
            for row in group:
                if row[-1] > slow * best:
                    self.dropped["slow"] += 1
                else:
                    best = min(best, row[-1])
                    good.append(row)
            for row in good if repeat else []:
                if any(row[-1] > slow * math.ceil(work(row) / work(r)) * r[-1] for r in good if work(r) < work(row)):
                    self.dropped["slow"] += 1
                else:
                    kept.append(row)
            if not repeat:
                kept += good
        return kept

    def report(self, kept):
        dropped = ", ".join(f"{n} {why}" for why, n in sorted(self.dropped.items())) or "none"
        print(f"{self.where}: {kept} rows kept; dropped: {dropped}")


def gemm(chip, source, target, name):
    by_format = defaultdict(dict)
    for r in read(f"{source}/gemm.csv"):
        f = FORMATS.get(r["dtype"])
        if f in ("bf16", "fp8"):
            by_format[f][(number(r["m"]), number(r["n"]), number(r["k"]))] = float(r["seconds"])
    for f, table in by_format.items():
        screen = Screen(f"{name} gemm {f}")
        # Engines fuse the quantisation of activations into the kernel before; where it was timed with the product, 8 bits come out
        # slower than 16 in large products, and the table says nothing about the product.
        ratios = sorted(s / by_format["bf16"][x] for x, s in table.items() if x[0] >= 1024 and x in by_format["bf16"])
        if f == "fp8" and ratios and ratios[len(ratios) // 2] > 1:
            screen.dropped["with quantisation"] = len(table)
            screen.report(0)
            if os.path.exists(f"{target}/gemm.{f}.csv.gz"):
                os.remove(f"{target}/gemm.{f}.csv.gz")
            continue
        ms = sorted({m for m, _, _ in table})
        # One token past a tile boundary (129 after 128) is thinned away: the step is a tile's, which the model has.
        thin = {m for m in ms if m > 16 and m - 1 in ms and len(ms) < 100}
        if len(ms) > 100:  # every 16 tokens: the even half of the sixteens above 512 says the same
            thin = {m for m in ms if m > 512 and m % 32}
        rows = []
        for (m, n, k), s in table.items():
            if m in thin:
                continue
            b = BYTES[f]
            if screen.possible(chip, chip[f], 2 * m * n * k, b * n * k + b * m * k, s):
                rows.append((f, m, n, k, s))
        rows = screen.keep_monotone(rows, lambda r: (r[2], r[3]), lambda r: r[1], repeat=True)
        rows = screen.keep_monotone(rows, lambda r: (r[1], r[3]), lambda r: r[2], repeat=True)
        rows.sort(key=lambda r: (r[2], r[3], r[1]))
        write(f"{target}/gemm.{f}.csv.gz", ["dtype", "m", "n", "k", "seconds"], rows)
        screen.report(len(rows))


def attention(chip, source, target, name):
    rows_by_format = defaultdict(list)
    screens, prefills, impossible = {}, defaultdict(int), defaultdict(int)
    raw = [(r, True) for r in read(f"{source}/attention_decode.csv")]
    raw += [(r, False) for r in read(f"{source}/attention_prefill.csv") if r["q_len"] != "1"]
    for r in read(f"{source}/attention_mixed.csv"):
        # Prefill and decode in one launch: kept here where one of them is absent; mixed_attention() has the rest.
        q, b = number(r["prefill_q_len"]), number(r["decode_batch"])
        if q > 1 and b == 0:
            raw.append((dict(r, kv_dtype=r["dtype"], batch="1", q_len=r["prefill_q_len"], past_len=r["prefill_past_len"]), False))
        elif q == 0 and b > 0:
            past = str(number(r["decode_kv_len"]) - 1)
            raw.append((dict(r, kv_dtype=r["dtype"], batch=r["decode_batch"], q_len="1", past_len=past), True))
    for r in read(f"{source}/attention.csv"):
        q = number(r["q_len"])
        r.update(kv_dtype=r["dtype"], past_len=str(number(r["kv_len"]) - q), head_dim="128")
        raw.append((r, q == 1))
    for r, decode in raw:
        f = FORMATS[r["kv_dtype"]]
        screen = screens.setdefault(f, Screen(f"{name} attention, {f} KV"))
        b, q, p, h, kv, d = (number(r[c]) for c in ("batch", "q_len", "past_len", "heads", "kv_heads", "head_dim"))
        s = float(r["seconds"])
        pairs = q * p + q * (q + 1) / 2
        prefills[f] += q > 1
        if screen.possible(chip, chip["bf16"], 4 * b * h * d * pairs, 2 * b * kv * d * (q + p) * BYTES[f], s):
            rows_by_format[f].append((FORMATS[r["dtype"]], f, b, q, p, h, kv, d, s))
        else:
            impossible[f] += q > 1
    columns = ["dtype", "kv_dtype", "batch", "q_len", "past_len", "heads", "kv_heads", "head_dim", "seconds"]
    for f, rows in rows_by_format.items():
        screen = screens[f]
        if impossible[f] > prefills[f] / 10:
            screen.dropped["untrusted"] = sum(r[3] > 1 for r in rows)
            rows = [r for r in rows if r[3] == 1]
        shape = lambda r: (r[3] == 1, r[5], r[6], r[7])
        rows = screen.keep_monotone(rows, lambda r: (shape(r), r[2], r[3] if r[4] and r[3] > 1 else 0), lambda r: (r[3], r[4]))
        rows = screen.keep_monotone(rows, lambda r: (shape(r), r[3], r[4]), lambda r: r[2], repeat=True)
        rows.sort(key=lambda r: (r[3] != 1, r[7], r[5], r[6], r[2], r[3], r[4]))
        write(f"{target}/attention.{f}.csv.gz", columns, rows)
        screen.report(len(rows))


def mixed_attention(source, target, name):
    """Launches of a prefill chunk with decodes. Kept: the grid of powers of two, less the planes that its neighbours tell:
    32 new tokens (one tile, as 16), 16 to 64 past tokens (within a tile), decodes at 32 and 64 tokens of KV. Interpolated from what
    is kept, the dropped planes come out within 0.5 % in the median, the rows of finer grids within 2 %."""
    rows, dropped = [], 0
    power = lambda n: n & (n - 1) == 0
    for r in read(f"{source}/attention_mixed.csv"):
        q, p, b, kv = (number(r[c]) for c in ("prefill_q_len", "prefill_past_len", "decode_batch", "decode_kv_len"))
        if q == 0 or b == 0:
            continue
        if not (power(q) and power(p) and power(b) and power(kv)) or q == 32 or 0 < p < 128 or kv in (32, 64):
            dropped += 1
            continue
        heads = tuple(number(r[c]) for c in ("heads", "kv_heads", "head_dim"))
        rows.append((FORMATS[r["dtype"]],) + heads + (q, p, b, kv, float(r["seconds"])))
    if rows:
        columns = ["kv_dtype", "heads", "kv_heads", "head_dim", "q_len", "past_len", "decode_batch", "decode_kv_len", "seconds"]
        write(f"{target}/attention_mixed.bf16.csv.gz", columns, sorted(rows), digits=4)
        screen = Screen(f"{name} attention_mixed bf16")
        screen.dropped["between kept ones"] = dropped
        screen.report(len(rows))


# Chunks of up to so many tokens attend in the latent space (vLLM's reorder_batch_threshold: FlashAttnMLA with a 16-bit
# cache on Hopper, FlashMLA with an 8-bit one; TritonMLA elsewhere has none). The times say so too: on H100 a token of a prompt
# of 1024 takes 0.6 x as long as one of a prompt of 512.
ABSORBED = {("h100-sxm", "bf16"): 512, ("h100-sxm", "fp8"): 128}


def latent_attention(gpu, chip, source, target, name):
    """One forward of vLLM's MLA attention: cache write, attention, and the products between latents and heads, launched from
    Python one after the other. Each choice of heads was measured under two names (of 128 and of 64 heads, cut): the quicker."""
    best, rank, rope, nope, value = defaultdict(dict), 512, 64, 128, 128
    for r in read(f"{source}/context_mla.csv") + read(f"{source}/generation_mla.csv"):
        shape, table = tuple(number(r[c]) for c in ("heads", "batch", "q_len", "past_len")), best[FORMATS[r["kv_dtype"]]]
        table[shape] = min(table.get(shape, math.inf), float(r["seconds"]))
    for f, table in best.items():
        screen, limit = Screen(f"{name} latent_attention, {f} KV"), ABSORBED.get((gpu, f), 1)
        rows, idle = [], []
        for (h, b, q, p), s in table.items():
            absorbed, pairs = q <= limit, b * q * (p + (q + 1) / 2)
            products = 2 * h * rank * (nope + value) * b * (q if absorbed else p + q)
            flops = products + 2 * h * pairs * (2 * rank + rope if absorbed else nope + rope + value)
            bytes_ = b * (p + q) * (rank + rope) * BYTES[f]
            if flops / chip["bf16"] + bytes_ / chip["bandwidth"] < 5e-6:
                idle.append(s)
            if screen.possible(chip, chip["bf16"], flops, bytes_, s):
                rows.append((("absorbed" if absorbed else "expanded", q == 1), (h, b, q, p), s))
        fast = [r for r in rows if not any(r[2] > SLOW * s and way == r[0] and all(x <= y for x, y in zip(r[1], shape))
                                           for way, shape, s in rows)]
        screen.dropped["slow"] = len(rows) - len(fast)
        floor = 1.5 * sorted(idle)[len(idle) // 2]
        kept = [(way, f) + shape + (s,) for (way, _), shape, s in fast if s >= floor]
        screen.dropped["launch-bound"] = len(fast) - len(kept)
        write(f"{target}/latent_attention.{f}.csv.gz", ["way", "kv_dtype", "heads", "batch", "q_len", "past_len", "seconds"],
              sorted(kept))
        screen.report(len(kept))


def moe(chip, source, target, name):
    """Inside a GPU (ep 1) tokens spread evenly over the experts where that was measured, else by a mild power law; the model
    then counts the experts that random routing hits. Across GPUs the power law stays: the busiest one sets the time."""
    by_format = defaultdict(list)
    raw = read(f"{source}/moe.csv")
    even = {r["dtype"] for r in raw if r["distribution"] == "balanced"}
    for r in raw:
        f = FORMATS.get(r["dtype"])
        wanted = "balanced" if r["ep"] == "1" and r["dtype"] in even else "power_law_1.01"
        if f not in ("bf16", "fp8", "int4") or r["distribution"] != wanted:
            continue
        shape = tuple(number(r[c]) for c in ("hidden", "ffn", "top_k", "experts", "tp", "ep", "tokens"))
        by_format[f].append((f, "balanced" if wanted == "balanced" else "power_law") + shape + (float(r["seconds"]),))
    columns = ["dtype", "distribution", "hidden", "ffn", "top_k", "experts", "tp", "ep", "tokens", "seconds"]
    for f, rows in by_format.items():
        screen = Screen(f"{name} moe {f}")
        rate = chip["fp8" if f == "fp8" else "bf16"]
        rows = [r for r in rows if r[7] > 1 or screen.possible(chip, rate, 6 * r[8] * r[4] * r[2] * r[3] / r[6], 0, r[-1])]
        rows = screen.keep_monotone(rows, lambda r: r[1:8], lambda r: r[8])
        rows.sort()
        write(f"{target}/moe.{f}.csv.gz", columns, rows)
        screen.report(len(rows))


def elementwise(source, target, name):
    rows = []
    for r in read(f"{source}/elementwise.csv"):
        if r["kernel"] != "add_rmsnorm_final":
            rows.append((r["kernel"], FORMATS[r["dtype"]], number(r["rows"]), number(r["width"]), float(r["seconds"])))
    if rows:
        rows.sort(key=lambda r: (r[0], r[3], r[2]))
        write(f"{target}/elementwise.csv.gz", ["kernel", "dtype", "rows", "width", "seconds"], rows)
        Screen(f"{name} elementwise").report(len(rows))


def communication(source, target, name):
    rows = [("copy_d2d" == r["kernel"], r["kernel"], number(r["bytes"]), float(r["seconds"])) for r in read(f"{source}/copy.csv")]
    if rows:
        write(f"{target}/copy.csv.gz", ["kernel", "bytes", "seconds"], [r[1:] for r in rows])
    columns = ["collective", "gpus", "bytes", "seconds"]
    rows = [(r["backend"], number(r["gpus"]), number(r["bytes"]), float(r["seconds"])) for r in read(f"{source}/all_reduce.csv")]
    if rows:
        rows = Screen(name).keep_monotone(rows, lambda r: r[:2], lambda r: r[2])
        write(f"{target}/all_reduce.csv.gz", columns, sorted(rows))
    # nccl-tests' times on the GPU, and what a PyTorch loop saw with its launch of every call (<collective>_eager): there a
    # row is noise only where it is twice as slow as a larger message.
    gpu_rows = [(r["collective"], number(r["gpus"]), number(r["bytes"]), float(r["seconds"]))
                for r in read(f"{os.path.dirname(source)}/nccl/nccl.csv")]
    own = [(r["collective"], number(r["gpus"]), number(r["bytes"]), float(r["seconds"])) for r in read(f"{source}/nccl.csv")]
    graph_rows = [r for r in own if r[0].endswith("_graph")]
    eager_rows = [(r[0] + "_eager",) + r[1:] for r in own if not r[0].endswith("_graph")]
    if gpu_rows or own:
        screen = Screen(name)
        rows = screen.keep_monotone(gpu_rows + graph_rows, lambda r: r[:2], lambda r: r[2])
        rows += screen.keep_monotone(eager_rows, lambda r: r[:2], lambda r: r[2], slow=2)
        write(f"{target}/nccl.csv.gz", columns, sorted(rows))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    measurements, profiles = sys.argv[1:]
    for gpu, stacks in STACKS.items():
        for stack in stacks:
            source = f"{measurements}/{SOURCES.get(gpu, gpu)}/{stack}"
            if not os.path.isdir(source):
                sys.exit(f"{source}: no such folder")
            target, name, chip = f"{profiles}/{gpu}/{stack}", f"{gpu}/{stack}", CHIPS[gpu]
            gemm(chip, source, target, name)
            attention(chip, source, target, name)
            mixed_attention(source, target, name)
            latent_attention(gpu, chip, source, target, name)
            moe(chip, source, target, name)
            elementwise(source, target, name)
            communication(source, target, name)


if __name__ == "__main__":
    main()
