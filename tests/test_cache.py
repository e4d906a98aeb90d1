"The cache: the same logits as without, for every kind of model, with padding, overflow and sources."

import itertools
import subprocess
import sys

import pytest
import torch

from llmlab import decoding
from llmlab.cache import KVCache, make_cache, pad
from llmlab.decoding import CachedDecodingState, DecodingState, start_decoding
from llmlab.transformer import Config, Decoder, EncoderDecoder

STRETCHED = dict(d_head=32, rope_base=500_000.0, rope_factor=8.0)  # Llama 3.1
KINDS = {
    "learned": {},
    "sinusoidal": dict(position="sinusoidal"),
    "rope": dict(position="rope", rope_base=500.0),
    "post-norm": dict(norm_place="post"),
    "kv heads": dict(kv_heads=2),
    "one kv head, rope, wide heads": dict(kv_heads=1, position="rope", d_head=12),
    "llama": dict(norm="rms", position="rope", feed_forward="swiglu", bias=False, tied=False, kv_heads=2)
    | STRETCHED,
    "qwen": dict(norm="rms", position="rope", feed_forward="swiglu", bias="qkv", qk_norm=True, kv_heads=2),
    "alibi": dict(position="alibi"),
    "relative": dict(position="relative", relative_buckets=8, relative_distance=16, attention_scale=1.0),
    "softcap": dict(softcap=5.0, position="rope"),
    "segments": dict(segments=2, feed_forward="gelu_exact"),
}
every = pytest.mark.parametrize("kind", KINDS)


def shaken(model, seed=0):
    "Weights far from the start, so that a mistake shows."
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def decoder(kind="learned", context=32):
    torch.manual_seed(0)
    return shaken(
        Decoder(Config(vocab_size=40, context=context, layers=3, heads=4, d_model=32, **KINDS[kind]))
    )


def two(kind="learned"):
    torch.manual_seed(0)
    return shaken(
        EncoderDecoder(Config(vocab_size=40, context=24, layers=2, heads=4, d_model=32, **KINDS[kind]))
    )


def random_rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(40, (n,), generator=generator).tolist() for n in lengths]


def whole(model, row, source=None):
    "Logits of all positions without a cache."
    with torch.no_grad():
        ids = torch.tensor([row])
        return (model(ids) if source is None else model(torch.tensor([source]), ids))[0]


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


# --- equal logits -----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("pieces", [(20,), (1,) * 20, (7, 1, 1, 5, 1, 5)])
def test_a_decoder_read_in_pieces(kind, pieces):
    model, (row,) = decoder(kind), random_rows(20)
    state, ids, _ = start_decoding(model, [row], 0)
    assert isinstance(state, CachedDecodingState)
    cuts = itertools.pairwise([0, *itertools.accumulate(pieces)])
    close(torch.cat([state.read(ids[:, a:b], b - a) for a, b in cuts], 1)[0], whole(model, row))


@every
def test_ragged_prompts_read_on(kind):
    model, rows, more = decoder(kind), random_rows(9, 1, 4), random_rows(6, 6, 6, seed=1)
    state, ids, _ = start_decoding(model, rows, 6)
    found = [state.read(ids)] + [state.read(new[:, None]) for new in torch.tensor(more).T]
    for i, (row, rest) in enumerate(zip(rows, more, strict=True)):
        close(torch.cat(found, 1)[i], whole(model, row + rest)[len(row) - 1 :])


@every
def test_an_encoder_decoder_with_ragged_sources_and_targets(kind):
    if kind == "segments":
        pytest.skip("segments belong to encoders")
    model, sources, rows, more = two(kind), random_rows(11, 3), random_rows(1, 3), random_rows(5, 5, seed=1)
    state, ids, _ = start_decoding(model, rows, 5, source=sources)
    found = [state.read(ids)] + [state.read(new[:, None]) for new in torch.tensor(more).T]
    for i, (row, rest) in enumerate(zip(rows, more, strict=True)):
        close(torch.cat(found, 1)[i], whole(model, row + rest, sources[i])[len(row) - 1 :])


@every
@pytest.mark.parametrize("pieces", [(20,), (1,) * 20, (7, 1, 1, 5, 1, 5)])
def test_the_cache_is_an_argument_of_the_model(kind, pieces):
    model, (row,) = decoder(kind), random_rows(20)
    cache, ids, found = make_cache(model, batch=1, size=20), torch.tensor([row]), []
    with torch.no_grad():
        for a, b in itertools.pairwise([0, *itertools.accumulate(pieces)]):
            found.append(model(ids[:, a:b], cache=cache))
    close(torch.cat(found, 1)[0], whole(model, row))
    assert [layer.length for layer in cache] == [20] * 3 and isinstance(cache[0], KVCache)


