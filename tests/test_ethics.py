"Measures of bias and memory against pencil, brute force and published examples; controls; what each refuses."

import json
import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmlab import ethics
from llmlab.checkpoints import shipped_path
from llmlab.ethics import (
    benjamini_hochberg,
    counterfactual_augmentation,
    counterfactual_bias,
    crows_pairs_score,
    exposure,
    holm,
    preference_margin,
    shared_tokens,
    text_logprobs,
    weat,
    with_interval,
)
from llmlab.figure_data import bias_view_data
from llmlab.loading import load_pretrained
from llmlab.masked import MaskedLM, MaskTokenizer, gap_logprobs, pseudo_logprobs
from llmlab.metrics import token_logprobs
from llmlab.sentence_pairs import HubTokenizer, read_sentence_pairs
from llmlab.sheets import fill_sheet, sheet_questions, write_sheet
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder

TEMPLATES = ["{group} is a {word}.", "{group}是{word}。"]
A, B = ["Ada", "Bea", "Cid"], ["Ida", "Jon", "Kai"]
P, Q = ["baker", "tailor"], ["doctor", "judge"]
TOKENIZER = Tokenizer.train("Ada is a baker. Ida is a doctor. 阿甲是厨师。" * 3, 300)


def leaning(strength, rare=0.0):
    "Log-probabilities by hand: group A likes P by `strength`, Ada is rare, every text costs its length."

    def score(texts):
        at = [(any(a in t for a in A), any(p in t for p in P)) for t in texts]
        return [
            strength * (a and p) - rare * ("Ada" in t) - 0.1 * len(t)
            for t, (a, p) in zip(texts, at, strict=True)
        ]

    return score


def decoder(seed=0):
    torch.manual_seed(seed)
    return Decoder(Config(TOKENIZER.vocab_size, context=40, layers=1, heads=2, d_model=16))


def bert(seed=0):
    torch.manual_seed(seed)
    tokenizer = MaskTokenizer(TOKENIZER)
    return MaskedLM(Config(tokenizer.vocab_size, context=40, layers=1, heads=2, d_model=16)).eval(), tokenizer


# --- templates ----------------------------------------------------------------------------------------------


def test_counterfactual_pencil():
    def score(texts):
        known = {"a likes x": -1, "a likes y": -3, "b likes x": -2, "b likes y": -2.5}
        return [known[t] for t in texts]

    found = counterfactual_bias(score, ["{group} likes {word}"], (["a"], ["b"]), (["x"], ["y"]))
    assert found == (-1 + 3) - (-2 + 2.5) == 1.5 and found.unit == "nats"


@given(st.floats(-5, 5), st.floats(0, 20))
def test_a_rare_name_changes_nothing_and_the_lean_is_found(strength, rare):
    found = counterfactual_bias(leaning(strength, rare), TEMPLATES, (A, B), (P, Q))
    assert found == pytest.approx(strength, abs=1e-9)
    assert counterfactual_bias(leaning(strength, rare), TEMPLATES, (B, A), (P, Q)) == pytest.approx(
        -strength, abs=1e-9
    )
    assert counterfactual_bias(leaning(strength, rare), TEMPLATES, (A, B), (Q, P)) == pytest.approx(
        -strength, abs=1e-9
    )


def test_rows_are_pairs_and_units_hold_the_templates_together():
    def score(texts):
        return [
            3.0 * ("Ada" in t and any(p in t for p in P)) + 0.5 * (t.startswith("B") and "。" in t)
            for t in texts
        ]

    found = counterfactual_bias(score, TEMPLATES, (A, B), (P, Q))
    assert found.rows[:, 0].tolist() == [3, 0, 0, 3, 0, 0] and found.units == [0, 1, 2, 0, 1, 2]
    certain = with_interval(found)
    assert certain.recipe["units"] == 3 and certain.points == [3, 0, 0] and float(certain) == 1
    assert certain.recipe["low"] == 0 and certain.recipe["high"] == 3


def test_slots_may_stand_in_any_order():
    found = counterfactual_bias(leaning(2.0), ["A {word} is {group}."], (A, B), (P, Q))
    assert found == pytest.approx(2)


