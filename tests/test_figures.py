"Every figure in a browser: it draws, answers mouse and keyboard, runs no token's text, asks no other host."

import http.server
import json
import re
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from conftest import ROOT
from sample_figures import figures, softmax

import llmlab
from llmlab.figures import view as view_module

ATTACK = "</script><img src=x onerror=\"window.hit=1\"><svg onload='window.hit=1'>"
# a drawn figure has taken its caption away, a failed one says so there
MOUNTED = """[...document.querySelectorAll('figure.llmlab-figure figcaption')]
    .every(caption => caption.textContent.includes('could not be drawn'))"""
pytestmark = pytest.mark.slow
KINDS = [
    "attention",
    "formula",
    "next_token",
    "tokens",
    "curves",
    "mask",
    "cost",
    "neuron",
    "decoding",
    "beams",
    "spans",
    "phrases",
    "bias",
    "grid",
    "patches",
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Serves a folder without a log."

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "A folder that stands for the built book, served on this machine: llmlab/static and pages of figures."
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "llmlab" / "static", folder / "_static" / "llmlab")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser):
    "A page that keeps what went wrong on it and whom it asked."
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.wrong, page.asked = [], []
    page.on("console", lambda m: page.wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.wrong.append(str(e)))
    page.on("request", lambda r: page.asked.append(r.url))
    page.set_default_timeout(120_000)
    load = page.goto
    page.goto = lambda address: (load(address), page.wait_for_function(MOUNTED))
    yield page
    assert not page.wrong, page.wrong
    local = ("http://127.0.0.1:", "file:", "blob:", "data:", "about:")
    assert all(url.startswith(local) for url in page.asked), page.asked
    page.close()


def in_book(book, name, *shown):
    "A page of the book with these figures; its address."
    folder, address = book
    loader = '<script type="module" src="_static/llmlab/figure.js"></script>'
    head = f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{loader}'
    themed = "cell_output output row container"  # class names of the book's theme
    (folder / f"{name}.html").write_text(
        f'{head}<div class="{themed}">{"<p>between</p>".join(shown)}</div>', "utf-8"
    )
    return f"{address}/{name}.html"


@pytest.fixture(params=["saved", "book"])
def home(request, book, tmp_path):
    "Both homes without a kernel: a function that puts a figure there and gives its address."

    def put(view):
        if request.param == "saved":
            return view.save(tmp_path / "figure.html").as_uri()
        return in_book(book, "figure", view_module.figure_html(view))

    return put


def say(page):
    "What the figure says it shows."
    return page.locator(".llmlab .say").inner_text()


def seen_texts(buttons):
    "What is seen on each button, without the words that only a screen reader says."
    return [text.split("\n")[0] for text in buttons.all_inner_texts()]


def drawn(page, selector, side=0):
    "How many colours a canvas shows, or a square in its lower right corner, where no label stands."
    square = (
        f"c.width - 4 - {side}, c.height - 4 - {side}, {side}, {side}" if side else "0, 0, c.width, c.height"
    )
    count = f"c => new Set(new Uint32Array(c.getContext('2d').getImageData({square}).data.buffer)).size"
    return page.locator(selector).first.evaluate(count)


# --- each figure draws and answers --------------------------------------------------------------------------


def test_attention_draws_and_answers(page, home):
    tokens = ["The", " cat", " sat", " down"]
    weights = softmax((2, 3, 4, 4), causal=True)
    page.goto(home(llmlab.attention_view(weights, tokens, 1, 2)))
    page.wait_for_selector(".matrix canvas")
    assert drawn(page, ".matrix canvas", 4 * 34) > 8 and drawn(page, ".heads canvas") > 3
    best = int(weights[1, 2, 3].argmax())
    name = tokens[best].replace(" ", "·")
    assert say(page).startswith(f"Layer 1, head 2: “·down” (3) looks most at “{name}” ({best})")
    page.get_by_role("radio", name="layer 0, head 1").click()
    page.locator(".chips button").nth(1).click()
    assert "Layer 0, head 1: “·cat” (1) looks most at" in say(page)
    numbers = page.locator(".chips small").all_inner_texts()
    assert [float(n) for n in numbers] == [round(float(w), 2) for w in weights[0, 1, 1]]
    page.get_by_role("button", name="who looks at it").click()
    numbers = page.locator(".chips small").all_inner_texts()
    assert [float(n) for n in numbers] == [round(float(w), 2) for w in weights[0, 1, :, 1]]
    assert "is looked at most by" in say(page)


