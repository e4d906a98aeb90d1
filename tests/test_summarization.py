"Extraction against networkx, ROUGE against rouge_score, splits without leaks, detectors with known truth."

import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networkx import DiGraph, from_numpy_array
from networkx.algorithms.link_analysis.pagerank_alg import _pagerank_python  # networkx.pagerank without scipy
from rouge_score.rouge_scorer import RougeScorer

from llmlab import phrases_view
from llmlab.checkpoints import load_shipped, shipped_path
from llmlab.corpora import story_grammar
from llmlab.overlap import character_words
from llmlab.rouge_lines import rouge_words
from llmlab.segmentation import split_gaps, split_sentences
from llmlab.tasks.summarization import (
    extractiveness,
    lead,
    learn_allowed_words,
    lowest_logprobs,
    pagerank,
    sentence_similarity,
    summarize,
    summary_logprobs,
    summary_loss,
    textrank,
    unsupported_words,
)
from llmlab.tasks.summary_pairs import (
    SUMMARY_TEMPLATES,
    Pair,
    docstring_pairs,
    encode_document,
    first_part,
    leakage_keys,
    make_story_pairs,
    split_pairs,
    story_choices,
    summary_rows,
    template_summary,
)
from llmlab.tasks.summary_scores import copied_fragments, copied_phrases, detection_scores, rouge_scores
from llmlab.tasks.text_pairs import pad_pairs
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config, EncoderDecoder

NEWS = (
    "Mia went to the barn. The barn was old and cold. It rained. "
    "Mia lost a red cup in the old barn. All slept."
)
LEARN, HELD = make_story_pairs(400, 60)
TOKENIZER = Tokenizer.train("\n".join(" ".join(pair) for pair in LEARN), 400)


def model(**change):
    torch.manual_seed(0)
    cfg = dict(vocab_size=TOKENIZER.vocab_size, context=110, layers=1, heads=2, d_model=32) | change
    return EncoderDecoder(Config(**cfg)).eval()


# --- choosing sentences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, parts",
    [
        ("It rained. Ann left.", ["It rained.", "Ann left."]),
        ("One line\ngoes on! Really? Yes", ["One line goes on!", "Really?", "Yes"]),
        ("A heading\n\nA text.", ["A heading", "A text."]),
        ("Version 3.8 came.", ["Version 3.8 came."]),
        (" \n", []),
    ],
)
def test_sentences(text, parts):
    assert split_sentences(text) == parts


@pytest.mark.parametrize("summarizer", [lead, textrank])
def test_k_sentences_in_the_order_of_the_document(summarizer):
    every = split_sentences(NEWS)
    for k in range(1, 9):
        chosen = split_sentences(summarizer(NEWS, k))
        assert len(chosen) == min(k, 5) and [s for s in every if s in chosen] == chosen
    assert summarizer(NEWS, 99) == NEWS, "more than there are: all"


