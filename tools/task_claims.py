"""What chapters 17 to 19 say about trained models: the trainings behind it, for tools/measure_claims.py.

Each function trains its models from scratch, once a seed, with equal steps, schedule, data and test set on
both sides, and yields one row a run. On one core: own_words 6 minutes, tables and smoothing 1 each,
translators 7, readers and writers 5 and 12, marks 2, summaries 4, docstrings 6. A p is two-sided, from
swapping the two sides of each item (metrics.paired_test).
"""

import random
import re

import numpy as np
import torch
import torch.nn.functional as F

from llmlab.checkpoints import shipped_path
from llmlab.generation import Beams, Sampling, generate
from llmlab.masked import MaskTokenizer
from llmlab.metrics import evaluating, paired_test
from llmlab.overlap import exact_match, rouge
from llmlab.segmentation import split_sentences
from llmlab.tasks import (
    answer_models,
    answering,
    phrases,
    question_windows,
    questions,
    summarization,
    summary_pairs,
    text_pairs,
    translation,
)
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, fit
from llmlab.transformer import Config, EncoderDecoder
from llmlab.translation_scores import bleu

SEEDS = (0, 1, 2)


# --- chapter 17 ---------------------------------------------------------------------------------------------

TIMES = {"time": phrases.PHRASE_KINDS["time"]}


def phrase_tokenizer():
    return phrases.TranslationTokenizer(
        Tokenizer.load(shipped_path("translation.tokenizer.json")), ["de", "fr", "zh"]
    )


def own_words_loss(model, batch, share):
    "Two passes: in a share of the places the decoder reads its own guess."
    source, real, target = text_pairs.split_batch(batch)
    with torch.no_grad():
        guesses = model(source, target[:, :-1].clamp(min=0), real).argmax(-1)[:, :-1]
    places = (torch.rand(guesses.shape, device=batch.device) < share) & (target[:, 1:-1] >= 0)
    read = target[:, :-1].clone()
    read[:, 1:] = torch.where(places, guesses, read[:, 1:])
    logits = model(source, read.clamp(min=0), real)
    return F.cross_entropy(
        logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=-1, label_smoothing=0.1
    )


def small(seed, loss, steps, kind=translation.Translator):
    "The chapter's model of one layer a side, trained on times of day, and what it says to 300 new ones."
    tokenizer = phrase_tokenizer()
    few = Batches(
        translation.translation_rows(phrases.make_phrases(4000, ["zh"], kinds=TIMES), tokenizer),
        text_pairs.pad_pairs,
        batch_size=32,
        seed=seed,
        length_of=text_pairs.pair_length,
    )
    asked = phrases.make_phrases(300, ["zh"], held=True, kinds=TIMES)
    torch.manual_seed(seed)
    model = kind(Config(tokenizer.vocab_size, context=48, layers=1, heads=4, d_model=96, position="rope"))
    fit(model, few, loss, Recipe(steps=steps, batch_size=32, lr=6e-3, warmup=0.1, every=steps, seed=seed))
    said = translation.translate(model, tokenizer, [p.source for p in asked], "zh")
    held = translation.translation_rows(asked, tokenizer)
    with evaluating(model):
        nats = float(translation.translation_loss(model, text_pairs.pad_pairs(held), smoothing=0.0))
    return exact_match(said, [p.target for p in asked], words=str), nats


def own_words():
    for steps in (120, 480):
        for seed in SEEDS:
            plain = None
            for share in (0.0, 0.5, 1.0):
                exact, nats = small(seed, lambda m, b, share=share: own_words_loss(m, b, share), steps)
                plain = plain or exact
                yield {
                    "steps": steps,
                    "seed": seed,
                    "share": share,
                    "exact": float(exact),
                    "p": float(paired_test(plain, exact)),
                }


def tables():
    for seed in SEEDS:
        one, _ = small(seed, translation.translation_loss, 120)
        two, _ = small(seed, translation.translation_loss, 120, EncoderDecoder)
        yield {
            "seed": seed,
            "one table": float(one),
            "two tables": float(two),
            "p": float(paired_test(one, two)),
        }


