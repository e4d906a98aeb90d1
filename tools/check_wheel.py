"""The artefacts of a release in empty environments outside the checkout: the README's lines and every chapter
run.

python tools/check_wheel.py                            the wheel, in this Python: README and all chapters
python tools/check_wheel.py 04 05                      README and some chapters
python tools/check_wheel.py --none --from sdist tag    the source archive and the git tag, README only
python tools/check_wheel.py --none --python python3.12 python3.13
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import colab_line

ROOT = Path(__file__).resolve().parent.parent
SKIP = shutil.ignore_patterns(".git", ".venv", "__pycache__", "_build", ".*_cache", ".make", ".hypothesis")
RUN = """
import pathlib, sys, time
import llmlab, nbformat
from nbclient import NotebookClient

home = pathlib.Path(llmlab.__file__).resolve()
assert "site-packages" in home.parts, f"llmlab is not the installed one: {home}"
for chapter in sorted(home.parent.glob("chapters/*.ipynb")):
    if sys.argv[1:] and not any(chapter.name.startswith(name) for name in sys.argv[1:]):
        continue
    began = time.monotonic()
    notebook = nbformat.reads(chapter.read_text(encoding="utf-8"), 4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    print(f"✓ {chapter.name} {time.monotonic() - began:.0f} s", flush=True)
"""


# --- artefacts ----------------------------------------------------------------------------------------------


def build(what: str, source: Path, out: Path) -> Path:
    "Build a `wheel` or an `sdist` from a folder, with the tools of this environment."
    command = [
        sys.executable,
        "-m",
        "build",
        f"--{what}",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stdout}\n{ran.stderr}")
    return next(out.glob("*.whl" if what == "wheel" else "*.tar.gz"))


def copied(folder: Path) -> Path:
    "A copy of the checkout, so that building leaves no trace in it."
    return Path(shutil.copytree(ROOT, folder, ignore=SKIP))


def unpacked(archive: Path, folder: Path) -> Path:
    "The folder that a source archive unpacks to."
    shutil.unpack_archive(archive, folder)
    return next(folder.iterdir())


def artefacts(place: Path) -> dict[str, Path]:
    "The source archive of this checkout, and the wheel that follows from it."
    archive = build("sdist", copied(place / "source"), place / "sdist")
    return {"sdist": archive, "wheel": build("wheel", unpacked(archive, place / "unpacked"), place / "wheel")}


def tagged(place: Path) -> dict[str, str]:
    """The environment in which the repository's address leads to this very checkout, tagged as a release
    would be.

    Git takes a local repository with one commit in place of the address, so the line that readers run runs
    unchanged.
    """
    cfg, clone = colab_line.settings(), copied(place / "repository")
    identity = ["-c", "user.name=check", "-c", "user.email=check@example.org"]
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["commit", "-q", "-m", "Release"],
        ["tag", f"v{cfg['version']}"],
    ):
        subprocess.run(["git", *identity, *words], cwd=clone, check=True)
    instead = {"KEY": f"url.{clone.as_uri()}.insteadOf", "VALUE": cfg["git_url"]}
    return {"GIT_CONFIG_COUNT": "1"} | {f"GIT_CONFIG_{what}_0": value for what, value in instead.items()}


# --- empty environments -------------------------------------------------------------------------------------


def first_lines(readme: str) -> str:
    "The README's first Python block."
    found = re.search(r"^```python\n(.*?)^```", readme, re.M | re.S)
    if not found:
        raise ValueError("README.md has no ```python block: it shall open with six lines that run")
    return found[1]


def environment(folder: Path, python: str) -> str:
    "An empty virtual environment of a Python: the path of its interpreter."
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    version = subprocess.run([inside, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"▶ {version}: an empty environment", flush=True)
    return str(inside)


def requirement(source: str, files: dict[str, Path], extra: str) -> str:
    "What to install: a file, or the tag by the line of the README."
    cfg = colab_line.settings()
    if source == "tag":
        return colab_line.requirement(cfg | {"released": "no"}, extra)
    return f"{cfg['lib_name']}{f'[{extra}]' if extra else ''} @ {files[source].as_uri()}"


def installed(python: str, wanted: str, env: dict[str, str]) -> None:
    "Install a requirement with the tested versions of everything else."
    print(f"▶ pip install {wanted!r}", flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), wanted]
    subprocess.run(command, check=True, env=os.environ | env)


def readme_runs(python: str, empty: Path) -> None:
    "The README's lines, in an empty folder."
    began = time.monotonic()
    lines = first_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    subprocess.run([python, "-I", "-c", lines], cwd=empty, check=True)
    print(f"✓ README.md {time.monotonic() - began:.0f} s", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="beginnings of file names; default: all")
    parser.add_argument(
        "--none", action="store_true", help="no chapters: the library alone, and the README's lines"
    )
    parser.add_argument(
        "--from", dest="sources", nargs="+", choices=["wheel", "sdist", "tag"], default=["wheel"]
    )
    parser.add_argument(
        "--python", nargs="+", default=[sys.executable], help="interpreters; default: this one"
    )
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place, empty = Path(folder), Path(folder) / "empty"
        empty.mkdir()
        files, env = artefacts(place), tagged(place)
        for i, python in enumerate(args.python):
            for source in args.sources:
                inside = environment(place / f"venv-{i}-{source}", python)
                installed(inside, requirement(source, files, "" if args.none else "course"), env)
                readme_runs(inside, empty)
                if not args.none:
                    chapters = [inside, "-I", "-c", RUN, *args.chapters]
                    subprocess.run(chapters, cwd=empty, check=True, env=os.environ | {"TQDM_DISABLE": "1"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
