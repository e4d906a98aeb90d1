"Generation: samplers as distributions, the processors of transformers, beams against all texts, stops, streams, seeds."

import itertools
import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as peer

from llmlab.generation import (
    Beams,
    Sampling,
    beam_search,
    cut,
    cut_min_p,
    cut_top_k,
    cut_top_p,
    distribution,
    generate,
    penalize,
    pick,
    pieces,
    speculate,
    stream,
    uniforms,
    write,
)
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder, EncoderDecoder


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


# --- the processors of transformers ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.05, 0.99), st.floats(0.2, 3.0), st.floats(0.5, 2.0))
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
    for how in (Sampling(top_k=1), Sampling(top_p=p), Sampling(min_p=p)):
        probs = distribution(logits, how)
        assert (probs.argmax(-1) == best).all() and torch.allclose(probs.sum(-1), torch.ones(2))


# --- draws ----------------------------------------------------------------------------------------------------------


def chi_square(counts, probs):
    "Pearson's statistic over its degrees of freedom; near 1 when the counts come from probs."
    n, kept = counts.sum(), probs > 0
    assert counts[~kept].sum() == 0, "a token that was cut has been drawn"
    return float(((counts - n * probs)[kept] ** 2 / (n * probs)[kept]).sum() / (kept.sum() - 1))


@pytest.mark.parametrize(
    "how",
    [Sampling(), Sampling(0.5), Sampling(1.7), Sampling(top_k=5), Sampling(top_p=0.8), Sampling(min_p=0.1)],
    ids=str,
)
def test_generate_draws_from_the_distribution(how):
    model = decoder()
    rows = generate(model, [[3, 1]] * 4000, 1, how)
    with torch.no_grad():
        probs = distribution(model(torch.tensor([[3, 1]]))[:, -1], how)[0].double()
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
    model, how = decoder(), Sampling(seed=4)
    rows = generate(model, [[1, 2], [3]], 20, how)
    assert rows == generate(model, [[1, 2], [3]], 20, how) != generate(model, [[1, 2], [3]], 20, Sampling(seed=5))
    assert rows[:1] == generate(model, [[1, 2]], 20, how), "a row does not depend on its neighbours"
    assert rows[0][:9] == generate(model, [[1, 2]], 9, how)[0]


# --- generate, with and without a cache -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [Sampling(0), Sampling(seed=1), Sampling(0.8, 6, 0.9, 0.01, 1.4, 2)], ids=["greedy", "drawn", "all"]
)
@pytest.mark.parametrize("context", [64, 10], ids=["fits", "overflows"])
def test_with_and_without_a_cache(how, context):
    model, prompts = decoder(context=context, position="rope"), [[1, 2, 3], [4], [5, 6]]
    rows = generate(model, prompts, 25, how)
    assert rows == generate(model, prompts, 25, how, cache=False)
    if context == 64:
        assert rows == generate(lambda ids: model(ids), prompts, 25, how)


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
        ours = generate(lambda ids: theirs(ids).logits, [[3, 5, 1]], 20, Sampling(0, repetition_penalty=penalty))
        assert ours == [whole[0, 3:].tolist()]


def test_stop_overflow_writes_what_fits():
    assert [len(row) for row in generate(decoder(context=8), [[1, 2, 3], [4]], 20, overflow="stop")] == [5, 5]
    assert generate(decoder(context=3), [[1, 2, 3]], 20, overflow="stop") == [[]]


# --- stops ----------------------------------------------------------------------------------------------------------


def counter(v=10):
    "A model that counts: after x comes x + 1."
    return lambda ids: torch.eye(v).roll(1, 1)[ids] * 50.0


def test_rows_end_at_their_own_stops():
    rows = generate(counter(), [[0], [4]], 9, Sampling(0), stop=[5, [8, 9]])
    assert rows == [[1, 2, 3, 4, 5], [5]]
    assert generate(counter(), [[0], [6]], 9, Sampling(0), stop=[[8, 9]]) == [[1, 2, 3, 4, 5, 6, 7, 8, 9], [7, 8, 9]]


