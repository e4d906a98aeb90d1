"""The course on Colab, as near as this machine comes: its versions, a stand-in for google.colab, its own
line.

    python tools/check_colab.py            install by the very cell of the notebooks, then run every chapter
    python tools/check_colab.py 05 16      some chapters
    python tools/check_colab.py --none     the installation alone

The environment gets the pins of tests/data/colab.txt. Three things differ from Colab, and each is printed:
the Python where there is no 3.13, PyTorch (the CPU build at hand) and TensorFlow (the CPU build of the same
version). A local repository stands in for the address in the Colab cell, by git's own `insteadOf`."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import check_wheel
import colab_line
import resolve

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = {  # what the chapters may ask google.colab for; the real one has more
    "__init__.py": "from google.colab import output\n",
    "output.py": """"A stand-in for google.colab.output, as far as widgets go."
import types

_widgets = types.SimpleNamespace(_installed_url=None)
WIDGET = "application/vnd.jupyter.widget-view+json"


def _name_the_manager(message):
    content = message.get("content") or {}
    if _widgets._installed_url and WIDGET in content.get("data", {}):
        named = content.setdefault("metadata", {}).setdefault(WIDGET, {})
        named["colab"] = {"custom_widget_manager": {"url": _widgets._installed_url}}
    return message


def enable_custom_widget_manager(version=None):
    from IPython import get_ipython

    if _widgets._installed_url is None and get_ipython():
        get_ipython().display_pub.register_hook(_name_the_manager)
    _widgets._installed_url = "https://stand-in.example/manager.min.js"


def disable_custom_widget_manager():
    _widgets._installed_url = None


def register_callback(name, function):
    pass


def eval_js(script, ignore_result=False, timeout_sec=None):
    pass


def clear(wait=False, output_tags=()):
    pass
""",
}
RUN = """
import sys, time
import nbformat
from nbclient import NotebookClient

book = nbformat.read(sys.argv[1], 4)
if sys.argv[3:] == ["first"]:
    book.cells = [next(cell for cell in book.cells if cell.cell_type == "code")]
