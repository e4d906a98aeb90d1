"""Generation: samplers as distributions, the processors of transformers, beams against all texts, stops,
streams, seeds."""

import itertools
import math

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as peer

from llmlab.generation import (
    Beams,
    Sampling,
    beam_search,
    cut_min_p,
    cut_top_k,
    cut_top_p,
    distribution,
    generate,
    next_tokens,
    pick,
    speculative_generate,
    uniforms,
)
from llmlab.masked import MaskedLM
from llmlab.penalties import penalize, repeats
from llmlab.recording import record_attention
from llmlab.stopping import cut
from llmlab.streaming import end_of_text, generate_text, prompt_ids, stream_tokens, text_pieces
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def shaken(model, seed=0, by=0.3):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn_like(p))
    return model.eval()


def decoder(v=12, context=64, seed=0, **more):
    torch.manual_seed(seed)
    return shaken(Decoder(Config(vocab_size=v, context=context, layers=2, heads=2, d_model=16, **more)), seed)


def two(v=12):
    torch.manual_seed(0)
    return shaken(EncoderDecoder(Config(vocab_size=v, context=16, layers=2, heads=2, d_model=16)))


def same(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


# --- the processors of transformers -----------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.floats(0.05, 0.99), st.floats(0.2, 3.0), st.floats(0.5, 2.0)
)
def test_each_equals_transformers(seed, k, p, temperature, penalty):
    generator = torch.Generator().manual_seed(seed)
    logits, ids = 3 * torch.randn(3, 40, generator=generator), torch.randint(40, (3, 7), generator=generator)
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter(1, ids, True)
    same(cut_top_k(logits, k), peer.TopKLogitsWarper(k)(ids, logits))
    same(cut_top_p(logits, p).softmax(-1), peer.TopPLogitsWarper(p)(ids, logits).softmax(-1))
    same(cut_min_p(logits, p), peer.MinPLogitsWarper(p)(ids, logits))
    same(penalize(logits, seen, penalty), peer.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits))
    all_of_it = [
        peer.TemperatureLogitsWarper(temperature),
        peer.TopKLogitsWarper(k),
        peer.TopPLogitsWarper(p),
        peer.MinPLogitsWarper(0.02),
    ]
    theirs = transformers.LogitsProcessorList(all_of_it)(ids, logits).softmax(-1)
    same(distribution(logits, Sampling(temperature, k, p, 0.02)), theirs)


def test_by_pencil():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    same(distribution(p.log(), Sampling(top_p=0.7)), torch.tensor([[0.625, 0.375, 0, 0]]))
    same(distribution(p.log(), Sampling(min_p=0.2)), torch.tensor([[0.5, 0.3, 0.15, 0]]) / 0.95)
    same(distribution(p[:, :2].log() * 1.0, Sampling(0.5)), torch.tensor([[25 / 34, 9 / 34]]))
    assert distribution(p.log(), Sampling(0)).tolist() == [[1, 0, 0, 0]]


@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_every_cut_keeps_the_likeliest(seed, p):
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(seed))
    best = logits.argmax(-1)
    for sampling in (Sampling(top_k=1), Sampling(top_p=p), Sampling(min_p=p)):
        probs = distribution(logits, sampling)
        assert (probs.argmax(-1) == best).all() and torch.allclose(probs.sum(-1), torch.ones(2))


# --- draws ------------------------------------------------------------------------------------------------


def chi_square(counts, probs):
    "Pearson's statistic over its degrees of freedom; near 1 when the counts come from probs."
    n, kept = counts.sum(), probs > 0
    assert counts[~kept].sum() == 0, "a token that was cut has been drawn"
    return float(((counts - n * probs)[kept] ** 2 / (n * probs)[kept]).sum() / (kept.sum() - 1))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(0.5), Sampling(1.7), Sampling(top_k=5), Sampling(top_p=0.8), Sampling(min_p=0.1)],
    ids=str,
)
def test_generate_draws_from_the_distribution(sampling):
    model = decoder()
    rows = generate(model, [[3, 1]] * 4000, 1, sampling)
    with torch.no_grad():
        probs = distribution(model(torch.tensor([[3, 1]]))[:, -1], sampling)[0].double()
    assert chi_square(torch.tensor(rows).flatten().bincount(minlength=12).double(), probs) < 2.5


def test_pick_takes_the_interval_in_which_u_lies():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])
    u = torch.tensor([0.0, 0.2499, 0.2501, 0.999999, 1 - 2.0**-48], dtype=torch.float64)
    assert pick(probs.expand(5, -1), u).tolist() == [1, 1, 3, 3, 3]