def test_nothing_is_computed_after_all_have_stopped():
    calls, count = [], counter()
    generate(lambda ids: (calls.append(1), count(ids))[1], [[0], [2]], 9, Sampling(0), stop=[4])
    assert len(calls) == 4


def test_a_stop_that_never_comes_and_no_tokens():
    assert generate(counter(), [[0]], 5, Sampling(0), stop=[[3, 9]]) == [[1, 2, 3, 4, 5]]
    assert generate(counter(), [[0], [1]], 0) == [[], []]


def test_cut_by_pencil():
    assert cut([5, 1, 2, 3], [[1, 2]]) == [5, 1, 2] and cut([5], [[1, 2]]) == [5] and cut([], [[1]]) == []


def test_a_stream_hands_out_each_token_before_the_next_is_computed():
    calls, count = [], counter()
    tokens = stream(lambda ids: (calls.append(1), count(ids))[1], [[0]], 5, Sampling(0))
    assert [(int(next(tokens)[0]), len(calls)) for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]


# --- text -----------------------------------------------------------------------------------------------------------


TEXT = "the cat sat on the mat. the dög ran.\n\nthe end 你好 "
bpe = Tokenizer.train(TEXT, 270)


def speaker(ids):
    "Pieces of a stream that says these ids."
    return lambda stop=(): list(pieces((torch.tensor([i]) for i in ids), bpe, stop))


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
    new = generate(model, [bpe.encode("the")], 12, Sampling(seed=3), stop=[bpe.eot])[0]
    assert "".join(write(model, bpe, "the", 12, Sampling(seed=3))) == bpe.decode(new)


# --- beams ----------------------------------------------------------------------------------------------------------


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
    found = beam_search(model, prompts, 4, Beams(81, penalty), stop=[0])
    for prompt, texts in zip(prompts, found, strict=True):
        every = all_texts(model, prompt, 4, 4, 0, penalty)
        for (a, x), (b, y) in zip(texts[:20], every[:20], strict=True):
            assert a == b and math.isclose(x, y, abs_tol=1e-4)


def test_one_beam_is_greedy():
    model = decoder()
    assert beam_search(model, [[1, 2], [5]], 9, Beams(1))[1][0][0] == generate(model, [[5]], 9, Sampling(0))[0]


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
        text, _ = beam_search(lambda ids: theirs(ids).logits, [prompt], 10, Beams(width, penalty), stop=[0])[0][0]
        assert text == whole[0, len(prompt) :].tolist()[: len(text)]


def test_beams_with_a_cache_a_source_and_a_batch():
    model, sources = two(), [[3, 4, 5, 6], [7]]
    found = beam_search(model, [[1], [1, 2]], 6, Beams(3), stop=[0], source=sources)
    for prompt, source, texts in zip([[1], [1, 2]], sources, found, strict=True):
        (alone,) = beam_search(
            lambda ids, s=source: model(torch.tensor([s] * len(ids)), ids), [prompt], 6, Beams(3), stop=[0]
        )
        assert [text for text, _ in texts] == [text for text, _ in alone]
        assert all(math.isclose(a, b, abs_tol=1e-4) for (_, a), (_, b) in zip(texts, alone, strict=True))


def test_the_length_penalty_by_pencil():
    "Two texts: [1] ends at once with 0.4; [2, 1] has 0.6 · 0.5 = 0.3."
    table = torch.tensor([[0.0, 0.4, 0.6], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    best = [beam_search(lambda ids: table[ids].log(), [[0]], 2, Beams(3, a), stop=[1])[0][0] for a in (0.0, 2.0)]
    assert best[0][0] == [1] and math.isclose(best[0][1], math.log(0.4), rel_tol=1e-5)
    assert len(best[1][0]) == 2 and math.isclose(best[1][1], math.log(0.3) / 4, rel_tol=1e-5)


# --- speculation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
def test_greedy_speculation_equals_greedy(k):
    model, draft = decoder(seed=0), decoder(seed=1)
    new, accepted = speculate(model, draft, [1, 2], 30, Sampling(0), k)
    assert new == generate(model, [[1, 2]], 30, Sampling(0))[0] and all(0 <= a <= k for a in accepted)


def test_a_perfect_draft_is_always_accepted():
    new, accepted = speculate(decoder(), decoder(), [1, 2], 20, Sampling(seed=1), 4)
    assert accepted == [4] * 4 and len(new) == 20


def test_speculation_draws_from_the_models_own_distribution():
    p, q = (
        torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]]),
        torch.tensor([[0.5, 0.25, 0.25]]).expand(3, 3),
    )
    pairs = torch.zeros(3, 3, dtype=torch.double)
    for seed in range(1000):
        (a, b), _ = speculate(lambda ids: p[ids].log(), lambda ids: q[ids].log(), [0], 2, Sampling(seed=seed), 2)
        pairs[a, b] += 1
    assert chi_square(pairs.flatten(), (p[0][:, None] * p).flatten().double()) < 2.5


