"Losses over unequal rows: sums and counts, so that parts give the gradient of the whole batch."

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.causal import causal_loss
from llmlab.losses import deal_targets, mean_over, target_counts
from llmlab.masked import MaskedLM, Masking, MaskTokenizer, corrupt, masked_loss, padded_rows
from llmlab.tasks.answer_models import answer_loss
from llmlab.tasks.answering import span_loss
from llmlab.tasks.completion import code_loss
from llmlab.tasks.summarization import summary_loss
from llmlab.tasks.text_pairs import pad_pairs
from llmlab.tasks.translation import translation_loss
from llmlab.tokens import Tokenizer
from llmlab.training import Recipe, fit, train_step
from llmlab.transformer import Config, Decoder, EncoderDecoder

TOKENIZER = MaskTokenizer(Tokenizer.train("the cat sat on the mat and the dog sat on the log " * 5, 300))
CFG = Config(TOKENIZER.vocab_size, 64, layers=1, heads=2, d_model=16)
SENTENCE = "the cat sat on the mat and the dog sat on the log the cat sat"
PAIRS = pad_pairs(
    [([5, 6], [1, 2]), ([5], [1, 7, 8, 9, 3, 4, 5, 6, 7, 2]), ([9] * 7, [1, 7, 2]), ([5, 5], [1, 8, 9, 2])]
)


class Span(torch.nn.Module):
    "Two scores a token, so that span_loss can ask it."

    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.table = cfg, torch.nn.Embedding(cfg.vocab_size, 2)

    def forward(self, ids, *_):
        return self.table(ids)


def masked_batch():
    ids, words = padded_rows(["the cat", SENTENCE, "dog", "the dog sat on the log"], TOKENIZER, 64).unbind(1)
    return corrupt(ids, TOKENIZER, Masking(rate=0.4), torch.Generator().manual_seed(0), words)


def code_batch():
    "Four rows: 19, 2, 1 and 5 targets."
    ids = torch.randint(200, (4, 20), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, (20, 3, 2, 6), strict=True):
        row[length:] = -1
    return ids


def cases():
    causal = code_batch().masked_fill(code_batch() < 0, -100)
    return {
        "causal": (Decoder, causal_loss, code_batch().clamp(min=0)),
        "causal, ignored": (Decoder, causal_loss, causal),
        "causal, another id ignored": (Decoder, partial(causal_loss, ignore_index=-1), code_batch()),
        "causal, smoothed": (Decoder, partial(causal_loss, smoothing=0.2), causal),
        "code": (Decoder, code_loss, code_batch()),
        "masked": (MaskedLM, masked_loss, masked_batch()),
        "translation": (EncoderDecoder, translation_loss, PAIRS),
        "translation, plain": (EncoderDecoder, partial(translation_loss, smoothing=0.0), PAIRS),
        "summary": (EncoderDecoder, summary_loss, PAIRS),
        "answer": (EncoderDecoder, answer_loss, PAIRS),
    }


def model_of(make):
    torch.manual_seed(0)
    return make(CFG)


def gradient(make, loss, batch, parts):
    "What train_step reports, and the gradient it makes, read off the move of plain gradient descent."
    model = model_of(make)
    before = [p.detach().clone() for p in model.parameters()]
    recipe = Recipe(steps=1, batch_size=len(batch), accumulate=parts, clip=float("inf"))
    row = train_step(model, batch, loss, torch.optim.SGD(model.parameters(), lr=1.0), recipe)
    return row, [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]


