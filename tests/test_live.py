"Figures in JupyterLab 4 and Notebook 7 with a kernel: state goes to Python and back, Python answers."

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import ROOT
from test_figures import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.long]
SOURCE = """import numpy as np
from llmlab import attention_view, tokens_view
weights = np.random.default_rng(0).dirichlet(np.ones(80), size=(2, 2, 80)).astype("float32")
view = attention_view(weights, ["</script><img src=x onerror='window.hit=1'>"] + ["w"] * 79, megabytes=0.001)
view"""
LONG = """import torch
from llmlab import PooledAttention, attention_view
from llmlab.attention import dot_product_attention
from llmlab.attention_pooling import attention_map
q, k = torch.randn(2, 2, 2, 2000, 8, generator=torch.Generator().manual_seed(0))

def tile(layer, head, rows, keys):
    x, y = q[layer, head : head + 1], k[layer, head : head + 1]
    return dot_product_attention(x, y, y, causal=True, need_weights=True)[1][0, rows, keys]

exact = tile(0, 1, 1999, slice(1750, 2000))
open("weight.txt", "w").write(f"{int(exact.argmax())} {float(exact.max()):.3f}")
maps = [attention_map(*layer, bins=200, causal=True) for layer in zip(q, k)]
attention_view(PooledAttention(maps, tile), [f"w{i}" for i in range(2000)])"""
EVERY = """from sample_figures import figures
every, told = figures(), set()
for kind, figure in every.items():
    names = [name for name in figure.trait_names(sync=True) if name[0] != "_"]
    figure.observe(lambda change, kind=kind: told.add(kind), names)
display(*every.values())"""
TOLD = "open('told.txt', 'w').write(' '.join(told))"
EXPLORE = """from llmlab import explore_model
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder
tokenizer = Tokenizer.train("the cat sat on the mat. " * 9, 270)
model = Decoder(Config(tokenizer.vocab_size, context=32, layers=1, heads=2, d_model=8))
explore_model(model, tokenizer, "the cat")"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(done, seconds: int = 600) -> None:
    "Ask until it is so; the limit is there to end a hang."
    for _ in range(5 * seconds):
        if done():
            return
        time.sleep(0.2)
    raise TimeoutError(f"not so after {seconds} seconds")


@pytest.fixture(scope="module", params=["lab", "notebook"])
def lab(request, tmp_path_factory):
    "The address of a server on this machine that opens a notebook with seven cells."
    folder, port, token = tmp_path_factory.mktemp("lab"), free_port(), secrets.token_hex(8)
    tell = "open('state.txt', 'w').write(f'{view.layer} {view.head} {view.token}')"
    cells = [SOURCE, "view.layer = 1\nview.head = 0", tell, EXPLORE, LONG, EVERY, TOLD]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "x.ipynb")
    settings = [
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.port={port}",
    ]
    quiet = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--LabApp.news_url=None"]
    never = "check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    quiet += [f"--{app}.{never}" for app in ("LabApp", "JupyterNotebookApp")]
    ours = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / "config"), "PYTHONPATH": ours}
    env.pop("LLMLAB_BOOK", None)
    module, path = {"lab": ("jupyterlab", "lab/tree"), "notebook": ("notebook", "notebooks")}[request.param]
    command = [sys.executable, "-m", module, *settings, *quiet]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=60).read()
        except OSError:
            return False
        return True

    wait_for(answers)
    yield folder, f"http://127.0.0.1:{port}/{path}/x.ipynb?token={token}"
    server.terminate()
    server.wait(300)


def run_cell(page, n):
    "Runs the n-th cell by hand."
    page.locator(".jp-CodeCell .jp-InputArea-editor").nth(n).click()
    page.keyboard.press("Control+Enter")


def opened(browser, address):
    "The notebook with an idle kernel, what it asked for, and its errors."
    asked, wrong = [], []
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.set_default_timeout(600_000)
    page.on("request", lambda r: asked.append(r.url))
    settings = (
        "Cannot read properties of undefined (reading 'schema')"  # Notebook 7's own, without any figure
    )
    page.on("pageerror", lambda e: wrong.append(str(e)) if str(e) != settings else None)
    page.goto(address)
    page.locator(".jp-Notebook .jp-CodeCell").nth(6).wait_for()
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", state="attached")
    return page, asked, wrong


def test_a_figure_lives_in_jupyter(browser, lab):
    folder, address = lab
    page, asked, wrong = opened(browser, address)
    run_cell(page, 0)
    say = page.locator(".llmlab .say")
    say.wait_for()
    page.wait_for_function(
        "() => document.querySelector('.llmlab .matrix .title').textContent.includes('columns')"
    )
    assert "Layer 0, head 0" in say.inner_text()

    page.get_by_role("radio", name="layer 1, head 1").click()  # not carried: Python sends it
    page.wait_for_function(
        "() => document.querySelector('.llmlab .say').textContent.startsWith('Layer 1, head 1')"
    )
    assert "in blocks" not in page.locator(".matrix .title").inner_text(), (
        "exact weights have come from Python"
    )
    page.locator(".llmlab .chips button").nth(3).click()
    run_cell(page, 2)
    wait_for(lambda: (folder / "state.txt").exists() and (folder / "state.txt").read_text())
    assert (folder / "state.txt").read_text() == "1 1 3", "the state has gone to Python"

    run_cell(page, 1)
    page.wait_for_function(
        "() => document.querySelector('.llmlab .say').textContent.startsWith('Layer 1, head 0')"
    )
    assert page.evaluate("window.hit") is None and page.locator(".llmlab img").count() == 0
    assert "<img" in page.locator(".llmlab .chips").first.inner_text()
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    ground = page.locator(".llmlab").evaluate("e => getComputedStyle(e).backgroundColor")
    assert sum(map(int, ground[4:-1].split(","))) < 150, "the figure follows the lab's theme"
    assert not wrong, wrong
    assert not [
        url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:", "about:"))
    ], asked
    page.close()


def test_every_figure_draws_and_tells_python_what_the_reader_chose(browser, lab):
    folder, address = lab
    page, _, wrong = opened(browser, address)
    run_cell(page, 5)
    page.wait_for_function(
        f"() => document.querySelectorAll('.llmlab .say:not(:empty)').length >= {len(KINDS)}"
    )
    page.evaluate(
        "document.querySelectorAll('.llmlab button:enabled:not(.tools button)').forEach(b => b.click())"
    )
    for slider in page.locator(".llmlab input[type=range]").all():
        slider.press("ArrowLeft")
        slider.press("ArrowRight")
    written_to = folder / "told.txt"

    def all_told() -> bool:
        "What a figure sends takes its time: Python is asked again until it has heard from each."
        run_cell(page, 6)
        return written_to.exists() and set(written_to.read_text().split()) == {*KINDS}

    wait_for(all_told)
    assert not wrong, wrong
    page.close()


def test_python_sends_exact_weights_of_a_window_of_a_long_text(browser, lab):
    folder, address = lab
    page, _, wrong = opened(browser, address)
    run_cell(page, 4)
    heading, canvas = page.locator(".llmlab .matrix .title"), page.locator(".llmlab .matrix canvas")
    heading.get_by_text("in blocks of 10 tokens").wait_for()
    page.get_by_role("radio", name="layer 0, head 1").click()
    for _ in range(3):
        page.get_by_role("button", name="zoom in").click()
    page.get_by_text("tokens 1750–1999 at 1750–1999").wait_for()
    page.wait_for_function("() => !document.querySelector('.llmlab .matrix').ariaBusy")
    assert "in blocks" not in heading.inner_text()
    key, weight = (folder / "weight.txt").read_text().split()
    page.mouse.move(0, 0)
    canvas.focus()
    for _ in range(int(key) + 1):  # the first arrow shows the place, the others move it
        canvas.press("ArrowRight")
    assert heading.inner_text() == f"“w1999” (1999) → “w{1750 + int(key)}” ({1750 + int(key)}): {weight}"
    assert not wrong, wrong
    page.close()


def test_explore_answers_while_the_reader_types(browser, lab):
    page, _, wrong = opened(browser, lab[1])
    run_cell(page, 3)
    chips = page.locator(".llmlab .chips:visible button")
    chips.first.wait_for()
    before = page.locator(".llmlab .say").last.inner_text()
    box = page.locator(".widget-textarea textarea:not([disabled])")
    box.click()
    box.press("Control+End")
    page.keyboard.type(" sat on the mat")
    say = "[...document.querySelectorAll('.llmlab .say')].at(-1).textContent"
    page.wait_for_function(f"before => {say} !== before", arg=before)
    page.get_by_text("ready: ").wait_for()
    assert "mat" in "".join(chips.all_inner_texts()).replace("\n", "")
    assert not wrong, wrong
    page.close()
