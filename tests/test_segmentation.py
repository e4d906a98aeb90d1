"Characters, words and sentences in many scripts: pencil cases, `regex` as a judge, and properties."

import random

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from llmlab.segmentation import (
    count_words,
    join_sentences,
    names_pattern,
    split_gaps,
    split_graphemes,
    split_sentences,
    split_words,
)

SCRIPTS = [
    "abc xyz é", "e\u0301\u0308a", "हिन्दी क्षत्र", "ภาษาไทยน้ำ", "가각\u1100\u1161\u11a8", "👨‍👩‍👧👍🏽🇫🇷🇩🇪❤️",
    "今天。「」", "ひらカタｶﾞー", "தமிழ்", "ك\u064b", "\r\n",
]  # fmt: skip
mixed = st.lists(st.sampled_from([c for script in SCRIPTS for c in script]), max_size=20).map("".join)

# characters


def test_graphemes_pencil():
    assert split_graphemes("") == []
    assert split_graphemes("cafe\u0301") == ["c", "a", "f", "e\u0301"]
    assert split_graphemes("हिन्दी") == ["हि", "न्दी"]
    assert split_graphemes("น้ำ") == ["น้ำ"]
    assert split_graphemes("👨‍👩‍👧👍🏽🇫🇷🇩🇪") == ["👨‍👩‍👧", "👍🏽", "🇫🇷", "🇩🇪"]
    assert split_graphemes("\u1100\u1161\u11a8가") == ["\u1100\u1161\u11a8", "가"]
    assert split_graphemes("a\r\nb") == ["a", "\r\n", "b"]


@given(mixed)
def test_graphemes_join_to_the_text(text):
    assert "".join(split_graphemes(text)) == text


def test_graphemes_equal_those_of_regex():
    rng, differs = random.Random(0), []
    for _ in range(5000):
        text = "".join(rng.choice(rng.choice(SCRIPTS[:-1])) for _ in range(rng.randrange(9)))
        if split_graphemes(text) != regex.findall(r"\X", text):
            differs.append(text)
    assert all("\u200d" in text for text in differs), "only a joiner that joins nothing may be read otherwise"
    assert len(differs) < 100


# words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's 2 hats.", ["The", "cat", "s", "2", "hats"]),
        ("AI改变世界。", ["AI", "改", "变", "世", "界"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("naïve Café Straße", ["naïve", "Café", "Straße"]),
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("ひらカタ", ["ひ", "ら", "カ", "タ"]),
        ("น้ำดี", ["น้ำ", "ดี"]),
        ("가나 다라", ["가나", "다라"]),
        ("Привет, мир!", ["Привет", "мир"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("snake_case", ["snake", "case"]),
        ("...", []),
    ],
)
def test_words_pencil(text, words):
    assert split_words(text) == words
    assert split_gaps(text)[1::2] == words


@given(mixed)
def test_gaps_and_words_join_to_the_text(text):
    assert "".join(split_gaps(text)) == text
    assert split_gaps(text)[1::2] == split_words(text)


@pytest.mark.parametrize("text", ["cafe\u0301s", "หนังสือน้ำ", "हिन्दी में", "ばﾞパ", "ကျောင်းသား"])
def test_no_word_begins_inside_a_character(text):
    edges, at = {0}, 0
    for cluster in split_graphemes(text):
        at += len(cluster)
        edges.add(at)
    parts = split_gaps(text)
    assert {sum(map(len, parts[:i])) for i in range(len(parts))} <= edges


def test_words_are_counted():
    assert count_words("the cat sat, then left - it") == 7  # as wc counts
    assert count_words("今天天气很好。") == 6
    assert count_words("नमस्ते दुनिया") == 2
    assert count_words("AI改变 世界") == 5


def test_a_name_is_found_as_a_word_of_its_own():
    found = names_pattern(["Ann", "Anna", "李明", "हिन्द", "C++"])
    assert found.findall("Ann, Anna, Annual, Annähern, Joann; Ann's") == ["Ann", "Anna", "Ann"]
    assert found.findall("李明去了。") == ["李明"]
    assert found.findall("हिन्दी") == [] and found.findall("हिन्द महासागर") == ["हिन्द"]
    assert found.findall("Ann\u0308 C++") == ["C++"]
    assert names_pattern(["ab c", "ab"]).findall("ab c ab") == ["ab c", "ab"]
    with pytest.raises(ValueError, match="at least one"):
        names_pattern([])


# sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["Dr. Smith met Mrs. Jones.", "They left."],
        ["See e.g. chapter 3.", "It ends."],
        ["The U.S. Army left.", "We stayed."],
        ['He said "Stop!"', "She ran."],
        ["J. R. Lee wrote it.", "It sold."],
        ["It costs 3.14 USD.", "OK."],
        ["He lives in the U.S.", "They visit him."],
        ["Apples, pears, etc.", "The rest is lost."],
        ["See Fig. 3 and No. 4.", "No.", "Then go."],
        ["“Stop!” he cried.", "Then he fell."],
        ["Wait... what?", "Yes?!", "(He left.)", "Good."],
        ["1. Open the door.", "2. Close it."],
        ["Er kam am 3. Mai zu Dr. Müller.", "Es regnete, z. B. in Köln."],
        ["M. Dupont est parti.", "Il pleut."],
        ["¿Qué pasa?", "¡Nada!"],
        ["Ärger kam.", "Über Nacht blieb er."],
        ["今天下雨。", "他走了。", "她来了。"],
        ["真的吗？", "是的。"],
        ["他说：“走吧！”", "她走了。"],
        ["雨が降った。", "彼は行った！"],
        ["「行け！」と彼は言った。", "彼女は去った。"],
        ["値は３．１４です．", "次に進む．"],
        ["यह किताब है।", "वह घर है।"],
        ["डॉ. शर्मा आए।", "वे गए।"],
        ["هل هذا كتاب؟", "نعم."],
        ["ฉันกินข้าว", "เขาไปตลาดต่างๆ มากมาย"],
        ["안녕하세요.", "반갑습니다."],
        ["I like it 👍.", "Great!"],
    ],
)  # fmt: skip
def test_sentences_pencil(parts):
    assert split_sentences(" ".join(parts)) == parts


