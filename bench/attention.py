"""attention beside bare scaled_dot_product_attention, and the pooled map beside the textbook: python
bench/attention.py

Speed: interleaved rounds, medians of the ratios. The map: each way in a process of its own, for its memory
peak and its seconds, beside the fused path, which shows no weights at all.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from _shared import DEVICE, TINY, arguments, interleave, ratio, write

from llmlab import attention_map
from llmlab.attention import causal_mask, dot_product_attention
from llmlab.devices import peak_memory

GPU = DEVICE.type == "cuda"
DTYPE = torch.bfloat16 if GPU else torch.float32
SIZES = [(2, 2, 16, 8)] if TINY else [(32, 4, 64, 32), (4, 6, 256, 64), (1, 12, 2048, 64)]
SIZES += [(16, 12, 1024, 64), (1, 12, 16384, 64)] if GPU else []
SHAPES = {" × ".join(map(str, shape)): shape for shape in SIZES}


def race(shape, rounds):
    "Seconds, forward and backward, of ours over the bare function's."
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=DTYPE, requires_grad=True) for _ in range(3))
    ways = {
        "attention": lambda: dot_product_attention(q, k, v, causal=True),
        "bare": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    steps = {name: lambda way=way: way().sum().backward() for name, way in ways.items()}
    seconds = interleave(steps, rounds)
    return {
        "bare_ms": round(1e3 * statistics.median(seconds["bare"]), 3),
        "attention_over_bare": ratio(seconds["attention"], seconds["bare"]),
    }


def textbook(q, k, bins):
    "All weights, then pooled."
    future = ~causal_mask(q.shape[-2], device=q.device)
    s = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).masked_fill(future, float("-inf"))
    return s.softmax(-1).unflatten(-1, (bins, -1)).sum(-1).unflatten(-2, (bins, -1)).mean(-2)


WAYS = {
    "fused": lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
    "attention_map": lambda q, k: attention_map(q, k, 64, causal=True),
    "textbook": lambda q, k: textbook(q, k, 64),
}


def one(way, t, heads):
    "Megabytes and seconds of one way, in this process."
    small = torch.randn(2, 1, heads, 128, 64, device=DEVICE)
    WAYS[way](*small)  # loads what is loaded once
    q, k = torch.randn(2, 1, heads, t, 64, device=DEVICE)
    before, began, busy = peak_memory(DEVICE), time.perf_counter(), time.process_time()
    float(WAYS[way](q, k).sum())
    used = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    print(json.dumps({**used, "mb": peak_memory(DEVICE) - before}))


def main():
    parser = arguments(__doc__, rounds=50)
    parser.add_argument("--tokens", type=int, default=256 if TINY else 8192)
    parser.add_argument("--heads", type=int, default=2 if TINY else 12)
    parser.add_argument("--one", choices=WAYS, help="only one way of the map")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        return one(args.one, args.tokens, args.heads)
    speed, pooled = {}, {}
    dtype = str(DTYPE).removeprefix("torch.")
    for name, shape in SHAPES.items():
        row = speed[name] = race(shape, args.rounds)
        print(
            f"{name:22} attention takes {row['attention_over_bare']:.3f} × the bare function's "
            f"{row['bare_ms']} ms"
        )
        write(args, {"speed": speed}, dtype=dtype)
    size = ["--threads", args.threads, "--tokens", args.tokens, "--heads", args.heads]
    for way in WAYS:
        ran = subprocess.run(
            [sys.executable, __file__, *map(str, size), "--one", way], capture_output=True, check=True
        )
        pooled[way] = {key: round(value, 2) for key, value in json.loads(ran.stdout).items()}
        print(f"{args.tokens} tokens, {args.heads} heads: {way:14} {pooled[way]}", flush=True)
        write(args, {"speed": speed, "map": pooled}, dtype=dtype, map_dtype="float32")


if __name__ == "__main__":
    main()