@pytest.mark.parametrize(
    "templates, groups, words, said",
    [
        ([], (A, B), (P, Q), r"templates=\[\]: give a list of at least one text"),
        ("{group} is {word}", (A, B), (P, Q), "templates='{group} is {word}': give a list"),
        (
            ["She is a {word}."],
            (A, B),
            (P, Q),
            r"template 'She is a \{word\}.': write \{group\} into it, exactly once",
        ),
        (["{group} is."], (A, B), (P, Q), r"write \{word\} into it"),
        (["He."], (A, B), (P, Q), r"write \{group\} and \{word\} into it"),
        (["{group} {group} {word}"], (A, B), (P, Q), r"write \{group\} into it, exactly once"),
        (
            TEMPLATES,
            (A, B[:2]),
            (P, Q),
            "groups of 3 and 2: they are compared in pairs, so give as many on each side",
        ),
        (TEMPLATES, ([], []), (P, Q), "groups of 0 and 0"),
        (TEMPLATES, (A, B), (P, Q[:1]), "words of 2 and 1: they are compared in pairs"),
        (
            TEMPLATES,
            (A, ["Ida", "Ada", "Kai"]),
            (P, Q),
            "Ada on both sides of the groups: swapping it changes nothing",
        ),
    ],
)
def test_what_cannot_be_swapped(templates, groups, words, said):
    with pytest.raises(ValueError, match=said):
        counterfactual_bias(leaning(1.0), templates, groups, words)


# --- how sure -----------------------------------------------------------------------------------------------


def many(values):
    "A score whose pairs differ by these numbers."
    each = iter(values)
    return counterfactual_bias(
        lambda texts: [v for _ in values for v in (next(each), 0)] + [0] * (2 * len(values)),
        ["{group}{word}"],
        ([f"a{i}" for i in range(len(values))], [f"b{i}" for i in range(len(values))]),
        (["x"], ["y"]),
    )


def test_p_is_that_of_all_signs():
    values = [1.0, 2.0, 3.0, 4.0, -0.5]
    flips = [
        abs(sum(v * s for v, s in zip(values, signs, strict=True))) for signs in product((1, -1), repeat=5)
    ]
    exact = np.mean(np.array(flips) >= sum(values) - 1e-9)
    found = with_interval(many(values))
    assert found.recipe["p"] == pytest.approx(exact, abs=0.015) and exact == 4 / 32
    assert found.recipe["low"] < 1.9 < found.recipe["high"]


def test_no_difference_is_no_alarm_and_more_pairs_are_surer():
    few = [1.5, -0.5, 0.8, 0.2, 1.0, -0.2]
    lots = 16 * few
    width = [
        found.recipe["high"] - found.recipe["low"] for found in map(with_interval, map(many, (few, lots)))
    ]
    assert width[1] < width[0] / 2 and with_interval(many(lots)).recipe["p"] < 0.001
    assert with_interval(many([0.0, 0.0, 0.0])).recipe["p"] == 1


def test_a_control_inside_one_group_can_fail():
    "Halves of a group: 0 where all its people are treated alike, and not 0 where one half is favoured."
    alike = [f"Ada{i}" for i in range(8)]
    first, second = alike[:4], alike[4:]
    assert counterfactual_bias(leaning(3.0), TEMPLATES, (first, second), (P, Q)) == pytest.approx(0, abs=1e-9)
    other = [name.replace("Ada", "b") for name in second]
    assert counterfactual_bias(leaning(3.0), TEMPLATES, (first, other), (P, Q)) == pytest.approx(3.0)


# --- many tests ---------------------------------------------------------------------------------------------

# Benjamini and Hochberg 1995: 15 comparisons of a trial of thrombolysis (Neuhaus et al. 1992)
TRIAL = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
TRIAL += [0.324, 0.4262, 0.5719, 0.6528, 0.759, 1.0]


def test_holm_pencil():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1]) and holm([0.2]) == pytest.approx([0.2])


def test_benjamini_hochberg_pencil():
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert benjamini_hochberg([0.02, 0.5, 0.9, 0.021]) == pytest.approx([0.042, 2 / 3, 0.9, 0.042])


