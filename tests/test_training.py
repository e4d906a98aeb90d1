"The loop: seeds, schedule, clip, checkpoints, and everything that can be wrong with a file."
import json
import math
import os
from dataclasses import replace

import jaxtyping
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from llmlab import training
from llmlab.training import Batches, Recipe, fit, learning_rate, load, optimizer, save, train_step
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

CFG = Config(vocab_size=20, context=8, layers=1, heads=2, d_model=16, dropout=0.1)
IDS = torch.randint(20, (200,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def unchecked():
    "Our own errors, not beartype's."
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def loss(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def decoder(seed=0, **change):
    torch.manual_seed(seed)
    return Decoder(replace(CFG, **change))


def run(recipe, seed=0, **options):
    model = decoder()
    return model, fit(model, Batches(IDS, 9, recipe.batch_size, seed), loss, recipe, **options)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_equal_seeds_give_equal_weights_bit_for_bit():
    recipe = Recipe(steps=6, batch_size=4)
    (one, h1), (two, h2), (other, _) = run(recipe), run(recipe), run(recipe, seed=1)
    assert same(one, two) and not same(one, other)
    assert [r["loss"] for r in h1] == [r["loss"] for r in h2]
    assert not same(one, run(replace(recipe, seed=1))[0])  # another dropout


def test_fit_equals_a_loop_written_by_hand():
    recipe = Recipe(steps=5, batch_size=4, lr=0.01, clip=0.5, weight_decay=0.3)
    model, history = run(recipe)
    by_hand, batches = decoder(), Batches(IDS, 9, 4)
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
        assert history[step]["norm"] == pytest.approx(norm, rel=1e-4)
    for (name, p), q in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        if name.endswith("qkv.bias"):  # not the keys': softmax ignores it, its gradient is rounding alone
            p, q = (x.view(3, -1)[[0, 2]] for x in (p, q))
        torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-4)


def test_clip_bounds_the_gradient_that_the_optimizer_sees():
    model, seen = decoder(), []
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    norm = train_step(model, Batches(IDS, 9, 4)(0), loss, opt, Recipe(clip=0.01))["norm"]
    moves = [(p - b).detach() for p, b in zip(model.parameters(), before, strict=True)]
    seen = math.sqrt(sum(float(move.square().sum()) for move in moves))
    assert norm > 0.01 and seen == pytest.approx(0.01, rel=1e-3)


def test_history_tells_step_rate_tokens_and_validation():
    recipe = Recipe(steps=7, batch_size=4, every=3)
    model, history = run(recipe, validate=lambda m: 1.5)
    assert [r["step"] for r in history] == list(range(1, 8))
    assert [r["step"] for r in history if "valid" in r] == [3, 6, 7]
    assert history[-1]["tokens"] == 7 * 4 * 9
    assert [r["lr"] for r in history] == [learning_rate(s, recipe) for s in range(7)]
    assert all(a["seconds"] < b["seconds"] for a, b in zip(history, history[1:], strict=False))
    assert not model.training


def test_validation_does_not_change_the_run():
    recipe = Recipe(steps=6, batch_size=4, every=2)
    assert same(run(recipe)[0], run(recipe, validate=lambda m: float(loss(m.eval(), IDS[None, :9])))[0])


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
    groups = optimizer(model, Recipe(weight_decay=0.7)).param_groups
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
    one, two = Batches(ids, 7, 5, seed=3), Batches(list(range(100)), 7, 5, seed=3)
    two(4), two(9)
    assert torch.equal(one(0), two(0)) and not torch.equal(one(0), one(1))
    assert not torch.equal(one(0), Batches(ids, 7, 5, seed=4)(0))
    assert (one(0).diff(dim=1) == 1).all() and one(0).shape == (5, 7)
    everything = torch.cat([one(s) for s in range(200)])
    assert everything.min() == 0 and everything.max() == 99  # both ends are reached


def test_batches_start_where_told():
    batches = Batches(torch.arange(100), 7, 50, starts=[0, 30, 60, 97])
    assert set(batches(0)[:, 0].tolist()) == {0, 30, 60}


@pytest.mark.parametrize("make", [Decoder, Encoder, EncoderDecoder])
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_round_trip(tmp_path, make, tied):
    torch.manual_seed(1)
    model = make(replace(CFG, tied=tied, position="rope", norm="rms"))
    save(model, tmp_path / "new" / "m.safetensors", step=3, corpus="stories")
    back, facts = load(tmp_path / "new" / "m.safetensors")
    assert type(back) is make and back.cfg == model.cfg and same(back, model) and not back.training
    assert facts == {"step": 3, "corpus": "stories"}
    assert os.listdir(tmp_path / "new") == ["m.safetensors"]


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = decoder()
    save(model, tmp_path / "m.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
    back = load(tmp_path / "m.safetensors")[0]
    assert back.head_weight is back.embed.tokens.weight


def test_half_precision_storage_loads_as_fp32(tmp_path):
    model = decoder()
    save(model, tmp_path / "m.safetensors", dtype=torch.bfloat16)
    back = load(tmp_path / "m.safetensors")[0]
    for p, q in zip(model.parameters(), back.parameters(), strict=True):
        assert q.dtype == torch.float32 and torch.equal(q, p.bfloat16().float())


def test_fit_keeps_the_last_and_the_best(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    model, _ = run(Recipe(steps=6, batch_size=4, every=2), validate=lambda m: next(scores), folder=tmp_path)
    last, best = load(tmp_path / "last.safetensors"), load(tmp_path / "best.safetensors")
    assert same(last[0], model) and last[1]["step"] == 6 and best[1]["step"] == 4 and best[1]["valid"] == 1.0
    assert not same(best[0], model)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(decoder(0), path)
    old = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        save(decoder(1), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["m.safetensors"]


def test_a_kill_before_the_rename_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(decoder(0), path)
    old = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save(decoder(1), path)
    assert path.read_bytes() == old


def test_unwritable_path_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot write .*m.safetensors .*choose a folder"):
        save(decoder(), tmp_path / "file" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write .*folder"):
        save(decoder(), tmp_path / "folder")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_checkpoint(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    save(decoder(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="m.safetensors is cut short or no safetensors file"):
        load(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "m"
    path.write_text("hello, I am a pickle" * 100)
    with pytest.raises(ValueError, match="no safetensors file"):
        load(path)
    foreign = json.dumps({"class": "Popen", "config": {}})
    for metadata in (None, {"format": "pt"}, {"llmlab": foreign}, {"llmlab": "[1]"}):
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata)
        with pytest.raises(ValueError, match="no header of llmlab.training.save"):
            load(path)


def test_every_mismatch_is_named(tmp_path):
    save(decoder(), tmp_path / "m")
    other = decoder(vocab_size=30, layers=2)
    before = [p.detach().clone() for p in other.parameters()]
    with pytest.raises(ValueError) as error:
        load(tmp_path / "m", other)
    assert "embed.tokens.weight: [20, 16] in the file, [30, 16] in the model" in str(error.value)
    assert "blocks.1.attention.qkv.weight: nothing in the file, [48, 16] in the model" in str(error.value)
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True))  # nothing was half loaded


@pytest.mark.parametrize("call,text", [
    (lambda: Batches(IDS, 201), "a window is 201 tokens, but the split has 200: take more text or a shorter window"),
    (lambda: Batches(IDS, 50, starts=[180]), "no start leaves room for 50 tokens: give starts up to 150"),
    (lambda: Recipe(steps=0), "steps=0: it must be above 0"),
    (lambda: Recipe(batch_size=0), "batch_size=0"),
    (lambda: Recipe(lr=-1.0), "lr=-1.0"),
    (lambda: Recipe(clip=0), "clip=0"),
    (lambda: Recipe(warmup=2), "warmup=2 is a share"),
    (lambda: Recipe(precision="fp8"), "precision='fp8': take"),
    (lambda: training.shipped("nothing"), "no 'nothing' comes with llmlab"),
])
def test_errors(unchecked, call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_a_missing_checkpoint_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.safetensors")