def test_random_numbers_depend_on_seed_row_and_place_alone():
    assert torch.equal(uniforms(5, 2, 3), uniforms(5, 4, 9)[:2, :3])
    assert not torch.equal(uniforms(5, 2, 3), uniforms(6, 2, 3))
    many = uniforms(0, 50, 200)
    assert 0 <= many.min() and many.max() < 1 and abs(float(many.mean()) - 0.5) < 0.01


def test_seeds():
    model = decoder()
    rows = generate(model, [[1, 2], [3]], 20, seed=4)
    assert rows == generate(model, [[1, 2], [3]], 20, seed=4) != generate(model, [[1, 2], [3]], 20, seed=5)
    assert rows[:1] == generate(model, [[1, 2]], 20, seed=4), "a row does not depend on its neighbours"
    assert rows[0][:9] == generate(model, [[1, 2]], 9, seed=4)[0]
    assert rows[0] == list(stream_tokens(model, [1, 2], 20, seed=4)), (
        "one decoding loop, one scheme of randomness"
    )


# --- generate, with and without a cache -------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0), Sampling(), Sampling(0.8, 6, 0.9, 0.01, 1.4)],
    ids=["greedy", "drawn", "all"],
)
@pytest.mark.parametrize("context", [64, 10], ids=["fits", "overflows"])
def test_with_and_without_a_cache(sampling, context):
    model, prompts = decoder(context=context, position="rope"), [[1, 2, 3], [4], [5, 6]]
    rows = generate(model, prompts, 25, sampling)
    assert rows == generate(model, prompts, 25, sampling, cache=False)
    if context == 64:
        assert rows == generate(lambda ids: model(ids), prompts, 25, sampling)


def test_encoder_decoder_equals_its_forward_pass():
    model, sources = two(), [[3, 4, 5, 6], [7]]
    rows = generate(model, [[1], [1]], 8, Sampling(0), source=sources)
    for source, row in zip(sources, rows, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([source]), torch.tensor([[1, *row]]))[0]
        assert logits[:-1].argmax(-1).tolist() == row


