"Every figure in a browser: it draws, answers to mouse and keyboard, runs no token's text, and asks no other host."
import http.server
import re
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from conftest import ROOT
from test_views import figures, softmax

from llmlab import views
from llmlab.exercises import Exercise, predict

ATTACK = "</script><img src=x onerror=\"window.hit=1\"><svg onload='window.hit=1'>"
# a drawn figure has taken its caption away, a failed one says so there
MOUNTED = """[...document.querySelectorAll('figure.llmlab-figure figcaption')]
    .every(caption => caption.textContent.includes('could not be drawn'))"""
pytestmark = pytest.mark.slow
KINDS = ["attention", "formula", "next_token", "tokens", "curves", "decoding", "beams"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Serves a folder without a log."

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "A folder that stands for the built book, served on this machine: llmlab/static and pages made of figure HTML."
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
    page.set_default_timeout(20_000)
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
    (folder / f"{name}.html").write_text(f'{head}<div class="{themed}">{"<p>between</p>".join(shown)}</div>', "utf-8")
    return f"{address}/{name}.html"


@pytest.fixture(params=["saved", "book"])
def home(request, book, tmp_path):
    "Both homes without a kernel: a function that puts a figure there and gives its address."

    def put(view):
        if request.param == "saved":
            return view.save(tmp_path / "figure.html").as_uri()
        return in_book(book, "figure", views.figure_html(view))

    return put


def say(page):
    "What the figure says it shows."
    return page.locator(".llmlab .say").inner_text()


def drawn(page, selector, side=0):
    "How many colours a canvas shows, or the square of this side in its lower right corner, where no label stands."
    square = f"c.width - 4 - {side}, c.height - 4 - {side}, {side}, {side}" if side else "0, 0, c.width, c.height"
    count = f"c => new Set(new Uint32Array(c.getContext('2d').getImageData({square}).data.buffer)).size"
    return page.locator(selector).first.evaluate(count)


# --- each figure draws and answers ----------------------------------------------------------------------------------


def test_attention_draws_and_answers(page, home):
    tokens = ["The", " cat", " sat", " down"]
    weights = softmax((2, 3, 4, 4), causal=True)
    page.goto(home(views.attention_view(weights, tokens, 1, 2)))
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
    page.goto(home(views.attention_view(softmax((2, 3, 4, 4)), list("abcd"))))
    page.wait_for_selector(".matrix canvas")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert say(page).startswith("Layer 1, head 1: “d”")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert "“c” (2) looks most at" in say(page)


def test_hovering_the_matrix_shows_the_weight(page, home):
    weights = softmax((1, 1, 4, 4))
    page.goto(home(views.attention_view(weights, list("abcd"))))
    canvas = page.locator(".matrix canvas")
    box = canvas.bounding_box()
    side = 34
    page.mouse.move(box["x"] + box["width"] - 4 - 2.5 * side, box["y"] + box["height"] - 4 - 1.5 * side)
    heading = page.locator(".matrix .title").inner_text()
    assert heading.startswith("“c” (2) → “b” (1): ") and abs(float(heading[-5:]) - weights[0, 0, 2, 1]) < 0.004
    page.mouse.down()
    page.mouse.up()
    assert "“c” (2) looks most at" in say(page)


def test_cross_attention_and_ragged_heads(page, home):
    layers = [softmax((1, 2, 5)), softmax((3, 2, 5), 1)]
    page.goto(home(views.attention_view(layers, (["le", "chat"], ["the", "cat", "is", "not", "here"]))))
    assert page.get_by_role("radio").count() == 4
    page.locator(".chips").nth(1).locator("button").nth(4).click()
    assert "“here” (4) is looked at most by" in say(page)
    page.locator(".chips").nth(0).locator("button").nth(1).click()
    assert "“chat” (1) looks most at" in say(page)


def test_formula_answers(page, home):
    q, k, v = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 1], [0, 2]]), np.array([[1.0], [3]])
    page.goto(home(views.formula_view(q, k, v, ["a", "b"])))
    cells = lambda name: [float(x.replace("−", "-")) for x in page.locator(f".{name} td:not(:empty)").all_inner_texts()]  # noqa: E731
    assert cells("scores") == [1, 0, 1, 2]
    weights = lambda s: np.exp(s) / np.exp(s).sum(-1, keepdims=True)  # noqa: E731
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
    page.goto(home(views.next_token_view([("a cat", {"x": 0.75, "y": 0.25}), ("a dog", {" z": 0.5})])))
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


