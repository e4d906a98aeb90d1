"The book's extensions and its builder, by small cases."

import json
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import build
import chapters
import docments
import nbdev_layout
import nbformat
import pytest
import ran
import reference
import step
from conftest import ROOT
from docutils import nodes
from docutils.core import publish_doctree
from jaxtyping import Float
from torch import Tensor

import llmlab

# --- nbdev_layout: lines become tags ------------------------------------------------------------------------


def read(*sources: str) -> list:
    "The cells of a notebook with these code cells, as the book reads them."
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    return nbdev_layout.read(nbformat.writes(book)).cells


@pytest.mark.parametrize(
    "line, tag",
    [
        ("#| default_exp attention", "remove-cell"),
        ("#| hide", "remove-cell"),
        ("#|hide", "remove-cell"),
        ("#| export", "llmlab-export"),
        ("#| exporti", "llmlab-export"),
        ("#| code-fold: true", "hide-input"),
        ("#| echo: false", "remove-input"),
        ("#| output: false", "remove-output"),
        ("#| eval: false", "skip-execution"),
    ],
)
def test_a_line_becomes_a_tag_and_vanishes(line, tag):
    (cell,) = read(f"{line}\nx = 1")
    assert cell.metadata["tags"] == [tag] and cell.source == "x = 1"


def test_several_lines_become_several_tags():
    (cell,) = read("#| echo: false\n#| eval: false\n\nx = 1")
    assert cell.metadata["tags"] == ["remove-input", "skip-execution"] and cell.source == "x = 1"


@pytest.mark.parametrize(
    "source, tag",
    [
        ("import torch\nfrom torch import nn", "hide-input"),
        ("#| export\nimport torch", "remove-cell"),
        ("#| exporti\nfrom torch import nn", "remove-cell"),
        ("import torch\ntorch.manual_seed(0)", None),
        ("# a remark", None),
        ("%pip list", None),
    ],
)
def test_a_cell_that_only_imports_is_folded_or_left_out(source, tag):
    (cell,) = read(source)
    found = {"hide-input", "remove-cell"} & {*cell.metadata.get("tags", [])}
    assert found == ({tag} if tag else set())


@pytest.mark.parametrize(
    ("source", "tag"),
    [
        ('exercise("attention.window")', "remove-input"),
        ('predict("attention.fits")', "remove-input"),
        ('exercise("causal.bug_softmax").show_symptom()', "remove-input"),
        ('def f(x):\n    raise NotImplementedError\n\n\nexercise("a.b").check(f)', "remove-output"),
        ('exercise("a.b").show_hint()', None),
        ('card = exercise("a.b")', None),
    ],
)
def test_of_an_exercise_the_page_shows_the_card_and_the_stub(source, tag):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    cell = nbdev_layout.read(nbformat.writes(notebook)).cells[0]
    assert cell.metadata.get("tags", []) == ([tag] if tag else [])


def test_an_exported_cell_knows_its_module():
    cells = read("#| export\na = 0", "#| default_exp text", "#| export\nb = 1", "c = 2")
    assert [c.metadata.get("module") for c in cells] == [None, None, "text", None]


def test_a_plain_cell_stays_as_it_is():
    (cell,) = read("s = '''\n#| hide\n'''\n# a remark")
    assert cell.metadata == {} and cell.source == "s = '''\n#| hide\n'''\n# a remark"


def test_a_cell_of_lines_alone_leaves_no_empty_box():
    (cell,) = read("#| export")
    assert "remove-cell" in cell.metadata["tags"]


def test_an_unknown_line_warns(monkeypatch):
    said = []
    monkeypatch.setattr(
        nbdev_layout.LOGGER, "warning", lambda text, *values, **kind: said.append(text % values)
    )
    (cell,) = read("#| foldd: true\nx = 1")
    assert cell.source == "x = 1" and "unknown line `#| foldd: true`" in said[0]


def test_markdown_is_not_touched():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("#| hide\ntext")])
    assert nbdev_layout.read(nbformat.writes(book)).cells[0].source == "#| hide\ntext"


