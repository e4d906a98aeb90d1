"Sentence embeddings: pooling by hand and against `transformers`, what a folder says, what is refused."

import json

import pytest
import tokenizers
import torch
from tokenizers import processors

from llmlab.adapters import check_texts, encode_texts
from llmlab.checkpoints import shipped_path
from llmlab.embeddings import Pooling, read_pooling, sentence_embeddings
from llmlab.loading import load_pretrained
from llmlab.masked import MaskedLM, MaskTokenizer
from llmlab.pretrained import pool_tokens
from llmlab.tokens import Tokenizer
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
SIZES |= dict(max_position_embeddings=42)
SHAPES = {
    "Bert": SIZES,
    "Roberta": SIZES | dict(pad_token_id=1, type_vocab_size=1),
    "DistilBert": dict(
        vocab_size=61, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=42
    ),
}
TEXTS = ["w5 w6 w7", "w8", " ".join(f"w{i}" for i in range(5, 40)), "", "w60 w5", "w9 " * 20]
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}


def words(cls="[CLS]", pad=0):
    vocab = {"[PAD]": 0, "<s>": 1, "[CLS]": 2, "[SEP]": 3, "[UNK]": 4} | {f"w{i}": i for i in range(5, 61)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    around = [(cls, vocab[cls]), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(f"{cls} $A [SEP]", special_tokens=around)
    return made


def folder_of(place, name="Bert", pooling=None, normalize=False, **more):
    "A model of transformers with weights that matter, in a folder as sentence-transformers writes it."
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPES[name])
    peer = getattr(transformers, f"{name}Model")(config).eval()
    for p in peer.parameters():
        middle = 1.0 if p.ndim == 1 and p.mean() > 0.5 else 0.0
        torch.nn.init.normal_(p, middle, 0.3 if p.ndim == 2 else 0.2)
    peer.save_pretrained(place)
    words().save(str(place / "tokenizer.json"))
    if pooling is not None:
        write_steps(place, ["Transformer", "Pooling", *["Normalize"] * normalize])
        (place / "1_Pooling" / "config.json").write_text(
            json.dumps({"word_embedding_dimension": 32} | pooling)
        )
    for file, about in more.items():
        (place / f"{file}.json").write_text(json.dumps(about))
    return peer, place


def write_steps(place, kinds):
    paths = ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (place / "modules.json").write_text(json.dumps(steps))
    for path in paths[1:]:
        (place / path).mkdir(exist_ok=True)


def by_transformers(peer, texts, pooling, normalize, longest=None):
    "The usual recipe: one padded batch, the mean over the attention mask or the first token."
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(), pad_token="[PAD]", cls_token="[CLS]"
    )
    if peer.config.model_type == "roberta":  # its code counts positions by the id of padding
        fast.pad_token = "<s>"
    batch = fast(texts, padding=True, truncation=longest is not None, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        hidden = peer(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    vectors = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(vectors, p=2, dim=1) if normalize else vectors


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# by hand


def test_a_mean_by_pencil_leaves_padding_out_whatever_stands_there():
    hidden = torch.tensor([[[1.0, 2], [3, 6], [float("nan"), 100]], [[5, 5], [7, 7], [9, 9]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool_tokens(hidden, mask).tolist() == [[2, 4], [7, 7]]
    assert pool_tokens(hidden, mask, "cls").tolist() == [[1, 2], [5, 5]]


# against transformers


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", SHAPES)
def test_equal_to_transformers(tmp_path, name, pooling, normalize):
    peer, folder = folder_of(tmp_path, name)
    model, tokenizer = load_pretrained(folder)
    ours = sentence_embeddings(model, tokenizer, TEXTS, pooling, normalize, batch_size=4)
    close(ours, by_transformers(peer, TEXTS, pooling, normalize))


def test_the_shipped_model_equals_transformers():
    folder = shipped_path("stories-bert")
    model, tokenizer = load_pretrained(folder)
    texts = [
        "The cat sat on the mat.",
        "Mia lost the red cup.",
        "One day Mia went to the park with a dog and a cup.",
    ]
    peer = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = peer(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    close(sentence_embeddings(model, tokenizer, texts), (hidden * mask).sum(1) / mask.sum(1))


def test_no_row_depends_on_its_neighbours_and_the_order_stays(tmp_path):
    model, tokenizer = load_pretrained(folder_of(tmp_path)[1])
    alone = torch.cat([sentence_embeddings(model, tokenizer, [text]) for text in TEXTS])
    for batch_size in (1, 2, 3, 6, 50):
        close(sentence_embeddings(model, tokenizer, TEXTS, batch_size=batch_size), alone)
    close(sentence_embeddings(model, tokenizer, TEXTS[::-1], batch_size=3), alone.flip(0))


def test_settings_of_the_tokenizer_and_dropout_change_nothing(tmp_path):
    model, tokenizer = load_pretrained(folder_of(tmp_path)[1])
    right = sentence_embeddings(model, tokenizer, TEXTS)
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(3)
    model.train()
    close(sentence_embeddings(model, tokenizer, TEXTS), right)
    assert model.training and tokenizer.truncation["max_length"] == 3 and tokenizer.padding["length"] == 40


def test_models_and_tokenizers_of_ours():
    base = Tokenizer.train("the cat sat on the mat " * 5, 270)
    both = MaskTokenizer(base)
    model = MaskedLM(Config(both.vocab_size, 16, layers=1, heads=2, d_model=8)).eval()
    vectors = sentence_embeddings(model, both, ["the cat", "the mat sat on"])
    ids = torch.tensor([both.encode("the cat")])
    close(vectors[0], model.hidden(ids)[0].mean(0))
    decoder = Decoder(Config(base.vocab_size, 16, layers=1, heads=2, d_model=8)).eval()
    vector = sentence_embeddings(decoder, base, ["the cat"])[0]
    close(vector, decoder.hidden(torch.tensor([base.encode("the cat")]))[0].mean(0))


def test_no_texts_give_no_rows(tmp_path):
    model, tokenizer = load_pretrained(folder_of(tmp_path)[1])
    assert sentence_embeddings(model, tokenizer, []).shape == (0, 32)


# what a folder says


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("new", [False, True])
def test_the_folder_decides_and_an_argument_goes_before(tmp_path, pooling, normalize, new):
    said = {"pooling_mode": pooling, "embedding_dimension": 32} if new else dict(mean=MEAN, cls=CLS)[pooling]
    peer, folder = folder_of(tmp_path, "Bert", said, normalize)
    model, tokenizer = load_pretrained(folder)
    assert model.pooling == Pooling(pooling, normalize)
    close(sentence_embeddings(model, tokenizer, TEXTS), by_transformers(peer, TEXTS, pooling, normalize))
    close(
        sentence_embeddings(model, tokenizer, TEXTS, "mean", False),
        by_transformers(peer, TEXTS, "mean", False),
    )


def test_a_folder_that_says_nothing_is_pooled_by_the_mean(tmp_path):
    model, tokenizer = load_pretrained(folder_of(tmp_path)[1])
    assert model.pooling is None
    close(
        sentence_embeddings(model, tokenizer, TEXTS),
        sentence_embeddings(model, tokenizer, TEXTS, "mean", False),
    )


def test_the_longest_text_and_lower_case_as_the_folder_says(tmp_path):
    about = {"max_seq_length": 6, "do_lower_case": True}
    peer, folder = folder_of(tmp_path, "Bert", MEAN, sentence_bert_config=about)
    model, tokenizer = load_pretrained(folder)
    message = r"texts\[2\] has 37 tokens, expected at most 6: divide the text, or say truncate=True"
    with pytest.raises(ValueError, match=message):
        sentence_embeddings(model, tokenizer, TEXTS)
    shouted = [text.upper() for text in TEXTS]
    ours = sentence_embeddings(model, tokenizer, shouted, truncate=True)
    close(ours, by_transformers(peer, TEXTS, "mean", False, longest=6))


OTHERS = {
    "pools by max_tokens, expected mean or cls": {"pooling_mode_max_tokens": True},
    "pools by cls_token and mean_tokens, expected": {
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": True,
    },
    "pools by nothing, expected": {"pooling_mode_mean_tokens": False},
    "pools by lasttoken, expected": {"pooling_mode": "lasttoken"},
    "pools by mean and cls, expected": {"pooling_mode": ["mean", "cls"]},
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_pooling_loads_and_is_refused_by_name_unless_one_is_chosen(tmp_path, message):
    peer, folder = folder_of(tmp_path, "Bert", OTHERS[message])
    model, tokenizer = load_pretrained(folder)
    with pytest.raises(ValueError, match=f"{message}.*choose pooling="):
        sentence_embeddings(model, tokenizer, TEXTS)
    close(sentence_embeddings(model, tokenizer, TEXTS, "mean"), by_transformers(peer, TEXTS, "mean", False))


def test_a_dense_layer_after_pooling_is_named(tmp_path):
    folder = folder_of(tmp_path, "Bert", MEAN)[1]
    write_steps(folder, ["Transformer", "Pooling", "Dense", "Normalize"])
    assert "by Transformer, Pooling, Dense, Normalize, expected" in read_pooling(folder).problem


def test_a_prompt_before_each_text_is_named(tmp_path):
    about = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    folder = folder_of(tmp_path, "Bert", MEAN, config_sentence_transformers=about)[1]
    assert "writes its prompt 'query' before each text" in read_pooling(folder).problem


BROKEN = {
    "modules.json": ["{", "{}", '["Pooling"]', '[{"type": 3, "path": ""}]'],
    "1_Pooling/config.json": [
        "[]",
        "{",
        '{"word_embedding_dimension": 64, "pooling_mode_mean_tokens": true}',
    ],
    "sentence_bert_config.json": [
        "[1]",
        *(json.dumps({"max_seq_length": wrong}) for wrong in (0, True, 5.5)),
    ],
}


@pytest.mark.parametrize(("file", "text"), [(file, text) for file, texts in BROKEN.items() for text in texts])
def test_a_broken_file_is_named(tmp_path, file, text):
    folder = folder_of(tmp_path, "Bert", MEAN)[1]
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=file.rpartition("/")[2]):
        load_pretrained(folder)


def test_a_step_outside_of_the_folder_is_refused(tmp_path):
    folder = folder_of(tmp_path, "Bert", MEAN)[1]
    text = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(text.replace("1_Pooling", "../other"))
    with pytest.raises(ValueError, match="leads out of"):
        load_pretrained(folder)


# what is refused


@pytest.mark.parametrize(
    ("texts", "more", "message"),
    [
        ("w5 w6", {}, r"texts='w5 w6': expected a list of texts"),
        (["w5", "w6 " * 41], {}, r"texts\[1\] has 43 tokens, expected at most 42"),
        (["w5"], {"pooling": "max"}, "pooling='max': expected one of mean, cls, or None"),
        (["w5"], {"normalize": 1}, "normalize=1: expected True or False"),
        (["w5"], {"truncate": "yes"}, "truncate='yes': expected True or False"),
        (["w5"], {"batch_size": 0}, "batch_size=0: expected a whole number of at least 1"),
    ],
)
def test_bad_input_is_named(tmp_path, texts, more, message):
    model, tokenizer = load_pretrained(folder_of(tmp_path)[1])
    with pytest.raises(ValueError, match=message):
        sentence_embeddings(model, tokenizer, texts, **more)


@pytest.mark.parametrize(
    ("texts", "message"), [(3, "texts=3: expected a list"), (["w5", None], r"texts\[1\]=None:")]
)
def test_what_is_no_text_is_named(texts, message):
    with pytest.raises(ValueError, match=message):
        check_texts(texts)


def test_models_that_give_no_vectors_of_tokens_are_named():
    cfg = Config(61, 16, layers=1, heads=2, d_model=8)
    with pytest.raises(ValueError, match="EncoderDecoder gives no vectors of tokens: expected an Encoder"):
        sentence_embeddings(EncoderDecoder(cfg), words(), ["w5"])
    with pytest.raises(ValueError, match="the first token of a Decoder sees no other one, choose 'mean'"):
        sentence_embeddings(Decoder(cfg), words(), ["w5"], "cls")


def test_a_text_without_a_token_and_a_tokenizer_without_cls_are_named():
    model = Encoder(Config(61, 16, layers=1, heads=2, d_model=8)).eval()
    plain = words()
    plain.post_processor = processors.Sequence([])
    with pytest.raises(ValueError, match=r"texts\[1\]='' has no tokens: leave it out"):
        sentence_embeddings(model, plain, ["w5", ""])
    with pytest.raises(ValueError, match=r"puts no \[CLS\] or <s> before a text, choose 'mean'"):
        sentence_embeddings(model, plain, ["w5"], "cls")


def test_a_text_that_is_cut_keeps_the_tokens_around_it():
    assert encode_texts(words(), ["w5 w6 w7 w8"], 4, truncate=True) == [[2, 5, 6, 3]]
    both = MaskTokenizer(Tokenizer.train("the cat sat on the mat " * 5, 270))
    whole, [cut] = both.encode("the cat sat on"), encode_texts(both, ["the cat sat on"], 4, truncate=True)
    assert cut == [*whole[:3], both.sep]
    with pytest.raises(ValueError, match="2 tokens leave no room for text"):
        encode_texts(words(), ["w5 w6"], 2, truncate=True)
