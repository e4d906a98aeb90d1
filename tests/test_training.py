"The loop: seeds, schedule, clip, parts, pace; a run that goes on; everything that can be wrong."

import itertools
import math
import os
import random
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import checkpoints, runs
from llmlab.checkpoints import load_checkpoint, step_files
from llmlab.optimizers import Muon
from llmlab.runs import Run, maybe_compile
from llmlab.same_run import fingerprint, steps_to_compare
from llmlab.training import Batches, Recipe, Windows, fit, learning_rate, make_optimizer, train_step
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


def test_equal_seeds_give_equal_weights_bit_for_bit():
    recipe = Recipe(steps=6, batch_size=4)
    (one, h1), (two, h2), (other, _) = run(recipe), run(recipe), run(recipe, seed=1)
    assert same(one, two) and not same(one, other)
    assert [r["loss"] for r in h1] == [r["loss"] for r in h2]
    assert not same(one, run(replace(recipe, seed=1))[0])  # another dropout


def test_fit_equals_a_loop_written_by_hand():
    recipe = Recipe(steps=5, batch_size=4, lr=0.01, clip=0.5, weight_decay=0.3)
    model, history = run(recipe)
    by_hand, batches = decoder(), Batches(Windows(IDS, 9), batch_size=4)
    torch.manual_seed(recipe.seed)
    decayed = [p for p in by_hand.parameters() if p.ndim > 1]
    plain = [p for p in by_hand.parameters() if p.ndim == 1]
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in decayed + plain}
    by_hand.train()
    for step in range(5):
        by_hand.zero_grad()
        value = loss(by_hand, batches(step))
        value.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in moments))
        lr = learning_rate(step, recipe)
        with torch.no_grad():
            for p, (m, v) in moments.items():
                g = p.grad * min(1, 0.5 / norm)
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.95).add_(0.05 * g * g)
                p.mul_(1 - lr * (0.3 if p.ndim > 1 else 0))
                p -= lr * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
        assert history[step]["loss"] == pytest.approx(value.item(), abs=1e-5)
        assert history[step]["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for (name, p), q in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        if name.endswith("qkv.bias"):  # not the keys': softmax ignores it, its gradient is rounding alone
            p, q = (x.view(3, -1)[[0, 2]] for x in (p, q))
        torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-4)


def test_clip_bounds_the_gradient_that_the_optimizer_sees():
    model, seen = decoder(), []
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    norm = train_step(model, Batches(Windows(IDS, 9), batch_size=4)(0), loss, opt, Recipe(clip=0.01))[
        "gradient_norm"
    ]
    moves = [(p - b).detach() for p, b in zip(model.parameters(), before, strict=True)]
    seen = math.sqrt(sum(float(move.square().sum()) for move in moves))
    assert norm > 0.01 and seen == pytest.approx(0.01, rel=1e-3)


def test_history_tells_step_rate_tokens_and_validation():
    recipe = Recipe(steps=7, batch_size=4, every=3)
    model, history = run(recipe, eval_fn=lambda m: 1.5)
    assert [r["step"] for r in history] == list(range(1, 8))
    assert [r["step"] for r in history if "valid" in r] == [3, 6, 7]
    assert history[-1]["tokens"] == 7 * 4 * 9
    assert [r["lr"] for r in history] == [learning_rate(s, recipe) for s in range(7)]
    assert all(a["seconds"] < b["seconds"] for a, b in zip(history, history[1:], strict=False))
    assert not model.training


