"Attention figures: what they accept, what they refuse, and what travels to the browser."

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, missing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sample_figures import softmax, unpack, unpacked

from llmlab import attention_view, bertviz_head, formula_view, mask_view, neuron_view
from llmlab.figures import peers
from llmlab.figures.view import figure_html

# --- what comes in ------------------------------------------------------------------------------------------


def test_what_the_browser_decodes_is_what_was_given():
    given = softmax((3, 2, 7, 7), causal=True)
    got = unpack(attention_view(given, list("abcdefg"))).reshape(given.shape)
    top = given.max(-1, keepdims=True)
    assert (np.abs(got - given) <= top / 255).all()
    assert np.allclose(got.max(-1), given.max(-1), rtol=1e-6), "the largest weight of a row is exact"
    assert (got[given == 0] == 0).all(), "what the mask hides is zero"


@given(arrays(np.float32, (1, 2, 3, 4), elements=st.floats(0, 1, width=32)))
def test_the_view_keeps_every_weight_within_a_255th_of_its_row(x):
    got = np.stack(unpack(attention_view(x, (list("abc"), list("wxyz")))))
    assert (np.abs(got - x[0]) <= x[0].max(-1, keepdims=True) / 255 + 1e-7).all()


def test_arrays_tensors_lists_and_layers_give_the_same_view():
    a = softmax((2, 2, 3, 3)).astype(np.float32)
    t = torch.tensor(a, requires_grad=True)
    forms = [a, list(a), [layer[None] for layer in a], a.tolist(), t, list(t), [layer[None] for layer in t]]
    packed = {attention_view(form, list("abc")).data["parts"][0]["thumbs"] for form in forms}
    assert len(packed) == 1


def test_one_layer_alone_and_half_precision():
    a = softmax((2, 3, 3))
    assert attention_view(a, list("abc")).data["parts"][0]["heads"] == [2]
    assert attention_view(torch.tensor(a, dtype=torch.bfloat16), list("abc")).data["parts"][0]["heads"] == [2]
    assert attention_view(torch.tensor(a, dtype=torch.float64)[None], list("abc")).data["parts"][0][
        "heads"
    ] == [2]
    if torch.cuda.is_available():
        assert attention_view(torch.tensor(a, device="cuda"), list("abc")).data["parts"][0]["heads"] == [2]


def test_layers_may_have_different_numbers_of_heads():
    view = attention_view([softmax((2, 3, 3)), softmax((5, 3, 3), 1)], list("abc"), layer=1, head=4)
    assert view.data["parts"][0]["heads"] == [2, 5] and len(unpack(view)) == 7
    assert np.allclose(unpack(view)[6], softmax((5, 3, 3), 1)[4], atol=1 / 255)


@pytest.mark.parametrize(
    ("heads", "text"),
    [
        ([1], "Attention of 1 layer with 1 head, from 3 tokens to 3."),
        ([4], "Attention of 1 layer with 4 heads, from"),
        ([2, 2], "Attention of 2 layers with 2 heads each, from"),
        ([1, 1, 1], "Attention of 3 layers with 1 head each, from"),
        ([2, 5], "Attention of 2 layers with 7 heads in all, from"),
    ],
)
def test_the_text_alternative_counts_layers_and_heads(heads, text):
    view = attention_view([softmax((n, 3, 3)) for n in heads], list("abc"))
    assert view.alt.startswith(text)


def test_cross_attention_takes_a_pair():
    view = attention_view(softmax((1, 2, 3, 4)), (list("abc"), list("wxyz")))
    (part,) = view.data["parts"]
    assert part["queries"] == list("abc") and part["keys"] == list("wxyz")


def test_one_token_and_rows_that_do_not_sum_to_one():
    assert attention_view(np.ones((1, 1, 1, 1)), ["a"]).data["parts"][0]["uneven"] is False
    assert attention_view(np.full((1, 1, 2, 2), 0.3), ["a", "b"]).data["parts"][0]["uneven"] is True


def test_two_models_become_two_parts():
    one, two = softmax((2, 2, 3, 3)), softmax((1, 4, 3, 3), 1)
    parts = attention_view({"small": one, "large": two}, list("abc")).data["parts"]
    assert [(p["name"], p["heads"]) for p in parts] == [("small", [2, 2]), ("large", [4])]


def test_what_generate_hands_out_becomes_one_map():
    rows = [softmax((1, 2, 3, 3), causal=True), softmax((1, 2, 1, 4)), softmax((1, 2, 1, 5))]
    view = attention_view([(torch.tensor(x),) for x in rows], list("abcdef"))
    (part,) = view.data["parts"]
    assert part["prompt"] == 3 and part["queries"] == list("abcde"), "the last token was never read"
    shown = unpack(view)
    assert np.allclose(shown[:, 3, :4], rows[1][0][:, 0], atol=0.01) and not shown[:, 3, 4].any()
    assert np.allclose(shown[:, :3, :3], rows[0][0], atol=0.01)
    with pytest.raises(ValueError, match="one text"):
        attention_view([(torch.rand(2, 1, 2, 2),)], list("ab"))