def test_greedy_equals_transformers():
    hf_cfg = transformers.GPT2Config(
        vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    theirs = shaken(transformers.GPT2LMHeadModel(hf_cfg))
    options = dict(do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0)
    for penalty in (1.0, 1.3):
        whole = theirs.generate(
            torch.tensor([[3, 5, 1]]), attention_mask=torch.ones(1, 3), repetition_penalty=penalty, **options
        )
        ours = generate(
            lambda ids: theirs(ids).logits, [[3, 5, 1]], 20, Sampling(0, repetition_penalty=penalty)
        )
        assert ours == [whole[0, 3:].tolist()]


def test_stop_overflow_writes_what_fits():
    assert [len(row) for row in generate(decoder(context=8), [[1, 2, 3], [4]], 20, overflow="stop")] == [5, 7]
    assert generate(decoder(context=3), [[1, 2, 3]], 20, overflow="stop") == [[]]


def test_generating_leaves_the_mode_and_sees_no_dropout():
    model = decoder(dropout=0.5).train()
    assert generate(model, [[1, 2]], 20, seed=3) == generate(model, [[1, 2]], 20, seed=3)
    assert model.training


def test_temperature_zero_takes_the_likeliest():
    model, seen = decoder(), [4]
    for i in generate(model, [[4]], 5, Sampling(0))[0]:
        with torch.no_grad():
            assert i == int(model(torch.tensor([seen]))[0, -1].argmax())
        seen.append(i)


# --- stops ------------------------------------------------------------------------------------------------


def counter(v=10):
    "A model that counts: after x comes x + 1."
    return lambda ids: torch.eye(v).roll(1, 1)[ids] * 50.0


def test_rows_end_at_their_own_stops():
    rows = generate(counter(), [[0], [4]], 9, Sampling(0), stop=[[5], [8, 9]])
    assert rows == [[1, 2, 3, 4, 5], [5]]
    assert generate(counter(), [[0], [6]], 9, Sampling(0), stop=[[8, 9]]) == [
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        [7, 8, 9],
    ]


def test_nothing_is_computed_after_all_have_stopped():
    calls, count = [], counter()
    generate(lambda ids: (calls.append(1), count(ids))[1], [[0], [2]], 9, Sampling(0), stop=[[4]])
    assert len(calls) == 4


def test_a_stop_that_never_comes_and_no_tokens():
    assert generate(counter(), [[0]], 5, Sampling(0), stop=[[3, 9]]) == [[1, 2, 3, 4, 5]]
    assert generate(counter(), [[0], [1]], 0) == [[], []]


def test_cut_by_pencil():
    assert cut([5, 1, 2, 3], [[1, 2]]) == [5, 1, 2] and cut([5], [[1, 2]]) == [5] and cut([], [[1]]) == []


def test_a_stream_hands_out_each_token_before_the_next_is_computed():
    calls, count = [], counter()
    tokens = stream_tokens(lambda ids: (calls.append(1), count(ids))[1], [0], 5, Sampling(0))
    assert [(next(tokens), len(calls)) for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]


# --- text -------------------------------------------------------------------------------------------------


TEXT = "the cat sat on the mat. the dög ran.\n\nthe end 你好 "
bpe = Tokenizer.train(TEXT, 270)


def speaker(ids):
    "Pieces of a stream that says these ids."
    return lambda stop=(): list(text_pieces(iter(ids), bpe, stop))


@pytest.mark.parametrize("stop", ["mat", ". the", "\n\n", "never", "的", "the cat"])
def test_pieces_join_to_the_text_before_the_stop(stop):
    parts = speaker(bpe.encode(TEXT))([stop])
    assert "".join(parts) == TEXT.split(stop)[0]
    assert all(parts) and not any("\ufffd" in part for part in parts)
    assert all(TEXT.split(stop)[0].startswith("".join(parts[:i])) for i in range(len(parts)))


def test_pieces_end_at_the_end_of_a_text():
    ids = bpe.encode("the cat")
    assert "".join(speaker([*ids, bpe.eot, *ids])()) == "the cat"


def test_the_first_stop_counts_and_broken_characters_show_at_the_end():
    assert "".join(speaker(bpe.encode("a cat sat"))(["sat", "cat"])) == "a "
    assert "".join(speaker(bpe.encode("a 你")[:-1])()).endswith("\ufffd")


def test_write_says_what_generate_says():
    model = decoder(v=bpe.vocab_size)
    new = generate(model, [bpe.encode("the")], 12, stop=[[bpe.eot]], seed=3)[0]
    assert generate_text(model, bpe, "the", 12, seed=3) == bpe.decode([i for i in new if i != bpe.eot])


# --- beams ------------------------------------------------------------------------------------------------


def all_texts(model, prompt, n, v, stop, penalty):
    "Every text up to n tokens that ends at the stop or at n, with its score, best first."
    found = []
    for length in range(1, n + 1):
        for text in itertools.product(range(v), repeat=length):
            if stop not in text[:-1] and (text[-1] == stop or length == n):
                with torch.no_grad():
                    logp = model(torch.tensor([[*prompt, *text]]))[0].log_softmax(-1)
                total = sum(float(logp[len(prompt) + i - 1, x]) for i, x in enumerate(text))
                found.append((list(text), total / length**penalty))
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5, -0.5])
def test_wide_beams_find_the_best_of_all_texts(penalty):
    model, prompts = decoder(v=4), [[1, 2], [3]]
    found = beam_search(model, prompts, 4, Beams(81, penalty), stop=[[0]])
    for prompt, texts in zip(prompts, found, strict=True):
        every = all_texts(model, prompt, 4, 4, 0, penalty)
        for (a, x), (b, y) in zip(texts[:20], every[:20], strict=True):
            assert a == b and math.isclose(x, y, abs_tol=1e-4)


def test_one_beam_is_greedy():
    model = decoder()
    assert (
        beam_search(model, [[1, 2], [5]], 9, Beams(1))[1][0][0] == generate(model, [[5]], 9, Sampling(0))[0]
    )


@pytest.mark.parametrize("width, penalty", [(2, 1.0), (4, 0.0), (4, 1.0), (5, 2.0)])
def test_beams_equal_transformers(width, penalty):
    cfg = dict(vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**cfg)), by=0.2)
    for prompt in ([3, 5, 1], [7], [2, 2]):
        options = dict(
            num_beams=width, length_penalty=penalty, early_stopping="never", max_new_tokens=10, pad_token_id=0
        )
        whole = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, **options
        )
        text, _ = beam_search(
            lambda ids: theirs(ids).logits, [prompt], 10, Beams(width, penalty), stop=[[0]]
        )[0][0]
        assert text == whole[0, len(prompt) :].tolist()[: len(text)]