def test_speculation_stops_where_the_context_is_full():
    assert len(speculate(decoder(context=16), decoder(context=16), [1, 2], 50, Sampling(0), 4)[0]) == 10


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(temperature=-1), "temperature=-1: expected a finite number of at least 0; 0 takes the likeliest token"),
        (dict(temperature=math.nan), "temperature=nan: expected"),
        (dict(top_k=0), "top_k=0: expected a whole number of at least 1, or None"),
        (dict(top_p=0.0), "top_p=0.0: expected a number above 0 and of at most 1; 1 keeps all"),
        (dict(top_p=1.1), "top_p=1.1: expected a number above 0"),
        (dict(min_p=-0.1), "min_p=-0.1: expected a number from 0 to 1; 0 keeps all"),
        (dict(repetition_penalty=0.0), "repetition_penalty=0.0: expected a finite number above 0; 1 changes nothing"),
        (dict(seed=-1), "seed=-1: expected a whole number of at least 0"),
    ],
)
def test_choices_outside_their_range(options, words):
    with pytest.raises(ValueError, match=words):
        Sampling(**options)


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda m: generate(m, [[1]], 3, Sampling(top_k=13)),
            "top_k=13, but the vocabulary has 12 tokens: leave top_k out",
        ),
        (lambda m: generate(m, [[1], []], 3), "row 1 of prompts is empty: start with a token"),
        (lambda m: stream(m, [[]], 3), "row 0 of prompts is empty"),
        (
            lambda m: generate(m, [[1]], 3, stop=["x"]),
            r"stop=\['x'\]: expected ids or lists of ids; for text use write\(\)",
        ),
        (lambda m: generate(m, [[1]], 3, stop=[[]]), r"stop=\[\[\]\]: expected ids or lists of ids"),
        (lambda m: write(m, bpe, "", 3), "row 0 of prompts is empty"),
        (lambda m: write(m, bpe, "the", 3, stop="x"), "stop='x': expected a list of texts, none of them empty"),
        (lambda m: write(m, bpe, "the", 3, stop=[""]), "expected a list of texts, none of them empty"),
        (lambda m: generate(m, [[1] * 65], 3, overflow="stop"), "65 tokens, but the context is 64"),
        (lambda m: Beams(0), "width=0: expected a whole number of at least 1"),
        (lambda m: beam_search(m, [[1]], 3, stop=[[1, 2]]), "beam search ends at single ids"),
        (lambda m: generate(two(), [[1]], 3, source=[[1] * 17]), "17 tokens, but the context is 16"),
        (lambda m: speculate(m, m, [1], 3, Sampling(repetition_penalty=2.0)), "speculation has no repetition penalty"),
        (
            lambda m: speculate(m, decoder(v=9), [1], 3),
            "the draft has 9 tokens, the model 12: both need one vocabulary",
        ),
    ],
)
def test_bad_input_is_said_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call(decoder())


# --- devices --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_writes_the_same_and_never_waits_for_python():
    model, how = decoder(), Sampling(0.9, top_p=0.9, seed=2, repetition_penalty=1.1)
    here, there = generate(model, [[1, 2], [3]], 20, how), decoder().cuda()
    assert generate(there, [[1, 2], [3]], 20, how) == here
    tokens = stream(there, [[1, 2], [3]], 20, how)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(tokens)
    finally:
        torch.cuda.set_sync_debug_mode("default")