# --- what is refused ----------------------------------------------------------------------------------------


nan = np.full((1, 1, 2, 2), np.nan)


@pytest.mark.parametrize(
    "attention, tokens, words",
    [
        (
            softmax((1, 2, 3, 3)),
            list("ab"),
            r"layer 0 attends from 3 to 3 positions, but there are 2 and 2.*a pair",
        ),
        (softmax((1, 2, 3, 4)), list("abc"), r"from 3 to 4 positions, but there are 3 and 3 tokens"),
        (softmax((2, 2)), list("ab"), r"layer 0 has shape \[2\], expected \[heads, queries, keys\]"),
        (softmax((2, 3, 2, 4, 4)), list("abcd"), r"layer 0 has shape \[3, 2, 4, 4\].*one text, no batch"),
        ([], list("ab"), r"attention holds no layer"),
        (np.zeros((1, 0, 2, 2)), list("ab"), r"shape \[0, 2, 2\]"),
        (nan, list("ab"), r"layer 0 holds NaN or infinity: look for a row"),
        (softmax((1, 1, 2, 2)) - 0.9, list("ab"), r"negative numbers, which look like scores"),
        (np.zeros((1, 1, 0, 0)), [], r"zero tokens"),
        (softmax((1, 1, 2, 2)), ([], []), r"zero tokens"),
    ],
)
@pytest.mark.parametrize("draw", [attention_view, bertviz_head])
def test_attention_that_cannot_be_drawn_is_refused(draw, attention, tokens, words):
    with pytest.raises(ValueError, match=words):
        draw(attention, tokens)


def test_layer_head_or_sentence_out_of_range():
    with pytest.raises(ValueError, match=r"no layer 0, head 2: the layers have \[2\] heads, counted from 0"):
        attention_view(softmax((1, 2, 3, 3)), list("abc"), head=2)
    with pytest.raises(ValueError, match="no layer -1"):
        attention_view(softmax((1, 2, 3, 3)), list("abc"), layer=-1)
    with pytest.raises(ValueError, match="no layer 0, head -2"):
        attention_view(softmax((1, 2, 3, 3)), list("abc"), head=-2)
    with pytest.raises(
        ValueError, match="the second sentence begins at 3, but there are 3 tokens: give the place"
    ):
        attention_view(softmax((1, 2, 3, 3)), list("abc"), second=3)


# --- what travels -------------------------------------------------------------------------------------------


def test_a_page_keeps_to_its_budget_and_the_chosen_head_comes_first():
    view = attention_view(softmax((6, 8, 100, 100)), ["a"] * 100, layer=3, head=5, megabytes=0.25)
    (part,) = view.data["parts"]
    carried = [part["entries"][int(i)] for i in part["maps"]]
    assert carried[0] == [3, 5] and {layer for layer, _ in carried} == {3} and 1 < len(carried) < 48
    assert len(figure_html(view)) < 250_000 + 5_000
    everything = attention_view(softmax((6, 8, 100, 100)), ["a"] * 100, megabytes=20.0).data["parts"][0]
    assert len(everything["maps"]) == len(everything["entries"]) == 6 * 10


def test_python_sends_the_head_that_the_browser_asks_for(monkeypatch):
    weights, sent = softmax((2, 2, 300, 300)), []
    view = attention_view(weights, ["a"] * 300, megabytes=0.1)
    monkeypatch.setattr(view, "send", lambda content, buffers: sent.append((content, buffers)))
    for window in (None, [10, 20, 30, 50]):
        view._handle_custom_msg(question := dict(part=0, layer=1, head=1, window=window), [])
        content, (raw,) = sent.pop()
        exact = weights[1, 1] if window is None else weights[1, 1, 10:20, 30:50]
        assert content == question and np.abs(unpacked(raw, 1, *exact.shape)[0] - exact).max() < 1 / 255


def test_a_still_of_many_large_heads_stays_small_and_survives_any_state():
    view = attention_view(softmax((12, 12, 300, 300), causal=True), ["a"] * 300)
    view.layer, view.head, view.part = 99, 99, 99
    assert len(view.still()["image/svg+xml"]) < 120_000


# --- formula and neuron -------------------------------------------------------------------------------------


