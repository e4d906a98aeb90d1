"Material of the tests of figures: random attention, hostile texts, and one figure of each kind."

import zlib

import numpy as np
import torch

from llmlab import (
    attention_view,
    beams_view,
    bias_view,
    cost_view,
    curves_view,
    decoding_view,
    formula_view,
    grid_view,
    mask_view,
    neuron_view,
    next_token_view,
    patches_view,
    phrases_view,
    spans_view,
    tokens_view,
)
from llmlab.tasks.summary_scores import copied_phrases

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "${alert(1)}",
    "\u2028",
    "\ud800",
    '"; alert(1); //',
    "",
]


def softmax(shape, seed=0, causal=False):
    "Random attention."
    scores = np.random.default_rng(seed).normal(size=shape) * 2
    if causal:
        scores += np.where(np.tri(*shape[-2:]), 0, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unpacked(raw, n, rows, cols):
    "What the browser reads: n maps, written here a second time from the format's description."
    raw = zlib.decompress(raw)
    top = np.frombuffer(raw, "<f4", n * rows).reshape(n, rows, 1)
    coded = np.frombuffer(raw, "u1", offset=4 * n * rows).reshape(n, rows, cols)
    return top * (coded / 255.0) ** 2


MARK = dict(at=1.0, low=0.5, high=1.5, p=0.01, points=[0.5, 1.5])


COST = dict(
    models=[dict(name="m", n=1e9, context=4096, vocab=50000, flops=2e9, square=1e5, cache=1e5, kept=1e6)],
    gpus=[dict(name="card", memory=[80, 80], peak=[1000, 1000], power=[500, 500], price=[1, 3])],
    overhead=[1, 2], grids={"here": 100, "there": 1000}, runs={"b": (1e10, 1e12)},
    law=dict(E=1.8, A=482, B=2085, alpha=0.35, beta=0.37),
)  # fmt: skip


def unpack(view):
    "The heads of a small view, without their mean and rollout: an array [heads tq tk]."
    (part,) = view.data["parts"]
    every = unpacked(part["thumbs"], len(part["entries"]), part["rows"], part["cols"])
    return every[[head >= 0 for _, head in part["entries"]]]


def figures(text="cat"):
    "One figure of each kind, all made of this text."
    words = [text, "b", text]
    square = softmax((2, 2, 3, 3))
    return {
        "attention": attention_view(square, words),
        "formula": formula_view(np.eye(3), np.eye(3), np.eye(3), words),
        "next_token": next_token_view([(text, {text: 0.5, "b": 0.2}), ("b" + text, {text: 0.1, "c": 0.9})]),
        "tokens": tokens_view([(text, words), ("second", [text + "b", text])]),
        "neuron": neuron_view(np.eye(3), np.eye(3), words),
        "curves": curves_view(
            {text: [(1, 2.0), (2, 1.0)], "b": [(1, 3.0)]}, snapshots={1: text, 2: [[0.1, 0.9]]}
        ),
        "patches": patches_view(torch.rand(2, 6, 3), words, torch.eye(3)),
        "mask": mask_view(
            words, {text: (np.tri(3), [{text: 0.5}, {"b": 1.0}, None]), "b": (np.eye(3), None)}
        ),
        "cost": cost_view(
            **COST | {"models": [{**COST["models"][0], "name": text}], "runs": {text: (1e9, 1e11)}}
        ),
        "decoding": decoding_view([(text, {text: 0.5, "b": 0.3, "c": 0.2}), ("b", {text: 1.0, "c": 0.0})]),
        "bias": bias_view({text: {text: MARK}, "b": {text: MARK}}, text, text),
        "phrases": phrases_view(**copied_phrases(f"{text} b", {text: f"b {text} c", "second": text})),
        "beams": beams_view(
            text, {1: [[([text], -1.0)]], 2: [[([text], -1.0), (["b"], -2.0)], [([text, "c"], -1.5)]]}
        ),
        "spans": spans_view(["[CLS]", *words], torch.eye(4)[:, :2], torch.arange(4) > 0, 2),
        "grid": grid_view([[0.9, 0.1]], [text], [text, "c"], tips=[[text, "b"]], title=text),
    }
