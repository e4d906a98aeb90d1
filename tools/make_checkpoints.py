"""Train the checkpoint that chapters 06 and 08 show, and write its manifest: python tools/make_checkpoints.py

About ten minutes on one core. The model is the last one of the run: nothing was chosen by its validation score.
"""
import argparse
import hashlib
import json
import math
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch

from llmlab import __version__
from llmlab.causal import causal_loss
from llmlab.metrics import bits_per_byte, token_logprobs
from llmlab.ngrams import NGram
from llmlab.text import corpus
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit, load, save
from llmlab.transformer import Config, Decoder, n_params

DATA = Path(__file__).parents[1] / "llmlab" / "data"


def kneser_ney(train, valid, n_bytes, vocab_size):
    "Bits per byte of orders 1 to 5 on the same tokens."
    scores = {n: NGram(n, vocab_size).fit(train).logprobs(valid)[1:] for n in range(1, 6)}
    return {n: round(float(bits_per_byte(logprobs, n_bytes)), 4) for n, logprobs in scores.items()}


def train(model, ids, valid, n_bytes, recipe):
    "History with bits per byte, and seconds of CPU time without the validations."
    points, left_out = [], time.process_time()

    def validate(model):
        nonlocal left_out
        seconds, began = time.process_time() - left_out, time.process_time()
        score = float(bits_per_byte(token_logprobs(model, valid), n_bytes))
        points.append({"seconds": round(seconds, 1), "bits_per_byte": round(score, 4)})
        print(points[-1], flush=True)
        left_out += time.process_time() - began
        return score

    history = fit(model, Batches(ids, model.cfg.context + 1, recipe.batch_size), causal_loss, recipe, validate)
    rows = [row for row in history if "valid" in row]
    return [{"step": row["step"], **point} for row, point in zip(rows, points, strict=True)]


def facts_of(path):
    "What anybody can check about a file."
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=1, help="one: then CPU seconds are seconds of one core")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    whole = corpus("reference")
    learn, held = whole.split()
    tokenizer = Tokenizer.train(learn.text, 1024)
    ids, valid = ([tokenizer.eot, *tokenizer.encode_documents(part)] for part in (learn, held))
    n_bytes = sum(len(text.encode()) for text in held.documents.values())

    cfg = Config(tokenizer.vocab_size, context=256, layers=4, heads=4, d_model=128, position="rope", dropout=0.2)
    recipe = Recipe(steps=args.steps, batch_size=8, lr=2e-3, every=max(1, args.steps // 22))
    model = Decoder(cfg)
    curve = train(model, ids, valid, n_bytes, recipe)

    args.out.mkdir(parents=True, exist_ok=True)
    weights, merges = args.out / "reference-gpt.safetensors", args.out / "reference-gpt.tokenizer.json"
    tokenizer.save(merges)
    save(model, weights, torch.bfloat16, corpus=whole.fingerprint, **curve[-1])
    stored = float(bits_per_byte(token_logprobs(load(weights)[0], valid), n_bytes))
    manifest = {
        "reference-gpt.safetensors": {
            **facts_of(weights),
            "licence": "Apache-2.0; trained on CPython's documentation (PSF-2.0)",
            "made_by": "tools/make_checkpoints.py",
            "chosen": "the last step of the run; no choice was made on the validation split",
            "parameters": n_params(model),
            "dtype": "bfloat16",
            "config": asdict(cfg),
            "recipe": asdict(recipe),
            "corpus": {"name": whole.name, "fingerprint": whole.fingerprint, "train": learn.fingerprint,
                       "valid": held.fingerprint, "valid_bytes": n_bytes},
            "bits_per_byte": round(stored, 4),
            "kneser_ney_bits_per_byte": kneser_ney(ids, valid, n_bytes, tokenizer.vocab_size),
            "seconds": "CPU seconds of the training process, validation left out",
            "threads": args.threads,
            "curve": curve,
            "machine": f"{platform.machine()}, {platform.system()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "llmlab": __version__,
        },
        "reference-gpt.tokenizer.json": {
            **facts_of(merges),
            "licence": "Apache-2.0; merges counted on CPython's documentation (PSF-2.0)",
            "made_by": "tools/make_checkpoints.py",
        },
    }
    assert math.isfinite(stored) and weights.stat().st_size <= 2_000_000
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    print(f"{stored:.3f} bits per byte")


if __name__ == "__main__":
    main()
