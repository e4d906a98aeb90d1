"ROUGE against rouge-score, answers against the SQuAD script, pass@k against counting."

import collections
import itertools
import math
import pickle
import re
import string

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from llmlab.metrics import bootstrap_interval, paired_test
from llmlab.overlap import character_words, exact_match, lcs_length, pass_at_k, rouge, squad_words, token_f1
from llmlab.rouge_lines import stemmed_words

WORDS = st.lists(
    st.sampled_from(["a", "The", "cat", "cat.", "naïve", "7", "猫", "-", "x_y"]), max_size=8
).map(" ".join)
TEXT = WORDS | st.text(max_size=25)
PAIRS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=4)


# The functions of SQuAD's evaluate-v2.0.py (Rajpurkar et al. 2018), as published.
def normalize_answer(s):
    def remove_articles(text):
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def get_tokens(s):
    return normalize_answer(s).split() if s else []


def gold_answers(some):
    return [text for text in some if normalize_answer(text)] or [""]


def compute_f1(a_gold, a_pred):
    gold_toks, pred_toks = get_tokens(a_gold), get_tokens(a_pred)
    num_same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(pred_toks), 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


@given(PAIRS)
@settings(deadline=None, max_examples=200)
@example([("", [""])])
@example([("the the the", ["the", "the the"]), ("a", ["b"])])
@example([("Straße", ["strasse"]), ("İ", ["i"])])
def test_rouge_is_rouge_scores(pairs):
    hyps, refs = map(list, zip(*pairs, strict=True))
    for kind in (1, 2, "L"):
        name = f"rouge{kind}"
        theirs = [RougeScorer([name]).score_multi(some, hyp)[name] for hyp, some in pairs]
        for part in ("precision", "recall", "f1"):
            wanted = np.mean([getattr(score, part.replace("f1", "fmeasure")) for score in theirs])
            assert rouge(hyps, refs, kind, part) == pytest.approx(wanted, abs=1e-9), (kind, part)


@given(PAIRS)
@settings(deadline=None, max_examples=200)
@example([("The", ["a"]), ("", ["the"]), ("an answer", [""])])
def test_answers_are_the_squad_scripts(pairs):
    hyps, refs = map(list, zip(*pairs, strict=True))
    exact = [
        max(normalize_answer(hyp) == normalize_answer(ref) for ref in gold_answers(some))
        for hyp, some in pairs
    ]
    share = [max(compute_f1(ref, hyp) for ref in gold_answers(some)) for hyp, some in pairs]
    assert exact_match(hyps, refs) == pytest.approx(np.mean(exact))
    assert token_f1(hyps, refs) == pytest.approx(np.mean(share), abs=1e-12)


@given(PAIRS)
@settings(deadline=None, max_examples=200)
@example([("The", ["a"]), ("", ["the"]), ("an answer", [""])])
def test_the_older_script_keeps_all_references_and_gives_no_f1_for_nothing(pairs):
    hyps, refs = map(list, zip(*pairs, strict=True))
    exact = [max(normalize_answer(hyp) == normalize_answer(ref) for ref in some) for hyp, some in pairs]
    share = [max(compute_f1(ref, hyp) * bool(normalize_answer(hyp)) for ref in some) for hyp, some in pairs]
    assert exact_match(hyps, refs, rule="1.1") == pytest.approx(np.mean(exact))
    assert token_f1(hyps, refs, rule="1.1") == pytest.approx(np.mean(share), abs=1e-12)


# What evaluate-v1.1.py says (run once beside this table), as shares of 1.
OLDER = [
    ("the Denver Broncos!", ["Denver Broncos"], 1, 1),
    ("An apple a day", ["apple day"], 1, 1),
    ("Theater", ["the ater"], 0, 0),  # an article is a word, not a beginning
    ("co-operation", ["cooperation"], 1, 1),  # punctuation vanishes, it is no gap
    ("Levi's Stadium", ["Levis stadium", "the stadium"], 1, 1),
    ("U.S.A.", ["USA", "United States of America"], 1, 1),
    ("the 4th of July, 1776", ["July 4, 1776", "4th July 1776"], 0, 6 / 7),  # the best reference counts
    ("das A-Team", ["ateam das"], 0, 1),  # F1 knows no order
    ("1,000", ["1000"], 1, 1),
    ("“Paris”", ["Paris"], 0, 0),  # only ASCII punctuation vanishes
    ("ZÜRICH, ", ["zürich"], 1, 1),
    ("naïve", ["naive"], 0, 0),
    ("à la carte", ["la carte"], 0, 0.8),
    ("a\u0300 la carte", ["\u0300 la carte"], 1, 1),  # a letter before a combining mark is an article there
    ("猫坐", ["猫"], 0, 0),
    ("the", ["a"], 1, 0),  # nothing is left on both sides: equal, but no word is shared
    ("The", ["the", "cat"], 1, 0),
    ("", [""], 1, 0),
]