@every
def test_a_padding_mask_with_a_cache_tells_of_all_tokens(kind):
    model, rows, more = decoder(kind), random_rows(9, 1, 4), random_rows(3, 3, 3, seed=1)
    ids, real = pad(rows)
    cache, new = make_cache(model, batch=3, size=12), torch.tensor(more)
    with torch.no_grad():
        first = model(ids, real, cache=cache)[:, -1:]
        rest = model(new, torch.cat([real, torch.ones_like(new, dtype=torch.bool)], 1), cache=cache)
    for i, row in enumerate(rows):
        close(torch.cat([first, rest], 1)[i], whole(model, row + more[i])[len(row) - 1 :])


@every
@pytest.mark.parametrize("compiled", [False, True])
def test_fixed_shapes_change_nothing(kind, compiled, monkeypatch):
    monkeypatch.setattr(decoding, "compiled_step", lambda: decoding.hidden_step)
    model, rows, more = decoder(kind), random_rows(9, 1, 4), random_rows(6, 6, 6, seed=1)
    state, ids, _ = start_decoding(model, rows, 6, cache="compiled" if compiled else True)
    found = [state.read(ids)] + [state.read(new[:, None]) for new in torch.tensor(more).T]
    for i, (row, rest) in enumerate(zip(rows, more, strict=True)):
        close(torch.cat(found, 1)[i], whole(model, row + rest)[len(row) - 1 :])