@pytest.mark.parametrize("summarizer", [lead, textrank])
@pytest.mark.parametrize(
    "document, k, words",
    [("", 1, "document '' is empty: give a text"), (" \n ", 1, "is empty"),
     (NEWS, 0, "k=0: expected a whole number of at least 1"),
     (NEWS, -2, "k=-2")],
)  # fmt: skip
def test_extraction_needs_a_text_and_a_number(summarizer, document, k, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        summarizer(document, k)


def test_lead_takes_the_first():
    assert lead(NEWS) == "Mia went to the barn." and lead(NEWS, 2).endswith("old and cold.")


def test_similarity_by_pencil():
    w = sentence_similarity(["Ann saw a cat.", "a cat, A DOG", "...", "ran"])
    assert w[0, 1] == pytest.approx(2 / (np.log(5) + np.log(4))), "a and cat, of 4 and of 3 different words"
    assert (w == w.T).all() and not w.diagonal().any() and not w[2:].any()


@given(
    st.integers(1, 6).flatmap(lambda n: arrays(float, (n, n), elements=st.integers(0, 4).map(float))),
    st.sampled_from([0.0, 0.5, 0.85]),
)
def test_pagerank_is_that_of_networkx(weights, damping):
    graph = from_numpy_array(weights, create_using=DiGraph)
    theirs = _pagerank_python(graph, alpha=damping, tol=1e-12, max_iter=1000)
    assert np.allclose(pagerank(weights, damping), [theirs[i] for i in range(len(weights))], atol=1e-8)


@pytest.mark.parametrize(
    "weights, damping", [(np.zeros((0, 0)), 0.85), (-np.ones((2, 2)), 0.85), (np.eye(2), 1.0)]
)
def test_pagerank_refuses(weights, damping):
    with pytest.raises(ValueError, match="give a square of numbers from 0 on|damping=1.0: expected a number"):
        pagerank(weights, damping)


def test_textrank_takes_the_sentence_that_others_are_like():
    assert textrank(NEWS) == "Mia lost a red cup in the old barn."
    assert textrank("One. Two. Three.") == "One.", "of equals the first"


# --- stories ------------------------------------------------------------------------------------------------


def test_the_summary_tells_the_facts():
    story = (
        "One day Mia went to the barn with a goat and a red cup. The goat sat on the mat. A bird sang. "
        "Mia put the red cup under the mat. The goat hid it. It was hot. "
        '"I like the barn," said Mia to the goat.'
    )
    assert template_summary(story) == "Mia left a red cup under the mat in the barn, and the goat hid it."


def test_facts_are_what_the_grammar_chose():
    rng, chosen = random.Random(3), []

    def choose(text, options=("",), turn=False):
        chosen.append((text, rng.choice(list(options))))
        return chosen[-1][1]

    story_grammar(choose)
    assert story_choices("".join(text + option for text, option in chosen)) == [
        option for _, option in chosen if option
    ]


def test_every_turn_has_its_line_and_no_story_another():
    lines = {story_choices(pair.document)[8] for pair in HELD}
    assert lines == set(SUMMARY_TEMPLATES) and all(
        template_summary(pair.document) == pair.summary for pair in HELD
    )
    with pytest.raises(ValueError, match="not a story"):
        template_summary("Once upon a time.")


def test_no_coloured_thing_stands_on_both_sides():
    def things(pairs):
        return {tuple(story_choices(pair.document)[3:5]) for pair in pairs}

    assert not things(LEARN) & things(HELD) and len(things(HELD)) > 10
    assert not {pair.summary for pair in LEARN} & {pair.summary for pair in HELD}
    assert {c for c, _ in things(HELD)} <= {c for c, _ in things(LEARN)}, "each word alone is known"
    assert make_story_pairs(5, 5) == make_story_pairs(5, 5) != make_story_pairs(5, 5, seed=1)


@pytest.mark.parametrize("n, tests", [(0, 5), (5, 0)])
def test_story_pairs_need_both_sides(n, tests):
    with pytest.raises(ValueError, match="=0: expected a whole number of at least 1"):
        make_story_pairs(n, tests)


# --- docstrings ---------------------------------------------------------------------------------------------

SOURCE = '''
def f():
    """Return the first word.

    The word is cut at white space. Where there is none, the answer is empty.
    """
class A:
    """Return the first word.

    The word is cut at white space. Where there is none, the answer is empty.
    """
    async def g(self):
        """Too short."""
    def h(self):
        """A head that
        goes on.

        And then there is a body of more than eight words, which nobody needs.
        """
'''


def test_a_docstring_is_first_line_and_rest_once():
    rest = "The word is cut at white space. Where there is none, the answer is empty."
    assert docstring_pairs([("a.py", SOURCE), ("b.py", SOURCE)]) == [Pair(rest, "Return the first word.")]


def test_the_standard_library_split_leaks_nothing():
    pairs = docstring_pairs()
    learn, held = split_pairs(pairs)
    assert len(learn) > 600 and len(held) > 150 and set(learn) | set(held) <= set(pairs)
    assert not set().union(*map(leakage_keys, learn)) & set().union(*map(leakage_keys, held))


@pytest.mark.parametrize(
    "copied",
    [
        Pair("alpha beta", "Same  HEAD here"),
        Pair("Some long DOCUMENT of six words", "z"),
        Pair("Other. This long sentence stands in both.", "y"),
    ],
)
def test_what_is_copied_leaves_the_training_side(copied):
    from llmlab.text import is_held_out

    held = next(
        Pair("Some long document of six words", f"same head here {i}")
        for i in range(99)
        if is_held_out(f"same head here {i}", 0.2)
    )
    held = (
        held._replace(document="Some long document of six words. This long sentence stands in both.")
        if "Other" in copied.document
        else held
    )
    copied = copied._replace(summary=held.summary.upper()) if copied.summary.startswith("Same") else copied
    free = [Pair(f"text {i}", f"free {i}") for i in range(99) if not is_held_out(f"free {i}", 0.2)]
    learn, tests = split_pairs([held, copied, *free])
    assert copied not in learn and held in tests and set(free) == set(learn)


def test_a_side_is_not_left_empty():
    with pytest.raises(ValueError, match="1 pairs leave a side empty"):
        split_pairs([Pair("a", "b")])


# --- the model ----------------------------------------------------------------------------------------------


def test_batches_hold_document_and_summary():
    batch = Batches(summary_rows(LEARN, TOKENIZER, 110), pad_pairs, batch_size=3)
    ids = batch(7)
    assert torch.equal(ids, batch(7)) and not torch.equal(ids, batch(8)) and ids.shape[:2] == (3, 2)
    pairs = dict(LEARN)
    for source, target in ids.tolist():
        source, target = ([i for i in row if i >= 0] for row in (source, target))
        assert target[0] == target[-1] == TOKENIZER.eot
        assert pairs[TOKENIZER.decode(source)] == TOKENIZER.decode(target[1:-1])


def test_logprobs_are_those_of_one_pair_alone():
    "Padding changes nothing: each pair of a batch alone, token by token."
    net, some = model(), [LEARN[0], Pair(split_sentences(LEARN[1].document)[0], "The cat."), LEARN[2]]
    rows = summary_rows(some, TOKENIZER, 110)
    for row, pair in zip(lowest_logprobs(net, TOKENIZER, some), some, strict=True):
        i = some.index(pair)
        source, target = (torch.tensor([ids]) for ids in rows[i])
        logp = net(source, target[:, :-1]).log_softmax(-1)[0]
        alone = [logp[t, i].item() for t, i in enumerate(target[0, 1:])]
        assert row == pytest.approx(min(alone), abs=1e-4)
        batch = torch.full((1, 2, max(source.shape[1], target.shape[1])), -1)
        batch[0, 0, : source.shape[1]], batch[0, 1, : target.shape[1]] = source[0], target[0]
        assert summary_loss(net, batch).item() == pytest.approx(-np.mean(alone), abs=1e-4)
        assert summary_logprobs(net, batch)[1].all()


def test_it_learns_a_few_pairs_by_heart_and_says_them():
    few, net = LEARN[:4], model(d_model=48)
    fit(
        net,
        Batches(summary_rows(few, TOKENIZER, 110), pad_pairs, batch_size=8),
        summary_loss,
        Recipe(steps=70, lr=6e-3),
    )
    assert summarize(net, TOKENIZER, [pair.document for pair in few], 2) == [pair.summary for pair in few]
    wrong = [Pair(few[0].document, few[1].summary)]
    assert lowest_logprobs(net, TOKENIZER, few)[0] > lowest_logprobs(net, TOKENIZER, wrong)[0] + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda d: encode_document(TOKENIZER, d, 8),
        lambda d: summarize(model(context=8), TOKENIZER, ["Mia", d]),
        lambda d: summary_rows([Pair(d, "x")], TOKENIZER, 8),
    ],
)
@pytest.mark.parametrize(
    "document, words",
    [
        ("", "document '' is empty"),
        ("\n", "is empty"),
        (NEWS, r"\d+ tokens, but the encoder takes 8: use first_part"),
    ],
)
def test_a_document_must_be_there_and_fit(call, document, words):
    with pytest.raises(ValueError, match=words):
        call(document)


