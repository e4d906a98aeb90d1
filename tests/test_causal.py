"The loss against PyTorch's, the future against zero, samples against their distribution."

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from llmlab.causal import attention_on, causal_loss, earlier_mentions, future_gradient
from llmlab.recording import record_attention
from llmlab.transformer import Config, Decoder

CFG = Config(vocab_size=30, context=12, layers=2, heads=2, d_model=16)


def decoder(**change):
    torch.manual_seed(0)
    return Decoder(replace(CFG, **change))


def ids(*shape, seed=0):
    return torch.randint(30, shape, generator=torch.Generator().manual_seed(seed))


def gradients(model, value):
    return torch.autograd.grad(value, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("chunk", [1, 7, 33, 1000])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_loss_and_gradients_equal_torch(chunk, tied, position):
    model, x = decoder(tied=tied, position=position).double(), ids(3, 12)
    ours = causal_loss(model, x, chunk)
    theirs = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients(model, 3 * ours), gradients(model, 3 * theirs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_loss_in_bf16_is_near():
    model, x = decoder(), ids(3, 12)
    exact = causal_loss(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = causal_loss(model, x)
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    for a, b in zip(gradients(model, exact), gradients(model, rough), strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= 0.05 * a.norm()


def test_loss_never_holds_the_logits_of_a_batch():
    model, shapes = decoder(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
        causal_loss(model, ids(8, 12), chunk=4)
    assert not [s for s in shapes if s[-1:] == (30,)]


def test_loss_pencil():
    "A model that knows nothing: the log of the vocabulary, whatever the text."
    model = decoder()
    torch.nn.init.zeros_(model.embed.tokens.weight)
    assert causal_loss(model, ids(2, 5)).item() == pytest.approx(torch.tensor(30.0).log().item(), abs=1e-6)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
@pytest.mark.parametrize("at", [0, 5, 11])
def test_future_gradient_is_exactly_zero(position, at):
    sizes = future_gradient(decoder(position=position), ids(12), at)
    assert (sizes[at + 1 :] == 0).all()
    assert (sizes[: at + 1] > 0).all()


def test_a_broken_mask_is_caught():
    model = decoder()
    model.blocks[1].causal = False
    assert (future_gradient(model, ids(12), 5)[6:] > 0).all()


def test_future_gradient_leaves_the_model_alone():
    model = decoder()
    future_gradient(model, ids(12), 5)
    assert not model.embed.tokens._forward_hooks and all(p.grad is None for p in model.parameters())
    with pytest.raises(IndexError):
        future_gradient(model, ids(12), 12)
    assert not model.embed.tokens._forward_hooks


def test_earlier_mentions():
    strings = ["One", " Tom", " and", " Tom", " met", " Ann", " Tom"]
    assert earlier_mentions(strings, [" Tom", " Ann"]) == [(2, [1]), (5, [1, 3])]
    assert earlier_mentions(strings, [" Zoe"]) == []


def test_attention_on_reads_the_right_cells():
    weights = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    got = attention_on(list(weights), [(3, [0, 1]), (2, [1])])
    assert got[1, 2] == (weights[1, 2, 3, 0] + weights[1, 2, 3, 1] + weights[1, 2, 2, 1]) / 2


def test_attention_on_a_recorded_model():
    model, x = decoder(), ids(1, 8)
    with record_attention(model) as tape:
        model(x)
    everything = attention_on([w[0] for w in tape.attention()], [(5, list(range(6)))])
    torch.testing.assert_close(everything, torch.ones(2, 2))


@pytest.mark.parametrize(
    "call,text",
    [
        (lambda m: causal_loss(m, ids(2, 1)), "1 token a row: a target needs a token before it"),
        (lambda m: causal_loss(m, ids(2, 14)), "13 tokens, but the context is 12"),
        (lambda m: attention_on([torch.zeros(2, 3, 3)], []), "no pairs"),
    ],
)
def test_errors(unchecked, call, text):
    with pytest.raises(ValueError, match=text):
        call(decoder())
