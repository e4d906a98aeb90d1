"""Write what TransformerLens gives on weights that a formula makes: tests/data/transformer_lens.json

    python3 -m venv /tmp/tl && /tmp/tl/bin/pip install torch "transformer-lens<4"
    /tmp/tl/bin/python tools/transformer_lens_reference.py

TransformerLens is not needed to test llmlab, so this runs in an environment of its own, without llmlab.
"""

import json
import zlib
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "transformer_lens.json"
SHAPE = dict(vocab_size=23, context=24, layers=3, heads=4, d_model=32, tied=False)  # a llmlab Config
FIRST, PERIOD = 5, 7  # ids: two rounds of FIRST, FIRST + 2, ...
TOKEN, OTHER = 3, 11  # whose logits are split


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    "Numbers that any machine makes again: a wave that gets faster and faster, another for each name."
    size = torch.Size(shape).numel()
    n = torch.arange(size, dtype=torch.float64)
    wave = torch.sin(0.6180339887 * n * n + zlib.crc32(name.encode()) % 1000)
    gain = 0.2 if len(shape) == 1 else 1.0 if name.startswith(("embed", "head")) else 0.4
    centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return centre + gain * wave.view(shape)


def texts() -> tuple[Tensor, Tensor]:
    "Two rounds of different tokens, and the same with another token in the first round."
    once = [(FIRST + 2 * i) % SHAPE["vocab_size"] for i in range(PERIOD)]
    clean = torch.tensor([2 * once])
    corrupted = clean.clone()
    corrupted[0, 2] = 0
    return clean, corrupted


