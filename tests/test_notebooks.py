"The notebooks: clean in git, with a promise on top, and at home on Colab."

import json
import re
import sys
import types

import colab_line
import pytest
from conftest import ROOT

NOTEBOOKS = {f.relative_to(ROOT / "nbs").with_suffix("").as_posix(): f for f in colab_line.notebooks()}
LESSONS = {name: f for name, f in NOTEBOOKS.items() if name[0].isdigit()}  # the rest is workshop
COLAB = colab_line.cell(colab_line.settings())


# --- taking notebooks apart ---------------------------------------------------------------------------------


def cells(path, kind: str) -> list[str]:
    "The sources of a notebook's cells of one kind."
    return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def directives(cell: str) -> set[str]:
    "What the `#|` lines of a code cell say."
    return {line.strip()[2:].strip() for line in cell.split("\n") if line.strip().startswith("#|")}


def body(cell: str) -> str:
    return "\n".join(line for line in cell.split("\n") if not line.strip().startswith("#|")).strip("\n")


def exported(cell: str) -> bool:
    return bool({"export", "exports", "exporti"} & directives(cell))


def words(cell: str) -> int:
    "Words of prose: no table, display formula, code block, heading, address or markup."
    cell = re.sub(r"```.*?```|\$\$.*?\$\$|\\begin\{.*?\\end\{\w+\*?\}|<[^>]+>", " ", cell, flags=re.S)
    kept = [line for line in cell.split("\n") if not re.match(r"\s*(\||#|:::)", line)]
    text = re.sub(r"\]\([^)]*\)", "]", "\n".join(kept))
    return sum(bool(re.search(r"\w", word)) for word in text.split())


each = pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
lesson = pytest.mark.parametrize("path", LESSONS.values(), ids=LESSONS)


# --- clean --------------------------------------------------------------------------------------------------


@each
def test_committed_without_outputs_and_metadata(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert cell["metadata"] == {}, "no tags: a `#|` line says it"
        assert not cell.get("outputs") and cell.get("execution_count") is None, "run nbdev_clean"


@each
def test_names_its_kernel(path):
    "Without it Jupyter asks the reader for a kernel, and nbconvert refuses."
    assert json.loads(path.read_text())["metadata"].get("kernelspec", {}).get("name") == "python3"


@each
def test_the_first_code_cell_is_the_colab_line(path):
    assert cells(path, "code")[0] == COLAB


@each
def test_opens_with_a_promise_and_its_costs(path):
    first, second, *_ = cells(path, "markdown")
    assert re.match(r"# \S", first) and len(re.findall(r"^#", first, re.M)) == 1 and words(first) > 3
    assert second.startswith("**Costs**") and "**You will be able to**" in second
    assert "**You need**" in second


@pytest.mark.parametrize("page", ["README.md", "nbs/index.md"])
def test_a_list_of_chapters_has_their_numbers_and_titles(page):
    "Number and title are the same in the file's name, on the page and in the lists."
    rows = re.findall(r"\[([^]]+)\]\((?:nbs/)?(\d\d)_(\w+)\.ipynb\) \|", (ROOT / page).read_text())
    assert {f"{number}_{stem}" for _, number, stem in rows} == {*LESSONS}
    for title, number, stem in rows:
        head = next(c for c in cells(LESSONS[f"{number}_{stem}"], "markdown") if c.startswith("# "))
        assert head.split("\n")[0] == f"# {title}" and title.startswith(f"{int(number)}. ")


@each
def test_run_all_stops_nowhere(path):
    "A line that needs the hub stands in a Markdown code block: Jupyter knows nothing of `eval: false`."
    assert not any("#| eval: false" in c for c in cells(path, "code"))


# --- what a notebook says -----------------------------------------------------------------------------------


@each
def test_exported_cells_keep_their_annotations(path):
    assert not [c for c in cells(path, "code") if exported(c) and "from __future__ import annotations" in c]


@each
def test_a_notebook_imports_only_modules_that_exist(path):
    "The book would find it too, but minutes later."
    code = "\n".join(cells(path, "code"))
    named = set(re.findall(r"^\s*(?:from|import) (llmlab(?:\.\w+)*)", code, re.M))
    places = {name: ROOT.joinpath(*name.split(".")) for name in named}
    lost = [
        name for name, place in places.items() if not place.is_dir() and not place.with_suffix(".py").exists()
    ]
    assert not lost, f"there is no {', '.join(lost)}"


@lesson
def test_a_lesson_asks_shows_and_lets_try(path):
    code = "\n".join(cells(path, "code"))
    assert re.search(r"\bpredict\(", code), "ask the reader for a guess: predict(…)"
    assert re.search(r"\bexercise\(", code), "at least one exercise"
    assert re.search(r"\b\w+_view\(", code), "at least one figure that answers to the reader"
    assert re.search(r"^#+ What changed", "\n".join(cells(path, "markdown")), re.M), "end with what changed"


# --- Colab --------------------------------------------------------------------------------------------------


@pytest.fixture
def on_colab(monkeypatch):
    "Run the cell as Colab would, with a pip that answers `status` -> what pip was asked for."

    def run(colab: bool, installed: bool, status: int = 0) -> list[str]:
        asked = []
        answer = types.SimpleNamespace(returncode=status, stdout="", stderr="ERROR: no network")
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: types if installed else None)
        monkeypatch.setattr("subprocess.run", lambda command, **options: asked.append(command[-1]) or answer)
        exec(COLAB, {})
        return asked

    return run


