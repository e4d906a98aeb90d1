"Files of numbers: what is one tensor and what are two; what a header may claim; a bit that flipped."

import json
import sys
import warnings
from dataclasses import asdict, replace

import pytest
import safetensors.torch
import torch
from hostile import LIMIT, Opener, table
from torch import nn

from llmlab import storage
from llmlab.checkpoints import (
    describe,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    serialize,
    write_atomically,
)
from llmlab.storage import own_tensors, planned_specs
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

CFG = Config(vocab_size=20, context=8, layers=2, heads=2, d_model=16)


def decoder(cls=Decoder, **change):
    torch.manual_seed(0)
    return cls(replace(CFG, **change))


# --- one tensor, two names ----------------------------------------------------------------------------------


def holding(**tensors):
    "A module with buffers of these names."
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    return module


BASE = torch.arange(12.0)
PAIRS = {
    "the same": (BASE, BASE, 1),
    "the same view": (BASE.view(3, 4), BASE.view(3, 4), 1),
    "another shape": (BASE.view(3, 4), BASE.view(4, 3), 2),
    "a part from the same start": (BASE, BASE[:5], 2),
    "turned": (BASE[:9].view(3, 3), BASE[:9].view(3, 3).T, 2),
    "another place": (BASE[:6], BASE[6:], 2),
    "another type": (BASE, BASE.view(torch.int32), 2),
    "equal numbers": (BASE, BASE.clone(), 2),
    "empty": (torch.zeros(0), torch.zeros(0), 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_names_are_one_tensor_only_where_all_agrees(tmp_path, name):
    one, two, count = PAIRS[name]
    module = holding(a=one, b=two)
    assert len(own_tensors(module)) == count
    save_checkpoint(module, tmp_path / "m")
    other = holding(a=torch.zeros_like(one), b=torch.zeros_like(two))
    if count == 1:
        other.b = other.a
    load_checkpoint(tmp_path / "m", other)
    assert torch.equal(other.a, one) and torch.equal(other.b, two), "each is stored in full and comes back"


@pytest.mark.parametrize("make", [Decoder, Encoder, EncoderDecoder])
@pytest.mark.parametrize("tied", [True, False])
def test_on_the_meta_device_all_tensors_are_there(make, tied):
    cfg = replace(CFG, tied=tied)
    with torch.device("meta"):
        shadow = make(cfg)
    assert [*own_tensors(shadow)] == [*own_tensors(make(cfg))]
    linear = nn.Linear(3, 3, device="meta")
    pair = nn.ModuleList([linear, nn.Linear(3, 3, device="meta"), linear])
    assert [*own_tensors(pair)] == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_what_is_no_tensor_is_named():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(ValueError, match="Extra keeps _extra_state, expected tensors only"):
        own_tensors(Extra(2, 2))


def test_tensors_that_fsdp_spreads_are_told_apart():
    "They have no address of their own: data_ptr() is 0 for each."
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = decoder()
        names = [*own_tensors(model)]
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert [*own_tensors(model)] == names and len(names) == 28
    finally:
        torch.distributed.destroy_process_group()


# --- what is planned is what is built -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [Decoder, Encoder, EncoderDecoder])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope", "alibi", "relative"])
@pytest.mark.parametrize(
    "change", [{}, dict(tied=False, norm="rms", feed_forward="swiglu", kv_heads=1, segments=2)]
)
def test_a_plan_has_the_forms_of_the_model_and_a_file_comes_back(tmp_path, make, position, change):
    model = decoder(make, position=position, layers=3, **change)
    assert planned_specs(make, model.cfg) == storage.model_specs(model)
    save_checkpoint(model, tmp_path / "m")
    before = torch.get_rng_state()
    storage.planned_specs(make, model.cfg)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn for a plan"
    back = load_checkpoint(tmp_path / "m")[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(back.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_keep_their_kind(tmp_path, dtype):
    "BatchNorm counts its batches with whole numbers, which are not made floats."
    model = nn.BatchNorm1d(3)
    model.num_batches_tracked += 7
    save_checkpoint(model, tmp_path / "m", dtype)
    assert storage.stored_specs(storage.open_weights(tmp_path / "m"))["num_batches_tracked"] == "[] I64"
    back = load_checkpoint(tmp_path / "m", nn.BatchNorm1d(3))[0]
    assert back.num_batches_tracked == 7 and back.weight.dtype == torch.float32
    back.num_batches_tracked = back.num_batches_tracked.float()
    with pytest.raises(ValueError, match=r"num_batches_tracked: \[\] I64 in the file, \[\] in the model"):
        load_checkpoint(tmp_path / "m", back)
    with pytest.raises(
        ValueError, match="dtype=torch.int8: weights are stored as float64, float32, float16 or bfloat16"
    ):
        save_checkpoint(model, tmp_path / "m", torch.int8)


def test_facts_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="the facts of a file are what JSON can hold"):
        save_checkpoint(decoder(), tmp_path / "m", when={1, 2})
    assert not [*tmp_path.iterdir()]


# --- a bit that flipped -------------------------------------------------------------------------------------


def test_every_bit_of_a_file_counts(tmp_path):
    "All bits of the header, and some of the numbers."
    path = tmp_path / "m"
    model = nn.Linear(3, 2)
    save_checkpoint(model, path, note="a fact")
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for i in [*range(8 * header), *range(8 * header, 8 * len(whole), 3)]:
        damaged = bytearray(whole)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            load_checkpoint(path, nn.Linear(3, 2))
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(path, nn.Linear(3, 2))[1] == {"note": "a fact"}


def test_a_damaged_file_says_so_and_leaves_the_model_as_it_was(tmp_path):
    save_checkpoint(decoder(), tmp_path / "m")
    contents = bytearray((tmp_path / "m").read_bytes())
    contents[-5] ^= 4
    (tmp_path / "m").write_bytes(contents)
    other = decoder(dropout=0.5)
    before = [p.detach().clone() for p in other.parameters()]
    for call in (
        lambda: load_checkpoint(tmp_path / "m", other),
        lambda: load_checkpoint(tmp_path / "m"),
        lambda: read_checkpoint(tmp_path / "m"),
    ):
        with pytest.raises(
            ValueError, match="is damaged: its checksum is .*, its contents give .*; take another copy"
        ):
            call()
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True))


def test_a_file_from_before_there_were_checksums_is_read_with_a_warning(tmp_path):
    model = decoder()
    safetensors.torch.save_file(
        own_tensors(model), tmp_path / "m", {"llmlab": json.dumps(describe(model, {}))}
    )
    with pytest.warns(UserWarning, match="m has no checksum, as an older llmlab wrote it"):
        back = load_checkpoint(tmp_path / "m")[0]
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters(), strict=True))


