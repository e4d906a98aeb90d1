"""Do the versions go together? The resolver's answer; nothing is installed.

    python tools/resolve.py                       constraints.txt on each Python, then Colab's image
    python tools/resolve.py --image PIP_FREEZE    write tests/data/colab.txt out of the whole list of another
    image

The resolver is uv, because it resolves for a Python that is not on this machine.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import colab_line

ROOT = Path(__file__).resolve().parent.parent
COLAB = ROOT / "tests" / "data" / "colab.txt"
PYTHONS = "3.11.0", "3.11.5", "3.12.0", "3.13.0", "3.14.0"  # the oldest of each: Debian 12 still has 3.11.2
EVERY = "requirements", "course_requirements", "tensorflow_requirements", "dev_requirements"
ON_COLAB = "requirements", "colab_requirements"
KERNEL = (
    "ipykernel",
    "notebook",
    "tensorflow",
    "pip",
)  # what the image runs chapters with; chapter 13 trains on TensorFlow
# PyTorch's own companions: the image has its CUDA build, with other versions of them than PyPI's build of
# PyTorch
COMPANIONS = re.compile(r"^(nvidia|cuda|triton)\b")


class Unreachable(Exception):
    "The package registry does not answer."


def uv() -> str:
    "The resolver: beside this Python or on the PATH."
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not found:
        raise FileNotFoundError("uv is not here: make setup installs it, or pip install uv")
    return found


def listed(text: str) -> dict[str, str]:
    "`pip freeze` as normalized name → version, without the build's local part."
    pins = (line.split("#")[0].split(";")[0].strip() for line in text.splitlines())
    found = (pin.split("==") for pin in pins if "==" in pin)
    return {re.sub(r"[-_.]+", "-", name).lower(): version.split("+")[0] for name, version in found}


def wanted(entries: tuple[str, ...]) -> list[str]:
    "The requirements that some entries of settings.ini hold."
    cfg = colab_line.settings()
    return [line.strip() for entry in entries for line in cfg[entry].splitlines() if line.strip()]


def resolve(requirements: list[str], python: str, constraints: Path) -> dict[str, str]:
    "Name → version of all that would be installed on a 64-bit Linux; RuntimeError where no choice works."
    command = [uv(), "pip", "compile", "-", "--constraints", str(constraints)]
    command += ["--quiet", "--system-certs", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    ran = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True)
    if ran.returncode:
        silent = re.search(r"[Ff]ailed to fetch|error sending request|[Cc]onnect", ran.stderr)
        raise (Unreachable if silent else RuntimeError)(f"Python {python}: {ran.stderr.strip()}")
    return listed(ran.stdout)


def on_colab() -> dict[str, str]:
    "What the Colab line would find or install on the image whose versions tests/data/colab.txt holds."
    return resolve(wanted(ON_COLAB), image_python(), COLAB)


def image_python(path: Path = COLAB) -> str:
    "The version of Python that a list of an image says in its first line."
    return re.search(r"Python (3\.\d+\.\d+)", path.read_text(encoding="utf-8"))[1]


def write_image(source: Path, python: str, day: str) -> None:
    "Of the whole list of an image, keep what llmlab depends on."
    whole = {n: v for n, v in listed(source.read_text(encoding="utf-8")).items() if not COMPANIONS.match(n)}
    pins = COLAB.with_suffix(".tmp")
    try:
        pins.write_text("".join(f"{name}=={version}\n" for name, version in whole.items()), encoding="utf-8")
        absent = {"jupyterlab"}  # Colab is the front end
        ours = [
            r for r in wanted((*ON_COLAB, "course_requirements")) if re.split(r"[<>=!]", r)[0] not in absent
        ]
        needed = resolve([*ours, *KERNEL], python, pins)
    finally:
        pins.unlink(missing_ok=True)
    kept = sorted(name for name in needed if name in whole)
    head = (
        f"# Colab's image of {day}, Python {python}: its versions of what llmlab depends on, transitively.\n"
    )
    head += "# Installing llmlab must change none of them (tests/test_colab.py).\n"
    COLAB.write_text(head + "".join(f"{name}=={whole[name]}\n" for name in kept), encoding="utf-8")
    print(f"{COLAB.relative_to(ROOT)}: {len(kept)} of {len(whole)} packages")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="pip freeze of a Colab image")
    parser.add_argument("--image-python", default="3.13.15", help="its Python")
    parser.add_argument("--image-day", default="2026-08-19", help="its day")
    args = parser.parse_args(arguments)
    if args.image:
        write_image(args.image, args.image_python, args.image_day)
        return 0
    for python in PYTHONS:
        print(f"✓ Python {python}: {len(resolve(wanted(EVERY), python, ROOT / 'constraints.txt'))} packages")
    image, found = listed(COLAB.read_text(encoding="utf-8")), on_colab()
    new = [f"{name}=={version}" for name, version in sorted(found.items()) if name not in image]
    print(f"✓ Colab, Python {image_python()}: no version of the image changes; added:")
    print(" ", *(pin for pin in new if not COMPANIONS.match(pin)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