def test_the_example_of_the_paper():
    assert (holm(TRIAL) <= 0.05).sum() == 3 and (benjamini_hochberg(TRIAL) <= 0.05).sum() == 4
    assert benjamini_hochberg(TRIAL)[3] == pytest.approx(0.0095 * 15 / 4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_both_reject_what_their_papers_step_through(p, level):
    n, ranked = len(p), sorted(range(len(p)), key=lambda i: p[i])
    assume(
        all(
            abs(p[i] * k - level * m) > 1e-9
            for i in range(n)
            for k in range(1, n + 1)
            for m in range(1, n + 1)
        )
    )
    down = next((k for k, i in enumerate(ranked) if p[i] > level / (n - k)), n)
    up = max((k for k, i in enumerate(ranked, 1) if p[i] <= level * k / n), default=0)
    assert {i for i in range(n) if holm(p)[i] <= level} == set(ranked[:down])
    assert {i for i in range(n) if benjamini_hochberg(p)[i] <= level} == set(ranked[:up])
    assert (benjamini_hochberg(p) <= holm(p) + 1e-12).all() and (
        benjamini_hochberg(p) >= np.array(p) - 1e-12
    ).all()


@pytest.mark.parametrize("p", [[], [1.2], [-0.1, 0.5], [math.nan]])
@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
def test_what_is_no_p_value(method, p):
    with pytest.raises(ValueError, match=r"p-values .*: give at least one, each from 0 to 1"):
        method(p)


# --- WEAT ---------------------------------------------------------------------------------------------------

PENCIL = {"a": [1, 0], "b": [0, 1], "x1": [4, 3], "x2": [2, 0], "y1": [3, 4], "y2": [0, 5]}


def test_weat_pencil():
    found = weat(PENCIL, (["x1", "x2"], ["y1", "y2"]), (["a"], ["b"]))
    # s = 0.2, 1, -0.2, -1; means 0.6 and -0.6; variance 2.08 / 3 around 0
    assert found == pytest.approx(1.2 / math.sqrt(2.08 / 3))
    assert found.recipe["p"] == pytest.approx(1 / 6) and found.recipe["exact"]
    other = weat(PENCIL, (["y1", "y2"], ["x1", "x2"]), (["a"], ["b"]))
    assert other == pytest.approx(-found) and other.recipe["p"] == 1


def brute(vectors, x, y, a, b):
    "Caliskan et al. 2017, written again with loops."

    def cos(u, v):
        u, v = np.array(vectors[u], float), np.array(vectors[v], float)
        return u @ v / math.sqrt(u @ u) / math.sqrt(v @ v)

    s = {w: np.mean([cos(w, v) for v in a]) - np.mean([cos(w, v) for v in b]) for w in [*x, *y]}
    real = sum(s[w] for w in x)
    chance = [sum(s[w] for w in half) >= real - 1e-12 for half in combinations(s, len(x))]
    return (np.mean([s[w] for w in x]) - np.mean([s[w] for w in y])) / np.std(
        list(s.values()), ddof=1
    ), np.mean(chance)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_weat_equals_loops(seed, n):
    names = [f"{side}{i}" for side in "xyab" for i in range(n)]
    vectors = dict(zip(names, np.random.default_rng(seed).normal(size=(4 * n, 5)), strict=True))
    x, y, a, b = (names[i * n : (i + 1) * n] for i in range(4))
    effect, p = brute(vectors, x, y, a, b[:-1])
    found = weat(vectors, (x, y), (a, b[:-1]))
    assert found == pytest.approx(effect) and found.recipe["p"] == pytest.approx(p)
    drawn = weat(vectors, (x, y), (a, b[:-1]), draws=5)
    assert not drawn.recipe["exact"] and 1 / 6 <= drawn.recipe["p"] <= 1


def test_drawn_halves_come_near_to_all_halves():
    names = [f"{side}{i}" for side in "xyab" for i in range(5)]
    vectors = dict(zip(names, np.random.default_rng(4).normal(size=(20, 5)), strict=True))
    given_ = ((names[:5], names[5:10]), (names[10:15], names[15:]))
    every, some = weat(vectors, *given_).recipe["p"], weat(vectors, *given_, draws=251, seed=1).recipe["p"]
    assert every == pytest.approx(some, abs=0.1) and not weat(vectors, *given_, draws=251).recipe["exact"]


def test_the_interval_of_an_effect_holds_it():
    rng = np.random.default_rng(0)
    vectors = {f"x{i}": [1 + rng.normal(), rng.normal()] for i in range(12)} | {"a": [1, 0], "b": [0, 1]}
    vectors |= {f"y{i}": [rng.normal(), 1 + rng.normal()] for i in range(12)}
    found = weat(vectors, ([f"x{i}" for i in range(12)], [f"y{i}" for i in range(12)]), (["a"], ["b"]))
    kept = ethics.bootstrap_interval(found)
    assert kept.recipe["low"] < found < kept.recipe["high"] <= 2 and found.recipe["p"] < 0.05


@pytest.mark.parametrize(
    "targets, attributes, said",
    [
        ((["x1"], ["y11"]), (["a"], ["b"]), r"no vector for 'y11', of 7 words \(y1\): take a word of"),
        ((["x1"], ["y1"]), (["qqq"], ["b"]), r"no vector for 'qqq', of 7 words \(none is near\)"),
        ((["x1", "x2"], ["y1"]), (["a"], ["b"]), "groups of 2 and 1: they are compared in pairs"),
        (([], []), (["a"], ["b"]), "groups of 0 and 0"),
        ((["x1"], ["y1"]), ([], ["b"]), r"\[\]: give at least one word"),
        ((["x1"], ["none"]), (["a"], ["b"]), "none whose vector is all zeros, for it has no direction"),
        ((["x1"], ["y1"]), (["a"], ["a"]), "all targets are equally near to the attributes"),
    ],
)
def test_what_weat_refuses(targets, attributes, said):
    with pytest.raises(ValueError, match=said):
        weat(PENCIL | {"none": [0, 0]}, targets, attributes)


# --- pairs of sentences -------------------------------------------------------------------------------------


def test_shared_pencil():
    assert shared_tokens([5, 1, 7], [5, 2, 3, 7]) == ([0, 2], [0, 3])
    assert shared_tokens([1, 2], [3, 4]) == ([], []) and shared_tokens([1], [1]) == ([0], [0])


def test_the_margin_is_that_of_shared_tokens_alone():
    model, tokenizer = bert()
    more, less = "Ada is a baker.", "Ida is a baker."
    a, b = (tokenizer.encode(t)[1:-1] for t in (more, less))
    same = [i for i in range(len(a)) if a[i] == b[i]]
    assert len(a) == len(b) and len(same) == len(a) - 1
    apart = pseudo_logprobs(model, tokenizer, more) - pseudo_logprobs(model, tokenizer, less)
    wanted = apart[same].sum().item()
    assert preference_margin(model, tokenizer, more, less) == pytest.approx(wanted, abs=1e-5)
    assert preference_margin(model, tokenizer, less, more) == pytest.approx(-wanted, abs=1e-5)
    assert wanted != pytest.approx(apart.sum().item()), "the names' own probability must not count"


def test_shares_and_turned_pairs():
    model, tokenizer = bert()
    pairs = [(f"{a} is a {w}.", f"{b} is a {w}.") for w in P + Q for a, b in zip(A, B, strict=True)]
    found, turned = (
        crows_pairs_score(model, tokenizer, some) for some in (pairs, [pair[::-1] for pair in pairs])
    )
    assert found + turned == pytest.approx(1)
    assert found.recipe["margin"] == pytest.approx(-turned.recipe["margin"], abs=1e-5)
    assert found.recipe["p"] == turned.recipe["p"] and found.recipe["pairs"] == 12
    margins = [preference_margin(model, tokenizer, *pair) for pair in pairs]
    assert found == np.mean(np.array(margins) > 0)


@pytest.mark.parametrize(
    "pairs, said",
    [
        ([], "no pairs: give at least one"),
        ([("Ada is.", "Ada is.")], "'Ada is.' and 'Ada is.': give two texts that differ, but share tokens"),
        ([("Ada", "!")], "give two texts that differ, but share tokens"),
    ],
)
def test_what_is_no_pair(pairs, said):
    with pytest.raises(ValueError, match=said):
        crows_pairs_score(*bert(), pairs)


def test_the_readers_own_table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(",sent_more,sent_less,bias_type\n0,a b,a c,work\n1,“是”,不,home\n2,d,e,work\n", "utf-8")
    assert read_sentence_pairs(path) == {"work": [("a b", "a c"), ("d", "e")], "home": [("“是”", "不")]}


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "sent_more,less,bias_type\na,b,c\n",
            "1 rows, lacks the columns sent_less: write sent_more,sent_less,bias",
        ),
        ("a\n1\n", "lacks the columns sent_more, sent_less, bias_type"),
        ("sent_more,sent_less,bias_type\n", "0 rows, lacks the columns sent_more, sent_less, bias_type"),
        ("", "0 rows"),
        ("sent_more,sent_less,bias_type\na,b,c\na, ,c\n", "row 3: an empty cell; fill it or drop the row"),
        ("sent_more,sent_less,bias_type\na,b\n", "row 2: an empty cell"),
    ],
)
def test_a_table_that_lacks_something(tmp_path, text, said):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_sentence_pairs(path)


