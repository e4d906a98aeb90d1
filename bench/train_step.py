"""One causal training step by llmlab and by its peers, in one run: python bench/train_step.py [--json FILE]

The work is the same for all: forward, mean loss, backward, clip, fused AdamW, on the same random ids. Rounds are
interleaved, so that a slow moment of the machine hits everybody. Read the ratios; tokens per second belong to this
machine and hour. The memory peak is that of a process of its own for each: model, optimizer and three steps.
"""
import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import nn

import llmlab
from llmlab.causal import causal_loss
from llmlab.devices import flops_per_token, matrix_ceiling, memory_peak
from llmlab.training import Recipe, optimizer, train_step
from llmlab.transformer import Config, Decoder, n_params

SHAPES = {
    "4 × 128, context 64": (Config(512, 64, 4, 4, 128), 32),
    "6 × 384, context 256": (Config(512, 256, 6, 6, 384), 4),
}


class TorchModules(nn.Module):
    "The same model out of PyTorch's own layers."

    def __init__(self, cfg):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            cfg.d_model, cfg.heads, 4 * cfg.d_model, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.tokens, self.places = nn.Embedding(cfg.vocab_size, cfg.d_model), nn.Embedding(cfg.context, cfg.d_model)
        self.blocks = nn.TransformerEncoder(layer, cfg.layers, nn.LayerNorm(cfg.d_model), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(cfg.context))

    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        return F.linear(self.blocks(x, self.mask, is_causal=True), self.tokens.weight)


class NanoBlock(nn.Module):
    "A block as nanoGPT writes it: fused attention, exact GELU."

    def __init__(self, cfg):
        super().__init__()
        d, self.heads = cfg.d_model, cfg.heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(d, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, d))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    "The same model in nanoGPT's style, without dropout."

    def __init__(self, cfg):
        super().__init__()
        self.tokens, self.places = nn.Embedding(cfg.vocab_size, cfg.d_model), nn.Embedding(cfg.context, cfg.d_model)
        self.blocks = nn.Sequential(*(NanoBlock(cfg) for _ in range(cfg.layers)))
        self.norm, self.head = nn.LayerNorm(cfg.d_model), nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


def gpt2(cfg, kind):
    "The same model of transformers."
    shape = dict(vocab_size=cfg.vocab_size, n_embd=cfg.d_model, n_layer=cfg.layers, n_head=cfg.heads)
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0)
    config = transformers.GPT2Config(**shape, **off, n_positions=cfg.context, attn_implementation=kind)
    return transformers.GPT2LMHeadModel(config)


def litgpt(cfg):
    "The same widths of litgpt; it has rotary positions and no tied head."
    import litgpt

    config = litgpt.Config(
        block_size=cfg.context, vocab_size=cfg.vocab_size, padded_vocab_size=cfg.vocab_size, n_layer=cfg.layers,
        n_head=cfg.heads, n_embd=cfg.d_model, intermediate_size=4 * cfg.d_model, gelu_approximate="none",
    )
    return litgpt.GPT(config)


def textbook_loss(model, ids):
    "Mean surprise at the next token, from all logits."
    logits = model(ids[:, :-1])
    return F.cross_entropy(getattr(logits, "logits", logits).flatten(0, 1), ids[:, 1:].flatten())


MODELS = {
    "llmlab": (Decoder, causal_loss),
    "nanoGPT-style": (NanoGPT, textbook_loss),
    "torch.nn.TransformerEncoder": (TorchModules, textbook_loss),
    "transformers GPT-2 (sdpa)": (lambda cfg: gpt2(cfg, "sdpa"), textbook_loss),
    "transformers GPT-2 (eager)": (lambda cfg: gpt2(cfg, "eager"), textbook_loss),
}
if importlib.util.find_spec("litgpt"):
    MODELS["litgpt"] = (litgpt, textbook_loss)


def runner(name, cfg, batch):
    "A function that makes one step of this model."
    torch.manual_seed(0)
    make, loss = MODELS[name]
    model, ids, recipe = make(cfg), torch.randint(cfg.vocab_size, (batch, cfg.context + 1)), Recipe()
    opt = optimizer(model, recipe)
    return model, lambda: train_step(model, ids, loss, opt, recipe)


def race(cfg, batch, rounds):
    "Median seconds of one step: interleaved rounds, the first three to warm up."
    runners = {name: runner(name, cfg, batch) for name in MODELS}
    seconds = {name: [] for name in runners}
    for _ in range(rounds + 3):
        for name, (_, step) in runners.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    ours, flops = seconds["llmlab"][3:], flops_per_token(runners["llmlab"][0], cfg.context)
    rows = {}
    for name, (model, _) in runners.items():
        speed = batch * cfg.context / statistics.median(seconds[name][3:])
        ratios = [theirs / own for theirs, own in zip(seconds[name][3:], ours, strict=True)]
        share = flops * speed / matrix_ceiling("cpu")
        rows[name] = {"tokens_per_second": round(speed), "llmlab_over_this": round(statistics.median(ratios), 3),
                      "share_of_ceiling": round(share, 3), "parameters": n_params(model)}
    return rows


def peak(name, shape, threads):
    "Megabytes that three steps take on top of the imports, in a process of their own."
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, shape]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak(name, shape):
    before = memory_peak(torch.device("cpu"))
    _, step = runner(name, *SHAPES[shape])
    for _ in range(3):
        step()
    print(memory_peak(torch.device("cpu")) - before)


def commit():
    "Which state of the repository is measured."
    ran = subprocess.run(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
                         capture_output=True, text=True)
    return ran.stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "SHAPE"), help="only print the memory of one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        return own_peak(*args.peak)
    shapes = {}
    for shape, (cfg, batch) in SHAPES.items():
        shapes[shape] = race(cfg, batch, args.rounds)
        for name, row in shapes[shape].items():
            row["peak_mb"] = round(peak(name, shape, args.threads))
            speed, ratio, share = (row[key] for key in ("tokens_per_second", "llmlab_over_this", "share_of_ceiling"))
            print(f"{shape:22} {name:28} {speed:>8,} tokens/s  llmlab is {ratio:.2f} ×  {share:.0%} of the ceiling  "
                  f"{row['peak_mb']:>5} MB", flush=True)
    where = {"date": date.today().isoformat(), "threads": args.threads, "rounds": args.rounds, "dtype": "float32",
             "machine": f"{platform.machine()}, {platform.system()}, CPU", "commit": commit(),
             "torch": torch.__version__,
             "transformers": transformers.__version__, "llmlab": llmlab.__version__}
    if args.json:
        args.json.write_text(json.dumps({**where, "shapes": shapes}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