def test_validation_does_not_change_the_run():
    recipe = Recipe(steps=6, batch_size=4, every=2)
    assert same(run(recipe)[0], run(recipe, eval_fn=lambda m: float(loss(m.eval(), IDS[None, :9])))[0])


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 500), st.floats(0, 1))
def test_schedule_rises_then_falls(steps, warmup):
    recipe = Recipe(steps=steps, warmup=warmup, lr=2.0)
    rates = [learning_rate(s, recipe) for s in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < r <= 2.0 for r in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_schedule_pencil():
    "4 of 20 steps of warm-up: fifths of the peak, the peak, half-way down at the middle of the rest."
    recipe = Recipe(steps=20, warmup=0.2, lr=1.0)
    assert [round(learning_rate(s, recipe), 12) for s in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert learning_rate(12, recipe) == pytest.approx(0.5)
    assert learning_rate(19, recipe) == pytest.approx((1 + math.cos(math.pi * 15 / 16)) / 2)


def test_only_matrices_decay():
    model = decoder()
    groups = make_optimizer(model, Recipe(weight_decay=0.7)).param_groups
    assert {p.ndim for p in groups[0]["params"]} == {2} and groups[0]["weight_decay"] == 0.7
    assert {p.ndim for p in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_bf16_trains_and_keeps_weights_in_fp32():
    model, history = run(Recipe(steps=3, batch_size=4, precision="bf16"))
    assert all(math.isfinite(r["loss"]) for r in history)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history[0]["loss"] != run(Recipe(steps=1, batch_size=4))[1][0]["loss"]


def test_batches_are_windows_and_depend_on_seed_and_step_alone():
    ids = torch.arange(100)
    one, two = (
        Batches(Windows(ids, 7), batch_size=5, seed=3),
        Batches(Windows(list(range(100)), 7), batch_size=5, seed=3),
    )
    two(4), two(9)
    assert torch.equal(one(0), two(0)) and not torch.equal(one(0), one(1))
    assert not torch.equal(one(0), Batches(Windows(ids, 7), batch_size=5, seed=4)(0))
    assert (one(0).diff(dim=1) == 1).all() and one(0).shape == (5, 7)
    everything = torch.cat([one(s) for s in range(200)])
    assert everything.min() == 0 and everything.max() == 99  # both ends are reached


def test_windows_are_rows_that_begin_where_told():
    windows = Windows(torch.arange(100), 7)
    assert len(windows) == 94 and windows[3].tolist() == [3, 4, 5, 6, 7, 8, 9]
    some = Windows(torch.arange(100), 7, starts=[0, 30, 60, 97])
    assert len(some) == 3 and some[2].tolist() == [60, 61, 62, 63, 64, 65, 66]


def test_collate_gets_the_rows_of_the_step_and_its_generator():
    def collate(rows, generator):
        return torch.tensor(rows) + 100 * torch.randint(10, (len(rows),), generator=generator)

    batches = Batches([1, 2, 3], collate, batch_size=50, seed=2)
    assert {*(batches(0) % 100).tolist()} == {1, 2, 3}
    assert torch.equal(batches(4), Batches([1, 2, 3], collate, batch_size=50, seed=2)(4))
    assert not torch.equal(batches(4) // 100, batches(5) // 100)


def test_with_length_of_a_batch_is_one_slice_of_sorted_rows():
    rows = [[i] * i for i in range(1, 101)]
    batches = Batches(rows, lambda rows, _: torch.tensor([len(row) for row in rows]), 10, length_of=len)
    for step in range(20):
        lengths = batches(step)
        assert lengths.tolist() == sorted(lengths.tolist()) and lengths[-1] - lengths[0] < 50


def test_batches_start_where_told():
    batches = Batches(Windows(torch.arange(100), 7, [0, 30, 60, 97]), batch_size=3)
    assert {int(batches(s)[i, 0]) for s in range(9) for i in range(3)} == {0, 30, 60}


@pytest.mark.parametrize(
    "call,text",
    [
        (
            lambda: Batches(Windows(IDS, 201)),
            "a window is 201 tokens, but the split has 200: take more text or a shorter window",
        ),
        (
            lambda: Batches(Windows(IDS, 50, [180])),
            "no start leaves room for 50 tokens: give starts up to 150",
        ),
        (
            lambda: Batches(Windows(IDS, 5, [3, -1])),
            "id -1 is outside the vocabulary: starts run from 0 to 199",
        ),
        (
            lambda: Batches(Windows(IDS, 5, [3, 200])),
            "id 200 is outside the vocabulary: starts run from 0 to 199",
        ),
        (
            lambda: Batches(Windows(IDS, 5, [3.0])),
            "starts are float64, expected whole numbers: they are never rounded",
        ),
        (lambda: Batches(Windows(IDS, 5, IDS > 3)), "starts are bool, expected whole numbers"),
        (
            lambda: Batches(Windows(IDS.float(), 5)),
            "ids are float32, expected whole numbers: they are never rounded",
        ),
        (lambda: Batches(Windows([1, 2.5, 3], 2), batch_size=1), "ids are float64, expected whole numbers"),
        (lambda: Batches(Windows(IDS[None], 5)), r"ids of shape \[1, 200\], expected one long list"),
        (
            lambda: Batches(Windows(IDS, 5), batch_size=0),
            "batch_size=0: expected a whole number of at least 1",
        ),
        (
            lambda: Batches(Windows(IDS, 5), batch_size=2)(-1),
            "step=-1: expected a whole number of at least 0",
        ),
        (lambda: Recipe(steps=0), "steps=0: expected a whole number of at least 1"),
        (lambda: Recipe(batch_size=0), "batch_size=0"),
        (lambda: Recipe(lr=-1.0), "lr=-1.0"),
        (lambda: Recipe(clip=0), "clip=0"),
        (lambda: Recipe(schedule="step"), "schedule='step': expected one of cosine, linear, constant"),
        (lambda: Recipe(min_lr=2e-3), "min_lr=0.002 is above lr=0.001: the rate falls from lr to min_lr"),
        (lambda: Recipe(min_lr=-1e-5), "min_lr=-1e-05: expected a finite number of at least 0"),
        (
            lambda: Recipe(schedule="constant", min_lr=1e-4),
            "min_lr=0.0001 with a constant schedule, which never falls",
        ),
        (lambda: Recipe(patience=0), "patience=0: expected a whole number of at least 1, or None"),
        (
            lambda: run(Recipe(steps=1, batch_size=4), progress="yes"),
            "progress='yes': expected True or False, or None",
        ),
        (lambda: Recipe(warmup=2), "warmup=2: expected a number from 0 to 1; it is a share"),
        (lambda: Recipe(precision="fp8"), "precision='fp8': expected one of auto, fp32, bf16"),
        (lambda: Recipe(compile="maybe"), "compile='maybe': expected one of auto, yes, no"),
        (lambda: Recipe(accumulate=0), "accumulate=0: expected"),
        (lambda: Recipe(seconds=0), "seconds=0: expected a number above 0"),
        (lambda: Recipe(keep=0), "keep=0: expected"),
        (lambda: Batches([]), "no rows: a batch needs at least one"),
        (
            lambda: run(Recipe(steps=1, batch_size=9, accumulate=2)),
            "9 windows do not divide among 1 processes",
        ),
        (
            lambda: run(Recipe(steps=9, batch_size=4, seconds=1e-9)),
            "seconds=1e-09: the first step alone took",
        ),
        (
            lambda: make_optimizer(torch.nn.Linear(2, 2), Recipe(muon=True)),
            "muon=True needs PyTorch 2.9 and a model with",
        ),
        (
            lambda: fit(torch.nn.Linear(2, 2), None, None, Recipe(recompute=True)),
            "recompute=True works on llmlab's blocks",
        ),
    ],
)
def test_errors(unchecked, call, text):
    with pytest.raises(ValueError, match=text):
        call()


# --- less memory, less time ---------------------------------------------------------------------------------


def losses(history):
    return [row["loss"] for row in history]


def test_parts_of_a_batch_give_the_update_of_the_whole():
    recipe = Recipe(steps=4, batch_size=6)
    whole, one = run_without_dropout(recipe)
    for parts in (2, 3, 6):
        model, history = run_without_dropout(replace(recipe, accumulate=parts))
        torch.testing.assert_close(losses(history), losses(one), atol=1e-5, rtol=0)
        assert history[-1]["tokens"] == one[-1]["tokens"]


def run_without_dropout(recipe, **options):
    model = decoder(dropout=0.0)
    return model, fit(model, Batches(Windows(IDS, 9), batch_size=recipe.batch_size), loss, recipe, **options)


def test_recomputing_changes_no_bit_and_leaves_the_model_as_it_was():
    recipe = Recipe(steps=4, batch_size=4)
    model, history = run(replace(recipe, recompute=True))
    plain, expected = run(recipe)
    assert same(model, plain) and losses(history) == losses(expected)
    assert all("forward" not in vars(m) for m in model.modules())


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


def test_the_pace_is_in_the_rows_that_looked_up():
    _, history = run(Recipe(steps=5, batch_size=4, every=2))
    looked = [row for row in history if "mfu" in row]
    assert [row["step"] for row in looked] == [2, 4, 5]
    speed = (history[3]["tokens"] - history[1]["tokens"]) / (history[3]["seconds"] - history[1]["seconds"])
    assert looked[1]["tokens_per_second"] == pytest.approx(speed)
    assert looked[1]["left"] == pytest.approx((history[3]["seconds"] - history[1]["seconds"]) / 2)
    assert 0 < looked[1]["mfu"] < 1 and looked[1]["memory_mb"] > 50 and looked[-1]["left"] == 0


def test_compiling_waits_until_it_pays(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module: asked.append(1) or module)
    run(Recipe(steps=4, batch_size=4, every=2))
    assert not asked  # a CPU
    run(Recipe(steps=2, batch_size=4, compile="yes"))
    assert asked == [1]
    model = decoder()
    opt, recipe = make_optimizer(model, Recipe()), Recipe(steps=100_000, every=2)
    on_gpu = Run(model, Batches(Windows(IDS, 9), batch_size=4), loss, opt, recipe)
    on_gpu.device = torch.device("cuda")
    for left, times in ((299, 1), (301, 2), (900, 2)):
        on_gpu.history = [{"step": 2, "left": left}]
        maybe_compile(on_gpu)
        assert len(asked) == times


@pytest.fixture
def ticking(monkeypatch):
    "A clock for fit that goes on by one second each time it is asked: once a step."
    clock = partial(next, itertools.count(1.0))
    monkeypatch.setattr(runs, "perf_counter", clock)


def test_the_budget_stops_the_run(ticking):
    history = fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), loss, Recipe(steps=1000, seconds=7.5))
    assert [row["seconds"] for row in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "mfu" in history[-1]


# --- stop and go on -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("at", [0, 4, 5, 9, 10, 11])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, at, muon):
    recipe = Recipe(steps=12, batch_size=4, every=5, muon=muon)
    plain, expected = run(recipe)
    with pytest.raises(Stop):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), stopping(at), recipe, checkpoint_dir=tmp_path)
    model = decoder(seed=3)  # its weights must not matter
    torch.rand(7)  # nor where the generators stand
    done = [int(path.stem[5:]) for path in step_files(tmp_path)]
    history = fit(model, Batches(Windows(IDS, 9), batch_size=4), loss, recipe, checkpoint_dir=tmp_path)
    assert done == ([at // 5 * 5] if 5 <= at < 10 else [5, 10] if at >= 10 else [])
    if done:
        assert same(model, plain) and losses(history) == losses(expected)
    assert [row["step"] for row in history] == list(range(1, 13))
    assert checkpoints.read_rows(tmp_path) == history


def test_a_finished_run_is_not_trained_again(tmp_path):
    recipe = Recipe(steps=6, batch_size=4, every=5)
    model, history = run(recipe, checkpoint_dir=tmp_path)
    other = decoder(seed=4)
    assert (
        fit(other, Batches(Windows(IDS, 9), batch_size=4), stopping(0), recipe, checkpoint_dir=tmp_path)
        == history
    )
    assert same(other, model)


def test_more_time_continues_a_run_whose_time_was_up(tmp_path, ticking):
    recipe = Recipe(steps=8, batch_size=4, every=100)
    plain, expected = run(recipe)
    first = run(replace(recipe, seconds=4.0), checkpoint_dir=tmp_path)[1]
    model, history = run(recipe, checkpoint_dir=tmp_path)
    assert len(first) == 4 and losses(history) == losses(expected) and same(model, plain)


def test_fit_keeps_the_last_ones_and_the_best(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 4.0])
    recipe = Recipe(steps=8, batch_size=4, every=2, keep=2)
    model, _ = run(recipe, eval_fn=lambda m: next(scores), checkpoint_dir=tmp_path)
    names = ["best.safetensors", "history.jsonl", "step-00000006.safetensors", "step-00000008.safetensors"]
    assert sorted(os.listdir(tmp_path)) == names
    (last, facts), (best, about) = (
        load_checkpoint(step_files(tmp_path)[-1]),
        load_checkpoint(tmp_path / "best.safetensors"),
    )
    assert same(last, model) and facts["step"] == 8 and about["step"] == 4 and about["valid"] == 1.0
    assert not same(best, model)


def test_another_run_is_refused_and_every_difference_named(tmp_path):
    recipe = Recipe(steps=4, batch_size=4)
    run(recipe, checkpoint_dir=tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = replace(recipe, lr=0.5, steps=9, every=7, seconds=60.0)  # more steps alone would be no other run
    with pytest.raises(ValueError) as error:
        fit(
            decoder(heads=1, d_model=8),
            Batches(Windows(IDS, 10), batch_size=4),
            loss,
            other,
            checkpoint_dir=tmp_path,
        )
    text = str(error.value)
    for difference in (
        "embed.tokens.weight: [20, 16] in the file, [20, 8] in the model",
        "heads: 2 in the checkpoint, 1 now",
        "lr: 0.001 in the checkpoint, 0.5 now",
        "batch 0: ",
        "choose an empty folder, or the same model, data and recipe",
    ):
        assert difference in text
    assert "every" not in text and "seconds" not in text
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_rows_and_halves_that_no_checkpoint_knows_are_dropped(tmp_path):
    recipe = Recipe(steps=6, batch_size=4, every=3)
    with pytest.raises(Stop):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), stopping(4), recipe, checkpoint_dir=tmp_path)
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"st')
    (tmp_path / ".step-00000004.safetensors.77.tmp").write_bytes(b"half")
    plain, expected = run(recipe)
    model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert not list(tmp_path.glob(".*")) and checkpoints.read_rows(tmp_path) == history


# --- what is left of a run decides where it goes on ---------------------------------------------------------


def test_a_finished_run_goes_on_for_more_steps_and_says_so(tmp_path):
    _, history = run(Recipe(steps=4, batch_size=4, every=2), checkpoint_dir=tmp_path)
    with pytest.warns(
        UserWarning, match="a run of 4 steps goes on to 6; from here on the learning rate is that"
    ):
        _, longer = run(Recipe(steps=6, batch_size=4, every=2), checkpoint_dir=tmp_path)
    assert [row["step"] for row in longer] == [1, 2, 3, 4, 5, 6] and longer[:4] == history
    assert longer[4]["lr"] == learning_rate(4, Recipe(steps=6))
    with pytest.raises(ValueError, match="steps: 6 in the checkpoint, 5 now"):
        run(Recipe(steps=5, batch_size=4, every=2), checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    "harm, said",
    [
        (
            lambda lines: [],
            r"lacks the rows of steps 1 to 4, which the checkpoint has made: put the file back",
        ),
        (lambda lines: lines[:3], r"lacks the rows of steps 4 to 4"),
        (lambda lines: lines[1:], r"line 1, is not the row of step 1"),
        (lambda lines: [*lines[:2], "{garbage", lines[3]], r"line 3, is not the row of step 3: '\{garbage'"),
        (lambda lines: ["[" * 10_000, *lines[1:]], r"line 1, is not the row of step 1"),
        (lambda lines: ["3", *lines[1:]], r"line 1, is not the row of step 1: '3'"),
    ],
)
def test_a_history_with_holes_is_refused_and_nothing_is_trained_twice(tmp_path, harm, said):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    run(recipe, checkpoint_dir=tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(harm(path.read_text().splitlines())))
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=said):
        run(replace(recipe, steps=6), checkpoint_dir=tmp_path)
    assert kept == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_cut_checkpoint_gives_way_to_the_whole_one_before_it(tmp_path):
    recipe = Recipe(steps=6, batch_size=4, every=2)
    plain, expected = run(recipe)
    run(recipe, checkpoint_dir=tmp_path)
    newest = step_files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.warns(
        UserWarning, match=r"cut short .*goes on from step-00000004.safetensors, the newest whole"
    ):
        model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert (tmp_path / "step-00000006.safetensors.broken").exists(), "what is broken is set aside, not lost"
    for path in step_files(tmp_path):
        path.write_bytes(b"nothing whole")
    with pytest.raises(ValueError, match="step-00000006.safetensors is cut short or no safetensors file"):
        run(recipe, checkpoint_dir=tmp_path)


