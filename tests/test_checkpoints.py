"Files: written whole or not at all, read without running anything, and what can be wrong with one."

import hashlib
import json
import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from llmlab import checkpoints
from llmlab.checkpoints import load_checkpoint, random_states, save_checkpoint, set_random_states
from llmlab.sheets import write_sheet
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

CFG = Config(vocab_size=20, context=8, layers=1, heads=2, d_model=16, dropout=0.1)


def decoder(seed=0, **change):
    torch.manual_seed(seed)
    return Decoder(replace(CFG, **change))


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("make", [Decoder, Encoder, EncoderDecoder])
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_round_trip(tmp_path, make, tied):
    torch.manual_seed(1)
    model = make(replace(CFG, tied=tied, position="rope", norm="rms"))
    save_checkpoint(model, tmp_path / "new" / "m.safetensors", step=3, corpus="stories")
    back, facts = load_checkpoint(tmp_path / "new" / "m.safetensors")
    assert type(back) is make and back.cfg == model.cfg and same(back, model) and not back.training
    assert facts == {"step": 3, "corpus": "stories"}
    assert os.listdir(tmp_path / "new") == ["m.safetensors"]


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = decoder()
    save_checkpoint(model, tmp_path / "m.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
    back = load_checkpoint(tmp_path / "m.safetensors")[0]
    assert back.head_weight is back.embed.tokens.weight


def test_half_precision_storage_loads_as_fp32(tmp_path):
    model = decoder()
    save_checkpoint(model, tmp_path / "m.safetensors", dtype=torch.bfloat16)
    back = load_checkpoint(tmp_path / "m.safetensors")[0]
    for p, q in zip(model.parameters(), back.parameters(), strict=True):
        assert q.dtype == torch.float32 and torch.equal(q, p.bfloat16().float())


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_checkpoint(decoder(0), path)
    old = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        save_checkpoint(decoder(1), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["m.safetensors"]


def test_a_kill_before_the_rename_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_checkpoint(decoder(0), path)
    old = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(decoder(1), path)
    assert path.read_bytes() == old


def test_unwritable_path_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot write .*m.safetensors .*choose a folder"):
        save_checkpoint(decoder(), tmp_path / "file" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write .*folder"):
        save_checkpoint(decoder(), tmp_path / "folder")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_checkpoint(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    save_checkpoint(decoder(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="m.safetensors is cut short or no safetensors file"):
        load_checkpoint(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "m"
    path.write_text("hello, I am a pickle" * 100)
    with pytest.raises(ValueError, match="no safetensors file"):
        load_checkpoint(path)
    for metadata in (None, {"format": "pt"}, {"llmlab": '{"class": "Decoder"}'}, {"llmlab": "[1]"}):
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata)
        with pytest.raises(
            ValueError, match="no header of llmlab.save_checkpoint|holds a list, expected a dict"
        ):
            load_checkpoint(path)


def test_every_mismatch_is_named(tmp_path):
    save_checkpoint(decoder(), tmp_path / "m")
    other = decoder(vocab_size=30, layers=2)
    before = [p.detach().clone() for p in other.parameters()]
    with pytest.raises(ValueError) as error:
        load_checkpoint(tmp_path / "m", other)
    assert "embed.tokens.weight: [20, 16] in the file, [30, 16] in the model" in str(error.value)
    assert "blocks.1.attention.qkv.weight: nothing in the file, [48, 16] in the model" in str(error.value)
    assert all(
        torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True)
    )  # nothing was half loaded


def test_a_missing_checkpoint_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_class_that_is_not_ours_is_not_made(tmp_path):
    about = {"class": "Popen", "config": {"args": "true"}, "facts": {}}
    safetensors.torch.save_file({"w": torch.zeros(2, 2)}, tmp_path / "m", {"llmlab": json.dumps(about)})
    with pytest.raises(
        ValueError, match=r"m holds a Popen: make the model yourself and call load_checkpoint\(path, model\)"
    ):
        load_checkpoint(tmp_path / "m")
    linear = torch.nn.Linear(2, 2, bias=False)
    safetensors.torch.save_file({"weight": torch.ones(2, 2)}, tmp_path / "m", {"llmlab": json.dumps(about)})
    assert load_checkpoint(tmp_path / "m", linear)[0].weight.tolist() == [[1, 1], [1, 1]]


def test_any_module_can_be_saved(tmp_path):
    linear = torch.nn.Linear(2, 2)
    save_checkpoint(linear, tmp_path / "m", note="mine")
    assert load_checkpoint(tmp_path / "m", torch.nn.Linear(2, 2))[1] == {"note": "mine"}


def test_no_file_of_that_name_is_shipped():
    with pytest.raises(ValueError, match="no 'nothing' comes with llmlab"):
        checkpoints.shipped_path("nothing")


def test_random_states_survive_json():
    import random

    import numpy as np

    draw = lambda: (torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.randn())  # noqa: E731
    draw()
    states = json.loads(json.dumps(random_states()))
    first = draw()
    draw()
    set_random_states(states)
    assert draw() == first


def test_a_shipped_checkpoint_is_loaded_by_its_name():
    model, facts = checkpoints.load_shipped("stories-gpt")
    by_path = load_checkpoint(checkpoints.shipped_path("stories-gpt.safetensors"))
    assert facts == by_path[1] and torch.equal(model.head_weight, by_path[0].head_weight)
    with pytest.raises(ValueError, match="no 'mine.safetensors' comes with llmlab: there are"):
        checkpoints.load_shipped("mine")


def test_the_manifest_knows_every_shipped_file():
    folder = checkpoints.shipped_path("manifest.json").parent
    listed = json.loads((folder / "manifest.json").read_text())
    there = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert {*there} == {*listed, "manifest.json"}
    for name, entry in listed.items():
        assert (entry["bytes"], entry["sha256"]) == (
            len(there[name]),
            hashlib.sha256(there[name]).hexdigest(),
        ), name


# --- a path may begin with ~ --------------------------------------------------------------------------------


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save_checkpoint(Decoder(Config(8, 8, 1, 1, 8)), "~/model.safetensors")
    Tokenizer.train("abab", 258).save("~/tokens.json")
    write_sheet("~/card.md", "yes")
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "tokens.json", "card.md"}
    assert load_checkpoint("~/model.safetensors")[0].cfg == Config(8, 8, 1, 1, 8)
    assert Tokenizer.load("~/tokens.json").vocab_size == 258
