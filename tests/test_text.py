"Corpora, splits and the grammar of chapter 2."

import hashlib
import inspect
import math
import random
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab import corpora, text
from llmlab.corpora import generate_story, story_entropy, story_nll
from llmlab.text import Corpus, load_corpus, normalized_paragraph, split_corpus, split_paragraphs

NAMES = ("reference", "stdlib", "stories")

# a whole corpus, its two sides and its paragraphs are made once for all tests
whole = cache(load_corpus)
normalized = cache(normalized_paragraph)


@cache
def sides(name: str) -> tuple[Corpus, Corpus]:
    "What a whole corpus gives for training and for validation."
    return whole(name).split()


def small(choose):
    "A cut-down grammar: two words, then one of two turns of unequal length."
    pet = choose("The ", ("cat", "dog", "hen"))
    match choose(" ", ("sat", "ran"), turn=True):
        case "sat":
            choose(" on the ", ("mat", "rug"))
            choose(f". The {pet} was ", ("glad", "sad", "old", "fat"))
        case "ran":
            if choose(" ", ("home", "off"), turn=True) == "off":
                choose(" with the ", ("hat", "pen", "cup"))
    choose(".")


def all_told(grammar, said=()):
    "Every story of a grammar with its probability, by brute force over all choices."
    pieces, sizes = [], []

    def choose(before, options=("",), turn=False):
        k = said[len(sizes)] if len(sizes) < len(said) else 0
        sizes.append(len(options))
        pieces.extend([before, list(options)[k]])
        return pieces[-1]

    grammar(choose)
    if len(sizes) == len(said):
        return [("".join(pieces), 1 / math.prod(sizes))]
    return [told for k in range(sizes[len(said)]) for told in all_told(grammar, (*said, k))]


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_reports_what_it_is(name):
    c = whole(name)
    shown, n_words, fingerprint = repr(c), c.n_words, c.fingerprint
    assert c.n_bytes == len(c.text.encode()) and n_words == len(c.text.split()) and len(c) == len(c.documents)
    assert c.licence in {"PSF-2.0", "Apache-2.0"} and len(fingerprint) == 16
    for fact in (name, f"{c.n_bytes:,}", f"{n_words:,}", c.licence, fingerprint):
        assert fact in shown
    assert load_corpus(name, 50_000).fingerprint == load_corpus(name, 50_000).fingerprint


def test_stories_are_the_same_everywhere():
    assert load_corpus("stories", 20_000).fingerprint == "8fbfb4262ab598a3"
    assert load_corpus("stories", 20_000, seed=1).fingerprint != load_corpus("stories", 20_000).fingerprint


def test_fingerprint_sees_titles_and_texts():
    prints = [
        Corpus("x", d, "-").fingerprint for d in ({"a": "b"}, {"b": "a"}, {"a": "b "}, {"a": "b", "c": ""})
    ]
    assert len(set(prints)) == 4


def test_stories_are_many():
    c = load_corpus("stories")
    assert 1_190_000 < c.n_bytes <= 1_200_000


@pytest.mark.parametrize("name", NAMES)
def test_max_bytes_keeps_whole_documents(name):
    more, cut = whole(name), load_corpus(name, 100_000)
    assert list(more.documents.items())[: len(cut)] == list(cut.documents.items())
    following = list(more.documents.values())[len(cut)]
    assert cut.n_bytes <= 100_000 < cut.n_bytes + 2 + len(following.encode())


def paragraphs_of(corpus: Corpus) -> set[str]:
    "The paragraphs of a corpus that hold a word, normalized."
    return {normalized(paragraph) for paragraph in split_paragraphs(corpus.text)} - {""}