# --- parts of a batch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("name", cases())
def test_parts_give_the_loss_and_the_gradient_of_the_whole(name, parts):
    make, loss, batch = cases()[name]
    row, whole = gradient(make, loss, batch, 1)
    in_parts, summed = gradient(make, loss, batch, parts)
    assert in_parts["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert in_parts["gradient_norm"] == pytest.approx(row["gradient_norm"], rel=1e-4)
    for a, b in zip(whole, summed, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", cases())
def test_the_count_is_that_of_the_loss(name):
    "The sum over all rows, each alone and weighed by its count, is the loss of the batch."
    make, loss, batch = cases()[name]
    model = model_of(make)
    counts = target_counts(loss, batch)
    alone = torch.stack([loss(model, row[None]) for row in batch])
    assert len({*counts.tolist()}) > 1 or name == "causal"
    torch.testing.assert_close((counts * alone).sum() / counts.sum(), loss(model, batch))


def test_spans_have_two_targets_a_row():
    batch = torch.zeros(3, 4, 5, dtype=torch.long)
    assert target_counts(span_loss, batch).tolist() == [2, 2, 2]


def test_a_loss_without_a_count_takes_rows_alike_and_refuses_filled_rows():
    assert target_counts(lambda m, b: 0.0, torch.ones(3, 2, dtype=torch.long)).tolist() == [1, 1, 1]
    wrapped = lambda model, batch: translation_loss(model, batch, 0.0)  # noqa: E731
    with pytest.raises(ValueError, match="does not say how many targets a row has: decorate it"):
        fit(
            model_of(EncoderDecoder), lambda step: PAIRS, wrapped, Recipe(steps=1, batch_size=4, accumulate=2)
        )
    fit(
        model_of(EncoderDecoder), lambda step: PAIRS, wrapped, Recipe(steps=1, batch_size=4)
    )  # one part: no question


# --- rows without a target ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 4))
def test_every_part_gets_a_target_if_there_are_enough(counts, parts):
    batch, counts = torch.arange(len(counts))[:, None], torch.tensor(counts)
    if int((counts > 0).sum()) < parts:
        with pytest.raises(ValueError, match="have a target, fewer than the"):
            deal_targets(batch, counts, parts)
        return
    order = deal_targets(batch, counts, parts)[:, 0]
    assert sorted(order.tolist()) == list(range(len(counts)))
    assert all(counts[order[i::parts]].sum() > 0 for i in range(parts))
    if (counts > 0).all():
        assert order.tolist() == list(range(len(counts)))


def test_fit_deals_rows_without_a_target():
    batch = code_batch()
    batch[2, 1:] = -1
    batch[0, 1:] = -1  # two rows of four have no target
    recipes = [Recipe(steps=2, batch_size=4, accumulate=n) for n in (1, 2)]
    runs = [fit(model_of(Decoder), lambda step: batch, code_loss, recipe) for recipe in recipes]
    assert [r["loss"] for r in runs[0]] == pytest.approx([r["loss"] for r in runs[1]], rel=1e-5)
    with pytest.raises(ValueError, match="2 rows have a target, fewer than the 4 parts"):
        fit(model_of(Decoder), lambda step: batch, code_loss, Recipe(steps=2, batch_size=4, accumulate=4))


# --- several processes --------------------------------------------------------------------------------------


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_losses import cases, model_of
from llmlab.training import Recipe, fit

make, loss, batch = cases()[sys.argv[2]]
recipe = Recipe(steps=3, batch_size=4, accumulate=int(sys.argv[3]), lr=1e-2)
history = fit(model_of(make), lambda step: batch, loss, recipe)
print("losses", *[f"{row['loss']:.6f} {row['gradient_norm']:.5f}" for row in history])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masked", "translation", "code"])
def test_two_processes_with_unequal_shares_make_the_run_of_one(tmp_path, name):
    pytest.importorskip("accelerate")
    (tmp_path / "program.py").write_text(PROGRAM)
    found = {}
    for processes in (1, 2):
        many = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes > 1 else []
        )
        command = [
            sys.executable,
            *many,
            str(tmp_path / "program.py"),
            os.path.dirname(__file__),
            name,
            str(processes),
        ]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
        assert ran.returncode == 0, ran.stderr[-3000:]
        lines = {line for line in ran.stdout.splitlines() if line.startswith("losses")}
        assert len(lines) == 1, "all processes tell the same"
        found[processes] = [float(x) for x in lines.pop().split()[1:]]
    assert found[1] == pytest.approx(found[2], rel=2e-4)


# --- the causal loss, its ignored targets and smoothing, beside PyTorch's -----------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("ignore", [-100, -1, 7])
def test_the_causal_loss_and_its_gradients_are_those_of_torch(smoothing, chunk, ignore):
    model = model_of(Decoder)
    ids = code_batch()
    ids[ids < 0] = ignore
    ours = causal_loss(model, ids, chunk, ignore, smoothing)
    inputs = ids[:, :-1] if ignore > 0 else ids[:, :-1].masked_fill(ids[:, :-1] == ignore, 0)
    theirs = F.cross_entropy(
        model(inputs).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=ignore, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_what_stands_behind_the_text_does_not_matter():
    model, ids = model_of(Decoder), code_batch().masked_fill(code_batch() < 0, -100)
    torch.testing.assert_close(causal_loss(model, ids), causal_loss(model, F.pad(ids, (0, 9), value=-100)))


@pytest.mark.parametrize(
    "ids, words",
    [
        (torch.empty(0, 5, dtype=torch.long), r"ids of shape \[0, 5\], expected rows of tokens"),
        (torch.zeros(5, dtype=torch.long), r"ids of shape \[5\], expected rows of tokens"),
        (torch.zeros(2, 1, dtype=torch.long), "1 token a row"),
        (torch.zeros(2, 3), "ids are torch.float32, expected whole numbers"),
        (torch.tensor([[1, 2, 9999]]), "targets from 2 to 9999, expected 0 to"),
        (torch.tensor([[1, 2, -5]]), "targets from -5 to 2"),
        (torch.tensor([[1, -100, -100]]), "hold no target but -100"),
    ],
)
def test_ids_that_have_no_loss(ids, words, unchecked):
    with pytest.raises(ValueError, match=words):
        causal_loss(model_of(Decoder), ids)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan"), True])
def test_smoothing_is_a_share(smoothing, unchecked):
    with pytest.raises(ValueError, match="smoothing=.*: expected a number from 0 to 1"):
        causal_loss(model_of(Decoder), code_batch().clamp(min=0), smoothing=smoothing)


def test_mean_over_gives_the_loss_back():
    def loss(model, batch):
        return 1.0

    assert mean_over(len)(loss) is loss and loss.targets is len
