"Masking against the field's collator, the loss against PyTorch's, gaps against a loop."

import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import losses, segmentation
from llmlab.mask_tokens import MASK, SPECIAL, Neighbours, hide_each, is_special, split_at_masks
from llmlab.masked import (
    MaskCollator,
    MaskedLM,
    Masking,
    MaskTokenizer,
    corrupt,
    fill_mask,
    gap_logprobs,
    masked_logits,
    masked_loss,
    padded_rows,
    pseudo_logprobs,
)
from llmlab.metrics import accuracy, perplexity
from llmlab.tokens import Tokenizer, pre_tokenize
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config, count_parameters

TEXT = "The cat sat on the mat. The dog sat on the log, and 2048 unbelievable elephants sang."
TOKENIZER = MaskTokenizer(Tokenizer.train(TEXT * 3, 300))
V = TOKENIZER.vocab_size
CFG = Config(vocab_size=V, context=32, layers=2, heads=2, d_model=16)
ALL, ONE = Masking(0.15, mask=1.0, random=0.0), Masking(1e-9, mask=1.0, random=0.0)


def model(**change):
    torch.manual_seed(0)
    return MaskedLM(replace(CFG, **change)).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_rows(n=4, t=12, seed=0, pad=0):
    "Random text between [CLS] and [SEP], the last `pad` columns [PAD]."
    ids = torch.randint(V - 5, (n, t), generator=generator(seed))
    ids[:, 0], ids[:, t - pad - 1 :], ids[:, t - pad - 1] = TOKENIZER.cls, TOKENIZER.pad, TOKENIZER.sep
    return ids


# --- the tokenizer ------------------------------------------------------------------------------------------


def test_special_ids_stand_after_those_of_the_tokenizer():
    base = TOKENIZER.base
    assert [TOKENIZER.pad, TOKENIZER.cls, TOKENIZER.sep, TOKENIZER.mask] == [*range(base.vocab_size, V)]
    assert TOKENIZER.strings(range(V - 4, V)) == list(SPECIAL) and TOKENIZER.special[0] == base.eot
    assert TOKENIZER.strings([TOKENIZER.cls, *base.encode(" cat")]) == ["[CLS]", "·cat"]


def spaced(text):
    "Of scripts that put spaces between words, printable, without a gap."
    return text.isprintable() and MASK not in text and not re.search(f"[{segmentation.UNSPACED}]", text)


@settings(max_examples=50)
@given(st.text(max_size=40).filter(spaced))
def test_text_without_gaps_is_tokenized_as_before(text):
    assert TOKENIZER.encode(text) == [TOKENIZER.cls, *TOKENIZER.base.encode(text), TOKENIZER.sep]
    numbers = [n for _, n in TOKENIZER.pieces(text)]
    lengths = [len(TOKENIZER.base.encode(word)) for word in pre_tokenize(text)]
    assert numbers == [n for n, length in enumerate(lengths) for _ in range(length)]


@pytest.mark.parametrize(
    "text, parts",
    [
        ("The [MASK] sat", ["The", MASK, " sat"]),
        ("[MASK] cat [MASK].", [MASK, " cat", MASK, "."]),
        ("a[MASK]b", ["a", MASK, "b"]),
        ("a  [MASK]", ["a", " ", MASK]),
        ("[MASK][MASK]", [MASK, MASK]),
        ("[CLS] [mask]", ["[", "CLS", "]", " [", "mask", "]"]),
        ("", []),
    ],
)
def test_a_gap_is_one_piece_and_takes_one_space(text, parts):
    assert split_at_masks(text) == parts


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_are_closed_and_padded():
    ids, numbers = padded_rows(["The cat", "The"], TOKENIZER, 10).unbind(1)
    the, cat = TOKENIZER.base.encode("The cat")
    pad, cls, sep, _ = range(V - 4, V)
    assert ids.tolist() == [[cls, the, cat, sep], [cls, the, sep, pad]]
    assert numbers.tolist() == [[-1, 0, 1, -1], [-1, 0, -1, -1]]