def test_attention_with_the_keyboard(page, home):
    page.goto(home(llmlab.attention_view(softmax((2, 3, 4, 4)), list("abcd"))))
    page.wait_for_selector(".matrix canvas")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert say(page).startswith("Layer 1, head 1: “d”")
    page.get_by_role("group", name="tokens that look").get_by_role("button").nth(3).focus()
    page.keyboard.press("ArrowLeft")
    assert "“c” (2) looks most at" in say(page)
    page.get_by_role("application").focus()
    for key in ("ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert "“b” (1) looks most at" in say(page)
    page.keyboard.press("+")
    assert page.get_by_role("button", name="zoom out").is_disabled(), "four tokens are too few to zoom into"


def test_hovering_the_matrix_shows_the_weight(page, home):
    weights = softmax((1, 1, 4, 4))
    page.goto(home(llmlab.attention_view(weights, list("abcd"))))
    canvas = page.locator(".matrix canvas")
    box = canvas.bounding_box()
    side = 34
    page.mouse.move(box["x"] + box["width"] - 4 - 2.5 * side, box["y"] + box["height"] - 4 - 1.5 * side)
    heading = page.locator(".matrix .title").inner_text()
    assert (
        heading.startswith("“c” (2) → “b” (1): ") and abs(float(heading[-5:]) - weights[0, 0, 2, 1]) < 0.004
    )
    page.mouse.down()
    page.mouse.up()
    assert "“c” (2) looks most at" in say(page)


def test_lines_search_zoom_and_comparison(page, home):
    weights, tokens = softmax((2, 2, 30, 30)), [f"w{i}" for i in range(30)]
    page.goto(home(llmlab.attention_view(weights, tokens)))
    page.get_by_placeholder("find a token").fill("W1")
    assert page.locator(".text [role=status]").inner_text() == "11 found, Enter goes on"
    page.get_by_placeholder("find a token").press("Enter")
    page.get_by_placeholder("find a token").press("Enter")
    assert "“w10” (10) looks most at" in say(page) and page.locator(".chips .found").count() == 11
    page.get_by_role("button", name="zoom in").click()
    page.wait_for_function(
        "document.querySelector('.matrix .title').textContent.includes('tokens 3–17 at 3–17')"
    )
    page.get_by_role("button", name="zoom out").click()
    page.get_by_role("button", name="compare with this head").click()
    page.get_by_role("radio", name="layer 1, head 1").click()
    page.wait_for_function("document.querySelector('.say').textContent.includes('minus layer 0, head 0')")
    number = page.locator(".chips small").nth(4).inner_text().replace("−", "-")
    assert float(number) == pytest.approx(weights[1, 1, 10, 4] - weights[0, 0, 10, 4], abs=0.006)
    page.get_by_role("button", name="end the comparison").click()
    page.get_by_role("button", name="lines").click()
    assert drawn(page, ".matrix canvas") > 8
    canvas = page.locator(".matrix canvas")
    gap = (canvas.bounding_box()["height"] - 8) / 30
    canvas.click(position={"x": canvas.bounding_box()["width"] - 20, "y": 4 + 2.5 * gap})
    assert "“w2” (2) is looked at most by" in say(page)


def test_sentence_pairs_show_one_quarter(page, home):
    page.goto(home(llmlab.attention_view(softmax((1, 1, 6, 6)), list("abcdef"), second=2)))
    page.get_by_label("sentences").select_option("B looks at A")
    page.wait_for_function(
        "document.querySelector('.matrix .title').textContent.includes('tokens 2–5 at 0–1')"
    )


def test_mean_rollout_entropy_and_distance(page, home):
    weights = softmax((2, 2, 4, 4))
    page.goto(home(llmlab.attention_view(weights, list("abcd"))))
    page.get_by_role("radio", name="layer 1, mean of its heads").click()
    page.wait_for_function(
        "document.querySelector('.say').textContent.startsWith('Layer 1, mean of its heads')"
    )
    numbers = [float(n) for n in page.locator(".chips small").all_inner_texts()]
    assert np.allclose(numbers, weights[1].mean(0)[3], atol=0.006)
    page.get_by_role("radio", name="layer 1, rollout").click()
    page.wait_for_function("document.querySelector('.say').textContent.startsWith('Layer 1, rollout')")
    page.get_by_label("numbers under the heads").select_option("entropy, bits")
    bits = -(weights[0, 0] * np.log2(weights[0, 0])).sum() / 4
    assert float(page.locator(".heads small").first.inner_text()) == pytest.approx(bits, abs=0.006)


def test_two_models_stand_side_by_side(page, home):
    one, two = softmax((1, 2, 3, 3)), softmax((2, 1, 3, 3), 1)
    page.goto(home(llmlab.attention_view({"base": one, "tuned": two}, list("abc"))))
    page.get_by_role("button", name="compare with this head").click()
    page.get_by_role("radio", name="tuned").click()
    page.wait_for_function(
        "document.querySelector('.say').textContent.includes('minus base, layer 0, head 0')"
    )
    number = float(page.locator(".chips small").first.inner_text().replace("−", "-"))
    assert number == pytest.approx(two[0, 0, 2, 0] - one[0, 0, 2, 0], abs=0.006)


def test_a_link_leads_back_to_the_state(page, home):
    page.goto(home(llmlab.attention_view(softmax((2, 2, 4, 4)), list("abcd"))))
    page.get_by_role("radio", name="layer 1, head 0").click()
    page.locator(".chips button").nth(1).click()
    page.get_by_role("button", name="Link").click()
    assert page.url.endswith("#llmlab-0?layer=1&token=1")
    said = say(page)
    page.reload()
    page.wait_for_selector(".llmlab .say:not(:empty)")
    assert say(page) == said and said.startswith("Layer 1, head 0: “b” (1)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_saved_as_a_picture(page, home, kind, tmp_path):
    page.goto(home(figures()[kind]))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    for ending in ("PNG", "SVG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=ending).click()
        path = tmp_path / f"figure.{ending.lower()}"
        download.value.save_as(path)
    from matplotlib.image import imread

    assert imread(tmp_path / "figure.png").std() > 0.02, "the picture is not empty"
    svg = (tmp_path / "figure.svg").read_text("utf-8")
    import xml.etree.ElementTree

    assert "cat" in "".join(xml.etree.ElementTree.fromstring(svg).itertext()) and "http://www.w3" in svg


def test_a_long_text_is_drawn_from_pooled_maps(page, home):
    maps = [softmax((2, 64, 64))]
    page.goto(home(llmlab.attention_view(llmlab.PooledAttention(maps), [f"w{i}" for i in range(4096)])))
    assert "in blocks of 64 tokens" in page.locator(".matrix .title").inner_text()
    assert "looks most at tokens" in say(page) and page.locator(".chips button").count() <= 400


def test_cross_attention_and_ragged_heads(page, home):
    layers = [softmax((1, 2, 5)), softmax((3, 2, 5), 1)]
    page.goto(home(llmlab.attention_view(layers, (["le", "chat"], ["the", "cat", "is", "not", "here"]))))
    assert page.get_by_role("radio").count() == 1 + 3 + 1, "one head, three heads and their mean"
    page.locator(".chips").nth(1).locator("button").nth(4).click()
    assert "“here” (4) is looked at most by" in say(page)
    page.locator(".chips").nth(0).locator("button").nth(1).click()
    assert "“chat” (1) looks most at" in say(page)


def test_formula_answers(page, home):
    q, k, v = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 1], [0, 2]]), np.array([[1.0], [3]])
    page.goto(home(llmlab.formula_view(q, k, v, ["a", "b"])))

    def cells(name):
        texts = page.locator(f".{name} td:not(:empty)").all_inner_texts()
        return [float(text.replace("−", "-")) for text in texts]

    assert cells("scores") == [1, 0, 1, 2]

    def weights(s):
        return np.exp(s) / np.exp(s).sum(-1, keepdims=True)

    assert np.allclose(cells("weights"), weights(q @ k.T / np.sqrt(2)).ravel(), atol=0.005)
    page.get_by_label("divide by √2").uncheck()
    assert np.allclose(cells("weights"), weights(q @ k.T).ravel(), atol=0.005)
    page.get_by_label("causal mask").check()
    assert np.allclose(cells("weights")[:2], [1, 0]) and "−∞" in page.locator(".masked").inner_text()
    page.get_by_label("q of b, number 2").fill("3")
    assert cells("scores") == [1, 0, 3, 6]
    page.get_by_label("q of b, number 2").press("ArrowUp")
    assert cells("scores") == [1, 0, 3.5, 7]
    page.locator(".weights td:not(:empty)").nth(0).click()
    assert say(page).startswith("score of “a” for “a” = 1·1 + 0·1 = 1.00")
    page.get_by_role("button", name="start again").click()
    assert cells("scores") == [1, 0, 1, 2] and page.get_by_label("q of b, number 2").input_value() == "1"


