"The tokenizer of chapter 3: readable and fast path, round trips, errors."

import inspect
import json
import random
import re

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab import fast_tokens, tokens
from llmlab.adapters import as_fast_tokenizer
from llmlab.fast_tokens import BYTES, ID_OF_BYTE, fast_merges
from llmlab.masked import MaskTokenizer
from llmlab.text import Corpus, load_corpus
from llmlab.tokens import Tokenizer, Vocabulary, bpe_merges, encode_word, merge_pair, pre_tokenize

NAMES = ("reference", "stdlib", "stories")
FEW = "the cat sat on the mat. the cat's mat, 12345 mats;\n\n\tnaïve 猫猫 cafés 🐈🐈‍⬛\n" * 3
unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
dense = st.text("ab c'\n1.é猫", max_size=80)  # few letters: many pairs, many ties


@pytest.fixture(scope="module")
def trained():
    merges = fast_merges(FEW, 60)
    return Tokenizer(merges), Tokenizer(merges, fast=False)


@pytest.mark.parametrize("name", NAMES)
def test_both_paths_agree_on_every_corpus(name):
    text = load_corpus(name, 40_000).text
    merges = bpe_merges(text, 120)
    assert merges == fast_merges(text, 120)
    fast, plain = Tokenizer(merges), Tokenizer(merges, fast=False)
    sample = load_corpus(name, 120_000).text
    ids = fast.encode(sample)
    assert ids == plain.encode(sample) and fast.decode(ids) == sample
    assert fast.vocab_size == plain.vocab_size == 377


@settings(max_examples=150, deadline=None)
@given(dense, st.integers(0, 40), unicode)
def test_both_paths_learn_and_encode_alike(text, n, other):
    merges = bpe_merges(text, n)
    assert merges == fast_merges(text, n)
    fast, plain = Tokenizer(merges), Tokenizer(merges, fast=False)
    for sample in (text, text[::-1] + text, other):
        assert fast.encode(sample) == plain.encode(sample)


@given(unicode)
def test_any_text_comes_back(trained, text):
    for tokenizer in trained:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.eot for i in ids)
        assert b"".join(tokenizer[i] for i in ids) == text.encode()


def test_characters_of_all_unicode_comes_back(trained):
    "All of the first 12,288, and one in 97 of the rest."
    everything = "".join(
        chr(i) for i in range(0x110000) if i < 0x3000 or i % 97 == 0 and not 0xD800 <= i < 0xE000
    )
    fast, plain = trained
    assert fast.decode(fast.encode(everything)) == everything
    assert plain.encode(everything[:0x3000]) == fast.encode(everything[:0x3000])


@given(unicode)
def test_words_cut_without_loss_and_as_tokenizers_does(text):
    parts = [
        part
        for part, _ in tokenizers.pre_tokenizers.Split(
            tokenizers.Regex(fast_tokens.PRE_TOKEN_PATTERN), "isolated"
        ).pre_tokenize_str(text)
    ]
    assert pre_tokenize(text) == parts and "".join(parts) == text


def test_every_ascii_pair_is_cut_alike():
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(fast_tokens.PRE_TOKEN_PATTERN), "isolated")
    for i in range(128):
        for j in range(128):
            text = f"x{chr(i)}{chr(j)} "
            assert pre_tokenize(text) == [part for part, _ in split.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("  a", [" ", " a"]),
        ("a  ", ["a", "  "]),
        ("12345", ["123", "45"]),
        ("isn't", ["isn", "'t"]),
        ("a\n\n  b", ["a", "\n\n ", " b"]),
        ("x==1", ["x", "==", "1"]),
        ("été\u00a0là", ["été\u00a0là"]),
    ],
)
def test_words(text, parts):
    assert pre_tokenize(text) == parts


def test_pencil_case():
    "https://en.wikipedia.org/wiki/Byte_pair_encoding: aaabdaaabac -> XdXac with X=ZY, Y=ab, Z=aa."
    a, b, c, d = (ID_OF_BYTE[ord(x)] for x in "abcd")
    merges = bpe_merges("aaabdaaabac", 10)
    assert merges == [(a, a), (a, b), (256, 257)]
    assert Tokenizer(merges).encode("aaabdaaabac") == [258, d, 258, a, c]


def test_ties_go_to_the_smallest_pair():
    a, b, c, d = (ID_OF_BYTE[ord(x)] for x in "abcd")
    assert (
        bpe_merges("cd cd ab ab"[::-1][::-1], 1)[0]
        == min((a, b), (c, d), (ID_OF_BYTE[32], a), (ID_OF_BYTE[32], c))
        == (a, b)
    )


