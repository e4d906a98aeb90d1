"What is held out is held out, answers follow from the passage, scores are computed a second time."

import random
import re
import string
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.overlap import exact_match, token_f1
from llmlab.tasks.questions import (
    QUESTION_FRAMES,
    QUESTION_KINDS,
    WORDINGS,
    Item,
    PassageWriter,
    allowed_templates,
    entities,
    make_questions,
    nearest_entity,
    score_by_kind,
)

TRAIN, TEST = make_questions(1500, False), make_questions(500, True)
PATTERNS = {(r, w): pattern for r, three in WORDINGS.items() for w, (pattern, *_) in enumerate(three)}


def facts(passage):
    "An independent reader of the grammar: (relation, wording, who, what) and (kind of kin, who, of whom)."
    found, kin = [], []
    for sentence in re.findall(r"[^.]+\.", passage):
        if m := re.search(
            r"(\w+ \w+) is the (sister|brother|friend|teacher|neighbour) of (\w+ \w+)\.$", sentence
        ):
            kin.append((m[2], m[1], m[3]))
            continue
        for (relation, w), pattern in PATTERNS.items():
            shape = (
                re.escape(pattern).replace(r"\{a\}", r"(?P<a>\w+ \w+)").replace(r"\{b\}", r"(?P<b>\w+ \w+)")
            )
            if m := re.search(rf"(?i:{shape})\.$", sentence):
                found.append((relation, w, m["a"], m["b"]))
                break
        else:
            raise AssertionError(sentence)
    return found, kin


def asked(question):
    "(relation, wording, subject) of a question."
    for relation, three in WORDINGS.items():
        for w, (_, *forms) in enumerate(three):
            for frame in QUESTION_FRAMES:
                shape = re.escape(frame.format(*forms)).replace(r"\{a\}", "(.+)")
                if m := re.fullmatch(shape, question[0].lower() + question[1:]):
                    return relation, w, m[1]
    raise AssertionError(question)


def solve(item):
    "The answer by rule: find the subject, through a relative if need be, then its fact."
    found, kin = facts(item.passage)
    relation, _, subject = asked(item.question)
    if m := re.fullmatch(r"the (\w+) of (\w+ \w+)", subject):
        subject = next(who for kind, who, of in kin if (kind, of) == (m[1], m[2]))
    return next((what for r, _, who, what in found if (r, who) == (relation, subject)), "")


@pytest.mark.parametrize("item", TRAIN[:200] + TEST[:200], ids=lambda item: item.kind)
def test_the_answer_follows_from_the_passage_by_rule(item):
    assert solve(item) == item.answer and item.answer in item.passage


@pytest.mark.parametrize("field", ["entities", "templates"])
def test_the_sides_share_no_entity_and_no_pattern(field):
    one, two = ({x for item in items for x in getattr(item, field)} for items in (TRAIN, TEST))
    assert one and two and not one & two


def test_what_the_records_claim_is_what_the_texts_say():
    for item in TRAIN[:100] + TEST[:100]:
        found, kin = facts(item.passage)
        named = {x for _, _, *pair in found for x in pair} | {x for _, *pair in kin for x in pair}
        assert named <= set(item.entities) and len(item.templates) == len(found) + len(kin) + 1


def test_names_of_the_test_stand_in_no_training_text():
    text = " ".join(item.passage + item.question for item in TRAIN)
    assert not [x for some in entities(True).values() for x in some if x in text]


def test_every_word_of_the_test_is_known_from_training():
    known = {w.lower() for item in TRAIN for w in re.findall(r"\w+", item.passage + " " + item.question)}
    assert {
        w.lower() for item in TEST for w in re.findall(r"\w+", item.passage + " " + item.question)
    } <= known


def test_each_kind_is_what_it_says():
    for item in TRAIN + TEST:
        found, kin = facts(item.passage)
        relation, q, subject = asked(item.question)
        same = [w for r, w, *_ in found if r == relation]
        said = [w for r, w, _, what in found if what == item.answer]
        assert (item.answer == "") == (item.kind == "no answer") and bool(kin) == (item.kind == "two-hop")
        if item.kind == "simple":
            assert len(same) == 1 and said == [q]
        if item.kind == "distractors":
            assert len(same) == 3
        if item.kind == "paraphrase":
            assert len(same) == 3 and said != [q]
        if item.kind == "no answer":
            assert len(same) == 2 and subject in item.entities
        if item.kind == "two-hop":
            assert len(same) == 3 and len({what for r, _, _, what in found if r == relation}) == 3


def pairs(items):
    "(statement wording, question wording) of the paraphrases."
    out = set()
    for item in items:
        if item.kind == "paraphrase":
            relation, q, subject = asked(item.question)
            out.add(
                (next(w for r, w, who, _ in facts(item.passage)[0] if (r, who) == (relation, subject)), q)
            )
    return out


