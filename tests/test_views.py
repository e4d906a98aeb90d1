"Views: what they accept, what they refuse, what travels to the browser, and that no text escapes into the page."

import gc
import json
import re
import shutil
import subprocess
import sys
import types
import weakref
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import ROOT, missing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ipywidgets import Widget

from llmlab.figures import peers, views
from llmlab.figures.panels import beams_view, bias_view, cost_view, decoding_view, grid_view, mask_view
from llmlab.figures.views import (
    attention_view,
    bertviz_head,
    bertviz_model,
    bertviz_neuron,
    curves_view,
    formula_view,
    loss_view,
    neuron_view,
    next_token_view,
    plot_attention,
    tokens_view,
)
from llmlab.pictures import patches_view
from llmlab.tasks.answering import spans_view

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
    from llmlab.tasks.summarization import phrases_view

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
        "phrases": phrases_view(f"{text} b", {text: f"b {text} c", "second": text}),
        "beams": beams_view(
            text, {1: [[([text], -1.0)]], 2: [[([text], -1.0), (["b"], -2.0)], [([text, "c"], -1.5)]]}
        ),
        "spans": spans_view(["[CLS]", *words], torch.eye(4)[:, :2], torch.arange(4) > 0, 2),
        "grid": grid_view([[0.9, 0.1]], [text], [text, "c"], tips=[[text, "b"]], title=text),
    }


# --- attention: what comes in ---------------------------------------------------------------------------------------


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


def test_a_page_keeps_to_its_budget_and_the_chosen_head_comes_first():
    view = attention_view(softmax((6, 8, 100, 100)), ["a"] * 100, layer=3, head=5, megabytes=0.25)
    (part,) = view.data["parts"]
    carried = [part["entries"][int(i)] for i in part["maps"]]
    assert carried[0] == [3, 5] and {layer for layer, _ in carried} == {3} and 1 < len(carried) < 48
    assert len(views.figure_html(view)) < 250_000 + 5_000
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


def test_two_models_become_two_parts():
    one, two = softmax((2, 2, 3, 3)), softmax((1, 4, 3, 3), 1)
    parts = attention_view({"small": one, "large": two}, list("abc")).data["parts"]
    assert [(p["name"], p["heads"]) for p in parts] == [("small", [2, 2]), ("large", [4])]


# --- the other figures ----------------------------------------------------------------------------------------------


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


def test_next_token_shows_the_twenty_likeliest_in_order():
    p = {f"t{i}": (i + 1) / 1000 for i in range(40)}
    (shown,) = next_token_view([("context", p)]).data["candidates"]
    assert [token for token, _ in shown] == [f"t{i}" for i in range(39, 19, -1)]
    assert shown[0][1] == pytest.approx(0.04)


@pytest.mark.parametrize("p", [{"a": 0.7, "b": 0.7}, {"a": -0.1}, {"a": float("nan")}, {}])
def test_next_token_refuses_what_is_no_distribution(p):
    with pytest.raises(
        ValueError, match="after 'the': probabilities must be at least 0 and sum to at most 1"
    ):
        next_token_view([("the", p)])


@pytest.mark.parametrize("draw", [next_token_view, tokens_view])
def test_zero_steps_are_refused(draw):
    with pytest.raises(ValueError, match="zero tokens or steps"):
        draw([])


def test_a_text_of_a_hundred_thousand_tokens_is_refused():
    with pytest.raises(
        ValueError, match="100,000 tokens in one step, but a page shows 5,000 boxes: crop the text"
    ):
        tokens_view([("all", ["a"] * 100_000)])


def test_steps_may_come_from_a_generator():
    assert len(tokens_view((str(n), ["a"] * n) for n in (2, 1)).data["steps"]) == 2
    assert len(next_token_view((c, {"a": 1.0}) for c in "xy").data["contexts"]) == 2