def test_beams_with_a_cache_a_source_and_a_batch():
    model, sources = two(), [[3, 4, 5, 6], [7]]
    found = beam_search(model, [[1], [1, 2]], 6, Beams(3), stop=[[0]], source=sources)
    for prompt, source, texts in zip([[1], [1, 2]], sources, found, strict=True):
        (alone,) = beam_search(
            lambda ids, s=source: model(torch.tensor([s] * len(ids)), ids), [prompt], 6, Beams(3), stop=[[0]]
        )
        assert [text for text, _ in texts] == [text for text, _ in alone]
        assert all(math.isclose(a, b, abs_tol=1e-4) for (_, a), (_, b) in zip(texts, alone, strict=True))


def test_beams_end_at_stops_of_several_ids():
    model = counter()
    assert beam_search(model, [[0], [6]], 9, Beams(2), stop=[[3, 4], [8]])[0][0][0] == [1, 2, 3, 4]
    (_, (best, *_)) = beam_search(model, [[0], [6]], 9, Beams(2), stop=[[3, 4], [8]])
    assert best[0] == [7, 8]


def test_beams_when_every_token_is_a_stop():
    (texts,) = beam_search(decoder(v=3), [[1]], 4, Beams(3), stop=[[0], [1], [2]])
    assert sorted(ids for ids, _ in texts) == [[0], [1], [2]]


def test_the_length_penalty_by_pencil():
    "Two texts: [1] ends at once with 0.4; [2, 1] has 0.6 · 0.5 = 0.3."
    table = torch.tensor([[0.0, 0.4, 0.6], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    best = [
        beam_search(lambda ids: table[ids].log(), [[0]], 2, Beams(3, a), stop=[[1]])[0][0] for a in (0.0, 2.0)
    ]
    assert best[0][0] == [1] and math.isclose(best[0][1], math.log(0.4), rel_tol=1e-5)
    assert len(best[1][0]) == 2 and math.isclose(best[1][1], math.log(0.3) / 4, rel_tol=1e-5)


# --- speculation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
def test_greedy_speculation_equals_greedy(k):
    model, draft = decoder(seed=0), decoder(seed=1)
    new, accepted = speculative_generate(model, draft, [1, 2], 30, Sampling(0), k)
    assert new == generate(model, [[1, 2]], 30, Sampling(0))[0] and all(0 <= a <= k for a in accepted)


def test_a_perfect_draft_is_always_accepted():
    new, accepted = speculative_generate(decoder(), decoder(), [1, 2], 20, draft_tokens=4, seed=1)
    assert accepted == [4] * 4 and len(new) == 20


def test_speculation_draws_from_the_models_own_distribution():
    p, q = (
        torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]]),
        torch.tensor([[0.5, 0.25, 0.25]]).expand(3, 3),
    )
    pairs = torch.zeros(3, 3, dtype=torch.double)
    for seed in range(1000):
        (a, b, *_), _ = speculative_generate(
            lambda ids: p[ids].log(), lambda ids: q[ids].log(), [0], 4, draft_tokens=2, seed=seed
        )
        pairs[a, b] += 1
    assert chi_square(pairs.flatten(), (p[0][:, None] * p).flatten().double()) < 2.5