def smoothing():
    for seed in SEEDS:
        for share in (0.0, 0.1):
            exact, nats = small(
                seed, lambda m, b, share=share: translation.translation_loss(m, b, share), 120
            )
            yield {
                "steps": 120,
                "seed": seed,
                "smoothing": share,
                "exact": float(exact),
                "nats a token": nats,
            }


def after_mistake(model, tokenizer, part, language):
    "Phrases right teacher-forced and alone, and the share of right tokens after a mistake, both ways."
    rows = translation.translation_rows(part, tokenizer)
    source, real, target = text_pairs.split_batch(text_pairs.pad_pairs(rows))
    with evaluating(model):
        forced = model(source, target[:, :-1].clamp(min=0), real).argmax(-1)
    prompts, sources = [[tokenizer.first(language)]] * len(rows), [row[0] for row in rows]
    own = torch.tensor(generate(model, prompts, target.shape[1] - 1, Sampling(0), source=sources))
    right, there = target[:, 1:], target[:, 1:] >= 0
    forced, own = (((x == right) | ~there) for x in (forced, own))
    after = there & (forced.long().cumprod(1) == 0)
    after[:, 1:] &= after[:, :-1].clone()
    return {
        "phrases forced": forced.all(1).double().mean().item(),
        "phrases alone": own.all(1).double().mean().item(),
        "after forced": forced[after].double().mean().item(),
        "after alone": own[after].double().mean().item(),
    }


def translators():
    "Shorter than the shipped one: 600 steps."
    tokenizer, learn = phrase_tokenizer(), phrases.make_phrases(90_000, ["zh", "de", "fr"])
    tests = {
        language: phrases.make_phrases(300, [language], held=True, seed=1) for language in ("zh", "de", "fr")
    }
    strange = phrases.make_phrases(200, ["de"], held=True, kinds=phrases.UNSEEN_KINDS, seed=1)
    shape = dict(context=48, layers=2, heads=4, d_model=128, d_ff=420, position="rope")
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = translation.Translator(Config(tokenizer.vocab_size, **shape))
        batches = Batches(
            translation.translation_rows(learn, tokenizer),
            text_pairs.pad_pairs,
            batch_size=64,
            seed=seed,
            length_of=text_pairs.pair_length,
        )
        fit(
            model,
            batches,
            translation.translation_loss,
            Recipe(steps=600, batch_size=64, lr=3e-3, every=600, seed=seed),
        )
        row = {"seed": seed, "steps": 600, **after_mistake(model, tokenizer, strange, "de")}
        for language, part in tests.items():
            said = translation.translate(model, tokenizer, [p.source for p in part], language)
            row[f"exact {language}"] = float(exact_match(said, [p.target for p in part], words=str))
        narrow = None
        for width in (1, 2, 4, 8):
            said = translation.translate(model, tokenizer, [p.source for p in strange], "de", Beams(width))
            right = [p.target for p in strange]
            exact, scored = exact_match(said, right, words=str), bleu(said, right, "13a")
            narrow = narrow or scored
            row |= {
                f"bleu {width}": float(scored),
                f"exact {width}": float(exact),
                f"p {width}": float(paired_test(narrow, scored)),
            }
            if width == 1:
                for kind in phrases.UNSEEN_KINDS:
                    hits = [a == p.target for a, p in zip(said, strange, strict=True) if p.kind == kind]
                    row[kind] = sum(hits) / len(hits)
        yield row


# --- chapter 18 ---------------------------------------------------------------------------------------------

SHAPE = dict(context=128, layers=3, heads=4, d_model=64, d_ff=128, position="rope", rope_base=1e5)


def mask_tokenizer():
    return MaskTokenizer(Tokenizer.load(shipped_path("answering.tokenizer.json")))


def asked_items():
    return questions.make_questions(1000, True, seed=11)


def per_kind(items, said):
    "Hits of each kind, as 0 and 1."
    hits = exact_match(said, [i.answer for i in items])
    return {kind: hits.rows[[i.kind == kind for i in items]][:, 0] for kind in questions.QUESTION_KINDS}


