"The package as a whole: light to import, complete in the wheel, one version."
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import version
from urllib.parse import urlsplit

import check_wheel
import colab_line
import pytest
from conftest import ROOT

import llmlab


def fresh(code: str) -> str:
    "What a new Python process prints."
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return ran.stdout.strip()


def test_import_takes_less_than_a_tenth_of_a_second():
    code = "import time; t = time.perf_counter(); import llmlab; print(time.perf_counter() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.1


def test_import_loads_nothing_heavy():
    loaded = fresh("import sys, llmlab; print(*sys.modules)").split()
    assert not {"torch", "numpy", "transformers", "tokenizers", "anywidget", "IPython"} & set(loaded)


def test_modules_come_when_asked_for():
    names = [f.stem for f in (ROOT / "llmlab").glob("[!_]*.py")]
    assert set(names) <= set(dir(llmlab))
    assert fresh("import llmlab; print(llmlab.lab.__name__)") == "llmlab.lab"


def test_an_unknown_module_names_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'atention'; its modules are .*attention"):
        llmlab.atention  # noqa: B018


def test_one_version():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    assert llmlab.__version__ == config["DEFAULT"]["version"] == version(config["DEFAULT"]["lib_name"])
    assert re.search(rf"^## {re.escape(llmlab.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_library_pins_no_version():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    for extra in ("requirements", "course_requirements"):
        assert "==" not in config["DEFAULT"][extra]


@pytest.mark.slow
def test_the_wheel_carries_chapters_figures_and_data(tmp_path):
    held = set(zipfile.ZipFile(check_wheel.wheel(tmp_path)).namelist())
    patterns = "[!_]*.py", "static/*", "data/*", "data/*/*"
    files = (f for p in patterns for f in (ROOT / "llmlab").glob(p) if f.is_file())
    wanted = {f.relative_to(ROOT).as_posix() for f in files}
    wanted |= {f"llmlab/chapters/{f.name}" for f in (ROOT / "nbs").glob("*.ipynb")}
    assert wanted <= held
    assert not [name for name in held if name.split("/")[0] in ("tests", "tools", "book", "nbs")]
    licences = {name.split("/")[-1] for name in held if ".dist-info/" in name}
    assert {"LICENSE", "LICENSE-PROSE"} <= licences


# --- one name, one repository -----------------------------------------------------------------------------------------


def tracked() -> list:
    "The text files of the checkout that git knows."
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    binary = (".png", ".safetensors", ".gz", ".zip")
    return [ROOT / name for name in listed.split("\0") if name and not name.endswith(binary)]


def test_name_and_repository_are_those_of_settings():
    cfg = colab_line.settings()
    name, repository = cfg["lib_name"], urlsplit(cfg["git_url"]).path.strip("/")
    installed = re.compile(r"\b([\w-]*llmlab[\w-]*)\\?\[[a-z]+\\?\]")  # a distribution with an extra
    addresses = re.compile(r"github\.com/([\w.-]*llmlab[\w-]*/[\w-]+)")
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        assert set(installed.findall(text)) <= {name}, f"{path}: the distribution is called {name}"
        assert set(addresses.findall(text)) <= {repository}, f"{path}: the repository is {repository}"
        bare = re.search(r"pip install (-q )?llmlab\b(?!-course)", text)
        assert not bare, f"{path}: the distribution is called {name}"
