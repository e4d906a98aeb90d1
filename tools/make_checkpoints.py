"""Train what the chapters ship, and note in its manifest how: python tools/make_checkpoints.py stories-bert

reference-gpt (chapters 7 and 11) takes about ten minutes on one core, stories-bert (chapter 16) about three
on two, translation (chapter 17) about six on two, answering-marks and then answering-writes (chapter 18) two
each on one, summarization (chapter 19) one on one, infilling (chapter 21) about twelve on two. Each is the
last model of its run; the manifest says on what a recipe was chosen.
"""

import argparse
import hashlib
import json
import math
import platform
import re
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, decoders, processors

from llmlab import __version__
from llmlab.causal import causal_loss
from llmlab.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from llmlab.exporting import save_pretrained
from llmlab.fast_tokens import fast_tokenizer
from llmlab.loading import load_pretrained as load_folder
from llmlab.masked import MaskedLM, MaskTokenizer
from llmlab.metrics import bits_per_byte, evaluating, token_logprobs
from llmlab.ngram_tables import NGram
from llmlab.tasks.answer_models import AnswerWriter, answer_loss, answer_rows, generate_answers
from llmlab.tasks.answering import SpanReader, answer_question, span_loss
from llmlab.tasks.completion import code_loss
from llmlab.tasks.gaps import CodeCollator, InfillTokenizer, code_rows
from llmlab.tasks.phrases import TranslationTokenizer, make_phrases, score_translations
from llmlab.tasks.question_windows import span_rows, trim_rows
from llmlab.tasks.questions import make_questions, score_by_kind
from llmlab.tasks.summarization import summarize, summary_loss
from llmlab.tasks.summary_pairs import make_story_pairs, summary_rows
from llmlab.tasks.text_pairs import pad_pairs, pair_length
from llmlab.tasks.translation import Translator, translate, translation_loss, translation_rows
from llmlab.text import load_corpus
from llmlab.tokens import Tokenizer
from llmlab.training import Batches, Recipe, Windows, fit
from llmlab.transformer import Config, Decoder, EncoderDecoder, count_parameters

DATA = Path(__file__).parents[1] / "llmlab" / "data"


def kneser_ney(train, valid, n_bytes, vocab_size):
    "Bits per byte of orders 1 to 5 on the same tokens."
    scores = {n: NGram(n, vocab_size).fit(train).logprobs(valid)[1:] for n in range(1, 6)}
    return {n: round(float(bits_per_byte(logprobs, n_bytes)), 4) for n, logprobs in scores.items()}


def train(model, ids, valid, n_bytes, recipe):
    "History with bits per byte, and seconds of CPU time without the validations."
    points, left_out = [], time.process_time()

    def validate(model):
        nonlocal left_out
        seconds, began = time.process_time() - left_out, time.process_time()
        score = float(bits_per_byte(token_logprobs(model, valid), n_bytes))
        points.append({"seconds": round(seconds, 1), "bits_per_byte": round(score, 4)})
        print(points[-1], flush=True)
        left_out += time.process_time() - began
        return score

    history = fit(
        model,
        Batches(Windows(ids, model.cfg.context + 1), batch_size=recipe.batch_size),
        causal_loss,
        recipe,
        validate,
    )
    rows = [row for row in history if "valid" in row]
    return [{"step": row["step"], **point} for row, point in zip(rows, points, strict=True)]


def finite(recipe):
    "What JSON can hold: no limit is left out."
    return {name: value for name, value in asdict(recipe).items() if value != math.inf}


def facts_of(path):
    "What anybody can check about a file."
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def made_with():
    return {
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "llmlab": __version__,
    }


LAST = "the last step of the run; no choice was made on held-out data"