def test_a_checkpoint_under_another_step_s_name_is_not_believed(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    run(recipe, checkpoint_dir=tmp_path)
    step_files(tmp_path)[-1].rename(tmp_path / "step-00000009.safetensors")
    with pytest.warns(UserWarning, match="says that it is of step 4: its name says otherwise"):
        _, history = run(recipe, checkpoint_dir=tmp_path)
    assert len(history) == 4


def rewritten(change):
    "Harm: a checkpoint with another header or other tensors, and a checksum that is right."

    def harm(path):
        about, tensors = checkpoints.read_file(path)
        change(about, tensors)
        path.write_bytes(checkpoints.serialize(tensors, about))

    return harm


def flipped(path):
    contents = bytearray(path.read_bytes())
    contents[-3] ^= 16
    path.write_bytes(contents)


def a_folder(path):
    path.unlink()
    path.mkdir()


HARM = {
    "one bit": (flipped, "is damaged: its checksum is"),
    "a folder of that name": (a_folder, "is no file"),
    "an empty file": (lambda path: path.write_bytes(b""), "cut short or no safetensors file"),
    "another library's": (
        lambda path: safetensors.torch.save_file({"a": IDS}, path),
        "has no header of llmlab",
    ),
    "no step of a run": (rewritten(lambda about, _: about.pop("run")), r"is damaged \(KeyError: 'run'\)"),
    "no recipe": (
        rewritten(lambda about, _: about["run"].pop("recipe")),
        r"is damaged \(KeyError: 'recipe'\)",
    ),
    "batches that are none": (
        rewritten(lambda about, _: about["run"].update(batches=3)),
        "has no recipe or no batches",
    ),
    "steps that are none": (
        rewritten(lambda about, _: about["run"].update(batches={"x": "y"})),
        "numbers no batches",
    ),
    "no random states": (rewritten(lambda about, _: about["run"].update(random=[{}])), "KeyError: 'python'"),
    "random states cut": (
        rewritten(lambda about, _: about["run"]["random"][0].update(torch="00ff")),
        "is damaged|RNG state",
    ),
    "an average of another shape": (
        rewritten(lambda _, tensors: tensors.update({"optimizer/exp_avg/norm.weight": torch.zeros(3)})),
        r"has \[3\] as optimizer/exp_avg/norm.weight, expected \[16\]",
    ),
    "an average of nothing": (
        rewritten(lambda _, tensors: tensors.update({"optimizer/exp_avg/mine": torch.zeros(3)})),
        r"is damaged \(KeyError: 'mine'\)",
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_whatever_is_wrong_with_the_newest_checkpoint_the_one_before_it_is_taken(tmp_path, name):
    harm, said = HARM[name]
    recipe = Recipe(steps=6, batch_size=4, every=2)
    plain, expected = run(recipe)
    run(recipe, checkpoint_dir=tmp_path)
    harm(step_files(tmp_path)[-1])
    with pytest.warns(UserWarning, match=f"{said}.*goes on from step-00000004.safetensors, the newest whole"):
        model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert (tmp_path / "step-00000006.safetensors.broken").exists(), "what is broken is set aside, not lost"


def test_a_checkpoint_from_before_batches_were_compared_by_step_goes_on(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    plain, _ = run(replace(recipe, steps=6))
    run(recipe, checkpoint_dir=tmp_path)
    old = fingerprint(Batches(Windows(IDS, 9), batch_size=4)(0)).partition(" ")[0]

    def aged(about, tensors):
        about["run"]["batches"] = old
        about["run"].pop("loss")
        states = about["run"]["random"][0]
        states["torch"] = list(bytes.fromhex(states["torch"]))

    rewritten(aged)(step_files(tmp_path)[-1])
    with pytest.raises(ValueError, match=f"batch 0: {old} in the checkpoint"):
        run(recipe, seed=1, checkpoint_dir=tmp_path)
    assert len(run(recipe, checkpoint_dir=tmp_path)[1]) == 4


# --- another run is noticed ---------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    "A run of 12 steps that stopped in step 12, with a checkpoint of step 10."
    recipe = Recipe(steps=12, batch_size=4, every=5)
    with pytest.raises(Stop):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), stopping(11), recipe, checkpoint_dir=tmp_path)
    (tmp_path / ".step-00000011.safetensors.1.tmp").write_bytes(b"half")
    return recipe, {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_batches_that_are_compared():
    assert steps_to_compare(1, 12) == [0, 1]
    assert steps_to_compare(11, 12) == [0, 1, 2, 4, 8, 10, 11]
    assert steps_to_compare(12, 12) == [0, 1, 2, 4, 8, 11]
    assert len(steps_to_compare(10**6, 10**7)) == 23


@pytest.mark.parametrize("first", range(12))
def test_other_data_from_any_step_on_are_noticed_up_to_the_next_one(tmp_path, stopped, first):
    recipe, kept = stopped
    same_data, other_data = (
        Batches(Windows(IDS, 9), batch_size=4),
        Batches(Windows(IDS, 9), batch_size=4, seed=1),
    )
    model = decoder(seed=5)
    before = [p.detach().clone() for p in model.parameters()]

    def batches(step):
        return (other_data if step >= first else same_data)(step)

    if first == 11:  # nobody can know: what comes later was never seen
        assert len(fit(model, batches, loss, recipe, checkpoint_dir=tmp_path)) == 12
        return
    step = next(s for s in (0, 1, 2, 4, 8, 9, 10) if s >= first)
    with pytest.raises(
        ValueError, match=rf"is of another run \(batch {step}: .* \[4, 9\] int64 in the checkpoint"
    ):
        fit(model, batches, loss, recipe, checkpoint_dir=tmp_path)
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}, "a refused run changes nothing"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "change", [lambda ids: ids.int(), lambda ids: ids.reshape(9, 4), lambda ids: ids.flip(0)]
)
def test_the_same_numbers_in_another_form_are_other_data(tmp_path, stopped, change):
    source = Batches(Windows(IDS, 9), batch_size=4)
    with pytest.raises(ValueError, match="batch 0: "):
        fit(decoder(), lambda step: change(source(step)), loss, stopped[0], checkpoint_dir=tmp_path)


def test_a_source_that_ends_earlier_is_other_data(tmp_path, stopped):
    source = [Batches(Windows(IDS, 9), batch_size=4)(step) for step in range(9)]
    with pytest.raises(ValueError, match="batch 9: .* in the checkpoint, no batch now"):
        fit(decoder(), source.__getitem__, loss, stopped[0], checkpoint_dir=tmp_path)


OTHER_LOSSES = {
    "smoothed": lambda model, ids: F.cross_entropy(
        model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1
    ),
    "doubled": lambda model, ids: 2 * loss(model, ids),
    "of the last token": lambda model, ids: F.cross_entropy(model(ids[:, :-1])[:, -1], ids[:, -1]),
    "with a penalty": lambda model, ids: (
        loss(model, ids) + 0.01 * sum(p.square().sum() for p in model.parameters())
    ),
}


@pytest.mark.parametrize("name", OTHER_LOSSES)
def test_another_loss_is_noticed_and_the_model_stays_as_it_was(tmp_path, stopped, name):
    recipe, kept = stopped
    model = decoder(seed=5)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(
        ValueError, match=r"is of another run \(the loss of 4 rows: .* in the checkpoint, .* now\)"
    ):
        fit(
            model, Batches(Windows(IDS, 9), batch_size=4), OTHER_LOSSES[name], recipe, checkpoint_dir=tmp_path
        )
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_loss_that_cannot_be_asked_of_four_rows_is_not_compared(tmp_path):
    def whole_batch(model, ids):
        assert len(ids) == 8, "all or none"
        return loss(model, ids)

    recipe = Recipe(steps=4, batch_size=8, every=2)
    first = fit(
        decoder(), Batches(Windows(IDS, 9), batch_size=8), whole_batch, recipe, checkpoint_dir=tmp_path
    )
    assert (
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=8), whole_batch, recipe, checkpoint_dir=tmp_path)
        == first
    )
    assert checkpoints.read_file(step_files(tmp_path)[-1])[0]["run"]["loss"] is None


