"""The wheel in an empty environment outside the checkout: the README's lines and every chapter run in an empty folder.

    python tools/check_wheel.py [chapter …]
"""
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIP = shutil.ignore_patterns(".*", "__pycache__", "_build", "build", "dist", "*.egg-info")
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
    NotebookClient(nbformat.reads(chapter.read_text(encoding="utf-8"), 4), timeout=300, kernel_name="python3").execute()
    print(f"✓ {chapter.name} {time.monotonic() - began:.0f} s", flush=True)
"""


def wheel(folder: Path) -> Path:
    "Build the wheel from a copy of the checkout, so that nothing of an earlier build gets in."
    copy = folder / "source"
    shutil.copytree(ROOT, copy, ignore=SKIP)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def first_lines(readme: str) -> str:
    "The README's first Python block."
    found = re.search(r"^```python\n(.*?)^```", readme, re.M | re.S)
    if not found:
        raise ValueError("README.md has no ```python block: it shall open with six lines that run")
    return found[1]


def main(names: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place, empty = Path(folder), Path(folder) / "empty"
        empty.mkdir()
        built, python = wheel(place), place / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        print(f"▶ installing {built.name}[course] into an empty environment", flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{built}[course]"]
        subprocess.run(install, check=True)
        print("▶ the README's lines", flush=True)
        began = time.monotonic()
        lines = first_lines((ROOT / "README.md").read_text(encoding="utf-8"))
        subprocess.run([python, "-I", "-c", lines], cwd=empty, check=True)
        print(f"✓ README.md {time.monotonic() - began:.0f} s", flush=True)
        return subprocess.run([python, "-I", "-c", RUN, *names], cwd=empty).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
