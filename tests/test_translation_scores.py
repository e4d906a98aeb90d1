"BLEU of ids and of strings against sacrebleu, on random and on adversarial corpora."

import copy
import pickle
import subprocess
import sys
from itertools import zip_longest

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from llmlab.bleu_statistics import closest_lengths, pack_texts, rank_in_rows, statistics_of_ids
from llmlab.metrics import bootstrap_interval, paired_test
from llmlab.translation_scores import (
    SMOOTHING,
    bleu,
    bleu_statistics,
    bleu_value,
    brevity_penalty,
    chrf,
    token_bleu,
)

TEXTS = st.lists(st.integers(0, 5), max_size=9)
PAIRS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=6)
LINE = st.text(max_size=30)
OPTIONS = st.tuples(st.sampled_from(sorted(SMOOTHING)), st.none() | st.floats(0.01, 3), st.booleans())


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.long)


def words(ids) -> str:
    return " ".join(f"w{i}" for i in ids)


def theirs(hyps, refs, smooth="exp", value=None, effective=False):
    "sacrebleu on the same ids, written as words."
    metric = BLEU(
        tokenize="none", smooth_method=smooth, smooth_value=value, effective_order=effective, force=True
    )
    streams = [*zip_longest(*([words(ref) for ref in several] for several in refs))]
    return metric.corpus_score([words(hyp) for hyp in hyps], streams).score


@given(PAIRS, OPTIONS)
@settings(deadline=None, max_examples=300)
@example([([], [[]])], ("exp", None, False))
@example([([], [[1, 2]]), ([1], [[]])], ("add-k", None, True))
@example([([1, 2, 3], [[1, 2, 3]])], ("add-k", None, False))
@example([([1] * 7, [[1, 2, 3, 4, 1, 5], [1, 3]])], ("floor", None, False))
@example([([1, 2, 3, 4], [[1, 2, 3], [1, 2, 3, 4, 5]])], ("none", None, False))
@example([([5], [[5]])], ("none", None, True))
def test_token_bleu_is_sacrebleus(pairs, options):
    hyps, refs = map(list, zip(*pairs, strict=True))
    assert token_bleu(hyps, refs, *options) == pytest.approx(theirs(hyps, refs, *options), abs=1e-6)


@given(PAIRS)
@settings(deadline=None, max_examples=200)
@example([([1] * 7, [[1, 2, 3, 4, 1, 5], [1, 3]])])
@example([([1, 2], [[1], [1, 2, 3]]), ([], [[]])])
def test_the_fast_statistics_are_the_lessons(pairs):
    hyps, refs = map(list, zip(*pairs, strict=True))
    wanted = [bleu_statistics(hyp, some) for hyp, some in pairs]
    assert statistics_of_ids(hyps, refs, -100).tolist() == wanted


@given(PAIRS, OPTIONS)
@settings(deadline=None, max_examples=100)
def test_each_sentence_is_sacrebleus(pairs, options):
    hyps, refs = map(list, zip(*pairs, strict=True))
    each = bleu_value(token_bleu(hyps, refs).rows, *options)
    wanted = [theirs([hyp], [several], *options) for hyp, several in pairs]
    np.testing.assert_allclose(each, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "n, longest, vocabulary, places",
    [
        (3000, 40, 50, 1),
        (400, 60, 9, 3),
        (30, 700, 2, 2),
        (1, 5000, 30, 1),
        (2, 50_000, 3000, 1),
    ],
)
def test_corpora_of_any_size(n, longest, vocabulary, places):
    "Many pairs in many batches; texts of one word beside long ones; ranks beyond 32 bits."
    draw = np.random.default_rng(n)
    text = lambda: draw.integers(vocabulary, size=draw.integers(longest) + 1).tolist()  # noqa: E731
    refs = [[text() for _ in range(places)] for _ in range(n)]
    typo = lambda i: i if draw.random() < 0.8 else int(draw.integers(vocabulary))  # noqa: E731
    hyps = [[typo(i) for i in several[-1][:-1]] for several in refs]
    assert token_bleu(hyps, refs) == pytest.approx(theirs(hyps, refs), abs=1e-6)


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_padding_is_never_scored(pairs):
    "Left, right or scattered, as one rectangle or as a list of rows."
    hyps, refs = [hyp for hyp, _ in pairs], [several[0] for _, several in pairs]
    right = torch.full((len(pairs), 12), 99)
    left, gaps, target = right.clone(), right.clone(), right.clone()
    for i, (hyp, ref) in enumerate(zip(hyps, refs, strict=True)):
        right[i, : len(hyp)] = left[i, 12 - len(hyp) :] = gaps[i, : len(hyp)] = torch.tensor(hyp)
        target[i, : len(ref)] = torch.tensor(ref)
    gaps = torch.stack([gaps, torch.full_like(gaps, 99)], 2).flatten(1)
    for padded in (right, left, gaps, list(right), right.to(torch.int32)):
        assert token_bleu(padded, target, pad=99) == token_bleu(hyps, refs)