def test_the_label_says_where_a_cell_is_exported_to():
    document = publish_doctree("")
    shown = nodes.container(nb_element="cell_code", cell_metadata={"module": "text"})
    shown += nodes.container(nb_element="cell_code_source")
    other = nodes.container(nb_element="cell_code", cell_metadata={})
    folded = nodes.container(nb_element="cell_code", cell_metadata={"module": "text"}, hide_mode="input")
    folded += nodes.container(nb_element="cell_code_source")
    document += [shown, other, folded]
    nbdev_layout.label(None, document)
    assert shown.astext().strip() == "exported to llmlab.text" and not other.children
    assert folded.children[0]["nb_element"] == "cell_code_source", "MyST-NB folds what comes first"


# --- docments: comments become parameter lists --------------------------------------------------------------


def documented(
    x: Float[Tensor, "*b t"],  # numbers, `t` a row
    by=2.0,  # the factor
    *,
    only: int = 3,  # after the star
) -> float:  # x*by
    "Scale `x`_ by *by*."


@dataclass
class Sizes:
    "How large."

    width: int  # numbers a position
    depth: int = 4  # blocks


@dataclass
class Bare:
    width: int = 1  # numbers a position


class Plain:
    "A class with a method."

    def __init__(self, size: int):  # one line takes one comment
        self.size = size

    def method(
        self,
        y: int,  # a number
    ) -> None:
        "Do it."


def processed(obj, what="function") -> list[str]:
    "The lines that Sphinx would be given."
    lines = (obj.__doc__ or "").split("\n")
    docments.process(None, what, obj.__name__, obj, None, lines)
    return [line for line in lines if line]


def test_parameters_come_with_type_and_comment():
    assert docments.fields(documented) == [
        r""":param x: \ ``Float[Tensor, "*b t"]``\  numbers, \ ``t``\  a row""",
        ":param by: the factor",
        r":param only: \ ``int``\  after the star",
        r":returns: \ ``float``\  x\*by",
    ]


def test_fields_of_a_dataclass_are_its_parameters():
    width, depth = docments.fields(Sizes)
    assert (
        width == r":param width: \ ``int``\  numbers a position"
        and depth == r":param depth: \ ``int``\  blocks"
    )


def test_a_method_has_no_self_and_no_empty_return():
    assert docments.fields(Plain.method) == [r":param y: \ ``int``\  a number"]


def test_a_class_takes_the_parameters_of_its_constructor():
    assert docments.fields(Plain)[0].startswith(r":param size: \ ``int``\ ")


def test_the_signature_that_a_dataclass_invents_is_no_docstring():
    assert not any(line.startswith("Bare(") for line in processed(Bare, "class"))


def test_builtins_have_no_fields():
    assert docments.fields(len) == []


@pytest.mark.parametrize(
    "text",
    [
        "*b t d",
        "a|b|",
        "x_ and y__",
        "`code` here",
        "`a*b`s",
        "f([1], (1,)) -> [4]",
        r"\n",
        "2 * 3 * 4",
        "``x``",
        "`",
    ],
)
def test_docstrings_survive_restructured_text(text):
    tree = publish_doctree(docments.plain(text), settings_overrides={"report_level": 1, "halt_level": 2})
    assert tree.astext() == text.replace("``", "").replace("`code`", "code").replace("`a*b`", "a*b")


def test_a_processed_function_parses_without_a_word():
    text = "\n".join(["", *processed(documented)])
    tree = publish_doctree(text, settings_overrides={"report_level": 1, "halt_level": 2})
    assert 'Float[Tensor, "*b t"]' in tree.astext() and not list(tree.findall(nodes.system_message))


# --- build and step: nothing stale, nothing twice -----------------------------------------------------------


def test_a_changed_library_drops_every_output():
    old = {"code": "a", "book": "b", "pages": "c"}
    assert ".jupyter_cache" in build.stale(old, old | {"code": "new"})
    assert build.stale(old, old | {"book": "new"}) == [".doctrees", "html"]
    assert build.stale(old, old | {"pages": "new"}) == []
    assert ".jupyter_cache" in build.stale({}, old)


