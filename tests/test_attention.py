"""Attention against PyTorch's function and module, over shapes, masks and head groupings; the tape; the
error texts."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import llmlab.attention as module
from llmlab import attention_kernels as kernels
from llmlab import attention_map, record_attention, recording
from llmlab.attention import (
    alibi,
    alibi_slopes,
    attention_weights,
    causal_mask,
    document_positions,
    dot_product_attention,
    eager_attention,
    merge_heads,
    relative_buckets,
    rotary,
    rotary_table,
    same_document,
    scores,
    share_heads,
    sliding_window,
    split_heads,
)
from llmlab.attention_kernels import guarded_attention, streamed_attention

streamed = partial(streamed_attention, eager_attention)

SHAPES = [
    (1, 4, 4, 1, 1, 8),
    (2, 4, 4, 5, 5, 8),
    (2, 4, 2, 5, 5, 8),
    (1, 6, 1, 3, 9, 16),
    (2, 8, 2, 9, 17, 4),
    (2, 2, 2, 7, 3, 8),
]
MASKS = ["none", "causal", "padding", "pairs", "empty row", "empty", "causal and padding"]


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for each other
    yield
    torch.set_num_threads(threads)


def qkv(b, h, hk, tq, tk, dh):
    return [torch.randn(b, n, t, dh, requires_grad=True) for n, t in ((h, tq), (hk, tk), (hk, tk))]


def mask_for(kind, b, h, tq, tk):
    "(mask argument, causal argument)"
    padding = (torch.arange(tk) < torch.randint(1, tk + 1, (b, 1)))[:, None, None, :]
    pairs = torch.rand(b, h, tq, tk) < 0.6
    if kind == "empty row":
        pairs[:, :, 0] = False
    return {
        "none": (None, False),
        "causal": (None, True),
        "padding": (padding, False),
        "causal and padding": (padding, True),
        "empty": (torch.zeros(tq, tk, dtype=torch.bool), False),
    }.get(kind, (pairs, False))


def textbook(q, k, v, allowed):
    "The formula one query at a time, over the keys it may see."
    h, hk = q.shape[1], k.shape[1]
    rows = []
    for b in range(q.shape[0]):
        for i in range(h):
            kk, vv = k[b, i // (h // hk)], v[b, i // (h // hk)]
            for t in range(q.shape[2]):
                see = allowed[b, i, t].nonzero()[:, 0]
                s = (kk[see] * q[b, i, t]).sum(-1) / math.sqrt(q.shape[-1])
                e = (s - s.max()).exp() if len(see) else s
                rows.append((e[:, None] * vv[see]).sum(0) / e.sum() if len(see) else (0 * q[b, i, t]))
    return torch.stack(rows).view(*q.shape[:3], v.shape[-1])


def allowed_pairs(mask, causal, b, h, tq, tk):
    "The mask in full, written without causal_mask."
    full = torch.ones(b, h, tq, tk, dtype=torch.bool) if mask is None else mask.expand(b, h, tq, tk).clone()
    for t in range(tq):
        for j in range(tk):
            if causal and j > t + tk - tq:
                full[:, :, t, j] = False
    return full


def out_and_gradients(f, *inputs):
    out = f(*inputs)
    return [
        out,
        *torch.autograd.grad(
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), inputs, materialize_grads=True
        ),
    ]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_four_ways_agree_with_gradients(shape, kind):
    b, h, hk, tq, tk, dh = shape
    inputs = qkv(*shape)
    mask, causal = mask_for(kind, b, h, tq, tk)
    allowed = allowed_pairs(mask, causal, b, h, tq, tk)
    ways = {
        "fused": lambda q, k, v: dot_product_attention(q, k, v, mask, causal),
        "with weights": lambda q, k, v: dot_product_attention(q, k, v, mask, causal, need_weights=True)[0],
        "guarded": lambda q, k, v: guarded_attention(q, k, v, allowed),
        "torch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, allowed, enable_gqa=True),
    }
    expected = out_and_gradients(lambda q, k, v: textbook(q, k, v, allowed), *inputs)
    for name, way in ways.items():
        for part, ours, right in zip(
            ("out", "dq", "dk", "dv"), out_and_gradients(way, *inputs), expected, strict=True
        ):
            torch.testing.assert_close(
                ours, right, atol=1e-5, rtol=1e-5, msg=lambda m, n=name, p=part: f"{n}, {p}: {m}"
            )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("d", "heads", "tq", "tk"), [(8, 1, 4, 4), (16, 4, 6, 6), (32, 2, 9, 9), (16, 8, 3, 7)]
)
def test_equals_multihead_attention(d, heads, tq, tk, causal):
    peer = nn.MultiheadAttention(d, heads, batch_first=True)
    x, memory = torch.randn(2, tq, d, requires_grad=True), torch.randn(2, tk, d, requires_grad=True)
    hidden = ~causal_mask(tq, tk) if causal else None

    def ours(x, memory):
        parts = zip(
            (x, memory, memory), peer.in_proj_weight.chunk(3), peer.in_proj_bias.chunk(3), strict=True
        )
        q, k, v = (split_heads(F.linear(a, w, b), heads) for a, w, b in parts)
        return peer.out_proj(merge_heads(dot_product_attention(q, k, v, causal=causal)))

    theirs = out_and_gradients(lambda x, m: peer(x, m, m, attn_mask=hidden, need_weights=False)[0], x, memory)
    for a, b in zip(out_and_gradients(ours, x, memory), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_weights_equal_those_of_multihead_attention():
    peer = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
    x = torch.randn(2, 5, 8)
    q, k, v = (split_heads(x @ w.T, 2) for w in peer.in_proj_weight.chunk(3))
    ours = dot_product_attention(q, k, v, causal=True, need_weights=True)[1]
    theirs = peer(x, x, x, attn_mask=~causal_mask(5), average_attn_weights=False)[1]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_pencil():
    "ln 3 and 0 become 3/4 and 1/4."
    q = torch.tensor([[[math.log(3.0)]]])
    k, v = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[4.0], [8.0]]])
    out, w = dot_product_attention(q, k, v, need_weights=True)
    assert w.flatten().tolist() == pytest.approx([0.75, 0.25])
    assert out.item() == pytest.approx(5.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    q, k, v = (x.detach().to(dtype) for x in qkv(2, 4, 2, 5, 5, 8))
    hidden = torch.zeros(5, 5, dtype=torch.bool)
    for mask in (None, hidden):
        fused, (out, w) = (
            dot_product_attention(q, k, v, mask, True),
            dot_product_attention(q, k, v, mask, True, need_weights=True),
        )
        assert fused.dtype == out.dtype == w.dtype == dtype
        torch.testing.assert_close(fused, out, atol=2e-2, rtol=2e-2)


def test_any_number_of_leading_axes():
    q, k, v = (x.detach() for x in qkv(6, 4, 2, 5, 5, 8))
    flat = dot_product_attention(q, k, v, causal=True)
    nested = dot_product_attention(*(x.unflatten(0, (2, 3)) for x in (q, k, v)), causal=True)
    torch.testing.assert_close(nested.flatten(0, 1), flat, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        dot_product_attention(q[0], k[0], v[0], causal=True), flat[0], atol=1e-6, rtol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**20), st.floats(0.1, 100))
def test_rows_sum_to_one_or_zero_and_nothing_hidden_counts(tq, tk, seed, size):
    torch.manual_seed(seed)
    s, mask = torch.randn(2, tq, tk) * size, torch.rand(tq, tk) < 0.5
    w = attention_weights(s, mask)
    assert (w[:, ~mask] == 0).all() and (w >= 0).all()
    torch.testing.assert_close(w.sum(-1), mask.any(-1).float().expand(2, tq), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("tq", "tk"), [(1, 1), (1, 5), (4, 4), (2, 6), (6, 2)])
def test_causal_mask_is_aligned_at_the_bottom_right(tq, tk):
    mask = causal_mask(tq, tk)
    assert mask.tolist() == [[j <= i + tk - tq for j in range(tk)] for i in range(tq)]


def test_causal_queries_are_the_last_positions():
    q, k, v = (x.detach() for x in qkv(1, 2, 2, 6, 6, 8))
    whole = dot_product_attention(q, k, v, causal=True)
    torch.testing.assert_close(
        dot_product_attention(q[:, :, 4:], k, v, causal=True), whole[:, :, 4:], atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_row_that_sees_nothing_is_zero_with_finite_gradients(need_weights):
    q, k, v = qkv(2, 4, 2, 3, 3, 8)
    mask = torch.tensor([[True, False, False], [False] * 3, [True] * 3])
    out = dot_product_attention(q, k, v, mask, need_weights=need_weights)
    out = out[0] if need_weights else out
    assert (out[:, :, 1] == 0).all() and out.isfinite().all()
    out.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert (q.grad[:, :, 1] == 0).all()


def test_the_guarded_kernel_never_meets_an_empty_row(monkeypatch):
    "On a GPU the kernel's gradients there may be NaN; on the CPU only the mask that it receives can tell."
    real, met = F.scaled_dot_product_attention, []
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, m, **o: met.append(m) or real(q, k, v, m, **o)
    )
    q, k, v = (x.detach() for x in qkv(2, 4, 2, 3, 3, 8))
    out = guarded_attention(q, k, v, torch.tensor([[True, False, False], [False] * 3, [True] * 3]))
    assert met[0].tolist() == [[True, False, False], [True] * 3, [True] * 3] and (out[:, :, 1] == 0).all()


def test_share_heads_groups_neighbours():
    k = torch.randn(2, 3, 4, 5)
    assert torch.equal(share_heads(k, 6), k[:, [0, 0, 1, 1, 2, 2]])
    assert share_heads(k, 3) is k


def test_split_and_merge_copy_nothing():
    x = torch.randn(2, 5, 12)
    heads = split_heads(x, 3)
    assert heads.data_ptr() == x.data_ptr() and torch.equal(merge_heads(heads), x)
    assert torch.equal(heads[1, 2], x[1, :, 8:])


# rotary


def test_rotary_equals_hugging_face():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = torch.randn(2, 4, 7, 16), torch.randn(2, 2, 7, 16)
    cos, sin = (torch.cat([x, x], -1)[None] for x in rotary_table(torch.arange(7), 16, 500.0))
    theirs = llama.apply_rotary_pos_emb(q, k, cos, sin)
    for ours, right in zip((rotary(q, base=500.0), rotary(k, base=500.0)), theirs, strict=True):
        torch.testing.assert_close(ours, right, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 8.0, 32.0])
def test_rotary_table_equals_hugging_face(factor):
    """Heads of 128 as in Llama 3.1 8B: pairs that keep their speed, pairs that lose all of it, and pairs
    between."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    if factor > 1:
        stretch = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
        rope |= stretch | {"rope_type": "llama3", "factor": factor}
    cfg = llama.LlamaConfig(hidden_size=256, num_attention_heads=2, rope_parameters=rope)
    at = torch.tensor([0, 1, 50, 3000])
    cos, sin = llama.LlamaRotaryEmbedding(cfg)(torch.zeros(1), at[None])
    for ours, theirs in zip(rotary_table(at, 128, 500_000.0, factor), (cos, sin), strict=True):
        torch.testing.assert_close(torch.cat([ours, ours], -1), theirs[0], atol=2e-3, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 500), st.sampled_from([2, 4, 10]))
