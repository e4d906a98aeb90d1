"Mixture against a loop and Mixtral, counts against PyTorch's counter, patches against a convolution."

import re
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from llmlab import patches_view, pictures
from llmlab.cost import forward_flops
from llmlab.devices import flops_per_token
from llmlab.generation import Sampling
from llmlab.horizons import (
    Captioner,
    MixtureOfExperts,
    PatchEncoder,
    expert_load,
    image_patches,
    load_balancing_loss,
    majority_vote,
    route,
    with_experts,
    write_captions,
)
from llmlab.mixtures import estimate_training, mixture_flops, mixture_parameters
from llmlab.pictures import (
    CAPTION_WORDS,
    COLOURS,
    HELD_OUT_COMBINATIONS,
    IMAGE_SIDE,
    caption_ids,
    caption_text,
    generate_pictures,
)
from llmlab.recording import record_attention
from llmlab.tables import published_quantities
from llmlab.training import Recipe, fit
from llmlab.transformer import Config, Decoder, Encoder, count_parameters

CFG = Config(vocab_size=40, context=16, layers=2, heads=2, d_model=16, d_ff=24)
SHAPES = [(1, 1), (4, 1), (4, 2), (5, 3), (3, 3)]
KINDS = [dict(), dict(feed_forward="swiglu", norm="rms", bias=False)]


def mixture(experts, top_k, **change):
    torch.manual_seed(0)
    return MixtureOfExperts(replace(CFG, **change), experts, top_k)


def decoder(experts=4, top_k=2, **change):
    torch.manual_seed(0)
    return with_experts(Decoder(replace(CFG, **change)), experts, top_k)


def ids(b=3, t=9, seed=0):
    return torch.randint(40, (b, t), generator=torch.Generator().manual_seed(seed))


# --- the mixture --------------------------------------------------------------------------------------------


def by_token(m, x):
    "Every token alone: its probabilities, its best experts, their answers."
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        p = torch.exp(m.router.weight @ token)
        p = p / p.sum()
        best = sorted(range(len(p)), key=lambda e: -p[e].item())[: m.top_k]
        whole = sum(p[e] for e in best) if m.top_k > 1 else 1.0
        rows.append(sum(p[e] / whole * m.experts[e](token[None, None])[0, 0] for e in best))
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("change", KINDS)
@pytest.mark.parametrize("experts, top_k", SHAPES)
def test_a_loop_over_tokens_gives_the_same_answers_and_gradients(experts, top_k, change):
    m, x = mixture(experts, top_k, **change), torch.randn(2, 7, 16)
    ours, theirs = m(x), by_token(m, x)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(2, 7, 16)
    ours, theirs = ((y * weight).sum() for y in (ours, theirs))
    every = [*m.parameters()]
    torch.testing.assert_close(
        *(torch.autograd.grad(y, every, materialize_grads=True) for y in (ours, theirs))
    )


def test_mixtral_gives_the_same_from_the_same_weights():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

    ours = mixture(6, 2, feed_forward="swiglu", norm="rms", bias=False)
    shape = MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=6, num_experts_per_tok=2)
    theirs = MixtralSparseMoeBlock(shape).eval()
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        for e, expert in enumerate(ours.experts):
            theirs.experts.gate_up_proj[e].copy_(expert.up.weight)
            theirs.experts.down_proj[e].copy_(expert.down.weight)
        x = torch.randn(3, 11, 16)
        torch.testing.assert_close(ours(x), theirs(x))
        # theirs adds the shares of the top_k choices up, ours are shares of all choices
        reference = load_balancing_loss_func((ours.router(x.flatten(0, 1)),), 6, 2) / 2
        torch.testing.assert_close(load_balancing_loss(ours), reference)


def test_gates_sum_to_one_or_are_p_itself():
    p = torch.randn(50, 6).softmax(-1)
    assert torch.allclose(route(p, 3)[0].sum(-1), torch.ones(50))
    assert torch.equal(route(p, 1)[0][:, 0], p.max(-1).values)


def test_the_router_learns_from_the_loss_also_with_one_expert_asked():
    m = mixture(4, 1)
    m(torch.randn(2, 5, 16)).square().sum().backward()
    assert m.router.weight.grad.abs().max() > 1e-6