@pytest.mark.parametrize("name", NAMES)
def test_split_shares_no_title_and_no_paragraph(name):
    everything = whole(name)
    train, valid = sides(name)
    assert not set(train.documents) & set(valid.documents)
    held = paragraphs_of(valid)
    kept = paragraphs_of(train)
    assert not held & kept
    assert all(everything.documents[title] == text for title, text in valid.documents.items())
    lost = paragraphs_of(everything) - held - kept
    assert not lost, "only paragraphs that valid holds may leave train"
    assert 0.03 < valid.n_bytes / everything.n_bytes < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_is_split_the_same_way_each_time(name):
    first, second = (load_corpus(name, 200_000).split() for _ in range(2))
    assert [side.fingerprint for side in first] == [side.fingerprint for side in second]


@given(
    st.dictionaries(
        st.text(max_size=3), st.lists(st.sampled_from("abcd"), max_size=4).map("\n\n".join), min_size=1
    ),
    st.floats(0.05, 0.95),
)
def test_split_never_leaks(documents, share):
    try:
        train, valid = split_corpus(Corpus("x", documents, "-"), share)
    except ValueError as e:
        assert "leave a side empty" in str(e)
    else:
        assert not {normalized_paragraph(p) for p in split_paragraphs(train.text)} & {
            normalized_paragraph(p) for p in split_paragraphs(valid.text)
        } - {""}
        assert set(train.documents) | set(valid.documents) <= set(documents)


@pytest.mark.parametrize("name", NAMES)
def test_which_titles_of_a_whole_corpus_are_held_out_is_the_hash_alone(name):
    "So a checkpoint trained under one Python has not seen the validation titles of another."

    def low(title):
        return int(hashlib.sha256(title.encode()).hexdigest()[:16], 16) < 0.1 * 16**16

    assert set(sides(name)[1].documents) == {title for title in whole(name).documents if low(title)}


@pytest.mark.parametrize("n", range(2, 20))
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_two_titles_are_enough_for_two_sides(n, share):
    documents = {f"title {i}": f"text {i}" for i in range(n)}
    train, valid = split_corpus(Corpus("x", documents, "-"), share)
    assert train.documents and valid.documents and train.documents | valid.documents == documents
    assert max(map(corpora.digest, valid.documents)) < min(map(corpora.digest, train.documents))
    backwards = dict(reversed(documents.items()))
    assert split_corpus(Corpus("x", backwards, "-"), share)[1].documents == valid.documents


def test_the_standard_library_splits_however_few_files_are_asked_for():
    for max_bytes in (100_000, 500_000, 1_000_000):
        train, valid = load_corpus("stdlib", max_bytes).split()
        assert train.n_bytes and valid.n_bytes


def test_a_duplicate_story_is_on_one_side():
    told = generate_story(random.Random(0))
    with pytest.raises(ValueError, match="leave a side empty"):
        Corpus("x", {f"story {i}": told for i in range(100)}, "-").split()


def test_white_space_does_not_hide_a_copy():
    titles = {text.is_held_out(t, 0.5): t for t in "abcdefgh"}
    documents = {titles[True]: "one\ntwo\n\nthree", titles[False]: "one   two\n \t\nfour"}
    assert Corpus("x", documents, "-").split(0.5)[0].documents == {titles[False]: "four"}


def test_a_title_falls_the_same_way_in_any_company():
    a, b = load_corpus("stories", 50_000), load_corpus("stories", 100_000)
    assert set(a.split()[1].documents) == set(b.split()[1].documents) & set(a.documents)


@pytest.mark.parametrize("grammar", [small, corpora.story_grammar])
def test_entropy_is_the_mean_negative_log_likelihood(grammar):
    rng = random.Random(5)
    nats = [story_nll(generate_story(rng, grammar), grammar) for _ in range(3000)]
    mean = sum(nats) / len(nats)
    error = math.sqrt(sum((n - mean) ** 2 for n in nats)) / len(nats)
    assert abs(mean - story_entropy(grammar)) < 4 * error + 1e-9


def test_small_grammar_against_brute_force():
    told = all_told(small)
    assert len({t for t, _ in told}) == len(told) == 3 * (2 * 4 + 1 + 3)
    assert math.isclose(sum(math.exp(-story_nll(t, small)) for t, _ in told), 1)
    assert all(math.isclose(story_nll(t, small), -math.log(p)) for t, p in told)
    assert math.isclose(story_entropy(small), -sum(p * math.log(p) for _, p in told))


