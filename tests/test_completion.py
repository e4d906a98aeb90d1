"Completion: pieces make the whole again, batches are what they say, and the shipped model reads both sides."

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from llmlab.causal import causal_loss
from llmlab.checkpoints import load_checkpoint, shipped_path
from llmlab.tasks.completion import (
    code_loss,
    complete_lines,
    fill_in_middle,
    middle_nll,
)
from llmlab.tasks.gaps import (
    CodeCollator,
    InfillTokenizer,
    TextGap,
    code_rows,
    cut_cursor,
    cut_gap,
    extract_functions,
    word_ends,
)
from llmlab.tasks.sandbox import parses
from llmlab.text import load_corpus
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config, Decoder

SOURCE = """
class Shop:
    def price(self, item):
        "What it costs."
        if item in self.sale:
            return self.prices[item] / 2
        return self.prices[item]

async def wait(n):
    total = n + 1
    return total
"""
TOKENIZER = InfillTokenizer(Tokenizer.train(SOURCE * 3, 300))


def tiny(**change):
    torch.manual_seed(0)
    return Decoder(
        Config(TOKENIZER.vocab_size, **{**dict(context=96, layers=1, heads=2, d_model=32), **change})
    )


# --- cutting ------------------------------------------------------------------------------------------------


def test_functions_stand_at_the_left_edge_and_parse():
    found = extract_functions(SOURCE)
    assert [text.split("(")[0] for text in found] == ["async def wait", "def price"]
    assert all(parses(text) for text in found)


def test_word_ends_pencil():
    assert word_ends("a = 12") == [1, 3, 6]
    assert word_ends("") == [] and word_ends("f(x)\n") == [1, 2, 3, 4, 5]
    assert word_ends("हिन्दी = cafe\u0301") == [6, 8, 14], "a mark belongs to the letter before it"


@given(st.integers(0, 10_000))
def test_a_cursor_stands_in_a_line_that_ends_a_function(seed):
    for text in extract_functions(SOURCE):
        cut = cut_cursor(text, random.Random(seed))
        assert cut.rest and "\n" not in cut.rest and text.startswith(cut.prefix + cut.rest)
        assert parses(cut.prefix + cut.rest)


def test_a_function_without_such_a_line_has_no_cursor():
    assert cut_cursor("def f():\n    if x:", random.Random(0)) is None
    assert cut_cursor("def f(): 1", random.Random(0)) is None
    assert cut_cursor("def f():\n    # says nothing at all", random.Random(0)) is None
    assert cut_cursor("def f():\n    x = 1  # says\n    # nothing at all", random.Random(0)) is None


@given(st.text(alphabet="ab1_ (=.\n", max_size=60), st.integers(0, 10_000), st.integers(1, 6))
def test_a_gap_is_a_piece_of_one_line(text, seed, words):
    gap = cut_gap(text, random.Random(seed), words)
    if gap is None:
        return
    assert "".join(gap) == text and gap.middle.strip() and 1 <= len(word_ends(gap.middle)) <= words
    assert "\n" not in gap.middle.strip("\n "), "it does not go over a line"


def test_a_text_without_words_has_no_gap():
    assert cut_gap("", random.Random(0)) is None and cut_gap("\n \n", random.Random(0)) is None


# --- rows ---------------------------------------------------------------------------------------------------


def parts(row):
    "What stands behind a gap, and what stands before and in it."
    at = row.index(TOKENIZER.pre)
    return TOKENIZER.base.decode(row[1:at]), TOKENIZER.base.decode(row[at + 1 : -1])


def test_a_row_with_a_gap_pencil():
    row = TOKENIZER.fim_prompt("a = ", "\nb")
    assert TOKENIZER.strings(row)[0] == "[SUF]" and "[PRE]" in TOKENIZER.strings(row)
    assert parts([*row, *TOKENIZER.base.encode("1"), TOKENIZER.eot]) == ("\nb", "a = 1")


def test_every_row_is_a_piece_of_the_text():
    batches = Batches(code_rows([SOURCE]), CodeCollator(TOKENIZER, 120), batch_size=16)
    gaps = plain = 0
    for row in (row for step in range(8) for row in batches(step).tolist()):
        row = [i for i in row if i >= 0]
        if row[0] == TOKENIZER.suf:
            after, before = parts(row)
            assert row[-1] == TOKENIZER.eot and before + after in SOURCE
            gaps += 1
        else:
            assert row[0] == TOKENIZER.eot and TOKENIZER.base.decode(row[1:]) in SOURCE
            plain += 1
    assert 0.7 < gaps / (gaps + plain) < 0.9


def batches_of(*texts, context=64, batch_size=8, seed=0, share=0.8):
    return Batches(code_rows(texts), CodeCollator(TOKENIZER, context, share), batch_size, seed)


def test_a_batch_depends_on_its_step_alone():
    texts = SOURCE, "x = 1\n" * 9
    batch = batches_of(*texts)(5)
    assert torch.equal(batch, batches_of(*texts)(5))
    assert not torch.equal(batch[:, :9], batches_of(*texts)(6)[:, :9])
    assert not torch.equal(batch[:, :9], batches_of(*texts, seed=1)(5)[:, :9])
    assert batch.shape[1] <= 65
    short = batches_of(SOURCE, context=24, batch_size=16)
    assert max(short(step).shape[1] for step in range(20)) <= 25


def test_no_share_of_gaps_and_nothing_else():
    none, every = (batches_of(SOURCE, context=120, share=share)(0) for share in (0.0, 1.0))
    assert (none[:, 0] == TOKENIZER.eot).all() and (every[:, 0] == TOKENIZER.suf).all()