def test_next_token_answers(page, home):
    page.goto(home(llmlab.next_token_view([("a cat", {"x": 0.75, "y": 0.25}), ("a dog", {" z": 0.5})])))
    assert "“x” 75 %, “y” 25 %" in say(page)
    page.get_by_role("slider", name="temperature").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert "temperature 0.50" in say(page) and "“x” 90 %, “y” 10 %" in say(page)
    page.get_by_role("button", name="back to 1").click()
    page.get_by_role("button", name="next context").click()
    assert "After “a dog” at temperature 1.00: “·z” 50 %" in say(page)
    assert "all other tokens" in page.locator(".bars").inner_text()
    page.get_by_role("slider", name="context").press("ArrowLeft")
    assert "After “a cat”" in say(page)


def test_next_token_cuts_with_top_k_and_top_p(page, home):
    page.goto(home(llmlab.next_token_view([("a", {"x": 0.5, "y": 0.3, "z": 0.2})])))
    page.get_by_role("slider", name="top-k").fill("2")
    assert "top-k 2: “x” 63 %, “y” 37 %." in say(page) and "cut" in page.locator(".bars").inner_text()
    page.get_by_role("slider", name="top-k").fill("0")
    page.get_by_role("slider", name="top-p").fill("0.5")
    assert "top-p 0.50: “x” 100 %." in say(page)


