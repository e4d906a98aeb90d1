"What a device can do, batches ahead, shares of a batch, token files."

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmlab.cost import training_flops
from llmlab.devices import (
    flops_per_token,
    gradient_checkpointing,
    peak_flops,
    peak_memory,
    prefetch,
    preserve_random_states,
    shard,
    write_tokens,
)
from llmlab.training import Batches, Windows
from llmlab.transformer import Config, Decoder, Encoder

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "change", [{}, {"tied": False}, {"feed_forward": "swiglu", "kv_heads": 1, "position": "rope"}]
)
def test_operations_are_those_that_pytorch_counts(change):
    "PyTorch counts matrix products as they run; its attention on the CPU is counted by hand."
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = Decoder(Config(vocab_size=64, context=16, layers=2, heads=2, d_model=32, **change))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(3, 16, dtype=torch.long)).sum().backward()
    ours = 3 * 16 * flops_per_token(model, 16)
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.02)


def test_operations_of_gpt2():
    "Six times the 124 million weights that multiply, and 12 layers x 12 x 768 x 1024 for attention."
    with torch.device("meta"):
        model = Decoder(Config.gpt2_small())
    assert flops_per_token(model, 1024) == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024


def test_an_encoder_has_no_head_to_count():
    cfg = Config(vocab_size=64, context=16, layers=1, heads=2, d_model=32)
    assert flops_per_token(Decoder(cfg), 16) - flops_per_token(Encoder(cfg), 16) == 6 * 64 * 32


def test_the_ceiling_and_the_peak_are_measured():
    assert 1e8 < peak_flops("cpu") < 1e14 and peak_flops("cpu") == peak_flops("cpu")
    state = torch.get_rng_state()
    peak_flops.cache_clear()
    peak_flops("cpu")
    assert torch.equal(state, torch.get_rng_state())
    line = "import torch; from llmlab.devices import peak_memory; cpu = torch.device('cpu'); "
    line += "before = peak_memory(cpu); torch.ones(60_000_000); print(before, peak_memory(cpu))"
    fresh = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    before, after = map(float, fresh.stdout.split())  # in a process that has not had a higher peak already
    assert after > before + 200


def test_the_peak_is_this_process_s_own():
    line = "import torch; from llmlab.devices import peak_memory; print(peak_memory(torch.device('cpu')))"
    large = torch.ones(300_000_000)
    child = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert float(child.stdout) < peak_memory(CPU) - 200 and len(large)


@pytest.mark.parametrize("steps", [range(0), range(1), range(3, 9)])
def test_the_second_thread_makes_the_same_batches(steps):
    made = []

    def batch(step):
        made.append(step)
        return torch.tensor([step])

    assert [int(ids) for ids in prefetch(batch, steps, CPU, ahead=True)] == list(steps) == made


def test_the_next_batch_is_made_while_one_is_used():
    import threading

    asked = threading.Event()

    def batch(step):
        if step:
            asked.set()
        return torch.tensor([step])

    ids = prefetch(batch, range(3), CPU, ahead=True)
    next(ids)
    assert asked.wait(5)
    ids.close()


def test_an_error_in_the_second_thread_arrives():
    def batch(step):
        raise KeyError(step)

    with pytest.raises(KeyError):
        list(prefetch(batch, range(2), CPU, ahead=True))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
def test_shares_are_the_batch(world, parts, times):
    ids = torch.arange(world * parts * times)
    shares = [shard(ids, rank, world, parts) for rank in range(world)]
    assert sorted(torch.cat(shares).tolist()) == ids.tolist() and len({len(s) for s in shares}) == 1


def test_a_batch_that_does_not_divide(unchecked):
    text = (
        "8 windows do not divide among 3 processes with 2 parts each: take a batch_size that is a "
        "multiple of 6"
    )
    with pytest.raises(ValueError, match=text):
        shard(torch.arange(8), 0, 3, 2)


