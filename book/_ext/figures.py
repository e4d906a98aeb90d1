"""Sphinx extension: the figures' modules travel with the book, to _static/llmlab/.

Every page loads figure.js, which mounts the figures of the page.
"""

import shutil
from pathlib import Path

STATIC = Path(__file__).resolve().parents[2] / "llmlab" / "static"


def carry(app) -> None:
    "Copy llmlab/static, without what an earlier build left there."
    target = Path(app.outdir) / "_static" / "llmlab"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(STATIC, target)


def setup(app) -> dict:
    app.connect("builder-inited", carry)
    app.add_js_file("llmlab/figure.js", type="module")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