@pytest.mark.parametrize(
    "colab, installed, asked",
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_the_colab_line_installs_only_there_and_only_if_absent(on_colab, colab, installed, asked):
    assert on_colab(colab, installed) == ([colab_line.requirement(colab_line.settings())] if asked else [])


def test_a_failed_installation_stops_the_cell_and_says_what_to_do(on_colab, capsys):
    with pytest.raises(
        RuntimeError, match=r"^The course could not be installed: run this cell again, .*/issues$"
    ):
        on_colab(True, False, status=1)
    assert "no network" in capsys.readouterr().out


def test_what_colab_installs_follows_from_the_settings():
    cfg = {"lib_name": "some-course", "version": "1.2.3", "git_url": "https://example.org/some/course"}
    tag = "some-course[colab] @ git+https://example.org/some/course@v1.2.3"
    assert colab_line.requirement(cfg | {"released": "no"}) == tag
    assert colab_line.requirement(cfg | {"released": "yes"}) == "some-course[colab]==1.2.3"
    assert f'COURSE = "{tag}"' in colab_line.cell(cfg | {"released": "no"})


def test_the_line_is_renewed_and_nothing_else(tmp_path):
    path = tmp_path / "x.ipynb"
    first = {"cell_type": "code", "source": ['"google.colab"; old']}
    book = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title"]},
            first,
            {"cell_type": "code", "source": ["1"]},
        ]
    }
    path.write_text(json.dumps(book))
    assert colab_line.update(path, COLAB) and not colab_line.update(path, COLAB)
    assert cells(path, "code") == [COLAB, "1"] and cells(path, "markdown") == ["# Title"]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["x = 1"]}]}))
    with pytest.raises(ValueError, match="is not the Colab cell"):
        colab_line.update(path, COLAB)


# --- the measures themselves --------------------------------------------------------------------------------


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


def test_kinds_of_cells_are_told_apart():
    assert exported("#| export\nx = 1") and not exported("x = 1") and body("#| hide\nx = 1") == "x = 1"


# --- the names of others ------------------------------------------------------------------------------------


def test_the_table_of_settings_has_the_names_of_transformers():
    "In the page on notation: our field exists, and so does the attribute of each family's configuration."
    transformers = pytest.importorskip("transformers")
    from llmlab import Config

    table = next(c for c in cells(NOTEBOOKS["notation"], "markdown") if "## Settings of a model" in c)
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|", table, re.M)
    rows = rows[1:]  # without the heads of the columns
    assert len(rows) > 10
    for field, *names in rows:
        assert field in Config.__dataclass_fields__
        for family, name in zip(("Mistral", "GPT2", "Bert"), names, strict=True):
            config = getattr(transformers, f"{family}Config")()
            assert name == "–" or hasattr(config, name.strip("`")), f"{family}: {name}"