def test_no_token_is_dropped_and_none_depends_on_the_others():
    model = decoder(8, 1)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.router.weight[1:] = 0  # a crowd at few experts
        every, row = ids(), ids()[1:2]
        torch.testing.assert_close(model(every)[1:2], model(row))
        changed = every.clone()
        changed[:, -1] = (changed[:, -1] + 1) % 40
        torch.testing.assert_close(model(every)[:, :-1], model(changed)[:, :-1])


def test_every_assembly_takes_experts_and_keeps_its_block():
    torch.manual_seed(0)
    model = with_experts(Encoder(replace(CFG, dropout=0.1)), 4, 2)
    assert all(type(b).__name__ == "Block" and isinstance(b.mlp, MixtureOfExperts) for b in model.blocks)
    assert model.blocks[0].mlp.experts[0].down.in_features == 12 and model(ids()).shape == (3, 9, 16)
    assert with_experts(Encoder(CFG), 4, 2, d_ff=7).blocks[1].mlp.experts[3].down.in_features == 7


def test_all_weights_start_as_in_chapter_5():
    model = decoder(16, 2, d_model=64, d_ff=256, layers=2)
    std = 0.02 * (768 / 64) ** 0.5
    mlp = model.blocks[0].mlp
    std_of = {name: p.std().item() for name, p in mlp.named_parameters() if p.ndim == 2}
    assert std_of["router.weight"] == pytest.approx(std, rel=0.1)
    assert std_of["experts.3.up.weight"] == pytest.approx(std, rel=0.1)
    assert std_of["experts.3.down.weight"] == pytest.approx(std / 2, rel=0.1)


def test_in_half_precision_the_router_still_decides_in_full():
    m = mixture(6, 2).bfloat16()
    out = m(torch.randn(2, 7, 16).bfloat16())
    assert out.dtype == torch.bfloat16 and m.probs.dtype == torch.float32
    torch.testing.assert_close(m.probs.sum(-1), torch.ones(14))


def test_the_experts_go_where_the_model_is():
    assert {p.device.type for p in with_experts(Decoder(CFG).to("meta"), 4, 2).parameters()} == {"meta"}


# --- balance ------------------------------------------------------------------------------------------------


def pretend(probs, chosen):
    m = mixture(probs.shape[-1], chosen.shape[-1])
    m.probs, m.chosen = probs, chosen
    return m


def test_an_even_mixture_has_a_loss_of_one_and_a_collapsed_one_of_all_experts():
    even = pretend(torch.full((8, 4), 0.25), torch.arange(4).repeat(2)[:, None])
    one = pretend(F.one_hot(torch.zeros(8, dtype=torch.long), 4).float(), torch.zeros(8, 1, dtype=torch.long))
    assert load_balancing_loss(even).item() == pytest.approx(1) and load_balancing_loss(
        one
    ).item() == pytest.approx(4)
    assert expert_load(one).tolist() == [1, 0, 0, 0]


def test_equation_4_on_paper():
    "Two experts, three tokens: f = (2/3, 1/3), P = (0.6, 0.4), so 2 · (0.4 + 0.4/3)."
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    assert load_balancing_loss(pretend(p, p.argmax(-1, keepdim=True))).item() == pytest.approx(
        2 * (0.4 + 0.4 / 3)
    )


def test_the_loss_of_a_model_is_the_mean_of_its_layers():
    model = decoder()
    model(ids())
    each = [load_balancing_loss(block.mlp) for block in model.blocks]
    assert load_balancing_loss(model).item() == pytest.approx((sum(each) / 2).item()) and each[0] != each[1]


def test_balance_is_what_the_balance_loss_brings():
    def busiest(alpha):
        model, facts = decoder(8, 1, layers=1), ids(64, 6)
        with torch.no_grad():
            model.blocks[0].mlp.router.weight[:1] *= 6

        def loss(model, x):
            plain = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
            return plain + alpha * load_balancing_loss(model)

        fit(model, lambda step: facts, loss, Recipe(steps=60, lr=5e-3))
        with torch.no_grad():
            model(facts)
        return expert_load(model.blocks[0].mlp).max().item()

    without, with_it = busiest(0.0), busiest(0.1)
    assert without > 0.3 > 0.25 > with_it


