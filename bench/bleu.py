"""Corpus BLEU of 100,000 pairs by llmlab and by sacrebleu, in one run: python bench/bleu.py [--json FILE]

Both get the same ids: sacrebleu as strings for tokenize="none", token_bleu as lists and as one padded tensor.
Rounds are interleaved, so that a slow moment of the machine hits everybody. Read the ratios; seconds belong
to this machine and hour. sacrebleu is one thread, so PyTorch gets one, too; --threads gives it more. A GPU is
used where there is one.
"""

import numpy as np
import torch
from _shared import DEVICE, TINY, arguments, interleave, ratio, write

from llmlab.translation_scores import token_bleu

try:
    from sacrebleu.metrics import BLEU
except ImportError:  # then token_bleu's own ways race alone
    BLEU = None


def corpus(pairs, vocab_size=8000):
    "Sentences of 5 to 44 tokens; hypotheses with 30 % other tokens and up to 3 tokens less."
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


def main():
    parser = arguments(__doc__, rounds=5, threads=1)
    parser.add_argument("--pairs", type=int, default=100 if TINY else 100_000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hyps, refs = corpus(args.pairs)
    texts, streams = words(hyps), [words(refs)]
    theirs = lambda: BLEU(tokenize="none", force=True).corpus_score(texts, streams).score  # noqa: E731
    runners = {"sacrebleu": theirs} if BLEU else {}
    runners["token_bleu, lists"] = lambda: token_bleu(hyps, refs)
    for device in dict.fromkeys(["cpu", DEVICE.type]):
        tensors = padded(hyps, device), padded(refs, device)
        runners[f"token_bleu, {device} tensors"] = lambda pair=tensors: token_bleu(*pair)
    scores = {name: float(score()) for name, score in runners.items()}
    assert max(scores.values()) - min(scores.values()) < 1e-6, scores

    def keep(seconds):
        write(args, {"scores": table(seconds, scores)}, "sacrebleu")

    seconds = interleave(runners, args.rounds, warm=0, after=keep)
    for name, row in table(seconds, scores).items():
        print(f"{name:26} " + "  ".join(f"{key} {value:.5g}" for key, value in row.items()))


def table(seconds, scores):
    "A row a contestant."
    rows = {}
    for name, times in seconds.items():
        rows[name] = {"seconds": round(min(times), 3), "bleu": scores[name], "rounds": len(times)}
        if BLEU:
            rows[name]["sacrebleu_over_this"] = ratio(seconds["sacrebleu"], times)
    return rows


if __name__ == "__main__":
    main()