def test_rotary_scores_depend_on_distance_only(i, j, shift, dh):
    torch.manual_seed(i + j)
    q, k = torch.randn(2, 1, dh, dtype=torch.float64)

    def score(a, b):
        return scores(rotary(q, torch.tensor([a])), rotary(k, torch.tensor([b]))).item()

    assert score(i, j) == pytest.approx(score(i + shift, j + shift), abs=2e-3)  # angles are float32
    assert rotary(q, torch.tensor([i])).norm().item() == pytest.approx(q.norm().item(), rel=1e-5)


def test_rotary_pencil():
    "A quarter turn takes (1, 0) to (0, 1)."
    quarter = rotary(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), base=1.0)
    assert quarter.flatten().tolist() == pytest.approx([math.cos(1), math.sin(1)])


# tape


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.fail = nn.Linear(8, 24), False

    def forward(self, x):
        q, k, v = (split_heads(part, 2) for part in self.inner(x).chunk(3, -1))
        y = merge_heads(dot_product_attention(q, k, v, causal=True))
        if self.fail:
            raise RuntimeError("broken on purpose")
        return y


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_tape_names_order_and_weights():
    model, x = Model(), torch.randn(2, 5, 8)
    with record_attention(model) as tape:
        model(x)
    assert list(tape) == [f"blocks.{i}.{part}" for i in range(3) for part in ("weights", "q", "k", "v")]
    assert [w.shape for w in tape.attention()] == [(2, 2, 5, 5)] * 3
    for i in range(3):
        q, k, v, w = (tape[f"blocks.{i}.{part}"] for part in "q k v weights".split())
        torch.testing.assert_close(dot_product_attention(q, k, v, causal=True, need_weights=True)[1], w)


