"""attention_view beside bertviz, the same tensors in one run: python bench/views.py [--tokens 64 128] [--json
FILE]

Random attention of 12 × 12 heads, every pair of tokens, softmax of scores with deviation 2. bertviz writes
its own
page; its CDN addresses are answered from this checkout, so that it draws without a network. Its pages are
skipped
beyond --bertviz-up-to tokens: at 512 it makes almost two gigabytes. Seconds belong to this machine and hour:
read the
ratios.
"""

import statistics
import tempfile
import time
from pathlib import Path

import bertviz
import numpy as np
import torch
from _shared import arguments, write
from playwright.sync_api import sync_playwright

from llmlab import attention_view
from llmlab.figures.view import STATIC

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LIBRARIES = "".join(
    (STATIC / f).read_text("utf-8") + "\n"
    for f in ("jquery.slim.min.js", "d3-selection.min.js", "d3-color.min.js", "bertviz.js")
)
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
HOVER = """async () => {
  const canvas = document.querySelector('.matrix canvas'), times = [];
  for (let i = 1; i <= 30; i++) {
    const began = performance.now();
    canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: 0, clientY: 0, bubbles: true }));
    const box = canvas.getBoundingClientRect(), [clientX, clientY] = [box.left + 10 * i, box.top + 12 * i];
    canvas.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY, bubbles: true }));
    await new Promise(done => requestAnimationFrame(done));
    times.push(performance.now() - began);
  }
  return times.sort((a, b) => a - b)[27];
}"""


def weights(n, seed=0):
    "Attention [12 12 n n]."
    s = np.random.default_rng(seed).standard_normal((12, 12, n, n), dtype=np.float32) * 2
    np.exp(s, out=s)
    return s / s.sum(-1, keepdims=True)


def ours(x, tokens, path):
    "Seconds of Python until the page is written, and its bytes."
    began = time.perf_counter()
    view = attention_view(x, tokens)
    ready = time.perf_counter() - began
    view.save(path)
    return {"python_s": ready, "python_and_file_s": time.perf_counter() - began, "bytes": path.stat().st_size}


def theirs(draw, x, tokens, path):
    "The same of bertviz."
    layers = [torch.from_numpy(layer)[None] for layer in x]
    began = time.perf_counter()
    page = draw(layers, tokens, html_action="return", prettify_tokens=False).data
    ready = time.perf_counter() - began
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{page}', "utf-8")
    return {"python_s": ready, "python_and_file_s": time.perf_counter() - began, "bytes": path.stat().st_size}


def opened(browser, path, drawn, hover=False):
    "Median seconds until a page has its picture, three fresh tabs; milliseconds of a hover (9 of 10)."
    times, hovers = [], []
    for _ in range(3):
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.route(
            "**/require.min.js", lambda route: route.fulfill(body=LIBRARIES, content_type="text/javascript")
        )
        page.set_default_timeout(300_000)
        began = time.perf_counter()
        page.goto(path.as_uri())
        page.locator(drawn).first.wait_for(state="attached")
        page.evaluate(PAINTED)
        times.append(time.perf_counter() - began)
        if hover:
            hovers.append(page.evaluate(HOVER))
        page.close()
    return {"drawn_s": statistics.median(times), **({"hover_ms": statistics.median(hovers)} if hover else {})}


def race(browser, n, limit, folder):
    "A row a contestant at n tokens."
    x, tokens, rows = weights(n), [f"t{i}" for i in range(n)], {}
    page = folder / f"ours{n}.html"
    rows["attention_view"] = ours(x, tokens, page) | opened(
        browser, page, ".llmlab .say:not(:empty)", hover=True
    )
    for name, draw in (("bertviz head_view", bertviz.head_view), ("bertviz model_view", bertviz.model_view)):
        if n > limit or ("model" in name and n > 64):
            continue
        page = folder / f"theirs{n}.html"
        rows[name] = theirs(draw, x, tokens, page)
        if n <= 128:
            rows[name] |= opened(browser, page, "#vis svg line")
    return {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()}


def main():
    parser = arguments(__doc__, threads=None)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 512, 1024])
    parser.add_argument("--bertviz-up-to", type=int, default=512)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    sizes = {}
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        browser = play.chromium.launch(executable_path=args.chromium, args=ARGUMENTS)
        for n in args.tokens:
            sizes[str(n)] = race(browser, n, args.bertviz_up_to, Path(folder))
            for name, row in sizes[str(n)].items():
                told = "  ".join(f"{key} {value:,.3f}" for key, value in row.items() if key != "bytes")
                print(f"{n:>5} tokens  {name:20} {row['bytes'] / 1e6:9,.2f} MB  {told}", flush=True)
        chromium = browser.version
    write(args, {"tokens": sizes}, "bertviz", chromium=chromium)


if __name__ == "__main__":
    main()