def test_recomputing_ends_with_the_block_even_after_an_error():
    model = Decoder(Config(vocab_size=9, context=4, layers=2, heads=1, d_model=4))
    with pytest.raises(RuntimeError), gradient_checkpointing(model):
        assert all("forward" in vars(block) for block in model.blocks)
        raise RuntimeError
    assert not any("forward" in vars(block) for block in model.blocks)


@pytest.mark.parametrize("vocab_size, kind", [(65536, np.uint16), (65537, np.uint32)])
def test_token_files_are_plain_arrays(tmp_path, vocab_size, kind):
    documents = [[vocab_size - 1, 2, 3], [], [5] * 1000, [0]]
    assert write_tokens(tmp_path / "t.npy", iter(documents), vocab_size) == 1004
    mapped = np.load(tmp_path / "t.npy", mmap_mode="r")
    assert mapped.dtype == kind and mapped.tolist() == sum(documents, [])
    batches = Batches(Windows(mapped, 7), batch_size=5, seed=3)
    plain = Batches(Windows(sum(documents, []), 7), batch_size=5, seed=3)
    assert torch.equal(batches(4), plain(4)) and batches(4).dtype == torch.int64
    assert isinstance(batches.rows.ids, np.memmap), "still on the disk"


def test_a_token_file_is_never_overwritten(tmp_path):
    (tmp_path / "t.npy").write_text("precious")
    with pytest.raises(ValueError, match="t.npy exists: choose another name, or remove it first"):
        write_tokens(tmp_path / "t.npy", [[1]], 9)
    assert (tmp_path / "t.npy").read_text() == "precious"


def test_a_broken_stream_leaves_no_token_file(tmp_path):
    def documents():
        yield [1]
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="gone"):
        write_tokens(tmp_path / "t.npy", documents(), 9)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "ids, vocab_size, said",
    [
        ([70_000], 70_000, "id 70000 is outside the vocabulary: the ids of document 1 run from 0 to 69999"),
        (
            [70_000],
            300,
            "id 70000 is outside the vocabulary: the ids of document 1 run from 0 to 299",
        ),  # was 4,464
        ([-1], 300, "id -1 is outside the vocabulary"),  # was 65,535
        (
            [2.7],
            300,
            "the ids of document 1 are float64, expected whole numbers: they are never rounded",
        ),  # was 2
        (["2"], 300, "the ids of document 1 are <U1, expected whole numbers"),
        ([1], 2**32 + 1, "vocab_size=4294967297: expected a whole number from 1 to 4294967296"),
        ([1], 300.0, "vocab_size=300.0: expected a whole number"),
    ],
)
def test_an_id_that_would_come_back_as_another_is_refused(tmp_path, unchecked, ids, vocab_size, said):
    with pytest.raises(ValueError, match=said):
        write_tokens(tmp_path / "t.npy", [[1, 2], ids], vocab_size)
    assert not [*tmp_path.iterdir()]


# --- the caller's random numbers ----------------------------------------------------------------------------


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_generators_stand_where_they_stood_also_after_an_error():
    drawn()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(OSError), preserve_random_states():
        random.seed(7), np.random.seed(7), torch.manual_seed(7)
        drawn()
        raise OSError
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_generators_of_all_gpus_are_put_back(monkeypatch):
    states, back = [torch.tensor([1]), torch.tensor([2])], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", back.append)
    with preserve_random_states():
        assert not back
    assert back == [states]


def test_a_full_disk_leaves_no_token_file(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*t.npy \(No space left on device\)"):
        write_tokens(tmp_path / "t.npy", [[1]], 9)
    assert not [*tmp_path.iterdir()]


WIDE = {"d_head": 32}
SHAPES = [{}, WIDE, WIDE | {"kv_heads": 2, "feed_forward": "swiglu", "norm": "rms"}, {"tied": False}]


@pytest.mark.parametrize("shape", SHAPES)
def test_operations_a_token_are_those_that_chapter_18_counts(shape):
    cfg = Config(100, 64, layers=2, heads=4, d_model=32, position="rope", bias=False, **shape)
    assert flops_per_token(Decoder(cfg), 64) == training_flops(cfg, 1, 64)