def test_formula_in_javascript_agrees_with_numpy():
    if not shutil.which("node"):
        missing("no node on this machine")
    rng = np.random.default_rng(1)
    q, k, v = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    for scaled, causal in [(s, c) for s in (True, False) for c in (True, False)]:
        options = json.dumps(dict(scaled=scaled, causal=causal))
        call = f"compute({q.tolist()}, {k.tolist()}, {v.tolist()}, {options})"
        code = f'import {{ compute }} from "./llmlab/static/formula.js"; console.log(JSON.stringify({call}))'
        command = ["node", "--input-type=module", "-e", code]
        got = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout)
        scores = q @ k.T / (np.sqrt(3) if scaled else 1)
        e = np.exp(np.where(np.tri(5), scores, -np.inf) if causal else scores)
        weights = e / e.sum(-1, keepdims=True)
        assert np.allclose(got["weights"], weights) and np.allclose(got["output"], weights @ v)


@pytest.mark.parametrize(
    "q, k, v, tokens, words",
    [
        (np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 2)), "ab", r"q \[2, 3\], k \[2, 2\].*as many columns"),
        (np.ones((3, 2)), np.ones((3, 2)), np.ones((2, 2)), "abc", r"one row a token"),
        (np.ones(2), np.ones(2), np.ones(2), "ab", r"one row a token"),
        (np.ones((9, 2)), np.ones((9, 2)), np.ones((9, 2)), "abcdefghi", r"at most 8 tokens and 8 columns"),
        (np.ones((2, 2)), np.ones((2, 2)), np.full((2, 2), np.inf), "ab", r"NaN or infinity"),
    ],
)
def test_formula_refuses(q, k, v, tokens, words):
    with pytest.raises(ValueError, match=words):
        formula_view(q, k, v, list(tokens))


@pytest.mark.parametrize(
    "q, tokens, words",
    [
        (np.ones((2, 3)), "abc", r"q \[1, 2, 3\], k \[1, 2, 3\] for 3 tokens: expected \[heads, tokens, d\]"),
        (np.full((2, 3), np.nan), "ab", "NaN or infinity"),
        (
            np.ones((26, 4, 1000)),
            "abcd",
            "a page holds 100,000 numbers of q, give one layer and a short text",
        ),
    ],
)
def test_neuron_view_refuses(q, tokens, words):
    with pytest.raises(ValueError, match=words):
        neuron_view(q, q, list(tokens))


def test_neuron_in_javascript_agrees_with_numpy():
    if not shutil.which("node"):
        missing("no node on this machine")
    q, k = np.random.default_rng(0).normal(size=(2, 4, 6)).round(3)
    call = f"against({q[2].tolist()}, {k.tolist()}, 2, true)"
    code = f'import {{ against }} from "./llmlab/static/neuron.js"; console.log(JSON.stringify({call}))'
    command = ["node", "--input-type=module", "-e", code]
    got = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout)
    assert np.allclose(got["weights"], peers.query_key_weights(q, k, causal=True)[2])
    assert np.allclose(got["products"], q[2] * k) and got["seen"] == [True, True, True, False]


# --- mask ---------------------------------------------------------------------------------------------------


def test_mask_keeps_the_eight_likeliest_and_the_truth():
    guesses = {f"t{i}": (10 - i) / 60 for i in range(10)}
    (model,) = mask_view(["t9", "b"], {"m": ([[0, 1], [1, 0]], [guesses, None])}).data["models"]
    best, truth = model["predictions"][0]
    assert [name for name, _ in best] == [f"t{i}" for i in range(8)] and truth == pytest.approx(1 / 60)
    assert model["predictions"][1] is None and model["visible"] == ["01", "10"]


def test_mask_starts_where_somebody_is_asked():
    view = mask_view(
        "abc", {"m": (np.eye(3), [None, {"a": 1.0}, None]), "n": (np.eye(3), [None, None, {"b": 1.0}])}
    )
    assert view.position == 1 and view.data["askable"] == [False, True, True]
    assert mask_view("abc", {"m": (np.eye(3), None)}).data["askable"] == [True] * 3


@pytest.mark.parametrize(
    "tokens, models, words",
    [
        ("ab", {}, r"no model to show: give \{name: \(mask, predictions\)\}"),
        (
            "ab",
            {"m": (np.eye(3), None)},
            r"m: mask \[3, 3\] and 0 predictions, but 2 tokens: give a row, a column",
        ),
        ("ab", {"m": (np.eye(2), [None])}, r"m: mask \[2, 2\] and 1 predictions, but 2 tokens"),
        ("ab", {"m": (np.eye(2), [None, None])}, "no prediction has candidates"),
        ("ab", {"m": (np.eye(2), [{"a": 0.8, "b": 0.4}, None])}, "in the place of 'a': probabilities must"),
        (
            "ab",
            {"m": (np.eye(2), [{"a": np.nan}, None])},
            "in the place of 'a': probabilities must be at least 0",
        ),
        ("", {"m": (np.eye(0), None)}, "zero tokens"),
    ],
)
def test_mask_refuses_what_does_not_fit(tokens, models, words):
    with pytest.raises(ValueError, match=words):
        mask_view(tokens, models)
