"Progress bars only where somebody looks."

import io
import sys
import types

import pytest

from llmlab import progress
from llmlab.progress import download_bars, is_watched, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    "No variable that switches bars, no IPython, standard error a log."
    for name in ("TQDM_DISABLE", "LLMLAB_BOOK", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def front_end(monkeypatch, **attributes):
    shell = types.SimpleNamespace(**attributes)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def written(monkeypatch, show=None, file=None):
    "What a bar of three steps writes to standard error."
    file = file or io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress_bar(3, 1, show) as bar:
        bar.update()
        bar.set_postfix({"loss": "1"})
        bar.update()
    return file.getvalue()


def test_a_log_is_not_watched_a_terminal_and_a_notebook_are(monkeypatch):
    assert not is_watched()
    monkeypatch.setattr(sys, "stderr", None)  # pythonw
    assert not is_watched()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_watched()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    front_end(monkeypatch)  # IPython in a pipe
    assert not is_watched()
    front_end(monkeypatch, kernel=object())
    assert is_watched()


def test_a_page_of_the_book_is_not_watched(monkeypatch):
    front_end(monkeypatch, kernel=object())
    monkeypatch.setenv("LLMLAB_BOOK", "1")
    assert not is_watched()


def test_a_bar_goes_to_a_terminal_and_not_into_a_log(monkeypatch):
    assert written(monkeypatch) == ""
    assert "3/3" in written(monkeypatch, file=Terminal())


def test_the_argument_wins(monkeypatch):
    assert "3/3" in written(monkeypatch, show=True)
    assert written(monkeypatch, show=False, file=Terminal()) == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert written(monkeypatch, file=Terminal()) == ""
    assert "3/3" in written(monkeypatch, show=True)


@pytest.mark.parametrize("bad", ["yes", 1, 0.0])
def test_another_argument_is_refused(unchecked, bad):
    with pytest.raises(ValueError, match="progress=.*: expected True or False, or None"):
        progress_bar(3, show=bad)


CASES = [(None, False, False), (None, True, True), (True, False, True), (False, True, False)]


@pytest.mark.parametrize("show, watched, drawn", CASES)
@pytest.mark.parametrize("before", [True, False])
def test_the_bars_of_the_hub_follow_and_are_as_before_afterwards(monkeypatch, show, watched, drawn, before):
    hub = pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setattr(progress, "is_watched", lambda: watched)
    hub.enable_progress_bars() if before else hub.disable_progress_bars()
    try:
        with pytest.raises(OSError), download_bars(show):
            assert hub.are_progress_bars_disabled() != drawn
            raise OSError
        assert hub.are_progress_bars_disabled() != before
    finally:
        hub.enable_progress_bars()