@pytest.mark.parametrize("context", [3, 4, 7, 100])
def test_long_texts_go_on_in_further_rows_and_nothing_is_lost(context):
    ids, _ = padded_rows([TEXT, "", TEXT], TOKENIZER, context).unbind(1)
    assert ids.shape[1] <= context and not is_special(ids, TOKENIZER).all(-1).any()
    assert ids[~is_special(ids, TOKENIZER)].tolist() == 2 * TOKENIZER.base.encode(TEXT)


@pytest.mark.parametrize("texts, context", [([], 10), (["", ""], 10), (["The"], 2)])
def test_rows_need_text_and_room(texts, context):
    with pytest.raises(
        ValueError, match=rf"rows of at most {context} tokens: give text, and room for \[CLS\]"
    ):
        padded_rows(texts, TOKENIZER, context)


# --- hiding -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(0.001, 0.999), st.floats(0, 1), st.integers(0, 5))
def test_corruption_keeps_its_promises(seed, rate, mask, pad):
    ids = some_rows(seed=seed, pad=pad)
    batch = corrupt(ids, TOKENIZER, Masking(rate, mask, (1 - mask) / 2), generator(seed))
    inputs, labels, there = batch.unbind(1)
    target, special = labels != -100, is_special(ids, TOKENIZER)
    assert not (target & special).any(), "padding and special tokens are never targets"
    assert target.any(-1).all(), "no row without a target"
    assert torch.equal(labels[target], ids[target]) and torch.equal(inputs[~target], ids[~target])
    assert torch.equal(there, (ids != TOKENIZER.pad).long())
    assert (~is_special(inputs, TOKENIZER) | (inputs == TOKENIZER.mask))[target].all(), (
        "strangers are ordinary tokens"
    )


def test_a_row_without_a_chosen_token_gets_one_and_a_row_of_padding_none():
    ids = torch.cat([some_rows(50), torch.full((1, 12), TOKENIZER.pad)])
    assert (corrupt(ids, TOKENIZER, ONE, generator())[:, 1] != -100).sum(-1).tolist() == [1] * 50 + [0]


def near(share, p, n):
    "Within four standard deviations of a share of n draws."
    return abs(share - p) < 4 * math.sqrt(p * (1 - p) / n) + 1e-9


def shares(inputs, labels, ids, mask, free):
    "Targets among free tokens, and what became of them."
    target = labels != -100
    kinds = Counter(torch.where(inputs == mask, 0, torch.where(inputs == ids, 1, 2))[target].tolist())
    n = int(target.sum())
    return n / int(free.sum()), kinds[0] / n, kinds[1] / n, kinds[2] / n, n


