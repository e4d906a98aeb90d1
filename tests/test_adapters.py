"Tokenizers of the hub where ours fit, and ours where those fit."

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors

from llmlab.adapters import FastTokenizer, as_fast_tokenizer, as_tokenizer
from llmlab.exporting import save_pretrained
from llmlab.masked import MaskedLM, MaskTokenizer, corrupt, fill_mask, pseudo_logprobs
from llmlab.metrics import token_logprobs
from llmlab.scoring import context_of, logits_of
from llmlab.streaming import generate_text
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder

TEXT = "the cat sat on the mat and the dog sat on the log " * 5
TRICKY = [
    "the cat sat, 猫",
    "",
    " two  spaces ",
    "naïve café e\u0301",
    "👩\u200d🚀 हिन्दी ไทย",
    "a\n\tb\r\n",
    "<|end",
    "'s don't",
]


@pytest.fixture(scope="module")
def ours():
    return Tokenizer.train(TEXT, 290)


def wordpieces():
    "A tokenizer as BERT has it."
    names = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat".split()
    made = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(names[:5])
    return made


# a tokenizer of the hub in our functions


def test_the_six_things_that_our_functions_ask_for():
    wrapped = as_tokenizer(wordpieces(), "mask", "pad")
    assert wrapped.encode("the [MASK] sat") == [2, 5, 4, 7, 3] and wrapped.decode([2, 5, 6, 3]) == "the cat"
    assert (wrapped.vocab_size, wrapped.pad, wrapped.mask, wrapped.special) == (8, 0, 4, (0, 1, 2, 3, 4))
    assert wrapped.strings([2, 6]) == ["[CLS]", "cat"]


def test_ours_pass_as_they_are(ours):
    assert as_tokenizer(ours) is ours


def test_a_token_that_is_needed_and_missing_is_named():
    plain = tokenizers.Tokenizer(models.WordLevel({"the": 0}, "the"))
    with pytest.raises(ValueError, match="has no mask token: expected one of"):
        fill_mask(MaskedLM(Config(8, 16, layers=1, heads=2, d_model=8)), plain, "the [MASK]")


def test_gaps_are_filled_and_scored():
    model = MaskedLM(Config(8, 16, layers=1, heads=2, d_model=8)).eval()
    ids = torch.tensor([[2, 5, 4, 7, 3]])
    with torch.no_grad():
        right = model(ids)[0, 2].softmax(-1)
    best = fill_mask(model, wordpieces(), "the [MASK] sat", 8)
    names = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat".split()
    assert best == [
        (names[i], pytest.approx(right[i].item())) for i in right.argsort(descending=True).tolist()
    ]
    assert len(pseudo_logprobs(model, wordpieces(), "the cat sat")) == 3


def test_corrupt_hides_no_special_token():
    ids = torch.tensor([[2, 5, 6, 7, 3, 0]])
    for seed in range(20):
        inputs, labels, there = corrupt(ids, wordpieces(), generator=torch.Generator().manual_seed(seed))[0]
        assert (labels[[0, 4, 5]] == -100).all() and there.tolist() == [1, 1, 1, 1, 1, 0] and inputs[0] == 2


def test_write_goes_on_from_a_text(ours):
    model = Decoder(Config(ours.vocab_size, 32, layers=1, heads=2, d_model=8)).eval()
    engine = as_fast_tokenizer(ours)
    assert generate_text(model, engine, "the cat", 6) == generate_text(model, ours, "the cat", 6)
    assert FastTokenizer(engine).eot == ours.eot


# ours in transformers


@pytest.mark.parametrize("text", TRICKY)
def test_the_same_ids_and_the_text_back(ours, text):
    engine = as_fast_tokenizer(ours)
    assert engine.encode(text).ids == ours.encode(text) and engine.decode(ours.encode(text)) == text


@pytest.mark.parametrize("text", [*TRICKY[:4], "the [MASK] sat", "[MASK] on [MASK]", "the[MASK]"])
def test_a_tokenizer_for_masked_models(ours, text):
    mine = MaskTokenizer(ours)
    engine = as_fast_tokenizer(mine)
    assert engine.encode(text).ids == mine.encode(text)
    assert [
        engine.id_to_token(i) for i in (mine.pad, mine.cls, mine.sep, mine.mask)
    ] == "[PAD] [CLS] [SEP] [MASK]".split()


@pytest.mark.parametrize("fast", [True, False])
def test_transformers_writes_text_with_our_tokenizer(tmp_path, fast):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.train(TEXT, 290, fast)
    save_pretrained(
        Decoder(Config(ours.vocab_size, 64, layers=1, heads=2, d_model=8)), tmp_path / "out", ours
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert len(theirs) == ours.vocab_size == model.config.vocab_size
    assert theirs.eos_token_id == model.config.eos_token_id == ours.eot
    for text in TRICKY:
        assert theirs(text)["input_ids"] == ours.encode(text) and theirs.decode(ours.encode(text)) == text


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(ValueError, match="str is no tokenizer that can be written"):
        as_fast_tokenizer("gpt2")


# models of transformers in our functions


@pytest.fixture(scope="module")
def peer():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_positions=8, n_layer=1, n_head=2, n_embd=16)
    ).eval()


def test_a_model_of_transformers_is_scored_as_it_is(peer):
    ids = torch.arange(20) * 7 % 50
    assert context_of(peer) == 8
    torch.testing.assert_close(
        token_logprobs(peer, ids), token_logprobs(lambda x: peer(x).logits, ids, context=8)
    )
    assert logits_of(peer, ids[None, :8]).shape == (1, 8, 50)


def test_a_model_of_transformers_writes(peer):
    from llmlab.generation import Sampling, generate

    found = generate(peer, [[1, 2], [3, 4]], 4, Sampling(temperature=0))
    right = [
        peer.generate(torch.tensor([row]), max_new_tokens=4, do_sample=False, pad_token_id=0)[0, 2:].tolist()
        for row in ([1, 2], [3, 4])
    ]
    assert found == right


def test_a_function_that_does_not_say_its_context_is_asked_for_it(peer):
    with pytest.raises(ValueError, match="function does not say how many tokens it reads: give context"):
        token_logprobs(lambda x: peer(x).logits, [1, 2, 3])
    with pytest.raises(ValueError, match="ids from 1 to 99, but the vocabulary has 50"):
        token_logprobs(peer, [1, 99])