def test_formula_arrows_move_with_mouse_and_keys(page, home):
    q, k, v = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 1], [0, 2]]), np.array([[1.0], [3]])
    page.goto(home(llmlab.formula_view(q, k, v, ["a", "b"])))
    knob = page.locator("svg circle.k").first
    knob.press("ArrowRight")
    assert page.get_by_label("k of a, number 1").input_value() == "1.1"
    box, before = knob.bounding_box(), page.locator(".step.output").inner_text()
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 8, box["y"] + 48)
    page.mouse.up()
    assert float(page.get_by_label("k of a, number 2").input_value()) < 0.5
    assert page.locator(".step.output").inner_text() != before, "the output moves with the arrow"
    page.get_by_label("name of token 1").fill("ant")
    assert "ant" in page.locator(".scores").inner_text() and "k ant" in page.locator(".step svg").inner_html()


def test_neuron_answers(page, home):
    q, k = np.array([[1.0, 2], [0, 1]]), np.array([[3.0, -1], [1, 1]])
    page.goto(home(llmlab.neuron_view(q, k, ["a", "b"], causal=True)))
    page.get_by_role("radiogroup", name="query").get_by_role("radio", name="a").click()
    assert "“a” for “a”. Strongest number 0: 1.00 × 3.00 = 3.00; number 1: 2.00 × −1.00 = −2.00" in say(page)
    assert "is 0.71; its weight 1.00." in say(page)
    page.get_by_role("radiogroup", name="key").get_by_role("radio", name="b").click()
    assert say(page).endswith("The mask hides this key.")
    page.get_by_role("img", name="q times k of a").hover(position={"x": 3, "y": 5})
    assert page.locator(".title").first.inner_text() == "number 0 of “a” and “a”: 1.00 × 3.00 = 3.00"


def test_tokens_answer(page, home):
    page.goto(
        home(llmlab.tokens_view([("letters", list("the the")), ("t + h", ["th", "e", " ", "th", "e"])]))
    )
    assert page.locator(".boxes .tok").all_inner_texts() == list("the·the")
    page.get_by_role("button", name="next step").click()
    assert page.locator(".boxes .new").all_inner_texts() == ["th", "th"]
    assert "t + h: 5 tokens, 3 different" in say(page)
    page.get_by_role("slider", name="step").press("ArrowLeft")
    assert "letters: 7 tokens" in say(page)


def test_mask_answers(page, home):
    gaps = [None, {" cat": 0.6, " dog": 0.3}, {" sat": 0.25, " lay": 0.5}]
    models = {"BERT": (1 - np.eye(3), gaps), "GPT": (np.tri(3, k=-1), [None, {"x": 1.0}, None])}
    page.goto(home(llmlab.mask_view(["[CLS]", " cat", " sat"], models)))
    bert = page.get_by_role("group", name="BERT: choose a token")
    assert seen_texts(bert.get_by_role("button")) == ["[CLS]", "[MASK]", "·sat"]
    assert say(page).startswith(
        "Position 1, “·cat”: BERT sees every other token, and says “·cat” with 60 %; GPT"
    )
    assert page.get_by_role("list", name="BERT: candidates").inner_text().split("\n") == [
        "✓ ·cat", "60 %", "·dog", "30 %", "all other tokens", "10 %"]  # fmt: skip
    bert.get_by_role("button", name="·sat seen").click()
    assert "BERT sees every other token, and says “·lay” with 50 %" in say(page)
    assert page.locator(".maskpanels section").nth(1).locator(".bars > *").count() == 0
    bert.get_by_role("button").nth(2).press("ArrowLeft")
    assert say(page).startswith("Position 1") and bert.get_by_role("button").first.is_disabled()
    unseen = page.get_by_role("group", name="GPT: choose a token").get_by_role("button").nth(2)
    assert unseen.get_attribute("class") == "tok unseen"


def test_phrases_answer(page, home):
    from llmlab import phrases_view
    from llmlab.tasks.summary_scores import copied_phrases

    summaries = {"model": "Mia saw a red cup, twice.", "lead": "One day Mia saw a cup."}
    page.goto(home(phrases_view(**copied_phrases("One day Mia saw a cup. The cup was red.", summaries))))
    model = page.get_by_role("group", name="model: choose a phrase")
    assert model.get_by_role("button").all_inner_texts() == ["Mia saw a", "red", "cup"]
    assert page.locator("mark").inner_text() == "Mia saw a" and page.locator("del").all_inner_texts() == [
        "twice"
    ]
    model.get_by_role("button", name="red").click()
    assert page.locator("mark").inner_text() == "red" and "“red” stands in the source from word 10 on" in say(
        page
    )
    model.get_by_role("button", name="red").press("ArrowRight")
    assert page.locator("mark").inner_text() == "cup" and "from word 6 on" in say(page)
    page.get_by_role("button", name="One day Mia saw a cup").click()
    assert say(page).startswith("lead: 100 % of 6 words are copied, density 6.0.")


