"Edits that never stay, and every measure against a loop, a sum or a published definition written out again."

import json
import math
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_lens_reference import weight

from llmlab import recording
from llmlab.activations import activation_names, edit_activation, trace_activations
from llmlab.alternative_maps import alternative_attention
from llmlab.interpretability import (
    ablate_head,
    ablate_heads,
    attention_at_distance,
    control_labels,
    direct_logit_attribution,
    gradient_x_input,
    head_scores,
    integrated_gradients,
    linear_probe,
    logit_direction,
    logit_lens,
    mean_head_outputs,
    patch_activations,
    repeated_sequences,
)
from llmlab.loading import load_pretrained
from llmlab.masked import MaskedLM
from llmlab.recording import record_attention
from llmlab.residual_stream import metric_gradients, residual_stream_names, token_embedding
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

CFG = Config(vocab_size=23, context=24, layers=3, heads=4, d_model=32)
BERT = dict(norm_place="post", feed_forward="gelu_exact")
LLAMA = dict(norm="rms", position="rope", feed_forward="swiglu", bias=False, kv_heads=2, tied=False)
KINDS = {"gpt": {}, "llama": LLAMA}
each_kind = pytest.mark.parametrize("change", KINDS.values(), ids=KINDS)
IDS = torch.randint(23, (1, 9), generator=torch.Generator().manual_seed(0))


def decoder(dtype=torch.float64, **change):
    "A small model with every weight stirred, so that no bias is zero and no norm is one."
    torch.manual_seed(0)
    model = Decoder(replace(CFG, **change)).to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def traced(model, ids=IDS):
    with torch.no_grad(), trace_activations(model) as tape:
        out = model(ids)
    return out, tape


# --- trace --------------------------------------------------------------------------------------------------


@each_kind
def test_every_name_is_on_the_tape_and_the_stream_is_a_sum(change):
    model = decoder(**change)
    out, tape = traced(model)
    unused = {"embed.positions", "head"}  # tables that are read, not called
    assert set(activation_names(model)) - unused == {n for n in tape if n.rpartition(".")[2] not in "qk"}
    for i in range(3):
        before = tape["embed"] if i == 0 else tape[f"blocks.{i - 1}"]
        assert torch.allclose(
            tape[f"blocks.{i}"], before + tape[f"blocks.{i}.attention"] + tape[f"blocks.{i}.mlp"]
        )
        w, v, z = (tape[f"blocks.{i}.attention.{part}"] for part in ("weights", "v", "z"))
        assert torch.allclose(z, w @ v)
    assert torch.allclose(out, model(IDS)) and hooks(model) == 0 and recording.open_listeners == []


def test_a_second_run_gets_its_own_names():
    model = decoder()
    with torch.no_grad(), trace_activations(model) as tape:
        model(IDS), model(IDS[:, :5])
    assert tape["blocks.0"].shape[1] == 9 and tape["blocks.0.2"].shape[1] == 5 and "blocks.0.3" not in tape
    assert tape["blocks.1.attention.weights.2"].shape[-1] == 5


def test_an_attention_alone_is_a_model_too_and_only_its_z_is_its_heads():
    attention, x = MODEL.blocks[0].attention, torch.randn(1, 5, 32, dtype=torch.float64)
    _, tape = traced(attention, x)
    assert {"weights", "v", "z"} < set(activation_names(attention)) & set(
        tape
    ) and "" not in activation_names(attention)
    for name in ("weights", "v", "z"):
        with torch.no_grad(), edit_activation(attention, name, torch.zeros_like):
            assert torch.allclose(attention(x), attention.out.bias)
    other = torch.nn.Sequential()
    other.add_module("z", torch.nn.Linear(5, 5))
    with edit_activation(other, "z", torch.zeros_like):
        assert other(torch.ones(5)).abs().sum() == 0
    assert "1" not in activation_names(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()))


# --- edit ---------------------------------------------------------------------------------------------------

MODEL = decoder()
NAMES = [n for n in activation_names(MODEL) if n != "embed.positions"]


CHANGES = {"zero": torch.zeros_like, "double": lambda x: 2 * x, "in place": lambda x: x.mul_(3)}
CHANGES |= {"shape": lambda x: x[:1, :1]}