def test_two_merges_may_spell_one_token():
    a, b = ID_OF_BYTE[ord("a")], ID_OF_BYTE[ord("b")]
    merges = [(a, b), (256, a), (b, a), (a, 258)]
    for fast in (True, False):
        tokenizer = Tokenizer(merges, fast)
        assert tokenizer.vocab_size == 256 + 3 + 1
        assert tokenizer.encode("aba") == [257]


def test_byte_order_is_gpt2s():
    assert sorted(BYTES) == [bytes([b]) for b in range(256)] and all(
        ID_OF_BYTE[BYTES[i][0]] == i for i in range(256)
    )
    assert sorted(fast_tokens.LETTERS) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert (
        fast_tokens.LETTERS == sorted(fast_tokens.LETTERS)
        and fast_tokens.printable_token(b" the\n") == "ĠtheĊ"
    )
    assert BYTES[:3] == [b"!", b'"', b"#"] and ID_OF_BYTE[32] == 220 and ID_OF_BYTE[0] == 188


def test_first_merges_of_a_long_training_are_a_short_one():
    assert fast_merges(FEW, 50)[:20] == fast_merges(FEW, 20)


def test_merge():
    assert merge_pair([1, 2, 3, 1, 2], (1, 2), 4) == [4, 3, 4]
    assert merge_pair([1, 1, 1, 1, 1], (1, 1), 2) == [2, 2, 1]
    assert merge_pair([], (1, 1), 2) == []


def test_merges_apply_in_the_order_they_were_learnt():
    a, b, c = (ID_OF_BYTE[ord(x)] for x in "abc")
    vocabulary = Vocabulary([(b, c), (a, b)])
    assert encode_word("abc", vocabulary, {(b, c): 0, (a, b): 1}) == [a, 256]


def test_training_stops_when_no_pair_occurs_twice():
    for fast in (True, False):
        assert Tokenizer.train("abcd", 1000, fast).vocab_size == 257
        assert Tokenizer.train("ab ab", 1000, fast).merges == Tokenizer.train("ab ab", 258, fast).merges


def test_a_merge_joins_ids_that_exist():
    with pytest.raises(
        ValueError, match=r"merge \(256, 1\) joins ids that do not exist yet: so far they run"
    ):
        Vocabulary([(256, 1)])


def test_vocab_size_is_what_was_asked_for():
    assert Tokenizer.train(FEW, 300).vocab_size == 300 == Tokenizer.train(FEW, 300).eot + 1


def test_documents_end():
    c = Corpus("x", {"a": "the cat", "b": "", "c": "<|endoftext|>"}, "-")
    tokenizer = Tokenizer.train(FEW, 280)
    ids = tokenizer.encode_documents(c)
    assert ids.count(tokenizer.eot) == 3 and ids[-1] == tokenizer.eot
    assert tokenizer.decode(ids) == "the cat<|endoftext|>"
    assert tokenizer.strings([tokenizer.eot]) == ["<|endoftext|>"]


def test_eot_cannot_be_spelt(trained):
    for tokenizer in trained:
        assert tokenizer.eot not in tokenizer.encode("a<|endoftext|>b <|endoftext|>")


def test_visible_forms(trained):
    tokenizer = Tokenizer([])
    assert tokenizer.strings(tokenizer.encode("a \n\t猫")) == ["a", "·", "⏎", "→", "⟨E7⟩", "⟨8C⟩", "⟨AB⟩"]


def test_half_a_character_decodes_to_a_hole():
    tokenizer = Tokenizer([])
    assert tokenizer.decode(tokenizer.encode("猫")[:2]) == "�"


def test_save_and_load(tmp_path, trained):
    path = tmp_path / "tokenizer.json"
    trained[0].save(path)
    for fast in (True, False):
        again = Tokenizer.load(path, fast)
        assert again.merges == trained[0].merges and again.encode(FEW) == trained[0].encode(FEW)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        "nonsense",
        json.dumps({"kind": "other", "merges": []}),
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": [[1]]}),
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": [[1, 999]]}),
        "[" * 100_000,
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": [], "special_tokens": [3]}),
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": [], "special_tokens": ["a"]}),
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": [], "special_tokens": 7}),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=re.escape(f"{path} is no tokenizer of ours: write one with Tokenizer.save")
    ):
        Tokenizer.load(path)