def theirs(**processing):
    "A HookedTransformer with the weights of a llmlab Decoder of this SHAPE."
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    v, t, layers, h, d = (SHAPE[k] for k in ("vocab_size", "context", "layers", "heads", "d_model"))
    cfg = HookedTransformerConfig(
        n_layers=layers, d_model=d, n_ctx=t, d_head=d // h, n_heads=h, d_mlp=4 * d, d_vocab=v,
        act_fn="gelu_new", normalization_type="LN", eps=1e-5, positional_embedding_type="standard",
        dtype=torch.float64, device="cpu",
    )  # fmt: skip
    state = {"embed.W_E": weight("embed.tokens.weight", (v, d))}
    state["pos_embed.W_pos"] = weight("embed.positions.weight", (t, d))
    state |= {
        "unembed.W_U": weight("head.weight", (v, d)).T,
        "unembed.b_U": torch.zeros(v, dtype=torch.float64),
    }
    state |= {"ln_final.w": weight("norm.weight", (d,)), "ln_final.b": weight("norm.bias", (d,))}
    for i in range(layers):
        block = f"blocks.{i}."  # called so in both
        qkv = weight(block + "attention.qkv.weight", (3 * d, d)).view(3, h, d // h, d)
        bias = weight(block + "attention.qkv.bias", (3 * d,)).view(3, h, d // h)
        for j, part in enumerate("QKV"):
            state |= {f"{block}attn.W_{part}": qkv[j].transpose(1, 2), f"{block}attn.b_{part}": bias[j]}
        out = weight(block + "attention.out.weight", (d, d))
        state[block + "attn.W_O"] = out.T.reshape(h, d // h, d)
        state[block + "attn.b_O"] = weight(block + "attention.out.bias", (d,))
        for n in "12":
            state |= {f"{block}ln{n}.{p[0]}": weight(f"{block}norm{n}.{p}", (d,)) for p in ("weight", "bias")}
        state[block + "mlp.W_in"] = weight(block + "mlp.up.weight", (4 * d, d)).T
        state[block + "mlp.W_out"] = weight(block + "mlp.down.weight", (d, 4 * d)).T
        state[block + "mlp.b_in"], state[block + "mlp.b_out"] = (
            weight(f"{block}mlp.{p}.bias", (size,)) for p, size in (("up", 4 * d), ("down", d))
        )
    model = HookedTransformer(cfg)
    plain = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict({k: x.contiguous() for k, x in state.items()}, **plain | processing)
    model.to_tokens = lambda ids, **_: ids  # detect_head asks for text; we have no tokenizer, and give ids
    return model.eval()


def shares(cache, labelled) -> dict[str, float]:
    "logit_attrs of one stack at the last position, for TOKEN and less OTHER."
    stack, labels = labelled
    one, less = cache.logit_attrs(stack, TOKEN)[:, 0, -1], cache.logit_attrs(stack, TOKEN, OTHER)[:, 0, -1]
    return {label: [a.item(), b.item()] for label, a, b in zip(labels, one, less, strict=True)}


def split(model, ids) -> dict:
    "Direct logit attribution by heads, by layers' parts and by biases."
    logits, cache = model.run_with_cache(ids)
    found = shares(cache, cache.decompose_resid(return_labels=True))
    found |= shares(cache, cache.stack_head_results(return_labels=True))
    biases = torch.stack([block.attn.b_O for block in model.blocks])[:, None, None].expand(
        -1, 1, ids.shape[1], -1
    )
    found |= shares(cache, (biases, [f"{i}_b_O" for i in range(len(biases))]))
    b = model.unembed.b_U
    found["b_U"] = [b[TOKEN].item(), (b[TOKEN] - b[OTHER]).item()]
    last = logits[0, -1]
    return found | {"logit": [last[TOKEN].item(), (last[TOKEN] - last[OTHER]).item()]}


def detected(model, ids) -> dict[str, list[list[float]]]:
    "detect_head in all its ways."
    from transformer_lens.head_detector import detect_head

    found = {}
    for kind in ("previous_token_head", "induction_head", "duplicate_token_head"):
        for measure in ("mul", "abs"):
            for bos, current in ((False, False), (True, False), (False, True), (True, True)):
                key = " ".join([kind, measure, *["exclude_bos"] * bos, *["exclude_current_token"] * current])
                options = dict(exclude_bos=bos, exclude_current_token=current, error_measure=measure)
                found[key] = detect_head(model, ids, kind, **options).tolist()
    return found


def without(model, ids, value) -> list[list[float]]:
    "The answer's logit less that of the whole model, each head's z replaced in turn."
    whole, rows = model(ids)[0, -1, TOKEN], []
    for layer in range(SHAPE["layers"]):
        rows.append([])
        for head in range(SHAPE["heads"]):

            def silence(z, hook, layer=layer, head=head):
                z[:, :, head] = value(layer, head)
                return z

            logits = model.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", silence)])
            rows[-1].append((logits[0, -1, TOKEN] - whole).item())
    return rows


@torch.no_grad()
def main() -> None:
    from transformer_lens import patching

    model, folded, usual = (
        theirs(),
        theirs(fold_ln=True),
        theirs(fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True),
    )
    clean, corrupted = texts()
    logits, cache = model.run_with_cache(clean)
    assert torch.allclose(logits.log_softmax(-1), usual(clean).log_softmax(-1), atol=1e-9)
    best, worst = logits[0, -1, TOKEN], model(corrupted)[0, -1, TOKEN]
    share = lambda logits: (logits[0, -1, TOKEN] - worst) / (best - worst)  # noqa: E731
    lens = model.unembed(cache.accumulated_resid(apply_ln=True)[:, 0]).log_softmax(-1)
    stripes = [
        cache["pattern", i].diagonal(1 - PERIOD, -2, -1).mean((0, 2)).tolist() for i in range(SHAPE["layers"])
    ]
    found = {
        "made_by": "tools/transformer_lens_reference.py",
        "versions": {name: version(name) for name in ("transformer-lens", "torch")},
        "shape": SHAPE, "clean": clean.tolist(), "corrupted": corrupted.tolist(), "period": PERIOD,
        "token": TOKEN, "other": OTHER,
        "accumulated_resid": lens[:, [4, -1]].tolist(),
        "detect_head": detected(model, clean),
        "induction_stripe": stripes,
        "logit_attrs": {"fold_ln": split(folded, clean), "usual": split(usual, clean)},
        "patch_resid_pre": patching.get_act_patch_resid_pre(model, corrupted, cache, share).tolist(),
        "zero": without(model, clean, lambda layer, head: 0.0),
        "mean": without(model, clean, lambda layer, head: cache["z", layer][:, :, head].mean((0, 1))),
    }  # fmt: skip
    OUT.parent.mkdir(exist_ok=True)
    rounded = json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 9))
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in rounded.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
