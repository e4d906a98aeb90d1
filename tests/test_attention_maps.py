"Attention maps: what attention may come in, how it is pooled, packed and measured, and what is refused."

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sample_figures import softmax, unpacked

from llmlab.figures.attention_maps import (
    MAX_EXACT_TOKENS,
    MAX_TOKENS,
    AttentionMaps,
    PooledAttention,
    attention_rollout,
    attention_stacks,
    layers_by_kind,
    mean_distance,
    mean_entropy,
    pack_weights,
    page_data,
    pool_blocks,
    queries_and_keys,
)
from llmlab.figures.inputs import as_strings

words = list("abc")

# --- pooling and packing ------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_a_pooled_map_is_attention_again(tq, tk, rows, cols):
    small = pool_blocks(softmax((tq, tk)), rows, cols)
    assert small.shape == (min(tq, rows), min(tk, cols)) and np.allclose(small.sum(-1), 1, atol=1e-5)


def test_pooling_by_hand_and_by_reshape():
    x = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1], [0.25, 0.25, 0.25, 0.25]], dtype=np.float32)
    assert np.allclose(pool_blocks(x, 2, 2), [[0.75, 0.25], [0.25, 0.75]])
    y = softmax((3, 24, 30)).astype(np.float32)
    assert np.allclose(pool_blocks(y, 6, 10), y.reshape(3, 6, 4, 10, 3).mean(2).sum(-1), atol=1e-6)


@given(arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32)))
def test_packing_keeps_every_weight_within_a_255th_of_its_row(x):
    got = unpacked(pack_weights(x), *x.shape)
    assert (np.abs(got - x) <= x.max(-1, keepdims=True) / 255 + 1e-7).all()
    assert np.array_equal(got.max(-1).astype(np.float32), x.max(-1)), "the largest is exact"


# --- numbers of a head --------------------------------------------------------------------------------------


def test_entropy_counts_equal_tokens_and_agrees_with_torch():
    torch = pytest.importorskip("torch")
    assert mean_entropy(np.eye(4, dtype=np.float32)) == pytest.approx(0, abs=1e-6)
    assert mean_entropy(np.full((2, 4), 0.25, dtype=np.float32)) == pytest.approx(2)
    x = softmax((5, 7)).astype(np.float32)
    theirs = torch.distributions.Categorical(torch.tensor(x)).entropy().mean() / np.log(2)
    assert mean_entropy(x) == pytest.approx(float(theirs), rel=1e-5)


def test_distance_by_hand():
    assert mean_distance(np.eye(4, k=-1, dtype=np.float32)) == pytest.approx(3 / 4), "row 0 looks nowhere"
    assert mean_distance(np.array([[0.5, 0.5], [1, 0]], dtype=np.float32)) == pytest.approx(0.75)


def test_rollout_of_one_and_of_two_layers():
    x = softmax((2, 3, 4, 4)).astype(np.float32)
    one, two = attention_rollout(list(x))
    first, second = ((layer.mean(0) + np.eye(4)) / 2 for layer in x)
    assert np.allclose(one, first, atol=1e-6) and np.allclose(two, second @ first, atol=1e-6)
    assert np.allclose(two.sum(-1), 1, atol=1e-6)


# --- what comes in ------------------------------------------------------------------------------------------


def outputs(**attentions):
    return types.SimpleNamespace(**attentions)


def test_a_tape_is_taken_apart_by_kind():
    torch = pytest.importorskip("torch")
    from llmlab.recording import record_attention
    from llmlab.transformer import Config, Decoder

    torch.manual_seed(0)
    model = Decoder(Config(11, 8, 2, 2, 16)).eval()
    with record_attention(model) as tape, torch.no_grad():
        model(torch.arange(5)[None])
    ((name, layers, tokens),) = attention_stacks(tape, list("abcde"))
    assert name == "" and len(layers) == 2 and tokens == list("abcde")
    assert len(AttentionMaps(name, layers, tokens).layers) == 2
    assert np.allclose(AttentionMaps(name, layers, tokens).layers[1], tape.attention()[1][0])


def test_an_encoder_decoder_gives_three_stacks_with_their_own_tokens():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    size = dict(d_model=16, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16)
    heads = dict(
        encoder_attention_heads=2, decoder_attention_heads=4, vocab_size=20, max_position_embeddings=16
    )
    config = transformers.BartConfig(**size, **heads, attn_implementation="eager")
    model = transformers.BartModel(config).eval()
    read, wrote = torch.tensor([[3, 4, 5, 6, 2]]), torch.tensor([[2, 7, 8]])
    with torch.no_grad():
        out = model(read, decoder_input_ids=wrote, output_attentions=True)
    found = {
        name: AttentionMaps(name, layers, tokens)
        for name, layers, tokens in attention_stacks(out, (list("xyz"), list("abcde")))
    }
    assert {name: (s.shape, len(s.layers)) for name, s in found.items()} == {
        "encoder": ((5, 5), 1),
        "decoder": ((3, 3), 2),
        "cross": ((3, 5), 2),
    }


