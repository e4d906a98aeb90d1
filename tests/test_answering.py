"Windows against the text, spans against brute force, a trained reader, a rival that writes."

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import spans_view
from llmlab.checkpoints import load_checkpoint, load_shipped, read_checkpoint, shipped_path
from llmlab.masked import MaskTokenizer
from llmlab.tasks.answer_models import (
    AnswerWriter,
    answer_loss,
    answer_rows,
    answer_with_transformers,
    generate_answers,
    packed_ids,
)
from llmlab.tasks.answering import (
    Span,
    SpanReader,
    answer_question,
    best_spans,
    best_window,
    classify_answer,
    span_grid,
    span_loss,
    start_end_scores,
)
from llmlab.tasks.question_windows import (
    Window,
    answer_positions,
    pad_windows,
    passage_mask,
    single_windows,
    span_rows,
    split_windows,
    trim_rows,
)
from llmlab.tasks.questions import Item, make_questions, score_by_kind
from llmlab.tasks.text_pairs import pad_pairs, split_batch
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config

ITEMS = make_questions(100, False)
TOKENIZER = MaskTokenizer(Tokenizer.train(" ".join(i.passage + " " + i.question for i in ITEMS), 500))
ACCENTS = Item("simple", "Zoë wohnt in Łódź heute. Tom owns it.", "Where is Zoë?", "Łódź heute", (), ())


def model(segments=4, **more):
    torch.manual_seed(0)
    shape = dict(context=128, layers=1, heads=2, d_model=16, segments=segments) | more
    return SpanReader(Config(TOKENIZER.vocab_size, **shape))


def text(row, s, e):
    return TOKENIZER.base.decode(row.ids[s : e + 1]).strip()


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [*ITEMS[:30], ACCENTS], ids=lambda item: item.kind)
def test_a_row_has_question_and_passage_and_the_answer_in_it(item):
    (row,) = split_windows(TOKENIZER, item.question, item.passage, 128)
    first = row.ids.index(TOKENIZER.sep)
    assert row.ids[0] == TOKENIZER.cls and row.ids[-1] == TOKENIZER.sep and row.ids.count(TOKENIZER.sep) == 2
    assert text(row, 1, first - 1) == item.question and text(row, first + 1, len(row.ids) - 2) == item.passage
    assert [p in (1, 2) for p in row.parts] == [first < i < len(row.ids) - 1 for i in range(len(row.ids))]
    assert row.parts[-1] == 3 and set(row.parts[: first + 1]) == {0}
    s, e = answer_positions(TOKENIZER, row, item.passage, item.answer)
    assert text(row, s, e) == item.answer if item.answer else (s, e) == (0, 0)


def test_part_2_marks_the_tokens_that_the_question_has_too():
    (row,) = split_windows(TOKENIZER, "Where is Mia Stone?", "Mia Stone lives in Old Dover.", 64)
    asked = set(row.ids[1 : row.ids.index(TOKENIZER.sep)])
    for i, part in zip(row.ids, row.parts, strict=True):
        assert (part == 2) == (i in asked) or part in (0, 3)
    assert [row.parts[row.ids.index(TOKENIZER.sep) + k] for k in (1, 2)] == [2, 2], (
        "the first word of the passage, too"
    )


