"Scores against PyTorch, NumPy and a brute-force sliding window."

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmlab import metrics
from llmlab.metrics import (
    Score,
    accuracy,
    accuracy_per_class,
    bits_per_byte,
    bootstrap_interval,
    cross_entropy,
    evaluating,
    paired_test,
    perplexity,
    ratio_of_sums,
    score_from_rows,
    scoring_windows,
    t_interval,
    token_logprobs,
)
from llmlab.transformer import Config, Decoder


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Decoder(Config(vocab_size=50, context=8, layers=2, heads=2, d_model=16, dropout=0.3))


def ids(n, seed=0):
    return torch.randint(50, (n,), generator=torch.Generator().manual_seed(seed))


def brute(model, ids, context, stride):
    "One window after another, one token after another, as the definition says."
    n, done, out = len(ids) - 1, 0, []
    end = min(context, n)
    model.eval()
    while done < n:
        start = max(0, end - context)
        with torch.no_grad():
            logp = model(ids[None, start:end])[0].log_softmax(-1)
        out += [logp[t - 1 - start, ids[t]] for t in range(done + 1, end + 1)]
        done, end = end, min(end + stride, n)
    return torch.stack(out)


@pytest.mark.parametrize(
    "n,context,stride",
    [
        (2, 8, 4),
        (5, 8, 8),
        (9, 8, 8),
        (10, 8, 3),
        (40, 8, 1),
        (40, 8, 8),
        (33, 5, 2),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_sliding_window_equals_brute_force(model, n, context, stride, batch_size):
    got = token_logprobs(model, ids(n), context, stride, batch_size)
    torch.testing.assert_close(got, brute(model, ids(n), context, stride), atol=1e-5, rtol=1e-5)
    assert got.recipe == {"context": context, "stride": stride}


def test_the_default_stride_is_half_the_context(model):
    assert token_logprobs(model, ids(20)).recipe == {
        "context": model.cfg.context,
        "stride": model.cfg.context // 2,
    }
    assert token_logprobs(model, ids(4), context=1).recipe == {"context": 1, "stride": 1}


@pytest.mark.filterwarnings("error")
def test_a_tensor_under_training_is_scored():
    logprobs = torch.tensor([-1.0, -3.0], requires_grad=True)
    assert cross_entropy(logprobs) == 2.0


def test_one_window_equals_torch_cross_entropy(model):
    x = ids(9)
    model.eval()
    theirs = F.cross_entropy(model(x[None, :-1])[0], x[1:])
    assert cross_entropy(token_logprobs(model, x)) == pytest.approx(theirs.item(), abs=1e-6)


def test_any_callable_will_do(model):
    def plain(x):
        return model(x)

    theirs = token_logprobs(plain, ids(30), context=8, stride=4)
    torch.testing.assert_close(theirs, token_logprobs(model, ids(30), stride=4), atol=1e-5, rtol=1e-5)


def test_mode_and_gradients_are_left_alone(model):
    for mode in (True, False):
        model.train(mode)
        assert not token_logprobs(model, ids(20)).requires_grad
        assert model.training is mode
    model.train()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training
    assert torch.equal(token_logprobs(model, ids(20)), token_logprobs(model, ids(20)))  # no dropout
    model.blocks[0].eval()
    modes = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == modes, "each part on its own"


def test_logits_are_never_held_for_everything():
    rows = []

    class Spy(nn.Module):
        cfg = Config(vocab_size=50, context=64)

        def hidden(self, x):
            return torch.zeros(*x.shape, 4)

        def logits(self, h):
            rows.append(len(h))
            return torch.zeros(len(h), 50)

    token_logprobs(Spy(), ids(4001), batch_size=64)
    assert sum(rows) == 4000 and max(rows) <= 1024


@given(st.integers(1, 200), st.integers(1, 40), st.data())
@settings(deadline=None)
def test_windows_score_each_token_once_with_enough_context(n, context, data):
    stride = data.draw(st.integers(1, context))
    scored = []
    for start, skipped in scoring_windows(n, context, stride):
        width = min(context, n)
        assert 0 <= start and start + width <= n
        for at in range(start + skipped, start + width):
            scored.append(at)
            assert at - start >= min(at, context - stride)  # inputs before this one
    assert scored == list(range(n))


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=50))
@settings(deadline=None)
def test_scores_agree_with_numpy(values):
    array = np.array(values)
    assert cross_entropy(array) == pytest.approx(-array.mean())
    assert perplexity(array) == pytest.approx(np.exp(-array.mean()))
    assert bits_per_byte(array, 7) == pytest.approx(-np.log2(np.exp(array)).sum() / 7, abs=1e-9)
    assert cross_entropy(torch.tensor(values, dtype=torch.float64)) == pytest.approx(cross_entropy(array))


