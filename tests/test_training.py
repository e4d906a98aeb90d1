"The loop: seeds, batches, the schedule, the clip, parts of a batch; what is refused."

import math
import random
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import IDS, decoder, loss, losses, run, same

from llmlab.training import Batches, Recipe, Windows, fit, learning_rate, make_optimizer, train_step

# --- the loop -----------------------------------------------------------------------------------------------


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


# --- batches ------------------------------------------------------------------------------------------------


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


# --- what is refused ----------------------------------------------------------------------------------------


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


# --- less memory --------------------------------------------------------------------------------------------


def run_without_dropout(recipe, **options):
    model = decoder(dropout=0.0)
    return model, fit(model, Batches(Windows(IDS, 9), batch_size=recipe.batch_size), loss, recipe, **options)


def test_parts_of_a_batch_give_the_update_of_the_whole():
    recipe = Recipe(steps=4, batch_size=6)
    whole, one = run_without_dropout(recipe)
    for parts in (2, 3, 6):
        model, history = run_without_dropout(replace(recipe, accumulate=parts))
        torch.testing.assert_close(losses(history), losses(one), atol=1e-5, rtol=0)
        assert history[-1]["tokens"] == one[-1]["tokens"]


def test_recomputing_changes_no_bit_and_leaves_the_model_as_it_was():
    recipe = Recipe(steps=4, batch_size=4)
    model, history = run(replace(recipe, recompute=True))
    plain, expected = run(recipe)
    assert same(model, plain) and losses(history) == losses(expected)
    assert all("forward" not in vars(m) for m in model.modules())


# --- schedules: the rate of each step, equal to the field's own ---------------------------------------------


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 120), st.floats(0, 1))
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


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_rate_ends_at_zero_and_stays_there(warmup):
    recipe = Recipe(steps=20, warmup=warmup)
    assert [learning_rate(step, recipe) for step in (20, 21, 30, 400)] == [0.0] * 4
    assert all(0 < learning_rate(step, recipe) <= recipe.lr for step in range(20))


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


# --- random numbers -----------------------------------------------------------------------------------------


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