def test_the_source_is_read_once():
    model, calls = two(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    state, ids, _ = start_decoding(model, [[1]], 9, source=[[3, 4]])
    for _ in range(5):
        state.read(ids)
    assert len(calls) == 1


def test_rows_are_kept_repeated_and_reordered():
    model, rows = decoder("rope"), random_rows(6, 3)
    for cache in (True, False):
        state, ids, _ = start_decoding(model, rows, 2, cache=cache)
        state.read(ids)
        state.reorder(torch.tensor([1, 0, 1]))
        found = state.read(torch.tensor([[5], [6], [7]]))[:, 0]
        for i, row in enumerate([rows[1] + [5], rows[0] + [6], rows[1] + [7]]):
            close(found[i], whole(model, row)[-1])


def test_a_step_back_forgets_what_came_after():
    model, (row,) = decoder(), random_rows(8)
    state, ids, _ = start_decoding(model, [row], 4)
    state.read(ids)
    state.rewind(5)
    close(state.read(torch.tensor([[7, 9]]), 2)[0], whole(model, [*row[:5], 7, 9])[-2:])


def test_half_precision_stays_half():
    model = decoder("rope").bfloat16()
    state, ids, _ = start_decoding(model, [[1, 2]], 3)
    assert state.read(ids).dtype == state.cache[0].keys.dtype == torch.bfloat16


def test_the_mode_of_the_model_is_left_as_it_was():
    model = Decoder(Config(vocab_size=9, context=8, layers=1, heads=1, d_model=8, dropout=0.5)).train()
    state, ids, _ = start_decoding(model, [[1, 2]], 3)
    logits = state.read(ids)
    assert model.training and not logits.requires_grad
    close(logits[0, 0], whole(model.eval(), [1, 2])[-1])


def test_any_function_and_no_cache():
    model, rows = decoder(), random_rows(5, 2)
    plain, ids, _ = start_decoding(lambda ids: model(ids), rows, 1)
    off, _, _ = start_decoding(model, rows, 1, cache=False)
    assert type(plain) is type(off) is DecodingState
    cached, _, _ = start_decoding(model, rows, 1)
    for state in (plain, off):
        close(state.read(ids), cached.read(ids) if state is plain else plain.logits(ids, 1))


# --- memory and shapes ------------------------------------------------------------------------------------


def test_memory_is_taken_once_and_only_as_much_as_is_needed():
    model = decoder("kv heads")
    state, ids, _ = start_decoding(model, random_rows(6, 4), 5)
    addresses = [layer.keys.data_ptr() for layer in state.cache]
    assert [layer.keys.shape for layer in state.cache] == 3 * [(2, 2, 11, 8)], "rows, kv heads, slots, width"
    state.read(ids)
    for _ in range(5):
        state.read(ids[:, :1])
    assert [layer.keys.data_ptr() for layer in state.cache] == addresses


STATIC = """
import torch
from torch._dynamo.testing import CompileCounter
from llmlab import decoding, transformer

torch.manual_seed(0)
shape = dict(vocab_size=40, context=16, layers=2, heads=4, d_model=16, kv_heads=2)
cfg = transformer.Config(position="rope", **shape)
model, counter = transformer.Decoder(cfg).eval(), CompileCounter()
fast, ids, _ = decoding.start_decoding(model, [[1, 2, 3], [4]], 8, cache="compiled")
plain, _, _ = decoding.start_decoding(model, [[1, 2, 3], [4]], 8)
if not BACKEND:
    fast.step = torch.compile(decoding.hidden_step, backend=counter, fullgraph=True)
for new in [ids, *torch.randint(40, (6, 2, 1))]:
    torch.testing.assert_close(fast.read(new), plain.read(new), atol=1e-5, rtol=0)
assert BACKEND or counter.frame_count == 1, counter.frame_count
"""  # run apart, because the checked signatures of the tests cannot be traced


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("backend", [False, True], ids=["traced", "compiled"])
def test_one_step_has_the_same_shapes_at_every_length(backend):
    subprocess.run([sys.executable, "-c", STATIC.replace("BACKEND", str(backend))], check=True)


# --- overflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_a_full_context_forgets_its_older_half(cache):
    model, (row,) = decoder(context=8), random_rows(20)
    state, ids, room = start_decoding(model, [row[:6]], 14, cache=cache)
    assert room == 14
    text, seen = [], []
    for new in [row[:6], *([x] for x in row[6:])]:
        text = text + new if len(text + new) <= 8 else (text + new)[-4:]
        seen.append(len(text))
        close(state.read(torch.tensor([new]))[0, 0], whole(model, text)[-1])
    assert seen == [6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5]


@every
@pytest.mark.parametrize("cache", [True, False])
def test_each_row_overflows_by_itself(kind, cache):
    """Rows of all widths around the context, read on for three contexts: each row's logits are those of
    its text alone."""
    model, rows = decoder(kind, context=8), random_rows(7, 3, 8, 1, 5)
    more = torch.tensor(random_rows(*[24] * 5, seed=1))
    together, ids, _ = start_decoding(model, rows, 24, cache=cache)
    found = torch.cat([together.read(ids), *(together.read(new[:, None]) for new in more.T)], 1)
    for i, row in enumerate(rows):
        text, seen = list(row), [whole(model, row)[-1]]
        for new in more[i].tolist():
            text = [*text, new] if len(text) < 8 else [*text[-3:], new]
            seen.append(whole(model, text)[-1])
        close(found[i], torch.stack(seen))


def test_a_prompt_longer_than_the_context_loses_its_beginning_or_is_refused():
    model, (row,) = decoder(context=8), random_rows(11)
    state, ids, _ = start_decoding(model, [row], 3)
    close(state.read(ids)[0, 0], whole(model, row[-8:])[-1])
    with pytest.raises(
        ValueError, match=r"11 tokens, but the context is 8: crop the ids or raise Config.context"
    ):
        start_decoding(model, [row], 3, overflow="stop")


def test_stop_leaves_the_room_that_is_there():
    state, _, n = start_decoding(decoder(context=8), random_rows(6, 2), 10, overflow="stop")
    assert n == 6 and state.rooms == [2, 6], "each text has its own room"


# --- padding ----------------------------------------------------------------------------------------------


def test_padding_by_pencil():
    ids, real = pad([[7, 8], [9]])
    assert ids.tolist() == [[7, 8], [0, 9]] and real.tolist() == [[True, True], [False, True]]
    ids, real = pad([[7, 8], [9]], left=False)
    assert ids.tolist() == [[7, 8], [9, 0]] and real.tolist() == [[True, True], [True, False]]


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompts, options, words",
    [
        (
            [],
            {},
            r"prompts=\[\]: expected a list with a list of ids for each text, such as \[\[5, 3\], \[7\]\]",
        ),
        ([1, 2], {}, r"prompts=\[1, 2\]: expected a list with a list of ids for each text"),
        (
            [[1], []],
            {},
            r"row 1 of prompts is empty: start with a token, such as the end of a text, \[tokenizer.eot\]",
        ),
        ([[40]], {}, "ids from 40 to 40, but the vocabulary ends at 39: use the model's tokenizer"),
        ([[1]], dict(overflow="slide"), "overflow='slide', cache=True: choose 'forget' or 'stop'"),
        ([[1]], dict(cache="static"), "cache='static': choose 'forget' or 'stop'; True, False or 'compiled'"),
        ([[1]], dict(max_new_tokens=-1), "max_new_tokens=-1: expected a whole number of at least 0"),
        ([[1]], dict(source=[[1]]), "for Decoder: an EncoderDecoder needs a source, others take none"),
    ],
)
def test_what_a_decoder_cannot_read_is_refused(prompts, options, words):
    with pytest.raises(ValueError, match=words):
        start_decoding(decoder(), prompts, **{"max_new_tokens": 3, **options})


@pytest.mark.parametrize(
    "source, words",
    [
        (None, "source=None for EncoderDecoder: an EncoderDecoder needs a source"),
        ([[1], []], r"row 1 of source is empty"),
        ([[1]], "1 sources for 2 prompts: give one source for each prompt"),
        ([[1], [2] * 25], "25 tokens, but the context is 24: crop the ids or raise Config.context"),
    ],
)
def test_what_an_encoder_cannot_read_is_refused(source, words):
    with pytest.raises(ValueError, match=words):
        start_decoding(two(), [[1], [2]], 3, source=source)
