"What the benchmarks share: arguments, interleaved rounds, and a note of where and on what they ran."

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import llmlab
from llmlab.checkpoints import write_atomically

DEVICE = torch.device(os.environ.get("LLMLAB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
TINY = bool(os.environ.get("LLMLAB_TINY"))  # sizes that show that a benchmark runs, and measure nothing


def arguments(doc, rounds=None, threads=2):
    "A parser with what benchmarks take; without threads or rounds, these decide nothing and are no option."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if threads:
        parser.add_argument("--threads", type=int, default=threads)
    if rounds:
        parser.add_argument("--rounds", type=int, default=1 if TINY else rounds)
    parser.add_argument("--json", type=Path, help="write the result here")
    return parser


def interleave(ways, rounds, warm=3, after=None):
    """Seconds of each way in each round, a slow moment of the machine hits all of them; the first rounds warm
    up.

    `after` is called with them after each round that counts, so that a run that is cut short has written
    something."""
    wait = torch.cuda.synchronize if DEVICE.type == "cuda" else lambda: None
    seconds = {name: [] for name in ways}
    for turn in range(rounds + warm):
        for name, way in ways.items():
            wait()
            began = time.perf_counter()
            way()
            wait()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - began)
        if after and turn >= warm:
            after(seconds)
    return seconds


def ratio(theirs, ours):
    "Median over the rounds of how many times as long they take."
    return round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 3)


def commit():
    "Which state of the repository is measured."
    ran = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
    )
    return ran.stdout.strip() or "unknown"


def version_of(package):
    "Its version, or that it is not here."
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def write(args, tables, *packages, **more):
    "The result as JSON, where a file is named; may be called after each part, for a run may be cut short."
    gpu = DEVICE.type == "cuda"
    where = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "commit": commit(),
        "python": platform.python_version(),
        "llmlab": llmlab.__version__,
        **({"tiny": True} if TINY else {}),
        **{name: version_of(name) for name in ("torch", *packages)},
        **{key: value for key, value in vars(args).items() if isinstance(value, int | float | str)},
        **more,
    }
    if args.json:
        write_atomically(args.json, (json.dumps({**where, **tables}, indent=1) + "\n").encode())