# --- files of strangers -------------------------------------------------------------------------------------

pytestmark_hostile = pytest.mark.skipif(sys.platform != "linux", reason="/proc measures one file's memory")


@pytest.fixture(scope="module")
def opener():
    there = Opener()
    yield there
    there.close()
    print(f"\n{table()}")


@pytestmark_hostile
def test_the_measure_can_fail(opener):
    assert opener.ask("greedy", "")["error"] == "MemoryError"
    answer = opener.ask("resident", "")
    assert answer["error"] is None and 35e6 < answer["bytes"] < LIMIT
    assert opener.ask("resident", "")["bytes"] > 35e6, "a second rise to the same height is seen, too"


def written(path, about, tensors=None):
    "A file with this header and a checksum that is right, some 16 kB."
    write_atomically(path, serialize(own_tensors(decoder()) if tensors is None else tensors, about))
    return path


def header(**config):
    return {"class": "Decoder", "config": asdict(CFG) | config, "facts": {}}


SIZES = [
    "vocab_size",
    "context",
    "layers",
    "heads",
    "d_model",
    "kv_heads",
    "d_head",
    "d_ff",
    "segments",
    "relative_buckets",
]
MATTERS = {"relative_buckets": dict(position="relative"), "d_model": dict(heads=1), "heads": dict(d_head=8)}