@pytest.mark.parametrize("text", ["今天下雨。他走了。她来了。", "真的吗？是的。", "雨が降った。彼は行った！"])
def test_sentences_without_spaces(text):
    parts = split_sentences(text)
    assert len(parts) == sum(mark in "。？！" for mark in text)
    assert join_sentences(parts) == text


def test_small_letters_begin_a_sentence_where_there_are_no_capitals():
    assert split_sentences("the cat sat. the dog ran.") == ["the cat sat.", "the dog ran."]
    assert split_sentences("It stood at approx. two metres. It fell.") == [
        "It stood at approx. two metres.",
        "It fell.",
    ]


def test_blank_lines_end_a_sentence_and_line_breaks_do_not():
    assert split_sentences("A title\n\nThe text goes\non here.") == ["A title", "The text goes on here."]
    assert split_sentences("A title\r\n\r\nThe text.") == ["A title", "The text."]
    assert split_sentences("今天下\n雨。他走\n了。") == ["今天下雨。", "他走了。"]
    assert split_sentences("") == split_sentences(" \n\n ") == []


def test_sentences_are_joined_by_their_script():
    assert join_sentences(["It rained.", "Ann left."]) == "It rained. Ann left."
    assert join_sentences(["雨。", "走。"]) == "雨。走。" and join_sentences(["我来", "他去"]) == "我来他去"
    assert join_sentences([]) == ""


PIECES = ["Dr. A", "b.", "No. 3", "今天。", "！", '"', " ", "\n", "ไทย", "x", "3.5", "…", "A"]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_sentences_lose_nothing_but_white_space(pieces):
    text = " ".join(pieces)
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.timeout(900)  # ends a hang: these take seconds, but many minutes under a quadratic rule
def test_long_texts_are_cut_whole():
    for text in ("a." * 10_000, "今" * 20_000, "x" * 20_000 + ".", "A. " * 6_000):
        assert sum(map(len, split_graphemes(text))) == len(text)
        assert split_sentences(text) and split_words(text)


def test_symbols_are_words_where_asked_for():
    text = "👨‍👩‍👧 ok 👍🏽🇫🇷🇩🇪 5 € ❤️x $"
    assert split_words(text) == ["ok", "5", "x"]
    assert split_words(text, symbols=True) == ["👨‍👩‍👧", "ok", "👍🏽", "🇫🇷", "🇩🇪", "5", "€", "❤️", "x", "$"]
