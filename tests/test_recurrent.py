"""The LSTM in Keras and in PyTorch. Keras has one backend a process: `make recurrent` runs this file on each
of them.

KERAS_BACKEND=tensorflow pytest tests/test_recurrent.py
KERAS_BACKEND=torch pytest tests/test_recurrent.py
"""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import attention_view, keras_backend, next_token_view
from llmlab.generation import Sampling, generate
from llmlab.keras_backend import check_backend, choose_backend, load_keras
from llmlab.keras_models import FromKeras, from_keras, keras_arrays, to_keras, training_log
from llmlab.metrics import perplexity, token_logprobs
from llmlab.recurrent import (
    IGNORE,
    RecurrentLM,
    adamw,
    edit_reach,
    keras_lm,
    lstm_step,
    next_token_loss,
    pad,
    pairs,
)
from llmlab.training import Batches, Recipe, Windows, fit, learning_rate, make_optimizer, train_step
from llmlab.transformer import Config

CFG = Config(vocab_size=11, context=8, layers=2, heads=1, d_model=6)
keras = load_keras()


@pytest.fixture
def ids():
    return torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def twins():
    "The same weights on both sides, and no bias at zero."
    torch.manual_seed(0)
    model = RecurrentLM(CFG)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.5)
    return model, to_keras(model, keras_lm(CFG))


def loss_of(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def numpy(x):
    return keras.ops.convert_to_numpy(x)


# --- which backend ------------------------------------------------------------------------------------------


def fresh(code: str, **env) -> subprocess.CompletedProcess:
    "A new Python process, with KERAS_BACKEND only as given."
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | env)


def test_runs_on_the_backend_that_was_asked_for():
    assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
    assert ("tensorflow" in sys.modules) == (keras.backend.backend() == "tensorflow")


def test_import_loads_no_keras():
    ran = fresh("import sys, llmlab.recurrent; print(*{'keras', 'tensorflow'} & set(sys.modules))")
    assert ran.returncode == 0 and ran.stdout.strip() == ""


def test_without_keras_the_module_imports_and_one_sentence_says_what_is_missing():
    code = (
        "import sys; sys.modules['keras'] = None\nimport llmlab.recurrent as r\ntry: r.keras_lm(r.Config(9))"
    )
    ran = fresh(code + "\nexcept ImportError as e: print(e)")
    assert ran.stdout.startswith('Keras is not installed: pip install "llmlab-course[course]"'), ran.stderr


@pytest.mark.parametrize("absent, backend", [(True, "torch"), (False, "tensorflow")])
def test_tensorflow_where_it_is_installed_else_pytorch(monkeypatch, absent, backend):
    monkeypatch.setattr(keras_backend, "find_spec", lambda name: None if absent else types)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == backend


