"A step is the CPU's step, fit learns in bf16 and compiled, a broken run goes on, memory is bounded."

import math

import pytest
import torch
import torch.nn.functional as F
from on_device import CPU, DEVICE, LargestTensor, decoder, only_gpu

from llmlab.causal import causal_loss
from llmlab.masked import MaskedLM, masked_loss
from llmlab.training import Batches, Recipe, Windows, fit, make_optimizer, train_step


def windows(rows=8, t=33, vocab_size=64):
    return torch.randint(vocab_size, (rows, t), generator=torch.Generator().manual_seed(5))


def hidden_windows(rows=8, t=32, vocab_size=64):
    "Inputs, labels, padding: as corrupt makes them, the last row half padding."
    ids, generator = windows(rows, t, vocab_size), torch.Generator().manual_seed(6)
    there = torch.ones_like(ids)
    there[-1, t // 2 :] = 0
    labels = ids.masked_fill((torch.rand(ids.shape, generator=generator) > 0.15) | (there == 0), -100)
    return torch.stack([ids.masked_fill(labels != -100, 3), labels, there], 1)


def encoder(**change):
    return decoder(MaskedLM, **change)


CASES = {"causal": (decoder, causal_loss, windows), "masked": (encoder, masked_loss, hidden_windows)}


def without_key_bias(state):
    """The weights less the keys' bias. It adds the same number to all scores of a query, so the softmax does
    not see it and its gradient is rounding alone; Adam divides that by its own size, and so each device goes
    its own way."""
    kept = {}
    for name, x in state.items():
        d = len(x) // 3
        kept[name] = torch.cat([x[:d], x[2 * d :]]) if name.endswith("attention.qkv.bias") else x
    return kept


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_is_the_cpu_s_step(case, accumulate):
    make, loss, batch = CASES[case]
    recipe, found = Recipe(precision="fp32", accumulate=accumulate), []
    for device in (CPU, DEVICE):
        model = make().to(device).train()
        opt = make_optimizer(model, recipe)
        rows = [train_step(model, batch().to(device), loss, opt, recipe) for _ in range(2)]
        found.append((rows, model.cpu().state_dict()))
    (here, ours), (there, theirs) = found
    for a, b in zip(here, there, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["gradient_norm"] == pytest.approx(
            b["gradient_norm"], rel=1e-3
        )
    theirs = without_key_bias(theirs)
    for name, x in without_key_bias(ours).items():
        torch.testing.assert_close(
            theirs[name], x, atol=2e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_bf16_stays_near_fp32(case):
    make, loss, batch = CASES[case]
    found = {}
    for precision in ("fp32", "bf16"):
        model, recipe = make().to(DEVICE).train(), Recipe(precision=precision)
        opt = make_optimizer(model, recipe)
        found[precision] = train_step(model, batch().to(DEVICE), loss, opt, recipe)
        assert {p.dtype for p in model.parameters()} == {torch.float32}, "master weights"
    assert found["bf16"]["loss"] == pytest.approx(found["fp32"]["loss"], rel=0.02)
    assert found["bf16"]["gradient_norm"] == pytest.approx(found["fp32"]["gradient_norm"], rel=0.1)


def text():
    "One sentence of 37 ids over and over: soon known by heart."
    return torch.randint(64, (37,), generator=torch.Generator().manual_seed(7)).repeat(40)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=only_gpu)], ids=["eager", "compiled"])
def test_fit_learns_in_bf16(compiled):
    torch.manual_seed(0)
    model = decoder().to(DEVICE)
    recipe = Recipe(
        steps=60, batch_size=8, lr=3e-3, precision="bf16", compile="yes" if compiled else "no", every=20
    )
    validate = torch.no_grad()(lambda model: causal_loss(model, text()[None, :96].to(DEVICE)))
    history = fit(model, Batches(Windows(text(), 33), batch_size=8), causal_loss, recipe, validate)
    assert len(history) == 60 and all(math.isfinite(row["loss"] + row["gradient_norm"]) for row in history)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and history[-1]["valid"] < history[19]["valid"]
    assert {p.dtype for p in model.parameters()} == {torch.float32} and history[-1]["tokens"] == 60 * 8 * 33
    assert 0 < history[-1]["mfu"] < 1.5 and history[-1]["memory_mb"] > 0 and not model.training