@pytest.mark.parametrize(
    "rate, mask, random", [(0.15, 0.8, 0.1), (0.3, 1.0, 0.0), (0.5, 0.2, 0.7), (0.15, 0.0, 0.5)]
)
def test_shares(rate, mask, random):
    ids = some_rows(400, 64, pad=10)
    free = ~is_special(ids, TOKENIZER)
    inputs, labels, _ = corrupt(ids, TOKENIZER, Masking(rate, mask, random), generator(3)).unbind(1)
    targets, masked, kept, strange, n = shares(inputs, labels, ids, TOKENIZER.mask, free)
    same = random / (V - 5)  # a stranger that happens to be the token itself
    assert near(targets, rate, int(free.sum()))
    assert (
        near(masked, mask, n) and near(kept, 1 - mask - random + same, n) and near(strange, random - same, n)
    )


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_shares_equal_those_of_transformers(rate):
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    vocab = {name: i for i, name in enumerate([*(f"w{i}" for i in range(V - 4)), *SPECIAL])}
    words_ = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="w0"))
    names = dict(zip(["pad_token", "cls_token", "sep_token", "mask_token"], SPECIAL, strict=True))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=words_, **names)
    torch.manual_seed(5)
    ids = some_rows(400, 64, pad=10)
    collator = transformers.DataCollatorForLanguageModeling(theirs, mlm_probability=rate)
    batch = collator([{"input_ids": row} for row in ids])
    free, results = ~is_special(ids, TOKENIZER), []
    ours = corrupt(ids, TOKENIZER, Masking(rate), generator(5)).unbind(1)[:2]
    for inputs, labels in (ours, (batch["input_ids"], batch["labels"])):
        assert not ((labels != -100) & ~free).any()
        results.append(shares(inputs, labels, ids, TOKENIZER.mask, free))
    for a, b, p in zip(*results, [rate, 0.8, 0.1, 0.1], strict=False):
        n = int(free.sum()) if p == rate else min(results[0][-1], results[1][-1])
        assert abs(a - b) < 4 * math.sqrt(2 * p * (1 - p) / n), (a, b)


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(0.05, 0.9))
def test_whole_words_are_hidden_together(seed, rate):
    ids, numbers = padded_rows([TEXT, "unbelievable elephants"], TOKENIZER, 40).unbind(1)
    batch = corrupt(ids, TOKENIZER, Masking(rate, 1.0, 0.0, whole_words=True), generator(seed), numbers)
    for target, number in zip(batch[:, 1] != -100, numbers, strict=True):
        assert target.any() and not target[number < 0].any()
        assert all(len(set(target[number == n].tolist())) == 1 for n in number[number >= 0].unique())


def test_whole_words_keep_the_rate_of_words():
    ids, numbers = padded_rows([TEXT] * 500, TOKENIZER, 99).unbind(1)
    how = Masking(0.2, 1.0, 0.0, whole_words=True)
    target = corrupt(ids, TOKENIZER, how, generator(), numbers)[:, 1] != -100
    first = numbers.diff(dim=1, prepend=torch.full((500, 1), -1)) > 0
    assert near((target & first).sum() / first.sum(), 0.2, int(first.sum()))


@pytest.mark.parametrize("rate", [0, 1, 0.0, 1.0, -0.1, 1.5])
def test_masking_needs_targets_and_context(rate, unchecked):
    with pytest.raises(ValueError, match=rf"rate={rate}: expected a number above 0"):
        Masking(rate)


@pytest.mark.parametrize("mask, random", [(0.8, 0.3), (0.6, 0.5)])
def test_masking_needs_shares(mask, random):
    with pytest.raises(ValueError, match=rf"mask={mask} and random={random} are shares of the targets"):
        Masking(0.15, mask, random)


@pytest.mark.parametrize(
    "ids, how, words",
    [
        (
            torch.full((2, 5), TOKENIZER.pad),
            Masking(),
            "padding and special tokens alone, nothing to hide: give",
        ),
        (
            torch.tensor([[TOKENIZER.cls, TOKENIZER.sep, TOKENIZER.mask]]),
            Masking(),
            "padding and special tokens alone",
        ),
        (
            torch.tensor([[0, V]]),
            Masking(),
            rf"ids \[1, 2\], expected some from 0 to {V - 1}: use their own tokenizer",
        ),
        (torch.tensor([[-1, 3]]), Masking(), r"ids \[1, 2\], expected some from 0"),
        (torch.zeros(0, 5, dtype=torch.long), Masking(), r"ids \[0, 5\], expected some"),
        (
            torch.tensor([[1, 2]]),
            Masking(whole_words=True),
            "whole_words=True, but no numbers of words: pass the",
        ),
    ],
)
def test_what_cannot_be_hidden(ids, how, words):
    with pytest.raises(ValueError, match=words):
        corrupt(ids, TOKENIZER, how)


# --- batches ------------------------------------------------------------------------------------------------


