"A small model, small batches and a loss, for the tests of training; and a loss that fails once."

from dataclasses import replace

import torch
import torch.nn.functional as F

from llmlab.training import Batches, Windows, fit
from llmlab.transformer import Config, Decoder

CFG = Config(vocab_size=20, context=8, layers=1, heads=2, d_model=16, dropout=0.1)
IDS = torch.randint(20, (200,), generator=torch.Generator().manual_seed(0))


def loss(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def decoder(seed=0, **change):
    torch.manual_seed(seed)
    return Decoder(replace(CFG, **change))


def run(recipe, seed=0, **options):
    model = decoder()
    return model, fit(
        model, Batches(Windows(IDS, 9), batch_size=recipe.batch_size, seed=seed), loss, recipe, **options
    )


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def losses(history):
    return [row["loss"] for row in history]


class Stop(Exception):
    pass


def stopping(at):
    "A loss that fails once, in the middle of a run."
    count = iter(range(10**9))

    def stops(model, ids):
        if model.training and next(count) == at:
            raise Stop
        return loss(model, ids)

    return stops