@given(st.integers(0, 200), st.integers(20, 60), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_passage_and_overlap(n, context, overlap):
    passage = " ".join(["cat", "sat", "mat"][i % 3] for i in range(n))
    told = [i for i, _ in TOKENIZER.pieces(f" {passage}" * bool(passage))]
    found = split_windows(TOKENIZER, "who?", passage, context, overlap)
    parts = [[i for i, p in zip(*row, strict=True) if p in (1, 2)] for row in found]
    assert all(len(row.ids) == len(row.parts) <= context for row in found)
    assert parts[0] + [i for part in parts[1:] for i in part[overlap:]] == told
    for one, two in itertools.pairwise(parts):
        assert overlap == 0 or one[-overlap:] == two[:overlap]
    assert all(len(part) > overlap for part in parts[1:]), "a window with nothing new is none"


@pytest.mark.parametrize(
    "question, context, words",
    [
        ("", 64, "a question of 0 tokens, context 64, overlap 16: ask something"),
        (
            "why " * 60,
            64,
            r"context 64, overlap 16: the passage gets -\d+: shorten the question, or raise context",
        ),
        ("why?", 21, "the passage gets 1"),
    ],
)
def test_a_question_that_is_empty_or_leaves_no_room(question, context, words):
    with pytest.raises(ValueError, match=words):
        split_windows(TOKENIZER, question, "The cat sat.", context)
    with pytest.raises(ValueError, match=words):
        answer_question(model(), TOKENIZER, [(question, "The cat sat.")], context)


def test_an_answer_that_is_no_piece_of_the_passage():
    (row,) = split_windows(TOKENIZER, "who?", "The cat sat.", 64)
    with pytest.raises(
        ValueError, match="'dog' is no piece of 'The cat sat.': an extractive model cannot learn it"
    ):
        answer_positions(TOKENIZER, row, "The cat sat.", "dog")


def test_stack_rows_pencil():
    assert pad_windows([Window([5, 6], [0, 1]), Window([7], [0])], 9).tolist() == [
        [[5, 6], [0, 1]],
        [[7, 9], [0, -1]],
    ]


def test_batches_hold_the_answers_and_depend_on_seed_and_step():
    batches = Batches(span_rows(ITEMS, TOKENIZER, 128), trim_rows, batch_size=20)
    batch, known = batches(3), {i.answer for i in ITEMS}
    assert torch.equal(batch, batches(3)) and not torch.equal(batch, batches(4))
    assert (batch[:, 2:].sum(-1) == 1).all() and (batch[:, 1, -1] >= 0).any(), "no column of padding alone"
    for ids, _, first, last in batch.tolist():
        s, e = first.index(1), last.index(1)
        assert (TOKENIZER.base.decode(ids[s : e + 1]).strip() if s else "") in known


@pytest.mark.parametrize("kind", [span_rows, answer_rows])
def test_batches_need_questions_that_fit(kind):
    for items, context in (([], 128), (ITEMS, 32)):
        with pytest.raises(ValueError, match="questions, longest allowed row|shorten the question"):
            kind(items, TOKENIZER, context)


# --- spans --------------------------------------------------------------------------------------------------


def brute(scores, inside, longest):
    "The best legal span by trying all, the first of equals."
    best = None
    for i, j in itertools.product(range(len(inside)), repeat=2):
        if inside[i] and inside[j] and i <= j < i + longest:
            total = scores[i][0] + scores[j][1]
            if best is None or total > best[2]:
                best = (i, j, total)
    return best


@given(st.data(), st.integers(1, 9), st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_best_spans_equal_brute_force(data, t, longest):
    values = data.draw(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=t, max_size=t))
    inside = data.draw(st.lists(st.booleans(), min_size=t, max_size=t))
    (span,) = best_spans(torch.tensor([values]).float(), torch.tensor([inside]), longest)
    wanted = brute(values, inside, longest)
    assert span.none == sum(values[0])
    assert span[:3] == wanted if wanted else span.score == -math.inf


def test_grid_pencil():
    scores = torch.tensor([[[0.0, 9], [1, 10], [2, 20], [4, 40]]])
    inside, no = torch.tensor([[False, True, True, True]]), -math.inf
    wanted = [[no, no, no, no], [no, 11, 21, no], [no, no, 22, 42], [no, no, no, 44]]
    assert span_grid(scores, inside, 2)[0].tolist() == wanted
    with pytest.raises(ValueError, match="longest=0: expected a whole number of at least 1"):
        span_grid(scores, inside, 0)


def test_choose_holds_the_best_span_against_the_weakest_none():
    one, two, empty = Span(3, 4, 5.0, 4.0), Span(1, 1, 2.0, 1.0), Span(0, 0, -math.inf, 0.0)
    assert best_window([one]) == 0 and best_window([two, one]) == 1 and best_window([empty]) is None
    assert best_window([one], margin=1.0) is None and best_window([one], margin=0.9) == 0
    assert best_window([one, two], margin=3.9) == 0, "the none of the other window, 1, is the weakest"
    assert best_window([empty], margin=-1e9) is None, "no legal span is no answer, whatever the margin"


# --- the head and its loss ----------------------------------------------------------------------------------


def test_no_answer_may_start_in_the_question_or_the_padding():
    batch = Batches(span_rows(ITEMS, TOKENIZER, 128), trim_rows, batch_size=16)(0)
    scores, allowed = start_end_scores(model(), batch), passage_mask(batch[:, 1])
    allowed[:, 0] = True
    assert (scores.isfinite() == allowed[..., None]).all()


def test_padding_changes_nothing():
    rows = [split_windows(TOKENIZER, i.question, i.passage, 128)[0] for i in ITEMS[:6]]
    together = start_end_scores(model(), pad_windows(rows, TOKENIZER.pad))
    for row, scores in zip(rows, together, strict=True):
        alone = start_end_scores(model(), pad_windows([row], TOKENIZER.pad))[0]
        torch.testing.assert_close(scores[: len(row.ids)], alone)


def test_two_segments_know_nothing_of_exact_match():
    (row,) = split_windows(TOKENIZER, ITEMS[0].question, ITEMS[0].passage, 128)
    marked = pad_windows([row], TOKENIZER.pad)
    plain = marked.clone()
    plain[:, 1][plain[:, 1] == 2] = 1
    assert torch.equal(start_end_scores(model(2), marked), start_end_scores(model(2), plain))
    assert not torch.equal(start_end_scores(model(), marked), start_end_scores(model(), plain))


def test_the_loss_is_the_mean_of_two_cross_entropies():
    net, batch = model(), Batches(span_rows(ITEMS, TOKENIZER, 128), trim_rows, batch_size=8)(1)
    scores = start_end_scores(net, batch)
    wanted = sum(F.cross_entropy(scores[..., k], batch[:, 2 + k].argmax(-1)) for k in (0, 1)) / 2
    torch.testing.assert_close(span_loss(net, batch), wanted)
    uniform = lambda ids, mask, parts: torch.zeros(*ids.shape, 2)  # noqa: E731
    row = torch.tensor([[[1, 2, 3, 4, 5], [0, 0, 1, 1, 3], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]])
    assert span_loss(uniform, row).item() == pytest.approx(math.log(3)), "[CLS] and two tokens of the passage"


def test_a_loss_needs_rows():
    batch = Batches(span_rows(ITEMS, TOKENIZER, 128), trim_rows, batch_size=8)(0)
    with pytest.raises(ValueError, match="a batch without rows, and a mean of nothing is no loss"):
        span_loss(model(), batch[:0])


# --- answers ------------------------------------------------------------------------------------------------


class Finds(torch.nn.Module):
    "Knows the ids of an answer: high scores where they begin and end, `none` at [CLS]."

    def __init__(self, answer, none=0.0):
        super().__init__()
        self.ids, self.none = [i for i, _ in TOKENIZER.pieces(f" {answer}")], none

    def forward(self, ids, mask, segments):
        scores = torch.full((*ids.shape, 2), -5.0)
        scores[:, 0] = self.none
        for b, row in enumerate(ids.tolist()):
            for i in range(len(row)):
                if row[i : i + len(self.ids)] == self.ids:
                    scores[b, i, 0] = scores[b, i + len(self.ids) - 1, 1] = 5.0
        return scores


@pytest.mark.parametrize("item", [*[i for i in ITEMS[:12] if i.answer], ACCENTS], ids=lambda item: item.kind)
@pytest.mark.parametrize("context", [48, 128])
def test_an_answer_is_found_in_whichever_window_it_stands(item, context):
    passage = f"{'The cat sat on the mat. ' * 12}{item.passage}{' The cat sat on the mat.' * 12}"
    assert len(split_windows(TOKENIZER, item.question, passage, context)) > 1
    pairs = [(item.question, passage), (item.question, "The cat sat.")]
    found = answer_question(Finds(item.answer), TOKENIZER, pairs, context, longest=20)
    assert found == [item.answer, ""]


def test_margin_decides_between_a_span_and_none():
    pair = [("Where?", "Mia Stone lives in Old Dover.")]
    assert answer_question(Finds("Old Dover", none=4.0), TOKENIZER, pair) == ["Old Dover"]
    assert answer_question(Finds("Old Dover", none=6.0), TOKENIZER, pair) == [""]
    assert answer_question(Finds("Old Dover", none=4.0), TOKENIZER, pair, margin=3.0) == [""]
    assert answer_question(Finds("Old Dover", none=6.0), TOKENIZER, pair, margin=-3.0) == ["Old Dover"]
    assert answer_question(Finds("Old Dover"), TOKENIZER, pair, longest=1) == [""], "two tokens are too long"


def test_a_passage_without_text_and_a_batch_without_questions():
    assert answer_question(model(), TOKENIZER, [("Where?", "")], margin=-1e9) == [""]
    assert (
        answer_question(model(), TOKENIZER, []) == []
        and best_spans(torch.zeros(0, 3, 2), torch.zeros(0, 3).bool()) == []
    )


def test_batching_changes_no_answer_and_leaves_the_mode():
    net, pairs = model(dropout=0.5).train(), [(i.question, i.passage) for i in ITEMS]
    said = answer_question(net, TOKENIZER, pairs, margin=-99)
    assert said == [answer_question(net, TOKENIZER, [pair], margin=-99)[0] for pair in pairs]
    assert net.training and all(piece in passage for piece, (_, passage) in zip(said, pairs, strict=True))


def test_fit_learns_two_questions():
    passage, known = "Mia lives in Dover. Tom lives in Corby.", {"Mia": "Dover", "Tom": "Corby", "Sam": ""}
    items = [Item("simple", passage, f"Where does {a} live?", b, (), ()) for a, b in known.items()]
    net = model(layers=2, d_model=32)
    fit(
        net,
        Batches(span_rows(items, TOKENIZER, 64), trim_rows, batch_size=8),
        span_loss,
        Recipe(steps=80, lr=5e-3),
    )
    assert answer_question(net, TOKENIZER, [(i.question, i.passage) for i in items]) == ["Dover", "Corby", ""]


# --- the rival that writes ----------------------------------------------------------------------------------


CFG = Config(TOKENIZER.vocab_size, context=128, layers=2, heads=2, d_model=32, position="rope", segments=4)


def writer(**change):
    torch.manual_seed(0)
    return AnswerWriter(replace(CFG, **change))


def test_a_row_in_one_number_is_read_as_ids_and_parts():
    rows, source = single_windows(ITEMS[:5], TOKENIZER, 128), packed_ids(ITEMS[:5], TOKENIZER, 128)
    net = SpanReader(CFG).eval()
    alone = AnswerWriter(CFG).start_from(net).eval()
    for row, ids in zip(rows, source, strict=True):
        wanted = net.encoder(torch.tensor([row.ids]), segments=torch.tensor([row.parts]))
        torch.testing.assert_close(alone.encoder(torch.tensor([ids])), wanted)
    torch.testing.assert_close(alone.decoder.embed.tokens.weight, net.encoder.embed.tokens.weight)


def test_the_writer_is_asked_for_the_answer_alone():
    batch = Batches(answer_rows(ITEMS, TOKENIZER, 128), pad_pairs, batch_size=16)(0)
    sources = packed_ids(ITEMS, TOKENIZER, 128)
    for source, target in batch.tolist():
        said = [i for i in target if i >= 0]
        item = ITEMS[sources.index([i for i in source if i >= 0])]
        assert (said[0], said[-1]) == (TOKENIZER.cls, TOKENIZER.sep)
        assert TOKENIZER.base.decode(said[1:-1]).strip() == item.answer
    net = writer().eval()
    source, real, target = split_batch(batch)
    logits = net(source, target[:, :-1].clamp(min=0), real)
    at = target[:, 1:] >= 0
    torch.testing.assert_close(answer_loss(net, batch), F.cross_entropy(logits[at], target[:, 1:][at]))


def test_the_writer_learns_to_write_and_to_stop():
    items = [ITEMS[0], ITEMS[1], next(item for item in ITEMS if not item.answer)]
    net = writer()
    fit(
        net,
        Batches(answer_rows(items, TOKENIZER, 120), pad_pairs, batch_size=8),
        answer_loss,
        Recipe(steps=60, lr=5e-3),
    )
    assert generate_answers(net, TOKENIZER, items) == [item.answer for item in items]


@pytest.fixture(scope="module")
def shipped_models():
    path = shipped_path("answering-marks.safetensors")
    cfg = Config(**read_checkpoint(path)[0]["config"])
    models = (
        load_checkpoint(path, SpanReader(cfg))[0],
        load_shipped("answering-writes", AnswerWriter(cfg))[0],
    )
    return *models, MaskTokenizer(Tokenizer.load(shipped_path("answering.tokenizer.json")))


def test_the_shipped_models_answer_what_they_never_saw(shipped_models):
    reader, rival, tokenizer = shipped_models
    items = make_questions(300, True, seed=5)
    marked = score_by_kind(
        items, answer_question(reader, tokenizer, [(i.question, i.passage) for i in items])
    )
    wrote = score_by_kind(items, generate_answers(rival, tokenizer, items))
    for kind in ("simple", "distractors", "no answer"):
        assert marked[kind] >= 0.95 and wrote[kind] >= 0.9
    assert marked["paraphrase"] > 0.7 and marked["two-hop"] > wrote["two-hop"] + 0.2


def test_fates_pencil():
    item = Item("simple", "Mia Stone lives in Old Dover.", "Where?", "Old Dover", (), ())
    said = ["the old Dover!", "Mia Stone", "", "New Dover"]
    assert [classify_answer(item, s) for s in said] == ["right", "from the passage", "silent", "invented"]
    assert classify_answer(item._replace(answer=""), "") == "right"


# --- the figure ---------------------------------------------------------------------------------------------


def test_the_view_starts_at_the_best_span():
    scores = torch.tensor([[1.0, 1], [3, 0], [0, 2], [-math.inf, 0]])
    view = spans_view(["[CLS]", " old", " mat", "."], scores, torch.tensor([False, True, True, True]), 2)
    assert (view.start, view.end, view.data["none"]) == (1, 2, 2.0) and "' old mat'" in view.alt
    assert view.data["start"] == [1, 3, 0, -99] and view.data["longest"] == 2


@pytest.mark.parametrize("n, inside", [(2, [True] * 3), (3, [False] * 3)])
def test_the_view_needs_a_score_a_token_and_a_passage(unchecked, n, inside):
    with pytest.raises(ValueError, match="give one of each for every token, and at least one token inside"):
        spans_view(list("abc"), torch.zeros(n, 2), torch.tensor(inside))


# --- transformers -------------------------------------------------------------------------------------------

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] where does mia tom live ? lives in dover corby old .".split()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    "A tiny BERT for questions with a tokenizer, made from a config, saved and loaded from the disk."
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **shape)
    torch.manual_seed(0)
    transformers.BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=24)
    return transformers.AutoModelForQuestionAnswering.from_pretrained(folder), tokenizer