def test_batches_depend_on_seed_and_step_alone():
    data = padded_rows([TEXT, "The cat", "The dog sat", TEXT[::-1]], TOKENIZER, 32)
    batches = Batches(data, MaskCollator(TOKENIZER, Masking(0.3)), batch_size=8, seed=1)
    later = batches(5)
    again = Batches(data, MaskCollator(TOKENIZER, Masking(0.3)), batch_size=8, seed=1)
    assert torch.equal(later, again(5)) and torch.equal(later, batches(5))
    other = Batches(data, MaskCollator(TOKENIZER, Masking(0.3)), batch_size=8, seed=2)
    for changed in (batches(6), other(5)):
        assert changed.shape != later.shape or not torch.equal(changed, later)


def test_batches_are_no_longer_than_their_longest_row():
    batches = Batches(
        padded_rows(["The cat", TEXT], TOKENIZER, 99), MaskCollator(TOKENIZER, Masking()), batch_size=1
    )
    assert len({batches(step).shape[-1] for step in range(20)}) == 2
    assert all(batches(step)[:, 2].all() for step in range(20))


@pytest.mark.parametrize("whole_words", [False, True])
def test_no_batch_is_without_a_target(whole_words):
    data = padded_rows([*["[MASK]"] * 9, "The cat", "", "[MASK][MASK]"], TOKENIZER, 9)
    assert len(data) == 1, "rows without text are left out"
    batches = Batches(data, MaskCollator(TOKENIZER, Masking(1e-9, whole_words=whole_words)), batch_size=2)
    assert all((batches(step)[:, 1] != -100).sum() == 2 for step in range(50))


def test_batches_of_padding_alone_are_refused():
    with pytest.raises(ValueError, match="padding and special tokens alone"):
        Batches(torch.full((3, 2, 4), TOKENIZER.cls), MaskCollator(TOKENIZER))(0)


# --- model and loss -----------------------------------------------------------------------------------------


def test_bert_base_has_its_published_size():
    bert = Config(
        30522, 512, 12, 12, 768, norm_place="post", norm_eps=1e-12, feed_forward="gelu_exact", segments=2
    )
    with torch.device("meta"):
        assert count_parameters(MaskedLM(bert)) == 109_514_298