@pytest.mark.parametrize(("answer", "golds", "exact", "share"), OLDER)
def test_worked_answers_of_the_older_script(answer, golds, exact, share):
    assert exact_match([answer], [golds], rule="1.1") == exact
    assert token_f1([answer], [golds], rule="1.1") == pytest.approx(share, abs=1e-12)


def test_the_two_scripts_differ_only_where_no_word_is_left():
    newer = [(exact_match([answer], [golds]), token_f1([answer], [golds])) for answer, golds, _, _ in OLDER]
    differ = [
        row[0] for row, found in zip(OLDER, newer, strict=True) if found != (row[2], pytest.approx(row[3]))
    ]
    assert differ == ["the", "The", ""]
    assert exact_match(["The"], [["the", "cat"]]) == 0 == token_f1(["The"], [["the", "cat"]]), (
        "2.0 drops empty references"
    )
    assert token_f1(["the"], [["a"]]) == 1 == token_f1([""], [""])
    assert "squad=1.1" in repr(token_f1(["a b"], ["b"], rule="1.1")) and "squad=2.0" in repr(
        exact_match(["a b"], ["b"])
    )


@pytest.mark.parametrize(
    "answer, golds, exact, share",
    [
        (
            "Denver Broncos",
            ["Denver Broncos", "Denver Broncos", "Denver Broncos"],
            1,
            1,
        ),  # SQuAD 1.1 dev, first question
        ("the Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("Santa Clara", ["Santa Clara, California", "Levi's Stadium"], 0, 0.8),
        ("Levis Stadium in Santa Clara", ["Levi's Stadium"], 0, 4 / 7),
        ("1976", ["1976"], 1, 1),
        ("", [""], 1, 1),  # SQuAD 2.0: no answer, and none given
        ("France", [""], 0, 0),
        ("", ["France"], 0, 0),
    ],
)
def test_worked_answers(answer, golds, exact, share):
    assert exact_match([answer], [golds]) == exact and token_f1([answer], [golds]) == pytest.approx(share)


def test_normalisation():
    assert squad_words("The  Eiffel-Tower, an A. theatre!") == ["eiffeltower", "theatre"]
    assert character_words("AI改变世界。 It's 42％ カナ") == [
        "ai",
        "改",
        "变",
        "世",
        "界",
        "it",
        "s",
        "42",
        "カ",
        "ナ",
    ]
    assert character_words("नमस्ते, Straße") == ["नमस्ते", "straße"], "a vowel sign belongs to its word"
    assert character_words("cafe\u0301") == character_words("café") == ["café"]
    assert character_words("น้ำดี") == ["น้ำ", "ดี"]
    assert exact_match(["👍"], ["👎"], character_words) == 0 == token_f1(["👍"], ["👎"], character_words)
    assert token_f1(["5 €"], ["5 $"], character_words) == 0.5


def test_chinese_by_characters():
    "Seven characters against five that they contain: 2 * 5 / (7 + 5)."
    assert token_f1(["一八八九年七月"], ["一八八九年"]) == 0
    assert token_f1(["一八八九年七月"], ["一八八九年"], character_words) == pytest.approx(10 / 12)
    assert exact_match(["北京。"], ["北京"], character_words) == 1 and exact_match(["北京。"], ["北京"]) == 0
    assert rouge(["猫坐在垫子上"], ["猫在垫子上坐"], words=character_words) == pytest.approx(5 / 6)
    assert rouge(["猫"], ["猫"]) == 0


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
@settings(deadline=None)
def test_lcs_by_brute_force(a, b):
    parts = [{c for n in range(len(x) + 1) for c in itertools.combinations(x, n)} for x in (a, b)]
    assert lcs_length(a, b) == max(map(len, parts[0] & parts[1]))


def test_pencil():
    "Lin 2004, section 3.1: ROUGE-L tells who killed whom, 3/4 against 2/4; ROUGE-2 gives both the same."
    true = ["police killed the gunman"]
    assert (
        rouge(["police kill the gunman"], true) == 3 / 4 and rouge(["the gunman kill police"], true) == 2 / 4
    )
    pairs = [rouge([told], true, 2) for told in ("police kill the gunman", "the gunman kill police")]
    assert pairs == pytest.approx([1 / 3, 1 / 3])


@given(st.integers(1, 30), st.data())
@settings(deadline=None)
def test_pass_at_k_by_counting(n, data):
    c, k = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=5)), data.draw(st.integers(1, n))
    wanted = np.mean([1 - math.comb(n - right, k) / math.comb(n, k) for right in c])
    assert pass_at_k(c, n, k) == pass_at_k(np.array(c), [n] * len(c), k) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("p, n, k", [(0.1, 10, 5), (0.5, 6, 6), (0.9, 4, 1)])
def test_pass_at_k_has_no_bias(p, n, k):
    "Its expectation over all outcomes is the true chance; that of the short cut is lower."
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    expected = sum(w * float(pass_at_k([c], n, k)) for c, w in enumerate(weights))
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-9)
    assert k == 1 or sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights)) < expected - 1e-4


