"""Sphinx extension: nbdev's `#|` lines become layout, so that no page shows one.

`read` is the reader of .ipynb files (see `nb_custom_formats`). It strips the lines and sets the tags that
MyST-NB
knows; `label` writes above an exported cell where it was exported to.
"""

import ast
import re

import nbformat
from docutils import nodes
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
TAGS = {  # a line of nbdev or Quarto -> the tag of MyST-NB
    "default_exp": "remove-cell",
    "hide": "remove-cell",
    "export": "llmlab-export",
    "exports": "llmlab-export",
    "exporti": "llmlab-export",
    "code-fold: true": "hide-input",
    "echo: false": "remove-input",
    "output: false": "remove-output",
    "eval: false": "skip-execution",
}
SILENT = {"notest"}  # understood, but without effect on the page
CARD = re.compile(
    r"""(predict|judge|quiz|exercise)\("[\w.]+"\)(\.show_symptom\(\))?"""
)  # the page shows the card alone
STUB = re.compile(
    r"""exercise\("[\w.]+"\)\.check\(\w+\)\Z""", re.M
)  # it says only that nothing is written yet


def directives(source: str) -> tuple[list[str], str]:
    "Split a cell into its leading `#|` lines, without the sign, and the rest."
    lines = source.split("\n")
    n = next((i for i, line in enumerate(lines) if not line.lstrip().startswith("#|")), len(lines))
    return [line.lstrip()[2:].strip() for line in lines[:n]], "\n".join(lines[n:]).lstrip("\n")


def tag(line: str) -> str | None:
    "The tag for one directive; None where it means nothing for the page."
    found = TAGS.get(line) or TAGS.get(line.split()[0] if line else "")
    if found is None and line not in SILENT:
        LOGGER.warning(
            "unknown line `#| %s`: known are %s", line, ", ".join([*TAGS, *SILENT]), type="nbdev_layout"
        )
    return found


def only_imports(source: str) -> bool:
    "Whether a cell does nothing but import: a page folds it, and leaves it out where it serves the module."
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic
        return False
    return bool(statements) and all(isinstance(node, ast.Import | ast.ImportFrom) for node in statements)


def read(text: str) -> nbformat.NotebookNode:
    "Read a notebook, its `#|` lines turned into tags."
    notebook, module = nbformat.reads(text, as_version=4), None
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        lines, cell.source = directives(cell.source)
        module = next((line.split()[1] for line in lines if line.startswith("default_exp ")), module)
        tags = [t for t in map(tag, lines) if t]
        if not cell.source.strip() and "remove-cell" not in tags:
            tags.append("remove-cell")
        if not {"remove-cell", "remove-input", "hide-input"} & {*tags} and only_imports(cell.source):
            tags.append("remove-cell" if "llmlab-export" in tags else "hide-input")
        if CARD.fullmatch(cell.source.strip()):
            tags.append("remove-input")
        elif STUB.search(cell.source.strip()):
            tags.append("remove-output")
        if tags:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), *tags]
        if "llmlab-export" in tags and module:
            cell.metadata["module"] = module
    return notebook


def label(app, document: nodes.document) -> None:
    "Say above each exported cell which module it belongs to."
    for cell in document.findall(nodes.container):
        module = cell.get("cell_metadata", {}).get("module")
        folded = cell.get("hide_mode")  # MyST-NB folds a cell only if its source comes first
        if cell.get("nb_element") == "cell_code" and module and cell.children and not folded:
            note = nodes.paragraph(classes=["llmlab-exported"])
            note += nodes.Text("exported to ")
            note += nodes.literal("", f"llmlab.{module}")
            cell.insert(0, note)


def setup(app) -> dict:
    app.connect("doctree-read", label)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