def test_curves_answer(page, home):
    series = {"train": [(1, 4), (10, 2), (100, 1)], "valid": [(1, 5), (100, 3)]}
    page.goto(
        home(
            llmlab.curves_view(series, log_x=True, snapshots={1: "early", 100: "late", 10: [[0, 1], [1, 0]]})
        )
    )
    assert page.locator(".chart path").count() == 2 and "late" in page.locator(".shot").inner_text()
    page.get_by_role("slider", name="step").press("ArrowLeft")
    assert say(page) == "loss at step 10: train 2, valid 5." and page.locator(".tiles i").count() == 4
    box = page.locator(".chart svg").bounding_box()
    page.mouse.move(box["x"] + 55, box["y"] + 50)
    assert say(page) == "loss at step 1: train 4, valid 5." and "early" in page.locator(".shot").inner_text()
    assert page.get_by_role("slider", name="step").input_value() == "0", "the scrubber follows the mouse"
    page.get_by_role("button", name="valid").click()
    assert page.locator(".chart path").count() == 1 and "valid" not in say(page)


def test_patches_answer(page, home):
    import torch

    from llmlab import patches_view

    image = torch.ones(2, 4, 3)
    page.goto(home(patches_view(image, ["red", "blue"], torch.tensor([[0.9, 0.1], [0.25, 0.75]]))))
    assert page.locator(".patches rect").count() == 8 + 2
    assert page.locator(".patches text").all_text_contents() == ["90 %", "10 %"]
    assert "“red”, the model looked most at the patch in row 1, column 1: 90 %" in say(page)
    page.get_by_role("button", name="blue").click()
    assert "“blue”, the model looked most at the patch in row 1, column 2: 75 %" in say(page)
    assert page.locator(".veil").nth(1).get_attribute("fill-opacity") == "0.000"
    assert page.get_by_role("img", name="row 1, column 2").count() == 1
    page.get_by_role("button", name="blue").press("ArrowLeft")
    assert page.get_by_role("button", name="red").get_attribute("aria-pressed") == "true" and "“red”" in say(
        page
    )


def test_cost_answers(page, home):
    from llmlab.figure_data import calculator_data

    page.goto(home(llmlab.cost_view(**calculator_data())))
    assert say(page).startswith("GPT-2 small on 10 billion tokens (80 a parameter)")
    page.get_by_label("model", exact=True).select_option("Llama 3.1 8B")
    page.get_by_role("slider", name="training tokens").press("ArrowRight")
    assert say(page).startswith("Llama 3.1 8B on 12.6 billion tokens") and "running needs 1." in say(page)
    page.get_by_label("GPU", exact=True).select_option("T4 16GB")
    assert "of one T4 16GB" in say(page) and "running needs 2." in say(page)
    before = page.locator(".found-cost").inner_text()
    page.get_by_label("electricity of").select_option("India")
    assert page.locator(".found-cost").inner_text() != before
    page.get_by_role("slider", name="utilisation").press("Home")
    assert page.locator(".found-cost").inner_text() != before
    assert page.locator(".chart .run").count() == 12 and page.locator(".chart .level").count() == 7
    page.locator(".chart svg").scroll_into_view_if_needed()
    box = page.locator(".chart svg").bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 40)
    assert say(page).startswith("Llama 3.1 405B on ") and "trillion tokens" in say(page)


def test_decoding_answers(page, home):
    p = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    page.goto(home(llmlab.decoding_view([("the", p), ("so", {"x": 1.0, "y": 0.0})])))
    assert "4 of 4 tokens stay, which held 100 %; nothing is cut" in say(page)
    page.get_by_role("slider", name="top-p").focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    assert "2 of 4 tokens stay, which held 80 %; cut: 2 by top-p. The likeliest, “a”, now has 63 %" in say(
        page
    )
    assert page.locator(".bars .gone").all_inner_texts() == ["c\n✕ top-p", "d\n✕ top-p"]
    page.get_by_role("button", name="as it is").click()
    page.get_by_role("slider", name="min-p").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    assert "cut: 1 by min-p" in say(page)
    page.get_by_role("button", name="so").click()
    assert say(page).startswith("After “so”")


def test_beams_answer(page, home):
    steps = [[(["a"], -0.5), (["b"], -0.9)], [(["b", "c"], -1.0), (["b", "d"], -1.6)]]
    page.goto(home(llmlab.beams_view("start", {1: [steps[0][:1]], 2: steps})))
    assert say(page).startswith("“start” + “b c”: log-probability -1.00, -0.50 a token; goes on.")
    page.get_by_role("button", name="a step 1, dropped").click()
    assert "“start” + “a”: log-probability -0.50, -0.50 a token; was dropped here." in say(page)
    page.get_by_role("button", name="Link").click()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".beams button")
    assert "“start” + “a”" in say(page), "the link leads back to the chosen beginning"
    page.get_by_role("button", name="width 1").click()
    assert page.locator(".beams button").count() == 1 and "goes on" in say(page)