def test_outputs_and_gradients_equal_with_and_without_tape():
    model, x = Model(), torch.randn(2, 5, 8, requires_grad=True)
    without = out_and_gradients(model, x)
    with record_attention(model):
        within = out_and_gradients(model, x)
    for a, b in zip(without, within, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_no_hook_outside_the_block_and_the_fused_kernel_is_back(monkeypatch):
    model, x, fused = Model(), torch.randn(1, 4, 8), []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: fused.append(1) or real(*a, **k))
    with record_attention(model):
        assert hooks(model) > 0
        model(x)
    assert hooks(model) == 0 and not fused
    model(x)
    assert len(fused) == 3


def test_an_exception_in_the_model_leaves_nothing_behind():
    model, x = Model(), torch.randn(1, 4, 8)
    model.blocks[1].fail = True
    with record_attention(model) as tape:
        with pytest.raises(RuntimeError, match="on purpose"):
            model(x)
        assert recording.open_listeners[0].running == []
        model.blocks[1].fail = False
        model(x)
    assert "blocks.0.weights.2" in tape and "blocks.2.weights" in tape
    model.blocks[1].fail = True
    with pytest.raises(RuntimeError, match="on purpose"), record_attention(model):
        model(x)
    assert hooks(model) == 0 and recording.open_listeners == []