@pytest.mark.parametrize("fast", [True, False])
def test_errors_say_what_to_do(fast):
    with pytest.raises(ValueError, match="empty text: merges are learnt from text, so pass some"):
        Tokenizer.train("", 300, fast)
    with pytest.raises(ValueError, match=r"vocab_size=256, but 256 bytes and <\|endoftext\|> make 257: ask"):
        Tokenizer.train("a", 256, fast)
    tokenizer = Tokenizer([], fast)
    for i in (-1, 257, 10**9):
        for call in (tokenizer.decode, tokenizer.strings):
            with pytest.raises(ValueError, match=f"id {i} is outside the vocabulary: ids run from 0 to 256"):
                call([i])


@pytest.mark.parametrize("fast", [True, False])
def test_lone_surrogates_are_no_text(fast):
    for call in (Tokenizer([], fast).encode, lambda text: Tokenizer.train(text, 300, fast)):
        with pytest.raises(
            ValueError, match=r"lone surrogate '\\ud83d' at 2: this is not Unicode text, remove or"
        ):
            call("ab\ud83d")


# ---- special tokens

SPECIALS = ["<|user|>", "<|assistant|>", "<|a|>", "<|a|>b", "猫<猫", "é\u0301", "\n\n<x>", "[*+(]"]
pieces = [
    *SPECIALS,
    tokens.END_OF_TEXT,
    "<|",
    "|>",
    "user",
    "<|a|",
    "ก็ำ",
    "क्षि",
    "日本語",
    "🐈‍⬛",
    " ",
    "e\u0301",
    "\x00",
]
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
spelt = st.lists(st.sampled_from(pieces) | anything, max_size=8).map("".join)


@pytest.fixture(scope="module")
def chatty(trained):
    return [tokenizer.with_special_tokens(SPECIALS) for tokenizer in trained]


@pytest.fixture(scope="module")
def theirs(chatty):
    return as_fast_tokenizer(chatty[0])


@given(spelt)
@settings(deadline=None)
def test_no_text_spells_a_special_token_unless_it_is_allowed(trained, chatty, text):
    "The ids are those of the tokenizer that has no more special tokens, and each is a byte or a merge."
    for old, new in zip(trained, chatty, strict=True):
        ids = new.encode(text)
        assert ids == old.encode(text) and all(i < new.eot for i in ids)
        assert new.decode(ids) == new.decode(ids, skip_special_tokens=False) == text


@given(spelt, st.sets(st.sampled_from([*SPECIALS, tokens.END_OF_TEXT])))
@settings(deadline=None, max_examples=200)
def test_allowed_special_tokens_are_found_as_tokenizers_finds_added_tokens(chatty, text, allowed):
    "An engine that knows only the allowed names as added tokens says the same (leftmost, longest)."
    other = fast_tokens.fast_tokenizer(Vocabulary(chatty[0].merges))
    other.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in sorted(allowed)]
    )
    names = {other.token_to_id(name): chatty[0].special_tokens[name] for name in allowed}
    wanted = [names.get(i, i) for i in other.encode(text).ids]
    for tokenizer in chatty:
        ids = tokenizer.encode(text, allowed_special=allowed)
        assert ids == wanted
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert b"".join(tokenizer[i] for i in ids) == text.encode()


@given(spelt)
@settings(deadline=None)
def test_written_for_tokenizers_all_ids_are_the_same(chatty, theirs, text):
    theirs.encode_special_tokens = False
    assert theirs.encode(text).ids == chatty[0].encode(text, allowed_special="all")
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == chatty[0].encode(text)
    for skip in (True, False):
        ids = chatty[0].encode(text, allowed_special="all")
        assert theirs.decode(ids, skip_special_tokens=skip) == chatty[0].decode(ids, skip_special_tokens=skip)


def test_special_tokens_stand_behind_all_others(trained, chatty):
    old, new = trained[0], chatty[0]
    assert new.eot == old.eot and [*new.special_tokens.values()] == [*range(old.eot, old.eot + 9)]
    assert [*new.special_tokens] == [tokens.END_OF_TEXT, *SPECIALS] and new.vocab_size == old.vocab_size + 8
    more = new.with_special_tokens(["<|tool|>"])
    assert more.special_tokens == new.special_tokens | {"<|tool|>": new.vocab_size}
    assert new.strings([new.special_tokens["<|user|>"], new.eot]) == ["<|user|>", tokens.END_OF_TEXT]
    assert new.with_special_tokens([]).engine is not None and chatty[1].engine is None