def test_a_missing_reference_in_a_rectangle_is_none():
    refs = torch.tensor([[[1, 2, 3, 4, -100], [-100] * 5], [[5, 6, 7, 8, 9], [5, 6, 7, 8, -100]]])
    lists = [[[1, 2, 3, 4]], [[5, 6, 7, 8, 9], [5, 6, 7, 8]]]
    hyps = [[1], [5, 6, 7, 8, 8]]  # one token is closer to none than to four
    assert token_bleu(hyps, refs) == token_bleu(hyps, lists) == pytest.approx(theirs(hyps, lists), abs=1e-6)


@given(
    st.lists(st.tuples(LINE, st.lists(LINE, min_size=1, max_size=2)), min_size=1, max_size=4),
    st.sampled_from(["13a", "intl", "zh", "char", "none"]),
    st.sampled_from(sorted(SMOOTHING)),
)
@settings(deadline=None, max_examples=100)
@example([("猫坐在垫子上面。", ["猫坐在垫子上。"])], "zh", "exp")
def test_bleu_is_sacrebleu_and_its_rows_agree(pairs, tokenize, smooth):
    hyps, refs = map(list, zip(*pairs, strict=True))
    metric = BLEU(tokenize=tokenize, smooth_method=smooth)
    wanted, ours = metric.corpus_score(hyps, [*zip_longest(*refs)]), bleu(hyps, refs, tokenize, smooth)
    assert ours == wanted.score and ours.recipe["signature"] == str(metric.get_signature())
    assert ours.total(ours.rows.sum(0)) == pytest.approx(ours, abs=1e-6)
    added = np.array([0, 1, 1, 1]) * (
        smooth == "add-k" and ours.rows[:, 2].any()
    )  # sacrebleu's counts hold them
    assert (ours.rows[:, 2:6].sum(0) + added).tolist() == wanted.counts


def test_pencil():
    "Papineni et al. 2002, section 2.1: 'the' seven times has a clipped precision of 2/7."
    rows = token_bleu([[0] * 7], [[[0, 1, 2, 3, 0, 4], [5, 2, 6, 1, 3, 0, 4]]]).rows[0]
    assert rows.tolist() == [7, 7, 2, 0, 0, 0, 7, 6, 5, 4]
    assert brevity_penalty(9, 10) == pytest.approx(np.exp(1 - 10 / 9)) and brevity_penalty(11, 10) == 1
    assert brevity_penalty(0, 3) == 0


@given(st.lists(st.lists(st.integers(-1, 6), min_size=5, max_size=5), min_size=1, max_size=4))
@settings(deadline=None)
def test_ranks_keep_equality_and_order(rows):
    for row, got in zip(rows, rank_in_rows(torch.tensor(rows).clamp(min=-1)).tolist(), strict=True):
        for a, x in zip(row, got, strict=True):
            assert (a < 0) == (x < 0)
            others = [(b, y) for b, y in zip(row, got, strict=True) if min(a, b) >= 0]
            assert all((a == b) == (x == y) and (a < b) == (x < y) for b, y in others)


def test_closest_length_and_packing():
    assert closest_lengths(
        torch.tensor([[5], [5], [0]]), torch.tensor([[3, 7], [9, 6], [4, -1]])
    ).tolist() == [
        [3],
        [6],
        [4],
    ]
    flat, start, length = pack_texts([[[1, 2], []], [[3]]], -100, "cpu")
    assert flat.tolist() == [1, 2, 3, -1] and length.tolist() == [[2, 0], [1, -1]] and start[1, 0] == 2


def test_defined_values():
    assert token_bleu([[]], [[1, 2]]) == 0 and token_bleu([[1]], [[]]) == 0 and token_bleu([[]], [[]]) == 0
    assert token_bleu(zeros(2, 0), zeros(2, 3)) == 0
    assert bleu([""], ["a b"]) == 0 and bleu(["a b"], [""]) == 0 and bleu(["a"], ["b"]) == 0
    assert token_bleu([[1, 2, 3, 4]], [[1, 2, 3, 4]]) == pytest.approx(100)


