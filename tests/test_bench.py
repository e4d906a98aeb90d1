"The benchmarks: every contestant does the same work, and BENCHMARKS.md keeps what people wrote."
import importlib
import json
import math
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def bench(monkeypatch):
    "Imports one benchmark, or a tool."
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    before = {*sys.modules}
    yield importlib.import_module
    for name in {"_shared", "train_step", "benchmarks"} - before:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_all_contestants_are_of_one_size_and_learn(bench):
    module = bench("train_step")
    for shape in [*module.CAUSAL][:1] + [*module.MASKED][:1]:
        sizes = []
        for name in (n for n in module.RACES[shape][2] if "compiled" not in n):  # tests check types, which hinders it
            model, step = module.runner(name, shape)
            losses = [step()["loss"] for _ in range(4)]
            assert math.isfinite(losses[0]) and losses[-1] < losses[0], (shape, name)
            sizes.append(module.n_params(model))
        assert max(sizes) < 1.1 * min(sizes), (shape, sizes)


def test_rounds_are_interleaved_and_the_first_are_not_counted(bench):
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = bench("_shared").interleave(ways, rounds=2, warm=1)
    assert calls == list("ababab") and [len(times) for times in seconds.values()] == [2, 2]
    assert bench("_shared").ratio([2.0, 6.0, 9.0], [1.0, 2.0, 3.0]) == 3.0


def test_new_tables_leave_the_words_around_them(bench):
    result = {"threads": 2, "shapes": {"small": {"llmlab": {"tokens_per_second": 12345}}}, "ratios": {"memory": 4.0}}
    page = "# Benchmarks\n\nOurs.\n\n<!-- x -->\nold\n<!-- end -->\n\nAlso ours.\n"
    new = bench("benchmarks").renewed(page, {"x": result, "gpu/y": result})
    assert new.startswith("# Benchmarks\n\nOurs.\n\n<!-- x -->\n\nThreads 2.") and "\n\nAlso ours.\n" in new
    assert "old" not in new and "| llmlab | 12,345 |" in new and "memory" in new and "## Gpu/y" in new
    assert bench("benchmarks").renewed(new, {"x": result, "gpu/y": result}) == new


def test_what_was_measured_says_where(bench):
    files = sorted((ROOT / "nbs" / "results").glob("*.json"))
    assert files and {f"{f.stem}.py" for f in files} <= {f.name for f in (ROOT / "bench").glob("[a-z]*.py")}
    for file in files:
        result = json.loads(file.read_text(encoding="utf-8"))
        assert {"date", "machine", "torch"} <= set(result), file.name