def test_paraphrases_of_the_test_pair_wordings_that_training_never_pairs():
    assert len(pairs(TRAIN)) == 3 and len(pairs(TEST)) == 3 and not pairs(TRAIN) & pairs(TEST)


def test_side_pencil():
    assert [allowed_templates(0, True), allowed_templates(1, True), allowed_templates(2, True)] == [
        [0, 3],
        [2, 5],
        [1, 4],
    ]
    assert [sorted(allowed_templates(w, True) + allowed_templates(w, False)) for w in range(3)] == [
        list(range(6))
    ] * 3


def test_seeded_and_in_turn():
    assert (
        make_questions(20, True, seed=3)
        == make_questions(20, True, seed=3)
        != make_questions(20, True, seed=4)
    )
    assert [item.kind for item in make_questions(7, True)] == [*QUESTION_KINDS, *QUESTION_KINDS[:2]]
    assert {item.kind for item in make_questions(4, False, kinds=["two-hop"])} == {"two-hop"}


NONE = "give at least one question, and kinds among"


@pytest.mark.parametrize(
    "n, kinds, text", [(0, QUESTION_KINDS, "n=0: expected"), (5, [], NONE), (5, ["easy"], NONE)]
)
def test_what_cannot_be_written(n, kinds, text):
    with pytest.raises(ValueError, match=text):
        make_questions(n, True, kinds=kinds)


def test_the_baseline_pencil():
    passage = "Mia Stone lives in Old Dover. Tom Hill owns the red lamp."
    names = "Mia Stone,Tom Hill,Old Dover,red lamp"
    item = Item("simple", passage, "Where does Mia Stone live?", "Old Dover", tuple(names.split(",")), ())
    assert nearest_entity(item) == "Old Dover"
    assert nearest_entity(item._replace(question="What does Tom Hill own?")) == "red lamp"
    assert nearest_entity(item._replace(question="Mia Stone and Old Dover?")) == ""


def test_a_teller_uses_no_town_twice():
    for seed in range(30):
        writer = PassageWriter(
            random.Random(seed), {"people": list("abcd"), "towns": ["x", "y"], "things": []}, False
        )
        assert {writer.add_fact("home", "a"), writer.add_fact("birth", "b")} == {"x", "y"}


# --- scores -------------------------------------------------------------------------------------------------


def official(said, right):
    "EM and F1 as the SQuAD 2.0 script has them (evaluate-v2.0.py), written again from its text."

    def normal(text):
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", text).split())

    a, b = normal(right).split(), normal(said).split()
    same = sum((Counter(a) & Counter(b)).values())
    if not a or not b:
        return int(normal(said) == normal(right)), int(a == b)
    precision, recall = same / len(b), same / len(a)
    return int(normal(said) == normal(right)), 2 * precision * recall / (precision + recall) if same else 0


answers = st.lists(st.sampled_from(["the", "A", "red", "lamp", "Dover.", "Old", "red!"]), max_size=4).map(
    " ".join
)


@given(st.lists(st.tuples(answers, answers), min_size=2, max_size=6))
def test_exact_match_and_f1_equal_the_official_script(some):
    said, right = zip(*some, strict=True)
    wanted = [official(*pair) for pair in some]
    assert float(exact_match(said, right)) == pytest.approx(sum(em for em, _ in wanted) / len(some))
    assert float(token_f1(said, right)) == pytest.approx(sum(x for _, x in wanted) / len(some))


def test_by_kind_counts_each_kind_apart():
    said = [item.answer if item.kind != "two-hop" else "x" for item in TEST]
    scores = score_by_kind(TEST, said)
    assert {k: float(v) for k, v in scores.items()} == {k: float(k != "two-hop") for k in QUESTION_KINDS}
    half = score_by_kind(TEST, ["" for _ in TEST], token_f1)["no answer"]
    assert (
        half == 1 and score_by_kind(TEST, ["" for _ in TEST], partial(token_f1, rule="1.1"))["no answer"] == 0
    )
    assert half == 1 and half.recipe["low"] == 1 and half.recipe["units"] == 100
    mixed = score_by_kind(TEST, [item.answer if i % 2 else "x" for i, item in enumerate(TEST)])["simple"]
    assert mixed.recipe["low"] < mixed == 0.5 < mixed.recipe["high"]


def test_an_answer_for_each_question():
    with pytest.raises(ValueError, match="1 answers to 500 questions: give one for each, '' for no answer"):
        score_by_kind(TEST, [""])


def test_an_entity_is_found_as_a_word_of_its_own():
    passage, asked = "Mr. Dover lives in Anna. Joe has an inn.", "Where does Mr. Dover live?"
    item = Item("simple", passage, asked, "Anna", ("Ann", "Anna"), ())
    assert nearest_entity(item) == "Anna"