# --- counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", KINDS)
@pytest.mark.parametrize("experts, top_k", SHAPES)
def test_parameters_are_those_of_the_model(experts, top_k, change):
    model = with_experts(Decoder(replace(CFG, **change)), experts, top_k, d_ff=24)
    everything, active = mixture_parameters(replace(CFG, **change), experts, top_k)
    assert everything == count_parameters(model)
    unused = experts - top_k
    assert active == count_parameters(model) - unused * sum(
        count_parameters(block.mlp.experts[0]) for block in model.blocks
    )


@pytest.mark.parametrize("change", KINDS)
@pytest.mark.parametrize("experts, top_k", SHAPES)
def test_flops_are_those_that_pytorch_counts(experts, top_k, change):
    cfg = replace(CFG, **change)
    model = with_experts(Decoder(cfg), experts, top_k, d_ff=24)
    with (
        record_attention(model),
        FlopCounterMode(display=False) as counter,
    ):  # a fused kernel on a CPU is not counted
        model(ids(1, 9))
    assert counter.get_total_flops() == sum(mixture_flops(cfg, experts, top_k, 9).values())


def test_a_token_works_as_in_the_dense_model_but_for_the_router():
    dense, sparse = Decoder(CFG), decoder(8, 2)
    router = 6 * 2 * 16 * 8
    assert flops_per_token(sparse, 9) - flops_per_token(dense, 9) == router
    counted = [mixture_flops(replace(CFG, d_ff=12), 8, 2, 9), forward_flops(CFG, 9)]
    assert sum(counted[0].values()) - sum(counted[1].values()) == 9 * router / 3


def test_a_trillion_as_published():
    "Kimi K2: 1T parameters, 32B active, without its shared expert and with plain grouped attention."
    cfg = Config(
        vocab_size=163_840,
        context=131_072,
        layers=61,
        heads=64,
        kv_heads=8,
        d_model=7168,
        d_ff=2048,
        norm="rms",
        position="rope",
        feed_forward="swiglu",
        tied=False,
        bias=False,
    )
    total, active = mixture_parameters(cfg, 384, 8)
    assert total == pytest.approx(1.04e12, rel=0.02) and active == pytest.approx(32e9, rel=0.07)