def test_speculation_stops_where_the_context_is_full():
    for context, small in ((8, 8), (16, 16), (16, 5)):
        model, draft = decoder(context=context), decoder(context=small, seed=1)
        right = generate(model, [[1, 2]], 50, Sampling(0), overflow="stop")[0]
        for k in (1, 2, 4, 6, 8, 30):
            new, accepted = speculative_generate(model, draft, [1, 2], 50, Sampling(0), k)
            assert new == right and len(new) == context - 2 and sum(accepted) + len(accepted) == len(new)
            assert speculative_generate(model, draft, [1, 2], 3, Sampling(0), k)[0] == right[:3]


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        (
            dict(temperature=-1),
            "temperature=-1: expected a finite number of at least 0; 0 takes the likeliest token",
        ),
        (dict(temperature=math.nan), "temperature=nan: expected"),
        (dict(top_k=0), "top_k=0: expected a whole number of at least 1, or None"),
        (dict(top_p=0.0), "top_p=0.0: expected a number above 0 and of at most 1; 1 keeps all"),
        (dict(top_p=1.1), "top_p=1.1: expected a number above 0"),
        (dict(min_p=-0.1), "min_p=-0.1: expected a number from 0 to 1; 0 keeps all"),
        (
            dict(repetition_penalty=0.0),
            "repetition_penalty=0.0: expected a finite number above 0; 1 changes nothing",
        ),
    ],
)
def test_choices_outside_their_range(options, words):
    with pytest.raises(ValueError, match=words):
        Sampling(**options)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m: generate(m, [[1], []], 3), "row 1 of prompts is empty: start with a token"),
        (lambda m: generate(m, [[1]], 3, seed=-1), "seed=-1: expected a whole number from 0 to 4294967295"),
        (lambda m: stream_tokens(m, [], 3), "row 0 of prompts is empty"),
        (
            lambda m: generate(m, [[1]], 3, stop=["x"]),
            r"stop=\['x'\]: expected lists of ids, such as \[\[tokenizer.eot\]\]; for text use",
        ),
        (lambda m: generate(m, [[1]], 3, stop=[[]]), r"stop=\[\[\]\]: expected lists of ids"),
        (lambda m: generate_text(m, bpe, "", 3), "row 0 of prompts is empty"),
        (
            lambda m: generate_text(m, bpe, "the", 3, stop="x"),
            "stop='x': expected a list of texts, none of them empty",
        ),
        (
            lambda m: generate_text(m, bpe, "the", 3, stop=[""]),
            "expected a list of texts, none of them empty",
        ),
        (lambda m: generate(m, [[1] * 65], 3, overflow="stop"), "65 tokens, but the context is 64"),
        (lambda m: Beams(0), "width=0: expected a whole number of at least 1"),
        (lambda m: beam_search(m, [[1]], 3, stop=[1]), r"stop=\[1\]: expected lists of ids"),
        (lambda m: generate(two(), [[1]], 3, source=[[1] * 17]), "17 tokens, but the context is 16"),
        (
            lambda m: speculative_generate(m, m, [1], 3, Sampling(repetition_penalty=2.0)),
            "speculation has no penalties",
        ),
        (
            lambda m: speculative_generate(m, decoder(v=9), [1], 3),
            "the draft has 9 tokens, the model 12: both need one vocabulary",
        ),
    ],
)
def test_bad_input_is_said_in_words(unchecked, call, words):
    with pytest.raises(ValueError, match=words):
        call(decoder())


# --- each row by itself -----------------------------------------------------------------------------------

POLICIES = {
    "greedy": lambda m, rows, **o: generate(m, rows, 20, Sampling(0), **o),
    "sampling": lambda m, rows, **o: generate(m, rows, 20, Sampling(0.9, top_p=0.9), seed=3, **o),
    "penalties": lambda m, rows, **o: generate(m, rows, 20, Sampling(0, None, 1, 0, 1.2, 0.3, 0.2, 4), **o),
    "beams": lambda m, rows, **o: beam_search(m, rows, 12, Beams(3), stop=[[5]], **o),
    "beams, no repeats": lambda m, rows, **o: beam_search(m, rows, 12, Beams(2, no_repeat_ngram_size=3), **o),
}
WIDTHS = [(3, 7), (1, 8), (7, 8, 1), (12, 20, 3), (5, 8, 2)]  # around a context of 8


def alike(ours, alone):
    "Ids, or (ids, score) with scores up to rounding."
    if ours and isinstance(ours[0], tuple):
        assert [ids for ids, _ in ours] == [ids for ids, _ in alone]
        assert [s for _, s in ours] == pytest.approx([s for _, s in alone], abs=1e-4)
    else:
        assert ours == alone


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("overflow", ["forget", "stop"])
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_row_is_independent_of_its_neighbours(policy, overflow, position):
    model, write_all = decoder(context=8, position=position), POLICIES[policy]
    generator = torch.Generator().manual_seed(0)
    for widths in WIDTHS[:: 2 if "beams" in policy else 1]:
        rows = [torch.randint(12, (n,), generator=generator).tolist() for n in widths]
        if overflow == "stop" and max(widths) > 8:
            continue
        together = write_all(model, rows, overflow=overflow)
        for i, row in enumerate(rows):
            others = [[1]] * i + [row]  # random numbers belong to the place in the batch, so the row keeps it
            alike(together[i], write_all(model, others, overflow=overflow)[i])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 11), min_size=1, max_size=4), st.integers(0, 99), st.integers(4, 9))
def test_rows_alone_and_together(widths, seed, context):
    model, generator = decoder(context=context, position="rope"), torch.Generator().manual_seed(seed)
    rows = [torch.randint(12, (n,), generator=generator).tolist() for n in widths]
    together = generate(model, rows, 15, Sampling(0))
    assert together == [generate(model, [row], 15, Sampling(0))[0] for row in rows]


@pytest.mark.parametrize("policy", ["greedy", "beams"])
def test_rows_of_an_encoder_decoder_are_independent(policy):
    model, rows, sources = two(), [[1, 2, 3], [4], [5] * 14], [[3, 4, 5], [6], [7, 8]]
    for overflow in ("forget", "stop"):
        together = POLICIES[policy](model, rows, source=sources, overflow=overflow)
        for i, (row, source) in enumerate(zip(rows, sources, strict=True)):
            alike(together[i], POLICIES[policy](model, [row], source=[source], overflow=overflow)[0])


