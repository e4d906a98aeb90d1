"""How the height of the built lessons is shared: python tools/measure_pages.py [FOLDER OF THE BUILT BOOK]

Prints one row a lesson, in percent of the height of the article at a width of 1280 px: code, exported code
that the page neither names in its prose nor uses (plumbing), text output, figures (images and tables too),
and prose; then all lessons together.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
MEASURE = """() => {
  const article = document.querySelector('article');
  const height = (found) => [...found].reduce((sum, e) => sum + e.getBoundingClientRect().height, 0);
  const all = (selector) => [...article.querySelectorAll(selector)];
  const inputs = all('div.cell_input').filter((e) => !e.closest('details:not([open])'));
  const exported = inputs.filter((e) => e.closest('.tag_llmlab-export'));
  const used = inputs.filter((e) => !exported.includes(e)).map((e) => e.textContent);
  const prose = [...article.querySelectorAll('p, li, td, h1, h2, h3')].map((e) => e.textContent);
  const words = new Set([...used, ...prose].join(' ').match(/\\w+/g));
  const defined = /^(?:def |class )?([A-Za-z]\\w*)(?= = |[(:])/gm;
  const names = (text) => [...text.matchAll(defined)].map((m) => m[1]);
  const plumbing = exported.filter((e) => !names(e.textContent).some((name) => words.has(name)));
  const shown = [...article.querySelectorAll('div.cell_output')];
  const picture = '.llmlab-figure, img, svg, table, iframe';
  const pictures = shown.filter((e) => e.querySelector(picture));
  const free = all('img, table, .math.notranslate.nohighlight').filter((e) => !e.closest('div.cell'));
  const displayed = free.filter((e) => e.tagName !== 'SPAN');
  return {
    height: article.getBoundingClientRect().height, code: height(inputs), plumbing: height(plumbing),
    output: height(shown.filter((e) => !pictures.includes(e))),
    pictures: height(pictures) + height(displayed),
    first: Math.min(...all(picture).map((e) => e.getBoundingClientRect().top + scrollY)) / 900,
  };
}"""


def main() -> None:
    html = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "book" / "_build" / "html"
    rows = {}
    with sync_playwright() as play:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for path in sorted(html.glob("[0-9][0-9]*_*.html")):
            page.goto(path.resolve().as_uri())
            page.wait_for_timeout(1500)  # figures and formulas take their places
            rows[path.stem] = page.evaluate(MEASURE)
        browser.close()
    print(f"{'lesson':24} screens  code  plumbing  output  pictures  other  first picture on screen")
    every = {
        key: sum(row[key] for row in rows.values())
        for key in ("height", "code", "plumbing", "output", "pictures")
    }
    for name, row in {**rows, "all": every}.items():
        share = {key: 100 * row[key] / row["height"] for key in ("code", "plumbing", "output", "pictures")}
        other = 100 - share["code"] - share["output"] - share["pictures"]
        first = f"{row['first'] + 1:.1f}" if "first" in row else ""
        print(
            f"{name:24} {row['height'] / 900:7.1f} {share['code']:5.1f} {share['plumbing']:9.1f} "
            f"{share['output']:7.1f} {share['pictures']:9.1f} {other:6.1f}  {first}"
        )


if __name__ == "__main__":
    main()
