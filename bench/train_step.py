"""One causal training step by llmlab and by its peers, in one run: python bench/train_step.py [--json FILE]

The work is the same for all: forward, mean loss, backward, clip, AdamW, on the same random ids. Rounds are interleaved,
so that a slow moment of the machine hits everybody. Read the ratios; tokens per second belong to this machine and hour.
"""
import argparse
import json
import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import nn

import llmlab
from llmlab.causal import causal_loss
from llmlab.training import Recipe, optimizer
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


def gpt2(cfg):
    "The same model of transformers, with its fused attention."
    shape = dict(vocab_size=cfg.vocab_size, n_embd=cfg.d_model, n_layer=cfg.layers, n_head=cfg.heads)
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0)
    config = transformers.GPT2Config(**shape, **off, n_positions=cfg.context, attn_implementation="sdpa")
    return transformers.GPT2LMHeadModel(config)


def textbook_loss(model, ids):
    "Mean surprise at the next token, from all logits."
    logits = model(ids[:, :-1])
    return F.cross_entropy(getattr(logits, "logits", logits).flatten(0, 1), ids[:, 1:].flatten())


def step(model, loss, ids, opt):
    "Seconds of one training step."
    began = time.perf_counter()
    loss(model, ids).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    opt.zero_grad()
    return time.perf_counter() - began


def race(cfg, batch, rounds):
    "Tokens per second: medians over interleaved rounds."
    ids = torch.randint(cfg.vocab_size, (batch, cfg.context + 1))
    models = {
        "llmlab": (Decoder(cfg), causal_loss),
        "torch.nn.TransformerEncoder": (TorchModules(cfg), textbook_loss),
        "transformers GPT-2 (sdpa)": (gpt2(cfg), textbook_loss),
    }
    runners = {name: (*pair, ids, optimizer(pair[0], Recipe())) for name, pair in models.items()}
    seconds = {name: [] for name in runners}
    for turn in range(rounds + 3):
        for name, runner in runners.items():
            spent = step(*runner)
            if turn >= 3:  # the first rounds warm up
                seconds[name].append(spent)
    sizes = {name: n_params(model) for name, (model, _) in models.items()}
    return {name: {"tokens_per_second": round(batch * cfg.context / statistics.median(all_)), "parameters": sizes[name]}
            for name, all_ in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shapes = {}
    for shape, (cfg, batch) in SHAPES.items():
        shapes[shape] = race(cfg, batch, args.rounds)
        ours = shapes[shape]["llmlab"]["tokens_per_second"]
        for name, row in shapes[shape].items():
            row["llmlab_over_this"] = round(ours / row["tokens_per_second"], 3)
            speed, ratio = row["tokens_per_second"], row["llmlab_over_this"]
            print(f"{shape:22} {name:30} {speed:>9,} tokens/s   llmlab is {ratio:.2f} ×")
    where = {"date": date.today().isoformat(), "threads": args.threads, "rounds": args.rounds, "dtype": "float32",
             "machine": f"{platform.machine()}, {platform.system()}, CPU", "torch": torch.__version__,
             "transformers": transformers.__version__, "llmlab": llmlab.__version__}
    if args.json:
        args.json.write_text(json.dumps({**where, "shapes": shapes}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
