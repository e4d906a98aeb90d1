"The built book: complete without a network, equations set, no raw notebook lines, no errors; its settings."

import functools
import http.server
import os
import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

import colab_line
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, missing

import llmlab

BUILT = Path(os.environ.get("LLMLAB_BOOK_BUILD", ROOT / "book" / "_build"))
HTML = BUILT / "html"
CONFIG = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())


@pytest.fixture(scope="module")
def html() -> Path:
    "The folder of the built book."
    if not (HTML / "search.html").exists():
        missing(f"no book in {HTML}: run make book")
    return HTML


def pages(folder: Path) -> list[str]:
    "Every page that carries text, as an address relative to the folder."
    every = (f.relative_to(folder).as_posix() for f in folder.rglob("*.html") if "_static" not in f.parts)
    return sorted(p for p in every if p not in ("genindex.html", "py-modindex.html"))


@pytest.fixture(scope="module")
def served(html):
    "The address of a web server on this machine that serves the book."
    handler = functools.partial(Quiet, directory=str(html))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *ignored):
        pass


def lived(folder: Path) -> list[str]:
    "The pages that hold more than code: the reference's copies of the source are left out."
    return [name for name in pages(folder) if not name.startswith("_modules")]


@pytest.fixture(scope="module")
def visits(browser, served, html) -> dict:
    "What each page did when it was opened: requests, errors, equations waiting, text."
    found, names = {}, lived(html)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    for start in range(0, len(names), 4):  # while one page is waited for, the next ones load
        opened = {name: open_page(context, f"{served}/{name}") for name in names[start : start + 4]}
        for name, (page, visit) in opened.items():
            look_at(page, visit)
            found[name] = visit
            page.close()
    context.close()
    return found


def open_page(context, address: str) -> tuple:
    "A page that begins to load, and the record of what it asks for and complains of."
    page, visit = context.new_page(), {"requests": [], "errors": []}
    page.on("request", lambda r: visit["requests"].append(r.url))
    page.on("console", lambda m: m.type == "error" and visit["errors"].append(m.text))
    page.on("pageerror", lambda e: visit["errors"].append(str(e)))
    page.goto(address, wait_until="commit")
    return page, visit


def look_at(page, visit: dict) -> None:
    "Wait until a page stands, and note what is amiss."
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !document.querySelector('.math') || window.MathJax?.startup?.promise")
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => 0)")
    visit["unset"] = page.eval_on_selector_all(
        ".math", "all => all.filter(m => !m.querySelector('mjx-container')).length"
    )
    visit["faults"] = page.locator("mjx-merror").count()
    visit["unmounted"] = page.eval_on_selector_all(
        "figure.llmlab-figure",
        "all => all.filter(f => !f.querySelector('svg, canvas, button, input, table')).length",
    )
    visit["text"] = page.inner_text("body")


def bad(visits: dict, problem) -> dict:
    "The pages for which problem(visit) is not empty."
    return {name: problem(visit) for name, visit in visits.items() if problem(visit)}


# --- in the browser -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_page_asks_a_third_party(visits):
    local = ("127.0.0.1", None)
    assert not bad(visits, lambda v: [u for u in v["requests"] if urlsplit(u).hostname not in local])


@pytest.mark.slow
def test_no_page_reports_an_error(visits):
    assert not bad(visits, lambda v: v["errors"])


@pytest.mark.slow
def test_equations_are_set(visits):
    assert not bad(visits, lambda v: v["unset"] + v["faults"])


@pytest.mark.slow
def test_figures_are_mounted(visits):
    assert not bad(visits, lambda v: v["unmounted"])


@pytest.mark.slow
def test_no_directive_is_visible(visits):
    assert not bad(visits, lambda v: re.findall(r"^\s*#\|.*$", v["text"], re.M))


@pytest.mark.slow
def test_pages_opened_as_files_ask_nobody(browser, html):
    asked = []
    page = browser.new_page()
    page.on("request", lambda r: asked.append(r.url))
    for name in lived(html):
        page.goto((html / name).as_uri(), wait_until="load")
    page.close()
    assert not [url for url in asked if urlsplit(url).scheme not in ("file", "data", "blob")]


# --- as files -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_chapter_stands_with_its_two_buttons(html):
    for name in chapters():
        text = (html / f"{name}.html").read_text()
        assert f"colab.research.google.com/github/{repository()}/blob/main/nbs/{name}.ipynb" in text
        assert f"_sources/{name}.ipynb" in text and (html / f"_sources/{name}.ipynb").exists()


@pytest.mark.slow
def test_no_chapter_shows_an_error_or_a_warning(html):
    shown = re.compile(r'class="output (stderr|traceback)')
    assert not [name for name in chapters() if shown.search((html / f"{name}.html").read_text())]


@pytest.mark.slow
def test_no_address_of_a_script_style_or_font_is_foreign(html):
    foreign = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["'](?:https?:)?//[^"']+""")
    allowed = re.compile(r'rel="(canonical|license|author)"')
    found = {
        n: [m for m in foreign.findall((html / n).read_text()) if not allowed.search(m)] for n in pages(html)
    }
    assert not {n: f for n, f in found.items() if f}


@pytest.mark.slow
def test_every_link_within_the_book_leads_somewhere(html):
    known = {name: set(re.findall(r'\bid="([^"]+)"', (html / name).read_text())) for name in pages(html)}
    lost = []
    for name in known:
        for page, anchor in re.findall(r'href="([^"#:]*)#([^"]+)"', (html / name).read_text()):
            target = os.path.normpath(Path(name).parent / page) if page else name
            if target in known and anchor not in known[target]:
                lost.append((name, page, anchor))
    assert not lost


@pytest.mark.slow
def test_a_mention_of_a_chapter_is_a_link(html):
    "In running text: no code, output, formula or heading."
    found = {}
    for name in chapters():
        article = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser").find("article")
        for part in article.select("a, pre, code, h1, h2, h3, script, style, .cell_output, .math"):
            part.decompose()
        if said := re.findall(r"\b[Cc]hapters?\s\d+", article.get_text()):
            found[name] = said
    assert not found


# --- the configuration --------------------------------------------------------------------------------------


def chapters() -> list[str]:
    "The notebooks in the table of contents."
    listed = [c["file"] for part in TOC["parts"] for c in part["chapters"]]
    return [name for name in listed if (ROOT / "nbs" / f"{name}.ipynb").exists()]


def repository() -> str:
    "owner/name, from settings.ini."
    return urlsplit(colab_line.settings()["git_url"]).path.strip("/")


def test_the_contents_list_every_chapter():
    home = ROOT / "nbs"
    found = [f.relative_to(home).with_suffix("").as_posix() for f in colab_line.notebooks()]
    assert sorted(chapters()) == sorted(found)


def test_the_reference_has_a_page_for_each_group():
    listed = next(c for part in TOC["parts"] for c in part["chapters"] if c["file"] == "api")["sections"]
    found = [(ROOT / "nbs" / f"{s['file']}.md").read_text() for s in listed]
    assert [re.search(r":: (.+)", text)[1] for text in found] == list(llmlab.GROUPS)
    assert len(found) == len([*(ROOT / "nbs" / "api").glob("*.md")])


def test_repository_is_the_one_of_settings():
    cfg = colab_line.settings()
    assert CONFIG["repository"]["url"] == cfg["git_url"]
    assert CONFIG["repository"]["branch"] == cfg["branch"]
    assert CONFIG["repository"]["path_to_book"] == cfg["nbs_path"]
