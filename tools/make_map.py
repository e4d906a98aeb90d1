"""MAP.md: the rooms of the library, what is in each module and what it imports: `make export` writes it.

Read from the notebooks (title and first sentence) and the modules' own imports, so it is never out of date.
"""

import ast
import json
import re
from pathlib import Path

import colab_line

ROOT = colab_line.ROOT
ROOMS = {
    "": "The way the data goes: text, tokens, models, losses, training, generation, judgement",
    "tasks": "What the lessons on applications define",
    "figures": "What draws; imports nothing of ours but checks, explore excepted",
    "course": "Exercises and the command `llmlab`",
}


def exporting(root: Path) -> dict[str, Path]:
    "{module: the notebook that exports it}."
    found = {}
    for path in colab_line.notebooks(root):
        source = path.read_text(encoding="utf-8")
        if module := re.search(r'"#\| default_exp ([\w.]+)', source):
            found[module[1]] = path
    return found


def head(path: Path) -> tuple[str, str]:
    "Title and first sentence of a notebook."
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and text.startswith("# "):
            title, _, rest = text[2:].partition("\n")
            sentence = re.split(r"(?<=[.!?]) ", " ".join(rest.split()))[0]
            return title, re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", sentence)
    raise ValueError(f"{path} has no title: its first Markdown cell begins with '# '")


def imported(file: Path) -> list[str]:
    "The modules of ours that a module imports, by their stems."
    names = {
        node.module or ""
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    return sorted(name.split(".")[-1] for name in names if name.startswith("llmlab."))


def drawn(root: Path) -> str:
    "The text of MAP.md."
    books, rooms = exporting(root), {}
    for module in books:
        rooms.setdefault(module.rpartition(".")[0], []).append(module)
    text = [
        "# The rooms of llmlab",
        "",
        "Made by `make export` from the notebooks. `tests/test_order.py` holds the order of imports.",
    ]
    for room, what in ROOMS.items():
        text += ["", f"## llmlab{'/' + room if room else ''}", "", f"{what}.", ""]
        text += ["| module | notebook | what it is for | imports |", "|---|---|---|---|"]
        for module in rooms[room]:
            title, sentence = head(books[module])
            file = root / "llmlab" / f"{module.replace('.', '/')}.py"
            page = books[module].relative_to(root).as_posix()
            names = ", ".join(imported(file)) or "–"
            text.append(f"| `{module.split('.')[-1]}` | [{title}]({page}) | {sentence} | {names} |")
    return "\n".join(text) + "\n"
