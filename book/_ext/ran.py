"""Sphinx extension: each page says when and with which versions its cells ran.

The versions are those of the environment that builds the book: build.py runs every chapter again when they
change.
The day is that of the run which jupyter-cache keeps; with SOURCE_DATE_EPOCH it is that day, so that equal
sources give
equal pages.
"""

import os
import platform
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version

NAMED = {  # what a reader would ask for -> the distribution
    "PyTorch": "torch",
    "NumPy": "numpy",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
    "Keras": "keras",
    "anywidget": "anywidget",
    "ipywidgets": "ipywidgets",
}


def versions() -> list[str]:
    "Python and the packages of this environment, each with its version."
    found = [f"Python {platform.python_version()}"]
    for name, distribution in NAMED.items():
        try:
            found.append(f"{name} {version(distribution).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return found


def day(ran: datetime | None) -> str:
    "The day of a run, or SOURCE_DATE_EPOCH's; today where there was none."
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else ran or datetime.now(UTC)
    return f"{moment.day} {moment:%B %Y}"


def line(what: str, library: str, ran: datetime | None) -> str:
    "The line under a page."
    words = ", ".join([library, *versions()])
    return f'<p class="llmlab-ran">{what} on {day(ran)} with {escape(words)}.</p>'


def add(app, page: str, template: str, context: dict, doctree) -> None:
    "Put the line under what the page says."
    if doctree is None or "body" not in context:  # search and the index of names ran nothing
        return
    executed = getattr(app.env, "nb_metadata", {}).get(page, {}).get("exec_data")
    ran = datetime.fromtimestamp(executed["mtime"], UTC) if executed else None
    context["body"] += line("Ran" if executed else "Built", f"llmlab {app.config.llmlab_version}", ran)


def setup(app) -> dict:
    import llmlab

    app.add_config_value("llmlab_version", llmlab.__version__, "html")
    app.connect("html-page-context", add)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
