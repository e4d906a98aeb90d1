"""Seconds until a library is imported, each in a fresh process, in one run: python bench/imports.py [--json
FILE]

llmlab's modules are imported one at a time, as a reader needs them; `llmlab.transformer` is a whole GPT. Most
of the
time is PyTorch's own. Rounds are interleaved, after one that fills the disk's cache.
"""

import statistics
import subprocess
import sys

from _shared import arguments, interleave, write

LINES = {
    "torch": "import torch",
    "llmlab": "import llmlab",
    "llmlab.transformer": "from llmlab.transformer import Decoder",
    "llmlab.training": "from llmlab.training import fit",
    "transformers, GPT-2": "from transformers import GPT2LMHeadModel",
    "transformers, Trainer": "from transformers import Trainer",
}


def main():
    args = arguments(__doc__, rounds=5, threads=None).parse_args()
    fresh = lambda line: subprocess.run([sys.executable, "-c", line], check=True)  # noqa: E731
    ways = {name: lambda line=line: fresh(line) for name, line in LINES.items()}
    seconds = {
        name: statistics.median(times) for name, times in interleave(ways, args.rounds, warm=1).items()
    }
    rows = {
        name: {"seconds": round(s, 3), "over_torch": round(s / seconds["torch"], 2)}
        for name, s in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:24} {row['seconds']:6.2f} s   {row['over_torch']:.2f} × torch")
    write(args, {"imports": rows}, "transformers")


if __name__ == "__main__":
    main()
