"The sandbox lets nothing through that it names, and right programs pass."

import math
import os
import warnings
import zoneinfo
from pathlib import Path

import pytest

from llmlab.tasks import sandbox
from llmlab.tasks.sandbox import Outcome, parse_answer, parses, read_report, run_program

posix = pytest.mark.skipif(os.name != "posix", reason="the sandbox needs POSIX limits")


def test_what_a_model_writes_brings_no_warnings():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert parses("x = 1if y else 2") and not heard
        assert parses("x is 3") and not heard


# --- the sandbox --------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "program, status",
    [
        ("x = 1", "passed"),
        ("import json, math, random, re, collections, statistics, decimal, heapq", "passed"),
        ("print('é' * 100_000)", "passed"),
        ("import threading; t = threading.Thread(target=print); t.start(); t.join()", "passed"),
        ("assert 1 == 2", "failed"),
        ("raise SystemExit(0)", "failed"),
        ("import os; os._exit(0)", "failed"),
        ("def f(): f()\nf()", "failed"),
        ("import os; os.abort()", "failed"),
        ("x = [0] * 10**10", "memory"),
        ("def f(:", "invalid"),
        ("x = '\0'", "invalid"),
    ],
)
def test_how_a_program_ends(program, status):
    assert run_program(program).status == status


@posix
@pytest.mark.parametrize(
    "program, what",
    [
        ("open('{place}', 'w')", "file"),
        ("import os; os.open('{place}', os.O_CREAT | os.O_WRONLY)", "file"),
        ("import pathlib; pathlib.Path('{place}').touch()", "file"),
        ("open('/etc/passwd')", "file"),
        ("import os; os.listdir('/')", "file"),
        ("import os; os.remove('{victim}')", "file"),
        ("import os; os.rename('{victim}', '{place}')", "file"),
        ("import os; os.truncate('{victim}', 0)", "file"),
        ("import shutil; shutil.rmtree('{folder}')", "file"),
        ("import os; os.chmod('{victim}', 0)", "file"),
        ("import os; os.symlink('{victim}', '{place}')", "file"),
        ("import os; os.mkdir('{place}')", "file"),
        ("import socket; socket.socket()", "network"),
        ("import urllib.request; urllib.request.urlopen('http://192.0.2.1')", "network"),
        ("import os\nwhile True: os.fork()", "process"),
        ("import os; os.system('touch {place}')", "process"),
        ("import os; os.execv('/bin/true', ['true'])", "process"),
        ("import os; os.posix_spawn('/bin/true', ['true'], {{}})", "process"),
        ("import subprocess; subprocess.run(['touch', '{place}'])", "process"),
        ("import os; os.kill(os.getppid(), 9)", "process"),
        ("import ctypes", "foreign code"),
        ("import mmap", "foreign code"),
        (
            (
                "import _posixsubprocess as p; p.fork_exec([b'touch', b'{place}'], [b'/bin/touch'], "
                "*[None] * 20)"
            ),
            "process",
        ),
        ("import sys; del sys.modules['_posixsubprocess']; import _posixsubprocess", "process"),
        ("import socket; socket.socketpair()[0].connect('{victim}')", "network"),
        ("import socket; socket.socket(socket.AF_UNIX).bind('{place}')", "network"),
        ("import asyncio; asyncio.run(asyncio.open_connection('192.0.2.1', 80))", "network"),
        ("import asyncio; asyncio.run(asyncio.create_subprocess_exec('touch', '{place}'))", "process"),
        ("import sqlite3; sqlite3.connect(':memory:')", "file"),
        ("import tempfile; tempfile.TemporaryFile()", "file"),
        ("import multiprocessing as m; m.get_context('fork').Process(target=print).start()", "process"),
    ],
)
def test_what_is_refused(tmp_path, program, what):
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_text("mine")
    outcome = run_program(program.format(place=place, victim=victim, folder=tmp_path))
    assert outcome.status == "refused" and outcome.detail.startswith(what), outcome
    assert victim.read_text() == "mine" and not place.exists()


@posix
@pytest.mark.parametrize(
    "program", ["while True: pass", "import time; time.sleep(3600)", "while True: print('x' * 10_000)"]
)
def test_what_takes_too_long_is_ended(program):
    assert run_program(program, seconds=1) == Outcome("timeout", "more than 1 s")