def test_recipe_travels():
    score = token_bleu([[1, 2, 3, 4]], [[1, 2, 3, 5]], "floor")
    for part in (
        "BLEU",
        "smooth=floor",
        "smooth_value=0.1",
        "effective_order=False",
        "segments=1",
        "tokenize=ids",
    ):
        assert part in repr(score)
    for twin in (pickle.loads(pickle.dumps(score)), copy.deepcopy(score)):
        assert repr(twin) == repr(score) and twin.total(twin.rows.sum(0)) == score
    assert "nrefs:var" in repr(bleu(["a b", "c d"], [["a b"], ["c d", "c"]]))


def systems(n=200):
    draw = np.random.default_rng(0)
    refs = [draw.integers(20, size=12).tolist() for _ in range(n)]
    noisy = lambda share: [[i if draw.random() > share else 99 for i in ref] for ref in refs]  # noqa: E731
    return refs, noisy(0.2), noisy(0.23)


def test_interval_and_test_agree_with_sacrebleus(monkeypatch):
    "The same statistics, another generator: they agree up to the noise of 1,000 draws."
    from sacrebleu.significance import PairedTest

    refs, a, b = systems()
    strings = [*map(words, a)], [*map(words, b)], [*map(words, refs)]
    metric = BLEU(tokenize="none", force=True)
    wanted = metric.corpus_score(strings[0], [strings[2]], n_bootstrap=1000)
    got = bootstrap_interval(bleu(strings[0], strings[2], "none"))
    assert (got.recipe["high"] - got.recipe["low"]) / 2 == pytest.approx(wanted._ci, rel=0.15)
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    for theirs_, ours in (("ar", "swap"), ("bs", "bootstrap")):
        named = [("a", strings[0]), ("b", strings[1])]
        metric = BLEU(tokenize="none", force=True, references=[strings[2]])
        _, table = PairedTest(named, {"BLEU": metric}, references=None, test_type=theirs_, n_samples=1000)()
        p = paired_test(token_bleu(a, refs), token_bleu(b, refs), ours, n=1000)
        assert p == pytest.approx(table["BLEU"][1].p_value, abs=0.06), (theirs_, table["BLEU"][1])


# ---- chrF

STRINGS = st.lists(st.tuples(LINE, st.lists(LINE, min_size=1, max_size=3)), min_size=1, max_size=5)
ORDERS = {
    "char_order": st.integers(1, 7),
    "word_order": st.integers(0, 3),
    "beta": st.sampled_from([1, 2, 3]),
}
KINDS = st.fixed_dictionaries({**ORDERS, "lowercase": st.booleans(), "whitespace": st.booleans()})


@given(STRINGS, KINDS)
@settings(deadline=None, max_examples=150)
@example([("", [""])], {})
@example([("die Katze", ["die Katzen", "der Hund"]), ("猫坐", ["猫"])], {"word_order": 2})
def test_chrf_is_sacrebleus_and_its_rows_agree(pairs, how):
    hyps, refs = map(list, zip(*pairs, strict=True))
    metric = CHRF(**how)
    score = chrf(hyps, refs, **how)
    wanted = metric.corpus_score(hyps, [*zip_longest(*refs)])
    assert score == wanted.score and score.name == wanted.name and str(metric.get_signature()) in repr(score)
    assert score.total(score.rows.sum(0)) == pytest.approx(score, abs=1e-9)
    each = [metric.sentence_score(hyp, some).score for hyp, some in pairs]
    np.testing.assert_allclose(score.total(score.rows), each, atol=1e-9)


def test_chrf_with_a_pencil():
    "Orders 1 and 2 of 'abcd' against 'abce': precision and recall are 3/4 and 2/3, so beta changes nothing."
    assert chrf(["abcd"], ["abce"], char_order=2) == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)
    assert chrf(["ab"], ["abcd"], char_order=1) == pytest.approx(100 * 5 * 1 * 0.5 / (4 * 1 + 0.5))
    assert chrf(["a b"], ["a b"], word_order=2).name == "chrF2++"


