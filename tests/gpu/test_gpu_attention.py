"Attention on the device against softmax(QKᵀ/√dh)V written out in fp64 on the CPU; tapes; pooled maps."

import pytest
import torch
from on_device import DEVICE, LargestTensor, decoder, only_gpu, relative_error

from llmlab import attention_map, record_attention
from llmlab.attention import (
    dot_product_attention,
    same_document,
    sliding_window,
)

DTYPES = {"fp32": (torch.float32, 1e-5), "fp16": (torch.float16, 4e-3), "bf16": (torch.bfloat16, 3e-2)}
B, H, T, DH = 2, 4, 160, 32  # more than one block of FlexAttention, and no multiple of it


def exact(q, k, v, mask):
    "In fp64 on the CPU; a row that sees nothing gives zero."
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return torch.where(mask.any(-1, keepdim=True), s.softmax(-1), 0.0).nan_to_num() @ v


def documents():
    return (torch.arange(T) // torch.tensor([[50], [71]])).long()


def padding(device):
    return (torch.arange(T, device=device) < 90)[None, None, None]


def window(i, j):
    return (j <= i) & (i - j < 40)


def random_mask():
    mask = torch.rand(B, 1, T, T, generator=torch.Generator().manual_seed(3)) < 0.3
    mask[:, :, 7] = False  # this query sees nothing
    return mask


def grid(tq):
    return torch.arange(T - tq, T)[:, None], torch.arange(T)


# name -> (queries, key heads, causal, mask or rule on a device, the same written out)
CASES = {
    "everything": (T, H, False, lambda device: None, lambda i, j: j >= 0),
    "causal": (T, H, True, lambda device: None, lambda i, j: j <= i),
    "causal, shared keys": (T, 1, True, lambda device: None, lambda i, j: j <= i),
    "causal, last queries": (33, 2, True, lambda device: None, lambda i, j: j <= i),
    "padding": (T, H, False, padding, lambda i, j: j < 90),
    "random": (T, 2, False, lambda device: random_mask().to(device), lambda i, j: random_mask()),
    "random, causal": (
        T,
        H,
        True,
        lambda device: random_mask().to(device),
        lambda i, j: random_mask() & (j <= i),
    ),
    "rule: window": (T, H, False, lambda device: sliding_window(40), window),
    "rule: own document": (
        T,
        2,
        True,
        lambda device: same_document(documents().to(device)),
        lambda i, j: (documents()[:, None, :, None] == documents()[:, None, None]) & (j <= i),
    ),
    "rule: window, last queries": (33, H, False, lambda device: sliding_window(40), window),
}


def inputs(tq, hk, dtype):
    "Rounded to dtype, then fp64: the rounding of inputs is nobody's error."
    torch.manual_seed(0)
    shapes = (B, H, tq, DH), (B, hk, T, DH), (B, hk, T, DH), (B, H, tq, DH)
    return [torch.randn(shape).to(dtype).double() for shape in shapes]


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_equal_fp64(case, kind):
    (dtype, most), (tq, hk, causal, mask, written_out) = DTYPES[kind], CASES[case]
    if case == "rule: window, last queries" and kind != "fp32":
        pytest.skip("one kernel less to compile; the other rules run in every precision")
    *qkv, seed = inputs(tq, hk, dtype)
    there = written_out(*grid(tq)).expand(B, 1, tq, T)
    qkv = [x.requires_grad_() for x in qkv]
    wanted = exact(*qkv, there)
    gradients = torch.autograd.grad(wanted, qkv, seed)
    ours = [x.detach().to(DEVICE, dtype).requires_grad_() for x in qkv]
    out = dot_product_attention(*ours, mask(DEVICE), causal)
    assert out.dtype == dtype and out.device.type == DEVICE.type
    assert relative_error(out, wanted) < most
    for name, x, y in zip(
        "qkv", torch.autograd.grad(out, ours, seed.to(DEVICE, dtype)), gradients, strict=True
    ):
        assert relative_error(x, y) < 2 * most, name


@pytest.mark.parametrize("case", ["causal", "random, causal", "rule: own document"])
def test_looking_at_the_weights_changes_no_output(case):
    tq, hk, causal, mask, written_out = CASES[case]
    *qkv, _ = inputs(tq, hk, torch.float32)
    q, k, v = (x.to(DEVICE, torch.float32) for x in qkv)
    out, weights = dot_product_attention(q, k, v, mask(DEVICE), causal, need_weights=True)
    assert relative_error(out, exact(*qkv, written_out(*grid(tq)).expand(B, 1, tq, T))) < 1e-5
    assert (
        weights.device.type == DEVICE.type
        and not weights.masked_select(~written_out(*grid(tq)).to(DEVICE)).any()
    )


def test_a_tape_on_the_device_equals_the_cpu_s():
    ids = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(1))
    tapes = []
    for device in ("cpu", DEVICE):
        model = decoder(kv_heads=2, position="rope").to(device)
        with torch.no_grad():
            with record_attention(model) as tape:
                seen = model(ids.to(device))
            assert relative_error(model(ids.to(device)), seen) < 1e-5
        tapes.append(tape)
    here, there = tapes
    assert list(here) == list(there) and "blocks.1.attention.weights" in there
    for name, x in there.items():
        assert x.device.type == DEVICE.type and relative_error(x, here[name]) < 1e-4, name


# --- pooled maps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["everything", "causal", "random, causal", "rule: own document"])
def test_pooled_maps_are_pooled_weights(case):
    tq, hk, causal, mask, written_out = CASES[case]
    q, k, *_ = inputs(tq, hk, torch.float32)
    eye = torch.eye(T, dtype=torch.double).expand(B, hk, T, T)  # values that hand the weights through
    weights = exact(q, k, eye, written_out(*grid(tq)).expand(B, 1, tq, T))
    wanted = weights.unflatten(-1, (20, -1)).sum(-1).unflatten(-2, (20, -1)).mean(-2)
    pooled = attention_map(q.to(DEVICE, torch.float32), k.to(DEVICE, torch.float32), 20, mask(DEVICE), causal)
    assert pooled.device.type == DEVICE.type and relative_error(pooled, wanted) < 1e-5


def test_a_pooled_map_never_holds_the_weights():
    q = torch.randn(1, 2, 1024, 32, device=DEVICE)
    with LargestTensor() as largest:
        attention_map(q, q, 32, causal=True)
    assert largest.numel < 2 * 1024**2 / 8, "less than an eighth of the weights of two heads"


@only_gpu
def test_a_rule_takes_no_memory_for_its_weights():
    q = torch.randn(1, 8, 8192, 64, device=DEVICE, dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    dot_product_attention(q, q, q, sliding_window(256))
    assert torch.cuda.max_memory_allocated() - before < 8 * 8192**2 * 2 / 8, (
        "an eighth of the weights in bf16"
    )
