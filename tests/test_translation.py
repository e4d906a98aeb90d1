"Phrases and their split, pairs, loss, writing, scores: against CLDR, PyTorch, sacrebleu and brute force."

from dataclasses import replace

import pytest
import sacrebleu
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.checkpoints import load_checkpoint, read_checkpoint, shipped_path
from llmlab.generation import Beams
from llmlab.tasks.phrases import (
    LANGUAGES,
    PHRASE_KINDS,
    Phrase,
    PhraseKind,
    TranslationTokenizer,
    make_phrases,
    score_translations,
)
from llmlab.tasks.text_pairs import pad_pairs, pair_length, split_batch
from llmlab.tasks.translation import Translator, translate, translation_loss, translation_rows
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config

ALL = list(LANGUAGES)
TRAIN = make_phrases(3000, ALL)
TOKENIZER = TranslationTokenizer.train(TRAIN, 500)
CFG = Config(TOKENIZER.vocab_size, context=32, layers=2, heads=2, d_model=32, position="rope")


def net(seed=0, **options):
    torch.manual_seed(seed)
    return Translator(replace(CFG, **options)).eval()


# --- tokens and batches -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(TRAIN))
def test_text_survives_and_digits_stay_alone(p):
    for text in (p.source, p.target):
        ids = TOKENIZER.encode(text)
        assert TOKENIZER.base.decode(ids) == text and ids[-1] == TOKENIZER.eot
        assert all(
            sum(c.isdigit() for c in token) < 2 for token in TOKENIZER.strings(ids) if "⟨" not in token
        )


def test_each_language_has_an_id_of_its_own():
    ids = [TOKENIZER.first(language) for language in sorted(ALL)]
    assert ids == list(range(TOKENIZER.base.vocab_size, TOKENIZER.vocab_size))
    assert TOKENIZER.strings([*ids, TOKENIZER.eot]) == ["<de>", "<fr>", "<zh>", "<end>"]
    with pytest.raises(ValueError, match="language 'it' is unknown: this model writes de, fr, zh"):
        TOKENIZER.first("it")


def batches_of(batch_size, seed=0):
    return Batches(translation_rows(TRAIN, TOKENIZER), pad_pairs, batch_size, seed, length_of=pair_length)


def test_batches_depend_on_seed_and_step_alone():
    batches, again = batches_of(16, seed=1), batches_of(16, seed=1)
    later = batches(5)
    batches(6)
    assert torch.equal(later, batches(5)) and torch.equal(later, again(5))
    for other in (batches(6), batches_of(16, seed=2)(5)):
        assert other.shape != later.shape or not torch.equal(other, later)


def test_rows_of_a_batch_are_about_equally_long():
    "Sorted by length, a batch holds less padding than one of rows of all lengths."
    rows = translation_rows(TRAIN, TOKENIZER)
    alike = torch.cat([(batches_of(16)(step) < 0).float().mean()[None] for step in range(20)]).mean()
    mixed = [(Batches(rows, pad_pairs, 16)(step) < 0).float().mean().item() for step in range(20)]
    assert alike < 0.8 * sum(mixed) / len(mixed)


def test_a_batch_is_made_of_the_phrases():
    first, encode = TOKENIZER.first, TOKENIZER.encode
    rows = {(tuple(encode(p.source)), (first(p.language), *encode(p.target))) for p in TRAIN}
    for pair in batches_of(16)(0).tolist():
        assert tuple(tuple(i for i in side if i >= 0) for side in pair) in rows


def test_split_batch_pencil():
    source, real, target = split_batch(pad_pairs([([5, 6, 7, 8], [1, 2]), ([9], [3, 4, 5])]))
    assert source.tolist() == [[5, 6, 7, 8], [9, 0, 0, 0]]
    assert real.tolist() == [[True] * 4, [True, False, False, False]]
    assert target.tolist() == [[1, 2, -1], [3, 4, 5]]