def test_a_stream_says_where_a_row_has_no_room_left():
    steps = torch.stack(list(next_tokens(decoder(context=8), [[1] * 6, [2] * 7], 5, overflow="stop")), 1)
    assert (steps[0] >= 0).tolist() == [True, True] and (steps[1] >= 0).tolist() == [True, False]


# --- penalties, pieces that repeat, processors ------------------------------------------------------------


def test_frequency_and_presence_penalty_by_their_formula():
    "OpenAI's: logit - count * frequency - (count > 0) * presence, over what was written; here step by step."
    model, sampling = decoder(v=6), Sampling(0, frequency_penalty=0.7, presence_penalty=0.4)
    rows = generate(model, [[1, 2, 2], [3]], 12, sampling)
    for prompt, new in zip([[1, 2, 2], [3]], rows, strict=True):
        written = []
        for token in new:
            logits = model(torch.tensor([prompt + written]))[0, -1]
            counts = torch.tensor([written.count(i) for i in range(6)])
            assert token == int((logits - 0.7 * counts - 0.4 * (counts > 0)).argmax())
            written.append(token)
    assert rows != generate(model, [[1, 2, 2], [3]], 12, Sampling(0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 3))
def test_repeats_are_those_of_transformers(row, size, padding):
    text, logits = torch.tensor([[0] * padding + row]), torch.zeros(1, 4)
    theirs = peer.NoRepeatNGramLogitsProcessor(size)(text[:, padding:], logits)
    assert torch.equal(repeats(text, torch.tensor([padding]), size, 4), theirs.isinf())


def test_no_piece_is_repeated_whatever_the_prompt_and_the_batch():
    model = decoder(v=5)
    rows = generate(model, [[1, 2, 1, 2], [3]], 40, Sampling(no_repeat_ngram_size=3), seed=1)
    for prompt, new in zip([[1, 2, 1, 2], [3]], rows, strict=True):
        found = list(itertools.pairwise(itertools.pairwise(prompt + new)))
        assert len(found) == len(set(found)) and len(new) == 40


@pytest.mark.parametrize(
    "processors",
    [
        [peer.NoRepeatNGramLogitsProcessor(2)],
        [peer.RepetitionPenaltyLogitsProcessor(1.5)],
        [
            peer.SuppressTokensLogitsProcessor([0, 1, 2, 3], device="cpu"),
            peer.NoRepeatNGramLogitsProcessor(3),
        ],
    ],
)
def test_processors_of_transformers_fit(processors):
    model = decoder()
    theirs = generate(model, [[1, 2], [3], [4, 5, 6]], 15, Sampling(0), processors=processors)
    for prompt, new in zip([[1, 2], [3], [4, 5, 6]], theirs, strict=True):
        text = list(prompt)
        for token in new:
            logits, ids = model(torch.tensor([text]))[:, -1], torch.tensor([text])
            for processor in processors:
                logits = processor(ids, logits)
            assert token == int(logits.argmax())
            text.append(token)


def test_beams_without_repeats_are_those_of_transformers():
    cfg = transformers.GPT2Config(
        vocab_size=20, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=19
    )
    torch.manual_seed(0)
    theirs = shaken(transformers.GPT2LMHeadModel(cfg), by=0.2)
    whole = theirs.generate(
        torch.tensor([[3, 5, 1]]),
        attention_mask=torch.ones(1, 3),
        max_new_tokens=12,
        num_beams=3,
        no_repeat_ngram_size=2,
        pad_token_id=0,
    )
    ours = beam_search(theirs, [[3, 5, 1]], 12, Beams(3, no_repeat_ngram_size=2), stop=[[19]])[0][0][0]
    assert ours == whole[0, 3 : 3 + len(ours)].tolist()


def test_a_processor_must_give_logits_of_the_same_shape():
    for wrong, words in (
        (lambda ids, x: x[:, :3], r"gave \[1, 3\] for logits \[1, 12\]"),
        (lambda ids, x: None, "gave NoneType"),
    ):
        with pytest.raises(ValueError, match=words):
            generate(decoder(), [[1]], 3, processors=[wrong])


# --- logits that are no numbers ---------------------------------------------------------------------------


def spoiled_at(step, row, value, v=7):
    "A function whose logits hold `value` once the given row has read `step` new ids."

    def model(ids):
        logits = torch.zeros(*ids.shape, v)
        if ids.shape[1] == 2 + step:
            logits[row, :, 3 if value != -math.inf else slice(None)] = value
        return logits

    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step, row", [(0, 0), (2, 1)])