def test_a_plan_by_hand_and_beside_a_published_run():
    found = estimate_training(2e12, 1e9, 1e12, utilisation=(0.25, 0.5))
    hours = 6e21 / 989e12 / 3600
    assert found["FLOPs"] == (6e21, 6e21) and found["GPU-hours"] == pytest.approx((hours / 0.5, hours / 0.25))
    assert found["GPUs to hold it"][0] == -(-32e12 // (0.9 * 80e9))
    assert found["million USD"] == pytest.approx((hours / 0.5 * 1.99e-6, hours / 0.25 * 5e-6))
    assert found["GWh"] == pytest.approx((hours / 0.5 * 0.7 * 1.1e-6, hours / 0.25 * 0.7 * 1.58e-6))
    assert found["t CO2"][0] == pytest.approx(hours / 0.5 * 0.7 * 1.1 * 0.481e-3)
    assert found["days on 16,384"][0] == pytest.approx(hours / 0.5 / 24 / 16_384)
    llama = published_quantities("run")["Llama 3.1 405B"]
    n, tokens, took = (llama[key].low for key in ("parameters", "tokens", "hours"))
    low, high = estimate_training(n, n, tokens)["GPU-hours"]
    assert low < high < took < 1.3 * high, "the published hours hold more than the run alone"


# --- pictures -----------------------------------------------------------------------------------------------


def test_patches_are_those_of_a_convolution():
    x, side = torch.randn(2, 12, 8, 3), 4
    conv = nn.Conv2d(3, 5, side, stride=side)
    linear = conv.weight.permute(0, 2, 3, 1).flatten(1)
    ours = image_patches(x, side) @ linear.T + conv.bias
    torch.testing.assert_close(
        ours, conv(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5
    )


def test_patches_stand_row_by_row():
    x = torch.arange(16).view(1, 4, 4, 1).float()
    assert image_patches(x, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("held_out", [False, True])
def test_a_caption_says_what_the_pixels_show(held_out):
    images, said = generate_pictures(120, held_out, seed=3)
    for image, row in zip(images, said.tolist(), strict=True):
        first, second, place = re.fullmatch(
            r"a (\w+) \w+ (left of|above) a (\w+) \w+", caption_text(row)
        ).group(1, 3, 2)
        if first == second:
            continue
        near = [(image - torch.tensor(COLOURS[c])).abs().amax(-1) < 1e-6 for c in (first, second)]
        (y1, x1), (y2, x2) = (m.nonzero().float().mean(0).tolist() for m in near)
        assert min(m.sum() for m in near) > 20
        assert x2 - x1 > 6 if place == "left of" else y2 - y1 > 6


def test_shapes_have_their_areas():
    "Radius 4: a circle of 16π, a square of side 7.2, a triangle of half of 8 · 8."
    blank, middle = torch.zeros(3, IMAGE_SIDE, IMAGE_SIDE, 3), torch.full((3, 2), 12.0)
    areas = (pictures.draw_objects(blank, torch.arange(3), middle, torch.full((3,), 4.0))[..., 0] > 0).sum(
        (1, 2)
    )
    assert areas.tolist() == pytest.approx([50, 52, 32], abs=13) and areas[2] < 0.8 * areas[0] < areas[1]


def test_shapes_stand_where_they_were_put_and_a_triangle_on_its_base():
    blank, at = torch.zeros(3, IMAGE_SIDE, IMAGE_SIDE, 3), torch.tensor([[10.0, 14.0]] * 3)
    circle, square, triangle = (
        pictures.draw_objects(blank, torch.arange(3), at, torch.full((3,), 4.0))[..., 0] > 0
    )
    for inside in (circle, square):
        (top, left), (bottom, right) = inside.nonzero().amin(0).tolist(), inside.nonzero().amax(0).tolist()
        assert (top + bottom + 1, left + right + 1) == (28, 20)
    rows = triangle.sum(1)[10:18]
    assert rows.sum() == triangle.sum() and rows.tolist() == sorted(rows.tolist()) and rows[-1] > 3 * rows[1]


def test_pictures_vary_in_light_grain_place_and_size_and_show_two_things():
    images, said = generate_pictures(300)
    corners = images[:, :3, :3].flatten(1)
    assert corners.mean(1).std() > 0.05, "light"
    assert 0.01 < corners[corners.mean(1) < 0.9].std(1).mean() < 0.05, "grain"
    shown = [(image - torch.tensor(COLOURS["red"])).abs().amax(-1) < 1e-6 for image in images]
    squares = [
        m
        for m, row in zip(shown, said.tolist(), strict=True)
        if caption_text(row).startswith("a red square above")
    ]
    assert (
        len({int(m.sum()) for m in squares}) > 1 and len({int(m.nonzero()[:, 1].amin()) for m in squares}) > 1
    )
    words = [caption_text(row).replace(" left of ", " above ").split(" above ") for row in said.tolist()]
    assert not [pair for pair in words if pair[0] == pair[1]]


def firsts(said):
    return {
        tuple(re.match(r"a (\w+) (\w+) (left of|above)", caption_text(row)).groups()) for row in said.tolist()
    }


def test_what_is_held_out_never_occurs_in_training_but_its_parts_do():
    train, test = firsts(generate_pictures(3000)[1]), firsts(generate_pictures(500, held_out=True)[1])
    assert test == HELD_OUT_COMBINATIONS and not train & HELD_OUT_COMBINATIONS and len(train) == 24 - 4
    parts = {pair for a, b, c in train for pair in ((a, b), (a, c), (b, c))}
    for colour, shape, place in HELD_OUT_COMBINATIONS:
        assert {(colour, shape), (colour, place), (shape, place)} <= parts


def test_pictures_depend_on_the_seed_alone():
    a, b, c = generate_pictures(5, seed=1), generate_pictures(5, seed=1), generate_pictures(5, seed=2)
    assert all(map(torch.equal, a, b)) and not torch.equal(a[0], c[0])
    assert a[0].min() >= 0 and a[0].max() <= 1


def captioner(**change):
    torch.manual_seed(0)
    shape = dict(vocab_size=len(CAPTION_WORDS), context=10, layers=1, heads=2, d_model=32, d_ff=64)
    return Captioner(Config(**shape | change))


def test_a_captioner_learns_eight_pictures_by_heart():
    images, said = generate_pictures(8)

    def loss(model, rows):
        return F.cross_entropy(model(images, said[:, :-1]).flatten(0, 1), said[:, 1:].flatten())

    model = captioner()
    history = fit(
        model, lambda step: torch.zeros(8, 1).long(), loss, Recipe(steps=150, batch_size=8, lr=5e-3)
    )
    assert history[-1]["loss"] < 0.05 and torch.equal(write_captions(model, images), said)
    assert not torch.equal(write_captions(model, images.flip(0)), said), "it looks at the picture"


def test_the_greedy_caption_is_the_likeliest_word_each_time():
    model, (images, _) = captioner(), generate_pictures(3)
    out = write_captions(model, images)
    assert torch.equal(model(images, out[:, :-1]).argmax(-1), out[:, 1:]) and (out[:, 0] == 0).all()


def test_sampling_follows_its_seed():
    model, (images, _) = captioner(), generate_pictures(3)
    a, b, c = (write_captions(model, images, Sampling(), seed) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(a[:1], write_captions(model, images[:1], Sampling(), 1)), (
        "a row is independent of the others"
    )
    assert torch.equal(write_captions(model, images, Sampling(1e-4), 3), write_captions(model, images))


def test_the_encoder_knows_where_a_patch_stands():
    torch.manual_seed(0)
    encoder, image = PatchEncoder(CFG, 12, 6), torch.rand(1, 12, 12, 3)
    swapped = torch.cat([image[:, 6:], image[:, :6]], 1)
    assert not torch.allclose(encoder(image).sum(1), encoder(swapped).sum(1), atol=1e-4)
    encoder.positions.weight.data.zero_()
    torch.testing.assert_close(encoder(image)[:, [2, 3, 0, 1]], encoder(swapped))


def test_the_encoder_starts_as_in_chapter_5_sees_grey_as_nothing_and_ends_in_a_norm():
    torch.manual_seed(0)
    encoder = PatchEncoder(replace(CFG, d_model=64), 12, 6)
    assert encoder.patch.weight.std().item() == pytest.approx(0.02 * (768 / 64) ** 0.5, rel=0.1)
    out, grey = encoder(torch.rand(2, 12, 12, 3)), torch.full((1, 12, 12, 3), 0.5)
    torch.testing.assert_close(out.var(-1, unbiased=False), torch.ones(2, 4), atol=1e-2, rtol=0)
    before = encoder(grey)
    encoder.patch.weight.data.mul_(7)
    assert torch.equal(encoder(grey), before)


def test_writing_fills_the_context_sees_no_dropout_and_leaves_the_mode():
    model, (images, _) = captioner(dropout=0.5).train(), generate_pictures(3)
    assert torch.equal(write_captions(model, images), write_captions(model, images)) and model.training
    assert write_captions(model, images).shape == (3, 10)


def test_an_unfinished_sentence_is_read_to_its_end():
    assert caption_text([CAPTION_WORDS.index(w) for w in ("<s>", "a", "red")]) == "a red"


def test_captions_there_and_back():
    for first, second, place in product(range(12), range(12), range(2)):
        row = caption_ids(first, second, place)
        assert (
            len(row) == 10
            and row[0] == 0
            and CAPTION_WORDS.index("</s>") in row
            and caption_text(row).count(" a ") == 1
        )


def test_the_view_holds_pixels_and_weights():
    image = torch.zeros(2, 4, 3)
    image[0, 1] = torch.tensor([1.2, 0.5, -0.1])
    view = patches_view(image, ["a", "b"], torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert view.data["pixels"][1] == "#ff8000" and view.data["side"] == 2 and view.data["wide"] == 4
    assert view.data["weights"] == [[0.25, 0.75], [1.0, 0.0]] and "4 × 2 pixels in 2 patches: a b" in view.alt


# --- the vote -----------------------------------------------------------------------------------------------


def test_a_vote_takes_the_most_frequent_and_then_the_first():
    assert (
        majority_vote(["x", "y", "y"]) == "y"
        and majority_vote(["x", "y"]) == "x"
        and majority_vote(iter("aab")) == "a"
    )


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: MixtureOfExperts(CFG, 4, 5), "top_k=5 of 4 experts: choose a whole number from 1 to 4"),
        (lambda: MixtureOfExperts(CFG, 4, 0), "top_k=0: expected a whole number of at least 1"),
        (lambda: MixtureOfExperts(CFG, 0, 1), "experts=0: expected a whole number of at least 1"),
        (lambda: MixtureOfExperts(CFG, -3, 1), "experts=-3: expected"),
        (lambda: MixtureOfExperts(CFG, 2.5, 1), "experts=2.5: expected"),
        (lambda: with_experts(Decoder(CFG), 8, 9), "top_k=9 of 8 experts"),
        (
            lambda: with_experts(Decoder(CFG), 8, 5),
            "top_k=5 does not divide 24 hidden units: choose a divisor, or give d_ff",
        ),
        (lambda: with_experts(Decoder(CFG), 8, 2, d_ff=-4), "d_ff=-4: expected a whole number of at least 1"),
        (lambda: mixture_parameters(CFG, 4, 5), "top_k=5 of 4 experts"),
        (lambda: mixture_flops(CFG, 0, 1, 8), "experts=0: expected"),
        (lambda: mixture_flops(CFG, 4, 2, 99), "t=99: expected a number above 0 and at most 16"),
        (lambda: load_balancing_loss(Decoder(CFG)), "0 mixtures, or one that read nothing yet"),
        (lambda: load_balancing_loss(decoder()), "2 mixtures, or one that read nothing yet"),
        (
            lambda: image_patches(torch.zeros(1, 24, 24, 3), 5),
            "side 5 do not tile 1 pictures of 24 × 24: choose",
        ),
        (lambda: image_patches(torch.zeros(1, 24, 20, 3), 6), "of 24 × 20"),
        (
            lambda: image_patches(torch.zeros(1, 24, 24, 3), 0),
            "side=0: expected a whole number of at least 1",
        ),
        (lambda: image_patches(torch.zeros(1, 24, 24, 3), -6), "side=-6: expected a whole number"),
        (lambda: image_patches(torch.zeros(0, 24, 24, 3), 6), "do not tile 0 pictures"),
        (lambda: PatchEncoder(CFG, 25, 6), "of 25 × 25"),
        (lambda: PatchEncoder(CFG, 24, 6)(torch.zeros(1, 12, 12, 3)), "4 patches, but 16 positions: give"),
        (lambda: generate_pictures(0), "n=0: expected a whole number of at least 1"),
        (lambda: generate_pictures(-5), "n=-5: expected"),
        (
            lambda: write_captions(captioner(), generate_pictures(1)[0], Sampling(-1.0)),
            "temperature=-1.0: expected a finite number of at least 0",
        ),
        (
            lambda: patches_view(torch.zeros(4, 4, 3), ["a"], torch.ones(2, 4)),
            r"weights \[2, 4\] for 1 words on 4 × 4",
        ),
        (lambda: patches_view(torch.zeros(4, 4, 3), ["a"], torch.ones(1, 3) / 3), r"weights \[1, 3\]"),
        (
            lambda: patches_view(torch.zeros(4, 4, 3), ["a"], -torch.ones(1, 4)),
            "a weight is below 0 or no number",
        ),
        (lambda: patches_view(torch.zeros(4, 4, 3), ["a"], torch.full((1, 4), torch.inf)), "or no number"),
        (
            lambda: patches_view(torch.zeros(4, 9, 3), ["a"], torch.ones(1, 9)),
            r"weights \[1, 9\] for 1 words on 4 × 9",
        ),
        (
            lambda: estimate_training(1e12, 2e12, 1e12),
            "active=2,000,000,000,000.0: expected .* at most 1,000",
        ),
        (lambda: estimate_training(-1e12, 1e9, 1e12), "total=-1,000,000,000,000.0: expected"),
        (lambda: estimate_training(1e12, 1e12, 1e30), r"tokens=1e\+30|tokens=1,000"),
        (lambda: estimate_training(1e12, 1e12, 1e12, gpu="H1000"), "no gpu 'H1000' in the table"),
        (lambda: majority_vote([]), "no answers: sample at least one"),
    ],
)
def test_bad_input_is_told(unchecked, call, said):
    with pytest.raises(ValueError, match=said):
        call()
