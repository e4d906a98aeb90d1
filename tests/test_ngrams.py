"The fast n-gram model, against the Kneser–Ney of chapter 4, which is written with dictionaries."

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.corpora import story_entropy
from llmlab.ngram_tables import NGram, number_ngrams
from llmlab.ngrams import kneser_ney, kneser_ney_counts, kneser_ney_discount
from llmlab.text import load_corpus
from llmlab.tokens import Tokenizer

V = 5
texts = st.lists(st.integers(0, V - 1), min_size=1, max_size=30)


def by_formula(counts, held, i, vocab_size=V):
    "The lesson's probability of every token at place i of a text."
    context = tuple(held[max(0, i - len(counts) + 1) : i])
    return [kneser_ney(counts, context, token, vocab_size) for token in range(vocab_size)]


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.integers(1, 5))
def test_tables_equal_the_dictionaries_of_the_lesson(ids, held, order):
    fast, counts = NGram(order, V).fit(ids), kneser_ney_counts(ids, order)
    expected = [by_formula(counts, held, i)[token] for i, token in enumerate(held)]
    assert np.allclose(np.exp(fast.logprobs(held)), expected)
    context = held[:3]
    assert np.allclose(fast.probs(context), by_formula(counts, context, len(context)))


@pytest.mark.parametrize("order", range(1, 6))
def test_tables_equal_the_dictionaries_on_real_text(order):
    text = load_corpus("reference", 6_000).text
    tokenizer = Tokenizer.train(text, 300)
    ids = tokenizer.encode(text)
    train, held = ids[:-80], ids[-80:]
    counts = kneser_ney_counts(train, order)
    contexts = [tuple(held[max(0, i - order + 1) : i]) for i in range(len(held))]
    expected = [kneser_ney(counts, *pair, 300) for pair in zip(contexts, held, strict=True)]
    assert np.allclose(np.exp(NGram(order, 300).fit(train).logprobs(held)), expected)


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.integers(1, 6))
def test_probabilities_are_positive_and_sum_to_one(ids, context, order):
    p = NGram(order, V).fit(ids).probs(context)
    assert p.shape == (V,) and np.all(p > 0) and np.isclose(p.sum(), 1)


@pytest.mark.parametrize("order", range(1, 5))
def test_sums_to_one_after_every_context(order):
    rng = np.random.default_rng(0)
    model = NGram(order, V).fit(rng.integers(0, V, 200))
    for context in product(range(V), repeat=3):
        p = model.probs(context)
        assert np.isclose(p.sum(), 1) and np.all(p > 0)


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.integers(1, 5))
def test_logprobs_are_the_probs_of_each_prefix(ids, held, order):
    model = NGram(order, V).fit(ids)
    one_by_one = [np.log(model.probs(held[:i])[word]) for i, word in enumerate(held)]
    assert np.allclose(model.logprobs(held), one_by_one)


def test_only_the_last_tokens_count():
    model = NGram(3, V).fit(np.random.default_rng(1).integers(0, V, 300))
    assert np.array_equal(model.probs([0, 1, 2, 3, 4]), model.probs([3, 4]))


def test_the_future_does_not_count():
    rng = np.random.default_rng(2)
    model = NGram(4, V).fit(rng.integers(0, V, 300))
    a, b = rng.integers(0, V, 20), rng.integers(0, V, 20)
    assert np.array_equal(model.logprobs(a), model.logprobs(np.concatenate([a, b]))[:20])


def test_pencil_case():
    "a b a b a c, order 2: d = 1/5 for pairs; below, all three counts are 1, so d = 1 there."
    model = NGram(2, 3).fit([0, 1, 0, 1, 0, 2])
    assert [round(d, 9) for d in model.discounts] == [1, 0.2]
    assert np.allclose(model.probs([0]), [0.4 / 9, 5.8 / 9, 2.8 / 9])
    assert np.allclose(model.probs([2]), 1 / 3), "nothing was seen after c: the order below answers"
    assert np.isclose(np.exp(model.logprobs([0, 1])[1]), 5.8 / 9)


def test_continuation_counts_not_frequencies():
    "`1` is frequent but stands after `0` only; `2` stands after three tokens. After an unknown one `2` wins."
    ids = [0, 1] * 20 + [3, 2, 4, 2, 0, 2, 3, 5]
    p = NGram(2, 7).fit(ids).probs([6])
    assert p[2] > p[1]