@pytest.mark.parametrize("way", ["greedy", "sampling", "beams"])
def test_logits_that_are_no_numbers_are_named(value, step, row, way):
    with pytest.raises(
        ValueError, match=f"at step {step}, row {row}, no token can be chosen: the logits hold NaN"
    ):
        if way == "beams":
            width = 2
            model = spoiled_at(step, slice(width * row if step else row, None), value)
            beam_search(model, [[1, 2]] * 2, 5, Beams(width))
        else:
            generate(spoiled_at(step, row, value), [[1, 2]] * 2, 5, Sampling(float(way != "greedy")))


def test_some_minus_infinity_is_no_fault_and_ids_stay_in_the_vocabulary():
    logits = torch.tensor([-math.inf, 1.0, -math.inf, 0.0])
    rows = generate(lambda ids: logits.expand(*ids.shape, 4), [[1]] * 20, 10)
    assert {i for row in rows for i in row} == {1, 3}
    assert pick(torch.full((1, 4), math.nan), torch.tensor([0.5])).item() < 4


def test_processors_that_forbid_everything_are_named():
    with pytest.raises(ValueError, match="at step 3, row 0, .* processors that forbid every token"):
        generate(decoder(v=4), [[0]], 9, Sampling(no_repeat_ngram_size=1))


@pytest.mark.parametrize("temperature", [1e-4, 1e-20, 1e-39, 1e-42, 5e-324])
def test_a_tiny_temperature_takes_the_likeliest(temperature):
    row = torch.tensor([1.0, 5.0, 3.0, -math.inf, 4.9])
    assert distribution(row[None], Sampling(temperature))[0].tolist() == [0, 1, 0, 0, 0]
    assert generate(lambda ids: row.expand(*ids.shape, 5), [[1]], 3, Sampling(temperature)) == [[1, 1, 1]]


def test_top_k_above_the_vocabulary_keeps_all():
    logits = torch.randn(2, 5)
    assert torch.equal(cut_top_k(logits, 50), logits)
    same(cut_top_k(logits, 50), peer.TopKLogitsWarper(50)(None, logits))


@pytest.mark.parametrize("p, kept", [(0.5, 1), (0.79, 2), (0.8, 2), (0.81, 3), (0.9, 3), (0.95, 4)])
def test_top_p_at_an_exact_sum(p, kept):
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()
    assert int((cut_top_p(logits, p) > -math.inf).sum()) == kept
    assert int((peer.TopPLogitsWarper(p)(None, logits) > -math.inf).sum()) == kept


# --- models and tokenizers of others ----------------------------------------------------------------------


def test_a_model_of_transformers_is_taken_as_it_is():
    cfg = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(0)
    theirs = shaken(transformers.GPT2LMHeadModel(cfg), by=0.2)
    assert generate(theirs, [[3, 5], [1]], 5, Sampling(0)) == generate(
        lambda x: theirs(x).logits, [[3, 5], [1]], 5, Sampling(0)
    )
    long, rest = (
        generate(theirs, [[3, 5]], 20, Sampling(0))[0],
        generate(theirs, [[3, 5]], 20, overflow="stop")[0],
    )
    assert len(long) == 20 and len(rest) == 6, "its context is 8"
    assert len(beam_search(theirs, [[3, 5]], 4, Beams(2))[0]) == 2


@pytest.mark.parametrize("kind", [Encoder, MaskedLM])
def test_an_encoder_cannot_write(kind):
    with pytest.raises(ValueError, match="reads a text as a whole and cannot write: give a Decoder"):
        generate(kind(Config(12, context=8, layers=1, heads=2, d_model=16)), [[1]], 3)


def test_what_gives_no_logits_is_named():
    for wrong, words in (
        (lambda ids: ids, r"the model gave a tensor \[1, 1\] for ids"),
        (lambda ids: "x", "the model gave str"),
    ):
        with pytest.raises(ValueError, match=words):
            generate(wrong, [[1]], 3)