def test_files_of_other_names_are_somebody_else_s(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=1, keep=1)
    (tmp_path / "step-final.safetensors").write_text("mine")
    run(recipe, checkpoint_dir=tmp_path)
    run(recipe, checkpoint_dir=tmp_path)
    assert (tmp_path / "step-final.safetensors").read_text() == "mine"
    assert [checkpoints.step_of(path) for path in step_files(tmp_path)] == [4]


def test_a_validation_that_begins_with_nan_still_finds_its_best(tmp_path):
    values = iter([math.nan, math.inf, 3.0, 5.0])
    seen = []

    def validate(model):
        seen.append({name: x.clone() for name, x in model.state_dict().items()})
        return next(values)

    fit(
        decoder(),
        Batches(Windows(IDS, 9), batch_size=4),
        loss,
        Recipe(steps=4, batch_size=4, every=1),
        validate,
        tmp_path,
    )
    best, facts = load_checkpoint(tmp_path / "best.safetensors")
    assert facts["step"] == 3 and all(torch.equal(x, seen[2][name]) for name, x in best.state_dict().items())


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_rate_ends_at_zero_and_stays_there(warmup):
    recipe = Recipe(steps=20, warmup=warmup)
    assert [learning_rate(step, recipe) for step in (20, 21, 30, 400)] == [0.0] * 4
    assert all(0 < learning_rate(step, recipe) <= recipe.lr for step in range(20))


