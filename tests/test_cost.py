"Counts against built models, PyTorch's counter and measured memory; published figures; known laws."

import csv
import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from llmlab import cost, cost_view, figure_data
from llmlab.activation_memory import count_activations
from llmlab.cost import ScalingLaw, published_scaling_laws
from llmlab.tables import published_configs, published_quantities
from llmlab.transformer import Config, Decoder, Encoder, parameters

SMALL = Config(vocab_size=50, context=32, layers=2, heads=4, d_model=32)
SHAPES = {
    "gpt": {},
    "llama": dict(norm="rms", position="rope", feed_forward="swiglu", kv_heads=2, bias=False, tied=False),
    "qwen2": dict(norm="rms", position="rope", feed_forward="swiglu", kv_heads=1, bias="qkv", d_ff=40),
    "qwen3": dict(
        norm="rms", position="rope", feed_forward="swiglu", kv_heads=2, bias=False, qk_norm=True, d_head=16
    ),
    "bert": dict(norm_place="post", feed_forward="gelu_exact", segments=2),
    "sinusoidal": dict(position="sinusoidal", d_head=6, tied=False),
    "layer qk norm": dict(qk_norm=True, bias=False, kv_heads=2),
    "rms qk norm": dict(qk_norm=True, norm="rms"),
    "layer qk norm, rope": dict(qk_norm=True, position="rope"),
    "grouped": dict(kv_heads=2),
    "post without a norm on the embeddings": dict(norm_place="post", embed_norm=False, feed_forward="silu"),
    "halves": dict(position="sinusoidal_halves", feed_forward="relu"),
    "geglu": dict(feed_forward="geglu", norm="rms", bias=False),
}
each = pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)


def meta(cfg, kind=Decoder):
    with torch.device("meta"):
        return kind(cfg)


def parameter_count(cfg):
    return sum(cost.parameters_by_part(cfg).values())


# --- parameters ---------------------------------------------------------------------------------------------


@each
def test_parameters_are_those_of_the_built_model_part_by_part(change):
    cfg = replace(SMALL, **change)
    assert cost.parameters_by_part(cfg) == parameters(meta(cfg))
    assert cost.parameters_by_part(cfg, head=False) == parameters(meta(cfg, Encoder))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([8, 24, 64]),
    st.sampled_from([None, 1]),
    st.sampled_from(["gelu", "relu", "swiglu", "geglu"]),
    st.sampled_from([True, False, "qkv"]),
    st.booleans(),
)
def test_any_shape_is_counted(layers, heads, d, kv, feed_forward, bias, tied):
    cfg = Config(99, 16, layers, heads, d, kv, feed_forward=feed_forward, bias=bias, tied=tied)
    assert parameter_count(cfg) == sum(p.numel() for p in meta(cfg).parameters())


def test_published_counts():
    for row in csv.DictReader((ROOT / "llmlab/data/model_shapes.csv").read_text().splitlines()):
        found = parameter_count(published_configs()[row["name"]])
        assert found == int(row["parameters"]) or (row["name"] == "GPT-3" and round(found / 1e8) == 1746)
    assert parameter_count(Config.gpt2_small()) == 124_439_808


@pytest.mark.parametrize("name", ["GPT-2 small", "Llama 3.1 405B"])
def test_a_published_shape_can_be_built(name):
    assert parameters(meta(published_configs()[name])) == cost.parameters_by_part(published_configs()[name])


# --- FLOPs --------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("t", [1, 7, 32])
def test_flops_are_pytorchs(change, t):
    cfg = replace(SMALL, **change)
    with FlopCounterMode(display=False) as forward:
        logits = meta(cfg)(torch.zeros(1, t, dtype=torch.long, device="meta"))
    assert logits.shape[1] == t
    assert forward.get_total_flops() == sum(cost.forward_flops(cfg, t).values())
    with FlopCounterMode(display=False) as both:
        meta(cfg)(torch.zeros(1, t, dtype=torch.long, device="meta")).sum().backward()
    assert both.get_total_flops() == cost.training_flops(cfg, t, t)


def test_flops_without_logits_are_an_encoders():
    with FlopCounterMode(display=False) as counter:
        meta(SMALL, Encoder)(torch.zeros(1, 9, dtype=torch.long, device="meta"))
    assert counter.get_total_flops() == sum(cost.forward_flops(SMALL, 9, head=False).values())


def test_gpt3_is_3_14e23():
    run = published_quantities("run")["GPT-3"]
    assert (
        round(cost.approximate_training_flops(run["parameters"].low, run["tokens"].low) / 1e23, 2)
        == 3.14
        == run["flops"].low / 1e23
    )
    assert 1 < cost.training_flops(published_configs()["GPT-3"], 3e11) / 3.14e23 < 1.05