def test_a_loaded_tokenizer_writes_the_same_text():
    fast = tokenizers.Tokenizer(
        tokenizers.models.BPE({c: i for i, c in enumerate(ALPHABET)} | {"<|endoftext|>": 256}, [])
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    fast.add_special_tokens(["<|endoftext|>"])
    ours, model = Tokenizer([]), decoder(v=257)
    assert (end_of_text(fast), end_of_text(ours)) == (256, ours.eot)
    assert prompt_ids(fast, "the cat") == prompt_ids(ours, "the cat")
    for seed in range(3):
        new = [generate_text(model, t, "the cat", 20, seed=seed) for t in (fast, ours)]
        assert new[0] == new[1]


# --- attention on a tape while a text is written ----------------------------------------------------------


def test_the_tape_joins_the_steps_of_a_text():
    model, prompts = decoder(), [[1, 2, 3], [4]]
    with record_attention(model) as tape:
        new = generate(model, prompts, 6, Sampling(0))
    assert list(tape) == [
        f"blocks.{i}.attention.{part}" for i in range(2) for part in ("weights", "q", "k", "v")
    ]
    for row, (prompt, more) in enumerate(zip(prompts, new, strict=True)):
        with record_attention(model) as whole:
            model(torch.tensor([prompt + more[:-1]]))
        start = 3 - len(prompt)
        for name, x in whole.items():
            ours = tape[name][row : row + 1, :, start:]
            same(ours[..., start:] if name.endswith("weights") else ours, x)
            if name.endswith("weights"):
                assert (tape[name][row, ..., :start] == 0).all(), "nobody looks at padding"


def test_the_tape_of_an_encoder_decoder_beams_and_two_texts():
    model = two()
    with record_attention(model) as tape:
        new = generate(model, [[1, 2]], 5, Sampling(0), source=[[3, 4, 5]])[0]
        generate(model, [[1]], 3, Sampling(0), source=[[3]])
        model(torch.tensor([[3]]), torch.tensor([[1]]))
    with record_attention(model) as whole:
        model(torch.tensor([[3, 4, 5]]), torch.tensor([[1, 2, *new[:-1]]]))
    for name, x in whole.items():
        same(tape[name], x)
    assert (
        tape["decoder.blocks.0.cross.weights.2"].shape
        == (1, 2, 3, 1)
        == (1, 2, *tape["decoder.blocks.0.cross.q.2"].shape[2:3], 1)
    )
    assert tape["decoder.blocks.0.attention.weights.3"].shape == (1, 2, 1, 1)
    gpt = decoder()
    with record_attention(gpt) as tape:
        best = beam_search(gpt, [[1, 2]], 5, Beams(1))[0][0][0]
    with record_attention(gpt) as whole:
        gpt(torch.tensor([[1, 2, *best[:-1]]]))
    for name, x in whole.items():
        same(tape[name], x)


def test_the_tape_keeps_the_rows_of_what_is_forgotten():
    model = decoder(context=8)
    with record_attention(model) as tape:
        new = generate(model, [[1, 2, 3, 4, 5, 6]], 12, Sampling(0))[0]
    assert new == generate(model, [[1, 2, 3, 4, 5, 6]], 12, Sampling(0))[0]
    w = tape["blocks.1.attention.weights"]
    assert w.shape == (1, 2, 17, 17)
    same(w.sum(-1), torch.ones(1, 2, 17))
    assert (w.triu(1) == 0).all() and (w[..., 8, :5] == 0).all() and (w[..., 8, 5:9] > 0).all()


def test_speculation_under_a_tape_keeps_what_was_accepted():
    model, draft = decoder(), decoder(seed=1)
    with record_attention(model) as tape:
        new, _ = speculative_generate(model, draft, [1, 2], 20, Sampling(0), 3)
    with record_attention(model) as whole:
        model(torch.tensor([[1, 2, *new]]))
    for name, x in whole.items():
        n = min(tape[name].shape[2], x.shape[2]) - 4
        ours, theirs = (y[:, :, :n, :n] if name.endswith("weights") else y[:, :, :n] for y in (tape[name], x))
        same(ours, theirs)


def test_no_tape_nothing_is_kept():
    from llmlab import recording

    model = decoder()
    with pytest.raises(ZeroDivisionError), record_attention(model) as tape:
        (listener,) = recording.open_listeners
        for i, _ in enumerate(stream_tokens(model, [1], 9)):
            1 / (3 - i)
    assert listener.running == [] and tape.place is None and recording.open_listeners == []


# --- devices ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_writes_the_same_and_waits_for_python_at_every_16th_token_only():
    model, sampling = decoder(), Sampling(0.9, top_p=0.9, repetition_penalty=1.1)
    here, there = generate(model, [[1, 2], [3]], 20, sampling), decoder().cuda()
    assert generate(there, [[1, 2], [3]], 20, sampling) == here
    tokens = next_tokens(there, [[1, 2], [3]], 20, sampling)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(itertools.islice(tokens, 15))) == 15
    finally:
        torch.cuda.set_sync_debug_mode("default")
