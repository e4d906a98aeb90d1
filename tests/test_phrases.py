"Parallel phrases: each kind as CLDR writes it, a split without leaks, the baseline that copies."

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.tasks.phrases import (
    COUNTRIES,
    LANGUAGES,
    PHRASE_KINDS,
    UNSEEN_COUNTRIES,
    UNSEEN_KINDS,
    Phrase,
    currency_phrase,
    date_phrase,
    date_range_phrase,
    in_test_set,
    language_phrase,
    make_phrases,
    number_phrase,
    plain_spaces,
    time_phrase,
    translation_memory,
    unit_phrase,
)

ALL = list(LANGUAGES)


# --- phrases ------------------------------------------------------------------------------------------------


WRITTEN = """
Sunday, September 5, 1999 | 1999年9月5日星期日 | Sonntag, 5. September 1999 | dimanche 5 septembre 1999
9/5/1999 | 1999/9/5 | 5.9.1999 | 05/09/1999
Mon 14:07 | 周一14:07 | Mo., 14:07 | lun. 14:07
1,234.5 kilometers | 1,234.5公里 | 1.234,5 Kilometer | 1 234,5 kilomètres
3 meters per second | 每秒3米 | 3 Meter pro Sekunde | 3 mètres par seconde
12.50 euros | 12.50欧元 | 12,50 Euro | 12,50 euros
French (Canada) | 法语 (加拿大) | Französisch (Kanada) | français (Canada)
-1,234.5 | -1,234.5 | -1.234,5 | -1 234,5
1.2 million | 120万 | 1,2 Millionen | 1,2 million
Sep 5 – Oct 7, 1999 | 1999年9月5日至10月7日 | 5. Sept. – 7. Okt. 1999 | 5 sept. – 7 oct. 1999
"""  # by CLDR 47, as phones and browsers write it
SAID = [
    (date_phrase, "full", (1999, 9, 5)),
    (date_phrase, "yMd", (1999, 9, 5)),
    (time_phrase, "EHm", (0, 14, 7)),
    (unit_phrase, "long", ("length-kilometer", 1234.5)),
    (unit_phrase, "long", ("speed-meter-per-second", 3)),
    (currency_phrase, "name", ("EUR", 12.5)),
    (language_phrase, "name", ("fr", "CA")),
    (number_phrase, "decimal", (-1234.5,)),
    (number_phrase, "compact", (1_200_000,)),
    (date_range_phrase, "yMMMd", (1999, 9, 5, 1999, 10, 7)),
]


@pytest.mark.parametrize("said, written", [*zip(SAID, WRITTEN.strip().split("\n"), strict=True)])
def test_each_kind_as_it_is_written(said, written):
    say, template, slots = said
    assert [
        plain_spaces(say(language, template, *slots)) for language in ("en", "zh", "de", "fr")
    ] == written.split(" | ")


@pytest.mark.parametrize("name", [*PHRASE_KINDS, *UNSEEN_KINDS])
def test_no_phrase_shows_what_should_be_in_words(name):
    kinds = {name: (PHRASE_KINDS | UNSEEN_KINDS)[name]}
    for p in make_phrases(150, ALL, kinds=kinds) + make_phrases(30, ALL, held=True, kinds=kinds):
        names = [x for x in p.slots if isinstance(x, str) and len(x) > 2]
        for text in (p.source, p.target):
            assert (
                text and text == plain_spaces(text) and not any(x in text for x in [*names, "None", "{"])
            ), p


def test_one_english_phrase_has_one_translation():
    found = {}
    for p in make_phrases(4000, ALL):
        found.setdefault((p.source, p.language), set()).add(p.target)
    assert max(map(len, found.values())) == 1, [pair for pair in found.items() if len(pair[1]) > 1]


def test_draws_repeat_with_their_seed():
    assert make_phrases(50, ALL, seed=3) == make_phrases(50, ALL, seed=3) != make_phrases(50, ALL, seed=4)
    assert len({*make_phrases(300, ALL, held=True)}) == 300


# --- the split ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7])
def test_no_slot_values_and_no_source_stand_on_both_sides(seed):
    train, test = make_phrases(6000, ALL, seed=seed), make_phrases(600, ALL, held=True, seed=seed + 1)
    assert not {(p.kind, p.slots) for p in train} & {(p.kind, p.slots) for p in test}
    assert not {(p.kind, p.template, p.slots) for p in train} & {(p.kind, p.template, p.slots) for p in test}
    assert not {p.source for p in train} & {p.source for p in test}


def test_combinations_are_new_and_their_parts_are_not():
    train, test = make_phrases(8000, ALL), make_phrases(600, ALL, held=True)

    def parts(phrases):
        found = set()
        for p in phrases:
            found |= {(p.kind, i, slot) for i, slot in enumerate(p.slots) if isinstance(slot, str)}
        return found

    assert parts(test) <= parts(train) and len(parts(test)) > 100
    assert not set(COUNTRIES) & set(UNSEEN_COUNTRIES) and not set(UNSEEN_KINDS) & set(PHRASE_KINDS)


@given(
    st.sampled_from([*PHRASE_KINDS, *UNSEEN_KINDS]),
    st.tuples(st.integers(1900, 2099), st.integers(1, 12), st.integers(1, 28)),
)
def test_the_side_depends_on_kind_and_slots_alone(kind, slots):
    assert in_test_set(kind, slots) is in_test_set(kind, tuple(slots))


def test_about_one_in_ten_is_held_out():
    rng = random.Random(0)
    share = sum(in_test_set("date", PHRASE_KINDS["date"].draw(rng)) for _ in range(20_000)) / 20_000
    assert abs(share - 0.1) < 0.01


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(n=0, languages=["zh"]), "n=0: expected a whole number of at least 1"),
        (dict(n=3, languages=[]), "in 0 languages"),
        (dict(n=3, languages=["zh"], kinds={}), "of 0 kinds"),
        (
            dict(n=3, languages=["xx"]),
            "language 'xx' is unknown: take one of zh, de, fr, or add its tokenizer to LANG",
        ),
        (
            dict(n=300, languages=["de"], held=True, kinds={"a": PHRASE_KINDS["tongue"]}),
            r"300 .* gave \d+: take fewer",
        ),
    ],
)
def test_what_cannot_be_drawn(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_phrases(**arguments)


# --- the baseline -------------------------------------------------------------------------------------------


def test_the_nearest_of_known_sentences_is_itself():
    some = list({p.source: p for p in make_phrases(3000, ALL) if p.language == "de"}.values())[:200]
    assert translation_memory(some, [p.source for p in some]) == [p.target for p in some]


def test_nearest_pencil():
    pairs = [("2 hours", "2 Stunden"), ("3 days", "3 Tage")]
    known = [Phrase("", "", (), "de", *pair) for pair in pairs]
    assert translation_memory(known, ["9 hours", "4 days", "days"]) == ["2 Stunden", "3 Tage", "3 Tage"]