def test_order_one_counts_frequencies():
    p = NGram(1, 3).fit([0, 0, 0, 0, 1, 1, 2]).probs()
    d = kneser_ney_discount(np.array([4, 2, 1]))
    assert np.allclose(p, (np.array([4, 2, 1]) - d + 3 * d / 3) / 7)


@pytest.mark.parametrize(("counts", "d"), [([1, 1, 2], 0.5), ([1], 1.0), ([2, 2, 7], 0.5), ([1, 2, 2], 0.2)])
def test_discount(counts, d):
    assert kneser_ney_discount(np.array(counts)) == d


def test_numbers_of_n_grams():
    ids = np.random.default_rng(3).integers(0, 4, 100)
    for n, (keys, counts, ending) in enumerate(number_ngrams(ids, 4, 4), 1):
        grams = Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
        assert sorted(counts) == sorted(grams.values()) and len(keys) == len(grams)
        assert np.all(ending[: n - 1] == -1)
        named = {(int(ending[i]), tuple(ids[i - n + 1 : i + 1])) for i in range(n - 1, len(ids))}
        assert len(named) == len(grams), "one number for one n-gram"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_text_shorter_than_the_order(length):
    model = NGram(5, V).fit(list(range(length)))
    assert np.isclose(model.probs([0, 1, 2, 3]).sum(), 1) and len(model.sample(4)) == 4


def test_ids_beyond_32_bits_do_not_collide():
    v = 2**40
    model = NGram(3, v).fit([0, v - 1, 5, 0, v - 1, 5, v - 1, 0])
    logprobs = model.logprobs([0, v - 1, 5])
    assert np.all(np.isfinite(logprobs)) and logprobs[2] > np.log(0.2)


def test_samples_follow_the_probabilities():
    model = NGram(2, 3).fit([0, 1, 0, 1, 0, 2])
    drawn = model.sample(5_000, seed=0, prompt=[0])
    assert len(drawn) == 5_000, "only what is new, without the prompt"
    after = Counter(b for a, b in zip([0, *drawn], drawn, strict=False) if a == 0)
    shares = np.array([after[i] for i in range(3)]) / sum(after.values())
    assert np.abs(shares - model.probs([0])).max() < 0.04
    assert model.sample(50, seed=4) == model.sample(50, seed=4) != model.sample(50, seed=5)
    assert model.sample(0) == []


def test_stories_between_uniform_and_oracle():
    train, valid = load_corpus("stories").split()
    tokenizer = Tokenizer.train(train.text, 512)
    ids, held = (tokenizer.encode_documents(c) for c in (train, valid))
    model = NGram(5, tokenizer.vocab_size).fit(ids)
    five = np.exp(-model.logprobs(held).mean())
    two = np.exp(-NGram(2, tokenizer.vocab_size).fit(ids).logprobs(held).mean())
    oracle = np.exp(story_entropy() * len(valid) / len(held))
    assert len(ids) >= 300_000
    assert 1.4 < oracle < 1.55 and 1.4 * oracle < five < two < 6


def test_errors_say_what_to_do(unchecked):
    for order, v, name in ((0, 5, "order"), (2, 0, "vocab_size"), (2.0, 5, "order"), (2, True, "vocab_size")):
        with pytest.raises(ValueError, match=f"{name}=.*: expected a whole number of at least 1"):
            NGram(order, v)
    with pytest.raises(ValueError, match="ids are float64, expected whole numbers: they are never rounded"):
        NGram(2, 5).fit([0, 1.5])
    with pytest.raises(ValueError, match="no ids to count: pass the ids of at least one token"):
        NGram(2, 5).fit([])
    for call in (NGram(2, 5).probs, NGram(2, 5).logprobs):
        with pytest.raises(ValueError, match=r"this model has counted nothing yet: call fit\(ids\) first"):
            call([1])
    model = NGram(2, 5).fit([0, 1])
    for call in (model.fit, model.probs, model.logprobs):
        for wrong in (5, -1):
            with pytest.raises(
                ValueError, match=f"id {wrong} is outside the vocabulary: ids run from 0 to 4"
            ):
                call([0, wrong])