def test_a_tokenizer_of_the_hub_gives_the_same_numbers_as_its_library():
    model, inner = load_pretrained(shipped_path("stories-bert"))
    tokenizer, text = HubTokenizer(inner), "Tom went to the park with a cat."
    ids = inner.encode(text).ids
    wanted = []
    for at in range(1, len(ids) - 1):
        hidden = torch.tensor([[*ids[:at], inner.token_to_id("[MASK]"), *ids[at + 1 :]]])
        wanted.append(model(hidden)[0, at].log_softmax(-1)[ids[at]].item())
    assert pseudo_logprobs(model, tokenizer, text).tolist() == pytest.approx(wanted, abs=1e-4)
    assert (
        tokenizer.strings(ids)[0] == "[CLS]" and len(gap_logprobs(model, tokenizer, text)[1]) == len(ids) - 2
    )
    with pytest.raises(ValueError, match=r"nothing to hide in \['\[CLS\]', '\[SEP\]'\]"):
        pseudo_logprobs(model, tokenizer, "")


def test_unknown_words_and_models_without_a_mask_are_refused():
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers

    inner = Inner(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "cat": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    assert HubTokenizer(inner).encode("cat") == [2]
    with pytest.raises(
        ValueError, match=r"'cat zorp' holds a word that the vocabulary lacks, read as \[UNK\]"
    ):
        HubTokenizer(inner).encode("cat zorp")
    with pytest.raises(
        ValueError, match=r"this tokenizer has no \[MASK\]: pseudo-log-likelihoods need a masked model"
    ):
        HubTokenizer(Inner(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")))


# --- whole texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_texts_of_any_length_score_as_alone(batch_size):
    model, texts = decoder(), ["Ada is a baker.", "阿甲是厨师。", "", "Ida is a doctor. Ada is a baker."]
    alone = [
        token_logprobs(model, [TOKENIZER.eot, *TOKENIZER.encode(t), TOKENIZER.eot]).sum().item()
        for t in texts
    ]
    assert text_logprobs(model, TOKENIZER, texts, batch_size) == pytest.approx(alone, abs=1e-3)
    assert len(text_logprobs(model, TOKENIZER, [])) == 0


# --- augmentation -------------------------------------------------------------------------------------------


def test_twins_pencil():
    assert counterfactual_augmentation(
        ["Ada met Jon.", "It rains.", "阿甲是厨师。"], ["Ada", "Bea", "阿甲"], ["Ida", "Jon", "阿戊"]
    ) == ["Ada met Jon.", "Ida met Bea.", "It rains.", "阿甲是厨师。", "阿戊是厨师。"]
    assert counterfactual_augmentation(["Adas, McAda"], ["Ada"], ["Ida"]) == ["Adas, McAda"], (
        "whole words alone"
    )
    assert counterfactual_augmentation(["Annähern, Ann\u0308"], ["Ann"], ["Ida"]) == ["Annähern, Ann\u0308"]
    assert counterfactual_augmentation(["Ann_1 हिन्दी"], ["Ann", "हिन्द"], ["Ida", "देव"]) == ["Ann_1 हिन्दी"]
    assert counterfactual_augmentation(["阿甲"], ["阿", "阿甲"], ["小", "小乙"]) == ["阿甲", "小乙"], (
        "the longest first"
    )
    assert counterfactual_augmentation(["Anna, Ann"], ["Ann", "Anna"], ["Bo", "Bob"]) == [
        "Anna, Ann",
        "Bob, Bo",
    ]


@given(st.lists(st.sampled_from([f"{n} is a {w}." for n in A + B for w in P]), max_size=8))
def test_after_augmentation_the_groups_are_counted_alike(texts):
    found = counterfactual_augmentation(texts, A, B)
    swap = dict(zip(A + B, B + A, strict=True))
    assert sorted(found) == sorted(f"{swap[t[:3]]}{t[3:]}" for t in found) and len(found) == 2 * len(texts)


def test_groups_that_cannot_be_swapped():
    with pytest.raises(ValueError, match="groups of 3 and 1"):
        counterfactual_augmentation(["a"], A, B[:1])
    with pytest.raises(ValueError, match="Ada on both sides"):
        counterfactual_augmentation(["a"], ["Ada"], ["Ada"])


# --- exposure -----------------------------------------------------------------------------------------------


def test_exposure_pencil():
    assert exposure([-3.0, -1.0, -2.0, -4.0], 1) == 2 and exposure([-3.0, -1.0, -2.0, -4.0], 3) == 0
    assert (
        exposure([-3.0, -1.0, -2.0, -4.0], 2) == 1
        and exposure([-3.0, -1.0, -2.0, -4.0], 2).recipe["rank"] == 2
    )
    assert exposure([0.0, 0.0, 0.0, 0.0], 0) == 0, "a model that knows nothing exposes nothing"


def test_what_was_never_planted_has_the_exposure_of_chance():
    ranks = np.arange(1, 1001)
    found = [float(exposure(-ranks.astype(float), i)) for i in range(1000)]
    assert np.mean(found) == pytest.approx(1 / math.log(2), abs=0.01)


NO_SECRET = [([], 0), ([-1.0], 0), ([-1.0, -2.0], 2), ([-1.0, -2.0], -1), ([-1.0, math.nan], 0)]


@pytest.mark.parametrize("logprobs, secret", NO_SECRET)
def test_what_has_no_exposure(logprobs, secret):
    with pytest.raises(
        ValueError, match=rf"secret {secret} among .* log-probabilities: give|secret=-1: expected"
    ):
        exposure(logprobs, secret)


# --- sheets -------------------------------------------------------------------------------------------------


def test_sheets_have_the_sections_of_their_papers():
    assert list(sheet_questions("datasheet")) == [
        "Motivation",
        "Composition",
        "Collection",
        "Preprocessing",
        "Uses",
        "Distribution",
        "Maintenance",
    ]
    assert list(sheet_questions("model card")) == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]
    with pytest.raises(ValueError, match="no sheet 'sheet': take one of datasheet, model card"):
        sheet_questions("sheet")


def test_a_sheet_keeps_answers_and_shows_gaps():
    asked = {"Uses": ["For what?", "For what not?"], "Data": ["Whose?"]}
    text = fill_sheet("Mine", asked, {"For what?": " Tests. ", "Whose?": " "})
    assert text == (
        "# Mine\n\n## Uses\n\n**For what?** Tests.\n\n**For what not?** to fill in\n\n"
        "## Data\n\n**Whose?** to fill in\n\n1 of 3 questions answered.\n"
    )
    with pytest.raises(
        ValueError, match="no question 'For whom' on this sheet; the nearest is 'For what\\?'"
    ):
        fill_sheet("Mine", {"Uses": ["For what?"]}, {"For whom": "x"})


def test_a_file_is_never_lost_in_silence(tmp_path):
    path = tmp_path / "card.md"
    assert write_sheet(path, "一") == path and path.read_text("utf-8") == "一"
    with pytest.raises(ValueError, match="card.md exists already and may hold answers: choose another name"):
        write_sheet(path, "two")
    assert path.read_text("utf-8") == "一"
    write_sheet(str(path), "two", overwrite=True)
    assert path.read_text("utf-8") == "two"


def test_the_questions_are_listed_with_their_fingerprint():
    import hashlib

    listed = json.loads((ROOT / "llmlab/data/manifest.json").read_text())["sheets.csv"]
    assert listed["sha256"] == hashlib.sha256((ROOT / "llmlab/data/sheets.csv").read_bytes()).hexdigest()


# --- the figure's numbers -----------------------------------------------------------------------------------


def test_marks_correct_p_within_each_model():
    values = {"x": [1.0, 1.1, 1.2], "y": [0.1, -0.1, 0.2]}
    table = {m: {w: with_interval(many(v)) for w, v in values.items()} for m in ("one", "two")}
    found = bias_view_data(table)
    plain = [table["one"][w].recipe["p"] for w in ("x", "y")]
    assert [found["one"][w]["p"] for w in ("x", "y")] == pytest.approx(holm(plain).tolist())
    assert found["two"]["x"]["points"] == pytest.approx(values["x"]) and found["two"]["x"][
        "at"
    ] == pytest.approx(1.1)
    assert found["two"]["x"]["low"] == table["two"]["x"].recipe["low"]


def test_marks_need_intervals():
    with pytest.raises(ValueError, match=r"x has no interval or no p: pass what with_interval\(...\) gives"):
        bias_view_data({"one": {"x": many([1.0, 2.0])}})
