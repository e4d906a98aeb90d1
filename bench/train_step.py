"""One training step by llmlab and by its peers, in one run: python bench/train_step.py [--json FILE]

The work is the same for all: forward, mean loss, backward, clip, fused AdamW, exact GELU, on the same ids,
causal (predict the next token) or masked (predict the hidden 15 %). On a GPU: GPT-2 small, bf16,
torch.compile for everybody. Read the ratios; tokens per second belong to this machine and hour. The memory
peak is that of a process of its own for each: model, optimizer and three steps; on a GPU that of one step,
beyond what lay there before the model came. `loop` is whole short runs: fit beside the Trainer of
transformers.

With `--limit SECONDS` contestants are prepared one after another, llmlab first, each is timed alone as soon
as it is ready and written down, and those that the time does not reach are left out. Then come the
interleaved rounds.
"""

import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from operator import call

import torch
import torch.nn.functional as F
from _shared import DEVICE, TINY, arguments, interleave, ratio, write
from torch import nn

from llmlab.causal import causal_loss
from llmlab.devices import flops_per_token, peak_flops, peak_memory, uses_bf16
from llmlab.masked import MaskedLM, masked_loss
from llmlab.runs import Objective
from llmlab.training import Recipe, fit, make_optimizer, train_step
from llmlab.transformer import Config, Decoder, count_parameters

try:
    import transformers
except ImportError:  # the others race without it
    transformers = None

GPU = DEVICE.type == "cuda"
BERT = dict(norm_place="post", feed_forward="gelu_exact", norm_eps=1e-12, segments=2)
CAUSAL = {
    "causal, 4 × 128, context 64": (Config(512, 64, 4, 4, 128, feed_forward="gelu_exact"), 32),
    "causal, 6 × 384, context 256": (Config(512, 256, 6, 6, 384, feed_forward="gelu_exact"), 4),
}
MASKED = {
    "masked, 4 × 128, context 64, 512 tokens": (Config(512, 64, 4, 4, 128, **BERT), 32),
    "masked, 4 × 128, context 64, 30,522 tokens": (Config(30_522, 64, 4, 4, 128, **BERT), 32),
    "masked, 6 × 384, context 256, 30,522 tokens": (Config(30_522, 256, 6, 6, 384, **BERT), 4),
}
if GPU:
    CAUSAL = {"causal, GPT-2 small, context 1024": (Config.gpt2_small(), 16)}
    MASKED = {"masked, BERT base, context 512": (Config(30_522, 512, 12, 12, 768, **BERT), 32)}
if TINY:
    CAUSAL = {"causal, tiny": (Config(64, 16, 2, 2, 16, feed_forward="gelu_exact"), 2)}
    MASKED = {"masked, tiny": (Config(64, 16, 2, 2, 16, **BERT), 2)}


class TorchModules(nn.Module):
    "The same model out of PyTorch's own layers."

    def __init__(self, cfg):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            cfg.d_model, cfg.heads, 4 * cfg.d_model, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.tokens, self.places = (
            nn.Embedding(cfg.vocab_size, cfg.d_model),
            nn.Embedding(cfg.context, cfg.d_model),
        )
        self.blocks = nn.TransformerEncoder(
            layer, cfg.layers, nn.LayerNorm(cfg.d_model), enable_nested_tensor=False
        )
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
        q, k, v = (
            y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(d, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, d))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    "The same model in nanoGPT's style, without dropout."

    def __init__(self, cfg):
        super().__init__()
        self.tokens, self.places = (
            nn.Embedding(cfg.vocab_size, cfg.d_model),
            nn.Embedding(cfg.context, cfg.d_model),
        )
        self.blocks = nn.Sequential(*(NanoBlock(cfg) for _ in range(cfg.layers)))
        self.norm, self.head = nn.LayerNorm(cfg.d_model), nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


def gpt2(cfg, kind="sdpa"):
    "The same model of transformers."
    shape = dict(vocab_size=cfg.vocab_size, n_embd=cfg.d_model, n_layer=cfg.layers, n_head=cfg.heads)
    off = dict(
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        activation_function="gelu",
    )
    config = transformers.GPT2Config(**shape, **off, n_positions=cfg.context, attn_implementation=kind)
    return transformers.GPT2LMHeadModel(config)


def litgpt(cfg):
    "The same widths of litgpt; it has rotary positions and no tied head."
    import litgpt

    config = litgpt.Config(
        block_size=cfg.context,
        vocab_size=cfg.vocab_size,
        padded_vocab_size=cfg.vocab_size,
        n_layer=cfg.layers,
        n_head=cfg.heads,
        n_embd=cfg.d_model,
        intermediate_size=4 * cfg.d_model,
        gelu_approximate="none",
    )
    return litgpt.GPT(config)