def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path, monkeypatch):
    recipe = Recipe(steps=6, batch_size=4, every=2)
    real, calls = os.fsync, iter(range(100))

    def full(fd):  # 1 at the start, 2 a checkpoint
        if next(calls) >= 4:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*step-00000004.safetensors \(No space left on device\)"
    ):
        run(recipe, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    assert [path.name for path in step_files(tmp_path)] == ["step-00000002.safetensors"]
    assert same(run(recipe, checkpoint_dir=tmp_path)[0], run(recipe)[0])


def test_a_folder_that_cannot_be_written_is_found_out_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot write .*history.jsonl .*choose a folder"):
        fit(
            decoder(),
            Batches(Windows(IDS, 9), batch_size=4),
            stopping(0),
            Recipe(steps=3),
            checkpoint_dir=tmp_path / "file",
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_step_batch_and_checkpoint(tmp_path, bad):
    batches, count = Batches(Windows(IDS, 9), batch_size=4), iter(range(100))

    def poisoned(model, ids):
        return loss(model, ids) * (bad if model.training and next(count) == 5 else 1.0)

    model = decoder()
    with pytest.raises(FloatingPointError) as error:
        fit(model, batches, poisoned, Recipe(steps=8, every=2), checkpoint_dir=tmp_path)
    text = str(error.value)
    assert text.startswith(f"step 6: the loss is {bad}") and f"The batch is {fingerprint(batches(5))}" in text
    assert (
        f"The last good checkpoint is {tmp_path / 'step-00000004.safetensors'}" in text
        and "batches(5)" in text
    )
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_full_gpu_says_which_setting_halves_it():
    def full(model, ids):
        raise torch.OutOfMemoryError("CUDA out of memory")

    text = "step 1: 4 windows of 9 tokens at once fill the GPU. accumulate=4 halves them"
    with pytest.raises(torch.OutOfMemoryError, match=text):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=8), full, Recipe(steps=2, accumulate=2))