# --- the loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_equals_a_loop_without_padding(smoothing):
    model, rows = net(), translation_rows(TRAIN, TOKENIZER)[:7]
    total, n = 0.0, 0
    for source, target in rows:
        logp = model(torch.tensor([source]), torch.tensor([target[:-1]]))[0].log_softmax(-1)
        right = logp.gather(1, torch.tensor(target[1:])[:, None])[:, 0]
        total -= ((1 - smoothing) * right + smoothing * logp.mean(-1)).sum().item()
        n += len(right)
    assert translation_loss(model, pad_pairs(rows), smoothing).item() == pytest.approx(total / n, rel=1e-4)


def test_the_decoder_reads_the_right_target_and_not_the_future():
    model, batch = net(), pad_pairs(translation_rows(TRAIN, TOKENIZER)[:1])
    before = translation_loss(model, batch).item()
    changed = batch.clone()
    changed[0, 1, 0] = TOKENIZER.first(next(x for x in ALL if TOKENIZER.first(x) != int(batch[0, 1, 0])))
    assert translation_loss(model, changed).item() != pytest.approx(before, abs=1e-7), (
        "the language's id is read"
    )
    source, real, target = split_batch(batch)
    logits = model(source, target[:, :-1].clamp(min=0), real)
    later = target[:, :-1].clone()
    later[0, 2:] = 3
    torch.testing.assert_close(model(source, later, real)[:, :2], logits[:, :2])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99), st.integers(1, 9))
def test_padding_changes_nothing(step, more):
    batch = batches_of(4)(step)
    wider = F.pad(batch, (0, more), value=-1)
    assert translation_loss(net(), wider).item() == pytest.approx(
        translation_loss(net(), batch).item(), abs=1e-6
    )


# --- writing ------------------------------------------------------------------------------------------------


def by_hand(model, text, language):
    "Greedy, one text, all computed anew for every token."
    source, row = torch.tensor([TOKENIZER.encode(text)]), [TOKENIZER.first(language)]
    while len(row) < model.cfg.context and row[-1] != TOKENIZER.eot:
        with torch.no_grad():
            row.append(int(model(source, torch.tensor([row]))[0, -1].argmax()))
    return TOKENIZER.base.decode(row[1:])


TEXTS = ["Sunday, September 5, 1999", "1 hour", "French (Canada)", "-1.5"]


def learned():
    model = net(1)
    fit(model, batches_of(16), translation_loss, Recipe(steps=12, lr=3e-3))
    return model


def test_greedy_in_a_ragged_batch_with_a_cache_equals_one_by_one_without():
    for model in (net(2), learned()):
        for language in ("zh", "fr"):
            assert translate(model, TOKENIZER, TEXTS, language) == [
                by_hand(model, text, language) for text in TEXTS
            ]


def test_beams_find_what_is_at_least_as_likely_as_greedy():
    model = learned()

    def log_p(text, hyp):
        row = [TOKENIZER.first("de"), *TOKENIZER.encode(hyp)]
        with torch.no_grad():
            logp = model(torch.tensor([TOKENIZER.encode(text)]), torch.tensor([row[:-1]]))[0].log_softmax(-1)
        return logp.gather(1, torch.tensor(row[1:])[:, None]).sum().item()

    greedy = translate(model, TOKENIZER, TEXTS, "de")
    wide = translate(model, TOKENIZER, TEXTS, "de", Beams(12, length_penalty=0))
    ended = [i for i, hyp in enumerate(greedy) if len(TOKENIZER.encode(hyp)) < model.cfg.context - 2]
    assert all(log_p(TEXTS[i], wide[i]) >= log_p(TEXTS[i], greedy[i]) - 1e-3 for i in ended)


