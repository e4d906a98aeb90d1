"What several tests share: the checkout's root, and a headless browser where the machine has one."

import os
import shutil
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent
# Keras has one backend a process, so this file has a process of its own for each: `make recurrent`
collect_ignore = [] if os.environ.get("KERAS_BACKEND") else ["test_recurrent.py"]
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


SLOW_FIRST = """
colab book runs training interpretability figures losses explore cache pretrained
views bench book_ext generation text
""".split()


def pytest_collection_modifyitems(items: list) -> None:
    "The files that take longest come first, so that no worker is left alone with one of them at the end."
    places = {f"test_{stem}": place for place, stem in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def missing(reason: str):
    "Skip on a reader's machine, fail in continuous integration: there the thing must be present."
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def chromium() -> str | None:
    "The path of an installed Chromium or Chrome."
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; the test is skipped (in CI: fails) where there is none.

    Each file has its own: as long as Playwright lives, a running event loop stands in this thread, and what
    else a worker runs must not find it.
    """
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        missing("no Chromium on this machine: apt-get install chromium, or put google-chrome on the PATH")
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=CHROMIUM)
        yield found
        found.close()


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    "Name → (model of transformers, its folder), made once, by the peer_of and the words of the test file."
    made = {}

    def get(name):
        if name not in made:
            peer, folder = request.module.peer_of(name), tmp_path_factory.mktemp(name)
            peer.save_pretrained(folder)
            request.module.words().save(str(folder / "tokenizer.json"))
            made[name] = peer, folder
        return made[name]

    return get


@pytest.fixture
def unchecked():
    "Our own errors, not those of the shape checks, which would speak first."
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
