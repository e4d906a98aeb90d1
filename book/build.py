"""Build the book: `python book/build.py`. It runs what changed, keeps what did not, and every warning is an
error.

First it executes the chapters whose cells changed: on all cores, longest first, one thread each, and it says
how far it
is. Then Sphinx reads what they gave from MyST-NB's cache. A chapter asserts what it says, so a chapter that
ran here is
tested: `make test` runs none again.

Three things could leave a stale page behind, so each is fingerprinted by content: the library and the
versions
(they decide what a cell shows: all notebooks run again), the book's own files (all pages are read again), and
the
chapters (MyST-NB's cache and Sphinx see to those, one by one).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import nbdev_layout  # noqa: E402
import ran  # noqa: E402

CODE = ["llmlab/**/*", "constraints.txt"]
BOOK = ["book/*.*", "book/_ext/*.py", "book/_static/**/*", "settings.ini"]
PAGES = ["nbs/*.ipynb", "nbs/workshop/*.ipynb", "nbs/**/*.md"]
ENVIRONMENT = {"LLMLAB_BOOK": "1", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
THREADS = [
    f"{name}_THREADS" for name in ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
]
SECONDS = 60  # a chapter's budget on one quiet core: above it we warn, and no more, for machines differ
# before any chapter was timed here, those that took longest when they were last measured
FIRST = """
20_code 21_completion 10_training 17_translation 00_tour 15_generation 18_answering 19_summarization 32_ethics
13_recurrent 11_causal 12_masked 33_horizons 31_interpretability 30_cost
""".split()


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


def listed(toc: Path) -> list[str]:
    "The notebooks in the contents, as their names below nbs/ without .ipynb."
    found, todo = [], [yaml.safe_load(toc.read_text(encoding="utf-8"))]
    while todo:
        entry = todo.pop(0)
        if isinstance(entry, list):
            todo = [*entry, *todo]
        elif isinstance(entry, dict):
            found += [entry[key] for key in ("root", "file") if key in entry]
            todo = [*(v for v in entry.values() if isinstance(v, list)), *todo]
    return [name for name in found if (ROOT / "nbs" / f"{name}.ipynb").is_file()]


def longest_first(names: list[str], seconds: dict[str, float]) -> list[str]:
    "Those that took longest last time first; those never timed before them, as FIRST says."
    known = {name: FIRST.index(name) if name in FIRST else len(FIRST) for name in names}
    return sorted(names, key=lambda name: (name in seconds, -seconds.get(name, 0), known[name]))


def cores() -> int:
    "How many chapters run at once: LLMLAB_JOBS, or the cores that may be used (eight at most, for memory)."
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(os.environ.get("LLMLAB_JOBS") or min(8, free)))


def run(path: Path, timeout: int) -> tuple:
    "Execute one chapter in an empty folder, in a worker: the notebook, its seconds, what went wrong or None."
    from jupyter_cache.executors.utils import single_nb_execution

    os.environ.update(ENVIRONMENT | dict.fromkeys(THREADS, "1"))
    notebook = nbdev_layout.read(path.read_text(encoding="utf-8"))
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            quiet = ["--log-level=40"]  # "Kernel is running over TCP" is true of every kernel, and no news
            done = single_nb_execution(notebook, folder, timeout, allow_errors=False, extra_arguments=quiet)
    except Exception as error:  # the kernel died, or never came
        return notebook, time.monotonic() - began, f"{type(error).__name__}: {error}"
    return notebook, done.time, done.exc_string


def execute(toc: Path, build: Path) -> list[str]:
    "Execute the chapters that the cache does not hold; the names of those that failed."
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    cache, names = get_cache(build / ".jupyter_cache"), []
    for name in listed(toc):
        try:
            cache.match_cache_notebook(
                nbdev_layout.read((ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))
            )
        except KeyError:
            names.append(name)
    if not names:
        return []
    times = build / "seconds.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    timeout = yaml.safe_load((ROOT / "book/_config.yml").read_text(encoding="utf-8"))["execute"]["timeout"]
    workers, failed, now = min(cores(), len(names)), [], {}
    print(f"{len(names)} chapters to run, {workers} at once, one thread each", flush=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        order = longest_first(names, seconds)
        asked = {pool.submit(run, ROOT / "nbs" / f"{name}.ipynb", timeout): name for name in order}
        for n, done in enumerate(as_completed(asked), 1):
            name, (notebook, now[asked[done]], wrong) = asked[done], done.result()
            print(
                f"{'✗' if wrong else '✓'} {n:2d} of {len(names)}  {name:24s} {now[name]:4.0f} s", flush=True
            )
            if wrong:
                failed.append(name)
                print(wrong, file=sys.stderr, flush=True)
                continue
            uri = str(ROOT / "nbs" / f"{name}.ipynb")
            bundle = CacheBundleIn(notebook, uri, data={"execution_seconds": now[name]})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    times.write_text(json.dumps(seconds | now, indent=1))
    over = {name: spent for name, spent in now.items() if spent > SECONDS}
    for name in sorted(over, key=over.get, reverse=True):
        print(f"warning: {name} took {over[name]:.0f} s; a chapter's budget is {SECONDS} s on a quiet core")
    return failed


def sphinx(toc: Path, out: Path) -> int:
    "Run Jupyter Book; its exit status."
    env = os.environ | ENVIRONMENT
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "nbs", "--config", "book/_config.yml"]
    command += ["--toc", str(toc), "--path-output", str(out), "-W", "-n", "--keep-going"]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as run:
        for line in run.stderr:
            if "Kernel is running over TCP" not in line:  # true of every kernel on one machine, and no news
                print(line, end="", file=sys.stderr, flush=True)
    return run.returncode


def main() -> int:
    arguments = argparse.ArgumentParser(description="Build the book.")
    arguments.add_argument(
        "--toc", type=Path, default=ROOT / "book/_toc.yml", help="other contents: a part of it"
    )
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
        # Until it succeeds only the notebook cache counts as good: Sphinx would not repeat the warnings of a
        # page
        # that it has read, so a second try must read all pages again
        mark.write_text(json.dumps({"code": new["code"]}))
        if failed := execute(chosen.toc.resolve(), build):
            print(f"\nThese chapters failed, see above: {', '.join(sorted(failed))}", file=sys.stderr)
            return 1
        if status := sphinx(chosen.toc.resolve(), chosen.out.resolve()):
            print(
                f"\nThe book has faults: see the warnings above. ({time.monotonic() - began:.0f} s)",
                file=sys.stderr,
            )
            return status
        mark.write_text(json.dumps(new))
        print(f"\nBuilt in {time.monotonic() - began:.0f} s.")
    html = os.path.relpath(build / "html")
    print(f"The book: {html}/index.html\nServe it: python3 -m http.server -d {html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