def test_after_a_failure_pages_are_read_again_but_chapters_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path)])
    status, asked = [1, 0], []
    monkeypatch.setattr(build, "execute", lambda toc, build: [])
    monkeypatch.setattr(build, "sphinx", lambda toc, out: asked.append(out) or status.pop(0))
    assert build.main() == 1
    for folder in ("html", ".doctrees", ".jupyter_cache"):
        (tmp_path / "_build" / folder).mkdir(parents=True)
    assert build.main() == 0
    assert [f.name for f in (tmp_path / "_build").iterdir() if f.is_dir()] == [".jupyter_cache"]
    assert build.main() == 0 and len(asked) == 2


def small_book(folder: Path, **sources: str) -> Path:
    "Chapters of one cell each in folder/nbs, and the contents that list them."
    (folder / "nbs" / "workshop").mkdir(parents=True)
    (folder / "book").mkdir()
    (folder / "book" / "_config.yml").write_text("execute: {timeout: 100}")
    lines = []
    for name, source in sources.items():
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
        nbformat.write(notebook, folder / "nbs" / f"{name.replace('__', '/')}.ipynb")
        lines.append(f"  - file: {name.replace('__', '/')}\n")
    (folder / "toc.yml").write_text("root: index\nparts:\n- chapters:\n" + "".join(lines))
    return folder / "toc.yml"


def test_chapters_run_once_one_thread_each_and_what_fails_is_named(tmp_path, monkeypatch, capfd):
    threads = "import os; assert os.environ['OMP_NUM_THREADS'] == '1' == os.environ['LLMLAB_BOOK']"
    empty = "#| export\nassert not __import__('os').listdir()"
    toc = small_book(tmp_path, good=threads, workshop__good=empty, bad="1/0")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert build.listed(toc) == ["good", "workshop/good", "bad"]
    assert build.execute(toc, tmp_path) == ["bad"]
    said = capfd.readouterr()
    assert said.out.startswith("3 chapters to run") and "✓" in said.out and "3 of 3" in said.out
    assert "ZeroDivisionError" in said.err
    assert build.execute(toc, tmp_path) == ["bad"]
    assert capfd.readouterr().out.startswith("1 chapters to run")
    assert set(json.loads((tmp_path / "seconds.json").read_text())) == {"good", "workshop/good", "bad"}


def test_the_longest_chapter_runs_first_and_a_new_one_before_it():
    assert build.longest_first(["a", "b", "c"], {"a": 1.0, "b": 9.0}) == ["c", "b", "a"]
    assert build.longest_first(["a", "13_recurrent"], {}) == ["13_recurrent", "a"]


def test_a_slow_machine_is_no_failure(tmp_path, monkeypatch, capfd):
    toc = small_book(tmp_path, one="1")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "SECONDS", 0)
    assert build.execute(toc, tmp_path) == []
    assert "warning: one took" in capfd.readouterr().out


def test_a_fingerprint_sees_contents_names_and_versions(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = build.fingerprint(tmp_path, ["*.py"])
    assert build.fingerprint(tmp_path, ["*.py"]) == first != build.fingerprint(tmp_path, ["*.py"], "3.13")
    (tmp_path / "a.py").write_text("2")
    changed = build.fingerprint(tmp_path, ["*.py"])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, changed, build.fingerprint(tmp_path, ["*.py"])}) == 3


def test_the_library_and_the_pages_are_watched():
    files = {f for p in build.CODE for f in ROOT.glob(p)}
    assert {ROOT / "llmlab/__init__.py", ROOT / "constraints.txt"} <= files
    assert ROOT / "nbs/index.md" in {f for p in build.PAGES for f in ROOT.glob(p)}


def test_a_step_runs_once_and_again_after_a_change(tmp_path):
    (tmp_path / "in.txt").write_text("1")
    command = ["in.txt", "--", "sh", "-c", f"echo ran >> {tmp_path}/out"]
    ran = lambda: (tmp_path / "out").read_text().count("ran")  # noqa: E731
    assert (
        step.main(["s", *command], tmp_path) == 0 and step.main(["s", *command], tmp_path) == 0 and ran() == 1
    )
    (tmp_path / "in.txt").write_text("2")
    assert step.main(["s", *command], tmp_path) == 0 and ran() == 2


def test_a_failed_step_fails_again(tmp_path):
    (tmp_path / "in.txt").write_text("1")
    assert [step.main(["s", "in.txt", "--", "false"], tmp_path) for _ in range(2)] == [1, 1]