def test_pencil():
    "Probabilities 1/2, 1/4, 1/8, 1/2: 7 bits in 4 tokens."
    logp = torch.tensor([0.5, 0.25, 0.125, 0.5]).log()
    assert perplexity(logp) == pytest.approx(2**1.75)
    assert bits_per_byte(logp, 7) == pytest.approx(1.0)
    assert cross_entropy(logp) == pytest.approx(1.75 * math.log(2))


def test_perplexity_does_not_overflow():
    assert perplexity(np.array([-1000.0])) == math.inf


@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy_against_numpy(k):
    generator = torch.Generator().manual_seed(k)
    logits, targets = torch.randn(6, 7, 9, generator=generator), torch.randint(9, (6, 7), generator=generator)
    targets[0] = -100
    ranks = (
        logits.numpy() > np.take_along_axis(logits.numpy(), targets.clamp(min=0).numpy()[..., None], -1)
    ).sum(-1)
    got = accuracy(logits, targets, k)
    assert got == pytest.approx((ranks[1:] < k).mean()) and got.recipe["tokens"] == 35


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_accuracy_per_class_adds_up(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(5, 8, 4, generator=generator), torch.randint(4, (5, 8), generator=generator)
    targets[:, 6:] = -100
    each, hits = accuracy_per_class(logits, targets), logits.argmax(-1) == targets
    assert set(each) == set(targets[:, :6].unique().tolist())
    for c, score in each.items():
        assert score == pytest.approx(hits[targets == c].double().mean().item())
    total = sum(score * score.recipe["tokens"] for score in each.values())
    assert total / 30 == pytest.approx(accuracy(logits, targets))


def test_bytes_of_each_token():
    logp, n = torch.tensor([-1.0, -2.0, -3.0]), np.array([1, 4, 2])
    score = bits_per_byte(logp, n)
    assert score == pytest.approx(bits_per_byte(logp, 7)) and score.recipe["bytes"] == 7
    assert score.rows[:, 1].tolist() == [1, 4, 2]


TWO = perplexity(np.array([-1.0, -2.0]))


def mean_of(values):
    return score_from_rows(np.stack([values, np.ones(len(values))], 1), ratio_of_sums, "mean")


def test_interval_of_a_mean_is_the_textbooks():
    "1.96 standard errors to each side, up to the noise of the draws."
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_interval(mean_of(values), n=4000)
    side = 1.96 * values.std() / 20
    assert found == values.mean() and found.name == "mean" and found.recipe["units"] == 400
    assert found.recipe["low"] == pytest.approx(values.mean() - side, abs=0.1 * side)
    assert found.recipe["high"] == pytest.approx(values.mean() + side, abs=0.1 * side)
    narrow = bootstrap_interval(mean_of(values), level=0.5)
    assert found.recipe["low"] < narrow.recipe["low"] < narrow.recipe["high"] < found.recipe["high"]


def test_few_trainings_have_students_interval():
    "By hand: 1, 2, 3 have the standard error 1 / sqrt(3), and t is 4.303 at two degrees of freedom."
    assert t_interval([1, 2, 3]) == pytest.approx((2, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    apart = 2.776 * (2 / 3) ** 0.5  # two kinds, three of each, both with variance 1
    assert t_interval([1, 2, 3], [3, 4, 5]) == pytest.approx((-2, -2 - apart, -2 + apart))
    for values, other in (([1.0], None), ([1.0] * 6, None), ([1.0, 2.0], [1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="expected 2 to 5, as many of each kind"):
            t_interval(values, other)


def test_units_are_drawn_together():
    "Ten copies of each value say no more than one; a unit's label may be a word, and need not be sorted."
    values, copies = np.random.default_rng(0).normal(size=20), 10
    whole = bootstrap_interval(
        mean_of(np.tile(values, copies)), units=[f"page {i % 20}" for i in range(200)], n=2000
    )
    once, alone = (
        bootstrap_interval(mean_of(values), n=2000),
        bootstrap_interval(mean_of(np.tile(values, copies)), n=2000),
    )
    width = lambda score: score.recipe["high"] - score.recipe["low"]  # noqa: E731
    assert whole.recipe["units"] == 20 and width(whole) == pytest.approx(width(once), rel=0.1)
    assert width(alone) < 0.5 * width(once)


def test_a_paired_swap_by_enumeration():
    "All 2 ** 8 ways to swap eight pairs, and how many differ at least as much."
    draw = np.random.default_rng(3)
    a, b = draw.normal(size=8), draw.normal(0.6, size=8)
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    exact = (np.abs(signs @ (b - a)) >= abs((b - a).sum()) - 1e-9).mean()
    got = paired_test(mean_of(a), mean_of(b), n=20_000)
    assert got == pytest.approx(exact, abs=0.01) and got.recipe["difference"] == pytest.approx((b - a).mean())
    assert 0.02 < exact < 0.9


def test_no_p_value_is_zero():
    "What was seen counts as one of the draws (Phipson & Smyth 2010)."
    worse, better = (cross_entropy(torch.full((60,), x)) for x in (-2.0, -1.0))
    assert paired_test(worse, better, n=99) == 0.01


@pytest.mark.parametrize("method", ["swap", "bootstrap"])
def test_chance_is_not_called_progress(method):
    "Equal systems: p is below 0.1 in about a tenth of the trials. A real difference is found."
    draw, small = np.random.default_rng(0), 0
    for trial in range(100):
        base = draw.normal(size=40)
        a, b = base + draw.normal(size=40), base + draw.normal(size=40)
        small += paired_test(mean_of(a), mean_of(b), method, n=200, seed=trial) < 0.1
    assert 2 <= small <= 20
    better = base + 0.1 + 0.1 * draw.normal(size=40)
    assert paired_test(mean_of(base), mean_of(better), method, n=500) < 0.01
    assert paired_test(mean_of(base), mean_of(base), method, n=100) == 1


def test_every_score_can_be_resampled(model):
    lp = token_logprobs(model, ids(40))
    hits = accuracy(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5)
    scores = [cross_entropy(lp), perplexity(lp), bits_per_byte(lp, 90), hits]
    for score in scores:
        found = bootstrap_interval(score, n=50)
        assert found == score and found.recipe["low"] <= score <= found.recipe["high"]
        assert pickle.loads(pickle.dumps(score)).total(score.rows.sum(0)) == score
    assert (
        bootstrap_interval(scores[1], seed=1).recipe["low"]
        == bootstrap_interval(scores[1], seed=1).recipe["low"]
    )


def test_score_prints_its_recipe_and_is_a_number():
    lp = torch.tensor([-1.0, -2.0])
    lp.recipe = {"context": 8, "stride": 4}
    score = perplexity(lp, tokenizer="bpe-512")
    for part in ("perplexity 4.482", "tokens=2", "context=8", "stride=4", "tokenizer=bpe-512", "llmlab="):
        assert part in repr(score)
    assert score + 1 == pytest.approx(math.exp(1.5) + 1)
    for twin in (pickle.loads(pickle.dumps(score)), copy.deepcopy(score)):
        assert twin == score and repr(twin) == repr(score)
    assert repr(Score(2, "x", "nats")).startswith("x 2 nats (")


@pytest.mark.parametrize(
    "call,text",
    [
        (lambda m: cross_entropy(torch.zeros(0)), "no log-probabilities"),
        (lambda m: cross_entropy(torch.tensor([0.5])), "0.5 is above 0: pass log p"),
        (lambda m: bits_per_byte(torch.tensor([-1.0]), 0), "n_bytes is 0, expected whole numbers"),
        (
            lambda m: bits_per_byte(torch.tensor([-1.0, -1.0]), np.array([2, -1])),
            "n_bytes is .* expected whole numbers",
        ),
        (
            lambda m: bits_per_byte(torch.tensor([-1.0, -1.0]), np.array([1.5, 2])),
            "n_bytes is .* expected whole numbers",
        ),
        (lambda m: bits_per_byte(torch.tensor([-1.0]), 2.5), "n_bytes is 2.5, expected whole numbers"),
        (lambda m: bits_per_byte(torch.tensor([-1.0]), True), "n_bytes is True, expected whole numbers"),
        (
            lambda m: token_logprobs(m, [1, 2.5, 3]),
            "ids are float64, expected whole numbers: they are never rounded",
        ),
        (lambda m: accuracy(torch.zeros(2, 3), torch.full((2,), -100)), "every target is -100"),
        (lambda m: bits_per_byte(torch.tensor([]), 5), "no log-probabilities"),
        (lambda m: perplexity(torch.tensor([-1.0, float("nan")])), "a log-probability is NaN"),
        (lambda m: cross_entropy(np.array([float("nan")])), "a log-probability is NaN"),
        (
            lambda m: accuracy(torch.zeros(2, 3), torch.tensor([0, 3])),
            "targets from 0 to 3, but 3 candidates",
        ),
        (lambda m: accuracy(torch.zeros(2, 3), torch.tensor([0, -1])), "targets from -1 to 0"),
        (lambda m: accuracy(torch.zeros(2, 3), torch.tensor([0, 1]), k=4), "k is 4: take 1 to 3"),
        (lambda m: accuracy(torch.full((2, 3), math.nan), torch.tensor([0, 1])), "a logit is NaN"),
        (lambda m: accuracy_per_class(torch.zeros(2, 3), torch.full((2,), -100)), "every target is -100"),
        (lambda m: bootstrap_interval(Score(1.0)), "has not two finite rows"),
        (lambda m: bootstrap_interval(perplexity(np.array([-1.0]))), "has not two finite rows"),
        (lambda m: bootstrap_interval(perplexity(np.array([-1.0, -math.inf]))), "has not two finite rows"),
        (lambda m: bootstrap_interval(TWO, units=[0]), "1 units for 2 rows"),
        (lambda m: bootstrap_interval(TWO, level=95), "level=95: expected a number above 0 and below 1"),
        (lambda m: bootstrap_interval(TWO, n=0), "n=0: expected"),
        (lambda m: paired_test(TWO, perplexity(np.array([-1.0] * 3))), "with 2 rows, .* with 3"),
        (lambda m: paired_test(TWO, cross_entropy(np.array([-1.0] * 2))), "score the same things"),
        (lambda m: paired_test(*[TWO] * 2, method="t"), "method='t': expected one of swap, bootstrap"),
        (lambda m: token_logprobs(m, [1]), "1 tokens: a score needs a token and one before it"),
        (lambda m: token_logprobs(m, []), "0 tokens"),
        (lambda m: token_logprobs(m, [1, 2, 3], stride=0), "stride=0: expected a whole number of at least 1"),
        (lambda m: token_logprobs(m, [1, 2, 3], context=4, stride=5), "stride 5 with context 4"),
        (lambda m: token_logprobs(m, [1, 2, 50]), "ids from 1 to 50, but the vocabulary has 50"),
    ],
)
def test_errors(unchecked, model, call, text):
    with pytest.raises((ValueError, IndexError), match=text):
        call(model)


def test_recipe_is_kept_apart_from_the_tensor():
    lp = torch.tensor([-1.0])
    perplexity(lp, tokenizer="x")
    assert metrics.logprobs_recipe(lp, {}) == {"tokens": 1}
