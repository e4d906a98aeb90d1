"""The first code cell of every notebook: on Colab it installs the course, anywhere else it does nothing.

python tools/colab_line.py     put the cell of settings.ini into every notebook (`make export` does)
"""

import json
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELL = """#| hide
import importlib.util
import subprocess
import sys

# on Colab this cell installs the course; anywhere else it does nothing
if "google.colab" in sys.modules and not importlib.util.find_spec("llmlab"):
    COURSE = "{course}"
    install = [sys.executable, "-m", "pip", "install", "-q", COURSE]
    done = subprocess.run(install, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode:
        print(done.stdout, done.stderr)
        raise RuntimeError(
            "The course could not be installed: run this cell again, and if it fails again, "
            "report what stands above at {url}/issues"
        )"""


def settings(root: Path = ROOT) -> dict[str, str]:
    "What settings.ini says."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def requirement(cfg: dict[str, str], extra: str = "colab") -> str:
    "What a reader installs: the release on PyPI, or the tag in the repository as long as there is none."
    name, version = f"{cfg['lib_name']}[{extra}]" if extra else cfg["lib_name"], cfg["version"]
    return f"{name}=={version}" if cfg["released"] == "yes" else f"{name} @ git+{cfg['git_url']}@v{version}"


def cell(cfg: dict[str, str]) -> str:
    "The source of the cell."
    return CELL.format(course=requirement(cfg), url=cfg["git_url"])


def notebooks(root: Path = ROOT) -> list[Path]:
    "Lessons and workshop."
    return sorted([*root.glob("nbs/*.ipynb"), *root.glob("nbs/workshop/*.ipynb")])


def update(path: Path, source: str) -> bool:
    "Make `source` the first code cell of a notebook; whether that changed the file."
    book = json.loads(path.read_text(encoding="utf-8"))
    first = next(c for c in book["cells"] if c["cell_type"] == "code")
    lines = source.splitlines(keepends=True)
    if first["source"] == lines:
        return False
    if not any("google.colab" in line for line in first["source"]):
        raise ValueError(
            f"{path}: its first code cell is not the Colab cell: put an empty one with that word there"
        )
    first["source"] = lines
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return True


def renewed(text: str, cfg: dict[str, str]) -> str:
    "A text whose requirements of ours, with a tag or a version, are those of the settings."
    name = re.escape(cfg["lib_name"])
    said = rf"{name}(?:\[(\w+)\])?(?: @ git\+https://[\w./-]+@v[0-9.]+\w*|==[0-9.]+\w*)"
    return re.sub(said, lambda found: requirement(cfg, found[1] or ""), text)


def texts(root: Path = ROOT) -> list[Path]:
    "The files that tell readers what to install."
    return [root / "README.md", root / "nbs" / "index.md", *notebooks(root)]


if __name__ == "__main__":
    cfg = settings()
    changed = {path.name for path in notebooks() if update(path, cell(cfg))}
    for path in texts():
        old = path.read_text(encoding="utf-8")
        if old != (new := renewed(old, cfg)):
            path.write_text(new, encoding="utf-8")
            changed.add(path.name)
    print(f"install lines renewed in {', '.join(sorted(changed))}" if changed else "Colab's line is in step")
