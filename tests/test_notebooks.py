"The chapters: clean in git, within the budgets of the style guide, and at home on Colab."
import ast
import io
import json
import math
import re
import statistics
import sys
import tokenize
import types

import pytest
from conftest import ROOT

NOTEBOOKS = {f.stem: f for f in sorted((ROOT / "nbs").glob("*.ipynb"))}
LESSONS = {name: f for name, f in NOTEBOOKS.items() if name < "90"}  # the rest is appendix
SOURCES = sorted((ROOT / "llmlab").glob("[!_]*.py"))
COLAB = """#| hide
import importlib.util, sys; "google.colab" in sys.modules and not importlib.util.find_spec("llmlab") and get_ipython().run_line_magic("pip", "install -q llmlab[course]");"""  # noqa: E501


# --- taking notebooks apart -------------------------------------------------------------------------------------------


def cells(path, kind: str) -> list[str]:
    "The sources of a notebook's cells of one kind."
    return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def directives(cell: str) -> set[str]:
    "What the `#|` lines of a code cell say."
    return {line.strip()[2:].strip() for line in cell.split("\n") if line.strip().startswith("#|")}


def body(cell: str) -> str:
    return "\n".join(line for line in cell.split("\n") if not line.strip().startswith("#|")).strip("\n")


def lines(cell: str) -> int:
    "Lines of code: neither empty nor `#|`."
    return sum(bool(line.strip()) for line in body(cell).split("\n"))


def exported(cell: str) -> bool:
    return bool({"export", "exports", "exporti"} & directives(cell))


def demo(cell: str) -> bool:
    "Code that the reader sees and that goes to no module."
    unseen = {"hide", "code-fold: true", "echo: false"}
    aside = any(d in unseen or d.startswith("default_exp") for d in directives(cell))
    return bool(body(cell).strip()) and not exported(cell) and not aside


def parsed(cell: str) -> ast.Module:
    "A cell's syntax tree, its magics turned into Python as IPython does."
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(body(cell)))


def checks_or_shows(cell: str) -> bool:
    "Whether a cell asserts something, or ends in a value that is not printed."
    tree = parsed(cell)
    if any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        return True
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or body(cell).rstrip().endswith(";"):
        return False
    return not (isinstance(last.value, ast.Call) and getattr(last.value.func, "id", "") == "print")


def comments(cell: str) -> list[str]:
    "The comments in a cell."
    reader = io.StringIO(body(cell)).readline
    return [t.string for t in tokenize.generate_tokens(reader) if t.type == tokenize.COMMENT]


def words(cell: str) -> int:
    "Words of prose: no table, display formula, code block, heading, address or markup."
    cell = re.sub(r"```.*?```|\$\$.*?\$\$|\\begin\{.*?\\end\{\w+\*?\}|<[^>]+>", " ", cell, flags=re.S)
    kept = [line for line in cell.split("\n") if not re.match(r"\s*(\||#|:::)", line)]
    text = re.sub(r"\]\([^)]*\)", "]", "\n".join(kept))
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def functions(source: str) -> dict[str, tuple[int, int]]:
    "Each function's lines and parameters (neither self nor cls)."
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs] if x.arg not in ("self", "cls")]
            names += [x.arg for x in (a.vararg, a.kwarg) if x]
            found[f"{node.name}:{node.lineno}"] = (node.end_lineno - node.lineno + 1, len(names))
    return found


def allowed(n: int) -> int:
    "How many of n may exceed the limit that 90 % keep."
    return math.ceil(n / 10)


each = pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
lesson = pytest.mark.parametrize("path", LESSONS.values(), ids=LESSONS)
module = pytest.mark.parametrize("path", SOURCES, ids=[f.stem for f in SOURCES])


# --- clean ------------------------------------------------------------------------------------------------------------