def swapped(a, b, seed=0, n=10_000):
    "p of the difference of two lists of hits of the same items."
    rng, gap = np.random.default_rng(seed), np.asarray(b, float) - np.asarray(a, float)
    sums = (rng.integers(0, 2, (n, len(gap))) * 2 - 1) @ gap
    return float(((np.abs(sums) >= abs(gap.sum()) - 1e-9).sum() + 1) / (n + 1))


READERS = {}  # seed -> the reader of job `readers`, so that `readers writers` trains it once


def trained_reader(seed, steps, segments=4, learn=None):
    tokenizer = mask_tokenizer()
    torch.manual_seed(seed)
    reader = answering.SpanReader(Config(tokenizer.vocab_size, **SHAPE, segments=segments, dropout=0.1))
    batches = Batches(
        question_windows.span_rows(learn or questions.make_questions(60_000, False), tokenizer, 128),
        question_windows.trim_rows,
        seed=seed,
    )
    history = fit(reader, batches, answering.span_loss, Recipe(steps=steps, lr=3e-3, every=steps, seed=seed))
    return reader, tokenizer, history


def type_scores(reader, tokenizer, items):
    "How often a wrong thing of the right type gets a higher start score than the mean of the other words."
    higher, asked = 0, 0
    for item in items:
        if not item.answer:
            continue
        town = item.answer.split()[-1] in questions.TOWN_NAMES.split()
        others = [
            x
            for x in item.entities[4:]
            if (x.split()[-1] in questions.TOWN_NAMES.split()) == town and x != item.answer
        ]
        (row,) = question_windows.split_windows(tokenizer, item.question, item.passage, 128)
        with evaluating(reader):
            scores = answering.start_end_scores(reader, question_windows.pad_windows([row], tokenizer.pad))[
                0, :, 0
            ]
        inside = question_windows.passage_mask(torch.tensor(row.parts))
        places = {
            x: question_windows.answer_positions(tokenizer, row, item.passage, x)[0]
            for x in [*item.entities[4:], *item.entities[:4]]
            if x in item.passage
        }
        plain = [i for i in inside.nonzero().flatten().tolist() if i not in places.values()]
        for x in others:
            if x in places:
                asked += 1
                higher += scores[places[x]] > scores[plain].mean()
    return float(higher / asked)


def windows(reader, tokenizer, items):
    "The same questions with the passage alone, and with three others before it: (hits, hits)."
    some = [i for i in items if i.answer][:200]
    long = []
    for k, item in enumerate(some):
        strangers = [x.passage for x in items[7 * k :] + items if not set(x.entities) & set(item.entities)][
            :3
        ]
        long.append(" ".join([*strangers, item.passage]))
    short_said = answering.answer_question(
        reader, tokenizer, [(i.question, i.passage) for i in some], context=72
    )
    long_said = answering.answer_question(
        reader, tokenizer, [(i.question, text) for i, text in zip(some, long, strict=True)], context=72
    )
    right = [i.answer for i in some]
    return float(exact_match(short_said, right)), float(exact_match(long_said, right))


def readers():
    items = asked_items()
    rules = {
        name: per_kind(items, [rule(i) for i in items])
        for name, rule in (("overlap", questions.nearest_entity), ("typed", questions.typed_entity))
    }
    for seed in SEEDS:
        reader, tokenizer, _ = trained_reader(seed, 1500)
        READERS[seed] = reader
        hits = per_kind(
            items, answering.answer_question(reader, tokenizer, [(i.question, i.passage) for i in items])
        )
        row = {"seed": seed, "steps": 1500}
        for kind, mine in hits.items():
            row |= {
                kind: mine.mean(),
                **{f"{kind}, {name}": rule[kind].mean() for name, rule in rules.items()},
                f"{kind}, p against typed": swapped(rules["typed"][kind], mine),
            }
        every = {name: np.concatenate([*some.values()]) for name, some in {**rules, "reader": hits}.items()}
        row |= {f"all, {name}": some.mean() for name, some in every.items()}
        row |= {f"all, p against {name}": swapped(every[name], every["reader"]) for name in rules}
        batch = question_windows.pad_windows(
            [r for i in items for r in question_windows.split_windows(tokenizer, i.question, i.passage, 128)],
            tokenizer.pad,
        )
        with evaluating(reader):
            scores = torch.cat(
                [answering.start_end_scores(reader, batch[i : i + 100]) for i in range(0, len(batch), 100)]
            )
        s, e = scores.argmax(1).T
        row["misfit"] = float(((s > e) | (e - s >= 8) | ((s == 0) != (e == 0))).double().mean())
        row["right type above other words"] = type_scores(reader, tokenizer, items[:250])
        row["short passage"], row["four passages"] = windows(reader, tokenizer, items)
        yield row


