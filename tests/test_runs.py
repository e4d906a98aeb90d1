"A run: what it measures, when it ends, how it goes on, in one process and in several."

import itertools
import math
import os
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_runs import IDS, Stop, decoder, loss, losses, run, same, stopping

from llmlab import checkpoints, runs
from llmlab.checkpoints import load_checkpoint, step_files
from llmlab.runs import Run, maybe_compile
from llmlab.same_run import fingerprint
from llmlab.training import Batches, Recipe, Windows, fit, learning_rate, make_optimizer

# --- the pace, and compiling --------------------------------------------------------------------------------


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


# --- the clock ----------------------------------------------------------------------------------------------


@pytest.fixture
def ticking(monkeypatch):
    "A clock for fit that goes on by one second each time it is asked: once a step."
    clock = partial(next, itertools.count(1.0))
    monkeypatch.setattr(runs, "perf_counter", clock)


def test_the_budget_stops_the_run(ticking):
    history = fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), loss, Recipe(steps=1000, seconds=7.5))
    assert [row["seconds"] for row in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "mfu" in history[-1]


def test_time_that_is_up_is_told(ticking):
    history = fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), loss, Recipe(steps=1000, seconds=7.5))
    assert [row.get("stopped") for row in history] == [None] * 7 + ["seconds"]


def test_more_time_continues_a_run_whose_time_was_up(tmp_path, ticking):
    recipe = Recipe(steps=8, batch_size=4, every=100)
    plain, expected = run(recipe)
    first = run(replace(recipe, seconds=4.0), checkpoint_dir=tmp_path)[1]
    model, history = run(recipe, checkpoint_dir=tmp_path)
    assert len(first) == 4 and losses(history) == losses(expected) and same(model, plain)


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


# --- stop and go on -----------------------------------------------------------------------------------------


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


# --- failures that the reader can do something about --------------------------------------------------------


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


# --- progress -----------------------------------------------------------------------------------------------


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
sys.stdout.write(f"rows {len(history)}\\n")  # in one piece, as two processes write into one pipe"""


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