@pytest.mark.parametrize("pairs", [[], [Pair("a", NEWS)]])
def test_pairs_must_be_there_and_fit(pairs):
    with pytest.raises(ValueError, match=f"{len(pairs)} pairs, context 8: give pairs whose summary fits too"):
        summary_rows(pairs, TOKENIZER, 8)


@pytest.mark.parametrize("context", [1, 5, 9, 20, 60])
def test_the_first_part_fits_and_is_as_long_as_can_be(context):
    part = first_part(TOKENIZER, NEWS, context)
    assert part and NEWS.startswith(part) and len(TOKENIZER.encode(part)) <= context
    n = len(split_sentences(part))
    if part.endswith(".") and n < 5:
        assert len(TOKENIZER.encode(lead(NEWS, n + 1))) > context


def test_the_shipped_model_summarizes_stories_with_things_it_never_saw():
    tokenizer, held = (
        Tokenizer.load(shipped_path("summarization.tokenizer.json")),
        make_story_pairs(1, 80, seed=9)[1],
    )
    written = summarize(load_shipped("summarization")[0], tokenizer, [pair.document for pair in held])
    assert sum(a == pair.summary for a, pair in zip(written, held, strict=True)) >= 0.95 * len(held)


# --- scores -------------------------------------------------------------------------------------------------


