"""Perplexity of a long text by a GPT-2-small-shaped model: token_logprobs beside the textbook way, each in a
process.

    python bench/perplexity.py [--json FILE]

Both read the same overlapping windows in the same batches and score the same tokens. The textbook way takes
the logits of all windows of a batch, then log-softmax, then picks; token_logprobs computes the logits of
scored tokens only, some rows at a time. Weights are random: they change neither memory nor time. Memory is
the peak resident set (CPU).
"""

import json
import subprocess
import sys
import time

import torch
from _shared import DEVICE, TINY, arguments, write

from llmlab.devices import peak_memory
from llmlab.metrics import evaluating, perplexity, scoring_windows, token_logprobs
from llmlab.scoring import window_batches
from llmlab.transformer import Config, Decoder, count_parameters

GPT2 = (
    Config(64, 32, 2, 2, 16)
    if TINY
    else Config(vocab_size=50257, context=1024, layers=12, heads=12, d_model=768)
)


def textbook(model, ids, stride, batch_size):
    "All logits of a batch of windows at once."
    parts = []
    with evaluating(model):
        n = len(ids) - 1
        context = model.cfg.context
        windows = scoring_windows(n, context, stride)
        for inputs, targets, keep in window_batches(ids, windows, min(context, n), batch_size):
            logprobs = model(inputs).log_softmax(-1)
            parts.append(logprobs.gather(-1, targets[..., None])[..., 0][keep])
    return torch.cat(parts)


def ours(model, ids, stride, batch_size):
    return token_logprobs(model, ids, stride=stride, batch_size=batch_size)


def measure(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Decoder(GPT2).eval().to(DEVICE)
    ids = torch.randint(GPT2.vocab_size, (args.tokens,), device=DEVICE)
    way = {"textbook": textbook, "llmlab": ours}[args.way]
    loaded, began = peak_memory(DEVICE), time.perf_counter()
    score = perplexity(way(model, ids, args.stride, args.batch))
    return {
        "perplexity": float(score),
        "parameters": count_parameters(model),
        "loaded_mb": round(loaded),
        "seconds": time.perf_counter() - began,
        "peak_mb": round(peak_memory(DEVICE)),
    }


def main():
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=200 if TINY else 16_897)  # 32 windows: two full batches
    parser.add_argument("--stride", type=int, default=GPT2.context // 2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--way", choices=["textbook", "llmlab"], help="measure one and print it as JSON")
    args = parser.parse_args()
    if args.way:
        return print(json.dumps(measure(args)))
    rows = {}
    for way in ("llmlab", "textbook"):
        ran = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--way", way], capture_output=True, text=True
        )
        if ran.returncode:
            sys.exit(f"{way}: {ran.stderr or f'ended with {ran.returncode}; was there memory enough?'}")
        rows[way] = row = json.loads(ran.stdout)
        print(
            f"{way:10} {row['seconds']:7.1f} s   peak {row['peak_mb']:6,} MB, "
            f"{row['loaded_mb']:,} at the start"
        )
    a, b = rows["llmlab"], rows["textbook"]
    assert abs(a["perplexity"] / b["perplexity"] - 1) < 1e-4
    ratios = {
        "memory": b["peak_mb"] / a["peak_mb"],
        "seconds": b["seconds"] / a["seconds"],
        "memory_beyond_the_model": (b["peak_mb"] - b["loaded_mb"]) / max(a["peak_mb"] - a["loaded_mb"], 1),
    }
    ratios = {name: round(ratio, 2) for name, ratio in ratios.items()}
    print("textbook / llmlab:", ", ".join(f"{name} {ratio}" for name, ratio in ratios.items()))
    write(args, {"ways": rows, "textbook_over_llmlab": ratios}, dtype="float32")


if __name__ == "__main__":
    main()