# --- schedules: the rate of each step, equal to the field's own ---------------------------------------------


def rates_of(make, lr=0.02, n=31):
    "The rates that a scheduler of PyTorch gives for n steps."
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make(opt), []
    for _ in range(n):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return rates


SCHEDULES = {
    "cosine": lambda opt: transformers.get_cosine_schedule_with_warmup(opt, 6, 26),
    "cosine to a floor": lambda opt: transformers.get_cosine_with_min_lr_schedule_with_warmup(
        opt, 6, 26, min_lr=0.004
    ),
    "linear": lambda opt: transformers.get_linear_schedule_with_warmup(opt, 6, 26),
    "linear to a floor": lambda opt: transformers.get_polynomial_decay_schedule_with_warmup(
        opt, 6, 26, 0.004, power=1
    ),
    "constant": lambda opt: transformers.get_constant_schedule_with_warmup(opt, 6),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_transformers(name):
    "Theirs starts from a step with rate zero, which ours leaves out: our step s is their step s + 1."
    recipe = Recipe(
        steps=25, warmup=0.2, lr=0.02, schedule=name.split()[0], min_lr=0.004 if "floor" in name else 0.0
    )
    theirs = rates_of(SCHEDULES[name])[1:27]
    assert [learning_rate(s, recipe) for s in range(26)] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    "schedule, make",
    [
        ("cosine", lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20, eta_min=0.004)),
        (
            "linear",
            lambda opt: torch.optim.lr_scheduler.LinearLR(
                opt, start_factor=1.0, end_factor=0.2, total_iters=20
            ),
        ),
    ],
)
def test_schedules_without_warm_up_are_those_of_pytorch(schedule, make):
    recipe = Recipe(steps=20, warmup=0.0, lr=0.02, schedule=schedule, min_lr=0.004)
    assert [learning_rate(s, recipe) for s in range(21)] == pytest.approx(rates_of(make, n=21), abs=1e-12)


@given(
    st.integers(1, 60), st.floats(0, 1), st.sampled_from(["cosine", "linear", "constant"]), st.floats(0, 1)
)
def test_every_schedule_stays_between_floor_and_peak_and_ends_where_it_says(steps, warmup, schedule, share):
    floor = 0.0 if schedule == "constant" else 2.0 * share
    recipe = Recipe(steps=steps, warmup=warmup, lr=2.0, schedule=schedule, min_lr=floor)
    rates = [learning_rate(s, recipe) for s in range(steps)]
    falling = [rate for s, rate in enumerate(rates) if s >= warmup * steps]
    assert falling == sorted(falling, reverse=True) and all(floor <= rate <= 2.0 for rate in falling)
    end = 2.0 if schedule == "constant" else floor
    assert [learning_rate(s, recipe) for s in (steps, steps + 1, 10 * steps)] == [end] * 3


def test_linear_pencil():
    "No warm-up, 4 steps from 1.0 to 0.2: a fifth less each time, and 0.2 for ever."
    recipe = Recipe(steps=4, warmup=0.0, lr=1.0, schedule="linear", min_lr=0.2)
    assert [round(learning_rate(s, recipe), 12) for s in range(6)] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]


