"The view: bundles, saved pages, what a notebook keeps, and that no text escapes into a page."

import gc
import json
import re
import shutil
import subprocess
import sys
import types
import weakref
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import ROOT, missing
from ipywidgets import Widget
from sample_figures import COST, HOSTILE, figures

from llmlab import (
    attention_view,
    beams_view,
    bertviz_neuron,
    cost_view,
    curves_view,
    mask_view,
    patches_view,
    spans_view,
    tokens_view,
)
from llmlab.figures.view import STATIC, WIDGET_MIME, View, bundle

# --- modules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", figures())
def test_a_bundle_is_one_module_without_imports(module, tmp_path):
    if not shutil.which("node"):
        missing("no node on this machine")
    (tmp_path / "bundle.mjs").write_text(bundle(module), "utf-8")
    sources = "".join(f.read_text("utf-8") for f in STATIC.glob("*.js"))
    imported = re.findall(r"^import ([^;]*) from", sources, re.M)
    assert imported and not [line for line in imported if " as " in line or "*" in line], (
        "a bundle knows one name only"
    )
    assert "import " not in bundle(module) and bundle(module).count("export ") > 0
    checked = subprocess.run(
        ["node", "--check", str(tmp_path / "bundle.mjs")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_modules_ask_of_their_model_only_what_anywidget_promises():
    "Colab's and VS Code's loaders give a model these methods, and no other; `link` is ours, asked for first."
    promised = {"get", "set", "save_changes", "on", "off", "send"}
    for path in STATIC.glob("*.js"):
        text = path.read_text("utf-8")
        if "export default { render }" in text or path.stem in ("dom", "attention_data"):
            used = set(re.findall(r"\bmodel\.(\w+)\b", text)) - (
                {"link"} if "...(model.link ? [" in text else set()
            )
            assert used <= promised, path.name


def test_modules_hold_nothing_that_ends_a_script():
    for path in [*STATIC.glob("*.js"), STATIC / "figure.css"]:
        text = path.read_text("utf-8").lower()
        assert "</script" not in text and "<!--" not in text and "</style" not in text, path.name


def test_importing_figures_imports_no_heavy_library():
    heavy = ("torch", "transformers", "bertviz", "matplotlib")
    code = f"import sys, llmlab.figures.attention_figures; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


# --- pages and notebooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", figures())
def test_no_token_breaks_out_of_the_page(kind, text, monkeypatch):
    monkeypatch.setenv("LLMLAB_BOOK", "1")
    content = figures(text)[kind]._repr_mimebundle_()
    assert list(content) == ["text/html"]
    markup = content["text/html"]
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
    assert [view for view in opened if isinstance(view, View)] == list(live.values())
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


def test_a_figure_is_saved_at_home_and_refuses_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    view = tokens_view([("a", ["b"])])
    assert view.save("~/x.html") == tmp_path / "x.html" and (tmp_path / "x.html").is_file()
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.html", "no folder")):
        with pytest.raises(ValueError, match=words):
            view.save(path)


@pytest.mark.parametrize("kind", figures())
def test_a_saved_page_names_no_other_address(kind, tmp_path):
    page = figures()[kind].save(tmp_path / "x.html").read_text("utf-8")
    page = page.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in page and "https://" not in page
    assert page.count("</script") == 3


@pytest.mark.parametrize("text", ["cat", *HOSTILE])
def test_every_figure_keeps_a_still_without_scripts_and_with_escaped_text(text, monkeypatch):
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    for kind, view in figures(text).items():
        content, _ = view._repr_mimebundle_()
        ((name, kept),) = view.still().items()
        assert content[name] == kept and WIDGET_MIME in content, kind
        assert len(kept) < 60_000 and "<script" not in kept and "<img" not in kept and "style=" not in kept
        ElementTree.fromstring(kept if name == "image/svg+xml" else f"<div>{kept}</div>")


def test_on_colab_a_figure_names_colabs_manager_of_widgets(monkeypatch):
    monkeypatch.delenv("LLMLAB_BOOK", raising=False)
    output = types.SimpleNamespace(_widgets=types.SimpleNamespace(_installed_url=None))
    output.enable_custom_widget_manager = lambda: setattr(
        output._widgets, "_installed_url", "https://colab/manager.js"
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    content, metadata = tokens_view([("a", ["b"])])._repr_mimebundle_()
    assert metadata == {
        WIDGET_MIME: {"colab": {"custom_widget_manager": {"url": "https://colab/manager.js"}}}
    }
    assert content[WIDGET_MIME]["version_major"] == 2


# --- freed and finite ---------------------------------------------------------------------------------------


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
        (lambda: mask_view(["a"], {"b": ([[NAN]], None)}), "the mask holds NaN"),
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


def test_a_state_stays_finite():
    view = curves_view({"a": [(1, 2.0)]})
    with pytest.raises(ValueError, match="x=nan"):
        view.x = NAN
