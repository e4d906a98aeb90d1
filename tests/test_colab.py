"Colab's image: what llmlab installs there leaves every version as it is, and chapters find what they import."

import ast
import subprocess
import sys
from importlib.metadata import requires

import check_colab
import colab_line
import pytest
import resolve
from conftest import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGE = resolve.listed(resolve.COLAB.read_text(encoding="utf-8"))
THERE = default_environment() | {
    "python_version": resolve.image_python().rpartition(".")[0],
    "python_full_version": resolve.image_python(),
    "sys_platform": "linux",
    "platform_system": "Linux",
    "extra": "",
}


def requirement_names(*entries: str) -> set[str]:
    "Normalized names of the requirements in some entries of settings.ini."
    return {canonicalize_name(Requirement(line).name) for line in resolve.wanted(entries)}


def refused(requirements: list[str], image: dict[str, str]) -> list[str]:
    "Requirements that a version of the image does not meet."
    found = [r for r in map(Requirement, requirements) if not r.marker or r.marker.evaluate(THERE)]
    held = [(r, image.get(canonicalize_name(r.name))) for r in found]
    return [f"{r}: the image has {version}" for r, version in held if version and version not in r.specifier]


def brought() -> dict[str, list[str]]:
    "The packages that installing adds to the image, each with what it asks for, by what is installed here."
    new, todo = {}, requirement_names(*resolve.ON_COLAB)
    while todo:
        name = todo.pop()
        if name not in IMAGE and name not in new:
            asked = [
                r for r in map(Requirement, requires(name) or []) if not r.marker or r.marker.evaluate(THERE)
            ]
            new[name] = [str(r) for r in asked]
            todo |= {canonicalize_name(r.name) for r in asked}
    return new


# --- versions, without a network ----------------------------------------------------------------------------


def test_the_image_meets_every_bound_of_ours():
    assert not refused(resolve.wanted(("requirements", "course_requirements", "colab_requirements")), IMAGE)


def test_the_image_meets_every_bound_of_what_we_bring():
    new = brought()
    assert {"bertviz", "jaxtyping", "sacrebleu"} <= set(new)
    assert not [fault for asked in new.values() for fault in refused(asked, IMAGE)]


def test_the_extra_brings_only_what_the_image_lacks():
    assert not requirement_names("colab_requirements") & set(IMAGE)


def test_a_bound_that_the_image_does_not_meet_is_found():
    assert refused(["ipywidgets>=8.1"], IMAGE) == ["ipywidgets>=8.1: the image has 7.7.1"]
    assert not refused(
        ['ipywidgets>=8.1; python_version < "3.12"', "ipywidgets>=7.7.1", "jupyterlab>=4"], IMAGE
    )


def test_chapters_import_only_what_is_there():
    "Colab replaces jupyterlab, the front end; all else that the course installs a chapter may import."
    there = set(IMAGE) | set(brought())
    assert requirement_names("course_requirements") - there == {"jupyterlab"}
    for path in colab_line.notebooks():
        assert "jupyterlab" not in imported(path), f"{path.name} imports what Colab does not have"


def imported(path) -> set[str]:
    "The top names of all that a notebook imports."
    import nbformat

    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = set()
    for cell in code:
        nodes = ast.walk(
            ast.parse("\n".join(line for line in cell.split("\n") if not line.startswith(("%", "!"))))
        )
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


# --- versions, by the resolver ------------------------------------------------------------------------------


def answer(ask):
    "What the resolver says; skipped where it or the registry is not to be had."
    try:
        return ask()
    except (FileNotFoundError, resolve.Unreachable) as reason:
        pytest.skip(str(reason))


@pytest.mark.long
@pytest.mark.slow
def test_installing_changes_no_version_of_the_image():
    found = answer(resolve.on_colab)
    changed = {name: version for name, version in found.items() if IMAGE.get(name, version) != version}
    assert not changed and {"bertviz", "torch", "ipywidgets"} <= set(found)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("python", [resolve.PYTHONS[0], resolve.PYTHONS[-1]])
def test_the_tested_versions_go_together(python):
    "Debian 12 has Python 3.11.2: pins that need a later one carry a marker."
    pins = ROOT / "constraints.txt"
    assert len(answer(lambda: resolve.resolve(resolve.wanted(resolve.EVERY), python, pins))) > 200