def test_chrf_has_an_interval_and_a_paired_test():
    refs = [f"die Katze {i} sitzt auf der Matte" for i in range(40)]
    good, bad = [ref.replace("Katze", "Katzen") for ref in refs], [ref[::2] for ref in refs]
    a, b = chrf(good, refs), chrf(bad, refs)
    low, high = bootstrap_interval(a).recipe["low"], bootstrap_interval(a).recipe["high"]
    assert low <= a <= high and paired_test(a, b) < 0.01


# ---- errors and the module


def test_sacrebleu_comes_with_the_first_score():
    seen = "print('sacrebleu' in sys.modules)"
    code = f"import sys; {seen}; from llmlab import bleu; {seen}; bleu(['a'], ['a']); {seen}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: bleu([], []), "0 hypotheses, 0 references"),
        (lambda: bleu(["a"], ["a", "b"]), "1 hypotheses, 2 references.*zip"),
        (lambda: bleu("a b", ["a b"]), "one string is given"),
        (lambda: bleu(["a", None], ["a", "b"]), "pair 1 is None"),
        (lambda: bleu(["a"], [[]]), r"pair 0 is 'a', \[\]"),
        (lambda: bleu(["a"], ["a"], "14a"), "no tokenizer '14a': take one of .*13a"),
        (lambda: bleu(["a"], ["a"], smooth="add"), "smooth='add': expected one of none, floor, add-k, exp"),
        (lambda: chrf([], []), "0 hypotheses, 0 references"),
        (lambda: chrf("a", ["a"]), "one string is given"),
        (lambda: chrf(["a"], [["a", None]]), "pair 0 is 'a'"),
        (lambda: chrf(["a"], ["a"], char_order=0), "char_order=0: expected a whole number of at least 1"),
        (lambda: chrf(["a"], ["a"], char_order=6.0), "char_order=6.0: expected a whole number"),
        (lambda: chrf(["a"], ["a"], word_order=-1), "word_order=-1: expected a whole number of at least 0"),
        (lambda: chrf(["a"], ["a"], word_order=True), "word_order=True: expected a whole number"),
        (lambda: chrf(["a"], ["a"], beta=0), "beta=0: expected a finite number above 0"),
        (lambda: chrf(["a"], ["a"], beta=float("nan")), "beta=nan: expected a finite number above 0"),
        (lambda: token_bleu([], []), "0 hypotheses"),
        (lambda: token_bleu([[1]], [[1], [2]]), "1 hypotheses, 2 references"),
        (lambda: token_bleu([1, 2], [1, 2]), "one text is given: put it into a list"),
        (lambda: token_bleu([[[1], [2]]], [[1]]), "2 texts for one hypothesis"),
        (lambda: token_bleu(zeros(1, 2, 3), zeros(1, 3)), "2 texts for one hypothesis"),
        (lambda: token_bleu(zeros(2, 3), zeros(3, 3)), "2 hypotheses, 3"),
        (lambda: token_bleu([["a"]], [["a"]]), "ids are strings"),
        (lambda: token_bleu(["a b"], ["a b"]), "ids are strings: use bleu"),
        (lambda: token_bleu([[1.5]], [[1]]), "ids are torch.float32: give integers"),
        (lambda: token_bleu([[1, 1.5]], [[1]]), "ids are torch.float32: give integers"),
        (lambda: token_bleu(torch.ones(1, 3), torch.ones(1, 3)), "ids are torch.float32"),
        (
            lambda: token_bleu(torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 3).long()),
            "ids are torch.bool",
        ),
        (lambda: token_bleu([[1, -1]], [[1]]), "an id is -1: if it fills rows up, say pad=-1"),
        (
            lambda: token_bleu([[1]], [[1]], smooth_value=-1),
            "smooth_value=-1: expected a finite number of at least 0",
        ),
        (lambda: token_bleu([[1]], [[1]], smooth_value=float("nan")), "smooth_value=nan: expected"),
        (lambda: token_bleu([[1], [2]], zeros(2, 0, 3)), r"shape \(2, 0, 3\)"),
        (lambda: token_bleu(zeros(1, 2).to("meta"), zeros(1, 2)), "ids on cpu and meta"),
        (lambda: token_bleu(zeros(3), zeros(3)), r"shape \(3,\) and \(3,\): give \[segments, ids\]"),
    ],
)
def test_errors(unchecked, call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_on_a_gpu():
    refs, hyps, _ = systems()
    wanted = token_bleu(hyps, refs)
    assert token_bleu(torch.tensor(hyps).cuda(), torch.tensor(refs).cuda()) == pytest.approx(wanted, abs=1e-9)