@pytest.mark.parametrize("schedule, rate", [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_a_longer_run_goes_on_with_the_rate_of_the_longer_schedule(tmp_path, schedule, rate):
    "Four steps of four, then of eight: the falling schedules jump to the middle, the constant one goes on."
    recipe = Recipe(steps=4, batch_size=4, every=2, warmup=0.0, lr=1e-3, schedule=schedule)
    run(recipe, checkpoint_dir=tmp_path)
    with pytest.warns(
        UserWarning, match="a run of 4 steps goes on to 8; from here on the learning rate is that"
    ):
        model, history = run(replace(recipe, steps=8), checkpoint_dir=tmp_path)
    assert history[4]["lr"] == pytest.approx(rate * 1e-3)
    assert [row["lr"] for row in history[:4]] == [learning_rate(s, recipe) for s in range(4)]
    assert [row["lr"] for row in history[4:]] == [
        learning_rate(s, replace(recipe, steps=8)) for s in range(4, 8)
    ]
    if schedule == "constant":  # then it is the run that had eight steps from the start
        plain, expected = run(replace(recipe, steps=8))
        assert losses(history) == losses(expected) and same(model, plain)


def test_another_schedule_is_another_run(tmp_path):
    recipe = Recipe(steps=4, batch_size=4)
    run(recipe, checkpoint_dir=tmp_path)
    text = "min_lr: 0.0 in the checkpoint, 0.0001 now; schedule: cosine in the checkpoint, linear now"
    with pytest.raises(ValueError, match=text):
        run(replace(recipe, schedule="linear", min_lr=1e-4), checkpoint_dir=tmp_path)


# --- early stopping -----------------------------------------------------------------------------------------


def scored(values):
    "A validation that gives these values, one after another."
    values = iter(values)
    return lambda model: next(values)


@pytest.mark.parametrize(
    "values, patience, steps",
    [
        ([5, 4, 3, 3, 3, 3], 2, 5),  # an equal value is no better
        ([5, 4, 5, 3, 4, 4], 2, 6),
        ([5, 6], 1, 2),
        ([math.nan, math.nan, 1], 2, 2),
        ([math.inf, 9, 8, math.nan, 8.5, math.nan], 3, 6),
        ([1, 2, 3, 4, 5, 6], None, 6),
    ],
)
def test_patience_counts_validations_since_the_best(tmp_path, values, patience, steps):
    recipe = Recipe(steps=6, batch_size=4, every=1, patience=patience)
    model, history = run(recipe, eval_fn=scored(values), checkpoint_dir=tmp_path)
    assert len(history) == steps
    assert history[-1].get("stopped") == ("patience" if steps < 6 else None)
    assert checkpoints.read_rows(tmp_path)[-1].get("stopped") == history[-1].get("stopped")
    assert all("stopped" not in row for row in history[:-1])


def test_early_stopping_keeps_the_best_weights_and_a_stopped_run_stays_stopped(tmp_path):
    recipe = Recipe(steps=40, batch_size=4, every=2, patience=2)
    model, history = run(recipe, eval_fn=scored([5, 3, 4, 4]), checkpoint_dir=tmp_path)
    assert len(history) == 8 and history[-1]["stopped"] == "patience"
    best, facts = load_checkpoint(tmp_path / "best.safetensors")
    assert facts["step"] == 4 and facts["valid"] == 3
    fit_for_four, _ = run(replace(recipe, patience=None), on_step=lambda row: row["step"] == 4)
    assert same(best, fit_for_four) and not same(best, model)
    again = fit(decoder(3), Batches(Windows(IDS, 9), batch_size=4), stopping(0), recipe, scored([]), tmp_path)
    assert len(again) == 8, "nothing is trained and nothing is validated"


def test_more_patience_goes_on_and_makes_the_undisturbed_run(tmp_path):
    recipe = Recipe(steps=12, batch_size=4, every=2, patience=2)
    values = [5, 3, 4, 4, 2, 6]
    run(recipe, eval_fn=scored(values), checkpoint_dir=tmp_path)
    model, history = run(replace(recipe, patience=3), eval_fn=scored(values[4:]), checkpoint_dir=tmp_path)
    plain, expected = run(replace(recipe, patience=3), eval_fn=scored(values))
    assert losses(history) == losses(expected) and same(model, plain) and len(history) == 12
    assert [row["step"] for row in history if "stopped" in row] == [8]


def test_a_run_stopped_in_between_does_not_lose_patience_earlier(tmp_path):
    "A stop at step 3 validates there, too; but patience counts every second step only."
    recipe = Recipe(steps=8, batch_size=4, every=2, patience=2)
    run(recipe, eval_fn=scored([5, 9]), checkpoint_dir=tmp_path, on_step=lambda row: row["step"] == 3)
    _, history = run(recipe, eval_fn=scored([6, 4, 4]), checkpoint_dir=tmp_path)
    assert len(history) == 8


def test_patience_without_validation_is_refused():
    with pytest.raises(ValueError, match="patience=2 counts validations: give eval_fn, too"):
        run(Recipe(steps=2, batch_size=4, patience=2))


# --- a function after each step -----------------------------------------------------------------------------


def test_on_step_sees_every_row_once_and_cannot_change_it(tmp_path):
    seen = []

    def look(row):
        seen.append(dict(row))
        row.clear()
        row["loss"] = 0.0

    recipe = Recipe(steps=5, batch_size=4, every=2)
    model, history = run(recipe, eval_fn=lambda m: 1.5, checkpoint_dir=tmp_path, on_step=look)
    assert seen == history == checkpoints.read_rows(tmp_path)
    assert {"step", "loss", "gradient_norm", "lr", "seconds", "tokens"} <= {*seen[0]} and seen[1][
        "valid"
    ] == 1.5
    assert same(model, run(recipe)[0])


@pytest.mark.parametrize("at", [2, 3, 6])
def test_on_step_ends_the_run_which_goes_on_when_asked_again(tmp_path, at):
    recipe = Recipe(steps=6, batch_size=4, every=2)
    plain, expected = run(recipe)
    _, history = run(
        recipe, checkpoint_dir=tmp_path, eval_fn=lambda m: 1.0, on_step=lambda row: row["step"] == at
    )
    assert len(history) == at and history == checkpoints.read_rows(tmp_path)
    assert history[-1].get("stopped") == ("on_step" if at < 6 else None) and "valid" in history[-1]
    model, history = run(recipe, checkpoint_dir=tmp_path, eval_fn=lambda m: 1.0)
    assert losses(history) == losses(expected) and same(model, plain)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_error_in_on_step_leaves_a_run_that_goes_on(tmp_path, at):
    def failing(row):
        if row["step"] == at:
            raise KeyError("mine")

    recipe = Recipe(steps=5, batch_size=4, every=2)
    plain, expected = run(recipe)
    with pytest.raises(KeyError, match="mine"):
        run(recipe, checkpoint_dir=tmp_path, on_step=failing)
    model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)


ANSWERS = [(None, 3), (False, 3), (True, 1), (torch.tensor(True), 1), (np.bool_(False), 3)]


@pytest.mark.parametrize("answer, steps", ANSWERS)
def test_on_step_may_answer_with_any_kind_of_bool(answer, steps):
    assert len(run(Recipe(steps=3, batch_size=4), on_step=lambda row: answer)[1]) == steps


@pytest.mark.parametrize("answer", [1, 0, "stop", 0.5, []])
def test_another_answer_of_on_step_is_refused(answer):
    with pytest.raises(ValueError, match="expected True to stop, None or False to go on"):
        run(Recipe(steps=3, batch_size=4), on_step=lambda row: answer)


def test_time_that_is_up_is_told(ticking):
    history = fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), loss, Recipe(steps=1000, seconds=7.5))
    assert [row.get("stopped") for row in history] == [None] * 7 + ["seconds"]


def test_seconds_leave_out_what_on_step_and_validation_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runs, "perf_counter", lambda: now[0])

    def slow(model, ids):
        now[0] += 1
        return loss(model, ids)

    def spend(_):
        now[0] += 100

    def validate(model):
        now[0] += 100
        return 1.0

    history = fit(
        decoder(),
        Batches(Windows(IDS, 9), batch_size=4),
        slow,
        Recipe(steps=4, every=2),
        validate,
        on_step=spend,
    )
    assert [row["seconds"] for row in history] == [1, 2, 3, 4]