def test_special_tokens_are_registered_at_training():
    tokenizer = Tokenizer.train(FEW, 300, special_tokens=["<|user|>", "<|assistant|>"])
    plain = Tokenizer.train(FEW, 298)
    assert (
        tokenizer.vocab_size == 300 and tokenizer.merges == plain.merges and tokenizer.eot == plain.eot == 297
    )
    assert tokenizer.special_tokens == {tokens.END_OF_TEXT: 297, "<|user|>": 298, "<|assistant|>": 299}
    with pytest.raises(ValueError, match=r"vocab_size=257, but 256 bytes and .*, <\|user\|> make 258: ask"):
        Tokenizer.train("a", 257, special_tokens=["<|user|>"])


def test_special_tokens_are_saved(tmp_path, chatty, trained):
    chatty[0].save(tmp_path / "new.json")
    trained[0].save(tmp_path / "old.json")
    for fast in (True, False):
        again = Tokenizer.load(tmp_path / "new.json", fast)
        assert again.special_tokens == chatty[0].special_tokens and again.merges == chatty[0].merges
        assert [*Tokenizer.load(tmp_path / "old.json", fast).special_tokens] == [tokens.END_OF_TEXT]
    (tmp_path / "before.json").write_text(
        json.dumps({"kind": fast_tokens.FILE_KIND, "merges": trained[0].merges})
    )
    assert Tokenizer.load(tmp_path / "before.json").special_tokens == trained[0].special_tokens


def test_documents_never_hold_a_special_token_but_their_ends(chatty):
    c = Corpus("x", {"a": "<|user|>hi", "b": "<|endoftext|>"}, "-")
    ids = chatty[0].encode_documents(c)
    assert [i for i in ids if i >= chatty[0].eot] == [chatty[0].eot] * 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["<|x|>", "<|x|>"], r"special tokens <\|x\|> are there already: name each once"),
        ([tokens.END_OF_TEXT], r"special tokens <\|endoftext\|> are there already: name each once"),
        ([""], "special token '': a name is a text that is not empty"),
        ([3], "special token 3: a name is a text that is not empty"),
        (["a"], r"special token 'a' is a token of the text, too: put signs around it, such as '<\|a\|>'"),
        (["Ġthe"], "special token 'Ġthe' is a token of the text, too"),
        (
            ["<\ud83d>"],
            r"special token '<\\ud83d>' holds half a character \(a lone surrogate\): use whole ones",
        ),
    ],
)
def test_names_that_no_special_token_can_have(unchecked, trained, names, said):
    with pytest.raises(ValueError, match=said):
        trained[0].with_special_tokens(names)


def test_allowed_names_must_be_special_tokens(chatty):
    with pytest.raises(
        ValueError, match=r"<\|x\|> is no special token of this tokenizer: it has <\|endoftext"
    ):
        chatty[0].encode("a", allowed_special={"<|x|>", "<|user|>"})
    with pytest.raises(ValueError, match=r"allowed_special='<\|user\|>': give a set of names"):
        chatty[0].encode("a", allowed_special="<|user|>")
    with pytest.raises(ValueError, match=r"lone surrogate '\\ud83d' at 2"):
        chatty[0].encode("<|user|>ab\ud83d", allowed_special="all")


def test_a_masked_tokenizer_keeps_the_special_tokens_of_its_base(chatty):
    masked = MaskTokenizer(chatty[0])
    assert set(chatty[0].special_tokens.values()) < set(masked.special)
    assert masked.strings([chatty[0].special_tokens["<|user|>"], masked.mask]) == ["<|user|>", "[MASK]"]
    assert as_fast_tokenizer(masked).token_to_id("[MASK]") == masked.mask


# ---- random ids


def test_random_bytes_decode_to_something(trained):
    rng = random.Random(0)
    for _ in range(100):
        ids = [rng.randrange(trained[0].vocab_size) for _ in range(20)]
        assert isinstance(trained[0].decode(ids), str) and len(trained[0].strings(ids)) == 20


def test_every_public_name_says_what_it_is():
    for public in [getattr(tokens, name) for name in tokens.__all__ if callable(getattr(tokens, name))]:
        assert inspect.getdoc(public), public
    for member in ("train", "load", "save", "encode", "encode_documents", "decode", "strings"):
        assert inspect.getdoc(getattr(Tokenizer, member)), member
