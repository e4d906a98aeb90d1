"Muon beside AdamW, as one optimizer."

import math

import torch
from small_runs import IDS, decoder, loss

from llmlab.optimizers import Muon
from llmlab.training import Batches, Recipe, Windows, fit, make_optimizer, train_step


def test_muon_takes_the_matrices_of_the_blocks_and_learns():
    model = decoder(dropout=0.0)
    opt = make_optimizer(model, Recipe(muon=True, weight_decay=0.3))
    hidden, table, vectors = (group["params"] for group in opt.param_groups)
    assert isinstance(opt, Muon) and len(hidden) == 4 and all(p.ndim == 2 for p in hidden)
    assert {id(p) for p in table} == {id(model.embed.tokens.weight), id(model.embed.positions.weight)}
    assert all(p.ndim == 1 for p in vectors)
    ids = Batches(Windows(torch.arange(200) % 20, 9), batch_size=8)
    history = fit(model, ids, loss, Recipe(steps=60, muon=True, lr=0.01))
    assert history[-1]["loss"] < history[0]["loss"] / 3


def test_muon_makes_the_first_update_orthogonal():
    "All singular values of the momentum become nearly one, then AdamW's size (Liu et al. 2025)."
    model = decoder(dropout=0.0)
    before = model.blocks[0].mlp.up.weight.detach().clone()
    opt = make_optimizer(model, Recipe(muon=True, weight_decay=0.0, lr=1.0))
    train_step(model, Batches(Windows(IDS, 9), batch_size=4)(0), loss, opt, Recipe())
    move = (model.blocks[0].mlp.up.weight.detach() - before) / (0.2 * math.sqrt(max(before.shape)))
    values = torch.linalg.svdvals(move)
    assert (
        0.6 < values[:-1].min() and values.max() < 1.3
    )  # a normed input has mean 0: one direction is missing
