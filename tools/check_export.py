"""llmlab/ is what the chapters export, and the chapters are clean: checked on a copy, nothing is touched."""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from export import export

ROOT = Path(__file__).resolve().parent.parent
SKIP = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def differences(root: Path, copy: Path) -> list[str]:
    "Files that differ, or that stand on one side only."
    found = []
    for folder, pattern in ("llmlab", "[!_]*.py"), ("nbs", "*.ipynb"):
        sides = [(side / folder, f) for side in (root, copy) for f in (side / folder).rglob(pattern)]
        for name in sorted(
            {f.relative_to(home).as_posix() for home, f in sides if "chapters" not in f.parts}
        ):
            here, there = root / folder / name, copy / folder / name
            if not (here.exists() and there.exists() and filecmp.cmp(here, there, shallow=False)):
                found.append(f"{folder}/{name}")
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        for name in ("nbs", "llmlab"):
            shutil.copytree(ROOT / name, copy / name, ignore=SKIP)
        for name in ("settings.ini", "pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, copy)
        subprocess.run([Path(sys.executable).parent / "nbdev_clean"], cwd=copy, check=True)
        export(copy)
        found = differences(ROOT, copy)
    if found:
        print(
            f"Not in step with the chapters: {', '.join(found)}.\nRun nbdev_clean and make export.",
            file=sys.stderr,
        )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