SMOKE = "05", "16", "explore"  # figures, transformers in the image's version, widgets of Colab's ipywidgets


@pytest.mark.long
@pytest.mark.slow
def test_the_notebooks_line_installs_and_some_chapters_run_with_the_image_s_versions():
    "A small `make colab`, in this Python and with the PyTorch at hand; the whole one runs every week."
    pins = ROOT / "constraints.txt"
    answer(lambda: resolve.resolve(["pip"], resolve.PYTHONS[-1], pins))  # is there a registry?
    command = [sys.executable, str(ROOT / "tools" / "check_colab.py"), "--python", sys.executable, *SMOKE]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.stdout.count(".ipynb ") == len(SMOKE)


# --- the list itself ----------------------------------------------------------------------------------------


def test_a_list_is_read_by_normalized_names_without_builds():
    lines = (
        "# a comment",
        "Torch==2.11.0+cu128",
        "ml_dtypes==0.6.0 # why",
        "x @ file:///x",
        "h5py==3.14.0; sys_platform != 'x'",
    )
    assert resolve.listed("\n".join(lines)) == {"torch": "2.11.0", "ml-dtypes": "0.6.0", "h5py": "3.14.0"}


def test_the_list_holds_what_matters_and_little_more():
    assert (
        IMAGE["ipywidgets"] == "7.7.1" and IMAGE["torch"] == "2.11.0" and resolve.image_python() == "3.13.15"
    )
    assert not {"bertviz", "jaxtyping", "sacrebleu", "jupyterlab"} & set(IMAGE) and len(IMAGE) < 250


# --- make colab ---------------------------------------------------------------------------------------------


def test_a_changed_version_is_a_fault_and_an_added_one_is_not():
    before = {"numpy": "2.1.3", "keras": "3.13.2", "babel": "2.18.0"}
    after = {"numpy": "2.4.6", "babel": "2.18.0", "bertviz": "1.4.1"}
    assert check_colab.changed(before, after) == ["keras 3.13.2 → gone", "numpy 2.1.3 → 2.4.6"]


def test_a_widget_without_a_manager_is_a_fault_unless_it_is_colabs_own():
    "Colab draws ipywidgets by itself; a figure of ours needs the custom widget manager, in a box, too."
    states = {
        "figure": {"model_module": "anywidget", "state": {}},
        "bar": {"model_module": "@jupyter-widgets/controls", "state": {"layout": "IPY_MODEL_layout"}},
        "layout": {"model_module": "@jupyter-widgets/base", "state": {}},
        "box": {
            "model_module": "@jupyter-widgets/controls",
            "state": {"children": ["IPY_MODEL_bar", "IPY_MODEL_figure"]},
        },
    }
    manager = {check_colab.WIDGET: {"colab": {"custom_widget_manager": {"url": "https://x.example/m.js"}}}}

    def faults(model: str, metadata: dict) -> int:
        output = {"data": {check_colab.WIDGET: {"model_id": model}}, "metadata": metadata}
        held = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": states}}}
        cells = [{"source": "# no outputs"}, {"outputs": [output, {"data": {"text/plain": "x"}}]}]
        return check_colab.undrawn({"cells": cells, "metadata": held})

    assert [faults(model, {}) for model in ("figure", "box", "bar")] == [1, 1, 0]
    assert [faults(model, manager) for model in ("figure", "box", "bar")] == [0, 0, 0]


def test_a_pin_without_a_wheel_is_named():
    said = "ERROR: Could not find a version\nERROR: No matching distribution found for Argon2_cffi==25.1.0"
    assert check_colab.without_wheel(said, {"argon2-cffi": "25.1.0"}) == "argon2-cffi"
    assert check_colab.without_wheel(said, {}) is None and check_colab.without_wheel("no network", {}) is None


@pytest.mark.parametrize(
    "index, asked, torch",
    [("", None, None), ("https://download.pytorch.org/whl/cpu", None, "2.11.0"), ("", "2.6.0", "2.6.0")],
)
def test_pytorch_is_the_images_where_a_cpu_build_can_be_had(monkeypatch, index, asked, torch):
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index)
    tested = resolve.listed((ROOT / "constraints.txt").read_text(encoding="utf-8"))["torch"]
    found = check_colab.pins(asked)
    assert found["torch"] == (torch or tested) and "tensorflow" not in found
