"""A process of its own that opens files of strangers, one after another, and says what each of them took.

`Opener` starts it. For each file it answers with the error, its seconds of CPU, and two measures of
memory: how far the resident set rose above what it was before this file (VmHWM, which Linux resets on
request), and whether the file was refused although the process could not get more than LIMIT of
addresses beyond what it had. Both are of this file alone: the peak of a process's whole life, which
getrusage tells, would hide a rise below an earlier peak.
"""

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 50_000_000  # bytes that a hostile file may take, resident and as addresses
TABLE = []  # what was measured in this session: (what, error, milliseconds, megabytes)


def status(name: str) -> int:
    "A line of /proc/self/status, in bytes."
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def measured(call) -> dict:
    "Error, seconds and bytes of one call."
    ctypes.CDLL(None).malloc_trim(0)  # what earlier files left in the heap must not serve this one
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, ceiling = status("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + LIMIT, ceiling[1]))
    began = time.process_time()
    try:
        call()
        kind, text = None, ""
    except BaseException as error:  # a panic of Rust is no Exception
        kind, text = type(error).__name__, str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, ceiling)
    seconds = time.process_time() - began
    return {"error": kind, "text": text[:2000], "seconds": seconds, "bytes": status("VmHWM") - before}


def serve(calls: dict) -> None:
    "Answer lines of [what to call, path]."
    for line in sys.stdin:
        what, path = json.loads(line)
        print(json.dumps(measured(lambda: calls[what](path))), flush=True)  # noqa: B023


class Opener:
    "The process; `ask` it to open a file."

    def __init__(self):
        env = os.environ | {"OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, **pipes, text=True, env=env)

    def ask(self, what: str, path) -> dict:
        self.process.stdin.write(json.dumps([what, str(path)]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process ended with {self.process.wait()} over {what} {path}"
        return json.loads(answer)

    def refused(self, what: str, path, match: str = "", name: str = "") -> str:
        "The words in which the file is refused, in little memory. Seconds are told: a test has no clock."
        answer = self.ask(what, path)
        milliseconds, megabytes = 1e3 * answer["seconds"], answer["bytes"] / 1e6
        TABLE.append((name or Path(path).name, answer["text"], milliseconds, megabytes))
        assert answer["error"] == "ValueError", answer
        assert answer["text"] and re.search(match, answer["text"]), (
            f"{match!r} does not fit {answer['text']!r}"
        )
        assert answer["bytes"] < LIMIT, f"{megabytes:.1f} MB"
        return answer["text"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def table() -> str:
    "What was measured, a line a file."
    rows = [f"{name[:60]:60} {text[:100]:100} {ms:7.1f} ms {mb:6.1f} MB" for name, text, ms, mb in TABLE]
    return "\n".join(rows)


if __name__ == "__main__":
    import warnings

    import torch

    from llmlab import checkpoints
    from llmlab.loading import load_pretrained

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    checkpoints.load_shipped()  # what the first file needs once: code from the disk, caches
    load_pretrained(checkpoints.shipped_path("stories-bert"))
    serve(
        {
            "checkpoint": checkpoints.load_checkpoint,
            "header": checkpoints.read_checkpoint,
            "folder": load_pretrained,
            "greedy": lambda _: bytearray(10**8),  # this measure can fail: 100 MB of addresses,
            "resident": lambda _: [bytearray(10**5) for _ in range(400)],  # and 40 MB of memory
        }
    )
