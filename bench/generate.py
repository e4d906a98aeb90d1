"""Greedy generation by llmlab and by transformers' caches, in one run: python bench/generate.py [--json FILE]

The weights are the same, copied over, and so must be the tokens: 32 of prompt, 256 new ones. Rounds are
interleaved, so that a slow moment of the machine hits everybody. Read the ratios; tokens per second belong
to this machine and hour.
"""

import statistics

import torch
from _shared import DEVICE, TINY, arguments, interleave, ratio, write

from llmlab.generation import Sampling, generate
from llmlab.transformer import Config, Decoder, count_parameters

try:
    import transformers
except ImportError:  # then llmlab's own ways race alone
    transformers = None

SHAPES = {
    "4 × 128, context 512": Config(512, 512, 4, 4, 128),
    "6 × 384, context 512": Config(512, 512, 6, 6, 384),
}
GPU = DEVICE.type == "cuda"
if GPU:
    SHAPES = {"GPT-2 small": Config.gpt2_small()}
if TINY:
    SHAPES = {"tiny": Config(64, 64, 2, 2, 16)}
PROMPT, NEW = (4, 8) if TINY else (32, 256)


def twin(model):
    "The same weights as transformers' GPT-2."
    cfg = model.cfg
    off = dict(
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=None, pad_token_id=0
    )
    shape = dict(
        vocab_size=cfg.vocab_size,
        n_embd=cfg.d_model,
        n_layer=cfg.layers,
        n_head=cfg.heads,
        n_positions=cfg.context,
    )
    theirs, ours = (
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **off)).eval(),
        model.state_dict(),
    )
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
    theirs = twin(model) if transformers else None
    if GPU:
        model = model.to("cuda", torch.bfloat16)
        theirs = theirs and theirs.to("cuda", torch.bfloat16)
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    def peer(**cache):
        def write_on(ids):
            ids = ids.to(theirs.device)
            return theirs.generate(ids, attention_mask=torch.ones_like(ids), **options, **cache)[
                :, PROMPT:
            ].tolist()

        return write_on

    def ours(cache):
        return lambda ids: generate(model, ids.tolist(), NEW, Sampling(0), cache=cache)

    ways = {"llmlab": ours(True)}
    if transformers:
        ways["transformers, dynamic cache"] = peer()
    if GPU:  # what compiles comes last: it takes longest to prepare
        ways["llmlab, CUDA graphs"] = ours("compiled")
    if transformers:
        ways["transformers, static cache"] = peer(cache_implementation="static", disable_compile=not GPU)
    return ways, count_parameters(model)


def race(cfg, batch, rounds, keep):
    """A row a contestant; `keep` gets the rows as they come: each alone when it is prepared, then after
    each round."""
    ids = torch.randint(cfg.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(1))
    ways, size = runners(cfg)
    texts, seconds, rows = {}, {}, {}

    def table(seconds):
        best = "llmlab, CUDA graphs" if "llmlab, CUDA graphs" in seconds else "llmlab"
        for name, times in seconds.items():
            same = [
                a == b
                for x, y in zip(texts[best], texts[name], strict=True)
                for a, b in zip(x, y, strict=True)
            ]
            rows[name] = {
                "tokens_per_second": round(batch * NEW / statistics.median(times)),
                "parameters": size,
                "llmlab_over_this": ratio(times, seconds[best]),
                "share_of_equal_tokens": round(sum(same) / len(same), 4),
                "rounds": len(times),
            }
        keep(rows)

    for name, run in ways.items():
        texts[name] = run(ids)
        seconds |= interleave({name: lambda run=run: run(ids)}, 1, warm=0)
        table(seconds)
    interleave({name: lambda run=run: run(ids) for name, run in ways.items()}, rounds, warm=0, after=table)
    return rows


def main():
    args = arguments(__doc__, rounds=5).parse_args()
    torch.set_num_threads(args.threads)
    found = {}
    work = f"{PROMPT} tokens of prompt, {NEW} new, greedy"
    for shape, cfg in SHAPES.items():
        for batch in (1, 8):
            title = f"{shape}, batch {batch}"

            def keep(rows, title=title):
                found[title] = rows
                write(
                    args, {"shapes": found}, "transformers", dtype="bfloat16" if GPU else "float32", work=work
                )

            for name, row in race(cfg, batch, args.rounds, keep).items():
                equal = f"{row['share_of_equal_tokens']:.0%} equal tokens"
                what = f"{title}  {name:28} {row['tokens_per_second']:>7,} tokens/s"
                print(f"{what}   llmlab is {row['llmlab_over_this']:.2f} ×   {equal}", flush=True)


if __name__ == "__main__":
    main()