NotebookClient(book, timeout=1200, kernel_name="python3").execute()
nbformat.write(book, sys.argv[2])
"""
TEXT = {"capture_output": True, "text": True, "check": True}
WIDGET = "application/vnd.jupyter.widget-view+json"


# --- the environment ----------------------------------------------------------------------------------------


def python_at_hand() -> str:
    "A Python of the image's version, or else this one."
    wanted = f"python{resolve.image_python().rpartition('.')[0]}"
    found = shutil.which(wanted)
    works = found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
    return found if works else sys.executable


def pins(torch: str | None) -> dict[str, str]:
    "The image's versions, with the CPU builds that stand in for its CUDA builds."
    found = resolve.listed(resolve.COLAB.read_text(encoding="utf-8"))
    tested = resolve.listed((ROOT / "constraints.txt").read_text(encoding="utf-8"))["torch"]
    cpu_index = "download.pytorch.org" in os.environ.get("PIP_EXTRA_INDEX_URL", "")
    found["torch"] = torch or (found["torch"] if cpu_index else tested)
    return found | {"tensorflow-cpu": found.pop("tensorflow")}


def without_wheel(said: str, wanted: dict[str, str]) -> str | None:
    "The pin that pip found nothing for."
    refused = re.search(r"No matching distribution found for ([\w.-]+)==", said)
    name = refused and re.sub(r"[-_.]+", "-", refused[1]).lower()
    return name if name in wanted else None


def environment(folder: Path, python: str, wanted: dict[str, str]) -> str:
    "A virtual environment with the image's versions: the path of its interpreter."
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside, wanted = str(folder / "bin" / "python"), dict(wanted)
    pip = [inside, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"pip=={wanted.pop('pip')}"], check=True)
    exact = [*pip, "--no-deps", "--only-binary=:all:"]
    while True:
        ran = subprocess.run(
            [*exact, *(f"{n}=={v}" for n, v in wanted.items())], capture_output=True, text=True
        )
        if ran.returncode == 0:
            break
        name = without_wheel(ran.stderr, wanted)
        if name is None:
            raise RuntimeError(f"Colab's versions could not be installed:\n{ran.stderr}")
        print(f"– {name}=={wanted.pop(name)} has no wheel for this Python: left to the resolver", flush=True)
    stand_ins = [f"{name}=={wanted[name]}" for name in ("torch", "tensorflow-cpu") if name in wanted]
    subprocess.run(
        [*pip, *stand_ins], check=True
    )  # what they ask for beyond the image's versions is theirs, not ours
    where = "import site; print(site.getsitepackages()[0])"
    packages = Path(subprocess.run([inside, "-c", where], **TEXT).stdout.strip())
    (packages / "google" / "colab").mkdir(parents=True, exist_ok=True)
    for name, source in STAND_IN.items():
        (packages / "google" / "colab" / name).write_text(source, encoding="utf-8")
    (packages / "llmlab_stand_in.pth").write_text("import google.colab\n")  # Colab's kernels have it loaded
    return inside


def versions(python: str) -> dict[str, str]:
    "Name → version of everything that is installed."
    return resolve.listed(subprocess.run([python, "-m", "pip", "freeze", "--all"], **TEXT).stdout)


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    "Versions of the image that are no longer what they were."
    return [f"{n} {v} → {after.get(n, 'gone')}" for n, v in sorted(before.items()) if after.get(n) != v]


# --- chapters -----------------------------------------------------------------------------------------------


def run(
    python: str, chapter: Path, place: Path, env: dict[str, str], first: bool = False
) -> tuple[int, dict]:
    "Run a notebook (or its first code cell) in an empty folder: exit status and the executed notebook."
    folder, out = Path(tempfile.mkdtemp(dir=place)), place / "executed.ipynb"
    out.unlink(missing_ok=True)
    command = [python, "-c", RUN, str(chapter), str(out), *(["first"] if first else [])]
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if ran.returncode:
        print(ran.stdout[-2000:], ran.stderr[-4000:], sep="\n", file=sys.stderr)
    return ran.returncode, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"cells": []}


def foreign(model: str, states: dict[str, dict], seen: frozenset[str] = frozenset()) -> bool:
    "Whether a widget, or one inside it, comes from elsewhere than ipywidgets."
    held = states.get(model, {})
    if not held.get("model_module", "@jupyter-widgets/").startswith("@jupyter-widgets/"):
        return True
    inside = set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(held.get("state", {})))) - seen
    return any(foreign(child, states, seen | inside) for child in inside)


def undrawn(book: dict) -> int:
    "Widgets that Colab would not draw: not its own ones, and their output names no widget manager."
    states = (
        book.get("metadata", {})
        .get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    outputs = [o for cell in book["cells"] for o in cell.get("outputs", []) if WIDGET in o.get("data", {})]
    bare = [o for o in outputs if "custom_widget_manager" not in json.dumps(o.get("metadata", {}))]
    return sum(foreign(o["data"][WIDGET]["model_id"], states) for o in bare)


def say(good: bool, words: str) -> None:
    print("✓" if good else "✗", words, flush=True)


def install_cell(python: str, place: Path, env: dict[str, str]) -> list[str]:
    "Run the Colab cell of the first notebook as it stands -> faults."
    before, began = versions(python), time.monotonic()
    status, _ = run(python, colab_line.notebooks()[0], place, env, first=True)
    after = versions(python)
    faults = changed(before, after) + ["the Colab cell failed"] * bool(status)
    added = " ".join(f"{name}=={version}" for name, version in sorted(after.items()) if name not in before)
    say(not faults, f"the Colab cell, {time.monotonic() - began:.0f} s; added: {added}")
    return faults


def chapter_runs(python: str, chapter: Path, place: Path, env: dict[str, str]) -> list[str]:
    "Run a chapter top to bottom -> faults."
    began = time.monotonic()
    status, executed = run(python, chapter, place, env)
    blank = undrawn(executed)
    faults = [f"{chapter.name} failed"] * bool(status)
    faults += [f"{chapter.name}: {blank} widgets name no widget manager, so Colab draws none"] * bool(blank)
    say(not faults, "; ".join([f"{chapter.name} {time.monotonic() - began:.0f} s", *faults]))
    return faults


def arguments_of(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", default=[""], help="beginnings of file names; default: all")
    parser.add_argument("--none", action="store_true", help="the installation alone")
    parser.add_argument(
        "--python", default=python_at_hand(), help="default: one of the image's version, or this one"
    )
    parser.add_argument(
        "--torch", help="default: the image's version where a CPU index is known, else the tested one"
    )
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    args = arguments_of(words)
    wanted, image = pins(args.torch), resolve.listed(resolve.COLAB.read_text(encoding="utf-8"))
    python = subprocess.run([args.python, "--version"], **TEXT).stdout.strip()
    print(
        f"▶ {python} (image: {resolve.image_python()}), PyTorch {wanted['torch']} (image: {image['torch']})",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        place, began = Path(folder), time.monotonic()
        inside = environment(place / "venv", args.python, wanted)
        before = versions(inside)
        other = " ".join(f"{n}=={before.get(n)}" for n, v in sorted(wanted.items()) if before.get(n) != v)
        say(
            True,
            f"{len(before)} packages, {time.monotonic() - began:.0f} s; not the image's version: "
            f"{other or 'none'}",
        )
        own = ("PYTHONPATH", "VIRTUAL_ENV", "KERAS_BACKEND")
        env = {k: v for k, v in os.environ.items() if k not in own}
        env |= check_wheel.tagged(place) | {"TQDM_DISABLE": "1"}
        faults = install_cell(inside, place, env)
        if not args.none and "the Colab cell failed" not in faults:
            for chapter in colab_line.notebooks():
                if chapter.name.startswith(tuple(args.chapters)):
                    faults += chapter_runs(inside, chapter, place, env)
        faults += changed(before, versions(inside))
    say(not faults, "; ".join(dict.fromkeys(faults)) or "every version of the image is what it was")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