@pytestmark_hostile
@pytest.mark.parametrize("what", ["checkpoint", "header"])
@pytest.mark.parametrize("size", [10**7, 10**12, 10**400])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_the_file_cannot_have_is_refused_before_memory_is_taken(
    tmp_path, opener, name, size, what
):
    path = written(tmp_path / "m", header(**MATTERS.get(name, {}) | {name: size}))
    assert path.stat().st_size < 33_000
    opener.refused(
        what,
        path,
        "they do not belong together|describes no model",
        f"{what}: {name}={float(min(size, 10**300)):.0e}",
    )


@pytestmark_hostile
@pytest.mark.parametrize("cls", ["Encoder", "EncoderDecoder"])
@pytest.mark.parametrize("name", ["vocab_size", "layers"])
def test_the_other_models_too(tmp_path, opener, cls, name):
    about = header(**{name: 10**7}) | {"class": cls}
    opener.refused(
        "checkpoint", written(tmp_path / "m", about), "do not belong together", f"{cls}: {name}=1e+07"
    )


@pytestmark_hostile
def test_a_table_that_is_not_stored_is_a_claim_too(tmp_path, opener):
    path = written(tmp_path / "m", header(position="sinusoidal", context=10**9))
    said = "a table of 16,000,000,000 numbers that is not stored"
    opener.refused("checkpoint", path, said, "sinusoidal context=1e+09")


@pytestmark_hostile
def test_layers_are_counted_in_tensors_too(tmp_path, opener):
    "Two million numbers would be enough for a million layers of width two, but there is one tensor."
    about = header(layers=10**6, d_model=2, heads=1, position="rope")
    path = written(tmp_path / "m", about, {"w": torch.zeros(2_000_000)})
    said = "layers=1,000,000, which needs 4,000,000 tensors, but there are 1"
    opener.refused("checkpoint", path, said, "1e+06 layers, one large tensor")


@pytestmark_hostile
def test_many_layers_with_a_tensor_for_each_are_not_built(tmp_path, opener):
    "What passes the count is compared by names, without a layer being made."
    tensors = {f"blocks.{i // 4}.x{i % 4}": torch.zeros(16) for i in range(8000)}
    path = written(tmp_path / "m", header(layers=2000), tensors)
    opener.refused("checkpoint", path, "and .* more", "2,000 layers of tensors")


@pytestmark_hostile
@pytest.mark.parametrize(
    "value", ["8", [8], {"a": 8}, True, None, -1, 1.5, 1.5e308, float("nan"), "x" * 100_000]
)
@pytest.mark.parametrize("name", ["vocab_size", "layers", "norm_eps", "position", "tied"])
def test_settings_of_a_wrong_type_are_named(tmp_path, opener, name, value):
    if (name, value) == ("tied", True) or (name == "norm_eps" and value == 1.5e308):
        return
    path = written(tmp_path / "m", header(**{name: value}))
    opener.refused("checkpoint", path, name, f"{name}={value!r:.20}")


ABOUT = {
    "no class": {"config": {}, "facts": {}},
    "no config": {"class": "Decoder", "facts": {}},
    "no facts": {"class": "Decoder", "config": asdict(CFG)},
    "a class that is none": header() | {"class": ["Decoder"]},
    "a class of 1 MB": header() | {"class": "x" * 10**6},
    "a config that is none": header() | {"config": [1]},
    "facts that are none": header() | {"facts": 3},
    "an empty config": header() | {"config": {}},
    "an unknown setting": header(flavour="sweet"),
    "settings that do not fit together": header(heads=3),
    "a run that is none": header() | {"run": "fast"},
}


@pytestmark_hostile
@pytest.mark.parametrize("name", ABOUT)
def test_a_header_of_a_wrong_kind(tmp_path, opener, name):
    opener.refused("checkpoint", written(tmp_path / "m", ABOUT[name]), name=name)