# --- memory -------------------------------------------------------------------------------------------------


def kept_bytes(model, ids):
    "Bytes of all tensors that autograd keeps, each storage once, weights and ids left out."
    known = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers(), ids)}
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(ids)
    return sum(s.nbytes() for place, s in kept.items() if place not in known)


@each
@pytest.mark.parametrize("batch, t", [(1, 32), (3, 16)])
def test_activations_are_what_autograd_keeps(change, batch, t):
    cfg = replace(SMALL, **change)
    ids = torch.randint(50, (batch, t))
    assert kept_bytes(Decoder(cfg), ids) == 4 * count_activations(cfg, batch, t)


def test_sixteen_bytes_a_parameter():
    for dtype in ("fp32", "bf16"):
        parts = cost.training_memory(SMALL, 1, 8, dtype)
        held = parts["weights"] + parts["gradients"] + parts["optimizer"]
        assert held == 16 * parameter_count(SMALL)


def test_adam_keeps_what_is_said():
    model = Decoder(SMALL)
    opt = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    opt.step()
    moments = [x for s in opt.state.values() for x in s.values() if x.numel() > 1]
    assert (
        sum(x.numel() * x.element_size() for x in moments)
        == cost.training_memory(SMALL, 1, 8, "fp32")["optimizer"]
    )


def test_logits_are_a_chunk_at_a_time():
    assert cost.training_memory(SMALL, 2, 8, chunk=10)["logits"] == 10 * 50 * 4
    assert cost.training_memory(SMALL, 2, 8)["logits"] == 16 * 50 * 4


def test_llama_caches():
    a = published_quantities("cache")
    for name in ("Llama 3.1 8B", "Llama 3.1 70B"):
        gib = cost.kv_cache_bytes(published_configs()[name], 128_000) / 2**30
        assert gib == pytest.approx(a[name]["128,000 tokens in fp16"].low, abs=0.006)
    assert (
        cost.kv_cache_bytes(published_configs()["Llama 2 7B"], 1) == 2 * 32 * 4096 * 2
    )  # half a MiB a token
    assert (
        cost.kv_cache_bytes(published_configs()["Llama 2 70B"], 4096, batch=3)
        == 3 * 4096 * 2 * 80 * 8 * 128 * 2
    )


# --- devices, hours, money ----------------------------------------------------------------------------------


def test_devices_and_the_smallest_gpu():
    assert cost.gpus_needed(80e9, "H100 80GB") == 2 and cost.gpus_needed(80e9, "H100 80GB", usable=1) == 1
    assert cost.smallest_gpu(14e9) == "T4 16GB" and cost.smallest_gpu(15e9) == "RTX 4090 24GB"


def test_a_bill_by_hand():
    assert cost.gpu_hours(989e12 * 3600, "H100 80GB", 0.5) == pytest.approx(2)
    bill = cost.running_costs(10, "H100 80GB", "France")
    assert bill["USD"] == (19.9, 50.0) and bill["kWh"] == pytest.approx((7.7, 11.06))
    assert bill["kg CO2"] == pytest.approx((7.7 * 0.056, 11.06 * 0.056))


def test_reported_runs_fall_into_the_ranges():
    deepseek = published_quantities("run")["DeepSeek-V3"]
    assert deepseek["usd"].low == 2 * deepseek["hours"].low
    for name, card in (("Llama 2 70B", "A100 80GB"), ("Llama 3.1 405B", "H100 80GB")):
        run = published_quantities("run")[name]
        flops = cost.training_flops(published_configs()[name], run["tokens"].low, 4096)
        share = cost.gpu_hours(flops, card, 1) / run["hours"].low
        assert 0.3 < share < 0.5
        assert cost.running_costs(run["hours"].low, card, "Norway")["kg CO2"][0] < 1000 * run["carbon"].low
        assert 1000 * run["carbon"].low < cost.running_costs(run["hours"].low, card, "India")["kg CO2"][1]


# --- LoRA, quantisation -------------------------------------------------------------------------------------


def test_lora_as_published_and_as_built():
    assert [round(cost.lora_parameters(published_configs()["GPT-3"], r) / 1e6, 1) for r in (1, 8)] == [
        4.7,
        37.7,
    ]
    cfg = replace(SMALL, kv_heads=2, feed_forward="swiglu", d_ff=40)
    ends = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 40), (32, 40), (40, 32)]
    every = cost.lora_parameters(cfg, 3, ("q", "k", "v", "out", "up", "down"))
    assert every == 2 * sum(3 * (a + b) for a, b in ends)