def test_tokens_answer(page, home):
    page.goto(home(views.tokens_view([("letters", list("the the")), ("t + h", ["th", "e", " ", "th", "e"])])))
    assert page.locator(".boxes .tok").all_inner_texts() == list("the·the")
    page.get_by_role("button", name="next step").click()
    assert page.locator(".boxes .new").all_inner_texts() == ["th", "th"]
    assert "t + h: 5 tokens, 3 different" in say(page)
    page.get_by_role("slider", name="step").press("ArrowLeft")
    assert "letters: 7 tokens" in say(page)


def test_curves_answer(page, home):
    series = {"train": [(1, 4), (10, 2), (100, 1)], "valid": [(1, 5), (100, 3)]}
    page.goto(home(views.curves_view(series, log_x=True, snapshots={1: "early", 100: "late", 10: [[0, 1], [1, 0]]})))
    assert page.locator(".chart path").count() == 2 and "late" in page.locator(".shot").inner_text()
    page.get_by_role("slider", name="step").press("ArrowLeft")
    assert say(page) == "loss at step 10: train 2, valid 5." and page.locator(".tiles i").count() == 4
    box = page.locator(".chart svg").bounding_box()
    page.mouse.move(box["x"] + 55, box["y"] + 50)
    assert say(page) == "loss at step 1: train 4, valid 5." and "early" in page.locator(".shot").inner_text()
    assert page.get_by_role("slider", name="step").input_value() == "0", "the scrubber follows the mouse"
    page.get_by_role("button", name="valid").click()
    assert page.locator(".chart path").count() == 1 and "valid" not in say(page)


def test_decoding_answers(page, home):
    p = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    page.goto(home(views.decoding_view([("the", p), ("so", {"x": 1.0, "y": 0.0})])))
    assert "4 of 4 tokens stay, which held 100 %; nothing is cut" in say(page)
    page.get_by_role("slider", name="top-p").focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    assert "2 of 4 tokens stay, which held 80 %; cut: 2 by top-p. The likeliest, “a”, now has 63 %" in say(page)
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
    page.goto(home(views.beams_view("start", {1: [steps[0][:1]], 2: steps})))
    assert say(page).startswith("“start” + “b c”: log-probability -1.00, -0.50 a token; goes on.")
    page.get_by_role("button", name="a, step 1, dropped").click()
    assert "“start” + “a”: log-probability -0.50, -0.50 a token; was dropped here." in say(page)
    page.get_by_role("button", name="width 1").click()
    assert page.locator(".beams button").count() == 1 and "goes on" in say(page)


# --- every figure, in every home ------------------------------------------------------------------------------------


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
        ink, paper = (np.dot([0.2126, 0.7152, 0.0722], rgb(page, what)) / 255 for what in ("color", "backgroundColor"))
        assert abs(ink - paper) > 0.6 and (ink > 0.5) == (scheme == "dark")


def test_the_books_own_theme_wins_over_the_system(page, book):
    address = in_book(book, "theme", views.figure_html(figures()["attention"]))
    page.goto(address)
    page.wait_for_selector(".matrix canvas")
    count = "c => [...c.getContext('2d').getImageData(c.width - 6, 100, 1, 1).data].slice(0, 3).reduce((a, b) => a + b)"
    before, light = page.locator(".matrix canvas").evaluate(count), rgb(page, "backgroundColor")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert sum(rgb(page, "backgroundColor")) < 200 < 600 < sum(light)
    assert page.locator(".matrix canvas").evaluate(count) != before, "the canvas is drawn again"


