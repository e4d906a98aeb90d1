"""Build the book: `python book/build.py`. It runs what changed, keeps what did not, and every warning is an error.

Three things could leave a stale page behind, so each is fingerprinted by content: the library and the versions
(they decide what a cell shows: all notebooks run again), the book's own files (all pages are read again), and the
chapters (MyST-NB's cache and Sphinx see to those, one by one).
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import ran  # noqa: E402

CODE = ["llmlab/**/*", "constraints.txt"]
BOOK = ["book/*.*", "book/_ext/*.py", "book/_static/**/*", "settings.ini"]
PAGES = ["nbs/*.ipynb", "nbs/workshop/*.ipynb", "nbs/**/*.md"]


def fingerprint(root: Path, patterns: list[str], extra: str = "") -> str:
    "One hash of the names and contents of all files that match."
    files = {f for p in patterns for f in root.glob(p) if f.is_file() and "__pycache__" not in f.parts}
    sums = [f"{f.relative_to(root)} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in sorted(files)]
    return hashlib.sha256("\n".join([*sums, extra]).encode()).hexdigest()


def stale(old: dict, new: dict) -> list[str]:
    "The folders of the last build that must go before this one."
    if old.get("code") != new["code"]:
        return [".jupyter_cache", ".doctrees", "html"]
    return [] if old.get("book") == new["book"] else [".doctrees", "html"]


def sphinx(toc: Path, out: Path) -> int:
    "Run Jupyter Book; its exit status."
    env = os.environ | {"LLMLAB_BOOK": "1", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "nbs", "--config", "book/_config.yml"]
    command += ["--toc", str(toc), "--path-output", str(out), "-W", "-n", "--keep-going"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, errors="replace") as run:
        for line in run.stderr:
            if "Kernel is running over TCP" not in line:  # true of every kernel on one machine, and no news
                print(line, end="", file=sys.stderr, flush=True)
    return run.returncode


def main() -> int:
    arguments = argparse.ArgumentParser(description="Build the book.")
    arguments.add_argument("--toc", type=Path, default=ROOT / "book/_toc.yml", help="other contents: a part of it")
    arguments.add_argument("--out", type=Path, default=ROOT / "book", help="folder that gets _build/")
    chosen = arguments.parse_args()
    build, began = chosen.out / "_build", time.monotonic()
    mark = build / "built.json"
    old = json.loads(mark.read_text()) if mark.exists() else {}
    new = {
        "code": fingerprint(ROOT, CODE, " ".join(ran.versions())),
        "book": fingerprint(ROOT, BOOK, str(chosen.toc.resolve())),
        "pages": fingerprint(ROOT, PAGES),
    }
    if old == new:
        print("The book is up to date.")
    else:
        for folder in stale(old, new):
            shutil.rmtree(build / folder, ignore_errors=True)
        build.mkdir(parents=True, exist_ok=True)
        # Until it succeeds only the notebook cache counts as good: Sphinx would not repeat the warnings of a page
        # that it has read, so a second try must read all pages again
        mark.write_text(json.dumps({"code": new["code"]}))
        if status := sphinx(chosen.toc.resolve(), chosen.out.resolve()):
            print(f"\nThe book has faults: see the warnings above. ({time.monotonic() - began:.0f} s)", file=sys.stderr)
            return status
        mark.write_text(json.dumps(new))
        print(f"\nBuilt in {time.monotonic() - began:.0f} s.")
    html = os.path.relpath(build / "html")
    print(f"The book: {html}/index.html\nServe it: python3 -m http.server -d {html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