@posix
def test_a_caught_refusal_is_still_one():
    caught = "try:\n    open('a', 'w')\nexcept BaseException:\n    pass\nassert True"
    assert run_program(caught) == Outcome("refused", "file: open a")


@posix
def test_the_child_sees_neither_the_environment_nor_the_folder(monkeypatch):
    monkeypatch.setenv("SECRET", "password")
    assert run_program("import os; assert not os.environ.get('SECRET'), os.environ").status == "passed"
    assert run_program(f"import os; assert os.getcwd() != {str(Path.cwd())!r}").status == "passed"


@posix
def test_no_process_is_left():
    program = "import threading, time\nthreading.Thread(target=time.sleep, args=(77,)).start()"
    assert run_program(program).status == "passed"
    cmdlines = [f.read_bytes() for f in Path("/proc").glob("[0-9]*/cmdline") if os.access(f, os.R_OK)]
    assert not [c for c in cmdlines if b"setrlimit" in c and b"python" in c.split(b"\0")[0]]


def test_a_report_counts_only_with_its_number():
    assert read_report("abc passed ", "abc", 0, 2) == Outcome("passed", "")
    assert read_report("abc failed ValueError: no", "abc", 0, 2) == Outcome("failed", "ValueError: no")
    assert read_report("abc passed \0list([1])", "abc", 0, 2, n_calls=1).values == ([1],)
    assert read_report("abc passed \0list([1])", "abc", 0, 2, n_calls=2) == Outcome(
        "failed", "1 of 2 answers came"
    )
    assert read_report("passed ", "abc", 0, 2).status == "failed"
    assert (
        read_report("", "abc", None, 2)
        == read_report("", "abc", -9, 2)
        == Outcome("timeout", "more than 2 s")
    )


@pytest.mark.parametrize("limits", [dict(seconds=0), dict(seconds=-1), dict(megabytes=1), dict(seconds=True)])
def test_limits_that_no_python_starts_with(limits):
    with pytest.raises(
        ValueError, match="=.*: expected a whole number of at least (1|64; a Python needs them)"
    ):
        run_program("x = 1", **limits)


def test_another_system_is_told(monkeypatch):
    monkeypatch.setattr(sandbox.os, "name", "nt")
    with pytest.raises(ValueError, match="'nt' does not have: use Linux, macOS or WSL"):
        sandbox.check_limits(1, 256)


@pytest.mark.parametrize(
    "source, good", [("x = 1", True), ("", True), ("x =", False), ("\0", False), ("(" * 500, False)]
)
def test_parses(source, good):
    assert parses(source) == good


# --- the program is the main module -------------------------------------------------------------------------

LATER = "from __future__ import annotations\n"
RIGHT = {
    "pickle": "import pickle\nclass A:\n    x = 1\nassert pickle.loads(pickle.dumps(A())).x == 1\n",
    "enum": (
        "import enum, pickle\nclass C(enum.Enum):\n    A = 1\nassert pickle.loads(pickle.dumps(C.A)) is C.A\n"
    ),
    "deep copy": "import copy\nclass A:\n    pass\nassert type(copy.deepcopy([A()])[0]) is A\n",
    "named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x')\nassert P.__module__ == '__main__'\n"
    ),
    "type hints": LATER + "import typing\nclass N:\n    n: N\nassert typing.get_type_hints(N)['n'] is N\n",
    "keyword only": LATER
    + "from dataclasses import dataclass, fields, KW_ONLY\n"
    + "@dataclass\nclass A:\n    x: int\n    _: KW_ONLY\n    y: int = 2\n"
    + "assert [f.name for f in fields(A)] == ['x', 'y']\n",
    "init variable": LATER
    + (
        "from dataclasses import dataclass, InitVar\n"
        "@dataclass\nclass A:\n    x: int\n    k: InitVar[int] = 3\n"
    )
    + "    def __post_init__(self, k):\n        self.x += k\nassert A(1).x == 4\n",
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test_a(self):\n        self.assertEqual(1, 1)\n"
    )
    + "assert unittest.main(exit=False).result.testsRun == 1\n",
    "arguments": "import sys, argparse\nassert len(sys.argv) == 1\nargparse.ArgumentParser().parse_args()\n",
    "itself": "import __main__\nx = 3\nassert __main__.x == 3 and __name__ == '__main__'\n",
}