def publish(args, name, model, tokenizer, corpus, recipe, measured, licence, seconds, chosen=LAST):
    "Write weights and tokenizer, and note them."
    args.out.mkdir(parents=True, exist_ok=True)
    weights, merges = args.out / f"{name}.safetensors", args.out / f"{name.split('-')[0]}.tokenizer.json"
    tokenizer.save(merges)
    save_checkpoint(model, weights, torch.bfloat16, step=recipe.steps)
    common = {"licence": f"Apache-2.0; {licence}", "made_by": "tools/make_checkpoints.py"}
    assert weights.stat().st_size <= 2_000_000
    about = {
        **facts_of(weights),
        **common,
        "chosen": chosen,
        "parameters": count_parameters(model),
        "dtype": "bfloat16",
        "config": asdict(model.cfg),
        "recipe": finite(recipe),
        "corpus": corpus,
        "held_out": measured(load_checkpoint(weights, type(model)(model.cfg))[0]),
        "seconds": seconds,
        "threads": args.threads,
        **made_with(),
    }
    note(args.out, {weights.name: about, merges.name: facts_of(merges) | common})
    print(about["held_out"])


def timed_fit(model, batches, loss, recipe):
    "CPU seconds of the training."
    began = time.process_time()
    history = fit(model, batches, loss, recipe)
    print([round(sum(r["loss"] for r in history[i : i + 100]) / 100, 3) for i in range(0, len(history), 100)])
    return round(time.process_time() - began, 1)


def note(out, entries):
    "Put entries into the manifest, beside those that are there."
    path = out / "manifest.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | entries, indent=1) + "\n", encoding="utf-8")


