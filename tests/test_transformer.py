"""The Transformer against PyTorch's layers and Hugging Face's GPT-2; what its masks let through; the
error texts."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmlab.attention import document_positions, same_document
from llmlab.cache import pad
from llmlab.recording import record_attention
from llmlab.transformer import (
    Attention,
    Block,
    Config,
    Decoder,
    Embed,
    Encoder,
    EncoderDecoder,
    FeedForward,
    count_parameters,
    parameters,
    sinusoids,
    swiglu,
)

SMALL = Config(50, context=16, layers=2, heads=4, d_model=32)
CHOICES = dict(
    norm=["layer", "rms"],
    norm_place=["pre", "post"],
    position=["learned", "sinusoidal", "sinusoidal_halves", "rope", "alibi", "relative"],
    feed_forward=["gelu", "gelu_exact", "swiglu", "relu", "silu", "geglu"],
    kv_heads=[None, 2],
    tied=[True, False],
    bias=[True, False, "qkv"],
    qk_norm=[False, True],
    d_head=[None, 12],
)
EVERY = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
MANY = EVERY[::37]  # 37 is prime to every axis
SOME = MANY[::6]


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for each other
    yield
    torch.set_num_threads(threads)


def ids(*shape, vocab=50):
    return torch.randint(vocab, shape)


def roused(model):
    "Weights large enough that every part of the model matters."
    for p in model.parameters():
        nn.init.normal_(p, std=0.3) if p.ndim == 2 else nn.init.normal_(p, 1.0, 0.2)
    return model.eval()


# peers


def copy_layer(block, peer):
    "PyTorch's encoder or decoder layer into a block."
    pairs = [(block.attention, peer.self_attn), (block.cross, getattr(peer, "multihead_attn", None))]
    for ours, theirs in pairs:
        if ours is not None:
            ours.qkv.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
            ours.out.load_state_dict(theirs.out_proj.state_dict())
    last = "norm2" if block.cross is None else "norm3"
    parts = [
        ("norm1", "norm1"),
        ("norm2", last),
        ("norm_cross", "norm2"),
        ("mlp.up", "linear1"),
        ("mlp.down", "linear2"),
    ]
    for ours, theirs in parts:
        if block.cross is not None or ours != "norm_cross":
            block.get_submodule(ours).load_state_dict(peer.get_submodule(theirs).state_dict())


def grads(out, *inputs):
    return torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("d", "heads", "t"), [(8, 1, 1), (32, 4, 7), (48, 6, 16)])
def test_block_equals_torch_encoder_layer(d, heads, t, causal):
    peer = roused(
        nn.TransformerEncoderLayer(d, heads, 4 * d, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    ).train()
    block = Block(Config(9, heads=heads, d_model=d), causal=causal)
    copy_layer(block, peer)
    x = torch.randn(2, t, d, requires_grad=True)
    hidden = ~torch.ones(t, t).tril().bool() if causal else None
    padding = torch.arange(t)[None] < torch.tensor([[t], [max(1, t - 2)]])
    ours = block(x, padding[:, None, None])
    theirs = peer(x, src_mask=hidden, src_key_padding_mask=~padding)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads(ours, x), grads(theirs, x), atol=1e-5, rtol=1e-4)


def test_cross_block_equals_torch_decoder_layer():
    peer = roused(
        nn.TransformerDecoderLayer(32, 4, 128, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    ).train()
    block = Block(SMALL, causal=True, cross=True)
    copy_layer(block, peer)
    x, memory = torch.randn(2, 5, 32, requires_grad=True), torch.randn(2, 7, 32, requires_grad=True)
    padding = torch.arange(7)[None] < torch.tensor([[7], [4]])
    ours = block(x, None, None, memory, padding[:, None, None])
    theirs = peer(x, memory, tgt_mask=~torch.ones(5, 5).tril().bool(), memory_key_padding_mask=~padding)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads(ours, x, memory), grads(theirs, x, memory), atol=1e-5, rtol=1e-4)


def test_decoder_equals_hugging_face_gpt2():
    transformers = pytest.importorskip("transformers")
    cfg = Config(61, context=20, layers=3, heads=4, d_model=32)
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=61, n_positions=20, n_layer=3, n_head=4, n_embd=32, bos_token_id=0, eos_token_id=0
        )
    )
    roused(peer)
    model, theirs = Decoder(cfg).eval(), peer.transformer
    copied = {"embed.tokens.weight": theirs.wte.weight, "embed.positions.weight": theirs.wpe.weight}
    copied |= {f"norm.{end}": getattr(theirs.ln_f, end) for end in ("weight", "bias")}
    names = {"norm1": "ln_1", "norm2": "ln_2", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
    names |= {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    for i, (ours, name) in itertools.product(range(3), names.items()):
        part = theirs.h[i].get_submodule(name)
        turned = part.weight.T if part.weight.ndim == 2 else part.weight
        copied |= {f"blocks.{i}.{ours}.weight": turned, f"blocks.{i}.{ours}.bias": part.bias}
    model.load_state_dict(copied)
    x = ids(2, 20, vocab=61)
    torch.testing.assert_close(model(x), peer(x).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("base", [10000.0, 500000.0])
def test_rms_rope_swiglu_grouped_equals_hugging_face_llama(base):
    transformers = pytest.importorskip("transformers")
    cfg = Config(
        61,
        20,
        2,
        4,
        32,
        kv_heads=2,
        d_ff=48,
        norm="rms",
        position="rope",
        rope_base=base,
        feed_forward="swiglu",
        bias=False,
        tied=False,
    )
    shape = dict(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    shape |= dict(
        num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=base)
    )
    peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    assert peer.model.rotary_emb.inv_freq[1].item() == pytest.approx(base ** (-2 / 8))
    roused(peer)
    model, theirs = Decoder(cfg).eval(), peer.model
    copied = {"embed.tokens.weight": theirs.embed_tokens.weight, "norm.weight": theirs.norm.weight}
    copied["head.weight"] = peer.lm_head.weight
    for i, layer in enumerate(theirs.layers):
        a, m = layer.self_attn, layer.mlp
        copied |= {
            f"blocks.{i}.norm1.weight": layer.input_layernorm.weight,
            f"blocks.{i}.norm2.weight": layer.post_attention_layernorm.weight,
            f"blocks.{i}.attention.qkv.weight": torch.cat(
                [a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]
            ),
            f"blocks.{i}.attention.out.weight": a.o_proj.weight,
            f"blocks.{i}.mlp.up.weight": torch.cat([m.gate_proj.weight, m.up_proj.weight]),
            f"blocks.{i}.mlp.down.weight": m.down_proj.weight,
        }
    model.load_state_dict(copied)
    x = ids(2, 20, vocab=61)
    torch.testing.assert_close(model(x), peer(x).logits, atol=1e-4, rtol=1e-4)


def test_post_norm_block_equals_torch_encoder_layer():
    peer = roused(
        nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=False)
    ).train()
    block = Block(replace(SMALL, norm_place="post", feed_forward="gelu_exact"))
    copy_layer(block, peer)
    x = torch.randn(2, 7, 32, requires_grad=True)
    padding = torch.arange(7)[None] < torch.tensor([[7], [4]])
    ours, theirs = block(x, padding[:, None, None]), peer(x, src_key_padding_mask=~padding)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads(ours, x), grads(theirs, x), atol=1e-5, rtol=1e-4)


def test_post_norm_cross_block_equals_torch_decoder_layer():
    peer = roused(nn.TransformerDecoderLayer(32, 4, 128, 0.0, nn.GELU("tanh"), batch_first=True)).train()
    block = Block(replace(SMALL, norm_place="post"), causal=True, cross=True)
    copy_layer(block, peer)
    x, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    theirs = peer(x, memory, tgt_mask=~torch.ones(5, 5).tril().bool())
    torch.testing.assert_close(block(x, None, None, memory), theirs, atol=1e-5, rtol=1e-5)


def test_segments_are_one_more_vector_a_token():
    model = roused(Encoder(replace(SMALL, segments=2, norm_place="post")))
    x, table = ids(1, 5), model.embed.segments.weight
    plain = model.embed(x) - table[0]
    torch.testing.assert_close(
        model.embed(x, torch.tensor([[0, 0, 1, 1, 0]])), plain + table[[0, 0, 1, 1, 0]]
    )
    torch.testing.assert_close(model(x), model(x, segments=torch.zeros_like(x)))
    assert not torch.allclose(model(x), model(x, segments=torch.ones_like(x)), atol=1e-2)


BAD_SEGMENTS = {
    r"segments \[1, 4\] from 0 to 0: expected \[1, 5\], below 2": torch.zeros(1, 4, dtype=torch.long),
    r"segments \[1, 5\] from 0 to 2: expected \[1, 5\], below 2": torch.tensor([[0, 1, 2, 0, 0]]),
    r"segments \[1, 5\] from -1 to 0: expected": torch.tensor([[0, 0, -1, 0, 0]]),
}


@pytest.mark.parametrize("text", BAD_SEGMENTS)
def test_segment_errors(text, unchecked):
    with pytest.raises(ValueError, match=text):
        Encoder(replace(SMALL, segments=2))(ids(1, 5), segments=BAD_SEGMENTS[text])


def test_segments_without_a_table_are_named(unchecked):
    with pytest.raises(ValueError, match="below 0"):
        Encoder(SMALL)(ids(1, 5), segments=torch.zeros(1, 5, dtype=torch.long))


def test_an_old_header_still_makes_a_config():
    "Checkpoints hold asdict(Config) of their day: later fields keep their defaults."
    old = {
        "vocab_size": 50,
        "context": 16,
        "layers": 2,
        "heads": 4,
        "d_model": 32,
        "kv_heads": None,
        "d_ff": None,
    }
    old |= {"norm": "layer", "position": "learned", "rope_base": 1e4, "feed_forward": "gelu", "tied": True}
    assert Config(**old, bias=True, dropout=0.0) == SMALL


def test_rms_norm_by_its_formula():
    x, gain = torch.randn(3, 5, 32) * 4, torch.randn(32)
    model = Encoder(replace(SMALL, norm="rms"))
    assert isinstance(model.norm, nn.RMSNorm)
    model.norm.weight.data = gain
    torch.testing.assert_close(model.norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain)


def test_sinusoids_by_their_formula():
    table = sinusoids(40, 10)
    for p, i in ((0, 0), (3, 2), (39, 4)):
        angle = p / 10000 ** (2 * i / 10)
        assert table[p, 2 * i : 2 * i + 2].tolist() == pytest.approx(
            [math.sin(angle), math.cos(angle)], abs=1e-5
        )


def test_sinusoids_in_halves_are_the_same_columns_in_another_order():
    whole, halves = sinusoids(40, 10), sinusoids(40, 10, halves=True)
    assert torch.equal(halves, torch.cat([whole[:, ::2], whole[:, 1::2]], -1))
    assert torch.equal(
        Embed(replace(SMALL, position="sinusoidal_halves")).waves, sinusoids(16, 32, halves=True)
    )


FEED_FORWARDS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_exact": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x * x.sigmoid(),
    "swiglu": lambda x: x[..., :40] * x[..., :40].sigmoid() * x[..., 40:],
    "geglu": lambda x: F.gelu(x[..., :40], approximate="tanh") * x[..., 40:],
}


@pytest.mark.parametrize("kind", FEED_FORWARDS)
def test_feed_forward_by_its_formula(kind):
    part, x = FeedForward(replace(SMALL, d_ff=40, feed_forward=kind)), torch.randn(2, 3, 32)
    by_hand = FEED_FORWARDS[kind](x @ part.up.weight.T + part.up.bias) @ part.down.weight.T + part.down.bias
    torch.testing.assert_close(part(x), by_hand)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "sinusoidal_halves", "rope"])
@pytest.mark.parametrize("scale", [None, 1.0, 3.0])
def test_embed_scale_is_a_factor_of_the_token_vectors_alone(position, scale):
    embed, x = Embed(replace(SMALL, position=position, embed_scale=scale)), ids(2, 7)
    usual = 32**0.5 if position.startswith("sinusoidal") else 1.0
    places = {"learned": lambda: embed.positions.weight[:7], "rope": lambda: 0}.get(
        position, lambda: embed.waves[:7]
    )()
    torch.testing.assert_close(embed(x), embed.tokens(x) * (scale or usual) + places)


def test_embed_norm_is_left_out_with_post_norm_only():
    post = Encoder(replace(SMALL, norm_place="post", embed_norm=False))
    assert isinstance(post.norm, nn.Identity)
    x = ids(2, 5)
    torch.testing.assert_close(post(x), post.blocks[1](post.blocks[0](post.embed(x))))
    assert isinstance(Encoder(replace(SMALL, embed_norm=False)).norm, nn.LayerNorm)


def test_fields_of_an_encoder_decoder():
    fields = dict(layers=3, decoder_layers=2, shared_tokens=True, head_scale=0.25, head_bias=True)
    model = EncoderDecoder(replace(SMALL, **fields))
    assert (len(model.encoder.blocks), len(model.decoder.blocks), model.decoder.cfg.layers) == (3, 2, 2)
    assert model.encoder.embed.tokens is model.decoder.embed.tokens
    assert model.encoder.embed.positions is not model.decoder.embed.positions
    assert "decoder.head_bias" in model.state_dict() and "decoder.head_bias" not in dict(
        model.named_parameters()
    )
    model.decoder.head_bias.normal_()
    hidden = torch.randn(2, 3, 32)
    by_hand = hidden / 4 @ model.encoder.embed.tokens.weight.T + model.decoder.head_bias[0]
    torch.testing.assert_close(model.decoder.logits(hidden), by_hand)
    own = EncoderDecoder(SMALL)
    assert own.encoder.embed.tokens is not own.decoder.embed.tokens and len(own.decoder.blocks) == 2


@pytest.mark.parametrize(
    "field, value", [("decoder_layers", 1), ("shared_tokens", True), ("head_scale", 0.5), ("head_bias", True)]
)
def test_a_decoder_alone_refuses_them(field, value, unchecked):
    with pytest.raises(
        ValueError, match=f"{field} set for a Decoder: these fields are for an EncoderDecoder"
    ):
        Decoder(replace(SMALL, **{field: value}))


# parameters


def test_gpt2_small_has_124_439_808():
    with torch.device("meta"):
        model = Decoder(Config.gpt2_small())
    assert count_parameters(model) == sum(parameters(model).values()) == 124_439_808


def test_llama_3_8b_has_8_030_261_248():
    "Meta's model card says 8.03 billion."
    llama = dict(
        norm="rms", position="rope", rope_base=500_000.0, feed_forward="swiglu", tied=False, bias=False
    )
    with torch.device("meta"):
        model = Encoder(Config(128256, 8192, 1, 32, 4096, kv_heads=8, d_ff=14336, **llama))
    layer, table = count_parameters(model.blocks), count_parameters(model.embed)
    assert 32 * layer + 2 * table + count_parameters(model.norm) == 8_030_261_248


def test_equal_to_hugging_face_gpt2_count():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    assert sum(p.numel() for p in theirs.parameters()) == 124_439_808


@pytest.mark.parametrize("choices", SOME, ids=str)
def test_count_by_hand(choices):
    cfg = replace(SMALL, **choices)
    d, v, b, head = 32, 50, int(cfg.bias is True), cfg.d_head or 8
    qkv = 4 * head + 2 * (cfg.kv_heads or 4) * head
    units, ways = (88, 2) if cfg.feed_forward in ("swiglu", "geglu") else (128, 1)
    norm = d if cfg.norm == "rms" else d + b * d
    attention = qkv * (d + bool(cfg.bias)) + d * (4 * head + b)
    if cfg.qk_norm:
        attention += 2 * head * (1 if cfg.norm == "rms" else 1 + b)
    block = 2 * norm + attention + ways * units * (d + b) + d * (units + b)
    total = v * d * (1 if cfg.tied else 2) + 2 * block + norm + (16 * d if cfg.position == "learned" else 0)
    total += 32 * 4 if cfg.position == "relative" else 0
    assert count_parameters(Decoder(cfg)) == total


@pytest.mark.parametrize(("d_model", "std"), [(768, 0.02), (192, 0.04), (48, 0.08)])
def test_start_is_gpt2s_scaled_to_the_width(d_model, std):
    model = Decoder(Config(1000, layers=8, heads=4, d_model=d_model, tied=False))
    for matrix in (model.embed.tokens, model.embed.positions, model.blocks[3].attention.qkv, model.head):
        assert matrix.weight.std().item() == pytest.approx(std, rel=0.05)
    for ends in ([b.attention.out for b in model.blocks], [b.mlp.down for b in model.blocks]):
        assert torch.stack([end.weight for end in ends]).std().item() == pytest.approx(std / 4, rel=0.05)
        assert not any(end.bias.any() for end in ends)
    assert (model.norm.weight == 1).all()


@pytest.mark.parametrize("d_model", [32, 256])
def test_first_loss_is_near_ln_v(d_model):
    model = Decoder(Config(1000, layers=4, heads=4, d_model=d_model))
    loss = F.cross_entropy(model(ids(8, 64, vocab=1000)).flatten(0, 1), ids(512, vocab=1000))
    assert loss.item() == pytest.approx(
        math.log(1000) + 0.02**2 * 768 / 2, abs=0.1
    )  # logits of variance 0.02² · 768


# what the assemblies let through


@pytest.mark.parametrize("choices", MANY, ids=str)
def test_every_choice_runs_forward_and_backward(choices):
    cfg = replace(SMALL, **choices)
    mask = torch.arange(7)[None] < torch.tensor([[7], [3]])
    for model, args in (
        (Decoder(cfg), (ids(2, 9),)),
        (Encoder(cfg), (ids(2, 7), mask)),
        (EncoderDecoder(cfg), (ids(2, 7), ids(2, 9), mask)),
    ):
        out = model(*args)
        out.square().sum().backward()
        assert out.isfinite().all() and all(
            p.grad is not None and p.grad.isfinite().all() for p in model.parameters()
        )


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(EVERY), st.integers(1, 15), st.integers(0, 10_000))
def test_the_past_never_sees_the_future(choices, cut, seed):
    torch.manual_seed(seed)
    model = roused(Decoder(replace(SMALL, **choices)))
    x = ids(1, 16)
    changed = torch.cat([x[:, :cut], ids(1, 16 - cut)], 1)
    torch.testing.assert_close(model(x)[:, :cut], model(changed)[:, :cut], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(x[:, :cut]), model(x)[:, :cut], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("position", CHOICES["position"])
def test_the_last_token_sees_all(position):
    model = roused(Decoder(replace(SMALL, position=position)))
    x = model.embed(ids(1, 6)).detach().requires_grad_()
    model.embed.forward = lambda *_: x
    model.hidden(ids(1, 6))[0, -1].sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("position", CHOICES["position"])
def test_padding_does_not_count(position):
    cfg = replace(SMALL, position=position)
    encoder, both = roused(Encoder(cfg)), roused(EncoderDecoder(cfg))
    short, filler, target = ids(2, 5), ids(2, 3), ids(2, 4)
    padded, mask = torch.cat([short, filler], 1), (torch.arange(8) < 5).expand(2, 8)
    torch.testing.assert_close(encoder(padded, mask)[:, :5], encoder(short), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both(padded, target, mask), both(short, target), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(encoder(padded)[:, :5], encoder(short), atol=1e-2)


@pytest.mark.parametrize("position", CHOICES["position"])
@pytest.mark.parametrize(
    "choices", [{}, {"norm_place": "post"}, {"softcap": 2.0, "attention_scale": 0.5}], ids=str
)
def test_padding_at_the_left_or_right_changes_no_token(position, choices):
    """A batch of texts padded on either side, or with positions given, is each text alone: encoder,
    decoder, and both."""
    cfg = replace(SMALL, position=position, **choices)
    encoder, decoder, both = roused(Encoder(cfg)), roused(Decoder(cfg)), roused(EncoderDecoder(cfg))
    texts, target = [ids(1, n) for n in (7, 3, 1)], ids(3, 4)
    for left in (True, False):
        padded, mask = pad([x[0].tolist() for x in texts], left=left)
        padded[~mask] = torch.randint(50, (int((~mask).sum()),))
        counted = (mask.long().cumsum(1) - 1).clamp(min=0)
        for more in ({}, {"positions": counted}):
            for model in (encoder, decoder):
                out = model(padded, mask, **more)
                for row, there, x in zip(out, mask, texts, strict=True):
                    torch.testing.assert_close(row[there], model(x)[0], atol=1e-5, rtol=1e-4)
        for i, x in enumerate(texts):
            ours = both(padded, target, mask)[i]
            torch.testing.assert_close(ours, both(x, target[i : i + 1])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", CHOICES["position"])
@pytest.mark.parametrize("kind", [Encoder, Decoder])
def test_packed_texts_are_each_text_alone(position, kind):
    model = roused(kind(replace(SMALL, position=position)))
    texts = [ids(1, n) for n in (5, 8, 3)]
    packed = torch.cat(texts, 1)
    documents = torch.cat([torch.full((1, x.shape[1]), i) for i, x in enumerate(texts)], 1)
    at = document_positions(documents)
    for mask in (same_document(documents), documents[:, :, None] == documents[:, None]):
        out = model(packed, mask, positions=at)
        for part, x in zip(out.split([5, 8, 3], 1), texts, strict=True):
            torch.testing.assert_close(part, model(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(packed, same_document(documents), positions=at[0]), out)
    if position in ("learned", "sinusoidal"):
        assert not torch.allclose(model(packed, mask)[:, 5:13], model(texts[1]), atol=1e-2), (
            "positions matter"
        )


@pytest.mark.parametrize("position", ["alibi", "relative", "rope"])
def test_equal_distances_are_equal_wherever_a_text_stands(position):
    model, x = roused(Decoder(replace(SMALL, position=position))), ids(2, 5)
    moved = torch.arange(5) + torch.tensor([[4], [11]])
    torch.testing.assert_close(model(x, positions=moved), model(x), atol=1e-4, rtol=1e-4)


def test_alibi_by_hand_and_relative_by_its_table():
    x = ids(1, 6)
    for position in ("alibi", "relative"):
        model = roused(Decoder(replace(SMALL, position=position, relative_buckets=8)))
        with record_attention(model) as tape:
            model(x)
        q, k, w = (tape[f"blocks.1.attention.{part}"] for part in ("q", "k", "weights"))
        far = torch.arange(6)[:, None] - torch.arange(6)
        slopes = 2.0 ** (-2 * torch.arange(1.0, 5))
        tables = model.relative.weight[far.clamp(0, 4)].permute(2, 0, 1) if position == "relative" else None
        bias = -slopes[:, None, None] * far if position == "alibi" else tables
        s = (q @ k.transpose(-2, -1) / 8**0.5 + bias).masked_fill(far < 0, -math.inf)
        # from distance 4 on, T5's buckets are shared
        torch.testing.assert_close(w[..., :4, :4], s.softmax(-1)[..., :4, :4], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options, words",
    [
        (
            {"positions": torch.zeros(2, 4, dtype=torch.long)},
            r"positions \[2, 4\] of torch.int64 for ids \[2, 5\]",
        ),
        ({"positions": torch.zeros(2, 5)}, "positions .* of torch.float32 .*: expected whole numbers"),
        ({"positions": torch.full((5,), 16)}, "positions from 16 to 16: expected 0 to 15, the context"),
        ({"positions": torch.tensor([-1, 0, 1, 2, 3])}, "positions from -1 to 3: expected 0 to 15"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"the mask \[2, 4\] of torch.bool for ids \[2, 5\]"),
        ({"mask": torch.ones(2, 5)}, r"the mask \[2, 5\] of torch.float32 .*: expected torch.bool"),
    ],
)
def test_positions_and_masks_that_do_not_fit(options, words, unchecked):
    for model in (Encoder(SMALL), Decoder(SMALL)):
        with pytest.raises(ValueError, match=words):
            model(ids(2, 5), **options)


def test_a_source_of_padding_only_gives_finite_numbers():
    both = roused(EncoderDecoder(SMALL))
    out = both(ids(2, 7), ids(2, 4), torch.zeros(2, 7, dtype=torch.bool))
    out.sum().backward()
    assert out.isfinite().all() and all(
        p.grad.isfinite().all() for p in both.parameters() if p.grad is not None
    )


@pytest.mark.parametrize("position", [*CHOICES["position"], None])
def test_only_without_positions_order_is_lost(position):
    model = roused(Encoder(replace(SMALL, position=position or "learned")))
    if position is None:
        nn.init.zeros_(model.embed.positions.weight)
    x, order = ids(1, 8), torch.randperm(8)
    same = torch.allclose(model(x[:, order]), model(x)[:, order], atol=1e-4)
    assert same == (position is None)


def test_rope_scores_ignore_a_shift():
    "Padding in front, hidden by the mask, moves all positions and changes nothing."
    model = roused(Encoder(replace(SMALL, position="rope")))
    x = ids(1, 6)
    mask = (torch.arange(10) >= 4)[None]
    torch.testing.assert_close(
        model(torch.cat([ids(1, 4), x], 1), mask)[:, 4:], model(x), atol=1e-4, rtol=1e-4
    )


def test_cross_attention_reads_the_source():
    both = roused(EncoderDecoder(SMALL))
    target = ids(1, 4)
    assert not torch.allclose(both(ids(1, 7), target), both(ids(1, 7), target), atol=1e-2)


# tape


@pytest.mark.parametrize("choices", SOME, ids=str)
def test_tape_leaves_outputs_equal(choices):
    model = roused(EncoderDecoder(replace(SMALL, **choices)))
    args = ids(2, 7), ids(2, 5), torch.arange(7)[None] < torch.tensor([[7], [3]])
    with record_attention(model) as tape:
        taped = model(*args)
    torch.testing.assert_close(taped, model(*args), atol=1e-4, rtol=1e-4)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for kind, shape in (
        ("encoder", (2, 4, 7, 7)),
        ("decoder.attention", (2, 4, 5, 5)),
        ("cross", (2, 4, 5, 7)),
    ):
        found = tape.attention(kind)
        assert [w.shape for w in found] == [shape] * 2
        assert all(torch.allclose(w.sum(-1), torch.ones(shape[:-1]), atol=1e-5) for w in found)
    assert (tape["decoder.blocks.1.cross.weights"][1, :, :, 3:] == 0).all()


def test_names_on_the_tape():
    model = Decoder(replace(SMALL, layers=3))
    with record_attention(model) as tape:
        model(ids(1, 4))
    assert "blocks.2.attention.weights" in tape and len(tape.attention()) == 3


# parts


def test_swiglu_pencil():
    "One gate of 0 halves nothing through: silu(0) = 0; silu(ln 3) = 3/4 ln 3."
    x = torch.tensor([0.0, math.log(3), 5, 4])
    assert swiglu(x).tolist() == pytest.approx([0, 3 * math.log(3)])


def test_one_product_and_sliced_products_agree():
    part = roused(Attention(replace(SMALL, kv_heads=2)))
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(part(x, x), part(x), atol=1e-5, rtol=1e-5)


def test_dropout_only_in_training():
    model = roused(Decoder(replace(SMALL, dropout=0.5)))
    x = ids(1, 6)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_head_weight_is_the_table_when_tied():
    tied, own = Decoder(SMALL), Decoder(replace(SMALL, tied=False))
    assert tied.head_weight is tied.embed.tokens.weight and own.head_weight is own.head.weight
    x = ids(1, 5)
    torch.testing.assert_close(own.logits(own.hidden(x)), own(x))


def test_no_tensor_has_two_names():
    state = EncoderDecoder(SMALL).state_dict()
    assert len({x.data_ptr() for x in state.values()}) == len(state)


def test_runs_on_meta_and_in_half():
    with torch.device("meta"):
        model = Decoder(replace(SMALL, position="rope"))
    assert model(torch.zeros(2, 5, dtype=torch.long, device="meta")).shape == (2, 5, 50)
    assert Decoder(replace(SMALL, position="rope")).bfloat16()(ids(1, 5)).dtype == torch.bfloat16


def test_autocast():
    model = roused(Decoder(replace(SMALL, position="rope", norm="rms", feed_forward="swiglu", kv_heads=2)))
    x = ids(1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x)
    torch.testing.assert_close(half.float().softmax(-1), model(x).softmax(-1), atol=0.2, rtol=0.2)


# error texts


BAD_CONFIGS = {
    "5 heads do not divide the width 32: choose d_model a multiple of heads, or give d_head": dict(heads=5),
    "3 kv_heads do not divide 4 heads: choose a divisor of 4": dict(kv_heads=3),
    "norm='batch': expected one of layer, rms": dict(norm="batch"),
    "position='rotary': expected one of learned, sinusoidal, sinusoidal_halves, rope": dict(
        position="rotary"
    ),
    "6 relative_buckets up to 128 tokens: take a multiple of 4": dict(
        position="relative", relative_buckets=6
    ),
    "32 relative_buckets up to 16 tokens: take .* a distance above": dict(
        position="relative", relative_distance=16
    ),
    "softcap=0: expected a finite number above 0": dict(softcap=0),
    "feed_forward='mish': expected one of gelu, gelu_exact, relu, silu, swiglu, geglu": dict(
        feed_forward="mish"
    ),
    "embed_scale=0: expected a finite number above 0": dict(embed_scale=0),
    "embed_norm=1: expected True or False": dict(embed_norm=1),
    "decoder_layers=0: expected a whole number of at least 1": dict(decoder_layers=0),
    "shared_tokens='yes': expected True or False": dict(shared_tokens="yes"),
    "head_scale=nan: expected a finite number above 0": dict(head_scale=math.nan),
    "head_bias=None: expected True or False": dict(head_bias=None),
    "layers=0: expected a whole number of at least 1": dict(layers=0),
    "vocab_size=-1: expected a whole number of at least 1": dict(vocab_size=-1),
    "rope_base=0: expected a finite number above 0": dict(rope_base=0),
    "norm_eps=0: expected a number above 0 and below 1": dict(norm_eps=0),
    "norm_place='middle': expected one of pre, post": dict(norm_place="middle"),
    "bias='all': expected one of True, False, qkv": dict(bias="all"),
    "segments=-1: expected a whole number of at least 0": dict(segments=-1),
    "d_head=0: expected a whole number of at least 1": dict(d_head=0),
    "rope positions work on pairs, and a width of 5 is odd: make it even": dict(d_head=5, position="rope"),
    "d_ff=0: expected a whole number of at least 1": dict(d_ff=0),
    "context=2.5: expected a whole number of at least 1": dict(context=2.5),
    "rope positions work on pairs, and a width of 3 is odd: make it even": dict(d_model=12, position="rope"),
    "sinusoidal positions work on pairs, and a width of 33 is odd": dict(
        d_model=33, heads=3, position="sinusoidal"
    ),
}


@pytest.mark.parametrize("text", BAD_CONFIGS)
def test_config_errors(text, unchecked):
    with pytest.raises(ValueError, match=text):
        replace(SMALL, **BAD_CONFIGS[text])


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        SMALL.layers = 3


BAD_IDS = {
    "ids from 0 to 50, but the vocabulary ends at 49: use the model's tokenizer": torch.tensor([[0, 50]]),
    "ids from -1 to 3, but the vocabulary ends at 49": torch.tensor([[3, -1]]),
    "17 tokens, but the context is 16: crop the ids or raise Config.context": torch.zeros(
        1, 17, dtype=torch.long
    ),
    r"ids are torch.float32, expected whole numbers: use ids.long\(\)": torch.zeros(1, 4),
    r"ids are torch.bool": torch.zeros(1, 4, dtype=torch.bool),
    r"ids of shape \[4\], expected \[batch, time\] with time > 0: try ids\[None\]": torch.zeros(
        4, dtype=torch.long
    ),
    r"ids of shape \[1, 0\], expected": torch.zeros(1, 0, dtype=torch.long),
}


@pytest.mark.parametrize("text", BAD_IDS)
def test_id_errors(text, unchecked):
    for model in (Decoder(SMALL), Encoder(SMALL), Embed(SMALL)):
        with pytest.raises(ValueError, match=text):
            model(BAD_IDS[text])
    with pytest.raises(ValueError, match=text):
        EncoderDecoder(SMALL)(BAD_IDS[text], ids(1, 3))


def test_values_are_not_read_off_the_cpu(monkeypatch):
    "Reading them would make the CPU wait for the GPU."
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda self: pytest.fail("looked at the values"))
    with torch.device("meta"):
        Decoder(SMALL)(torch.zeros(1, 3, dtype=torch.long))


def test_dtype_mix_is_named(unchecked):
    part = Attention(SMALL).double()
    part.qkv.float()
    block = Block(SMALL)
    with pytest.raises((ValueError, RuntimeError)):
        block.attention(torch.randn(1, 3, 32), torch.randn(1, 3, 32, dtype=torch.float64))


def test_feed_forward_width_can_be_set():
    assert FeedForward(replace(SMALL, d_ff=40)).up.out_features == 40
    assert FeedForward(replace(SMALL, d_ff=40, feed_forward="swiglu")).up.out_features == 80