# What else right programs use, one line each; what is refused stands above.
LINES = (Path(__file__).parent / "data" / "right_programs.txt").read_text(encoding="utf-8").splitlines()
RIGHT |= {line.split(";")[0]: line.replace("; ", "\n") for line in LINES}
RIGHT |= {
    "asyncio": "import asyncio\nasync def main():\n"
    + "    return await asyncio.gather(*(asyncio.sleep(0.01, i) for i in 'ab'))\n"
    + "assert asyncio.run(main()) == ['a', 'b']\n",
    "doctest": 'import doctest\ndef f():\n    """\n    >>> f()\n    2\n    """\n    return 2\n'
    + "assert doctest.testmod() == (0, 1)\n",
    "its source": "import inspect\nclass A:\n    def f(self):\n        return 7\n"
    + "assert inspect.getsource(A).count('7') == inspect.getsource(A.f).count('7') == 1\n",
    "a traceback": "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n"
    + "    assert '    1 / 0' in traceback.format_exc()\n",
    "a file that is not there": "try:\n    open('no such file')\nexcept FileNotFoundError:\n    pass\n"
    + "else:\n    raise ValueError\n",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_that_look_themselves_up_pass(name):
    assert run_program(RIGHT[name]) == Outcome("passed", "")


def test_the_program_does_not_see_the_harness():
    seen = run_program(
        "import __main__\nassert not {'nonce', 'pipe', 'refused', 'watch'} & set(vars(__main__))\n"
    )
    assert seen.status == "passed"


@pytest.mark.skipif(not any(map(os.path.isdir, zoneinfo.TZPATH)), reason="this machine has no time zones")
def test_time_zones_are_readable():
    program = "import datetime, zoneinfo\nzone = zoneinfo.ZoneInfo('Europe/Berlin')\n"
    program += "then = datetime.datetime(2024, 7, 1, tzinfo=zone)\n"
    assert run_program(program + "assert then.utcoffset().seconds == 7200") == Outcome("passed", "")


# --- the values that a program is asked for -----------------------------------------------------------------

VALUES = [
    0,
    -3,
    True,
    None,
    1.5,
    -0.0,
    2j,
    "é\n\0'",
    b"\0",
    [],
    (),
    set(),
    {},
    (1,),
    [[1], {2: {3}}],
    {"a": (None,)},
]


def test_values_come_back_as_they_are():
    given = run_program("def f(x):\n    return x\n", calls=tuple(f"f({value!r})" for value in VALUES))
    assert given.status == "passed" and repr(given.values) == repr(tuple(VALUES))
    inf, nan = run_program("", calls=("float('-inf')", "float('nan')")).values
    assert inf == -math.inf and math.isnan(nan)


@pytest.mark.parametrize(
    "program, detail",
    [
        ("f = lambda: object()", "TypeError: a value of object, expected numbers, texts"),
        ("f = lambda: 'x' * 20_000", "answers of 2"),
        ("f = lambda: 1 / 0", "ZeroDivisionError"),
        ("", "NameError"),
        ("l = []\nl.append(l)\nf = lambda: l", "RecursionError"),
    ],
)
def test_values_that_cannot_be_told(program, detail):
    outcome = run_program(program, calls=("f()",))
    assert outcome.status == "failed" and outcome.detail.startswith(detail) and outcome.values == ()


NOT_PLAIN = [
    "f()",
    "__import__('os')",
    "open('x')",
    "[1",
    "(" * 9000,
    "list(1)",
    "[*x]",
    "x",
    "{**{}}",
    "",
    "float(x)",
]


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_an_answer_is_read_and_not_run(text):
    with pytest.raises(ValueError, match="is no plain value"):
        parse_answer(text)


# --- what is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", ["f()", ("f(",), ("x = (",), [["f()"]], {"f()": 1}, None])
def test_calls_are_a_list_of_expressions(calls, unchecked):
    with pytest.raises(ValueError, match="expected a list of expressions"):
        run_program("def f(): pass", calls=calls)


def test_a_list_of_calls_is_a_tuple_of_calls():
    program = "def f(x):\n    return 2 * x"
    assert (
        run_program(program, calls=["f(21)"])
        == run_program(program, calls=("f(21)",))
        == Outcome("passed", "", (42,))
    )


def test_a_program_is_a_text(unchecked):
    with pytest.raises(ValueError, match="program=5: expected the source of a program"):
        run_program(5)