@pytest.mark.parametrize(
    "texts, words",
    [
        (
            ["1 hour", "1 hour " * 30],
            r"text 1 has \d+ tokens, the encoder reads 32: cut it, or raise Config.context",
        ),
        (["1 hour", ""], "text 1 is empty: leave it out, there is nothing to translate"),
        (["  "], "text 0 is empty"),
        ([], r"texts=\[\]: expected a list with one text at least"),
        ("1 hour", "texts='1 hour': expected a list"),
    ],
)
def test_what_cannot_be_translated(texts, words, unchecked):
    for beams in (None, Beams(2)):
        with pytest.raises(ValueError, match=words):
            translate(net(), TOKENIZER, texts, "de", beams)


def test_a_language_that_was_not_learned_is_refused():
    with pytest.raises(ValueError, match="language 'it' is unknown: this model writes de, fr, zh"):
        translate(net(), TOKENIZER, ["1 hour"], "it")


def test_training_and_writing_repeat_bit_for_bit():
    assert translate(learned(), TOKENIZER, TEXTS, "zh") == translate(learned(), TOKENIZER, TEXTS, "zh")


# --- scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ALL)
def test_scores_equal_sacrebleu_and_counting(language):
    part = make_phrases(60, [language], held=True)
    refs = [p.target for p in part]
    hyps = [ref if i % 3 else ref[:-2] + "9" for i, ref in enumerate(refs)]
    exact, found = score_translations(hyps, part)
    theirs = sacrebleu.corpus_bleu(hyps, [refs], tokenize={"zh": "zh"}.get(language, "13a"))
    assert float(found) == pytest.approx(theirs.score, abs=1e-9)
    assert f"tok:{LANGUAGES[language]}" in found.recipe["signature"]
    assert exact == sum(a == b for a, b in zip(hyps, refs, strict=True)) / 60 == 40 / 60
    for one in (exact, found):
        assert one.recipe["low"] < one < one.recipe["high"]


def test_exact_means_every_character():
    one = Phrase("date", "", (1,), "de", "Sep 5", "5. Sept.")
    assert score_translations(["5. Sept."], [one]).exact == 1
    assert all(
        score_translations([wrong], [one]).exact == 0 for wrong in ("5. sept.", "5 Sept", "5. Sept. ", "")
    )


def test_what_cannot_be_scored():
    zh, de = make_phrases(3, ["zh"]), make_phrases(3, ["de"])
    with pytest.raises(
        ValueError, match=r"phrases in 2 languages \['de', 'zh'\]: BLEU cuts words by language"
    ):
        score_translations([""] * 6, zh + de)
    with pytest.raises(ValueError, match=r"phrases in 0 languages \[\]"):
        score_translations([], [])
    with pytest.raises(ValueError, match="language 'xx' is unknown"):
        score_translations(["a"], [zh[0]._replace(language="xx")])
    with pytest.raises(ValueError, match="2 hypotheses, 3 references"):
        score_translations(["a", "b"], zh)


# --- the shipped model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped_translator():
    path = shipped_path("translation.safetensors")
    about, _ = read_checkpoint(path)
    tokenizer = TranslationTokenizer(
        Tokenizer.load(shipped_path("translation.tokenizer.json")), ["de", "fr", "zh"]
    )
    return load_checkpoint(path, Translator(Config(**about["config"])))[0], tokenizer


@pytest.mark.parametrize("language", ["zh", "de", "fr"])
@pytest.mark.parametrize("held", ["date", "time", "unit", "money", "tongue"])
def test_the_shipped_model_knows_what_it_never_saw(shipped_translator, held, language):
    part = make_phrases(80, [language], held=True, kinds={held: PHRASE_KINDS[held]}, seed=5)
    exact, found = score_translations(
        translate(*shipped_translator, [p.source for p in part], language), part
    )
    assert exact >= 0.95 and found >= 98


def test_the_shipped_model_is_small_enough():
    assert shipped_path("translation.safetensors").stat().st_size <= 2_000_000


# --- a GPU --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_same_code_gives_the_same_translations():
    model = learned()
    here = translate(model, TOKENIZER, TEXTS, "zh")
    assert translate(model.cuda(), TOKENIZER, TEXTS, "zh") == here
    assert isinstance(PHRASE_KINDS["date"], PhraseKind)