@pytest.mark.parametrize("ours, theirs", [("gelu_exact", "gelu"), ("gelu", "gelu_new")])
def test_the_head_equals_that_of_transformers(ours, theirs):
    transformers = pytest.importorskip("transformers")
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    net, h = model(feed_forward=ours), 3 * torch.randn(7, 16, generator=generator())
    torch.nn.init.normal_(net.bias, generator=generator())
    cfg = transformers.BertConfig(
        vocab_size=V, hidden_size=16, hidden_act=theirs, layer_norm_eps=net.norm.eps
    )
    head = BertLMPredictionHead(cfg)
    head.transform.dense, head.transform.LayerNorm, head.decoder.bias = net.transform, net.norm, net.bias
    head.decoder.weight = net.encoder.embed.tokens.weight
    torch.testing.assert_close(net.logits(h), head(h), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
@pytest.mark.parametrize("norm_place", ["pre", "post"])
def test_both_sides_are_seen_and_padding_is_not(position, norm_place):
    net, ids = model(position=position, norm_place=norm_place), some_rows(1, 8)
    padded = F.pad(ids, (0, 4), value=TOKENIZER.pad)
    short, long = net(ids), net(padded, padded != TOKENIZER.pad)
    torch.testing.assert_close(short, long[:, :8], atol=1e-5, rtol=1e-4)
    for other in (2, 6):
        changed = ids.clone()
        changed[0, other] = (ids[0, other] + 1) % 9
        assert not torch.allclose(net(changed)[0, 4], short[0, 4]), "a token on each side matters"


def test_segments_matter_where_the_config_has_them():
    net, ids = model(segments=2), some_rows(2)
    first, second = torch.zeros_like(ids), torch.ones_like(ids)
    assert torch.equal(net(ids), net(ids, segments=first)) and not torch.allclose(
        net(ids), net(ids, segments=second)
    )


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients_equal_those_of_all_logits(seed):
    net, batch = (
        model().double(),
        corrupt(some_rows(5, 20, seed, pad=4), TOKENIZER, Masking(0.3), generator(seed)),
    )
    inputs, labels, there = batch.unbind(1)
    ours = masked_loss(net, batch)
    theirs = F.cross_entropy(net(inputs, there.bool()).flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=1e-6)
    wanted = torch.autograd.grad(theirs, list(net.parameters()))
    for a, b in zip(torch.autograd.grad(ours, list(net.parameters())), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_the_head_is_computed_at_targets_alone(monkeypatch):
    net, batch, shapes, rows = model(), corrupt(some_rows(8, 30), TOKENIZER, ALL, generator()), [], []
    n, chunk_gradient = int((batch[:, 1] != -100).sum()), losses.chunk_gradient
    monkeypatch.setattr(
        losses, "chunk_gradient", lambda h, *rest: rows.append(len(h)) or chunk_gradient(h, *rest)
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        masked_loss(net, batch)
    assert sum(rows) == n
    assert {s for s in shapes if V in s} <= {(V, 16), (V,)}, (
        "no scores are kept, only what has the shape of a weight"
    )


def test_loss_pencil():
    net, batch = model(), torch.tensor([[[9, 5, 9], [0, -100, 1], [1, 1, 1]]])
    with torch.no_grad():
        net.encoder.embed.tokens.weight.zero_()
        net.bias.fill_(-100)[:2] = torch.tensor([math.log(3.0), 0.0])
    assert masked_loss(net, batch).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert accuracy(*masked_logits(net, batch)) == 0.5


def test_a_row_of_padding_among_others_leaves_the_gradients_finite():
    net, ids = model(), torch.cat([some_rows(2), torch.full((1, 12), TOKENIZER.pad)])
    masked_loss(net, corrupt(ids, TOKENIZER, Masking(0.3), generator())).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_a_loss_needs_a_target():
    batch = corrupt(some_rows(), TOKENIZER, ALL, generator())
    batch[:, 1] = -100
    with pytest.raises(
        ValueError, match="no target in this batch, and a mean of nothing is no loss: make it with"
    ):
        masked_loss(model(), batch)


def learned(steps=150):
    torch.manual_seed(0)
    net = MaskedLM(CFG)
    texts = ["The cat sat on the mat.", "The dog sat on the log."]
    batches = Batches(padded_rows(texts, TOKENIZER, 32), MaskCollator(TOKENIZER, Masking(0.2)), batch_size=16)
    return net, fit(net, batches, masked_loss, Recipe(steps=steps, lr=1e-2, warmup=0.1))


def test_fit_learns_to_use_both_sides_and_repeats_bit_for_bit():
    net, history = learned()
    assert history[0]["loss"] > 4 and sum(row["loss"] for row in history[-10:]) / 10 < 0.6
    assert fill_mask(net, TOKENIZER, "The [MASK] sat on the mat.", 1)[0][0] == "·cat"
    assert fill_mask(net, TOKENIZER, "The [MASK] sat on the log.", 1)[0][0] == "·dog"
    short = [row["loss"] for row in learned(5)[1]]
    assert short == [row["loss"] for row in learned(5)[1]]
    assert history[9]["tokens"] == 10 * 16 * 9, "tokens are counted once, not for inputs, labels and padding"


# --- gaps ---------------------------------------------------------------------------------------------------


def test_fill_mask_ranks_the_softmax_at_the_gap():
    net, text = model(), "The [MASK] sat on the mat."
    ids = torch.tensor([TOKENIZER.encode(text)])
    probs = net(ids)[0, 2].softmax(-1)
    filled = fill_mask(net, TOKENIZER, text, V)
    assert len(filled) == V and sum(p for _, p in filled) == pytest.approx(1, abs=1e-5)
    assert [p for _, p in filled] == pytest.approx(probs.sort(descending=True).values.tolist(), rel=1e-4)
    assert filled[0][0] == TOKENIZER.strings([int(probs.argmax())])[0]
    assert len(fill_mask(net, TOKENIZER, text)) == 5 and len(fill_mask(net, TOKENIZER, text, 10**6)) == V


def test_asking_leaves_the_mode_and_uses_no_dropout():
    net = model(dropout=0.5).train()
    assert fill_mask(net, TOKENIZER, "a [MASK]") == fill_mask(net, TOKENIZER, "a [MASK]") and net.training


@pytest.mark.parametrize(
    "text, words",
    [
        ("The cat sat", r"no gap in 'The cat sat': write \[MASK\] where a token is missing"),
        ("", r"no gap in ''"),
        ("[MASK] " + "cat " * 40, r"tokens, but the context is 32: crop the ids or raise Config.context"),
    ],
)
def test_what_cannot_be_filled(text, words):
    with pytest.raises(ValueError, match=words):
        fill_mask(model(), TOKENIZER, text)


def test_a_tokenizer_larger_than_the_model_is_refused():
    for ask, text, largest in ((fill_mask, "a [MASK]", V - 1), (pseudo_logprobs, "a", V - 2)):
        with pytest.raises(
            ValueError, match=rf"ids from \d+ to {largest}, but the vocabulary ends at {V - 5}"
        ):
            ask(model(vocab_size=V - 4), TOKENIZER, text)


def test_hide_each_pencil():
    ids = torch.tensor([TOKENIZER.cls, 7, TOKENIZER.mask, 8, TOKENIZER.sep])
    copies, spots = hide_each(ids, TOKENIZER)
    assert spots.tolist() == [1, 3]
    m = TOKENIZER.mask
    assert copies.tolist() == [
        [TOKENIZER.cls, m, m, 8, TOKENIZER.sep],
        [TOKENIZER.cls, 7, m, m, TOKENIZER.sep],
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("text", ["The cat sat on the mat.", "The [MASK] sat on the mat."])
def test_pseudo_logprobs_equal_a_loop(batch_size, text):
    net, ids = model(), TOKENIZER.encode(text)
    wanted = []
    for at, i in enumerate(ids):
        if i not in TOKENIZER.special:
            hidden = [*ids[:at], TOKENIZER.mask, *ids[at + 1 :]]
            wanted.append(net(torch.tensor([hidden]))[0, at].log_softmax(-1)[i].item())
    ours = pseudo_logprobs(net, TOKENIZER, text, batch_size)
    assert ours.tolist() == pytest.approx(wanted, abs=1e-5)
    score = perplexity(ours)
    assert score == pytest.approx(
        math.exp(-sum(wanted) / len(wanted)), rel=1e-4
    ) and "hidden=each token" in repr(score)
    logprobs, right = gap_logprobs(net, TOKENIZER, text, batch_size)
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(len(right)))


@pytest.mark.parametrize("text", ["", "[MASK]"])
def test_a_text_of_special_tokens_has_nothing_to_hide(text):
    with pytest.raises(
        ValueError, match=r"nothing to hide in \['\[CLS\]'.*: give a text with an ordinary token"
    ):
        pseudo_logprobs(model(), TOKENIZER, text)


def test_a_text_longer_than_the_context_is_not_cut_in_silence():
    with pytest.raises(ValueError, match="but the context is 32"):
        pseudo_logprobs(model(), TOKENIZER, "cat " * 40)


# --- counting -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(0, 2)
)
def test_neighbours_equal_brute_force(texts, reach):
    texts = [[8, *text, 9] for text in texts]
    counted, asked = Neighbours(texts, reach), texts[-1]
    pad = lambda row: [-1] * reach + row + [-1] * reach  # noqa: E731

    def sides(row, i, k):
        return pad(row)[i + reach - k : i + reach], pad(row)[i + reach + 1 : i + reach + 1 + k]

    for i, guess in enumerate(counted.guess(asked), 1):
        here = sides(asked, i, reach)
        alike = Counter(r[j] for r in texts for j in range(1, len(r) - 1) if sides(r, j, reach) == here)
        assert alike[guess] == max(alike.values())


def test_neighbours_back_off_pencil():
    counted = Neighbours([[0, 5, 6, 7, 1], [0, 5, 6, 7, 1], [0, 2, 2, 2, 1]], reach=1)
    assert counted.guess([0, 5, 9, 7, 1]) == [2, 6, 2], (
        "known neighbours 5 _ 7; elsewhere the commonest token"
    )


# --- a GPU --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_same_code_gives_the_same_numbers():
    net, text = model(), "The [MASK] sat on the mat."
    batch = corrupt(some_rows(5, 20, pad=3), TOKENIZER, Masking(0.3), generator())
    here, filled = masked_loss(net, batch).item(), fill_mask(net, TOKENIZER, text)
    pll = pseudo_logprobs(net, TOKENIZER, TEXT[:40])
    net.cuda()
    assert masked_loss(net, batch.cuda()).item() == pytest.approx(here, rel=1e-3)
    assert [p for _, p in fill_mask(net, TOKENIZER, text)] == pytest.approx([p for _, p in filled], rel=1e-2)
    torch.testing.assert_close(pseudo_logprobs(net, TOKENIZER, TEXT[:40]).cpu(), pll, atol=1e-2, rtol=1e-2)
    batches = Batches(padded_rows([TEXT], TOKENIZER, 32), MaskCollator(TOKENIZER, Masking(0.3)), batch_size=4)
    assert fit(net, batches, masked_loss, Recipe(steps=3))[-1]["loss"] > 0


# --- several gaps, scripts without spaces, long runs --------------------------------------------------------


def test_several_gaps_are_a_list_for_each_in_their_order():
    net = model()
    both = fill_mask(net, TOKENIZER, "The [MASK] sat on the [MASK].", 3)
    assert [len(found) for found in both] == [3, 3] and both[0] != both[1]
    ids = torch.tensor([TOKENIZER.encode("The [MASK] sat on the [MASK].")])
    probs = net.eval().logits(net.hidden(ids)).softmax(-1)[0, ids[0] == TOKENIZER.mask]
    assert [[p for _, p in found] for found in both] == [
        pytest.approx(row.topk(3).values.tolist()) for row in probs
    ]


UNSPACED = {
    "zh": "今天天气很好我们去公园散步吧。明天下雨就在家里看书。",
    "ja": "これは日本語の文章です。猫がいます。",
    "th": "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
}


@pytest.mark.parametrize("text", UNSPACED.values(), ids=UNSPACED)
def test_whole_words_leave_context_where_there_are_no_spaces(text):
    ids, numbers = padded_rows([text], TOKENIZER, 256).unbind(1)
    free = ~is_special(ids, TOKENIZER)
    how, draws = Masking(whole_words=True), torch.Generator().manual_seed(0)
    shares = [
        float((corrupt(ids, TOKENIZER, how, draws, numbers)[:, 1] != -100).sum() / free.sum())
        for _ in range(40)
    ]
    assert 0.05 < sum(shares) / len(shares) < 0.3


def test_the_bytes_of_a_character_are_one_word_and_english_words_are_whole():
    texts = {}
    for i, n in TOKENIZER.pieces("the cats 猫犬"):
        texts.setdefault(n, []).append(TOKENIZER.base[i])
    assert list(texts) == sorted(texts)
    assert [b"".join(parts).decode() for parts in texts.values()] == ["the", " cats", " ", "猫", "犬"]


@given(st.text(st.sampled_from("ab 猫犬กา,.é\u0301"), max_size=300))
def test_pieces_are_the_base_tokenizer_s_ids(text):
    assert [i for i, _ in TOKENIZER.pieces(text)] == TOKENIZER.base.encode(text)


def test_a_long_run_never_meets_the_slow_engine(monkeypatch):
    def slow(word):
        pytest.fail(f"{len(word)} characters by the quadratic way")

    monkeypatch.setattr(TOKENIZER.base, "word_ids", slow)
    assert len(TOKENIZER.encode("今天" * 5_000)) > 10_000