def test_curves_sort_their_points_and_leave_gaps():
    data = curves_view({"a": [(2, 1), (1, float("nan")), (3, float("inf"))]}).data
    assert data["series"]["a"] == [[1, None], [2, 1], [3, None]]
    assert curves_view({"a": np.array([[1, 2], [3, 4]])}).at == 3


def test_a_snapshot_may_be_text_and_matrix():
    shots = curves_view({"a": [(1, 2)]}, snapshots={1: ("said", [[0.5, 0.5]]), 0: "only"}).data["snapshots"]
    assert shots == [[0.0, ["only"]], [1.0, ["said", [[0.5, 0.5]]]]]


def test_loss_view_reads_the_rows_of_fit():
    history = [{"step": 1, "loss": 4.0, "lr": 0.1}, {"step": 2, "loss": 3.0, "valid": 3.5}]
    view = loss_view(history, {1: "xq", 2: "cat"}, {2: np.eye(2)})
    assert view.data["series"] == {"loss": [[1, 4], [2, 3]], "valid": [[2, 3.5]]} and view.at == 2
    assert view.data["snapshots"] == [[1, ["xq"]], [2, ["cat", [[1, 0], [0, 1]]]]]


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
    assert np.allclose(got["weights"], peers.qk_weights(q, k, causal=True)[2])
    assert np.allclose(got["products"], q[2] * k) and got["seen"] == [True, True, True, False]


def test_plot_attention_draws_the_weights_and_the_names():
    pytest.importorskip("matplotlib").use("agg")
    weights = softmax((1, 2, 3, 3))
    ax = plot_attention(weights, ["$a", "b", "c"], head=1)
    assert np.allclose(ax.images[0].get_array(), weights[0, 1]) and ax.get_title() == "layer 0, head 1"
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == [r"\$a", "b", "c"]
    assert np.allclose(
        plot_attention(weights, list("abc"), head=-1).images[0].get_array(), weights[0].mean(0)
    )
    with pytest.raises(ValueError, match="no layer 0, head 2"):
        plot_attention(weights, list("abc"), head=2)