def reference_gpt(args):
    whole = load_corpus("reference")
    learn, held = whole.split()
    tokenizer = Tokenizer.train(learn.text, 1024)
    ids, valid = ([tokenizer.eot, *tokenizer.encode_documents(part)] for part in (learn, held))
    n_bytes = sum(len(text.encode()) for text in held.documents.values())

    cfg = Config(
        tokenizer.vocab_size, context=256, layers=4, heads=4, d_model=128, position="rope", dropout=0.2
    )
    steps = args.steps or 2200
    recipe = Recipe(steps=steps, batch_size=8, lr=2e-3, every=max(1, steps // 22))
    model = Decoder(cfg)
    curve = train(model, ids, valid, n_bytes, recipe)

    args.out.mkdir(parents=True, exist_ok=True)
    weights, merges = args.out / "reference-gpt.safetensors", args.out / "reference-gpt.tokenizer.json"
    tokenizer.save(merges)
    save_checkpoint(model, weights, torch.bfloat16, corpus=whole.fingerprint, **curve[-1])
    stored = float(bits_per_byte(token_logprobs(load_checkpoint(weights)[0], valid), n_bytes))
    manifest = {
        "reference-gpt.safetensors": {
            **facts_of(weights),
            "licence": "Apache-2.0; trained on CPython's documentation (PSF-2.0)",
            "made_by": "tools/make_checkpoints.py",
            "chosen": "the last step of the run; no choice was made on the validation split",
            "parameters": count_parameters(model),
            "dtype": "bfloat16",
            "config": asdict(cfg),
            "recipe": finite(recipe),
            "corpus": {
                "name": whole.name,
                "fingerprint": whole.fingerprint,
                "train": learn.fingerprint,
                "valid": held.fingerprint,
                "valid_bytes": n_bytes,
            },
            "bits_per_byte": round(stored, 4),
            "kneser_ney_bits_per_byte": kneser_ney(ids, valid, n_bytes, tokenizer.vocab_size),
            "seconds": "CPU seconds of the training process, validation left out",
            "threads": args.threads,
            "curve": curve,
            **made_with(),
        },
        "reference-gpt.tokenizer.json": {
            **facts_of(merges),
            "licence": "Apache-2.0; merges counted on CPython's documentation (PSF-2.0)",
            "made_by": "tools/make_checkpoints.py",
        },
    }
    assert math.isfinite(stored) and weights.stat().st_size <= 2_000_000
    note(args.out, manifest)
    print(f"{stored:.3f} bits per byte")


# --- a BERT -------------------------------------------------------------------------------------------------

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


def bert_tokenizer(text, vocab_size):
    "Our byte-level BPE with BERT's special tokens at its end, as `tokenizers` and `transformers` read it."
    fast = fast_tokenizer(Tokenizer.train(text, vocab_size - len(SPECIAL) + 1))
    fast.add_special_tokens([AddedToken(name, lstrip=name == "[MASK]", special=True) for name in SPECIAL])
    fast.decoder = decoders.ByteLevel()
    ends = [(name, fast.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=ends
    )
    return fast


def passages(texts, tokenizer):
    "(ids, segments) of whole stories, of single sentences, and of neighbours as a pair."
    kinds = [], [], []
    for text in texts:
        sentences = re.findall(r'[^ ".][^".]*\.|"[^"]*"[^.]*\.', text)
        for kind, given in zip(
            kinds, ([text], sentences, zip(sentences, sentences[1:], strict=False)), strict=True
        ):
            found = [tokenizer.encode(*([one] if isinstance(one, str) else one)) for one in given]
            kind += [(row.ids, row.type_ids) for row in found]
    return kinds


class Corrupted:
    "Seeded batches [3 b t]: inputs by BERT's 80/10/10, targets (-1: none), segments; half are stories."

    def __init__(self, texts, tokenizer, batch_size, seed=0, rate=0.15):
        self.kinds, self.batch_size, self.seed, self.rate = passages(texts, tokenizer), batch_size, seed, rate
        self.pad, self.mask = (tokenizer.token_to_id(name) for name in ("[PAD]", "[MASK]"))

    def __call__(self, step):
        generator, n = torch.Generator().manual_seed(self.seed * 1_000_003 + step), self.batch_size // 4
        rows = []
        for kind, share in zip(self.kinds, (2 * n, n, n), strict=True):
            rows += [kind[i] for i in torch.randint(len(kind), (share,), generator=generator).tolist()]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row, _ in rows])
        segments = torch.tensor([row + [0] * (width - len(row)) for _, row in rows])
        chosen = (ids < self.pad) & (torch.rand(ids.shape, generator=generator) < self.rate)
        fate = torch.rand(ids.shape, generator=generator)
        strangers = torch.randint(self.pad, ids.shape, generator=generator)
        inputs = torch.where(
            chosen & (fate >= 0.9), strangers, ids.masked_fill(chosen & (fate < 0.8), self.mask)
        )
        return torch.stack([inputs, ids.masked_fill(~chosen, -1), segments])


def at_targets(model, batch, pad):
    "Scores and right ids where a target is."
    ids, targets, segments = batch
    asked = targets >= 0
    return model.logits(model.encoder(ids, ids != pad, segments)[asked]), targets[asked]


def masked_accuracy(model, batches, n=16):
    "Share of the targets of n batches that get the highest score."
    with evaluating(model):
        found = [at_targets(model, batches(i), batches.pad) for i in range(n)]
    return sum((x.argmax(-1) == y).sum().item() for x, y in found) / sum(len(y) for _, y in found)


def stories_bert(args):
    whole = load_corpus("stories")
    learn, held = whole.split()
    tokenizer = bert_tokenizer(learn.text, 512)
    batches = Corrupted(learn.documents.values(), tokenizer, 64)
    unseen = Corrupted(held.documents.values(), tokenizer, 64, seed=9)
    cfg = Config(
        tokenizer.get_vocab_size(),
        context=128,
        layers=4,
        heads=4,
        d_model=128,
        norm_place="post",
        norm_eps=1e-12,
        feed_forward="gelu_exact",
        segments=2,
    )
    recipe = Recipe(steps=args.steps or 700, batch_size=64, lr=2e-3, warmup=0.1, every=200)
    model, points, began = MaskedLM(cfg), [], time.process_time()

    def validate(model):
        seconds, accuracy = round(time.process_time() - began, 1), round(masked_accuracy(model, unseen), 4)
        points.append({"seconds": seconds, "accuracy": accuracy})
        print(points[-1], flush=True)
        return -points[-1]["accuracy"]

    fit(
        model,
        batches,
        lambda model, batch: F.cross_entropy(*at_targets(model, batch, batches.pad)),
        recipe,
        validate,
    )
    folder = save_pretrained(model.half(), args.out / "stories-bert", tokenizer, overwrite=True)
    stored = masked_accuracy(load_folder(folder)[0], unseen)
    licence = "Apache-2.0; trained on the stories that llmlab generates"
    common = {"licence": licence, "made_by": "tools/make_checkpoints.py"}
    entries = {f"stories-bert/{path.name}": facts_of(path) | common for path in sorted(folder.iterdir())}
    entries["stories-bert/model.safetensors"] |= {
        "chosen": "the last step of the run; no choice was made on the validation split",
        "parameters": count_parameters(model),
        "dtype": "float16",
        "config": asdict(cfg),
        "recipe": finite(recipe),
        "corpus": {
            "name": whole.name,
            "fingerprint": whole.fingerprint,
            "train": learn.fingerprint,
            "valid": held.fingerprint,
        },
        "masked_accuracy": round(stored, 4),
        "curve": points,
        "seconds": "CPU seconds of the process, with validation",
        "threads": args.threads,
        **made_with(),
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000
    note(args.out, entries)
    print(f"{stored:.3f} of the masked tokens right")


# --- a translator -------------------------------------------------------------------------------------------


def translation(args):
    learn = make_phrases(90_000, ["zh", "de", "fr"])
    held = {language: make_phrases(400, [language], held=True, seed=1) for language in ("zh", "de", "fr")}
    tokenizer = TranslationTokenizer.train(learn, 900)
    cfg = Config(tokenizer.vocab_size, context=48, layers=2, heads=4, d_model=128, d_ff=420, position="rope")
    recipe = Recipe(steps=args.steps or 2700, batch_size=64, lr=3e-3, every=200)
    model = Translator(cfg)
    batches = Batches(translation_rows(learn, tokenizer), pad_pairs, batch_size=64, length_of=pair_length)
    seconds = timed_fit(model, batches, translation_loss, recipe)

    def measured(model):
        found = {}
        for language, part in held.items():
            exact, bleu = score_translations(
                translate(model, tokenizer, [p.source for p in part], language), part
            )
            found[language] = {
                "exact": round(float(exact), 4),
                "bleu": round(float(bleu), 2),
                "phrases": len(part),
            }
        return found

    corpus = {"name": "make_phrases(90_000, ['zh', 'de', 'fr'])", "babel": metadata.version("babel")}
    publish(
        args,
        "translation",
        model,
        tokenizer.base,
        corpus,
        recipe,
        measured,
        "trained on phrases of Unicode's CLDR (Unicode-3.0)",
        seconds,
    )


# --- two that answer, one that summarizes -------------------------------------------------------------------


def answering(args, model, tokenizer, learn, batches, loss, recipe, say):
    "What the two models of chapter 18 have in common."
    test = make_questions(500, True)
    seconds = timed_fit(model, batches, loss, recipe)

    def measured(model):
        scores = score_by_kind(test, say(model, tokenizer, test))
        return {kind: round(float(score), 4) for kind, score in scores.items()}

    publish(
        args,
        args.what,
        model,
        tokenizer.base,
        {"name": f"make_questions({len(learn):_}, False)"},
        recipe,
        measured,
        "trained on questions that llmlab generates",
        seconds,
        "the last step of the run; dropout and steps were chosen on other questions of the test side (seed "
        "7)",
    )


def answering_marks(args):
    learn = make_questions(60_000, False)
    text = " ".join(f"{item.passage} {item.question}" for item in learn[:3000])
    tokenizer = MaskTokenizer(Tokenizer.train(text, 1024))
    shape = dict(
        layers=3, heads=4, d_model=64, d_ff=128, position="rope", rope_base=1e5, segments=4, dropout=0.1
    )
    reader = SpanReader(Config(tokenizer.vocab_size, context=128, **shape))

    def say(model, tokenizer, test):
        return answer_question(model, tokenizer, [(i.question, i.passage) for i in test])

    recipe = Recipe(steps=args.steps or 1500, lr=3e-3)
    batches = Batches(span_rows(learn, tokenizer, 128), trim_rows)
    answering(args, reader, tokenizer, learn, batches, span_loss, recipe, say)


def answering_writes(args):
    path = args.out / "answering-marks.safetensors"
    reader = load_checkpoint(path, SpanReader(Config(**read_checkpoint(path)[0]["config"])))[0]
    tokenizer = MaskTokenizer(Tokenizer.load(args.out / "answering.tokenizer.json"))
    recipe = Recipe(steps=args.steps or 1500, lr=6e-3, muon=True)
    writer = AnswerWriter(replace(reader.cfg, dropout=0.0)).start_from(reader)
    learn = make_questions(60_000, False)
    batches = Batches(answer_rows(learn, tokenizer, 128), pad_pairs)
    answering(args, writer, tokenizer, learn, batches, answer_loss, recipe, generate_answers)


def summarization(args):
    learn, held = make_story_pairs(20_000)
    tokenizer = Tokenizer.train("\n".join(pair.document + " " + pair.summary for pair in learn), 512)
    model = EncoderDecoder(
        Config(tokenizer.vocab_size, context=96, layers=2, heads=4, d_model=96, position="rope")
    )
    recipe = Recipe(steps=args.steps or 400, lr=3e-3)
    seconds = timed_fit(model, Batches(summary_rows(learn, tokenizer, 96), pad_pairs), summary_loss, recipe)

    def measured(model):
        written = summarize(model, tokenizer, [pair.document for pair in held])
        exact = sum(a == b.summary for a, b in zip(written, held, strict=True)) / len(held)
        return {"exact": round(exact, 4), "stories": len(held)}

    publish(
        args,
        "summarization",
        model,
        tokenizer,
        {"name": "make_story_pairs(20_000)"},
        recipe,
        measured,
        "trained on the stories that llmlab generates",
        seconds,
    )


def infilling(args):
    learn, held = load_corpus("stdlib").split()
    tokenizer = InfillTokenizer(Tokenizer.train(learn.text, 1500))
    model = Decoder(
        Config(tokenizer.vocab_size, context=160, layers=4, heads=4, d_model=128, position="rope")
    )
    recipe = Recipe(steps=args.steps or 3000, batch_size=64, lr=6e-3, muon=True)
    seconds = timed_fit(
        model,
        Batches(code_rows([*learn.documents.values()]), CodeCollator(tokenizer, 160), batch_size=64),
        code_loss,
        recipe,
    )
    unseen = Batches(code_rows([*held.documents.values()]), CodeCollator(tokenizer, 160))

    @torch.no_grad()
    def measured(model):
        return {"nats a token": round(sum(code_loss(model, unseen(i)).item() for i in range(20)) / 20, 4)}

    corpus_facts = {"name": learn.name, "train": learn.fingerprint, "python": platform.python_version()}
    publish(
        args,
        "infilling",
        model,
        tokenizer.base,
        corpus_facts,
        recipe,
        measured,
        "trained on CPython's standard library (PSF-2.0)",
        seconds,
        "the last step of the run; the form of the rows was chosen on gaps in held-out files",
    )


JOBS = {
    job.__name__.replace("_", "-"): job
    for job in (
        reference_gpt,
        stories_bert,
        translation,
        answering_marks,
        answering_writes,
        summarization,
        infilling,
    )
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=JOBS)
    parser.add_argument("--steps", type=int, help="default: as many as the shipped one had")
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument(
        "--threads", type=int, default=1, help="one: then CPU seconds are seconds of one core"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    JOBS[args.what](args)


if __name__ == "__main__":
    main()
