"The command `llmlab lab` copies the chapters and never loses what a user made."

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_live import free_port

from llmlab.course import lab
from llmlab.course.doctor import Finding


def test_copies_every_chapter_byte_for_byte(tmp_path):
    done = lab.copy_chapters(tmp_path / "course")
    assert set(done.values()) == {"new"} and set(done) == set(lab.chapters())
    for name, content in lab.chapters().items():
        assert (tmp_path / "course" / name).read_bytes() == content


def test_a_changed_file_is_kept_and_an_untouched_one_updated(tmp_path, monkeypatch):
    lab.copy_chapters(tmp_path)
    first, second = list(lab.chapters())[:2]
    (tmp_path / first).write_text("mine")
    release = {name: content + b" " for name, content in lab.chapters().items()}
    monkeypatch.setattr(lab, "chapters", lambda: release)
    done = lab.copy_chapters(tmp_path)
    assert done[first] == "kept" and (tmp_path / first).read_text() == "mine"
    assert done[second] == "updated" and (tmp_path / second).read_bytes() == release[second]
    assert lab.copy_chapters(tmp_path)[first] == "kept"


@pytest.mark.parametrize("record", [None, "", "[]", "not json"])
def test_without_a_readable_record_every_other_file_is_the_users(tmp_path, record):
    name = next(iter(lab.chapters()))
    (tmp_path / name).write_text("older release, or mine")
    if record is not None:
        (tmp_path / lab.MANIFEST_NAME).write_text(record)
    assert lab.copy_chapters(tmp_path)[name] == "kept"
    assert name not in json.loads((tmp_path / lab.MANIFEST_NAME).read_text())


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, but the chapters need a folder"):
        lab.copy_chapters(tmp_path / "file")
    with pytest.raises(SystemExit) as stop:
        lab.main(["lab", str(tmp_path / "file"), "--no-open"])
    assert stop.value.code == 1 and "name another one" in capsys.readouterr().err


