"The package as a whole: light to import, complete in the wheel, one version."

import ast
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_string
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import check_wheel
import colab_line
import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

import llmlab


def fresh(code: str) -> str:
    "What a new Python process prints."
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return ran.stdout.strip()


def test_import_loads_nothing_heavy():
    loaded = fresh("import sys, llmlab; print(*sys.modules)").split()
    assert not {"torch", "numpy", "transformers", "tokenizers", "anywidget", "IPython"} & set(loaded)


def test_the_front_door_is_what_the_modules_make_public():
    "A name is public once, in one module, and the front door lists it."
    found = {}
    for file in (ROOT / "llmlab").rglob("[!_]*.py"):
        path = ".".join(file.relative_to(ROOT / "llmlab").with_suffix("").parts)
        listed = re.search(r"^__all__ = (\[.*?\])", file.read_text(), re.M | re.S)
        for name in ast.literal_eval(listed[1]):
            assert name not in found, f"{name} is public in {path} and in {found[name]}"
            found[name] = path
    assert found == llmlab.PUBLIC
    assert set(dir(llmlab)) == {"__version__", *found}


def test_a_name_comes_alone():
    assert fresh("import llmlab; print(llmlab.attention.__name__)") == "llmlab.attention"
    rooms = ("llmlab.figures", "llmlab.tasks")
    code = (
        f"import sys; from llmlab import Decoder; print(*(m for m in sys.modules if m.startswith({rooms})))"
    )
    assert fresh(code) == ""


def test_an_unknown_name_says_what_is_near():
    with pytest.raises(AttributeError, match="llmlab has no 'Decodr'; did you mean Decoder"):
        llmlab.Decodr  # noqa: B018