@pytest.mark.parametrize("texts, share", [([], 0.5), (["", " \n"], 0.5), ([SOURCE], 1.5), ([SOURCE], -0.1)])
def test_batches_need_code_and_a_share(texts, share):
    with pytest.raises(ValueError, match="give texts with code in them|share=.*: expected"):
        Batches(code_rows(texts), CodeCollator(TOKENIZER, 64, share))


# --- loss ---------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_chapter_8_where_nothing_is_filled_up():
    model, ids = tiny(), torch.randint(300, (3, 20))
    torch.testing.assert_close(code_loss(model, ids), causal_loss(model, ids))


def test_what_is_filled_up_is_not_scored():
    model, ids = tiny().eval(), Batches(code_rows([SOURCE]), CodeCollator(TOKENIZER, 90), batch_size=8)(0)
    assert (ids < 0).any()
    logits, targets = model(ids[:, :-1].clamp(min=0)), ids[:, 1:]
    wanted = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    torch.testing.assert_close(code_loss(model, ids), wanted)
    wider = F.pad(ids, (0, 5), value=-1)
    torch.testing.assert_close(code_loss(model, wider), wanted)


def test_a_loss_needs_a_second_token():
    with pytest.raises(ValueError, match="a target needs a token before it"):
        code_loss(tiny(), torch.tensor([[5, -1], [7, -1]]))


# --- writing ------------------------------------------------------------------------------------------------


def test_a_line_ends_at_its_end_and_long_texts_are_read_from_their_end():
    model = tiny()
    line = "    return total\n"
    ids = torch.tensor([[TOKENIZER.eot, *TOKENIZER.base.encode(line * 2)]] * 8)
    fit(model, lambda step: ids, code_loss, Recipe(steps=40, lr=1e-2))
    texts = [line + "    return", "zz\n" * 60 + line + "    return"]
    assert complete_lines(model, TOKENIZER, texts) == [" total", " total"]


def test_a_short_memory_sees_no_more_than_its_tokens():
    model = tiny().eval()
    ends = [line * 9 + "return x" for line in ("a = 1\n", "bb = [2]\n")]
    last = TOKENIZER.base.encode(ends[0])[-3:]
    assert TOKENIZER.base.encode(ends[1])[-3:] == last
    assert complete_lines(model, TOKENIZER, ends[:1], max_prompt_tokens=3) == complete_lines(
        model, TOKENIZER, ends[1:], max_prompt_tokens=3
    )
    assert complete_lines(model, TOKENIZER, ends[:1]) != complete_lines(model, TOKENIZER, ends[1:])


def test_it_learns_to_fill_and_to_stop():
    model, gap = tiny(), TextGap("x =", " 12", "\nprint(x)")
    ids = torch.tensor(
        [[*TOKENIZER.fim_prompt(gap.prefix, gap.suffix), *TOKENIZER.base.encode(gap.middle), TOKENIZER.eot]]
        * 8
    )
    fit(model, lambda step: ids, code_loss, Recipe(steps=60, lr=1e-2))
    assert fill_in_middle(model, TOKENIZER, [gap, gap._replace(middle="")]) == [" 12", " 12"]
    assert fill_in_middle(model, TOKENIZER, []) == []


def test_too_much_around_a_gap():
    with pytest.raises(ValueError, match="tokens around it and 24 to write, context 96: give less around it"):
        fill_in_middle(tiny(), TOKENIZER, [TextGap("x = 1\n" * 60, "", "")])


def test_surprise_at_a_middle_is_a_sum_over_its_tokens():
    model, gap = tiny().eval(), TextGap("x =", " 12 + y", "\nprint(x)")
    middle = TOKENIZER.base.encode(gap.middle)
    for each in (gap, gap._replace(suffix="")):
        head = TOKENIZER.fim_prompt(each.prefix, each.suffix)
        logp = model(torch.tensor([head + middle]))[0].log_softmax(-1)
        wanted = -sum(logp[len(head) - 1 + k, i] for k, i in enumerate(middle))
        torch.testing.assert_close(middle_nll(model, TOKENIZER, [each]), wanted[None].detach())


# --- the shipped model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coder():
    path = shipped_path("infilling.safetensors")
    assert path.stat().st_size <= 2_000_000
    return load_checkpoint(path)[0], InfillTokenizer(Tokenizer.load(shipped_path("infilling.tokenizer.json")))


def test_the_shipped_model_reads_what_stands_behind(coder):
    rng, held = random.Random(5), load_corpus("stdlib").split()[1]
    texts = [
        text
        for source in held.documents.values()
        for text in extract_functions(source)
        if 80 < len(text) < 300
    ]
    gaps = [gap for gap in (cut_gap(text, rng) for text in rng.sample(texts, 60)) if gap]
    gaps = [gap for gap in gaps if len(coder[1].fim_prompt(gap.prefix, gap.suffix)) < 130]
    assert (
        middle_nll(*coder, gaps).mean() < middle_nll(*coder, [gap._replace(suffix="") for gap in gaps]).mean()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_same_lines(coder):
    model, tokenizer = coder
    here = complete_lines(model, tokenizer, ["def f(x):\n    return"])
    assert complete_lines(model.cuda(), tokenizer, ["def f(x):\n    return"]) == here
    model.cpu()


def test_a_form_feed_inside_of_a_string_is_no_line_end():
    text = "def f():\n    return 'a\x0cb\u2028c' + 'd'"
    cuts = [cut_cursor(text, random.Random(seed)) for seed in range(5)]
    assert all(cut.prefix + cut.rest == text for cut in cuts)