def by_hand(model, tokenizer, question, passage, longest):
    "Each window alone, all spans tried."
    cut = dict(truncation="only_second", max_length=24, stride=8, padding=True, return_tensors="pt")
    rows = tokenizer(
        [question], [passage], return_overflowing_tokens=True, return_offsets_mapping=True, **cut
    )
    best, none = (-math.inf, ""), math.inf
    for k in range(len(rows["input_ids"])):
        out = model(**{name: rows[name][k : k + 1] for name in tokenizer.model_input_names})
        start, end = out.start_logits[0].tolist(), out.end_logits[0].tolist()
        none = min(none, start[0] + end[0])
        inside = [part == 1 for part in rows.sequence_ids(k)]
        i, j, score = brute(list(zip(start, end, strict=True)), inside, longest)
        if score > best[0]:
            best = score, passage[rows["offset_mapping"][k][i][0] : rows["offset_mapping"][k][j][1]]
    return best[1] if best[0] > none else ""


@pytest.mark.parametrize("times", [1, 5])
def test_their_model_through_our_decoding(theirs, times):
    question, passage = "Where does Mia live?", "Mia lives in old Dover. Tom lives in Corby. " * times
    model, _ = theirs
    with torch.no_grad():
        for bias in (0.0, 3.0, -3.0):
            model.qa_outputs.weight.mul_(5 if bias == 0 else 1)
            wanted = by_hand(*theirs, question, passage, 3)
            assert answer_with_transformers(*theirs, question, passage, longest=3) == wanted
    assert answer_with_transformers(*theirs, question, passage, margin=-99, longest=3) in passage != ""
    assert (
        answer_with_transformers(*theirs, question, passage, margin=1e9)
        == ""
        == answer_with_transformers(*theirs, question, "")
    )


