"""llmlab/ from the notebooks: nbdev's export in ruff's format, like all other code, and MAP.md from both.

python tools/export.py     `make export` does, after the line for Colab (tools/colab_line.py)
"""

import subprocess
import sys
from pathlib import Path

import make_map

BIN = Path(sys.executable).parent


def export(root: Path) -> None:
    "Write the modules of `root` anew; one whose notebook is gone does not survive."
    for old in (root / "llmlab").rglob("*.py"):
        if old.name not in ("__init__.py", "__main__.py"):
            old.unlink()
    for command in (
        ["nbdev_export"],
        ["ruff", "check", "-q", "--fix", "--select", "I001,E401", "llmlab"],
        ["ruff", "format", "-q", "llmlab"],
    ):
        subprocess.run([BIN / command[0], *command[1:]], cwd=root, check=True)


if __name__ == "__main__":
    export(make_map.ROOT)
    (make_map.ROOT / "MAP.md").write_text(make_map.drawn(make_map.ROOT), encoding="utf-8")