def test_pencil_case():
    def coin(choose):
        choose("The ", ("cat", "dog"))
        choose(" sat on the ", ("mat", "rug"))
        choose(".")

    assert math.isclose(story_nll("The cat sat on the mat.", coin), 2 * math.log(2))
    assert math.isclose(story_entropy(coin), 2 * math.log(2))


def test_words_do_not_change_how_many_options_follow():
    "What `ForcedChooser` relies on: any words, the same turns, the same likelihood."
    rng, seen = random.Random(0), {}
    for _ in range(1000):
        told = generate_story(rng)
        turn = next(t for t in (" put ", " lost ", " gave ") if t in told)
        seen.setdefault(turn, set()).add(round(story_nll(told), 9))
    assert len(seen) == 3 and all(len(nats) == 1 for nats in seen.values())


def test_no_option_begins_another():
    "So a text tells which option was chosen, and text and choices correspond one to one."

    def choose(before, options=("",), turn=False):
        options = list(options)
        assert not [(a, b) for a, b in product(options, options) if a != b and b.startswith(a)], options
        assert len(set(options)) == len(options)
        return rng.choice(options)

    for seed in range(50):
        rng = random.Random(seed)
        corpora.story_grammar(choose)


def test_every_story_scores_and_repeats_what_it_names():
    for told in load_corpus("stories", 100_000).documents.values():
        words = told.replace(".", " ").replace(",", " ").replace('"', " ").split()
        assert story_nll(told) > 20
        for options in (corpora.NAMES, corpora.PLACES, corpora.PETS):
            assert max(words.count(o) for o in options) >= 2
        assert words[2] in corpora.NAMES and words[2] in words[20:]
        assert 35 <= len(words) <= 60


def test_a_sentence_of_the_kind_the_cat_sat_on_the_mat():
    assert "The cat sat on the mat." in whole("stories").text


@pytest.mark.parametrize(
    "foreign", ["", "One day", "The cat sat on the mat.", generate_story(random.Random(0)) + " ", "\ud800"]
)
def test_foreign_text_has_no_probability(foreign):
    with pytest.raises(ValueError, match="not a story of this grammar"):
        story_nll(foreign)


def test_one_wrong_word_makes_a_story_foreign():
    told = generate_story(random.Random(3))
    name = told.split()[2]
    other = next(n for n in corpora.NAMES if n != name)
    with pytest.raises(ValueError, match=f"not a story of this grammar: .*{other}"):
        story_nll(other.join(told.rsplit(name, 1)))


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="no corpus 'wiki': choose one of reference, stdlib, stories"):
        load_corpus("wiki")
    with pytest.raises(
        ValueError, match="max_bytes=10 is less than the first document of 'stories': allow more"
    ):
        load_corpus("stories", 10)
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="must be a share of the titles, between 0 and 1"):
            load_corpus("stories", 5000).split(share)
    for documents in ({}, {"a": "b"}):
        n = len(documents)
        with pytest.raises(
            ValueError, match=f"{n} documents of 'x' leave a side empty at valid=0.1: load more"
        ):
            Corpus("x", documents, "-").split()


def test_every_public_name_says_what_it_is():
    for public in [getattr(text, name) for name in text.__all__ if callable(getattr(text, name))]:
        assert inspect.getdoc(public), public
    for member in ("text", "n_bytes", "n_words", "fingerprint", "split"):
        assert inspect.getdoc(inspect.getattr_static(Corpus, member)), member


def test_paragraphs_and_words_in_any_script():
    assert split_paragraphs("a\r\n\r\nb\n\u3000\nc\n \xa0\n\nd") == ["a", "b", "c", "d"]
    assert normalized_paragraph("cafe\u0301  noir") == normalized_paragraph("caf\u00e9 noir")
    assert Corpus("x", {"t": "今天天气很好。我们去。"}, "CC0").n_words == 9
    assert Corpus("x", {"t": "नमस्ते दुनिया, the cat – ok"}, "CC0").n_words == 6