def textbook_loss(model, ids):
    "Mean surprise at the next token, from all logits."
    logits = model(ids[:, :-1])
    return F.cross_entropy(getattr(logits, "logits", logits).flatten(0, 1), ids[:, 1:].flatten())


def encoder(kind, cfg):
    "BERT or ModernBERT of transformers, with the head at every place; `sparse`: at targets alone."
    size = dict(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.d_model,
        num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads,
        intermediate_size=4 * cfg.d_model,
        max_position_embeddings=cfg.context,
        attn_implementation="sdpa",
    )
    if kind != "bert":  # gated: two thirds of the width has as many weights
        names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        size["intermediate_size"] = 8 * cfg.d_model // 3
        return transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(
                **size, **dict.fromkeys(names, 0), sparse_prediction=kind == "sparse"
            )
        )
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return transformers.BertForMaskedLM(transformers.BertConfig(**size, **off))


def every_place_loss(model, batch):
    "Mean surprise at the hidden tokens, out of logits at every place, as transformers computes it."
    inputs, labels, there = batch.unbind(1)
    return F.cross_entropy(model(inputs, attention_mask=there).logits.flatten(0, 1), labels.flatten())


def own_loss(model, batch):
    "The loss that transformers computes itself from the labels."
    inputs, labels, there = batch.unbind(1)
    return model(inputs, attention_mask=there, labels=labels.contiguous()).loss


CAUSAL_MODELS = {
    "llmlab": (Decoder, causal_loss),
    "nanoGPT-style": (NanoGPT, textbook_loss),
    "torch.nn.TransformerEncoder": (TorchModules, textbook_loss),
    "transformers GPT-2 (sdpa)": (gpt2, textbook_loss),
    "transformers GPT-2 (eager)": (lambda cfg: gpt2(cfg, "eager"), textbook_loss),
}
if not transformers:
    CAUSAL_MODELS = {name: pair for name, pair in CAUSAL_MODELS.items() if "transformers" not in name}
if importlib.util.find_spec("litgpt"):
    CAUSAL_MODELS["litgpt"] = (litgpt, textbook_loss)
if (
    not GPU and not TINY and shutil.which("g++")
):  # torch.compile needs a compiler; on a GPU everybody is compiled
    CAUSAL_MODELS |= {f"{name}, compiled": CAUSAL_MODELS[name] for name in ("llmlab", "nanoGPT-style")}
MASKED_MODELS = {
    "llmlab": (MaskedLM, masked_loss),
    "transformers BERT (sdpa)": (lambda cfg: encoder("bert", cfg), every_place_loss),
    "transformers ModernBERT (sdpa)": (lambda cfg: encoder("modernbert", cfg), every_place_loss),
    "transformers ModernBERT (sdpa, sparse)": (lambda cfg: encoder("sparse", cfg), own_loss),
}
if not transformers:
    MASKED_MODELS = {"llmlab": MASKED_MODELS["llmlab"]}
RACES = {
    **{shape: (*pair, CAUSAL_MODELS) for shape, pair in CAUSAL.items()},
    **{shape: (*pair, MASKED_MODELS) for shape, pair in MASKED.items()},
}


def data(shape, cfg, batch):
    "Random ids; for the masked loss with 15 % of them hidden."
    torch.manual_seed(0)
    if shape in CAUSAL:
        return torch.randint(cfg.vocab_size, (batch, cfg.context + 1), device=DEVICE)
    ids = torch.randint(cfg.vocab_size, (batch, cfg.context), device=DEVICE)
    labels = ids.masked_fill(torch.rand(ids.shape, device=DEVICE) > 0.15, -100)
    return torch.stack([ids.masked_fill(labels != -100, 3), labels, torch.ones_like(ids)], 1)


def runner(name, shape):
    "A model, and a function that makes one step of it."
    cfg, batch, models = RACES[shape]
    ids, (make, loss), recipe = data(shape, cfg, batch), models[name], Recipe()
    model = make(cfg).to(DEVICE)
    opt, objective = make_optimizer(model, recipe), Objective(model, loss)
    objective = torch.compile(objective) if GPU or name.endswith("compiled") else objective
    return model, lambda: train_step(objective, ids, call, opt, recipe)


def row(shape, name, model, seconds):
    "What the JSON says of a contestant, out of the seconds of its steps and of ours."
    cfg, batch, _ = RACES[shape]
    step, flops = statistics.median(seconds[name]), flops_per_token(model, cfg.context)
    ceiling = peak_flops(DEVICE.type, torch.bfloat16 if uses_bf16(DEVICE) else torch.float32)
    return {
        "tokens_per_second": round(batch * cfg.context / step),
        "ms_per_step": round(1e3 * step, 2),
        "llmlab_over_this": ratio(seconds[name], seconds["llmlab"]),
        "share_of_ceiling": round(flops * batch * cfg.context / step / ceiling, 3),
        "ceiling_tflops": round(ceiling / 1e12, 2),
        "parameters": count_parameters(model),
    }