def test_four_bits_are_four_and_a_half_with_their_scales():
    "18 bytes for 32 weights in llama.cpp's Q4_0; 64 weights and one fp32 in QLoRA without its second step."
    assert 8 * cost.bytes_per_number("int4") == cost.quantised_bits() == 8 * 18 / 32 == 4.5
    scales = published_quantities("quantisation")
    for row in (scales["scales of blocks of 64 in fp32"], scales["scales of blocks of 32 in fp16"]):
        assert row["overhead"].low == 0.5
    llama = published_configs()["Llama 3.1 8B"]
    assert cost.inference_memory(llama, 1, dtype="int4") == pytest.approx(8_030_261_248 * 4.5 / 8, rel=1e-4)


def test_quantised_bits_as_published():
    assert cost.quantised_bits() == 4.5 and round(cost.quantised_bits(double=True), 3) == 4.127


# --- the law ------------------------------------------------------------------------------------------------


def test_chinchilla_by_hand():
    law = ScalingLaw(1.69, 406.4, 410.7, 0.34, 0.28)
    g = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    n, tokens = law.optimum(6e20)
    assert n == pytest.approx(g * 1e20 ** (0.28 / 0.62)) and n * tokens == pytest.approx(1e20)
    assert law.loss(70e9, 1.4e12) == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)


@pytest.mark.parametrize("law", published_scaling_laws().values(), ids=published_scaling_laws())
@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_the_optimum_is_one_and_budget_inverts_it(law, flops):
    n, tokens = law.optimum(flops)
    for k in (0.7, 0.99, 1.01, 1.4):
        assert law.loss(n * k, tokens / k) > law.loss(n, tokens)
    assert law.budget(n) == pytest.approx(flops)


def test_table_a3_and_its_correction():
    for n, row in published_quantities("approach 3").items():
        assert published_scaling_laws()["Hoffmann"].budget(float(n)) == pytest.approx(
            row["flops"].low, rel=0.2
        )
    ratio = {
        name: math.prod(law.optimum(5.76e23)[i] ** (-1, 1)[i] for i in (0, 1))
        for name, law in published_scaling_laws().items()
    }
    assert ratio["Besiroglu"] == pytest.approx(18.4, abs=0.1)
    assert ratio["Hoffmann, rounded"] == pytest.approx(92.6, abs=0.1)


def test_the_tables_are_consistent_with_6nd():
    for i in (1, 2, 3):
        for n, row in published_quantities(f"approach {i}").items():
            assert cost.approximate_training_flops(float(n), row["tokens"].low) == pytest.approx(
                row["flops"].low, rel=0.08
            )


def grid(law, noise=0.0, seed=0):
    n, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    return n, tokens, law.loss(n, tokens) * np.exp(noise * np.random.default_rng(seed).normal(size=n.size))


@settings(deadline=None, max_examples=15)
@given(st.floats(0.5, 3), st.floats(0.2, 0.9), st.floats(0.2, 0.9), st.floats(0.2, 3), st.floats(0.2, 3))
def test_a_known_law_is_found_again(e, alpha, beta, a, b):
    law = ScalingLaw(e, a * 1e7**alpha, b * 1e9**beta, alpha, beta)
    found = cost.fit_scaling_law(*grid(law))
    assert (found.E, found.alpha, found.beta) == pytest.approx((e, alpha, beta), rel=0.02, abs=0.01)


def test_the_bootstrap_covers_the_truth():
    law = published_scaling_laws()["Besiroglu"]
    data = grid(law, noise=0.004)
    found = cost.bootstrap_scaling_laws(*data, repeats=60)
    again = cost.bootstrap_scaling_laws(*data, repeats=60)
    assert found == again, "equal seeds, equal laws"
    for key in ("E", "alpha", "beta", "exponent"):
        low, high = np.percentile([getattr(x, key) for x in found], [1, 99])
        assert low < getattr(law, key) < high and high > low
    wider = cost.bootstrap_scaling_laws(*grid(law, noise=0.02), repeats=60)
    assert np.std([x.alpha for x in wider]) > np.std([x.alpha for x in found])