def test_rouge_is_that_of_rouge_score():
    hyps, refs = [lead(p.document) for p in HELD], [p.summary for p in HELD]
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"])
    ours = rouge_scores(hyps, refs)
    for name, score in ours.items():
        each = [
            theirs.score(ref, hyp)[name.lower().replace("-", "").replace("l", "L")].fmeasure
            for ref, hyp in zip(refs, hyps, strict=True)
        ]
        assert score == pytest.approx(np.mean(each)) and score.recipe["low"] < score < score.recipe["high"]


@pytest.mark.parametrize("hyps, refs", [([], []), (["a"], []), (["a"], [[]])])
def test_rouge_needs_references(hyps, refs):
    with pytest.raises(ValueError, match="reference|string"):
        rouge_scores(hyps, refs)


def test_detection_counts():
    found = detection_scores([True, True, False, True], [True, False, True, True])
    assert [float(x) for x in found.values()] == pytest.approx([2 / 3, 2 / 3]) and set(found) == {
        "precision",
        "recall",
    }
    assert 0 <= found["recall"].recipe["low"] <= 2 / 3 <= found["recall"].recipe["high"] <= 1


@pytest.mark.parametrize(
    "flags, truth", [([], []), ([False], [True]), ([True], [False]), ([True, True], [True])]
)
def test_detection_needs_one_of_each(flags, truth):
    with pytest.raises(ValueError, match="precision and recall need one of each"):
        detection_scores(flags, truth)


# --- what is copied -----------------------------------------------------------------------------------------


def by_pencil(source, summary):
    "Grusky et al. 2018, figure 3, word for word."
    found, i = [], 0
    while i < len(summary):
        best, j = [], 0
        while j < len(source):
            if summary[i] == source[j]:
                a, b = i, j
                while a < len(summary) and b < len(source) and summary[a] == source[b]:
                    a, b = a + 1, b + 1
                best = summary[i:a] if len(best) < a - i else best
                j = b
            else:
                j += 1
        i, found = i + max(len(best), 1), found + ([best] if best else [])
    return found


@given(st.text("abc", max_size=12), st.text("abcd", max_size=9))
def test_fragments_are_copied_and_cover_all_that_is_known(source, summary):
    found = copied_fragments(source, summary)
    for f in found:
        assert summary[f.at : f.at + f.length] == source[f.source : f.source + f.length]
        ends = f.at + f.length == len(summary)
        assert ends or summary[f.at : f.at + f.length + 1] not in source, "the longest"
    assert sum(f.length for f in found) == sum(c in source for c in summary)