def test_one_version():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    assert llmlab.__version__ == config["DEFAULT"]["version"] == version(config["DEFAULT"]["lib_name"])
    assert re.search(rf"^## {re.escape(llmlab.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def requirements(key: str) -> list[Requirement]:
    "One entry of settings.ini that holds requirements."
    return [Requirement(line) for line in colab_line.settings()[key].splitlines() if line.strip()]


def test_the_library_pins_no_version():
    for extra in ("requirements", "course_requirements", "colab_requirements"):
        assert not [
            r for r in requirements(extra) if {"==", "<", "<=", "~="} & {s.operator for s in r.specifier}
        ]


@pytest.mark.parametrize(
    "name, refused, taken", [("bertviz", "1.4.0", "1.4.1"), ("transformers", "5.0.0", "5.1.0")]
)
def test_what_cannot_work_is_refused(name, refused, taken):
    "bertviz before 1.4.1 and transformers before 5.1 lack what we call."
    (found,) = (r.specifier for r in requirements("course_requirements") if r.name == name)
    assert refused not in found and taken in found


# --- sdist and wheel ----------------------------------------------------------------------------------------

DATE = "1700000000"  # seconds: 14 November 2023


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    "The source archive, the wheel made from it, and a wheel from a checkout that a build has left dirty."
    place = tmp_path_factory.mktemp("artefacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", DATE)
        found = check_wheel.artefacts(place)
        dirty = check_wheel.copied(place / "dirty")
        for path in dirty.rglob("*.ipynb"):
            path.chmod(0o664)
        for stale in (
            "build/lib/llmlab/stale.py",
            "llmlab.egg-info/SOURCES.txt",
            "llmlab/_modidx.py",
            "notes.txt",
        ):
            (dirty / stale).parent.mkdir(parents=True, exist_ok=True)
            (dirty / stale).write_text("notes.txt\n")
        for what in ("wheel", "sdist"):
            found[f"dirty {what}"] = check_wheel.build(what, dirty, place / f"dirty-{what}")
    return found


def metadata(wheel: Path) -> Message:
    "What a wheel says of itself."
    with zipfile.ZipFile(wheel) as held:
        (name,) = (name for name in held.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(held.read(name).decode())


@pytest.mark.long
@pytest.mark.slow
def test_the_wheel_carries_chapters_figures_and_data(artefacts):
    held = set(zipfile.ZipFile(artefacts["wheel"]).namelist())
    patterns = "[!_]*.py", "static/*", "data/*", "data/*/*"
    files = (f for p in patterns for f in (ROOT / "llmlab").glob(p) if f.is_file())
    wanted = {f.relative_to(ROOT).as_posix() for f in files}
    wanted |= {f"llmlab/chapters/{f.relative_to(ROOT / 'nbs')}" for f in colab_line.notebooks()}
    assert wanted <= held
    assert not [name for name in held if name.split("/")[0] in ("tests", "tools", "book", "nbs")]
    licences = {name.split(".dist-info/licenses/")[-1] for name in held if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "LICENSE-PROSE", "llmlab/static/VENDORED.txt"}


@pytest.mark.long
@pytest.mark.slow
def test_the_source_archive_holds_what_git_holds(artefacts):
    with tarfile.open(artefacts["sdist"]) as archive:
        held = {m.name.split("/", 1)[1] for m in archive if m.isfile()}
    listed = {path.relative_to(ROOT).as_posix() for path in tracked(binary=True)}
    assert held == {name for name in listed if not name.startswith(".")} | {"PKG-INFO", "setup.cfg"}


@pytest.mark.long
@pytest.mark.slow
def test_equal_sources_give_equal_files_whatever_lies_beside_them(artefacts):
    "Another folder, other modes, an old build/, somebody's notes: the same bytes."
    for what in ("wheel", "sdist"):
        assert artefacts[what].read_bytes() == artefacts[f"dirty {what}"].read_bytes()
    with tarfile.open(artefacts["sdist"]) as archive:
        assert {m.mtime for m in archive} == {int(DATE)}


@pytest.mark.long
@pytest.mark.slow
def test_the_wheel_says_licence_pythons_and_addresses(artefacts):
    said, url = metadata(artefacts["wheel"]), colab_line.settings()["git_url"]
    assert said["License-Expression"] == "Apache-2.0 AND CC-BY-4.0 AND BSD-3-Clause AND MIT"
    assert {f"Programming Language :: Python :: 3.{n}" for n in (11, 12, 13, 14)} <= set(
        said.get_all("Classifier")
    )
    assert f"Source, {url}" in said.get_all("Project-URL")
    assert set(said.get_all("Provides-Extra")) == {"course", "colab", "tensorflow", "dev"}
    links = re.findall(r"\]\(([^)]+)\)", said.get_payload())
    assert len(links) > 30 and not [link for link in links if not link.startswith("https://")]
    assert f"{url}/raw/v{llmlab.__version__}/book/_static/attention.png" in links


# --- one name, one repository -------------------------------------------------------------------------------


def tracked(binary: bool = False) -> list[Path]:
    "The files of the checkout that git knows, or those of them that are text."
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return [
        ROOT / name for name in names if binary or not name.endswith((".png", ".safetensors", ".gz", ".zip"))
    ]


SITES = r"(?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)"
INSTALLED = re.compile(r"\b([\w-]*llmlab[\w-]*)\\?\[[a-z]+\\?\]")  # a distribution with an extra
REPOSITORIES = re.compile(SITES + r"/([\w.-]+/[\w-]+)", re.I)
PAGES = re.compile(r"([\w-]*llmlab[\w-]*\.github\.io(?:/\w+)?)", re.I)
MAIL = re.compile(r"([\w-]*llmlab[\w-]*@[\w.-]+\.[a-z]{2,})", re.I)
BARE = re.compile(r"pip install (?:-q )?[\"']?llmlab\b(?!-course)")


def strangers(text: str, cfg: dict[str, str]) -> set[str]:
    "Names and addresses of llmlab in a text that are not those of the settings."
    found = set(INSTALLED.findall(text)) - {cfg["lib_name"]}
    ours = {name for name in REPOSITORIES.findall(text) if "llmlab" in name.lower()}
    found |= ours - {urlsplit(cfg["git_url"]).path.strip("/")}
    found |= set(PAGES.findall(text)) - {urlsplit(cfg["doc_host"]).netloc + cfg["doc_baseurl"]}
    found |= set(MAIL.findall(text)) - {cfg["author_email"]}
    return found | set(BARE.findall(text))


def test_name_and_repository_are_those_of_settings():
    cfg = colab_line.settings()
    examples = ROOT / "tests" / "test_package.py"
    found = {
        path: strangers(path.read_text(encoding="utf-8", errors="replace"), cfg)
        for path in tracked()
        if path != examples
    }
    assert not {path.relative_to(ROOT).as_posix(): names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "text",
    [
        'pip install "llmlab[course]"',
        "pip install llmlab",
        "https://github.com/LLMLab/llmlab/issues",
        "https://mybinder.org/v2/gh/someone/llmlab/HEAD",
        "https://colab.research.google.com/github/llmlab/llmlab/blob/main/nbs/00_tour.ipynb",
        "https://llmlab.github.io/llmlab",
        "llmlab@users.noreply.github.com",
    ],
)
def test_another_name_or_address_is_found(text):
    cfg = colab_line.settings()
    assert strangers(text, cfg)
    book = cfg["doc_host"] + cfg["doc_baseurl"]
    own = colab_line.requirement(cfg, "course"), cfg["git_url"], book, cfg["author_email"]
    assert not strangers(" ".join(own), cfg)


def test_settings_say_account_and_repository_once():
    text, cfg = (ROOT / "settings.ini").read_text(encoding="utf-8"), colab_line.settings()
    assert text.count(cfg["user"]) == 2  # the account, and the distribution that bears the same name
    assert cfg["git_url"] == f"https://github.com/{cfg['user']}/{cfg['repo']}"


def test_the_lines_that_install_are_those_of_settings():
    cfg = colab_line.settings()
    assert not [
        path
        for path in colab_line.texts()
        if colab_line.renewed(path.read_text(encoding="utf-8"), cfg) != path.read_text(encoding="utf-8")
    ]
    new = cfg | {"version": "9.8.7"}
    old = (
        f"x {colab_line.requirement(cfg, 'course')} y {cfg['lib_name']}==0.0.1rc1, {cfg['lib_name']}[course]"
    )
    tag = f"@ git+{cfg['git_url']}@v9.8.7"
    assert colab_line.renewed(old, new | {"released": "no"}) == (
        f"x {cfg['lib_name']}[course] {tag} y {cfg['lib_name']} {tag}, {cfg['lib_name']}[course]"
    )
    assert f"x {cfg['lib_name']}[course]==9.8.7 y" in colab_line.renewed(old, new | {"released": "yes"})


def test_the_readers_are_told_to_install_what_is_there():
    "Until a release is on PyPI its name installs nothing: README and the citation follow settings.ini."
    cfg = colab_line.settings()
    assert f'pip install "{colab_line.requirement(cfg, "course")}"' in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["repository-code"]) == (cfg["version"], cfg["git_url"])
    assert cited["url"] == cfg["doc_host"] + cfg["doc_baseurl"]
    assert set(cited["license"]) <= set(cfg["license_expression"].split(" AND "))


@pytest.mark.skipif(not (ROOT / ".binder").is_dir(), reason="a source archive holds no dot folders")
def test_binder_and_devcontainer_open_the_chapters():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (container["postCreateCommand"], container["postAttachCommand"]) == ("make setup", "make lab")
    pythons = container["image"].rpartition(":")[2], (ROOT / ".binder" / "runtime.txt").read_text().strip()
    cfg = colab_line.settings()
    for python in pythons:
        minor = int(python.rpartition(".")[2])
        assert int(cfg["min_python"].partition(".")[2]) <= minor <= int(cfg["max_python"].partition(".")[2])
    for script in ("postBuild", "start"):
        path = ROOT / ".binder" / script
        assert path.stat().st_mode & 0o100 and subprocess.run(["sh", "-n", path]).returncode == 0
