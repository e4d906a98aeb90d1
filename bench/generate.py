"""Greedy generation by llmlab and by transformers' caches, in one run: python bench/generate.py [--json FILE]

The weights are the same, copied over, and so must be the tokens: 32 of prompt, 256 new ones. Rounds are interleaved, so
that a slow moment of the machine hits everybody. Read the ratios; tokens per second belong to this machine and hour.
"""

import argparse
import json
import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch
import transformers

import llmlab
from llmlab.generation import Sampling, generate
from llmlab.transformer import Config, Decoder, n_params

SHAPES = {
    "4 × 128, context 512": Config(512, 512, 4, 4, 128),
    "6 × 384, context 512": Config(512, 512, 6, 6, 384),
}
PROMPT, NEW = 32, 256


def twin(model):
    "The same weights as transformers' GPT-2."
    cfg = model.cfg
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=None, pad_token_id=0)
    shape = dict(
        vocab_size=cfg.vocab_size, n_embd=cfg.d_model, n_layer=cfg.layers, n_head=cfg.heads, n_positions=cfg.context
    )
    theirs, ours = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **off)).eval(), model.state_dict()
    names = {
        "embed.tokens": "wte",
        "embed.positions": "wpe",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
        "blocks": "h",
    }
    state = {}
    for name, x in ours.items():
        if name.startswith("norm."):
            name = name.replace("norm", "ln_f")
        for a, b in names.items():
            name = name.replace(a, b)
        linear = name.endswith("weight") and (".attn." in name or ".mlp." in name)
        state[f"transformer.{name}"] = x.T if linear else x
    wrong = theirs.load_state_dict(state, strict=False)
    assert wrong.missing_keys == ["lm_head.weight"] and not wrong.unexpected_keys, wrong
    theirs.tie_weights()
    return theirs


def runners(cfg):
    "Name → function from prompts [b t] to the new ids."
    torch.manual_seed(0)
    model = Decoder(cfg).eval()
    with torch.no_grad():
        for p in model.parameters():  # far from the start, so that no two tokens are equally likely
            p.add_(0.05 * torch.randn_like(p))
    theirs = twin(model)
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    def peer(**cache):
        return lambda ids: theirs.generate(ids, attention_mask=torch.ones_like(ids), **options, **cache)[
            :, PROMPT:
        ].tolist()

    return {
        "llmlab": lambda ids: generate(model, ids.tolist(), NEW, Sampling(0)),
        "transformers, dynamic cache": peer(),
        "transformers, static cache": peer(cache_implementation="static", disable_compile=True),
    }, n_params(model)


def race(cfg, batch, rounds):
    "Tokens per second: medians over interleaved rounds."
    ids = torch.randint(cfg.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(1))
    ways, size = runners(cfg)
    seconds, texts = {name: [] for name in ways}, {}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            texts[name] = run(ids)
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    ours = texts["llmlab"]
    same = {
        name: sum(a == b for x, y in zip(ours, text, strict=True) for a, b in zip(x, y, strict=True)) / (batch * NEW)
        for name, text in texts.items()
    }
    speed = {name: batch * NEW / statistics.median(all_) for name, all_ in seconds.items()}
    return {
        name: {
            "tokens_per_second": round(speed[name]),
            "llmlab_over_this": round(speed["llmlab"] / speed[name], 3),
            "parameters": size,
            "share_of_equal_tokens": round(same[name], 4),
        }
        for name in ways
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {}
    for shape, cfg in SHAPES.items():
        for batch in (1, 8):
            rows = found[f"{shape}, batch {batch}"] = race(cfg, batch, args.rounds)
            for name, row in rows.items():
                equal = f"{row['share_of_equal_tokens']:.0%} equal tokens"
                what = f"{shape}, batch {batch}  {name:28} {row['tokens_per_second']:>7,} tokens/s"
                print(f"{what}   llmlab is {row['llmlab_over_this']:.2f} ×   {equal}")
    where = {
        "date": date.today().isoformat(),
        "threads": args.threads,
        "rounds": args.rounds,
        "dtype": "float32",
        "work": f"{PROMPT} tokens of prompt, {NEW} new, greedy",
        "machine": f"{platform.machine()}, {platform.system()}, CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "llmlab": llmlab.__version__,
    }
    if args.json:
        args.json.write_text(json.dumps({**where, "shapes": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