def test_no_warning_of_the_book_is_switched_off():
    config = (ROOT / "book" / "_config.yml").read_text()
    assert "suppress_warnings" not in config


# --- ran: when, and with what -------------------------------------------------------------------------------


def test_a_page_says_its_day_and_the_versions_of_this_environment(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    found = ran.line("Ran", "llmlab 1.2.3", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert found.startswith('<p class="llmlab-ran">Ran on 1 March 2026 with llmlab 1.2.3, Python ')
    assert f"Python {platform.python_version()}, PyTorch {version('torch').split('+')[0]}, NumPy " in found


def test_equal_sources_give_equal_days(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert ran.day(datetime(2026, 3, 1, tzinfo=UTC)) == ran.day(None) == "14 November 2023"


def test_what_is_not_installed_is_not_named(monkeypatch):
    monkeypatch.setattr(ran, "NAMED", {"Nothing": "no-such-distribution"})
    assert ran.versions() == [f"Python {platform.python_version()}"]


@pytest.mark.parametrize(
    "executed, word", [({"mtime": 1700000000.0}, "Ran on 14 November 2023"), (None, "Built on ")]
)
def test_every_page_but_search_carries_the_line(monkeypatch, executed, word):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    env = SimpleNamespace(nb_metadata={"page": {"exec_data": executed} if executed else {}})
    app, context = (
        SimpleNamespace(env=env, config=SimpleNamespace(llmlab_version="1")),
        {"body": "<p>text</p>"},
    )
    ran.add(app, "page", "page.html", context, doctree=object())
    assert context["body"].startswith("<p>text</p><p") and word in context["body"]
    ran.add(app, "search", "search.html", other := {"body": ""}, doctree=None)
    assert other == {"body": ""}


# --- chapters, glossary, reference: what the pages link to --------------------------------------------------


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("see chapter 5.", ["chapter 5"]),
        ("Chapters 5 and 6 say", ["Chapters 5", "6"]),
        ("chapters 2, 3, and 10 to 12", ["chapters 2", "3", "10", "12"]),
        ("a chapter of 5 pages, subchapter 5", []),
    ],
)
def test_mentions_of_chapters_are_found(text, numbers):
    assert [text[start:end] for start, end in chapters.mentions(text)] == numbers


def test_pages_have_the_numbers_of_their_names():
    assert chapters.pages(["05_attention", "index", "workshop/checks", "29_choosing"]) == {
        5: "05_attention",
        29: "29_choosing",
    }


def test_every_public_name_has_its_place():
    found = reference.places()
    assert {*llmlab.PUBLIC} == {*found}
    page, title, heading = found["perplexity"]
    assert page == "07_metrics" and title.startswith("7. ") and heading


def test_a_docstring_has_paragraphs_and_examples():
    lines = [
        "A score in `nats`.",
        "Raises: ValueError if x*y is odd.",
        ">>> f(1)",
        "2",
        ">>> f(2)",
        "3",
        "",
        "More.",
    ]
    assert docments.paragraphs(lines) == [
        r"A score in \ ``nats``\ .",
        "",
        r"**Raises:** ValueError if x\*y is odd.",
        "",
        ">>> f(1)",
        "2",
        ">>> f(2)",
        "3",
        "",
        "More.",
    ]


def test_a_comment_beside_starred_parameters_is_theirs():
    def kept(
        x: int,  # a number
        **recipe,  # anything else
    ) -> int:
        return x

    lines = docments.fields(kept)
    assert ":param recipe: anything else" in lines and not any(
        "else" in line for line in lines if "returns" in line
    )


def test_a_comment_may_stand_above_a_parameter_or_beside_any_of_its_lines():
    # fmt: off
    def long(
        # what stands above
        first: int | None = None,
        second: int
        | None = None,  # beside its last line
        third: float | None = (
            None  # within its brackets
        ),
    ) -> int:  # what comes back
        return first
    # fmt: on

    said = " | ".join(docments.fields(long))
    for name, words in (
        ("first", "what stands above"),
        ("second", "beside its last line"),
        ("third", "within its brackets"),
    ):
        assert f":param {name}:" in said and words in said.split(f":param {name}:")[1].split(" | :")[0]
    assert said.endswith("what comes back")