def test_own_hooks_of_the_model_survive():
    model, calls = Model(), []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with record_attention(model):
        model(torch.randn(1, 4, 8))
    assert calls == [1] and hooks(model) == 1


def test_second_run_stands_beside_the_first():
    model = Model()
    with record_attention(model) as tape:
        for _ in range(3):
            model(torch.randn(1, 4, 8))
    assert [name for name in tape if name.startswith("blocks.1.w")] == [
        f"blocks.1.weights{n}" for n in ("", ".2", ".3")
    ]
    assert len(tape.attention()) == 9


def test_a_tape_hears_only_its_own_model():
    model, other = Model(), Model()
    with record_attention(model) as tape, record_attention(other) as second:
        other(torch.randn(1, 3, 8))
        dot_product_attention(*(torch.randn(2, 3, 4) for _ in range(3)))
    assert not tape and len(second.attention()) == 3


def test_recording_one_layer_names_the_bare_tensor():
    with record_attention(layer := Layer()) as tape:
        out = layer(torch.randn(1, 3, 8))
    assert list(tape) == ["weights", "q", "k", "v"] and out.shape == (1, 3, 8)


def test_kind_selects_by_the_parts_of_a_name():
    from llmlab.recording import Tape

    tape = Tape()
    for name in (
        "encoder.blocks.0.attention.weights",
        "decoder.blocks.0.attention.weights",
        "decoder.blocks.0.cross.weights",
    ):
        tape[name] = torch.tensor(len(tape))
    assert [int(x) for x in tape.attention("attention")] == [0, 1]
    assert [int(x) for x in tape.attention("cross")] == [2]
    assert [int(x) for x in tape.attention("decoder.attention")] == [1]


# rules, long texts, the pooled map


