"explore: one pass for two kinds of models, a text box that waits, and answers that follow it."

import asyncio
import gc
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from sample_figures import HOSTILE

from llmlab.figures.explore import (
    attention_and_probabilities,
    context_of,
    explore_model,
    text_figures,
    text_ids,
    token_names,
)
from llmlab.figures.view import WIDGET_MIME
from llmlab.generation import Sampling, generate
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder


@pytest.fixture(autouse=True)
def no_loop():
    "Playwright leaves a running loop in its thread: beside it an explorer would wait for ever."
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(loop)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train("the cat sat on the mat. the dog sat on the log. " * 20, 290)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return Decoder(Config(tokenizer.vocab_size, 24, 2, 2, 16)).eval()


class Letters:
    "A tokenizer with the methods that transformers has."

    def encode(self, text):
        return [ord(c) % 50 for c in text]

    def convert_ids_to_tokens(self, ids):
        return [f"L{i}" for i in ids]

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def hub():
    "GPT-2 of transformers, small and untrained."
    transformers = pytest.importorskip("transformers")
    size = dict(n_embd=16, n_layer=2, n_head=4, vocab_size=50, n_positions=32)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, attn_implementation="eager")).eval()


def test_one_pass_gives_the_weights_and_the_models_own_prediction(model, tokenizer):
    ids = text_ids(tokenizer, "the cat")
    layers, p = attention_and_probabilities(model, ids)
    with torch.no_grad():
        assert torch.allclose(p, model(torch.tensor([ids]))[0, -1].softmax(-1), atol=1e-5)
    assert [layer.shape for layer in layers] == [(2, len(ids), len(ids))] * 2
    assert torch.allclose(layers[0].sum(-1), torch.ones(2, len(ids)), atol=1e-5)
    assert ids[0] == tokenizer.eot and context_of(model) == 24


def test_a_model_of_transformers_works_alike(hub):
    layers, p = attention_and_probabilities(hub, [1, 2, 3])
    with torch.no_grad():
        out = hub(torch.tensor([[1, 2, 3]]), output_attentions=True)
    assert torch.allclose(p, out.logits[0, -1].softmax(-1), atol=1e-6)
    assert torch.allclose(layers[1], out.attentions[1][0])
    explorer = explore_model(hub, Letters(), "cat")
    assert explorer.attention.data["parts"][0]["queries"] == token_names(Letters(), Letters().encode("cat"))
    assert len(explorer.written.value.split()) == 16


def test_what_is_written_is_what_generate_writes(model, tokenizer):
    explorer = explore_model(model, tokenizer, "the")
    explorer.length.value = 30
    explorer.temperature.value = 0.8
    (new,) = generate(model, [text_ids(tokenizer, "the")], 30, Sampling(0.8))
    assert explorer.written.value == tokenizer.decode(new), "also beyond the context"


def test_a_long_text_is_cropped_as_for_the_model(model, tokenizer):
    ids, attention, _ = text_figures(model, tokenizer, "the cat sat on the mat. " * 9, {})
    assert len(ids) == 24 == len(attention.data["parts"][0]["queries"])


def test_the_answer_follows_the_text_and_keeps_the_chosen_head(model, tokenizer):
    explorer = explore_model(model, tokenizer, "the cat")
    first = explorer.attention
    first.layer, first.head = 1, 1
    explorer.text.value = "the dog"
    assert explorer.attention is not first and (explorer.attention.layer, explorer.attention.head) == (1, 1)
    assert "".join(explorer.attention.data["parts"][0]["queries"][1:]) == "the·dog"
    assert explorer.next_token.data["contexts"] == ["the dog"] and explorer.status.value.startswith("ready: ")
    assert explorer.box.children[-1] is explorer.attention and first.comm is None, "the old figure is closed"
    explorer.temperature.value = 0.5
    assert explorer.next_token.temperature == 0.5


def test_typing_waits_for_a_pause(model, tokenizer):
    async def typing():
        explorer = explore_model(model, tokenizer, "a")
        explorer.pause, shown = 0.05, []
        explorer.box.observe(lambda change: shown.append(explorer.text.value), "children")
        for text in ("th", "the", "the c"):
            explorer.text.value = text
            assert explorer.status.value == "waiting for a pause …"
        while not explorer.status.value.startswith("ready: "):
            await asyncio.sleep(0.01)
        return shown, explorer.status.value

    shown, status = asyncio.run(asyncio.wait_for(typing(), 120))  # a hang ends here
    assert shown == ["the c"] and status.startswith("ready: ")


def test_an_empty_text_says_what_to_do(hub):
    explorer = explore_model(hub, Letters(), "cat")
    explorer.text.value = ""
    assert explorer.status.value == "cannot show this: an empty text has no tokens: type a word"


@pytest.mark.parametrize("text", HOSTILE[:3])
def test_text_stays_text(model, tokenizer, text):
    explorer = explore_model(model, tokenizer, text)
    assert "<img" not in explorer.status.value and explorer.text.value == text


def test_in_the_book_the_figures_stand_without_widgets(model, tokenizer, monkeypatch):
    monkeypatch.setenv("LLMLAB_BOOK", "1")
    explorer = explore_model(model, tokenizer, "the cat")
    markup = explorer._repr_mimebundle_()["text/html"]
    assert markup.count("<figure") == 2 and explorer.attention.comm is None


def test_probabilities_of_tokens_that_look_alike_are_added(model):
    class Same(Letters):
        def convert_ids_to_tokens(self, ids):
            return ["x" for _ in ids]

    _, _, following = text_figures(model, Same(), "the", {})
    ((token, p),) = following.data["candidates"][0]
    assert token == "x" and 0 < p <= 1 and np.isfinite(p)


def test_the_box_names_colabs_manager_and_keeps_tables(model, tokenizer, monkeypatch):
    "ipywidgets 7.7 has no _repr_mimebundle_, so the explorer writes its own, for either version."
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    output = types.SimpleNamespace(_widgets=types.SimpleNamespace(_installed_url="https://colab/manager.js"))
    output.enable_custom_widget_manager = lambda: None
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    explorer = explore_model(model, tokenizer, "the cat")
    monkeypatch.setattr(type(explorer.box), "_repr_mimebundle_", None, raising=False)
    content, metadata = explorer._repr_mimebundle_()
    assert metadata[WIDGET_MIME]["colab"]["custom_widget_manager"]["url"] == "https://colab/manager.js"
    assert (
        content[WIDGET_MIME]["model_id"] == explorer.box.model_id
        and content["text/html"].count("<table>") == 2
    )
    explorer.close()


def test_edits_and_a_closed_explorer_leave_no_figure(model, tokenizer, monkeypatch):
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    explorer, seen = explore_model(model, tokenizer, "the cat"), []
    for text in ("the cat sat", "the cat sat on"):
        seen += map(weakref.ref, (explorer.attention, explorer.next_token))
        explorer.text.value = text
    seen += map(weakref.ref, (explorer.attention, explorer.next_token, explorer.box))
    gc.collect()
    assert sum(ref() is not None for ref in seen) == 3
    explorer.close()
    del explorer
    gc.collect()
    assert not [ref() for ref in seen if ref() is not None]