def prepared(shape, limit, note):
    "Name → (model, step), llmlab first; with a limit each is timed alone, and noted, as soon as it is ready."
    ready, seconds, began = {}, {}, time.perf_counter()
    for name in RACES[shape][2]:
        if limit and time.perf_counter() - began > limit:
            note(name, {"left_out": f"the {limit:g} seconds were over"})
            continue
        before = torch.cuda.memory_allocated() if GPU else 0
        model, step = ready[name] = runner(name, shape)
        first = time.perf_counter()
        step()
        first = time.perf_counter() - first
        if limit:
            seconds |= interleave({name: step}, 5, warm=2)
            ours = ready["llmlab"][0]  # the operations of llmlab's model count for all: the work is the same
            found = row(shape, name, ours, seconds) | {"parameters": count_parameters(model)}
            note(name, found | {"first_step_seconds": round(first, 1)})
        if GPU:
            torch.cuda.reset_peak_memory_stats()
            step()
            torch.cuda.synchronize()
            note(name, {"peak_mb": round((torch.cuda.max_memory_allocated() - before) / 1e6)})
    return ready


def race(shape, rounds, limit=None, note=lambda name, facts: None):
    "A row a contestant."
    runners = prepared(shape, limit, note)
    seconds = interleave({name: step for name, (_, step) in runners.items()}, rounds)
    for name, (model, _) in runners.items():
        note(name, row(shape, name, runners["llmlab"][0], seconds) | {"parameters": count_parameters(model)})


def peak(name, shape, threads):
    "Megabytes that three steps take on top of the imports, in a process of their own."
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, shape]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak(name, shape):
    before = peak_memory(DEVICE)
    _, step = runner(name, shape)
    for _ in range(3):
        step()
    print(peak_memory(DEVICE) - before)


class Windows(torch.utils.data.Dataset):
    "The same ids as a data set of transformers' Trainer."

    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def loop(shape, rounds, steps=2 if TINY else 30):
    "Whole runs of so many steps: fit beside Trainer, the same ids."
    if not transformers or not importlib.util.find_spec("accelerate"):
        return {"transformers Trainer": {"left_out": "it needs transformers and accelerate"}}
    cfg, batch, _ = RACES[shape]
    torch.manual_seed(0)
    ids = torch.randint(cfg.vocab_size, (batch * steps, cfg.context))
    ours, theirs, recipe = (
        Decoder(cfg).to(DEVICE),
        gpt2(cfg),
        Recipe(steps=steps, batch_size=batch, every=steps),
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=recipe.lr,
            save_strategy="no",
            weight_decay=recipe.weight_decay,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            bf16=GPU,
            optim="adamw_torch_fused",
            use_cpu=not GPU,
        )
        part = lambda step: ids[step * batch :][:batch]  # noqa: E731
        trainer = lambda: transformers.Trainer(theirs, settings, train_dataset=Windows(ids))  # noqa: E731
        ways = {
            "llmlab fit": lambda: fit(ours, part, causal_loss, recipe),
            "transformers Trainer": lambda: trainer().train(),
        }
        seconds = interleave(ways, rounds, warm=1)
    return {
        name: {
            "tokens_per_second": round(len(ids) * cfg.context / statistics.median(times)),
            "llmlab_over_this": ratio(times, seconds["llmlab fit"]),
        }
        for name, times in seconds.items()
    }


def main():
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--only", choices=["causal", "masked"], help="one of the two losses")
    parser.add_argument("--limit", type=float, help="seconds in which contestants are prepared, see above")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "SHAPE"), help="only print the memory of one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        return own_peak(*args.peak)
    shapes = {}

    def note(shape, name, facts):
        shapes.setdefault(shape, {}).setdefault(name, {}).update(facts)
        write(args, {"shapes": shapes}, "transformers", dtype="bfloat16" if uses_bf16(DEVICE) else "float32")

    for shape in RACES:
        if args.only in (None, "causal" if shape in CAUSAL else "masked"):
            race(shape, args.rounds, args.limit, lambda name, facts, shape=shape: note(shape, name, facts))
            for name in shapes[shape]:
                if not GPU and not TINY:
                    note(shape, name, {"peak_mb": round(peak(name, shape, args.threads))})
            if shape in CAUSAL and not args.limit:
                for name, facts in loop(shape, 1 if TINY else 3).items():
                    note(f"{shape}, loop", name, facts)
    for shape, rows in shapes.items():
        for name, facts in rows.items():
            print(
                f"{shape:48} {name:30} " + "  ".join(f"{key} {value}" for key, value in facts.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()