def writers():
    items, learn = asked_items(), questions.make_questions(60_000, False)
    for seed in SEEDS:
        tokenizer = mask_tokenizer()
        reader = READERS[seed] if seed in READERS else trained_reader(seed, 1500, learn=learn)[0]
        for start in ("from the reader", "from scratch"):
            torch.manual_seed(seed)
            writer = answer_models.AnswerWriter(
                Config(tokenizer.vocab_size, **SHAPE, segments=4, dropout=0.0)
            )
            writer = writer.start_from(reader) if start == "from the reader" else writer
            batches = Batches(
                answer_models.answer_rows(learn, tokenizer, 128), text_pairs.pad_pairs, seed=seed
            )
            fit(
                writer,
                batches,
                answer_models.answer_loss,
                Recipe(steps=1000, lr=6e-3, muon=True, every=1000, seed=seed),
            )
            said = answer_models.generate_answers(writer, tokenizer, items)
            row = {"seed": seed, "steps": 1000, "start": start}
            row |= {kind: hits.mean() for kind, hits in per_kind(items, said).items()}
            fates = [answering.classify_answer(i, x) for i, x in zip(items, said, strict=True)]
            row |= {fate: fates.count(fate) for fate in ("right", "from the passage", "silent", "invented")}
            row |= {
                f"invented, {kind}": sum(
                    f == "invented" and i.kind == kind for f, i in zip(fates, items, strict=True)
                )
                for kind in questions.QUESTION_KINDS
            }
            yield row


def marks():
    items, learn = asked_items(), questions.make_questions(60_000, False)
    for steps in (80, 400):
        for seed in SEEDS:
            for segments in (4, 2):
                reader, tokenizer, history = trained_reader(seed, steps, segments, learn)
                hits = per_kind(
                    items,
                    answering.answer_question(reader, tokenizer, [(i.question, i.passage) for i in items]),
                )
                loss = sum(r["loss"] for r in history[-20:]) / 20
                yield {
                    "steps": steps,
                    "seed": seed,
                    "marked": segments == 4,
                    "loss": loss,
                    "exact": np.concatenate([*hits.values()]).mean(),
                    **{k: h.mean() for k, h in hits.items()},
                }


# --- chapter 19 ---------------------------------------------------------------------------------------------