def test_command_reports_and_says_what_to_install(tmp_path, capsys, monkeypatch):
    assert lab.main(["lab", str(tmp_path), "--no-open"]) == 0
    assert f"{len(lab.chapters())} chapters new in {tmp_path}" in capsys.readouterr().out
    (tmp_path / "notation.ipynb").write_text("mine")
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    missing = [Finding("note", "jupyterlab is missing", 'pip install "jupyterlab>=4.2"')]
    monkeypatch.setattr(lab, "check_packages", lambda: missing)
    assert lab.main(["lab", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "notation.ipynb: kept yours" in said.out and 'pip install "jupyterlab>=' in said.err


STAND_IN = """import os, signal, sys
def stop(number, frame):
    print("signal", number, flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
print("ready", os.getcwd(), sys.argv[1:], flush=True)
while True:
    signal.pause()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_jupyterlab_takes_the_commands_place_signals_and_status_included(tmp_path, number):
    "A stand-in for JupyterLab gets the signal once, in our process; its exit status is ours."
    (tmp_path / "jupyterlab.py").write_text(STAND_IN)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "llmlab", "lab", str(tmp_path / "mine"), "--", "--port=9000"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        line = ""
        while not line.startswith("ready"):
            line = run.stdout.readline()
            assert line, run.stderr.read()
        assert str(tmp_path / "mine") in line and "--port=9000" in line
        assert ("--allow-root" in line) == (os.geteuid() == 0)
        run.send_signal(number)
        out, err = run.communicate()
    assert run.returncode == 7 and out.count("signal") == 1 and err == ""


def test_root_and_containers_get_what_they_need_and_nobody_else(monkeypatch):
    monkeypatch.setattr(lab.os, "geteuid", lambda: 1000, raising=False)
    monkeypatch.setattr(lab, "_container", lambda: False)
    assert lab._lab_options(["--port=1"]) == ["--port=1"]
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(lab, "_container", lambda: True)
    assert lab._lab_options(["--no-browser"]) == ["--allow-root", "--ip=0.0.0.0", "--no-browser"]
    for address in ("--ip=127.0.0.1", "--ServerApp.ip=127.0.0.1"):
        assert lab._lab_options([address]) == ["--allow-root", "--no-browser", address]


def test_an_interrupted_copy_leaves_whole_files_and_heals(tmp_path, monkeypatch):
    real, calls = lab.os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 6:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(lab.os, "replace", interrupted)
    assert lab.main(["lab", str(tmp_path), "--no-open"]) == 130
    there = [f for f in tmp_path.rglob("*") if f.is_file() and f.name != lab.MANIFEST_NAME]
    release = lab.chapters()
    assert there and all(f.read_bytes() == release[f.relative_to(tmp_path).as_posix()] for f in there)
    monkeypatch.setattr(lab.os, "replace", real)
    assert set(lab.copy_chapters(tmp_path).values()) == {"new", "same"}
    monkeypatch.setattr(lab, "chapters", lambda: {name: text + b" " for name, text in release.items()})
    assert set(lab.copy_chapters(tmp_path).values()) == {"updated"}


def test_a_chapter_that_a_release_dropped_is_mentioned_and_stays(tmp_path, monkeypatch, capsys):
    lab.copy_chapters(tmp_path)
    fewer = {name: text for name, text in lab.chapters().items() if name != "00_tour.ipynb"}
    monkeypatch.setattr(lab, "chapters", lambda: fewer)
    assert lab.main(["lab", str(tmp_path), "--no-open"]) == 0
    assert "00_tour.ipynb: this release has no such chapter" in capsys.readouterr().out
    assert (tmp_path / "00_tour.ipynb").exists()


def test_version_and_the_doctors_verdict(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        lab.main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"llmlab {lab._version()}\n"
    for verdict in (0, 1):
        monkeypatch.setattr(lab, "report", lambda verdict=verdict: verdict)
        assert lab.main(["doctor"]) == verdict


def test_the_last_measurements_are_at_hand():
    assert {"date", "device", "shapes"} <= set(lab.load_results("train_step"))
    with pytest.raises(
        ValueError, match="no benchmark 'speed' was measured: take one of answering, attention"
    ):
        lab.load_results("speed")


# --- JupyterLab itself --------------------------------------------------------------------------------------

OURS = ["-m", "llmlab", "lab", "mine", "--"]
ALONE = ["-m", "jupyterlab", "--allow-root"]


class Server:
    "JupyterLab in a process group of its own, as a terminal starts it, and what it has said so far."

    def __init__(self, words: list[str], folder: Path, port: int):
        options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--LabApp.news_url=None"]
        options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.log = folder / f"log-{words[1]}-{port}"
        env = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")}
        self.terminal, inside = (
            os.openpty()
        )  # JupyterLab asks a terminal, and nobody else, whether it shall stop
        with self.log.open("w") as log:
            self.run = subprocess.Popen(
                [sys.executable, *words, *options], cwd=folder, env=env, stdin=inside,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        os.close(inside)

    def wait_for(self, words: str, seconds: int = 300) -> str:
        "Until it has said so, or has ended; the limit is there to end a hang."
        for _ in range(seconds * 10):
            if words in self.log.read_text() or self.run.poll() is not None:
                break
            time.sleep(0.1)
        assert words in self.log.read_text(), self.log.read_text()[-3000:]
        return self.log.read_text()

    def stopped(self, number: int) -> int:
        "The exit status after a signal to the whole group; Ctrl-C is pressed twice, as JupyterLab asks for."
        self.wait_for("is running at")
        os.killpg(self.run.pid, number)
        if number == signal.SIGINT:
            self.wait_for("(y/[n])?")
            os.killpg(self.run.pid, number)
        return self.run.wait(300)


@pytest.fixture
def servers(tmp_path):
    "Starts servers, and leaves none behind."
    started = []

    def start(words, port=None):
        started.append(Server(words, tmp_path, port or free_port()))
        return started[-1]

    yield start
    for server in started:
        if server.run.poll() is None:
            os.killpg(server.run.pid, signal.SIGKILL)
            server.run.wait()
        os.close(server.terminal)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_jupyterlab_stops_as_it_does_alone(servers, number):
    ours, alone = servers(OURS), servers(ALONE)
    assert ours.stopped(number) == alone.stopped(number)
    for server in (ours, alone):
        assert "Traceback" not in server.log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(server.run.pid, 0)  # nobody of the group is left


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_busy_port_is_left_to_its_owner(servers):
    port = free_port()
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", port))
        owner.listen()
        said = servers(OURS, port).wait_for("is running at")
    assert f"The port {port} is already in use" in said and f"127.0.0.1:{port}/" not in said
