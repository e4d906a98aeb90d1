"""Corpus BLEU of 100,000 pairs by llmlab and by sacrebleu, in one run: python bench/bleu.py [--json FILE]

Both get the same ids: sacrebleu as strings for tokenize="none", token_bleu as lists and as one padded tensor. Rounds
are interleaved, so that a slow moment of the machine hits everybody. Read the ratios; seconds belong to this machine
and hour. sacrebleu is one thread, so PyTorch gets one, too; --threads gives it more. A GPU is used where there is one.
"""
import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
import sacrebleu
import torch
from sacrebleu.metrics import BLEU

import llmlab
from llmlab.bleu import token_bleu


def corpus(pairs, vocab_size=8000):
    "Sentences of 5 to 44 tokens, few of them frequent; hypotheses with 30 % other tokens and up to 3 tokens less."
    draw = np.random.default_rng(0)
    ids = lambda n: (vocab_size * draw.random(n) ** 3).astype(int)  # noqa: E731
    refs = [ids(n) for n in draw.integers(5, 45, pairs)]
    hyps = [np.where(draw.random(len(r)) < 0.3, ids(len(r)), r)[: len(r) - draw.integers(4)] for r in refs]
    return [h.tolist() for h in hyps], [r.tolist() for r in refs]


def padded(rows, device):
    out = np.full((len(rows), max(map(len, rows))), -100)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.tensor(out, device=device)


def words(rows):
    return [" ".join(map(str, row)) for row in rows]


def timed(score):
    began = time.perf_counter()
    value = float(score())
    return time.perf_counter() - began, value


def race(runners, rounds):
    "Seconds of the fastest of several interleaved rounds, and the score."
    for score in runners.values():
        score()  # warm-up
    runs = {name: [] for name in runners}
    for _ in range(rounds):
        for name, score in runners.items():
            runs[name].append(timed(score))
    best = {name: round(min(s for s, _ in all_), 3) for name, all_ in runs.items()}
    return {name: {"seconds": best[name], "bleu": all_[0][1]} for name, all_ in runs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hyps, refs = corpus(args.pairs)
    texts, streams = words(hyps), [words(refs)]
    runners = {
        "sacrebleu": lambda: BLEU(tokenize="none", force=True).corpus_score(texts, streams).score,
        "token_bleu, lists": lambda: token_bleu(hyps, refs),
    }
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        tensors = padded(hyps, device), padded(refs, device)
        runners[f"token_bleu, {device} tensors"] = lambda pair=tensors: token_bleu(*pair)
    rows = race(runners, args.rounds)
    for name, row in rows.items():
        row["sacrebleu_over_this"] = round(rows["sacrebleu"]["seconds"] / row["seconds"], 2)
        ratio = row["sacrebleu_over_this"]
        print(f"{name:26} {row['seconds']:7.3f} s   BLEU {row['bleu']:.8f}   sacrebleu takes {ratio:.1f} ×")
        assert abs(row["bleu"] - rows["sacrebleu"]["bleu"]) < 1e-6
    where = {"date": date.today().isoformat(), "pairs": args.pairs, "threads": args.threads, "rounds": args.rounds,
             "machine": f"{platform.machine()}, {platform.system()}, CPU", "torch": torch.__version__,
             "sacrebleu": sacrebleu.__version__, "llmlab": llmlab.__version__}
    if torch.cuda.is_available():
        where["gpu"] = torch.cuda.get_device_name()
    if args.json:
        args.json.write_text(json.dumps({**where, "scores": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