def summaries():
    learn, held = summary_pairs.make_story_pairs(20_000)
    tokenizer = Tokenizer.load(shipped_path("summarization.tokenizer.json"))
    documents, references = [p.document for p in held], [p.summary for p in held]
    best = [max(split_sentences(p.document), key=lambda s, p=p: float(rouge([s], [p.summary]))) for p in held]
    glue = summarization.learn_allowed_words(learn[:6000])
    strange = [re.sub(rf"\b{d.split()[2]}\b", "Lily", d) for d in documents[:100]]
    retold = {
        name: [summary_pairs.template_summary(d, lines) for d in documents]
        for name, lines in (
            ("reworded", summary_pairs.REWORDED_TEMPLATES),
            ("reordered", summary_pairs.REORDERED_TEMPLATES),
        )
    }
    rng = random.Random(0)
    outside, inside = [[summary_pairs.corrupt_summary(p, rng, kind) for p in held] for kind in (False, True)]
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = EncoderDecoder(
            Config(tokenizer.vocab_size, context=96, layers=2, heads=4, d_model=96, position="rope")
        )
        batches = Batches(summary_pairs.summary_rows(learn, tokenizer, 96), text_pairs.pad_pairs, seed=seed)
        fit(model, batches, summarization.summary_loss, Recipe(steps=400, lr=3e-3, every=400, seed=seed))
        said = summarization.summarize(model, tokenizer, documents)
        row = {
            "seed": seed,
            "steps": 400,
            "word for word": float(np.mean([a == b for a, b in zip(said, references, strict=True)])),
        }
        for kind in (1, 2, "L"):
            one, other = rouge(best, references, kind), rouge(said, references, kind)
            row |= {
                f"ROUGE-{kind}": float(other),
                f"ROUGE-{kind} oracle": float(one),
                f"ROUGE-{kind} p": float(paired_test(one, other)),
            }

        def believed(texts, model=model):
            return summarization.lowest_logprobs(
                model, tokenizer, [*map(summary_pairs.Pair, documents, texts)]
            )

        threshold = np.quantile(summarization.lowest_logprobs(model, tokenizer, learn[:400]), 0.01)
        row["threshold as a probability"] = float(np.exp(threshold))
        for name, texts in {"true": references, "extrinsic": outside, "intrinsic": inside, **retold}.items():
            row[f"belief flags {name}"] = float(np.mean(believed(texts) < threshold))
            row[f"not its own words {name}"] = float(
                np.mean([a != b for a, b in zip(said, texts, strict=True)])
            )
        lily = summarization.summarize(model, tokenizer, strange)
        row["keeps Lily"] = float(np.mean(["Lily" in s for s in lily]))
        row["Lily, a word from nowhere"] = float(
            np.mean(
                [
                    bool(summarization.unsupported_words(d, s, glue))
                    for d, s in zip(strange, lily, strict=True)
                ]
            )
        )
        yield row


def usual(learn, n=300):
    "The training summary most like the others, by ROUGE-1: the best constant that training can choose."
    some = [p.summary for p in learn[:n]]
    return max(sorted(set(some)), key=lambda s: float(rouge([s] * n, some, 1)))


def docstrings():
    learn, held = summary_pairs.split_pairs(summary_pairs.docstring_pairs())
    tokenizer = Tokenizer.train("\n".join(p.document + " " + p.summary for p in learn), 1500)
    learn, held = (
        [summary_pairs.Pair(summary_pairs.first_part(tokenizer, p.document, 96), p.summary) for p in side]
        for side in (learn, held)
    )
    learn, held = [p for p in learn if len(tokenizer.encode(p.summary)) < 90], held[:150]
    real, refs = [p.document for p in held], [p.summary for p in held]
    constant = usual(learn)
    rivals = {
        "lead-1": [summarization.lead(d) for d in real],
        "TextRank": [summarization.textrank(d) for d in real],
        "constant": [constant] * len(real),
    }
    for steps in (60, 240, 800):
        for seed in SEEDS:
            torch.manual_seed(seed)
            shape = dict(context=96, layers=1, heads=4, d_model=96, position="rope", dropout=0.1)
            model = EncoderDecoder(Config(tokenizer.vocab_size, **shape))
            batches = Batches(
                summary_pairs.summary_rows(learn, tokenizer, 96),
                text_pairs.pad_pairs,
                batch_size=16,
                seed=seed,
            )
            fit(
                model,
                batches,
                summarization.summary_loss,
                Recipe(steps=steps, lr=6e-3, muon=True, every=steps, seed=seed),
            )
            said = summarization.summarize(model, tokenizer, real, max_new_tokens=24)
            row = {"steps": steps, "seed": seed, "constant": constant, "different": len(set(said))}
            for kind in (1, 2, "L"):
                mine = rouge(said, refs, kind)
                row[f"ROUGE-{kind}"] = float(mine)
                for name, texts in rivals.items():
                    theirs = rouge(texts, refs, kind)
                    row |= {
                        f"ROUGE-{kind} {name}": float(theirs),
                        f"ROUGE-{kind} p against {name}": float(paired_test(theirs, mine)),
                    }
            yield row


def rounded(rows):
    "Rows as JSON can hold them, with four digits after the point."
    return [
        {key: round(float(x), 4) if isinstance(x, float | np.floating) else x for key, x in row.items()}
        for row in rows
    ]
