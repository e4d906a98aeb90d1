"The benchmarks: every contestant does the same work, and BENCHMARKS.md keeps what people wrote."

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import measure_claims
import pytest
import torch
from conftest import ROOT

ABSENT = """
import sys

class Without:
    names = "anywidget babel bertviz beartype hypothesis ipywidgets IPython matplotlib sacrebleu "
    names += "transformers xdist"

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in self.names.split()
        return None if absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""  # what a lent GPU may lack


@pytest.fixture
def bench(monkeypatch):
    "Imports one benchmark, or a tool."
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    before = {*sys.modules}
    yield importlib.import_module
    for name in {"_shared", "train_step", "one_row", "benchmarks"} - before:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_all_contestants_are_of_one_size_and_learn(bench):
    module = bench("train_step")
    for shape in [*module.CAUSAL][:1] + [*module.MASKED][:1]:
        sizes = []
        for name in (
            n for n in module.RACES[shape][2] if "compiled" not in n
        ):  # tests check types, which hinders it
            model, step = module.runner(name, shape)
            losses = [step()["loss"] for _ in range(4)]
            assert math.isfinite(losses[0]) and losses[-1] < losses[0], (shape, name)
            sizes.append(module.count_parameters(model))
        assert max(sizes) < 1.1 * min(sizes), (shape, sizes)


def test_rounds_are_interleaved_and_the_first_are_not_counted(bench):
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = bench("_shared").interleave(ways, rounds=2, warm=1)
    assert calls == list("ababab") and [len(times) for times in seconds.values()] == [2, 2]
    assert bench("_shared").ratio([2.0, 6.0, 9.0], [1.0, 2.0, 3.0]) == 3.0


def test_new_tables_leave_the_words_around_them(bench):
    result = {
        "threads": 2,
        "shapes": {"small": {"llmlab": {"tokens_per_second": 12345}}},
        "ratios": {"memory": 4.0},
    }
    page = "# Benchmarks\n\nOurs.\n\n<!-- x -->\nold\n<!-- end -->\n\nAlso ours.\n"
    new = bench("benchmarks").renewed(page, {"x": result, "gpu/y": result})
    assert new.startswith("# Benchmarks\n\nOurs.\n\n<!-- x -->\n\nThreads 2.") and "\n\nAlso ours.\n" in new
    assert "old" not in new and "| llmlab | 12,345 |" in new and "memory" in new and "## Gpu/y" in new
    assert bench("benchmarks").renewed(new, {"x": result, "gpu/y": result}) == new


def test_what_was_measured_says_where(bench):
    files = sorted((ROOT / "nbs" / "results").glob("*.json"))
    makers = {f.stem for f in (ROOT / "bench").glob("[a-z]*.py")} | set(measure_claims.MEASURES)
    assert files and {f.stem for f in files} <= makers, "a table that no bench and no tool makes"
    for file in files:
        result = json.loads(file.read_text(encoding="utf-8"))
        assert {"date", "machine", "torch"} <= set(result), file.name


def test_one_row_gives_the_same_numbers_in_every_format(bench, monkeypatch):
    monkeypatch.setenv("LLMLAB_TINY", "1")
    module = bench("one_row")
    with torch.no_grad():
        ways = module.contestants()
        wanted, *others = (way() for _, way in ways.values())
    for other, atol in zip(others, (1e-5, 1e-5, 0.1), strict=True):
        for a, b in zip(other, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=0)
    assert len({id(a) for a in wanted}) == len(wanted) and not torch.equal(others[-1][0], wanted[0])


# --- on a GPU -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_the_gpu_s_script_runs_dry_on_a_machine_that_lacks_most_packages(tmp_path):
    "Its tests and its benchmarks, in tiny sizes on the CPU; each result is JSON, or JUnit's XML."
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    where = {
        "LLMLAB_DEVICE": "cpu",
        "PYTHONPATH": str(tmp_path),
        "PATH": path,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    out = tmp_path / "out"
    script = [str(ROOT / "bench" / "gpu.sh"), str(out)]
    ran = subprocess.run(script, env=os.environ | where, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    found = {file.name for file in out.iterdir()}
    results = {"train_step", "generate", "attention", "perplexity", "bleu", "train_masked"}
    assert found == {"tests.xml", "run.txt", *(f"{name}.json" for name in results)}
    for name in results:
        result = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert result["device"] == "CPU" and result["tiny"], name
    assert "transformers is not installed on this machine" in ran.stdout
    suite = (out / "tests.xml").read_text(encoding="utf-8")
    assert 'failures="0"' in suite and 'errors="0"' in suite


def test_the_gpu_s_script_leaves_out_what_comes_too_late(tmp_path):
    where = os.environ | {"LLMLAB_DEVICE": "cpu", "LLMLAB_SECONDS": "5"}
    ran = subprocess.run(
        [str(ROOT / "bench" / "gpu.sh"), str(tmp_path)], env=where, capture_output=True, text=True
    )
    assert ran.returncode == 1 and ran.stdout.count("left out, 5 seconds are over") == 7
    assert [file.name for file in tmp_path.iterdir()] == ["run.txt"]


@pytest.mark.slow
def test_without_peers_llmlab_races_alone():
    line = (
        f"exec({ABSENT!r}); import train_step, generate, bleu; print([*train_step.CAUSAL_MODELS], bleu.BLEU)"
    )
    where = os.environ | {"LLMLAB_TINY": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "bench")])}
    ran = subprocess.run([sys.executable, "-c", line], env=where, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['llmlab', 'nanoGPT-style', 'torch.nn.TransformerEncoder'] None"