@pytest.mark.parametrize("module", ["attention", "curves", "formula", "neuron", "next_token", "tokens"])
def test_a_bundle_is_one_module_without_imports(module, tmp_path):
    if not shutil.which("node"):
        missing("no node on this machine")
    (tmp_path / "bundle.mjs").write_text(views.bundle(module), "utf-8")
    sources = "".join(f.read_text("utf-8") for f in views.STATIC.glob("*.js"))
    imported = re.findall(r"^import ([^;]*) from", sources, re.M)
    assert imported and not [line for line in imported if " as " in line or "*" in line], (
        "a bundle knows one name only"
    )
    assert "import " not in views.bundle(module) and views.bundle(module).count("export ") > 0
    checked = subprocess.run(
        ["node", "--check", str(tmp_path / "bundle.mjs")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_modules_ask_of_their_model_only_what_anywidget_promises():
    "Colab's and VS Code's loaders give a model with these methods, and no other; `link` is ours and asked for first."
    promised = {"get", "set", "save_changes", "on", "off", "send"}
    for path in views.STATIC.glob("*.js"):
        text = path.read_text("utf-8")
        if "export default { render }" in text or path.stem in ("dom", "attention_data"):
            used = set(re.findall(r"\bmodel\.(\w+)\b", text)) - (
                {"link"} if "...(model.link ? [" in text else set()
            )
            assert used <= promised, path.name


@pytest.mark.parametrize("series", [{}, {"a": []}])
def test_curves_refuse_nothing(series):
    with pytest.raises(ValueError, match="a series has no points"):
        curves_view(series)


def test_curves_refuse_logarithms_of_zero():
    with pytest.raises(ValueError, match="a logarithmic axis has no place for numbers at or below 0"):
        curves_view({"a": [(0, 1), (1, 1)]}, log_x=True)
    with pytest.raises(ValueError, match="logarithmic"):
        curves_view({"a": [(0, -1), (1, 1)]}, log_y=True)
    curves_view({"a": [(0, 1), (1, 1)]}, log_y=True)


# --- pages and notebooks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", figures())
def test_no_token_breaks_out_of_the_page(kind, text, monkeypatch):
    monkeypatch.setenv("LLMLAB_BOOK", "1")
    bundle = figures(text)[kind]._repr_mimebundle_()
    assert list(bundle) == ["text/html"]
    markup = bundle["text/html"]
    assert markup.count("<script") == markup.count("</script") == 1
    assert "<img" not in markup and "<!--" not in markup
    inside = markup.split('<script type="application/json">')[1].split("</script>")[0]
    wanted = text.encode("utf-8", "backslashreplace").decode()
    assert json.dumps(wanted)[1:-1] in json.dumps(json.loads(inside)), "the text itself arrives"
    markup.encode("utf-8")


def test_in_the_book_no_comm_is_opened_and_in_a_notebook_one_is(monkeypatch):
    opened, really = [], Widget.open
    monkeypatch.setattr(Widget, "open", lambda self: (opened.append(self), really(self)))
    monkeypatch.setenv("LLMLAB_BOOK", "1")
    book = figures()
    assert not opened and all(view.comm is None for view in book.values())
    monkeypatch.delenv("LLMLAB_BOOK")
    live = figures()
    assert [view for view in opened if isinstance(view, views.View)] == list(live.values())
    assert all(
        "application/vnd.jupyter.widget-view+json" in view._repr_mimebundle_()[0] for view in live.values()
    )


def test_the_state_that_travels_is_small_and_named():
    view = figures()["attention"]
    state = view.get_state()
    assert {"data", "alt", "layer", "head", "token", "_esm", "_css"} <= set(state)
    view.layer = 1
    assert view.get_state("layer") == {"layer": 1}
    with pytest.raises(Exception, match="layer"):
        view.layer = "one"


def test_save_refuses_to_overwrite_unless_told(tmp_path):
    path = tmp_path / "x.html"
    view = figures()["tokens"]
    assert view.save(path) == path
    first = path.read_text("utf-8")
    with pytest.raises(
        ValueError, match=r"x\.html exists already: choose another name or say overwrite=True"
    ):
        figures("dog")["tokens"].save(path)
    assert path.read_text("utf-8") == first
    figures("dog")["tokens"].save(str(path), overwrite=True)
    assert "dog" in path.read_text("utf-8")


@pytest.mark.parametrize("kind", figures())
def test_a_saved_page_names_no_other_address(kind, tmp_path):
    page = figures()[kind].save(tmp_path / "x.html").read_text("utf-8")
    page = page.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in page and "https://" not in page
    assert page.count("</script") == 3


def test_modules_hold_nothing_that_ends_a_script():
    for path in [*views.STATIC.glob("*.js"), views.STATIC / "figure.css"]:
        text = path.read_text("utf-8").lower()
        assert "</script" not in text and "<!--" not in text and "</style" not in text, path.name


def test_importing_views_imports_no_heavy_library():
    heavy = ("torch", "transformers", "bertviz", "matplotlib")
    code = f"import sys, llmlab.figures.views; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


# --- bertviz --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [bertviz_head, bertviz_model])
def test_bertviz_sits_in_a_closed_frame_without_a_network(draw):
    pytest.importorskip("bertviz")
    import html

    markup = draw(softmax((2, 2, 3, 3)), ["a", HOSTILE[0], "c"]).data
    assert markup.count("<iframe") == 1 and 'sandbox="allow-scripts"' in markup and "<script" not in markup
    page = html.unescape(markup)
    assert "default-src 'none'" in page and "<script src" not in page and "<img" not in page
    assert page.count("<script>") == page.count("</script>") == 6


def test_bertviz_gets_the_parameters_that_its_own_python_gives():
    bertviz = pytest.importorskip("bertviz")
    a = softmax((2, 3, 4, 4)).astype(np.float32)
    ours, tokens = peers.bertviz_params(a, list("abcd")), list("abcd")
    for draw in (bertviz.head_view, bertviz.model_view):
        page = draw(
            [torch.tensor(x)[None] for x in a], tokens, html_action="return", prettify_tokens=False
        ).data
        theirs = json.loads(re.search(r"const params = (.*?); // HACK", page)[1])
        theirs.pop("root_div_id"), theirs.pop("display_mode", None)
        assert np.allclose(theirs.pop("attention")[0].pop("attn"), ours["attention"][0]["attn"], atol=1e-4)
        assert {name: ours[name] for name in theirs} == theirs


def test_bertviz_neuron_gets_vectors_and_their_weights():
    pytest.importorskip("bertviz")
    import html

    q, k = np.random.default_rng(0).normal(size=(2, 1, 2, 3, 4)).round(3)
    page = html.unescape(bertviz_neuron(q, k, ["a", HOSTILE[0], "c"], causal=True).data)
    params = json.loads(re.search(r"window.bertviz_params = (.*?)</script>", page)[1])
    shown = params["attention"]["all"]
    assert (
        np.allclose(shown["attn"], peers.qk_weights(q, k, causal=True), atol=1e-4)
        and not params["bidirectional"]
    )
    assert (
        np.allclose(shown["queries"], q)
        and np.allclose(shown["keys"], k)
        and shown["left_text"][1] == HOSTILE[0]
    )
    with pytest.raises(ValueError, match="too many for bertviz: use neuron_view"):
        bertviz_neuron(np.ones((12, 12, 120, 64)), np.ones((12, 12, 120, 64)), ["a"] * 120)


def test_bertviz_refuses_what_grows_too_large_or_ragged():
    with pytest.raises(ValueError, match="too many lines for bertviz: use attention_view"):
        bertviz_model(np.full((12, 12, 129, 129), 1 / 129, dtype=np.float32), ["a"] * 129)
    with pytest.raises(ValueError, match="as many heads in each layer: use attention_view"):
        bertviz_head([softmax((2, 3, 3)), softmax((5, 3, 3))], list("abc"))


def test_without_bertviz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "llmlab-course\[course\]"'):
        bertviz_head(softmax((1, 1, 2, 2)), ["a", "b"])


# --- freed, finite, kept --------------------------------------------------------------------------------------------


def test_a_closed_figure_is_freed():
    alive = []
    for view in figures().values():
        alive.append(weakref.ref(view))
        view.close()
    del view
    gc.collect()
    assert not [ref() for ref in alive if ref() is not None]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: curves_view({"a": [(NAN, 1.0)]}), "finite x"),
        (lambda: curves_view({"a": [(INF, 1.0)]}), "finite x"),
        (lambda: curves_view({"a": [(1, NAN)]}), "nothing to draw"),
        (lambda: curves_view({"a": [(1, 1.0)]}, snapshots={NAN: "text"}), "finite x"),
        (lambda: curves_view({"a": [(1, 1.0)]}, snapshots={1: [1.0, 2.0]}), "rows and columns"),
        (lambda: mask_view(["a"], {"b": ([[NAN]], None)}), "sight"),
        (lambda: beams_view("a", {1: [[(["b"], -INF)]]}), "log-probability"),
        (lambda: cost_view(**COST | {"models": [{**COST["models"][0], "n": NAN}]}), "n is nan"),
        (lambda: cost_view(**COST | {"grids": {"here": NAN}}), "finite"),
        (
            lambda: spans_view(["[CLS]", "a"], torch.tensor([[0.0, 0], [NAN, 0]]), torch.arange(2) > 0, 2),
            "NaN",
        ),
        (lambda: patches_view(torch.full((1, 1, 3), NAN), ["a"], torch.ones(1, 1)), "pixel"),
        (lambda: bertviz_neuron(np.full((1, 1, 2, 2), NAN), np.ones((1, 1, 2, 2)), ["a", "b"]), "finite"),
        (lambda: attention_view(np.full((1, 1, 2, 2), 1e38), ["a", "b"]), "no weight"),
    ],
)
def test_nan_and_infinity_are_refused_in_words(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


def test_a_gap_is_drawn_where_y_or_a_cell_is_no_number():
    view = curves_view(
        {"a": [(1, 2.0), (2, NAN), (3, -INF), (4, 1e301), (5, 1.0)]}, snapshots={1: [[NAN, 0.5]]}
    )
    assert [y for _, y in view.data["series"]["a"]] == [2.0, None, None, None, 1.0]
    assert view.data["snapshots"] == [[1.0, [[[None, 0.5]]]]]
    assert "NaN" not in views.traits_json(view) and "Infinity" not in views.traits_json(view)


def test_a_state_stays_finite():
    view = curves_view({"a": [(1, 2.0)]})
    with pytest.raises(ValueError, match="at=nan"):
        view.at = NAN


@pytest.mark.parametrize("text", ["cat", *HOSTILE])
def test_every_figure_keeps_a_still_without_scripts_and_with_escaped_text(text, monkeypatch):
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    for kind, view in figures(text).items():
        content, _ = view._repr_mimebundle_()
        ((name, kept),) = view.still().items()
        assert content[name] == kept and views.WIDGET in content, kind
        assert len(kept) < 60_000 and "<script" not in kept and "<img" not in kept and "style=" not in kept
        ElementTree.fromstring(kept if name == "image/svg+xml" else f"<div>{kept}</div>")


def test_a_still_of_many_large_heads_stays_small_and_survives_any_state():
    view = attention_view(softmax((12, 12, 300, 300), causal=True), ["a"] * 300)
    view.layer, view.head, view.part = 99, 99, 99
    assert len(view.still()["image/svg+xml"]) < 120_000


def test_a_table_shows_the_numbers_of_the_figure():
    kept = next_token_view([("the", {" cat": 0.25})]).still()["text/html"]
    assert "<td>·cat</td><td>0.25</td>" in kept


def test_what_generate_hands_out_becomes_one_map():
    rows = [softmax((1, 2, 3, 3), causal=True), softmax((1, 2, 1, 4)), softmax((1, 2, 1, 5))]
    view = attention_view([(torch.tensor(x),) for x in rows], list("abcdef"))
    (part,) = view.data["parts"]
    assert part["written"] == 3 and part["queries"] == list("abcde"), "the last token was never read"
    shown = unpack(view)
    assert np.allclose(shown[:, 3, :4], rows[1][0][:, 0], atol=0.01) and not shown[:, 3, 4].any()
    assert np.allclose(shown[:, :3, :3], rows[0][0], atol=0.01)
    with pytest.raises(ValueError, match="one text"):
        attention_view([(torch.rand(2, 1, 2, 2),)], list("ab"))


def test_bertviz_takes_what_attention_view_takes():
    tape = {"blocks.0.attention.weights": torch.tensor(softmax((1, 2, 3, 3)))}
    assert "iframe" in bertviz_model(tape, list("abc")).data


def test_a_figure_is_saved_at_home_and_refuses_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    view = tokens_view([("a", ["b"])])
    assert view.save("~/x.html") == tmp_path / "x.html" and (tmp_path / "x.html").is_file()
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.html", "no folder")):
        with pytest.raises(ValueError, match=words):
            view.save(path)


def test_on_colab_a_figure_names_colabs_manager_of_widgets(monkeypatch):
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    output = types.SimpleNamespace(_widgets=types.SimpleNamespace(_installed_url=None))
    output.enable_custom_widget_manager = lambda: setattr(
        output._widgets, "_installed_url", "https://colab/manager.js"
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    content, metadata = tokens_view([("a", ["b"])])._repr_mimebundle_()
    assert metadata == {
        views.WIDGET: {"colab": {"custom_widget_manager": {"url": "https://colab/manager.js"}}}
    }
    assert content[views.WIDGET]["version_major"] == 2