# --- random numbers, progress -------------------------------------------------------------------------------


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_fit_leaves_the_callers_generators_as_they_were(tmp_path, fails, unchecked):
    "Without the checks of types: beartype draws from Python's generator."

    def wild(model, ids):
        drawn()
        return loss(model, ids) if not fails else 1 / 0

    for folder in (None, tmp_path, tmp_path):  # alone, with checkpoints, continued
        model = decoder()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = drawn(), drawn()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        before = drawn()
        with suppress(ZeroDivisionError):
            look = {"eval_fn": lambda m: sum(drawn()), "on_step": lambda row: drawn()[0] > 2}
            fit(
                model,
                Batches(Windows(IDS, 9), batch_size=4),
                wild,
                Recipe(steps=3, every=2),
                checkpoint_dir=folder,
                **look,
            )
        assert (before, drawn()) == expected


def test_looking_changes_nothing_in_the_run_whatever_it_draws():
    recipe = Recipe(steps=6, batch_size=4, every=2)
    look = {"eval_fn": lambda m: sum(drawn()), "on_step": lambda row: drawn()[0] > 2}
    assert same(run(recipe)[0], run(recipe, **look)[0])
    torch.manual_seed(99)  # nor does it matter where the caller's generators stand
    assert same(run(recipe)[0], run(recipe, **look)[0])


@pytest.mark.parametrize("progress, shown", [(None, False), (False, False), (True, True)])
def test_a_bar_is_written_where_it_is_asked_for_or_seen(capfd, monkeypatch, progress, shown):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    run(Recipe(steps=3, batch_size=4), progress=progress)
    written = capfd.readouterr()
    assert ("3/3" in written.err) == shown and not written.out and bool(written.err) == shown


# --- killed -------------------------------------------------------------------------------------------------


def life(folder, steps):
    "A run in a process of its own, which somebody will kill."
    import time

    def slow(model, ids):
        time.sleep(0.002)
        return loss(model, ids)

    torch.set_num_threads(1)
    fit(
        decoder(),
        Batches(Windows(IDS, 9), batch_size=4),
        slow,
        Recipe(steps=steps, batch_size=4, every=2),
        lambda m: 1.0,
        folder,
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_twenty_times_the_run_is_the_undisturbed_one(tmp_path):
    import multiprocessing
    import random
    import signal
    import time

    steps, dice = 400, random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["llmlab.training", "hypothesis", "pytest"])
    kills, at = 0, lambda: max([0, *(int(path.stem[5:]) for path in step_files(tmp_path))])
    while kills < 22:
        child = context.Process(target=life, args=(tmp_path, steps))
        start, far = at(), dice.randint(0, 12)
        child.start()
        while child.is_alive() and at() - start < far:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.02))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "it ended before it was killed: give it more steps"
        kills += 1
    assert at() > 40, "the kills hit while it was training"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = Recipe(steps=steps, batch_size=4, every=2)
    model, history = run(recipe, eval_fn=lambda m: 1.0, checkpoint_dir=tmp_path)
    plain, expected = run(recipe, eval_fn=lambda m: 1.0)
    torch.set_num_threads(threads)
    assert losses(history) == losses(expected) and same(model, plain)
    assert [row["gradient_norm"] for row in history] == [row["gradient_norm"] for row in expected]


# --- several processes --------------------------------------------------------------------------------------

PROGRAM = """
import json, sys, torch
import torch.nn.functional as F
from llmlab.training import Batches, Recipe, Windows, fit
from llmlab.transformer import Config, Decoder

def loss(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

torch.set_num_threads(1)
torch.manual_seed(0)
ids = torch.randint(20, (200,), generator=torch.Generator().manual_seed(0))
model = Decoder(Config(vocab_size=20, context=8, layers=1, heads=2, d_model=16))
recipe = Recipe(steps=12, batch_size=4, every=3, accumulate=2, **json.loads(sys.argv[2]))
stop = int(sys.argv[3])
counted = iter(range(10**6))

def stopping(model, ids):
    if stop and model.training and next(counted) == 2 * stop:
        sys.exit("stopped")
    return loss(model, ids)

batches = Batches(Windows(ids, 9), batch_size=4)
history = fit(model, batches, stopping, recipe, lambda m: 1.0, sys.argv[1], progress=True)
print("rows", len(history))"""


def launch(tmp_path, processes, options="{}", stop=0, env=()):
    "Run PROGRAM in some processes -> what they wrote."
    import subprocess
    import sys

    (tmp_path / "program.py").write_text(PROGRAM)
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(many if processes > 1 else []), str(tmp_path / "program.py")]
    ran = subprocess.run(
        [*command, str(tmp_path / "run"), options, str(stop)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **dict(env)},
        timeout=300,
    )
    assert (ran.returncode == 0) == (not stop), ran.stderr[-3000:]
    return ran


def alone(tmp_path):
    return fit(
        decoder(dropout=0.0),
        Batches(Windows(IDS, 9), batch_size=4),
        loss,
        Recipe(steps=12, batch_size=4, every=3),
        checkpoint_dir=tmp_path,
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_two_processes_make_the_run_of_one_and_one_goes_on(tmp_path, sharded):
    pytest.importorskip("accelerate")
    env = (
        {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block",
            "FSDP_RESHARD_AFTER_FORWARD": "true",
        }
        if sharded
        else {}
    )
    expected = alone(tmp_path / "one")
    ran = launch(tmp_path, 2, env=env.items())
    history = checkpoints.read_rows(tmp_path / "run")
    torch.testing.assert_close(losses(history), losses(expected), atol=1e-5, rtol=0)
    assert ran.stdout.count("rows 12") == 2 and ran.stderr.count("12/12") >= 1
    assert [row["tokens"] for row in history] == [row["tokens"] for row in expected]
    one, two = (load_checkpoint(step_files(tmp_path / name)[-1])[0] for name in ("one", "run"))
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        if name.endswith("qkv.bias"):  # not the keys': softmax ignores it, its gradient is rounding alone
            p, q = (x.view(3, -1)[[0, 2]] for x in (p, q))
        torch.testing.assert_close(p, q, atol=1e-4, rtol=0)
    import shutil

    shutil.rmtree(tmp_path / "run")
    launch(tmp_path, 2, stop=7, env=env.items())
    assert step_files(tmp_path / "run")[-1].name == "step-00000006.safetensors"
    launch(tmp_path, 1)
    torch.testing.assert_close(
        losses(checkpoints.read_rows(tmp_path / "run")), losses(expected), atol=1e-5, rtol=0
    )