def test_their_model_needs_a_question(theirs):
    with pytest.raises(ValueError, match="question ' ': ask something"):
        answer_with_transformers(*theirs, " ", "Mia lives in Dover.")


def test_a_trained_model_of_theirs_answers(theirs):
    model, tokenizer = theirs
    pairs = [("Where does Mia live?", "Mia lives in old Dover. Tom lives in Corby.", "old Dover"),
             ("Where does Tom live?", "Mia lives in old Dover. Tom lives in Corby.", "Corby")]  # fmt: skip
    opt = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(200):
        rows = tokenizer([q for q, *_ in pairs], [p for _, p, _ in pairs], return_tensors="pt")
        spots = torch.tensor([[10, 11], [16, 16]])
        loss = model(**rows, start_positions=spots[:, 0], end_positions=spots[:, 1]).loss
        opt.zero_grad(), loss.backward(), opt.step()
    assert [answer_with_transformers(model, tokenizer, q, p) for q, p, _ in pairs] == [a for *_, a in pairs]


# --- a GPU --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_same_answers():
    net, pairs = model(), [(i.question, i.passage) for i in ITEMS]
    here = answer_question(net, TOKENIZER, pairs, margin=-99)
    assert answer_question(net.cuda(), TOKENIZER, pairs, margin=-99) == here


def test_an_answer_is_found_as_a_word_of_its_own():
    "The first 'art' is a part of 'start'; in Chinese there is no space to look for."
    for passage, told, at in (
        ("A start is art.", "art", 11),
        ("他在北京。", "北京", 2),
        ("It costs 60M.", "60", 9),
    ):
        row = split_windows(TOKENIZER, "what?", passage, 128)[0]
        first, last = answer_positions(TOKENIZER, row, passage, told)
        texts = [TOKENIZER.base[i] if i < TOKENIZER.base.vocab_size else b"" for i in row.ids]
        start = next(j for j, part in enumerate(row.parts) if part in (1, 2))
        before = b"".join(texts[start:first]).decode(errors="ignore")
        assert passage[:at].strip() in before.strip() and len(before.strip()) <= at
        assert told in b"".join(texts[first : last + 1]).decode(errors="ignore")


def test_an_invented_part_of_a_word_is_not_from_the_passage():
    item = Item("simple", "The start was good.", "What was good?", "start", ("start",), ())
    assert (
        classify_answer(item, "art") == "invented" and classify_answer(item, "was good") == "from the passage"
    )
