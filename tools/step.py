"""Run one step of `make test`, unless nothing it looks at has changed since it last passed.

python tools/step.py lint "nbs/*.ipynb" "llmlab/**/*" -- ruff check .
"""

import hashlib
import platform
import subprocess
import sys
import time
from pathlib import Path

SKIP = {"__pycache__", "_build", ".ipynb_checkpoints"}


def inputs(root: Path, patterns: list[str], command: list[str]) -> str:
    "A hash of the files, the command and the Python that runs it."
    files = {
        f for p in patterns for f in root.glob(p) if f.is_file() and not SKIP & set(f.relative_to(root).parts)
    }
    sums = [f"{f.relative_to(root)} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in sorted(files)]
    return hashlib.sha256("\n".join([*sums, *command, platform.python_version()]).encode()).hexdigest()


def main(arguments: list[str], root: Path = Path(".")) -> int:
    split = arguments.index("--")
    (name, *patterns), command = arguments[:split], arguments[split + 1 :]
    stamp = root / ".make" / name
    now = inputs(root, patterns, command)
    if stamp.exists() and stamp.read_text() == now:
        print(f"✓ {name}: nothing changed since it passed", flush=True)
        return 0
    print(f"▶ {name}: {' '.join(command)}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command).returncode
    print(f"{'✗' if status else '✓'} {name} ({time.monotonic() - began:.0f} s)\n", flush=True)
    if status:
        stamp.unlink(missing_ok=True)
    else:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(inputs(root, patterns, command))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