def test_recomputing_gives_the_same_gradients():
    found = []
    for recompute in (False, True):
        model = decoder(dropout=0.1).to(DEVICE)
        recipe = Recipe(steps=3, batch_size=8, precision="fp32", compile="no", recompute=recompute)
        fit(model, Batches(Windows(text(), 33), batch_size=8), causal_loss, recipe)
        found.append(model.state_dict())
    for name, x in found[0].items():
        torch.testing.assert_close(found[1][name], x, atol=1e-5, rtol=1e-4)


class Broken(Exception):
    pass


def test_a_broken_run_goes_on_where_it_stood(tmp_path):
    "With dropout, so that the state of the device's random numbers matters."
    recipe = Recipe(steps=20, batch_size=8, precision="fp32", compile="no", every=5)
    batches = Batches(Windows(text(), 33), batch_size=8)

    def breaks(step):
        if step == 10:
            raise Broken
        return batches(step)

    def run(batches, checkpoint_dir=None, seed=0):
        model = decoder(dropout=0.2).to(DEVICE)
        return model, fit(
            model,
            batches,
            causal_loss,
            Recipe(**{**vars(recipe), "seed": seed}),
            checkpoint_dir=checkpoint_dir,
        )

    whole, history = run(batches)
    with pytest.raises(Broken):
        run(breaks, tmp_path / "run")
    torch.manual_seed(99)  # a new process would stand elsewhere
    again, rows = run(batches, tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in history], rel=1e-4)
    other, _ = run(batches, seed=1)
    weights = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (whole, again, other)]
    same, otherwise = (float((x - weights[0]).abs().max()) for x in weights[1:])
    assert same < 1e-4 < 1e-3 < otherwise, "the second: what other dropout would make"


# --- memory -------------------------------------------------------------------------------------------------


def test_the_chunked_loss_holds_no_logits_of_a_batch():
    model, ids = decoder(vocab_size=4000, d_model=32).to(DEVICE), windows(16, 65, 4000).to(DEVICE)
    logits = 16 * 64 * 4000
    found = []
    for loss in (
        lambda: causal_loss(model, ids, chunk=64),
        lambda: F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()),
    ):
        model.zero_grad()
        with LargestTensor() as largest:
            value = loss()
            value.backward()
        found.append((value.item(), largest.numel, model.embed.tokens.weight.grad.clone()))
    assert found[0][1] < logits / 4 and found[1][1] >= logits, "the second: PyTorch's own loss"
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-5, rtol=1e-3)


def test_the_masked_head_works_at_the_targets_alone():
    model, batch = (
        decoder(MaskedLM, vocab_size=4000, d_model=32).to(DEVICE),
        hidden_windows(32, 64, 4000).to(DEVICE),
    )
    with LargestTensor() as largest:
        masked_loss(model, batch).backward()
    targets = int((batch[:, 1] != -100).sum())
    assert targets < 0.2 * 32 * 64 and largest.numel <= targets * 4000 < 32 * 64 * 4000 / 4


@only_gpu
@pytest.mark.parametrize("case", CASES)
def test_the_gpu_s_peak_is_bounded(case):
    "50,000 tokens of vocabulary: the logits of the batch would take 0.8 GB, their gradient as much again."
    make, loss, batch = CASES[case]
    model, ids = make(vocab_size=50_000, layers=1).to(DEVICE), batch(64, 65, 50_000).to(DEVICE)
    loss(model, ids).backward()  # gradients have their place
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss(model, ids).backward()
    assert torch.cuda.max_memory_allocated() - before < 64 * 64 * 50_000 * 4 * (
        1 if case == "causal" else 0.6
    )


@only_gpu
def test_a_full_gpu_is_explained():
    "An allocation that cannot be had; afterwards the device works as before."
    model = decoder(context=64).to(DEVICE)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 48 * 2**20  # the batch fits, what the first block computes does not
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(DEVICE).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="accumulate=2 halves them"):
            fit(
                model,
                lambda step: windows(4096, 65),
                causal_loss,
                Recipe(steps=1, batch_size=4096, compile="no"),
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.ones(8, device=DEVICE).sum() == 8