def test_the_readers_choice_of_backend_stays(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "torch"


def test_tensorflow_asked_for_but_absent(monkeypatch):
    monkeypatch.setattr(keras_backend, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'tensorflow, which is not installed: pip install "llmlab-course\[tens'
    ):
        check_backend("tensorflow")


def test_another_backend():
    with pytest.raises(
        ValueError, match='Keras runs on "jax", .* set KERAS_BACKEND .* before Keras is first imported'
    ):
        check_backend("jax")


def test_another_backend_in_a_process_of_its_own():
    code = "import llmlab.keras_backend as r\ntry: r.load_keras()\nexcept ValueError as e: print(e)"
    assert fresh(code, KERAS_BACKEND="jax").stdout.startswith('Keras runs on "jax"')


def test_a_gpu_is_shared(monkeypatch):
    grown = []

    def grow(gpu, on):
        grown.append((gpu, on))
        if gpu == "busy":
            raise RuntimeError("Physical devices cannot be modified after being initialized")

    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: ["busy", "free"] if kind == "GPU" else [],
        experimental=types.SimpleNamespace(set_memory_growth=grow),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    keras_backend.grow_gpu_memory()
    assert grown == [("busy", True), ("free", True)]


# --- one step -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_a_step_by_hand_is_that_of_pytorch_and_of_keras(b, d, u, seed):
    generator = torch.Generator().manual_seed(seed)
    x, h, c, w, r, bias = (
        torch.randn(*shape, generator=generator)
        for shape in [(b, d), (b, u), (b, u), (d, 4 * u), (u, 4 * u), (4 * u,)]
    )
    mine_h, mine_c = lstm_step(x, h, c, w, r, bias)
    cell = torch.nn.LSTM(d, u, batch_first=True)
    with torch.no_grad():
        for p, value in zip(cell.parameters(), [w.T, r.T, bias, torch.zeros_like(bias)], strict=True):
            p.copy_(value)
        _, (torch_h, torch_c) = cell(x[:, None], (h[None], c[None]))
    layer = keras.layers.LSTM(u, return_state=True)
    layer.build((b, 1, d))
    layer.set_weights([w.numpy(), r.numpy(), bias.numpy()])
    _, keras_h, keras_c = layer(
        x[:, None].numpy(), initial_state=[keras.ops.array(s.numpy()) for s in (h, c)]
    )
    for other_h, other_c in [(torch_h[0].numpy(), torch_c[0].numpy()), (numpy(keras_h), numpy(keras_c))]:
        np.testing.assert_allclose(mine_h.numpy(), other_h, atol=1e-5)
        np.testing.assert_allclose(mine_c.numpy(), other_c, atol=1e-5)


def test_a_step_with_a_pencil():
    "All weights 0, gates by their biases: i = f = o = 1/2, g = tanh(1); c' = c/2 + g/2, h' = tanh(c')/2."
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    h, c = lstm_step(one, zero, one, torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([0.0, 0, 1, 0]))
    assert c.item() == pytest.approx((1 + 0.761594) / 2, abs=1e-5)
    assert h.item() == pytest.approx(0.706818 / 2, abs=1e-5)


def test_an_open_forget_gate_and_a_shut_input_gate_keep_the_memory():
    c = torch.tensor([[3.0]])
    bias = torch.tensor([-40.0, 40, 0, 0])
    assert lstm_step(torch.ones(1, 1), torch.ones(1, 1), c, torch.ones(1, 4), torch.ones(1, 4), bias)[1] == c


# --- the two models -----------------------------------------------------------------------------------------


def test_carried_weights_give_equal_logits(twins, ids):
    model, other = twins
    np.testing.assert_allclose(FromKeras(other, 8)(ids).numpy(), model(ids).detach().numpy(), atol=1e-5)


def test_and_back_again(twins, ids):
    model, other = twins
    back = from_keras(other, RecurrentLM(CFG))
    torch.testing.assert_close(back(ids), model(ids), atol=1e-5, rtol=0)
    for a, b in zip(keras_arrays(back), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("carry", [lambda a, b: to_keras(a, b), lambda a, b: from_keras(b, a)])
def test_weights_of_another_shape(carry):
    small = Config(vocab_size=11, layers=1, heads=1, d_model=4)
    with pytest.raises(
        ValueError, match=r"weights of shapes \[.*\], but the model has \[.*: build both .* one Config"
    ):
        carry(RecurrentLM(small), keras_lm(CFG))


def test_both_start_alike():
    torch.manual_seed(0)
    wide = Config(vocab_size=200, layers=1, heads=1, d_model=64)
    for a, b in zip(keras_arrays(RecurrentLM(wide)), keras_lm(wide).get_weights(), strict=True):
        assert a.shape == b.shape and np.allclose([a.std(), a.max()], [b.std(), b.max()], rtol=0.3)
    recurrent_kernel, bias = keras_arrays(RecurrentLM(wide))[2:4]
    np.testing.assert_allclose(recurrent_kernel @ recurrent_kernel.T, np.eye(64), atol=1e-5)
    assert bias.tolist() == [0] * 64 + [1] * 64 + [0] * 128


def test_the_last_layer_of_the_classical_listing_sees_one_row_a_text(ids):
    layers = keras.layers
    classical = keras.Sequential([layers.Embedding(11, 6), layers.LSTM(6), layers.Dense(11)])
    assert tuple(classical(ids.numpy()).shape) == (3, 11)
    assert tuple(keras_lm(CFG)(ids.numpy()).shape) == (3, 7, 11)


def test_neither_model_sees_the_future(twins, ids):
    model, other = twins
    later = ids.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 11
    for f in (model, FromKeras(other, 8)):
        torch.testing.assert_close(f(ids)[:, :4], f(later)[:, :4])
        assert (f(ids)[:, 4:] - f(later)[:, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize("bad", [-1, 11])
def test_ids_outside_the_vocabulary(twins, bad):
    model, other = twins
    wrong = torch.tensor([[1, bad]])
    for f in (model, FromKeras(other, 8), lambda x: pairs(x, 11)):
        with pytest.raises(ValueError, match="is outside the vocabulary: ids run from 0 to 10"):
            f(wrong)


# --- targets and padding ------------------------------------------------------------------------------------


def test_pairs_shift_by_one():
    x, y = pairs(torch.tensor([[5, 6, 7]]), 11)
    assert x.tolist() == [[5, 6]] and y.tolist() == [[6, 7]]


def test_a_text_of_one_token_has_no_target():
    with pytest.raises(
        ValueError, match="1 token a row: a target needs a token before it, so give at least 2"
    ):
        pairs(torch.tensor([[5]]), 11)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(0, 10), min_size=2, max_size=6), min_size=1, max_size=4))
def test_padding_changes_no_loss(rows):
    torch.manual_seed(0)
    model = RecurrentLM(CFG)
    x, y = pairs(pad(rows), 11)
    alone = torch.cat([-token_logprobs(model, row) for row in rows]).mean().item()
    logits = model(torch.tensor(x)).detach()
    ours = F.cross_entropy(logits.flatten(0, 1), torch.tensor(y).flatten(), ignore_index=IGNORE)
    theirs = next_token_loss()(y, keras.ops.array(logits.numpy()))
    assert [ours.item(), float(numpy(theirs))] == pytest.approx([alone] * 2, abs=1e-5)


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.33])
def test_the_learning_rates_are_those_of_chapter_10(warmup):
    recipe = Recipe(steps=12, lr=0.3, warmup=warmup)
    rate = adamw(recipe)._learning_rate
    for step in range(12):
        assert float(numpy(rate(step))) == pytest.approx(learning_rate(step, recipe), abs=1e-6)


