"What runs on GitHub: actions pinned by hash, no more permission than needed, nothing published untested."

import re

import pytest
import yaml
from conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
FLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
pytestmark = pytest.mark.skipif(not FILES, reason="a source archive holds no .github")
each = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def jobs(path) -> dict[str, dict]:
    "The jobs of one workflow, by name."
    return FLOWS[path.stem]["jobs"]


@each
def test_every_action_is_pinned_by_a_hash_and_says_its_version(path):
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    pinned = r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\$/\.github/workflows/\w+\.yml"
    assert used and not [line for line in used if not re.fullmatch(pinned, line)]


def test_one_action_has_one_version():
    used = {line for path in FILES for line in re.findall(r"uses: (.*@.*)", path.read_text(encoding="utf-8"))}
    assert len({line.split("@")[0] for line in used}) == len(used)


@each
def test_a_job_gets_only_the_permissions_that_it_names(path):
    assert FLOWS[path.stem]["permissions"] == {}
    writes = {
        name: {p for p, how in job["permissions"].items() if how == "write"}
        for name, job in jobs(path).items()
    }
    allowed = {("book", "publish"): {"pages", "id-token"}, ("release", "publish"): {"id-token"}}
    for name, found in writes.items():
        assert found <= allowed.get((path.stem, name), set())


@each
def test_no_job_keeps_a_token_or_runs_for_ever(path):
    for job in jobs(path).values():
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
        assert "timeout-minutes" in job or "uses" in job


def test_nothing_is_published_untested():
    for name, publish in (("book", "publish"), ("release", "build")):
        test = FLOWS[name]["jobs"]["test"]
        assert (
            test["uses"] == "$/.github/workflows/test.yml" and FLOWS[name]["jobs"][publish]["needs"] == "test"
        )
    assert FLOWS["release"]["jobs"]["publish"]["needs"] == "build"
    tested = FLOWS["test"]["jobs"]["test"]
    assert {"run": ".ci/run"} in tested["steps"] and tested["strategy"]["matrix"]["python"] == [
        "3.11",
        "3.12",
        "3.13",
    ]