def test_spans_answer(page, home):
    import torch

    from llmlab import spans_view

    scores = torch.tensor([[1.0, 1], [3, 0], [0, 2], [-1, 0]])
    page.goto(home(spans_view(["[CLS]", " old", " mat", "."], scores, torch.arange(4) > 0, 2)))
    assert say(page).startswith("“old mat”: start 3.0 + end 2.0 = 5.0, rank 1 of 5 legal spans.")
    ends = page.get_by_role("group", name="end: choose a token")
    ends.get_by_role("button", name="·old end 0.0").click()
    assert say(page).startswith("“old”: start 3.0 + end 0.0 = 3.0, rank 2 of 5")
    assert "The best is “old mat”" in say(page)
    page.get_by_role("group", name="start: choose a token").get_by_role("button", name="·mat").click()
    assert "no legal span: it ends before it starts" in say(page)
    page.get_by_role("button", name="best span").click()
    page.get_by_role("group", name="start: choose a token").get_by_role("button", name="·old").press(
        "ArrowLeft"
    )
    assert "an edge lies outside the passage" in say(page)
    grid = page.locator(".spans svg")
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.6 * box["height"])
    assert say(page).startswith("“mat.”: start 0.0 + end 0.0 = 0.0")
    assert page.locator(".spans .span").count() == 5 and page.locator(".spans .best").count() == 1


def test_bias_answers(page, home):
    apart = dict(at=2.0, low=1.5, high=2.4, p=0.0004, points=[1.5, 2.5])
    near = dict(at=0.1, low=-0.2, high=0.4, p=0.5, points=[0.1])
    models = {"balanced": {"work": near, "home": near}, "skewed": {"work": apart, "home": near}}
    page.goto(home(llmlab.bias_view(models, "nats", "0: equal")))
    told = "balanced, work: 0.10 nats over 1 pair, 95 % interval −0.20 to 0.40, with 0 inside; p = 0.500"
    assert say(page).startswith(told)
    mean = page.locator(".chart .mean").first
    before = mean.get_attribute("d")
    page.get_by_role("button", name="skewed").click()
    told = "skewed, work: 2.00 nats over 2 pairs, 95 % interval 1.50 to 2.40, without 0 inside; p < 0.001"
    assert say(page).startswith(told)
    assert mean.get_attribute("d") != before and page.locator(".chart .pair").count() == 3
    page.locator(".chart .effect .name").nth(1).click()
    pressed = page.get_by_role("button", name="home").get_attribute("aria-pressed")
    assert say(page).startswith("skewed, home: 0.10") and pressed == "true"
    page.get_by_role("button", name="home").press("ArrowLeft")
    assert say(page).startswith("skewed, work:")


def test_grid_answers(page, home):
    tips = [["", "sat 99 %"], ["", ""]]
    values, rows, columns = [[0.25, 1.0], [-0.5, 0]], ["block 0", "block 1"], ["the", " cat"]
    page.goto(home(llmlab.grid_view(values, rows, columns, tips=tips, title="share")))
    grid = page.get_by_role("group", name="share")
    assert seen_texts(grid.get_by_role("button")) == ["0.25", "1", "−0.5", "0"]
    assert say(page) == "block 0, “·cat” (1): 1. sat 99 %"
    grid.get_by_role("button").nth(2).click()
    assert say(page) == "block 1, “the” (0): −0.5"
    grid.get_by_role("button").nth(2).press("ArrowUp")
    assert say(page) == "block 0, “the” (0): 0.25"
    assert grid.get_by_role("button").nth(0).get_attribute("aria-pressed") == "true"


# --- every figure, in every home ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_is_text(page, home, kind):
    page.goto(home(figures(ATTACK)[kind]))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    for slider in page.get_by_role("slider").all():
        slider.press("ArrowRight")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None and page.locator(".llmlab img").count() == 0
    assert "<img" in page.locator(".llmlab").inner_text(), "the text itself shows"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_name_and_fits_a_phone(page, home, kind):
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(home(figures()[kind]))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    named = "e.getAttribute('aria-label') || e.innerText || e.closest('label')"
    unnamed = f"all => all.filter(e => !({named})).map(e => e.outerHTML)"
    assert page.locator(".llmlab :is(button, input, canvas[role], svg[role])").evaluate_all(unnamed) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


