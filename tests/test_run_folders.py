"The folder of a run: which files it keeps, and which of them are believed."

import math
import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from small_runs import IDS, Stop, decoder, loss, losses, run, same, stopping

from llmlab import checkpoints
from llmlab.checkpoints import load_checkpoint, step_files
from llmlab.same_run import fingerprint
from llmlab.training import Batches, Recipe, Windows, fit

# --- what is kept -------------------------------------------------------------------------------------------


def test_fit_keeps_the_last_ones_and_the_best(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 4.0])
    recipe = Recipe(steps=8, batch_size=4, every=2, keep=2)
    model, _ = run(recipe, eval_fn=lambda m: next(scores), checkpoint_dir=tmp_path)
    names = ["best.safetensors", "history.jsonl", "step-00000006.safetensors", "step-00000008.safetensors"]
    assert sorted(os.listdir(tmp_path)) == names
    (last, facts), (best, about) = (
        load_checkpoint(step_files(tmp_path)[-1]),
        load_checkpoint(tmp_path / "best.safetensors"),
    )
    assert same(last, model) and facts["step"] == 8 and about["step"] == 4 and about["valid"] == 1.0
    assert not same(best, model)


def test_a_validation_that_begins_with_nan_still_finds_its_best(tmp_path):
    values = iter([math.nan, math.inf, 3.0, 5.0])
    seen = []

    def validate(model):
        seen.append({name: x.clone() for name, x in model.state_dict().items()})
        return next(values)

    fit(
        decoder(),
        Batches(Windows(IDS, 9), batch_size=4),
        loss,
        Recipe(steps=4, batch_size=4, every=1),
        validate,
        tmp_path,
    )
    best, facts = load_checkpoint(tmp_path / "best.safetensors")
    assert facts["step"] == 3 and all(torch.equal(x, seen[2][name]) for name, x in best.state_dict().items())


def test_files_of_other_names_are_somebody_else_s(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=1, keep=1)
    (tmp_path / "step-final.safetensors").write_text("mine")
    run(recipe, checkpoint_dir=tmp_path)
    run(recipe, checkpoint_dir=tmp_path)
    assert (tmp_path / "step-final.safetensors").read_text() == "mine"
    assert [checkpoints.step_of(path) for path in step_files(tmp_path)] == [4]


# --- what cannot be written ---------------------------------------------------------------------------------


def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path, monkeypatch):
    recipe = Recipe(steps=6, batch_size=4, every=2)
    real, calls = os.fsync, iter(range(100))

    def full(fd):  # 1 at the start, 2 a checkpoint
        if next(calls) >= 4:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*step-00000004.safetensors \(No space left on device\)"
    ):
        run(recipe, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    assert [path.name for path in step_files(tmp_path)] == ["step-00000002.safetensors"]
    assert same(run(recipe, checkpoint_dir=tmp_path)[0], run(recipe)[0])


def test_a_folder_that_cannot_be_written_is_found_out_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot write .*history.jsonl .*choose a folder"):
        fit(
            decoder(),
            Batches(Windows(IDS, 9), batch_size=4),
            stopping(0),
            Recipe(steps=3),
            checkpoint_dir=tmp_path / "file",
        )


# --- a history with holes -----------------------------------------------------------------------------------


def test_rows_and_halves_that_no_checkpoint_knows_are_dropped(tmp_path):
    recipe = Recipe(steps=6, batch_size=4, every=3)
    with pytest.raises(Stop):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), stopping(4), recipe, checkpoint_dir=tmp_path)
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"st')
    (tmp_path / ".step-00000004.safetensors.77.tmp").write_bytes(b"half")
    plain, expected = run(recipe)
    model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert not list(tmp_path.glob(".*")) and checkpoints.read_rows(tmp_path) == history


@pytest.mark.parametrize(
    "harm, said",
    [
        (
            lambda lines: [],
            r"lacks the rows of steps 1 to 4, which the checkpoint has made: put the file back",
        ),
        (lambda lines: lines[:3], r"lacks the rows of steps 4 to 4"),
        (lambda lines: lines[1:], r"line 1, is not the row of step 1"),
        (lambda lines: [*lines[:2], "{garbage", lines[3]], r"line 3, is not the row of step 3: '\{garbage'"),
        (lambda lines: ["[" * 10_000, *lines[1:]], r"line 1, is not the row of step 1"),
        (lambda lines: ["3", *lines[1:]], r"line 1, is not the row of step 1: '3'"),
    ],
)
def test_a_history_with_holes_is_refused_and_nothing_is_trained_twice(tmp_path, harm, said):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    run(recipe, checkpoint_dir=tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(harm(path.read_text().splitlines())))
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=said):
        run(replace(recipe, steps=6), checkpoint_dir=tmp_path)
    assert kept == {file: file.read_bytes() for file in tmp_path.iterdir()}


# --- a damaged checkpoint -----------------------------------------------------------------------------------


