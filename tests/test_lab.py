"The command `llmlab lab` copies the chapters and never loses what a user made."
import json

import pytest

from llmlab import lab


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
        (tmp_path / lab.RECORD).write_text(record)
    assert lab.copy_chapters(tmp_path)[name] == "kept"
    assert name not in json.loads((tmp_path / lab.RECORD).read_text())


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
    (tmp_path / "99_notation.ipynb").write_text("mine")
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert lab.main(["lab", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "99_notation.ipynb: kept yours" in said.out and 'pip install "llmlab-course[course]"' in said.err


def test_command_opens_jupyterlab_in_the_folder(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(lab.subprocess, "call", lambda command, cwd: calls.append((command[1:], cwd)) or 0)
    assert lab.main(["lab", str(tmp_path)]) == 0
    assert calls == [(["-m", "jupyterlab"], tmp_path)]


def test_the_last_measurements_are_at_hand():
    assert {"date", "device", "shapes"} <= set(lab.measured("train_step"))
    with pytest.raises(ValueError, match="no benchmark 'speed' was measured: take one of attention, bleu"):
        lab.measured("speed")