@given(st.text("ab", max_size=8).filter(lambda s: len(set(s)) == len(s)), st.text("abc", max_size=6))
def test_fragments_are_those_of_the_paper(source, summary):
    assert [summary[f.at : f.at + f.length] for f in copied_fragments(source, summary)] == by_pencil(
        source, summary
    )


def test_copying_by_pencil():
    found = extractiveness("The cat sat on the mat.", "the cat SLEPT on a mat")
    assert found == pytest.approx(
        {"coverage": 4 / 6, "density": 6 / 6, "new 1-grams": 2 / 6, "new 2-grams": 4 / 5}
    )
    assert extractiveness(NEWS, lead(NEWS, 2)) == pytest.approx(
        {"coverage": 1, "density": 11, "new 1-grams": 0, "new 2-grams": 0}
    )


@pytest.mark.parametrize("document, summary", [("", "a"), ("a", ""), ("...", "a")])
def test_copying_needs_words(document, summary):
    with pytest.raises(ValueError, match="give two texts with words in them"):
        extractiveness(document, summary)


@given(st.text("aB1 .\n", max_size=12))
def test_pieces_lose_nothing_and_words_have_odd_places(text):
    found = split_gaps(text)
    assert "".join(found) == text and len(found) % 2 == 1
    assert [word.lower() for word in found[1::2]] == rouge_words(text)


def test_the_view_carries_phrases_and_their_places():
    view = phrases_view(**copied_phrases("One day Mia saw a cup.", {"m": "Mia saw two."}))
    (row,) = view.data["summaries"]
    assert row["fragments"] == [[0, 2, 2]] and row["pieces"][1::2] == ["Mia", "saw", "two"]
    assert view.data["source"][1::2][2:4] == ["Mia", "saw"] and "6 words" in view.alt


@pytest.mark.parametrize("document, summaries", [("", {"a": "b"}), ("a", {})])
def test_the_view_needs_words_and_a_summary(document, summaries):
    with pytest.raises(ValueError, match="give a document and {name: summary}"):
        phrases_view(**copied_phrases(document, summaries))


# --- what is not supported ----------------------------------------------------------------------------------


def test_glue_is_what_references_use_without_having_read_it():
    glue = learn_allowed_words(LEARN)
    assert {"left", "found", "received", "present"} <= glue and not {"mia", "barn", "red", "cup"} & glue
    assert not learn_allowed_words(LEARN[:2]), "a word that is missing less than three times is no glue"


def test_unsupported_words_in_order():
    assert unsupported_words(NEWS, "Ann found a red kite", {"found"}) == ["ann", "kite"]
    assert not unsupported_words(NEWS, "The RED cup.") and unsupported_words(NEWS, "mug") == ["mug"], (
        "a paraphrase is a false alarm"
    )


def test_words_find_a_foreign_name_and_miss_a_mix_up():
    glue = learn_allowed_words(LEARN)
    assert not any(unsupported_words(*pair, glue) for pair in HELD)
    assert all(unsupported_words(pair.document, f"Lily {pair.summary}", glue) == ["lily"] for pair in HELD)
    mixed = Pair(NEWS, "The barn lost Mia in a cup.")
    assert not unsupported_words(*mixed, glue)


def test_summaries_in_other_scripts():
    chinese = "今天下雨了。狗跑了。今天下雨了，狗在雨中跑了。"
    assert lead(chinese, 2) == "今天下雨了。狗跑了。"
    assert textrank(chinese, 1) == "今天下雨了，狗在雨中跑了。"
    assert extractiveness("猫坐在垫子上", "猫坐")["coverage"] == 1
    assert unsupported_words("猫坐在垫子上", "狗坐") == ["狗"]
    assert unsupported_words("Le café naïf", "Le CAFÉ noir") == ["noir"]
    assert split_gaps("हिन्दी, 猫a") == ["", "हिन्दी", ", ", "猫", "", "a", ""]
    assert rouge_scores(["猫坐"] * 2, ["猫坐"] * 2, character_words)["ROUGE-1"] == 1