TEXTS = {
    "brackets": "[" * 100_000,
    "keys in keys": '{"a":' * 50_000,
    "half a text": '{"class": "Dec',
    "null": "null",
    "a number of 5,000 digits": '{"class": ' + "1" * 5_000 + "}",
    "a million values": json.dumps(header() | {"facts": {"x": [0] * 10**6}}),
    "seven megabytes of text": json.dumps(header() | {"class": "x" * 7_000_000}),
}


@pytestmark_hostile
@pytest.mark.parametrize("name", TEXTS)
def test_a_header_that_is_no_json_or_too_much_of_it(tmp_path, opener, name):
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "m", {"llmlab": TEXTS[name]})
    opener.refused("checkpoint", tmp_path / "m", name=name)


def raw(entries):
    "The start of a safetensors file with this header."
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return len(text).to_bytes(8, "little") + text


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NOTHING = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
OURS = {"__metadata__": {"llmlab": json.dumps(header())}}
RAW = {
    "empty": b"",
    "one byte": b"x",
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header longer than the file": (2**23).to_bytes(8, "little") + b"{}",
    "brackets for a header": raw(b"[" * 100_000),
    "offsets beyond the file": raw(
        OURS | {"w": ENTRY | {"data_offsets": [0, 4 * 10**12], "shape": [10**12]}}
    ),
    "offsets turned round": raw(OURS | {"w": ENTRY | {"data_offsets": [8, 0]}}) + bytes(8),
    "offsets that overlap": raw(OURS | {"a": ENTRY, "b": ENTRY}) + bytes(8),
    "offsets with a gap": raw(OURS | {"w": ENTRY | {"data_offsets": [4, 12]}}) + bytes(12),
    "negative offsets": raw(OURS | {"w": ENTRY | {"data_offsets": [-8, 0]}}) + bytes(8),
    "a shape that overflows": raw(OURS | {"w": ENTRY | {"shape": [2**62, 2**62]}}) + bytes(8),
    "a shape of text": raw(OURS | {"w": ENTRY | {"shape": "x"}}) + bytes(8),
    "an unknown type": raw(OURS | {"w": ENTRY | {"dtype": "F31"}}) + bytes(8),
    "a type that PyTorch lacks": raw(OURS | {"w": ENTRY | {"dtype": "F8_E8M0", "shape": [8]}}) + bytes(8),
    "a tensor that is a number": raw(OURS | {"w": 5}),
    "more bytes than tensors": raw(OURS | {"w": ENTRY}) + bytes(80),
    "metadata that are no texts": raw({"__metadata__": {"llmlab": {"class": 1}}, "w": ENTRY}) + bytes(8),
    "29,000 tensors": raw(OURS | {f"{i:x}": NOTHING for i in range(29_000)}),
    "100,000 tensors": raw({f"{i:x}": NOTHING for i in range(100_000)}),
    "7 MB of name": raw(OURS | {"x" * 7_000_000: NOTHING}),
}


@pytestmark_hostile
@pytest.mark.parametrize("name", RAW)
def test_a_file_that_lies_about_itself(tmp_path, opener, name):
    (tmp_path / "m").write_bytes(RAW[name])
    opener.refused("checkpoint", tmp_path / "m", name=name)


@pytestmark_hostile
@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_kind_are_not_cast(tmp_path, opener, kind):
    tensors = own_tensors(decoder()) | {"norm.weight": torch.ones(16).to(kind)}
    path = written(tmp_path / "m", header(), tensors)
    said = r"norm.weight: \[16\] \S+ in the file, \[16\] in the model"
    opener.refused("checkpoint", path, said, f"weights of {kind}")


@pytestmark_hostile
@pytest.mark.parametrize("part", [0, 3, 100, 5000, -1, -1000])
def test_a_cut_file(tmp_path, opener, part):
    path = written(tmp_path / "m", header())
    path.write_bytes(path.read_bytes()[:part])
    opener.refused("checkpoint", path, "is cut short or no safetensors file", f"cut at {part}")


@pytestmark_hostile
def test_folders_and_pipes_are_no_files(tmp_path, opener):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        opener.refused("checkpoint", path, "is no file: give the path of a file", f"{path}")