def near_and_own(t, n, batch=2):
    "A window within documents that differ from row to row."
    documents = (torch.arange(t)[None] >= torch.tensor([[t // 3], [t // 2]])[:batch]).long()
    window, own = sliding_window(n), same_document(documents)
    return lambda b, h, i, j: window(b, h, i, j) & own(b, h, i, j)


def dense(rule, b, h, tq, tk):
    "The rule, entry by entry."
    late = tk - tq
    ask = lambda *at: bool(rule(*map(torch.tensor, at)))  # noqa: E731
    rows = range(late, tk)
    return torch.tensor(
        [[[[ask(x, y, i, j) for j in range(tk)] for i in rows] for y in range(h)] for x in range(b)]
    )


RULES = {
    "window": sliding_window(3),
    "both": near_and_own(11, 4),
    "only head 1": lambda b, h, i, j: (h == 1) & (j <= i),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("tq", [11, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_a_rule_equals_its_mask_written_out(rule, tq, causal):
    q, k, v = qkv(2, 4, 2, tq, 11, 8)
    mask = dense(rule, 2, 4, tq, 11)
    theirs = out_and_gradients(lambda *x: dot_product_attention(*x, mask, causal), q, k, v)
    for block in (3, 256):
        ours = out_and_gradients(lambda *x: streamed(*x, rule, causal, block=block), q, k, v)  # noqa: B023
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dot_product_attention(q, k, v, rule, causal), theirs[0], atol=1e-5, rtol=1e-5)
    shown = dot_product_attention(q, k, v, rule, causal, need_weights=True)[1]
    torch.testing.assert_close(
        shown, dot_product_attention(q, k, v, mask, causal, need_weights=True)[1], atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("tq", [11, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_the_gpu_path_gives_what_the_cpu_gives(tq, causal, monkeypatch):
    "FlexAttention itself, here uncompiled: what a GPU compiles."
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    monkeypatch.setattr(kernels, "compiled_flex_attention", lambda: (create_block_mask, flex_attention))
    kernels.flex_block_mask.cache_clear()
    q, k, v = (x.detach() for x in qkv(2, 4, 2, tq, 11, 8))
    for rule in RULES.values():
        ours = streamed(q, k, v, rule, causal, block=4)
        torch.testing.assert_close(kernels.flex_attention(q, k, v, rule, causal), ours, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            kernels.flex_attention(q[0], k[0], v[0], RULES["window"], causal),
            streamed(q[0], k[0], v[0], RULES["window"], causal, block=4),
            atol=1e-5,
            rtol=1e-5,
        )
    kernels.flex_block_mask.cache_clear()


def test_a_window_reads_only_the_keys_in_view(monkeypatch):
    real, widths = F.scaled_dot_product_attention, []
    monkeypatch.setattr(
        F,
        "scaled_dot_product_attention",
        lambda q, k, *a, **o: widths.append(k.shape[-2]) or real(q, k, *a, **o),
    )
    dot_product_attention(*(torch.randn(1, 1, 2048, 4) for _ in range(3)), sliding_window(100))
    assert len(widths) == 8 and max(widths) == 256 + 99


def pooled(w, bins):
    "The map from the whole weights: sums over keys, means over queries, bin by bin."
    tq, tk = w.shape[-2:]
    queries, keys = ([n * b // m for n in range(m)] for m, b in ((tq, bins), (tk, bins)))
    sums = torch.zeros(*w.shape[:-1], bins).index_add(-1, torch.tensor(keys), w)
    out = torch.zeros(*w.shape[:-2], bins, bins).index_add(-2, torch.tensor(queries), sums)
    return out / torch.tensor([queries.count(b) for b in range(bins)])[:, None]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 30), st.data())
def test_the_map_is_the_pooled_weights(tq, more, data):
    tk = tq + more
    bins, block = data.draw(st.integers(1, tq)), data.draw(st.integers(1, 50))
    causal, rule = data.draw(st.booleans()), data.draw(st.sampled_from([None, sliding_window(5)]))
    q, k, v = (x.detach() for x in qkv(2, 4, 2, tq, tk, 8))
    ours = attention_map(q, k, bins, rule, causal, block)
    w = dot_product_attention(q, k, v, rule, causal, need_weights=True)[1]
    torch.testing.assert_close(ours, pooled(w, bins), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.sum(-1), torch.ones(2, 4, bins), atol=1e-4, rtol=0)


def test_the_map_takes_a_mask_and_leaves_blind_rows_empty():
    q, k, v = (x.detach() for x in qkv(1, 2, 2, 6, 6, 8))
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    mask[..., :2, :] = False
    for m in (mask, mask[:, :, 3:4]):
        w = dot_product_attention(q, k, v, m, need_weights=True)[1]
        torch.testing.assert_close(attention_map(q, k, 3, m, block=4), pooled(w, 3), atol=1e-6, rtol=1e-5)


def test_the_map_holds_a_block_of_weights_at_a_time(monkeypatch):
    real, sizes = module.attention_weights, []
    monkeypatch.setattr(module, "attention_weights", lambda s, mask: sizes.append(s.numel()) or real(s, mask))
    attention_map(torch.randn(1, 2, 1000, 4), torch.randn(1, 2, 1000, 4), 10, causal=True, block=50)
    assert len(sizes) == 20 and max(sizes) == 2 * 50 * 1000 and sizes[0] == 2 * 50 * 50


@pytest.mark.parametrize("bins", [0, 9, -1])
def test_more_bins_than_tokens(bins):
    with pytest.raises(
        ValueError, match=rf"9 bins for 8 queries and 9 keys: take from 1|bins={bins}: expected"
    ):
        attention_map(torch.zeros(1, 8, 4), torch.zeros(1, 9, 4), bins)


def test_a_window_shows_at_least_the_token():
    with pytest.raises(ValueError, match="n=0: expected a whole number of at least 1"):
        sliding_window(0)


# --- additive bias, softcap, scale ------------------------------------------------------------------------


def by_hand(q, k, v, mask, bias, softcap, scale):
    "The formula in 64 bits, one line a step: (weights, output)."
    q, k, v = (x.detach().double() for x in (q, share_heads(k, q.shape[1]), share_heads(v, q.shape[1])))
    s = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    s = s if softcap is None else softcap * torch.tanh(s / softcap)
    s = s + (0 if bias is None else bias.detach().double())
    w = s.masked_fill(~mask, -math.inf).softmax(-1).nan_to_num(0.0)
    return w, w @ v


BIASES = {
    "none": None,
    "full": (2, 4, 5, 9),
    "heads": (4, 1, 9),
    "rows": (1, 5, 1),
    "one axis": (9,),
    "number": (),
}


@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("softcap, scale", [(None, None), (1.5, None), (None, 1.0), (0.7, 0.3)])
@pytest.mark.parametrize("masked", ["none", "causal", "rule", "tensor"])
def test_bias_softcap_and_scale_on_every_path(shape, softcap, scale, masked):
    q, k, v = qkv(2, 4, 2, 5, 9, 8)
    bias = None if shape is None else torch.randn(shape, requires_grad=True)
    pairs = torch.rand(2, 1, 5, 9) < 0.5
    pairs[1, 0, 2] = False
    mask = {"rule": sliding_window(3), "tensor": pairs}.get(masked)
    options = dict(mask=mask, causal=masked == "causal", bias=bias, softcap=softcap, scale=scale)
    allowed = {"none": torch.ones(5, 9, dtype=torch.bool), "causal": causal_mask(5, 9), "tensor": pairs}.get(
        masked
    )
    allowed = dense(mask, 2, 4, 5, 9) if allowed is None else allowed
    w, out = by_hand(q, k, v, allowed, bias, softcap, scale)
    inputs = [x for x in (q, k, v, bias) if x is not None]
    fused, (shown, seen) = (
        dot_product_attention(q, k, v, **options),
        dot_product_attention(q, k, v, need_weights=True, **options),
    )
    gradients = [torch.autograd.grad(x.square().sum(), inputs) for x in (fused, shown)]
    for x in (fused, shown):
        torch.testing.assert_close(x.double(), out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen.double(), w, atol=1e-6, rtol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    ours = attention_map(q.detach(), k.detach(), 3, mask, masked == "causal", 2, bias, softcap, scale)
    torch.testing.assert_close(ours.double(), pooled(w.float(), 3).double(), atol=1e-5, rtol=1e-4)


def test_a_bias_as_a_rule_equals_its_table():
    q, k, v = (x.detach() for x in qkv(2, 4, 2, 5, 9, 8))
    rule = lambda b, h, i, j: 0.1 * h * (j - i) + b  # noqa: E731
    b, h, i, j = (torch.arange(n).view(-1, *[1] * m) for n, m in ((2, 3), (4, 2), (5, 1), (9, 0)))
    table = rule(b, h, i + 4, j)
    for options in (
        {},
        {"causal": True},
        {"mask": sliding_window(2)},
        {"softcap": 2.0},
        {"need_weights": True},
    ):
        torch.testing.assert_close(
            dot_product_attention(q, k, v, bias=rule, **options),
            dot_product_attention(q, k, v, bias=table, **options),
        )
    torch.testing.assert_close(attention_map(q, k, 4, bias=rule), attention_map(q, k, 4, bias=table))


@pytest.mark.parametrize("bias", ["none", "table", "rule"])
def test_the_gpu_path_takes_bias_and_softcap(bias, monkeypatch):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    monkeypatch.setattr(kernels, "compiled_flex_attention", lambda: (create_block_mask, flex_attention))
    kernels.flex_block_mask.cache_clear()
    q, k, v = (x.detach() for x in qkv(2, 4, 2, 5, 11, 8))
    more = {"table": torch.randn(4, 1, 11), "rule": lambda b, h, i, j: -0.2 * (h + 1) * (i - j)}.get(bias)
    for softcap, scale in ((None, None), (1.5, 0.4)):
        options = dict(bias=more, softcap=softcap, scale=scale)
        ours = streamed(q, k, v, sliding_window(4), False, **options)
        torch.testing.assert_close(
            kernels.flex_attention(q, k, v, sliding_window(4), False, **options), ours, atol=1e-5, rtol=1e-5
        )
    kernels.flex_block_mask.cache_clear()


@pytest.mark.parametrize("heads", [1, 2, 8, 12])
def test_alibi_is_that_of_bloom(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 7), heads, torch.float32).view(heads, 1, 7)
    torch.testing.assert_close(alibi_slopes(heads), theirs[:, 0, 1])
    q, k, v = (x.detach() for x in qkv(1, heads, heads, 7, 7, 4))
    ours = dot_product_attention(q, k, v, causal=True, bias=alibi(heads, torch.arange(7), torch.arange(7)))
    torch.testing.assert_close(
        ours, dot_product_attention(q, k, v, causal=True, bias=theirs)
    )  # rows may move as a whole


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("buckets, furthest", [(32, 128), (8, 20)])
def test_buckets_are_those_of_t5(causal, buckets, furthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    queries, keys = torch.arange(300, 310), torch.arange(600)
    theirs = T5Attention._relative_position_bucket(
        keys[None] - queries[:, None], not causal, buckets, furthest
    )
    ours = relative_buckets(queries, keys, causal, buckets, furthest)
    seen = keys[None] <= queries[:, None] if causal else torch.ones_like(theirs, dtype=torch.bool)
    assert torch.equal(ours[seen], theirs[seen])


# --- what is hidden stays hidden, in every precision ------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_looking_does_not_change_the_answer_in_half_precision(dtype):
    q, k, v = (x.detach().to(dtype) for x in qkv(1, 2, 2, 6, 6, 64))
    q, k = 60 * q, 60 * k  # products up to some hundred thousand, which fp16 does not hold
    shown, w = dot_product_attention(q, k, v, causal=True, need_weights=True)
    assert w.dtype == shown.dtype == dtype and w.isfinite().all()
    torch.testing.assert_close(shown, dot_product_attention(q, k, v, causal=True), atol=2e-2, rtol=2e-2)
    right = dot_product_attention(q.double(), k.double(), v.double(), causal=True)
    torch.testing.assert_close(shown.double(), right, atol=2e-2, rtol=2e-2)


def test_scores_in_half_precision_do_not_overflow_before_they_are_scaled():
    q = torch.full((1, 1, 64), 40.0, dtype=torch.float16)
    assert scores(q, q).item() == 40 * 40 * 64 / 8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["k", "v", "both"])
@pytest.mark.parametrize("way", ["causal", "padding", "rule", "empty row"])
@pytest.mark.parametrize(
    "options", [{}, {"softcap": 3.0}, {"bias": torch.tensor(0.5)}], ids=["plain", "softcap", "bias"]
)
def test_what_is_hidden_does_not_leak_even_if_it_is_no_number(bad, where, way, options):
    q, k, v = qkv(2, 4, 2, 6, 6, 8)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[..., 4] = False
    mask[:, :, 2] &= way != "empty row"
    mask = {"causal": None, "rule": lambda b, h, i, j: (j != 4) | (i < 0)}.get(way, mask)
    spoil = torch.zeros(1, 1, 6, 1, dtype=torch.bool)
    spoil[:, :, 4] = True
    k2, v2 = (
        x.masked_fill(spoil, bad) if n in where or where == "both" else x for n, x in (("k", k), ("v", v))
    )
    rows = slice(0, 4) if way == "causal" else slice(None)
    right = dot_product_attention(q, k, v, mask, way == "causal", **options)[:, :, rows]
    for need in (False, True):
        out = dot_product_attention(q, k2, v2, mask, way == "causal", need, **options)
        out = out[0] if need else out
        torch.testing.assert_close(out[:, :, rows], right, atol=1e-5, rtol=1e-5)
        if way == "causal" and where != "k":
            assert not out[:, :, 4:].isfinite().any(), "who may look at it learns that it is no number"
        if way != "causal":  # there the rows that do look at it have no gradient
            gradients = torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True)
            assert all(x.isfinite().all() for x in gradients)


# --- masks of any number of axes, and nothing to look at --------------------------------------------------


@pytest.mark.parametrize("need", [False, True])
def test_masks_of_no_axis_or_one(need):
    q, k, v = (x.detach() for x in qkv(2, 4, 2, 5, 9, 8))
    flat = torch.arange(9) % 2 == 0
    for mask, whole in (
        (flat, flat.expand(5, 9)),
        *((torch.tensor(x), torch.full((5, 9), x)) for x in (True, False)),
    ):
        for causal in (False, True):
            ours, right = (dot_product_attention(q, k, v, m, causal, need) for m in (mask, whole))
            torch.testing.assert_close(ours, right)
            torch.testing.assert_close(
                attention_map(q, k, 3, mask, causal), attention_map(q, k, 3, whole, causal)
            )


@pytest.mark.parametrize("tq, tk", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize(
    "options",
    [{}, {"mask": sliding_window(2)}, {"causal": True}, {"softcap": 2.0}, {"bias": torch.tensor(1.0)}],
)
def test_no_queries_or_no_keys(tq, tk, options):
    q, k, v = qkv(2, 4, 2, tq, tk, 8)
    if options.get("causal") and tq > tk:
        pytest.skip("queries are the last of the keys")
    out, w = dot_product_attention(q, k, v, need_weights=True, **options)
    assert out.shape == (2, 4, tq, 8) and w.shape == (2, 4, tq, tk) and (out == 0).all()
    assert torch.equal(dot_product_attention(q, k, v, **options), out)


def test_documents_for_too_few_texts_or_tokens(unchecked):
    q, k, v = (x.detach() for x in qkv(2, 4, 2, 5, 5, 8))
    for documents in ([[0] * 5], [[0] * 4] * 2):
        with pytest.raises(
            ValueError,
            match=r"documents \[\d, \d\] for 2 texts of 5 tokens: number every token of every text",
        ):
            dot_product_attention(q, k, v, same_document(documents))
    with pytest.raises(
        ValueError, match=r"documents \[5\]: expected a number for each token of each text, \[b t\]"
    ):
        same_document(torch.zeros(5))
    assert document_positions(torch.tensor([[5, 5, 5, 7, 7], [1, 2, 2, 1, 1]])).tolist() == [
        [0, 1, 2, 0, 1],
        [0, 0, 1, 0, 1],
    ]


def test_a_map_refuses_a_mask_of_numbers(unchecked):
    with pytest.raises(ValueError, match="the mask is torch.float32, expected torch.bool"):
        attention_map(torch.zeros(1, 8, 4), torch.zeros(1, 8, 4), 2, torch.zeros(8, 8))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"bias": torch.zeros(5, 3)}, r"the bias \[5, 3\] does not broadcast to the scores \[1, 4, 3, 5\]"),
        (
            {"bias": torch.zeros(3, 5, dtype=torch.bool)},
            "the bias is torch.bool, expected numbers to add to the scores",
        ),
        ({"bias": torch.zeros(3, 5, device="meta")}, "queries are on cpu, the bias on meta"),
        ({"softcap": 0.0}, "softcap=0.0: expected a finite number above 0"),
        ({"softcap": math.nan}, "softcap=nan: expected a finite number above 0"),
    ],
)
def test_a_bias_or_cap_that_does_not_fit(options, words, unchecked):
    q, k = torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 5, 8)
    with pytest.raises(ValueError, match=words):
        dot_product_attention(q, k, k, **options)


# error texts

Q, K = torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 5, 8)
WRONG = {
    r"queries are torch.float32, keys are torch.float64: cast one": (Q, K.double(), K),
    r"queries are torch.float32, values are torch.bfloat16: cast one": (Q, K, K.bfloat16()),
    r"queries are on cpu, keys on meta: move one": (Q, K.to("meta"), K),
    r"expected q \[\*b h tq dh\].*got \[3, 8\], \[1, 2, 5, 8\]": (Q[0, 0], K, K),
    r"expected q .*got \[1, 4, 3, 8\], \[1, 2, 5, 8\], \[1, 2, 4, 8\]": (Q, K, K[:, :, :4]),
    r"expected q .*got \[1, 4, 3, 8\], \[2, 2, 5, 8\]": (Q, K.expand(2, -1, -1, -1), K.expand(2, -1, -1, -1)),
    r"query width 8, key width 6: both must be the head width": (Q, K[..., :6], K),
    r"3 key heads do not divide 4 query heads: choose a divisor": (
        Q,
        torch.zeros(1, 3, 5, 8),
        torch.zeros(1, 3, 5, 8),
    ),
    r"the mask is torch.float32, expected torch.bool": (Q, K, K, torch.zeros(3, 5)),
    r"queries are on cpu, the mask on meta": (Q, K, K, torch.zeros(3, 5, dtype=torch.bool, device="meta")),
    r"the mask \[5, 3\] does not broadcast to the scores \[1, 4, 3, 5\]": (
        Q,
        K,
        K,
        torch.zeros(5, 3, dtype=torch.bool),
    ),
    r"the mask \[1, 1, 1, 3, 5\] does not broadcast": (Q, K, K, torch.zeros(1, 1, 1, 3, 5, dtype=torch.bool)),
}


@pytest.mark.parametrize("text", WRONG)
def test_error_texts(text, unchecked):
    with pytest.raises(ValueError, match=text):
        dot_product_attention(*WRONG[text])


def test_checks_pass_what_is_right():
    kernels.check_attention(Q, K, K)
    for shape in ((5,), (3, 5), (1, 1, 1, 5), (4, 1, 1)):
        kernels.check_mask(torch.zeros(shape, dtype=torch.bool), Q, K)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide the width 8: choose a multiple of 3"):
        split_heads(torch.zeros(2, 5, 8), 3)


def test_rotary_needs_pairs():
    with pytest.raises(ValueError, match="a head width of 7 leaves one over: make it even"):
        rotary(torch.zeros(2, 5, 7))