@pytest.mark.parametrize("clip", [0.05, float("inf")])
def test_keras_and_chapter_10_train_alike(twins, ids, clip):
    model, other = twins
    recipe = Recipe(steps=4, batch_size=3, lr=1e-2, clip=clip, weight_decay=0.5)
    other.compile(optimizer=adamw(recipe), loss=next_token_loss())
    book = training_log()
    stack = torch.cat([(ids + step) % 11 for step in range(4)])
    other.fit(*pairs(stack, 11), batch_size=3, shuffle=False, verbose=0, callbacks=[book])
    opt = make_optimizer(model, recipe)
    for step in range(4):
        opt.param_groups[0]["lr"] = opt.param_groups[1]["lr"] = learning_rate(step, recipe)
        row = train_step(model, (ids + step) % 11, loss_of, opt, recipe)
        assert book.rows[step]["loss"] == pytest.approx(row["loss"], abs=1e-3)
    first = keras_arrays(model)[0], other.get_weights()[0]
    np.testing.assert_allclose(*first, atol=2e-4)
    np.testing.assert_allclose(FromKeras(other, 8)(ids).numpy(), model(ids).detach().numpy(), atol=0.02)


def test_the_diary_keeps_steps_seconds_and_validations(ids):
    model = keras_lm(CFG)
    model.compile(optimizer=adamw(Recipe(steps=6)), loss=next_token_loss())
    book = training_log(eval_fn=lambda m: 7 if m is model else 0, every=2)
    model.fit(*pairs(ids, 11), batch_size=1, epochs=2, verbose=0, callbacks=[book])
    assert [row["step"] for row in book.rows] == [1, 2, 3, 4, 5, 6]
    assert [row.get("valid") for row in book.rows] == [None, 7, None, 7, None, 7]
    seconds = [row["seconds"] for row in book.rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert all(0 < row["loss"] < 5 for row in book.rows)


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_it_learns_to_count(framework):
    "0 1 2 … 9 0 1 …: the next token is certain."
    ids = torch.arange(400) % 10
    batches, recipe = Batches(Windows(ids, 7), batch_size=8), Recipe(steps=100, batch_size=8, lr=2e-2)
    cfg = Config(vocab_size=11, context=6, layers=1, heads=1, d_model=16)
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    if framework == "torch":
        model = RecurrentLM(cfg)
        fit(model, batches, loss_of, recipe)
    else:
        trained = keras_lm(cfg)
        trained.compile(optimizer=adamw(recipe), loss=next_token_loss())
        x, y = pairs(torch.cat([batches(step) for step in range(100)]), 11)
        trained.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        model = FromKeras(trained, 6)
    assert perplexity(token_logprobs(model, ids[:50])) < 1.3
    assert generate(model, [[3, 4, 5]], 5, Sampling(0)) == [[6, 7, 8, 9, 0]]


# --- a Keras model at home here -----------------------------------------------------------------------------


def test_metrics_and_sampler_see_no_difference(twins, ids):
    model, other = twins
    text = ids.flatten()
    guest = FromKeras(other, 8)
    mine, theirs = (float(perplexity(token_logprobs(f, text))) for f in (model, guest))
    assert mine == pytest.approx(theirs, abs=1e-3)
    assert generate(guest, [[1, 2]], 12, seed=4) == generate(model, [[1, 2]], 12, seed=4)
    assert generate(guest, [[1, 2], [3]], 12) == generate(model, [[1, 2], [3]], 12), (
        "ragged, beyond the context"
    )


def test_views_take_logits_and_attention_scores_of_keras(twins, ids):
    other = twins[1]
    probs = FromKeras(other, 8)(ids)[0, -1].softmax(-1)
    assert next_token_view([("x", dict(enumerate(probs.tolist())))]).data["candidates"]
    layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)
    states = keras.ops.array(np.random.default_rng(0).normal(size=(1, 7, 6)).astype("float32"))
    _, scores = layer(states, states, return_attention_scores=True, use_causal_mask=True)
    view = attention_view([scores], list("abcdefg"))
    (part,) = view.data["parts"]
    assert part["heads"] == [2] and not part["uneven"]


# --- how far back -------------------------------------------------------------------------------------------


def test_reach_ends_where_the_context_of_the_model_ends():
    def two_back(x):
        "Predicts the token before the last one, and knows nothing else."
        return 9.0 * F.one_hot(torch.cat([x[:, :1], x[:, :-1]], 1), 11)

    rows = torch.stack([torch.randperm(11) for _ in range(4)])
    reach = edit_reach(two_back, rows)
    assert (reach[2:] == 0).all() and reach[1] > 0.5 and 0 < reach[0] < reach[1]


def test_reach_by_hand():
    "A model that gives token x the probability 1 after x: an edit moves all the mass once, then none."
    reach = edit_reach(lambda x: 99.0 * F.one_hot(x, 3), torch.tensor([[0, 1, 2]]), seed=1)
    new = torch.tensor([0, 1, 2])[torch.randint(3, (1, 3), generator=torch.Generator().manual_seed(1))][0]
    assert reach.tolist() == pytest.approx([(new != torch.tensor([0, 1, 2])).double().mean().item(), 0, 0])