def test_isoflop_finds_the_laws_optimum():
    law, flops = published_scaling_laws()["Besiroglu"], 1e21
    best, _ = law.optimum(flops)
    n = best * np.geomspace(0.7, 1.4, 5)
    found, lowest = cost.isoflop_minimum(n, law.loss(n, flops / 6 / n))
    assert found == pytest.approx(best, rel=0.03)
    assert lowest == pytest.approx(law.loss(best, flops / 6 / best), rel=1e-4)


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, text",
    [
        (
            lambda: cost.forward_flops(SMALL, 33),
            "t=33: expected a number above 0 and at most 32; crop the sequence",
        ),
        (lambda: cost.forward_flops(SMALL, -1), "t=-1: expected a whole number of at least 1"),
        (lambda: cost.kv_cache_bytes(SMALL, 8, batch=0), "batch=0: expected a whole number of at least 1"),
        (lambda: cost.training_flops(SMALL, -5), "tokens=-5: expected a number above 0"),
        (
            lambda: cost.approximate_training_flops(1e9, 1e30),
            "tokens=1e+30: expected .* at most 1e+18; look for a wrong unit",
        ),
        (lambda: cost.approximate_training_flops(float("nan"), 1e9), "n=nan: expected a number"),
        (
            lambda: cost.gpu_hours(1e20, "H100 80GB", 40),
            "utilisation=40: expected a number above 0 and at most 1",
        ),
        (lambda: cost.running_costs(-1, "H100 80GB"), "hours=-1: expected"),
        (lambda: cost.running_costs(1, "H1000"), "no gpu 'H1000' in the table: choose one of T4 16GB, "),
        (
            lambda: cost.running_costs(1, "H100 80GB", "Mars"),
            "no grid 'Mars' in the table: choose one of Norway, France",
        ),
        (
            lambda: cost.smallest_gpu(144e9),
            "144 GB fit no listed GPU, the largest is H100 80GB: split over 2 of it",
        ),
        (lambda: cost.kv_cache_bytes(SMALL, 8, dtype="int7"), "dtype='int7': choose one of fp32, bf16"),
        (lambda: cost.lora_parameters(SMALL, 0), "rank=0: expected a whole number of at least 1"),
        (lambda: cost.lora_parameters(SMALL, 1, ("q", "w")), r"targets \['w'\]: choose among q, k, v"),
        (lambda: cost.quantised_bits(-4), "bits=-4: expected"),
        (
            lambda: cost.isoflop_minimum([1, 2, 2], [3, 2, 2]),
            "2 different sizes: a parabola needs at least 3",
        ),
        (
            lambda: cost.isoflop_minimum([1, 2, 4], [3, 4, 3]),
            "no lowest point: add smaller and larger models",
        ),
        (
            lambda: cost.fit_scaling_law([1, 2, 3], [1, 2, 3], [1, 2, 3]),
            "3 runs, 3 sizes, 3 lengths: five unknowns need",
        ),
        (
            lambda: cost.fit_scaling_law([1, 2, 3] * 2, [1, 2, 3] * 2, [-1] * 6),
            "smallest_loss=-1.0: expected",
        ),
        (lambda: cost_view([], [], [1, 2], {}, {}, {}), "0 models, 0 GPUs, 0 grids: give one of each"),
        (
            lambda: cost_view([{"name": "x"}], [{}], [1, 2], {"a": 1}, {}, {}),
            "x lacks n, context, vocab, flops",
        ),
    ],
)
def test_errors_say_what_to_do(call, text):
    with pytest.raises(ValueError, match=text.replace("+", r"\+")):
        call()


# --- tables and figure --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cost_facts.csv", "model_shapes.csv", "model_choices.csv", "api_choices.csv"]
)
def test_every_row_has_a_source_and_a_date(name):
    raw = (ROOT / "llmlab/data" / name).read_bytes()
    for row in csv.DictReader(raw.decode().splitlines()):
        assert row["source"] and row["date"][:2] == "20", row
        assert "low" not in row or float(row["low"]) <= float(row["high"])
    listed = json.loads((ROOT / "llmlab/data/manifest.json").read_text())[name]
    assert listed["sha256"] == hashlib.sha256(raw).hexdigest(), "run tools/list_tables.py"


def test_the_calculator_gets_the_same_numbers():
    card = {c["name"]: c for c in figure_data.calculator_data()["models"]}["Llama 3.1 8B"]
    cfg, t = published_configs()["Llama 3.1 8B"], 4096
    assert card["n"] == 8_030_261_248
    assert 3 * (card["flops"] + card["square"] * t) == cost.training_flops(cfg, 1, t)
    assert 2 * card["cache"] * t == cost.kv_cache_bytes(cfg, t)
    assert 2 * card["kept"] * t == cost.training_memory(cfg, 1, t)["activations"]
    view = cost_view(**figure_data.calculator_data())
    assert view.data["runs"]["DeepSeek-V3"] == [37e9, 14.8e12] and "GPT-2 small" in view.alt
