"Other libraries: bertviz and matplotlib draw the same tensors."

import json
import re

import numpy as np
import pytest
import torch
from sample_figures import HOSTILE, softmax

from llmlab import bertviz_head, bertviz_model, bertviz_neuron, plot_attention
from llmlab.figures import peers

# --- bertviz ------------------------------------------------------------------------------------------------


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
        np.allclose(shown["attn"], peers.query_key_weights(q, k, causal=True), atol=1e-4)
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


def test_bertviz_takes_what_attention_view_takes():
    tape = {"blocks.0.attention.weights": torch.tensor(softmax((1, 2, 3, 3)))}
    assert "iframe" in bertviz_model(tape, list("abc")).data


# --- matplotlib ---------------------------------------------------------------------------------------------


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