def test_transformers_output_without_attention_says_how_to_ask_for_it():
    with pytest.raises(ValueError, match="no attention: load it with attn_implementation='eager'"):
        layers_by_kind(outputs(attentions=None))
    with pytest.raises(ValueError, match="no attention"):
        layers_by_kind(outputs(attentions=(None, None)))


def test_a_gpt2_output_is_taken_as_it_is():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    size = dict(n_embd=16, n_layer=2, n_head=4, vocab_size=20, n_positions=16)
    model = transformers.GPT2Model(transformers.GPT2Config(**size, attn_implementation="eager")).eval()
    with torch.no_grad():
        out = model(torch.arange(6)[None], output_attentions=True)
    ((name, layers, tokens),) = attention_stacks(out, list("abcdef"))
    assert [x.shape for x in AttentionMaps(name, layers, tokens).layers] == [(4, 6, 6)] * 2


def test_an_empty_tape_says_what_to_do():
    with pytest.raises(ValueError, match="run the model inside `with record_attention"):
        layers_by_kind({"blocks.0.q": np.ones(3)})


def test_two_models_with_tokens_of_their_own():
    given = {"one": softmax((1, 2, 3, 3)), "two": softmax((1, 2, 2, 2))}
    found = attention_stacks(given, {"one": words, "two": ["x", "y"]})
    assert [(name, tokens) for name, _, tokens in found] == [("one", words), ("two", ["x", "y"])]


def test_tokens_may_be_bytes_or_broken():
    assert as_strings([b"caf\xc3\xa9", b"\xff", "\ud800", 7]) == ["café", "\\xff", "\\ud800", "7"]
    assert queries_and_keys((["a"], ["b"])) == (["a"], ["b"]) and queries_and_keys(("a", "b")) == (
        ["a", "b"],
        ["a", "b"],
    )


# --- long texts ---------------------------------------------------------------------------------------------


def test_a_long_text_is_pooled_and_its_tiles_are_exact():
    n = MAX_EXACT_TOKENS + 76
    x = softmax((1, 2, n, n), causal=True).astype(np.float32)
    maps = AttentionMaps("", x, ["a"] * n)
    data = page_data(maps, (0, 0), 1e6)
    assert data["size"] == [256, 256] and data["entropy"] is None and not maps.rolled
    raw = data["maps"][str(maps.entries.index((0, 0)))]
    assert np.allclose(unpacked(raw, 1, 256, 256)[0], pool_blocks(x[0, 0], 256, 256), atol=1 / 255)
    tile = unpacked(maps.packed(0, 1, [500, 520, 400, 430]), 1, 20, 30)[0]
    assert np.allclose(tile, x[0, 1, 500:520, 400:430], atol=1 / 255)


def test_pooled_maps_with_a_function_for_tiles():
    x = softmax((1, 2, 64, 64)).astype(np.float32)
    given = PooledAttention(
        [pool_blocks(x[0], 8, 8)], lambda layer, head, rows, cols: x[layer, head, rows, cols]
    )
    maps = AttentionMaps("", given, ["a"] * 64)
    assert maps.size == (8, 8) and page_data(maps, (0, 0), 1e6)["rows"] == 8
    assert np.array_equal(maps.window(0, 1, [3, 9, 0, 5]), x[0, 1, 3:9, :5])
    assert np.allclose(maps.window(0, -1, [3, 9, 0, 5]), x[0, :, 3:9, :5].mean(0))
    with pytest.raises(ValueError, match=r"only pooled maps are here: give PooledAttention\(maps, window\)"):
        AttentionMaps("", PooledAttention(given.maps), ["a"] * 64).window(0, 0, [0, 1, 0, 1])


def test_a_hundred_thousand_tokens_are_refused():
    with pytest.raises(
        ValueError, match=f"100,000 tokens, but a figure shows {MAX_TOKENS:,}: give a passage"
    ):
        AttentionMaps("", PooledAttention([softmax((2, 8, 8))]), ["a"] * 100_000)


def test_entries_name_mean_and_rollout_only_where_there_is_one():
    assert AttentionMaps("", softmax((1, 1, 3, 3)), words).entries == [(0, 0)]
    assert AttentionMaps("", softmax((1, 2, 3, 3)), words).entries == [(0, 0), (0, 1), (0, -1)]
    assert AttentionMaps("", softmax((2, 1, 3, 3)), words).entries == [(0, 0), (0, -2), (1, 0), (1, -2)]
    assert (0, -2) not in AttentionMaps("", softmax((2, 2, 3, 4)), (words, list("wxyz"))).entries