def test_pass_at_k_survives_many_samples():
    assert (
        0 < pass_at_k([1], 100_000, 10) < 1.1e-4 and pass_at_k([0], 5, 5) == 0 and pass_at_k([3], 5, 3) == 1
    )


def test_all_of_them_can_be_resampled():
    hyps, refs = ["a b c", "x", "the cat", "q"], ["a b d", "x", "a cat", "r"]
    other = ["a b d", "y", "the cat", "r"]
    for score in (rouge, exact_match, token_f1):
        a, b = score(hyps, refs), score(other, refs)
        found = bootstrap_interval(a)
        assert found == a and found.recipe["low"] <= a <= found.recipe["high"] and 0 < paired_test(a, b) <= 1
        assert repr(pickle.loads(pickle.dumps(a))) == repr(a)
    assert bootstrap_interval(pass_at_k([0, 5, 3], 5, 2)).recipe["units"] == 3


def test_recipes():
    assert "ROUGE-2 recall" in repr(rouge(["a"], ["a"], 2, "recall"))
    assert "words=rouge_words" in repr(rouge(["a"], ["a"]))
    assert "samples=4/5" in repr(pass_at_k([1, 2], [5, 4], 2)) and "tasks=2" in repr(
        pass_at_k([1, 2], [5, 4], 2)
    )


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: rouge([], []), "0 hypotheses"),
        (lambda: token_f1(["a"], ["a", "b"]), "1 hypotheses, 2 references"),
        (lambda: exact_match("a", ["a"]), "one string is given"),
        (
            lambda: exact_match(["a"], ["a"], rule="1"),
            "rule='1': expected one of 2.0, 1.1",
        ),
        (lambda: exact_match(["a"], [[]]), "pair 0"),
        (lambda: token_f1([None], ["a"]), "pair 0 is None"),
        (lambda: rouge(["a"], ["a"], 0), "kind 0: expected 'L', 'Lsum', or a whole number of at least 1"),
        (lambda: rouge(["a"], ["a"], "l"), "kind 'l'"),
        (lambda: rouge(["a"], ["a"], 1, "F"), "part='F': expected one of f1, precision, recall"),
        (lambda: pass_at_k([1], 5, 6), "k is 6, but a task has 5 samples"),
        (lambda: pass_at_k([1, 1], [9, 3], 5), "k is 5, but a task has 3 samples"),
        (lambda: pass_at_k([1], 5, 0), "k=0: expected a whole number of at least 1"),
        (lambda: pass_at_k([1], 5, 1.5), "k=1.5: expected a whole number of at least 1"),
        (lambda: pass_at_k([1], 5, True), "k=True: expected a whole number"),
        (lambda: pass_at_k([6], 5, 1), "6 to 6 passed of 5 to 5"),
        (lambda: pass_at_k([-1], 5, 1), "-1 to -1 passed"),
        (lambda: pass_at_k([], 5, 1), "0 counts"),
        (lambda: pass_at_k([1, 2], [5, 5, 5], 1), "2 counts for 3 tasks"),
        (lambda: pass_at_k([0.5], 5, 1), "counts are float64"),
        (lambda: pass_at_k([float("nan")], 5, 1), "counts are float64"),
    ],
)
def test_errors(unchecked, call, text):
    with pytest.raises(ValueError, match=text):
        call()


# --- ROUGE-Lsum and stems -----------------------------------------------------------------------------------

LINES = st.lists(
    st.lists(st.sampled_from("the cats cat sat running runs on a mat".split()), max_size=6), max_size=4
)


@given(LINES, LINES)
@example([["cats", "sat"], []], [[], ["the", "cat"]])
def test_rouge_of_lines_is_rouge_score_s(hyp, ref):
    hyp, ref = ("\n".join(map(" ".join, lines)) for lines in (hyp, ref))
    for words, stem in ((None, False), (stemmed_words, True)):
        theirs = RougeScorer(["rougeLsum", "rougeL", "rouge1", "rouge2"], use_stemmer=stem).score(ref, hyp)
        options = {"words": words} if words else {}
        for kind, name in (("Lsum", "rougeLsum"), ("L", "rougeL"), (1, "rouge1"), (2, "rouge2")):
            ours = [
                float(rouge([hyp], [ref], kind, part, **options)) for part in ("precision", "recall", "f1")
            ]
            assert ours == pytest.approx([theirs[name].precision, theirs[name].recall, theirs[name].fmeasure])


def test_lines_in_another_order_cost_nothing_in_lsum():
    hyp = "The cats sat on the mats.\nThe dogs were running fast."
    ref = "The dog ran fast.\nThe cat is sitting on the mat."
    assert float(rouge([hyp], [ref], "Lsum")) == pytest.approx(
        5 / 11
    )  # the, on, the | the, fast: 5 of 11 and of 11
    assert float(rouge([hyp], [ref], "Lsum")) > float(rouge([hyp], [ref], "L"))
    with pytest.raises(ValueError, match="expected 'L', 'Lsum', or a whole number"):
        rouge([hyp], [ref], "lsum")