def test_a_cut_checkpoint_gives_way_to_the_whole_one_before_it(tmp_path):
    recipe = Recipe(steps=6, batch_size=4, every=2)
    plain, expected = run(recipe)
    run(recipe, checkpoint_dir=tmp_path)
    newest = step_files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.warns(
        UserWarning, match=r"cut short .*goes on from step-00000004.safetensors, the newest whole"
    ):
        model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert (tmp_path / "step-00000006.safetensors.broken").exists(), "what is broken is set aside, not lost"
    for path in step_files(tmp_path):
        path.write_bytes(b"nothing whole")
    with pytest.raises(ValueError, match="step-00000006.safetensors is cut short or no safetensors file"):
        run(recipe, checkpoint_dir=tmp_path)


def test_a_checkpoint_under_another_step_s_name_is_not_believed(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    run(recipe, checkpoint_dir=tmp_path)
    step_files(tmp_path)[-1].rename(tmp_path / "step-00000009.safetensors")
    with pytest.warns(UserWarning, match="says that it is of step 4: its name says otherwise"):
        _, history = run(recipe, checkpoint_dir=tmp_path)
    assert len(history) == 4


def rewritten(change):
    "Harm: a checkpoint with another header or other tensors, and a checksum that is right."

    def harm(path):
        about, tensors = checkpoints.read_file(path)
        change(about, tensors)
        path.write_bytes(checkpoints.serialize(tensors, about))

    return harm


def flipped(path):
    contents = bytearray(path.read_bytes())
    contents[-3] ^= 16
    path.write_bytes(contents)


def a_folder(path):
    path.unlink()
    path.mkdir()


HARM = {
    "one bit": (flipped, "is damaged: its checksum is"),
    "a folder of that name": (a_folder, "is no file"),
    "an empty file": (lambda path: path.write_bytes(b""), "cut short or no safetensors file"),
    "another library's": (
        lambda path: safetensors.torch.save_file({"a": IDS}, path),
        "has no header of llmlab",
    ),
    "no step of a run": (rewritten(lambda about, _: about.pop("run")), r"is damaged \(KeyError: 'run'\)"),
    "no recipe": (
        rewritten(lambda about, _: about["run"].pop("recipe")),
        r"is damaged \(KeyError: 'recipe'\)",
    ),
    "batches that are none": (
        rewritten(lambda about, _: about["run"].update(batches=3)),
        "has no recipe or no batches",
    ),
    "steps that are none": (
        rewritten(lambda about, _: about["run"].update(batches={"x": "y"})),
        "numbers no batches",
    ),
    "no random states": (rewritten(lambda about, _: about["run"].update(random=[{}])), "KeyError: 'python'"),
    "random states cut": (
        rewritten(lambda about, _: about["run"]["random"][0].update(torch="00ff")),
        "is damaged|RNG state",
    ),
    "an average of another shape": (
        rewritten(lambda _, tensors: tensors.update({"optimizer/exp_avg/norm.weight": torch.zeros(3)})),
        r"has \[3\] as optimizer/exp_avg/norm.weight, expected \[16\]",
    ),
    "an average of nothing": (
        rewritten(lambda _, tensors: tensors.update({"optimizer/exp_avg/mine": torch.zeros(3)})),
        r"is damaged \(KeyError: 'mine'\)",
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_whatever_is_wrong_with_the_newest_checkpoint_the_one_before_it_is_taken(tmp_path, name):
    harm, said = HARM[name]
    recipe = Recipe(steps=6, batch_size=4, every=2)
    plain, expected = run(recipe)
    run(recipe, checkpoint_dir=tmp_path)
    harm(step_files(tmp_path)[-1])
    with pytest.warns(UserWarning, match=f"{said}.*goes on from step-00000004.safetensors, the newest whole"):
        model, history = run(recipe, checkpoint_dir=tmp_path)
    assert losses(history) == losses(expected) and same(model, plain)
    assert (tmp_path / "step-00000006.safetensors.broken").exists(), "what is broken is set aside, not lost"


def test_a_checkpoint_from_before_batches_were_compared_by_step_goes_on(tmp_path):
    recipe = Recipe(steps=4, batch_size=4, every=2)
    plain, _ = run(replace(recipe, steps=6))
    run(recipe, checkpoint_dir=tmp_path)
    old = fingerprint(Batches(Windows(IDS, 9), batch_size=4)(0)).partition(" ")[0]

    def aged(about, tensors):
        about["run"]["batches"] = old
        about["run"].pop("loss")
        states = about["run"]["random"][0]
        states["torch"] = list(bytes.fromhex(states["torch"]))

    rewritten(aged)(step_files(tmp_path)[-1])
    with pytest.raises(ValueError, match=f"batch 0: {old} in the checkpoint"):
        run(recipe, seed=1, checkpoint_dir=tmp_path)
    assert len(run(recipe, checkpoint_dir=tmp_path)[1]) == 4