@each
def test_committed_without_outputs_and_metadata(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert cell["metadata"] == {}, "no tags: a `#|` line says it"
        assert not cell.get("outputs") and cell.get("execution_count") is None, "run nbdev_clean"


@each
def test_at_most_100_kilobytes(path):
    assert path.stat().st_size <= 100_000


@each
def test_the_first_code_cell_is_the_colab_line(path):
    assert cells(path, "code")[0] == COLAB


@each
def test_opens_with_a_promise_and_its_costs(path):
    first, second, *_ = cells(path, "markdown")
    assert re.match(r"# \S", first) and len(re.findall(r"^#", first, re.M)) == 1 and words(first) > 3
    assert second.startswith("**Costs**") and "**You will be able to**" in second
    assert "**You need**" in second


@each
def test_run_all_stops_nowhere(path):
    "A line that needs the hub stands in a Markdown code block: Jupyter and Colab know nothing of `eval: false`."
    assert not any("#| eval: false" in c for c in cells(path, "code"))


# --- budgets ----------------------------------------------------------------------------------------------------------


@each
def test_exported_cells_are_short(path):
    sizes = [lines(c) for c in cells(path, "code") if exported(c)]
    if sizes:
        assert statistics.median(sizes) <= 8, sorted(sizes)
        assert sum(n > 20 for n in sizes) <= allowed(len(sizes)), sorted(sizes)
        assert max(sizes) <= 40, sorted(sizes)


@each
def test_demo_cells_are_shorter(path):
    sizes = [lines(c) for c in cells(path, "code") if demo(c)]
    assert not sizes or statistics.median(sizes) <= 3, sorted(sizes)


@each
def test_half_of_the_demo_cells_check_or_show_something(path):
    shown = [c for c in cells(path, "code") if demo(c)]
    silent = [c for c in shown if not checks_or_shows(c)]
    assert 2 * len(silent) <= len(shown), silent


@each
def test_no_comment_in_a_demo_cell(path):
    found = [(c, comments(c)) for c in cells(path, "code") if demo(c) and not c.lstrip().startswith("%%")]
    assert not [pair for pair in found if pair[1]], "split the cell, and put the words into Markdown"


@each
def test_prose_cells_have_at_most_80_words(path):
    counts = {c[:60]: words(c) for c in cells(path, "markdown")}
    assert not {start: n for start, n in counts.items() if n > 80}


@each
def test_exported_cells_keep_their_annotations(path):
    assert not [c for c in cells(path, "code") if exported(c) and "from __future__ import annotations" in c]


@lesson
def test_a_lesson_asks_shows_and_lets_try(path):
    code = "\n".join(cells(path, "code"))
    assert re.search(r"\bpredict\(", code), "ask the reader for a guess: predict(…)"
    assert re.search(r"\bExercise\(", code), "at least one exercise"
    assert re.search(r"\b\w+_view\(", code), "at least one figure that answers to the reader"
    assert re.search(r"^#+ What changed", "\n".join(cells(path, "markdown")), re.M), "end with what changed"


@lesson
def test_a_prediction_hides_its_answer(path):
    "The code of `predict(…)` names the answer; the page shows the question alone."
    asked = [c for c in cells(path, "code") if re.search(r"^predict\(", c, re.M)]
    assert asked and all("echo: false" in directives(c) for c in asked)


@module
def test_a_module_has_at_most_250_lines(path):
    text = [line for line in path.read_text().split("\n") if line.strip() and not line.startswith("# %% ")]
    assert len(text) <= 250


@module
def test_functions_are_short_and_take_few_parameters(path):
    found = functions(path.read_text())
    assert len([f for f, (n, _) in found.items() if n > 30]) <= allowed(len(found)), found
    assert not {f: n for f, (n, _) in found.items() if n > 60}
    assert not {f: n for f, (_, n) in found.items() if n > 6}


# --- Colab ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "colab, installed, asked", [(True, False, True), (True, True, False), (False, False, False), (False, True, False)]
)
def test_the_colab_line_installs_only_there_and_only_if_absent(monkeypatch, colab, installed, asked):
    ran = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, line: ran.append((name, line)))
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: types if installed else None)
    exec(COLAB, {"get_ipython": lambda: shell})
    assert ran == ([("pip", "install -q llmlab[course]")] if asked else [])


# --- the measures themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, n",
    [
        ("one two three", 3),
        ("# A heading\none", 1),
        ("| a | b |\n|---|---|\n| c | d |\nfour words stand here", 4),
        ("before $$x + y$$ after", 2),
        ("see [the page](https://example.org/a b) now", 4),
        ("a, b — c", 3),
        ("```python\nx = 1\n```\nend", 1),
        (":::{note}\nbe kind\n:::", 2),
    ],
)
def test_words_counts_prose(cell, n):
    assert words(cell) == n


@pytest.mark.parametrize(
    "cell, good",
    [
        ("x = 1\nx", True),
        ("x = 1\nassert x", True),
        ("for i in range(3):\n    assert i < 3", True),
        ("x = 1", False),
        ("print(1)", False),
        ("plot(1);", False),
        ("%pip list\nx = 1", False),
        ("x.check(f)", True),
    ],
)
def test_a_shown_value_is_recognised(cell, good):
    assert checks_or_shows(cell) == good


def test_kinds_of_cells_are_told_apart():
    assert exported("#| export\nx = 1") and not demo("#| export\nx = 1")
    assert demo("x = 1") and demo("#| eval: false\nx = 1")
    assert not any(map(demo, ["#| hide\nx", "#| code-fold: true\nx", "#| echo: false\nx", "#| default_exp a", ""]))
    assert lines("#| export\n\nx = 1\n\n\ny = 2") == 2 and comments("x = 1  # why") == ["# why"]


def test_functions_are_measured():
    source = "class A:\n    def f(self, a, *, b, **c):\n        return a\n"
    assert functions(source) == {"f:2": (2, 3)}
    assert [allowed(n) for n in (0, 1, 10, 11, 20)] == [0, 1, 1, 2, 2]