# a host that keeps to anywidget's contract (https://anywidget.dev/en/afm), as in Colab and VS Code: it comes
# as text without an address, the model has these six methods, and what is not saved does not reach Python
HOST = """async ({ esm, traits }) => {
  const values = { ...traits }, calls = new Map(), told = { sets: 0, unsaved: [], foreign: [] };
  const methods = {
    get: name => values[name],
    set: (name, value) => {
      values[name] = value; told.sets++; told.unsaved.push(name);
      (calls.get(`change:${name}`) ?? []).forEach(call => call());
    },
    save_changes: () => { told.unsaved = []; },
    on: (event, call) => { calls.set(event, [...(calls.get(event) ?? []), call]); },
    off: (event, call) => { calls.set(event, (calls.get(event) ?? []).filter(other => other !== call)); },
    send: () => {},
  };
  const known = name => name in methods || name === 'link'; // ours, on pages only
  const get = (all, name) => known(name) ? all[name] : void told.foreign.push(String(name));
  const model = new Proxy(methods, { get });
  const module = await import(URL.createObjectURL(new Blob([esm], { type: 'text/javascript' })));
  const el = document.body.appendChild(document.createElement('div')), { render, ...more } = module.default;
  told.end = await render({ model, el });
  Object.assign(window, { told, more: Object.keys(more).filter(name => name !== 'initialize') });
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_keeps_to_anywidgets_contract(page, kind):
    view = figures()[kind]
    traits = json.loads(re.search(r"<script[^>]*>(.*?)</script>", view_module.figure_html(view), re.S)[1])
    page.set_content("<!doctype html><title>host</title>")
    page.evaluate(HOST, {"esm": view_module.bundle(view.module), "traits": traits})
    page.wait_for_selector(".llmlab .say:not(:empty)")
    page.evaluate(
        "document.querySelectorAll('.llmlab button:enabled:not(.tools button)').forEach(b => b.click())"
    )
    for slider in page.get_by_role("slider").all()[:2]:
        slider.press("ArrowLeft")
        slider.press("ArrowRight")
    assert page.evaluate("[told.foreign, more, told.unsaved]") == [[], [], []], (
        "six methods; every change is saved"
    )
    assert page.evaluate("typeof told.end") in ("undefined", "function")
    assert page.evaluate("told.sets") > 0, "the reader's choice is in the model"


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_cannot_be_is_drawn_as_the_nearest(page, home, kind):
    view = figures()[kind]
    address, wild = home(view), ("1e9", "-1e9", "0.5", "Infinity")
    for value in wild:
        state = "&".join(f"{name}={value}" for name in view.state)
        page.goto("about:blank")
        page.goto(f"{address}#llmlab-0?{state}")
        page.wait_for_selector(".llmlab .say:not(:empty)")
        assert "NaN" not in page.locator(".llmlab").inner_text() and not page.wrong


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_is_part_of_the_name_and_targets_are_large(page, home, kind):
    page.goto(home(figures()[kind]))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    label = "e.getAttribute('aria-label')"
    other = f"""all => all
        .filter(e => /[\\p{{L}}\\p{{N}}]/u.test(e.innerText) && !{label}.includes(e.innerText))
        .map(e => [e.innerText, e.getAttribute('aria-label')])"""
    assert page.locator(".llmlab button[aria-label]").evaluate_all(other) == []
    small = """all => all.filter(e => e.offsetParent && Math.min(e.offsetWidth, e.offsetHeight) < 24)
        .map(e => e.outerHTML)"""
    inline = ".phrases *, .heads *"  # in running text, and small pictures that arrow keys reach
    assert page.locator(f".llmlab :is(button, input, select):not({inline})").evaluate_all(small) == []


def test_an_emptied_field_says_what_counts(page, home):
    page.goto(home(figures()["formula"]))
    field = page.locator(".given input").first
    field.fill("")
    assert "give a number from −1000 to 1000. Until then 1 counts" in page.locator(".warning").inner_text()
    field.blur()
    assert field.input_value() == "1" and field.get_attribute("aria-invalid") is None


def test_a_list_that_is_cut_says_so(page, home):
    wide = llmlab.grid_view(np.ones((1, 60)), ["row"], [f"t{i}" for i in range(60)])
    page.goto(home(wide))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    assert "more columns on the right" in page.locator(".more").inner_text()
    page.locator(".scroll").evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    page.wait_for_function("document.querySelector('.more').textContent.includes('on the left')")


def rgb(page, what):
    "A colour of the figure as three numbers."
    text = page.locator(".llmlab").evaluate(f"e => getComputedStyle(e).{what}")
    return [float(x) for x in re.findall(r"[\d.]+", text)[:3]]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_readable_in_light_and_in_dark(page, home, kind):
    page.goto(home(figures()[kind]))
    page.wait_for_selector(".llmlab .say:not(:empty)")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ink, paper = (
            np.dot([0.2126, 0.7152, 0.0722], rgb(page, what)) / 255 for what in ("color", "backgroundColor")
        )
        assert abs(ink - paper) > 0.6 and (ink > 0.5) == (scheme == "dark")


def test_the_books_own_theme_wins_over_the_system(page, book):
    address = in_book(book, "theme", view_module.figure_html(figures()["attention"]))
    page.goto(address)
    page.wait_for_selector(".matrix canvas")
    pixel = "c.getContext('2d').getImageData(c.width - 6, 100, 1, 1).data"
    count = f"c => [...{pixel}].slice(0, 3).reduce((a, b) => a + b)"
    before, light = page.locator(".matrix canvas").evaluate(count), rgb(page, "backgroundColor")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    again = f"before => ({count})(document.querySelector('.matrix canvas')) !== before"
    page.wait_for_function(again, arg=before)  # the canvas is drawn again
    assert sum(rgb(page, "backgroundColor")) < 200 < 600 < sum(light)


def test_two_figures_on_one_page_keep_apart_and_share_their_module(page, book):
    one, two = (
        view_module.figure_html(llmlab.attention_view(softmax((2, 2, 3, 3), seed), list("abc")))
        for seed in (0, 1)
    )
    page.goto(in_book(book, "two", one, two))
    page.wait_for_function("document.querySelectorAll('.matrix canvas').length === 2")
    page.get_by_role("radio", name="layer 1, head 1").nth(1).click()
    first, second = page.locator(".say").all_inner_texts()
    assert first.startswith("Layer 0, head 0") and second.startswith("Layer 1, head 1")
    assert sum(url.endswith("/attention.js") for url in page.asked) == 1


def test_a_hidden_figure_draws_when_it_is_shown(page, book):
    figure = view_module.figure_html(figures()["attention"])
    page.goto(in_book(book, "hidden", f"<details><summary>open</summary>{figure}</details>"))
    page.locator("summary").click()
    page.wait_for_function("document.querySelector('.matrix canvas').clientWidth > 80")
    assert drawn(page, ".matrix canvas") > 5


def test_a_figure_that_cannot_be_drawn_says_so(page, book):
    page.goto(
        in_book(book, "broken", view_module.figure_html(figures()["tokens"]).replace('"steps"', '"stops"'))
    )
    page.wait_for_function("document.querySelector('figcaption').textContent.includes('could not be drawn')")
    assert page.wrong
    page.wrong.clear()


def test_without_javascript_the_figure_is_told_in_words(browser, book):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(in_book(book, "plain", view_module.figure_html(figures()["curves"])))
    assert "loss over step: cat ends at 1, b ends at 3." in page.locator("figcaption").inner_text()
    context.close()


# --- bertviz, notebook ------------------------------------------------------------------------------------


def test_bertviz_neuron_draws(page, book):
    pytest.importorskip("bertviz")
    vectors = np.random.default_rng(0).normal(size=(2, 2, 2, 3, 4))
    page.goto(in_book(book, "neuron", llmlab.bertviz_neuron(*vectors, ["a", ATTACK, "c"]).data))
    frame = page.frame_locator("iframe")
    frame.locator("#collapsed line").first.wait_for(state="attached")
    assert frame.locator("#collapsed line").count() >= 9 and frame.locator("#att_head option").count() == 2
    assert ATTACK in frame.locator("#vis").text_content()
    assert page.frames[1].evaluate("window.hit") is None and page.frames[1].locator("img").count() == 0


@pytest.mark.parametrize("draw", [llmlab.bertviz_head, llmlab.bertviz_model])
def test_bertviz_draws_without_a_network_and_without_harm(page, book, draw):
    pytest.importorskip("bertviz")
    page.goto(in_book(book, "bertviz", draw(softmax((2, 3, 3, 3)), ["a", ATTACK, "c"]).data))
    frame = page.frame_locator("iframe")
    frame.locator("#vis svg line").first.wait_for(state="attached")
    assert frame.locator("#vis svg line").count() >= 27
    if draw is llmlab.bertviz_head:
        assert frame.locator("#left text").nth(1).text_content() == ATTACK
        frame.locator("#layer").select_option("1")
    else:
        frame.locator("rect[style*='opacity: 0']").last.click()
        assert frame.locator("text.token").nth(1).text_content() == ATTACK
    inner = page.frames[1]
    assert inner.evaluate("window.hit") is None and inner.locator("img").count() == 0
    assert [url for url in page.asked if not url.startswith("http://127.0.0.1")] in ([], ["about:srcdoc"])


def test_a_kernel_sends_the_view_and_its_state(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    code = (
        "from llmlab import tokens_view\n"
        "view = tokens_view([('letters', ['a', 'b']), ('a + b', ['ab'])])\n"
        "view.step = 1\nview"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    (output,) = [o for o in notebook.cells[0].outputs if "data" in o]
    model = output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"][model]["state"]
    assert state["step"] == 1 and state["data"]["labels"] == ["letters", "a + b"]
    assert state["_esm"] == view_module.bundle("tokens") and "html[data-theme" in state["_css"]