class Boom(Exception):
    pass


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([*CHANGES, "boom"])), min_size=1, max_size=4)
)
def test_the_model_is_always_restored(edits):
    def change(kind):
        def fn(x):
            if kind == "boom":
                raise Boom
            return CHANGES[kind](x)

        return fn

    before, state = MODEL(IDS), {k: v.clone() for k, v in MODEL.state_dict().items()}
    try:
        with ExitStack() as stack:
            for name, kind in edits:
                stack.enter_context(edit_activation(MODEL, name, change(kind)))
            MODEL(IDS)
        assert not {"boom", "shape"} & {kind for _, kind in edits}
    except (Boom, ValueError):
        assert {"boom", "shape"} & {kind for _, kind in edits}
    assert hooks(MODEL) == 0 and recording.open_listeners == []
    assert torch.equal(MODEL(IDS), before)
    assert all(torch.equal(v, state[k]) for k, v in MODEL.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_reaches_the_output_and_doing_nothing_does_nothing(name):
    out = MODEL(IDS)
    with torch.no_grad(), edit_activation(MODEL, name, lambda x: x):
        assert torch.allclose(MODEL(IDS), out)
    seen = []
    with torch.no_grad(), edit_activation(MODEL, name, lambda x: seen.append(x) or torch.randn_like(x)):
        assert not torch.allclose(MODEL(IDS), out)
    other = traced(MODEL)[1].get(name)
    assert len(seen) == 1 and torch.allclose(seen[0], other)


def test_nested_edits_of_one_tensor_work_one_after_another_and_a_trace_inside_sees_them():
    for name in ("blocks.1", "blocks.1.attention.weights", "blocks.1.attention.z"):
        plain = traced(MODEL)[1][name]
        double, more = (
            edit_activation(MODEL, name, lambda x: 2 * x),
            edit_activation(MODEL, name, lambda x: x + 1),
        )
        with torch.no_grad(), double, more, trace_activations(MODEL) as tape:
            MODEL(IDS)
        assert torch.allclose(tape[name], 2 * plain + 1)


def test_an_edit_writes_into_a_copy():
    with (
        torch.no_grad(),
        trace_activations(MODEL) as tape,
        edit_activation(MODEL, "blocks.0", lambda x: x.zero_()),
    ):
        MODEL(IDS)
    assert torch.allclose(tape["blocks.0"], traced(MODEL)[1]["blocks.0"])


def test_gradients_go_through_an_edit():
    given = torch.randn(1, 9, 32, dtype=torch.float64, requires_grad=True)
    with edit_activation(MODEL, "blocks.1", lambda _: given):
        MODEL(IDS).sum().backward()
    assert given.grad.abs().sum() > 0
    MODEL.zero_grad()


def test_five_near_names_are_told_or_the_first_five():
    with (
        pytest.raises(ValueError) as told,
        edit_activation(MODEL, "blocks.1.attentoin.out", torch.zeros_like),
    ):
        pass
    near = str(told.value).split("near it: ")[1].split(". activation_names")[0].split(", ")
    assert near[0] == "blocks.1.attention.out" and len(near) == 5 and set(near) <= set(NAMES)
    first = ", ".join(activation_names(MODEL)[:5])
    with (
        pytest.raises(ValueError, match=f"near it: {first}. activation_names"),
        edit_activation(MODEL, "q" * 40, torch.zeros_like),
    ):
        pass


@pytest.mark.parametrize(
    "name, fn, words",
    [
        ("blocks.1.atention.z", lambda x: x, r"'blocks.1.atention.z'; near it: .*blocks\.1\.attention\.z"),
        ("zzz", lambda x: x, "no tensor is called 'zzz'; near it: embed"),
        (
            "blocks.1",
            lambda x: x[:, 1:],
            r"of blocks.1 gave \[1, 8, 32\], torch.float64, on cpu, expected \[1, 9",
        ),
        ("blocks.1.attention.v", lambda x: x[:, 1:], r"gave \[1, 3, 9, 8\].*keep shape, dtype and device"),
        ("blocks.1", lambda x: x.float(), "gave .*torch.float32.* expected .*torch.float64"),
        ("blocks.1", lambda x: x.to("meta"), "on meta, expected .*on cpu"),
        ("blocks.1", lambda x: None, "the edit of blocks.1 gave NoneType, expected a tensor"),
        ("embed.positions", lambda x: x, "embed.positions was never computed in this block"),
    ],
)
def test_edit_refuses(name, fn, words):
    with pytest.raises(ValueError, match=words), edit_activation(MODEL, name, fn):
        MODEL(IDS)
    assert hooks(MODEL) == 0 and recording.open_listeners == []


def test_an_edit_without_a_run_is_an_error_but_does_not_hide_another():
    with (
        pytest.raises(ValueError, match="never computed"),
        edit_activation(MODEL, "blocks.0", torch.zeros_like),
    ):
        pass
    with pytest.raises(Boom), edit_activation(MODEL, "blocks.0", torch.zeros_like):
        raise Boom


# --- nothing is left changed --------------------------------------------------------------------------------


def everything(model):
    "What a visit could leave changed: hooks, modes, weights, gradients, which weights learn, open tapes."
    weights = [(n, p.requires_grad, p.grad, p.detach().clone()) for n, p in model.named_parameters()]
    hooks = [(*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks) for m in model.modules()]
    return (
        weights,
        hooks,
        [m.training for m in model.modules()],
        list(recording.open_listeners),
        torch.is_grad_enabled(),
    )


def untouched(before, after):
    (weights, *rest), (new_weights, *new_rest) = before, after
    same = all(a[:3] == b[:3] and torch.equal(a[3], b[3]) for a, b in zip(weights, new_weights, strict=True))
    return same and rest == new_rest


def half_frozen():
    "In training, with dropout, one block in eval mode, a weight that does not learn, a hook of its own."
    model = decoder(dropout=0.5).train()
    model.blocks[1].eval().norm1.weight.requires_grad_(False)
    model.blocks[2].register_forward_hook(lambda *_: None)
    return model


OTHER = IDS.flip(1)
VISITS = {
    "logit_lens": lambda model, metric: logit_lens(model, IDS),
    "head_scores": lambda model, metric: head_scores(model, IDS, 1),
    "mean_head_outputs": lambda model, metric: mean_head_outputs(model, IDS),
    "ablate_heads": lambda model, metric: ablate_heads(model, IDS, metric),
    "ablations by the mean": lambda model, metric: ablate_heads(
        model, IDS, metric, mean_head_outputs(model, IDS)
    ),
    "patching": lambda model, metric: patch_activations(model, IDS, OTHER, metric),
    "direct_logit_attribution": lambda model, metric: direct_logit_attribution(model, IDS, 8, 3),
    "gradient_x_input": lambda model, metric: gradient_x_input(model, IDS, metric),
    "integrated_gradients": lambda model, metric: integrated_gradients(model, IDS, metric, steps=3),
}
each_visit = pytest.mark.parametrize("visit", VISITS.values(), ids=VISITS)


def flat(found):
    parts = found.values() if isinstance(found, dict) else found
    return torch.cat([x.detach().flatten() for x in parts])


@each_visit
def test_a_visit_sees_no_dropout_and_leaves_the_model_as_it_was(visit):
    model = half_frozen()
    before = everything(model)
    first, second = flat(visit(model, answer)), flat(visit(model, answer))
    assert untouched(before, everything(model))
    assert torch.equal(first, second) and torch.allclose(first, flat(visit(model.eval(), answer)))


@each_visit
@pytest.mark.parametrize("run", [1, 2, 4])
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_an_exception_on_the_way_leaves_the_model_as_it_was(visit, run, error):
    "In the last block at the first, second or fourth run; and in the metric."
    model, calls = half_frozen(), []

    def fails(*_):
        calls.append(1)
        if len(calls) == run:
            raise error

    def metric(logits):
        fails()
        return answer(logits)

    for used in (answer, metric):
        calls.clear()
        own = [model.blocks[2].mlp.register_forward_hook(fails)] if used is answer else []
        before = everything(model)
        try:
            visit(model, used)
            assert len(calls) < run
        except error:
            assert len(calls) == run
        assert untouched(before, everything(model))
        [hook.remove() for hook in own]


@pytest.mark.parametrize("name", ["blocks.1", "blocks.1.attention.z", "blocks.1.attention.weights"])
def test_an_edit_changes_no_mode_and_may_be_closed_in_any_order(name):
    model = half_frozen()
    before = everything(model)
    first, second = (
        edit_activation(model, name, lambda x: 2 * x),
        edit_activation(model, name, lambda x: x + 1),
    )
    first.__enter__(), second.__enter__()
    assert [m.training for m in model.modules()] == before[2]
    model(IDS)
    first.__exit__(None, None, None)
    with pytest.raises(ValueError, match="keep shape"), edit_activation(model, name, lambda x: x[:, :1]):
        model(IDS)
    second.__exit__(None, None, None)
    assert untouched(before, everything(model))


def test_an_error_inside_edit_and_trace_flies_out_unchanged():
    model = half_frozen()
    before = everything(model)
    for error in (Boom, KeyboardInterrupt):
        with (
            pytest.raises(error),
            trace_activations(model),
            edit_activation(model, "blocks.0", torch.zeros_like),
            ablate_head(model, 1, 1),
        ):
            model(IDS)
            raise error
    with (
        pytest.raises(ValueError, match="no tensor is called"),
        edit_activation(model, "blocks.0", torch.zeros_like),
    ):
        edit_activation(model, "nowhere", torch.zeros_like).__enter__()
    assert untouched(before, everything(model))


def test_a_part_that_gives_no_tensor_is_refused():
    lstm = torch.nn.Sequential(torch.nn.LSTM(2, 2))
    said = "0 gives tuple, expected a tensor: edit a part inside it"
    with pytest.raises(ValueError, match=said), edit_activation(lstm, "0", lambda x: x):
        lstm(torch.zeros(3, 2))
    assert hooks(lstm) == 0


# --- compiled models ----------------------------------------------------------------------------------------

COMPILED = """
import sys

import torch
from llmlab import recording
from llmlab.activations import edit_activation, trace_activations
from llmlab.transformer import Config, Decoder

def in_place(model):
    model.compile(backend="eager")
    return model

def wrapped(model):
    return torch.compile(model, backend="eager")

def function(model):
    return torch.compile(lambda ids: model(ids), backend="eager")

ways = {"in_place": in_place, "wrapped": wrapped, "function": function}
way, name, early = ways[sys.argv[1]], sys.argv[2], sys.argv[3] == "early"  # compiled before the edit
ids = torch.arange(9)[None]
torch.set_grad_enabled(False)
model = Decoder(Config(vocab_size=23, context=24, layers=1, heads=4, d_model=32)).eval()
plain = model.forward(ids)
with edit_activation(model, name, torch.zeros_like):
    expected = model.forward(ids)
run = way(model)
if early:
    assert torch.allclose(run(ids), plain, atol=1e-5)
for fn in (torch.zeros_like, lambda x: 0 * x, lambda x: x.missing):
    try:
        with edit_activation(model, name, fn):
            out = run(ids)
        assert torch.allclose(out, expected, atol=1e-5)
        print("edited")
    except ValueError as error:
        assert "never computed" in str(error) and "not compiled" in str(error)
        print("refused")
    except Exception as error:
        assert "missing" in str(error), error
    assert torch.allclose(run(ids), plain, atol=1e-5)
    assert not recording.open_listeners
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
with trace_activations(model) as tape:
    assert torch.allclose(run(ids), plain, atol=1e-5)
assert name in tape
"""


@pytest.mark.parametrize(
    "way, name, when, outcomes",
    [
        ("wrapped", "blocks.0.attention.z", "late", {"edited", "refused"}),
        pytest.param("in_place", "blocks.0", "early", {"refused"}, marks=pytest.mark.slow),
        pytest.param("function", "blocks.0.attention.weights", "early", {"edited"}, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_model_is_edited_or_the_edit_is_refused_and_it_is_itself_again(way, name, when, outcomes):
    "Compiled code does not look for new hooks; the type checks of the other tests cannot be compiled."
    command = [sys.executable, "-W", "ignore", "-c", COMPILED, way, name, when]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(done.stdout.split()) == outcomes


# --- lens ---------------------------------------------------------------------------------------------------


@each_kind
def test_the_lens_ends_in_the_model_and_reads_each_block_by_hand(change):
    model = decoder(**change)
    lens = logit_lens(model, IDS)
    out, tape = traced(model)
    assert lens.shape == (4, 1, 9, 23) and torch.allclose(lens[-1], out.log_softmax(-1))
    by_hand = (model.norm(tape["blocks.0"]) @ model.head_weight.T).log_softmax(-1)
    assert torch.allclose(lens[1], by_hand)


def test_a_masked_model_is_read_through_its_own_head():
    torch.manual_seed(0)
    model = MaskedLM(replace(CFG, **BERT)).eval()
    lens = logit_lens(model, IDS)
    assert residual_stream_names(model)[0] == "encoder.norm" and torch.allclose(
        lens[-1], model(IDS).log_softmax(-1), atol=1e-6
    )
    at_first = model.logits(model.encoder.norm(model.encoder.embed(IDS))).log_softmax(-1)
    assert torch.allclose(lens[0], at_first, atol=1e-6)


def test_only_a_single_stream_with_logits_can_be_read(unchecked):
    for model in (Encoder(CFG), EncoderDecoder(CFG)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has no single stream"):
            logit_lens(model, IDS)


# --- heads --------------------------------------------------------------------------------------------------


def test_scores_are_the_diagonals_of_transformerlens():
    "Its stripes are diagonals of the last two axes: induction offset=1 - seq_len, previous token offset=-1."
    w = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    for distance in (1, 3):  # seq_len 4 → 3
        for h in range(3):
            terms = [w[b, h, i, i - distance].item() for b in range(2) for i in range(distance, 8)]
            assert attention_at_distance(w, distance)[h].item() == pytest.approx(sum(terms) / len(terms))
    model = decoder()
    with torch.no_grad(), record_attention(model) as tape:
        model(IDS)
    assert torch.equal(
        head_scores(model, IDS, 3), torch.stack([attention_at_distance(x, 3) for x in tape.attention()])
    )
    assert torch.allclose(attention_at_distance(w, 0), w.diagonal(0, -2, -1).mean((0, 2))), (
        "0: each token itself"
    )
    for distance in (8, -1):
        with pytest.raises(ValueError, match="8 tokens back, in a text of 8: take|distance=-1: expected a"):
            attention_at_distance(w, distance)


@given(st.integers(1, 12), st.integers(0, 8), st.integers(1, 40))
def test_repeated_rounds_repeat_and_have_no_twins(period, more, length):
    rows = repeated_sequences(3, period, period + more, 0, length)
    assert rows.shape == (3, length) and rows.max() < period + more
    assert torch.equal(rows[:, period:], rows[:, : max(0, length - period)])
    assert all(len(set(row[:period])) == min(period, length) for row in rows.tolist())


def test_a_period_longer_than_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="period=0: expected a whole number of at least 1"):
        repeated_sequences(1, 0, 8)
    with pytest.raises(ValueError, match="9 different tokens of a vocabulary of 8: take a period"):
        repeated_sequences(1, 9, 8)


def test_repeated_rounds_depend_on_the_seed_alone_and_are_two_by_default():
    first, same, other = (repeated_sequences(4, 9, 30, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other) and first.shape == (4, 18)


@each_kind
@pytest.mark.parametrize("mean", [False, True])
def test_ablation_equals_weights_without_the_head(change, mean):
    "Zero a head's columns of the output matrix, add what the mean would have written to the bias."
    model, (layer, head) = decoder(**change), (1, 2)
    means = mean_head_outputs(model, IDS) if mean else None
    with torch.no_grad(), ablate_head(model, layer, head, means):
        ours = model(IDS)
    z = traced(model)[1][f"blocks.{layer}.attention.z"]
    out = model.blocks[layer].attention.out
    with torch.no_grad():
        columns = out.weight[:, 8 * head : 8 * head + 8].clone()
        constant = columns @ z[0, head].mean(0) if mean else torch.zeros(32, dtype=z.dtype)
        out.weight[:, 8 * head : 8 * head + 8] = 0
        out.bias = torch.nn.Parameter(constant + (0 if out.bias is None else out.bias))
        assert torch.allclose(ours, model(IDS))


def test_a_head_is_removed_from_every_text_and_its_mean_is_over_all():
    rows = torch.cat([IDS, OTHER])
    z = traced(MODEL, rows)[1]["blocks.1.attention.z"]
    assert torch.allclose(mean_head_outputs(MODEL, rows)[1][2, 0], z[:, 2].flatten(0, 1).mean(0))
    with torch.no_grad(), ablate_head(MODEL, 1, 2):
        assert torch.allclose(MODEL(rows), torch.cat([MODEL(IDS), MODEL(OTHER)]))


def test_all_ablations_are_differences():
    model = decoder()
    metric = lambda logits: logits[0, -1, 5]  # noqa: E731
    found = ablate_heads(model, IDS, metric)
    with torch.no_grad(), ablate_head(model, 2, 3):
        one = metric(model(IDS)) - metric(MODEL(IDS))
    assert found.shape == (3, 4) and found[2, 3].item() == pytest.approx(one.item(), abs=1e-5)
    for layer, head in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(
            ValueError, match=f"no head {head} in layer {layer}: the model has 3|=-1: expected a"
        ):
            ablate_head(model, layer, head)


# --- patching -----------------------------------------------------------------------------------------------


def answer(logits):
    return logits[:, -1, 7]


@each_kind
def test_patching_equals_plain_loops(change):
    "As get_act_patch_resid_pre: run block after block, and put one clean vector in at one place."
    model, corrupted = decoder(**change), IDS.clone()
    corrupted[0, 3] = (IDS[0, 3] + 1) % 23
    found = patch_activations(model, IDS, corrupted, answer)
    clean = traced(model)[1]
    best, worst = answer(model(IDS)), answer(model(corrupted))
    for row, name in enumerate(residual_stream_names(model)):
        for t in (0, 3, 5, 8):

            def put(x, t=t, name=name):
                return torch.cat([x[:, :t], clean[name][:, t : t + 1], x[:, t + 1 :]], 1)

            handle = model.get_submodule(name).register_forward_hook(lambda m, a, x, put=put: put(x))
            got = (answer(model(corrupted)) - worst) / (best - worst)
            handle.remove()
            assert found[row, t].item() == pytest.approx(got.item(), abs=1e-8)
    assert found[0, 3].item() == pytest.approx(1) and found[-1, -1].item() == pytest.approx(1)
    assert found[0, :3].abs().max() < 1e-8 and found[-1, :-1].abs().max() < 1e-8


@pytest.mark.parametrize(
    "corrupted, words",
    [
        (IDS[:, :-1], r"clean \[1, 9\], corrupted \[1, 8\]: give one"),
        (IDS, "for both texts: corrupt a token"),
    ],
)
def test_patching_refuses(unchecked, corrupted, words):
    with pytest.raises(ValueError, match=words):
        patch_activations(MODEL, IDS, corrupted, answer)


# --- logit parts --------------------------------------------------------------------------------------------


@each_kind
def test_the_parts_sum_exactly_to_the_logit(change):
    model = decoder(**change)
    for position, token in ((8, 3), (4, 11)):
        parts = direct_logit_attribution(model, IDS, position, token)
        assert sum(parts.values()).item() == pytest.approx(model(IDS)[0, position, token].item(), abs=1e-12)
    assert sum(name.count("head") for name in parts) == 12


def test_one_part_by_hand():
    "The mean taken out, over the frozen scale, times the norm's weight, times the token's row."
    _, tape = traced(MODEL)
    last, p = tape["blocks.2"][0, 8], tape["blocks.1.mlp"][0, 8]
    scale = math.sqrt(last.var(unbiased=False).item() + MODEL.cfg.norm_eps)
    want = ((p - p.mean()) / scale * MODEL.norm.weight) @ MODEL.head_weight[3]
    assert direct_logit_attribution(MODEL, IDS, 8, 3)["blocks.1.mlp"].item() == pytest.approx(
        want.item(), abs=1e-12
    )


def test_a_stream_that_is_normed_on_the_way_has_no_parts(unchecked):
    for model in (decoder(norm_place="post"), MaskedLM(replace(CFG, **BERT)), MaskedLM(CFG)):
        with pytest.raises(ValueError, match="only where the stream is a plain sum"):
            direct_logit_attribution(model, IDS, 1, 1)


# --- attribution --------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 22), min_size=1, max_size=8), st.booleans())
def test_integrated_gradients_are_complete(tokens, zero):
    ids, table = torch.tensor([tokens]), token_embedding(MODEL).weight
    base = (torch.zeros if zero else torch.ones)(len(tokens), 32, dtype=torch.float64) * table.mean(0)
    total = integrated_gradients(MODEL, ids, answer, base if zero else None, steps=300).sum()
    with torch.no_grad(), edit_activation(MODEL, "embed.tokens", lambda x: base.expand_as(x).clone()):
        start = answer(MODEL(ids))
    assert total.item() == pytest.approx((answer(MODEL(ids)) - start).item(), abs=2e-3)


def test_gradients_equal_finite_differences_and_leave_the_mode():
    model = decoder(dropout=0.5).train()
    table, step = token_embedding(model).weight.detach(), 1e-6
    grad = metric_gradients(model, IDS, answer, table[IDS])
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()
    for t, d in ((0, 1), (5, 7)):
        moved = table[IDS].clone()
        moved[0, t, d] += step
        with torch.no_grad(), edit_activation(model, "embed.tokens", lambda x, moved=moved: moved):
            slope = (answer(model(IDS)) - answer(_plain(model))) / step
        assert grad[0, t, d].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)
    expected = (grad * table[IDS]).sum(-1)[0]
    assert torch.allclose(gradient_x_input(model, IDS, answer), expected)
    with pytest.raises(ValueError, match="steps=0: expected a whole number of at least 1"):
        integrated_gradients(model, IDS, answer, steps=0)


def test_one_step_of_integrated_gradients_by_hand_also_where_gradients_are_off():
    "The gradient half way, times the way."
    x = token_embedding(MODEL)(IDS).detach()
    by_hand = (metric_gradients(MODEL, IDS, answer, x / 2) * x).sum(-1)[0]
    with torch.no_grad():
        ours = integrated_gradients(MODEL, IDS, answer, torch.zeros_like(x[0]), steps=1)
        assert torch.allclose(ours, by_hand) and not gradient_x_input(MODEL, IDS, answer).requires_grad
    assert not gradient_x_input(MODEL, IDS, answer).requires_grad


def _plain(model):
    with (
        torch.no_grad(),
        edit_activation(model, "embed.tokens", lambda _: token_embedding(model).weight[IDS]),
    ):
        return model(IDS)


def test_a_masked_model_is_attributed_too():
    torch.manual_seed(0)
    model = MaskedLM(replace(CFG, **BERT)).double().eval()
    total = integrated_gradients(model, IDS, answer, steps=200).sum()
    table = token_embedding(model).weight
    with (
        torch.no_grad(),
        edit_activation(model, "encoder.embed.tokens", lambda x: table.mean(0).expand_as(x).clone()),
    ):
        start = answer(model(IDS))
    assert total.item() == pytest.approx((answer(model(IDS)) - start).item(), abs=1e-3)


# --- probe --------------------------------------------------------------------------------------------------


def test_a_probe_finds_a_plane_and_not_noise(unchecked):
    x = torch.randn(600, 10, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 0).long()
    noise = torch.randint(2, (600,), generator=torch.Generator().manual_seed(1))
    score = lambda y: (linear_probe(x[:400], y[:400])(x[400:]).argmax(-1) == y[400:]).float().mean()  # noqa: E731
    assert score(y) > 0.95 and score(noise) < 0.6
    with pytest.raises(ValueError, match="3 vectors and 2 classes"):
        linear_probe(x[:3], y[:2])


def test_a_probe_is_pulled_to_zero_and_bad_classes_are_told(unchecked):
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    with torch.no_grad():
        weak, strong = (linear_probe(x, y, decay) for decay in (1e-3, 1.0))
    assert strong.weight.norm() < 0.5 < 5 < weak.weight.norm()
    penalty, loss = strong.weight.detach().pow(2).sum(), torch.nn.functional.cross_entropy(strong(x), y)
    assert (loss + penalty).item() < math.log(2), "better than no weights at all"
    for bad in (y - 1, y[:0]):
        with pytest.raises(ValueError, match="give a class, counted from 0, for each vector"):
            linear_probe(x[: len(bad)], bad)


def test_control_gives_one_class_to_each_word():
    kinds = torch.randint(50, (900,), generator=torch.Generator().manual_seed(0))
    labels = control_labels(kinds, 4, seed=0)
    assert all(len(labels[kinds == k].unique()) == 1 for k in kinds.unique()) and len(labels.unique()) == 4
    assert torch.equal(labels, control_labels(kinds, 4, seed=0))


# --- two maps -----------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 24), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_another_map_is_a_map_with_the_same_output(t, dh, seed, sharp):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(t, t, generator=g, dtype=torch.float64) * (8 if sharp else 1)
    w = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -1e9).softmax(-1)
    v = torch.randn(t, dh, generator=g, dtype=torch.float64)
    other = alternative_attention(w, v)
    assert torch.allclose(other @ v, w @ v, atol=1e-7) and torch.allclose(
        other.sum(-1), torch.ones(t, dtype=w.dtype)
    )
    assert (other >= 0).all() and (other.triu(1) == 0).all(), "nobody looks ahead"
    assert ((other > 0).sum(-1) <= dh + 1).all(), "Carathéodory: dh + 1 tokens suffice"
    assert torch.equal(other[: dh + 1], w[: dh + 1]), "few tokens leave no choice"
    assert alternative_attention(w.float(), v.float()).dtype == torch.float32


# --- TransformerLens ----------------------------------------------------------------------------------------
# its numbers, written by tools/transformer_lens_reference.py, which also makes the weights, by a formula

PEER = json.loads((ROOT / "tests" / "data" / "transformer_lens.json").read_text())
CLEAN, CORRUPTED = torch.tensor(PEER["clean"]), torch.tensor(PEER["corrupted"])
PERIOD, TOKEN = PEER["period"], PEER["token"]
LAYERS, HEADS = PEER["shape"]["layers"], PEER["shape"]["heads"]


@pytest.fixture(scope="module")
def same():
    model = Decoder(Config(**PEER["shape"])).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weight(name, tuple(p.shape)))
    return model


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(
        torch.as_tensor(ours).double(), torch.tensor(theirs).double(), atol=atol, rtol=0
    )


def last(logits):
    return logits[:, -1, TOKEN]


def test_the_lens_is_accumulated_resid_with_the_final_norm(same):
    close(logit_lens(same, CLEAN)[:, 0, [4, -1]], PEER["accumulated_resid"])


def test_patching_is_get_act_patch_resid_pre(same):
    found = patch_activations(same, CLEAN, CORRUPTED, last)
    close(found[:-1], PEER["patch_resid_pre"])
    assert found[:-1].max() > 0.9 > 0.1 > found[:-1].min(), "some places bring the answer back, others do not"


def test_ablations_are_hooks_on_z(same):
    close(ablate_heads(same, CLEAN, last), PEER["zero"])
    close(ablate_heads(same, CLEAN, last, mean_head_outputs(same, CLEAN)), PEER["mean"])


def test_the_induction_score_is_the_stripe_of_its_main_demo(same):
    close(head_scores(same, CLEAN, PERIOD - 1), PEER["induction_stripe"])


def wanted(kind):
    "detect_head's pattern for two rounds: 1 where a head of this kind looks."
    t = CLEAN.shape[1]
    back = {"previous_token_head": 1, "induction_head": PERIOD - 1, "duplicate_token_head": PERIOD}[kind]
    pattern = torch.ones(t, t, dtype=torch.float64).tril(-back).triu(-back)
    return pattern * (torch.arange(t)[:, None] >= PERIOD) if kind == "induction_head" else pattern


@pytest.mark.parametrize("key", PEER["detect_head"])
def test_detect_head_is_another_share_of_the_same_attention(same, key):
    "mul: wanted attention over all of it. abs: 1 less the mean distance of a row, rounded to three digits."
    kind, measure, *left_out = key.split()
    with torch.no_grad(), record_attention(same) as tape:
        same(CLEAN)
    w, pattern = torch.cat(tape.attention()), wanted(kind)
    counted = torch.ones_like(pattern)
    if "exclude_bos" in left_out:
        counted[:, 0] = 0
    if "exclude_current_token" in left_out:
        counted.fill_diagonal_(0)
    if measure == "mul":
        score = (w * pattern * counted).sum((-2, -1)) / (w * counted).sum((-2, -1))
    else:
        score = 1 - ((w - pattern).abs() * counted).sum((-2, -1)) / len(pattern)
    close(score.view(LAYERS, HEADS), PEER["detect_head"][key], atol=1e-5 if measure == "mul" else 5.1e-4)


def test_our_scores_become_those_of_detect_head(same):
    "As the chapter says: the same sum, over the attention of all tokens."
    t, theirs = CLEAN.shape[1], PEER["detect_head"]
    close(head_scores(same, CLEAN, 1) * (t - 1) / t, theirs["previous_token_head mul"])
    close(head_scores(same, CLEAN, PERIOD) * PERIOD / t, theirs["duplicate_token_head mul"])
    with torch.no_grad(), record_attention(same) as tape:
        same(CLEAN)
    extra = torch.cat(tape.attention())[..., PERIOD - 1, 0].view(
        LAYERS, HEADS
    )  # the first round's last token
    close((head_scores(same, CLEAN, PERIOD - 1) * (PERIOD + 1) - extra) / t, theirs["induction_head mul"])


def ours_by_their_names(model, token):
    parts = {
        name: x.item()
        for name, x in direct_logit_attribution(model, CLEAN, CLEAN.shape[1] - 1, token).items()
    }
    heads = {f"L{i}H{h}": parts[f"blocks.{i}.head.{h}"] for i in range(LAYERS) for h in range(HEADS)}
    found = heads | {"embed": parts["embed"], "b_U": parts["norm.bias"], "logit": sum(parts.values())}
    for i in range(LAYERS):
        found |= {
            f"{i}_b_O": parts[f"blocks.{i}.attention.out.bias"],
            f"{i}_mlp_out": parts[f"blocks.{i}.mlp"],
        }
        found[f"{i}_attn_out"] = found[f"{i}_b_O"] + sum(heads[f"L{i}H{h}"] for h in range(HEADS))
    return found


def theirs_by_token(processing):
    "For the token, and for it less the other: their shares, with the embedding in one piece as ours."
    both = PEER["logit_attrs"][processing]
    for rows in zip(*both.values(), strict=True):
        found = dict(zip(both, rows, strict=True))
        yield found | {"embed": found["embed"] + found.pop("pos_embed")}


def test_parts_of_a_logit_are_logit_attrs_once_the_norm_is_folded(same):
    one, less = theirs_by_token("fold_ln")
    ours, other = (ours_by_their_names(same, token) for token in (TOKEN, PEER["other"]))
    assert one.keys() == ours.keys()
    close([*ours.values()], [one[name] for name in ours])
    close([ours[name] - other[name] for name in ours], [less[name] for name in ours])


def test_its_usual_loading_moves_constants_between_parts(same):
    "The mean over the vocabulary leaves every share, and what a head always adds goes to its layer's bias."
    one, less = theirs_by_token("usual")
    every = [ours_by_their_names(same, token) for token in range(PEER["shape"]["vocab_size"])]
    mean = {name: sum(row[name] for row in every) / len(every) for name in every[0]}
    block_parts = [name for name in mean if name == "embed" or name.endswith("_out")]
    close([every[TOKEN][n] - mean[n] for n in block_parts], [one[n] for n in block_parts])
    close([every[TOKEN][n] - every[PEER["other"]][n] for n in block_parts], [less[n] for n in block_parts])
    with torch.no_grad(), trace_activations(same) as tape:
        same(CLEAN)
        final = tape[residual_stream_names(same)[-1]][0, -1]
        direction = logit_direction(same, final, TOKEN)[0] - logit_direction(same, final, PEER["other"])[0]
        for i, block in enumerate(same.blocks):
            always = block.attention.qkv(block.norm1.bias)[-32:].unflatten(
                0, (HEADS, -1)
            )  # the value of no token
            adds = torch.einsum(
                "hk,dhk,d->h", always, block.attention.out.weight.unflatten(1, always.shape), direction
            )
            names = [f"L{i}H{h}" for h in range(HEADS)]
            moved = torch.tensor([every[TOKEN][n] - every[PEER["other"]][n] - less[n] for n in names])
            assert adds.abs().min() > 1e-3
            close(moved, adds.tolist())


# --- a loaded model -----------------------------------------------------------------------------------------


def test_a_gpt2_of_transformers_is_read_and_split(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    torch.manual_seed(0)
    shape = dict(vocab_size=23, n_positions=24, n_embd=32, n_layer=3, n_head=4)
    cfg = transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    theirs = transformers.GPT2LMHeadModel(cfg).eval()
    theirs.save_pretrained(tmp_path)
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    model, _ = load_pretrained(tmp_path)
    with torch.no_grad():
        out = theirs(IDS, output_hidden_states=True)
    _, tape = traced(model)
    for ours, hidden in zip(residual_stream_names(model)[:-1], out.hidden_states[:-1], strict=True):
        assert torch.allclose(tape[ours], hidden, atol=1e-5), ours
    assert torch.allclose(logit_lens(model, IDS)[-1], out.logits.log_softmax(-1), atol=1e-5)
    assert sum(direct_logit_attribution(model, IDS, 8, 3).values()).item() == pytest.approx(
        out.logits[0, 8, 3].item(), abs=1e-4
    )