def test_two_figures_on_one_page_keep_apart_and_share_their_module(page, book):
    one, two = (views.figure_html(views.attention_view(softmax((2, 2, 3, 3), seed), list("abc"))) for seed in (0, 1))
    page.goto(in_book(book, "two", one, two))
    page.wait_for_function("document.querySelectorAll('.matrix canvas').length === 2")
    page.get_by_role("radio", name="layer 1, head 1").nth(1).click()
    first, second = page.locator(".say").all_inner_texts()
    assert first.startswith("Layer 0, head 0") and second.startswith("Layer 1, head 1")
    assert sum(url.endswith("attention.js") for url in page.asked) == 1


def test_a_hidden_figure_draws_when_it_is_shown(page, book):
    figure = views.figure_html(figures()["attention"])
    page.goto(in_book(book, "hidden", f"<details><summary>open</summary>{figure}</details>"))
    page.locator("summary").click()
    page.wait_for_function("document.querySelector('.matrix canvas').clientWidth > 80")
    assert drawn(page, ".matrix canvas") > 5


def test_a_figure_that_cannot_be_drawn_says_so(page, book):
    page.goto(in_book(book, "broken", views.figure_html(figures()["tokens"]).replace('"steps"', '"stops"')))
    page.wait_for_function("document.querySelector('figcaption').textContent.includes('could not be drawn')")
    assert page.wrong
    page.wrong.clear()


def test_without_javascript_the_figure_is_told_in_words(browser, book):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(in_book(book, "plain", views.figure_html(figures()["curves"])))
    assert "loss over step: cat ends at 1, b ends at 3." in page.locator("figcaption").inner_text()
    context.close()


# --- bertviz, exercises, notebook -----------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [views.bertviz_head, views.bertviz_model])
def test_bertviz_draws_without_a_network_and_without_harm(page, book, draw):
    pytest.importorskip("bertviz")
    page.goto(in_book(book, "bertviz", draw(softmax((2, 3, 3, 3)), ["a", ATTACK, "c"]).data))
    frame = page.frame_locator("iframe")
    frame.locator("#vis svg line").first.wait_for(state="attached")
    assert frame.locator("#vis svg line").count() >= 27
    if draw is views.bertviz_head:
        assert frame.locator("#left text").nth(1).text_content() == ATTACK
        frame.locator("#layer").select_option("1")
    else:
        frame.locator("rect[style*='opacity: 0']").last.click()
        assert frame.locator("text.token").nth(1).text_content() == ATTACK
    inner = page.frames[1]
    assert inner.evaluate("window.hit") is None and inner.locator("img").count() == 0
    assert [url for url in page.asked if not url.startswith("http://127.0.0.1")] in ([], ["about:srcdoc"])


def test_exercises_open_without_javascript(browser, book):
    exercise = Exercise("Add", 2, 1, f"Write `add`. {ATTACK}", lambda f: None, ["first hint", "second hint"], "x = 1")
    question = predict("What?", {"one": "why one", ATTACK: "why not"}, answer="one")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(in_book(book, "exercise", exercise._repr_html_(), question._repr_html_()))
    assert page.locator("img").count() == 0
    solution = page.get_by_text("x = 1")
    for name in ("Hint 1 of 2", "Hint 2 of 2", "Solution"):
        assert not solution.is_visible()
        page.get_by_text(name, exact=True).click()
    assert solution.is_visible()
    page.get_by_text("one", exact=True).click()
    assert page.get_by_text("✓ Right. why one").is_visible()
    context.close()


def test_a_kernel_sends_the_view_and_its_state(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    code = (
        "from llmlab.views import tokens_view\n"
        "view = tokens_view([('letters', ['a', 'b']), ('a + b', ['ab'])])\n"
        "view.step = 1\nview"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    (output,) = [o for o in notebook.cells[0].outputs if "data" in o]
    model = output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"][model]["state"]
    assert state["step"] == 1 and state["data"]["labels"] == ["letters", "a + b"]
    assert state["_esm"] == (views.STATIC / "tokens.js").read_text("utf-8") and "html[data-theme" in state["_css"]
