"Folders of models from strangers: what they claim is compared with what they hold, before memory is taken."

import json
import shutil
import sys

import pytest
import safetensors.torch
import tokenizers
import torch
from hostile import Opener, table

from llmlab.exporting import save_pretrained
from llmlab.loading import load_pretrained
from llmlab.storage import claims
from llmlab.transformer import Config, Decoder

LLAMA = dict(norm="rms", position="rope", feed_forward="swiglu", bias=False, tied=False, norm_eps=1e-6)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc measures what one folder took")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A small Llama and a small GPT-2, each in a folder."
    vocabulary = {"<unk>": 0} | {f"w{i}": i for i in range(1, 61)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    place = tmp_path_factory.mktemp("made")
    shape = dict(context=40, layers=2, heads=4, d_model=32, d_ff=48)
    save_pretrained(Decoder(Config(61, **shape | LLAMA)), place / "llama", words)
    save_pretrained(Decoder(Config(61, **shape)), place / "gpt2", words)
    return place


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made / "llama", tmp_path / "llama")


@pytest.fixture(scope="module")
def opener():
    "A process of its own, which says what each folder took."
    there = Opener()
    yield there
    there.close()
    print(f"\n{table()}")


@pytest.fixture
def refused(opener, request):
    "load() refuses the folder in words, within 50 MB."
    return lambda folder, match="": opener.refused("folder", folder, match, f"hub: {request.node.name[5:]}")


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, {"format": "pt"})


# --- config.json --------------------------------------------------------------------------------------------

HUGE = ["vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "head_dim"]


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("size", [10**7, 10**12, 10**30])
def test_a_size_that_the_weights_cannot_have_is_refused_before_memory_is_taken(refused, folder, name, size):
    config(folder, **{name: size})
    refused(folder, "but the weights hold|too large|describes no model|do not fit")


def test_many_layers_with_a_tensor_for_each_are_not_built(refused, folder):
    "What passes the count is compared by names, without a layer being made."
    config(folder, num_hidden_layers=2000)
    rewrite(folder, lambda tensors: tensors | {f"model.layers.{i}.x": torch.zeros(64) for i in range(8000)})
    refused(folder, "missing: .*; 8000 unexpected")


def test_heads_and_positions_are_sizes_too(refused, folder, made, tmp_path):
    config(folder, num_attention_heads=10**9, num_key_value_heads=10**9)
    refused(folder, "heads=1,000,000,000, which needs .* numbers, but the weights hold")
    gpt2 = shutil.copytree(made / "gpt2", tmp_path / "gpt2")
    config(gpt2, n_positions=10**9)
    refused(gpt2, "context=1,000,000,000, which needs 32,000,000,000 numbers, but the weights hold")


@pytest.mark.parametrize("name", [*HUGE, "num_attention_heads", "max_position_embeddings", "rms_norm_eps"])
@pytest.mark.parametrize("value", ["8", [8], {"a": 8}, True, -1, 1.5e308, float("nan"), "x" * 100_000])
def test_settings_of_a_wrong_type_are_named(refused, folder, name, value):
    config(folder, **{name: value})
    refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        dict(model_type=["llama"]),
        dict(model_type=None),
        dict(rope_parameters=[1, 2]),
        dict(rope_parameters="x"),
        dict(rope_parameters=dict(rope_type={"a": 1})),
        dict(rope_parameters=dict(rope_type="default", rope_theta="10000")),
        dict(rope_scaling=7, rope_parameters=None),
        dict(quantization_config=dict(quant_method="gptq", bits=4)),
        dict(tie_word_embeddings="yes"),
    ],
)
def test_other_settings_of_a_wrong_kind(refused, folder, changes):
    config(folder, **changes)
    refused(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "{}", '"' + "a" * 10, "\xff\xfe", "1" * 5_000]
)
def test_a_config_that_is_no_config(refused, folder, text):
    (folder / "config.json").write_text(text)
    refused(folder)


def test_a_config_of_many_megabytes_is_not_read(refused, folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "x": "a" * 8_000_000}))
    refused(folder, "has 8,0.* bytes, expected at most")


# --- the index ----------------------------------------------------------------------------------------------


def index(folder, value):
    (folder / "model.safetensors.index.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    "places",
    [
        None,
        [],
        {},
        "model.safetensors",
        {"a": None},
        {"a": 3},
        {"a": ["model.safetensors"]},
        {"a": ""},
        {"a": "x\0y"},
    ],
)
def test_an_index_without_files(refused, folder, places):
    index(folder, {"weight_map": places})
    refused(folder)
    index(folder, {"metadata": {}})
    refused(folder, "has no weight_map")


@pytest.mark.parametrize(
    "place", ["../other/model.safetensors", "/etc/passwd", "a/../../model.safetensors", ".."]
)
def test_an_index_leads_nowhere_out_of_the_folder(refused, folder, place):
    "The file it names is there, so only the path can be the reason."
    shutil.copytree(folder, folder.parent / "other")
    shutil.copy(folder / "model.safetensors", folder.parent)
    index(folder, {"weight_map": {"model.norm.weight": place}})
    refused(folder, "leads out of")


def test_a_folder_of_links_is_the_hubs_cache(folder, made, tmp_path):
    "There every file is a link to a blob outside of the snapshot."
    blob = tmp_path / "blob"
    shutil.move(folder / "model.safetensors", blob)
    (folder / "model.safetensors").symlink_to(blob)
    index(folder, {"weight_map": dict.fromkeys(safetensors.torch.load_file(blob), "model.safetensors")})
    x = torch.arange(1, 9)[None]
    torch.testing.assert_close(load_pretrained(folder)[0](x), load_pretrained(made / "llama")[0](x))


def test_a_tensor_in_two_shards(refused, folder):
    shutil.copy(folder / "model.safetensors", folder / "more.safetensors")
    index(folder, {"weight_map": {"a": "model.safetensors", "b": "more.safetensors"}})
    refused(folder, "a second time")


# --- the weights --------------------------------------------------------------------------------------------


def test_more_tensors_than_a_file_has_are_not_parsed(refused, folder):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (folder / "model.safetensors").write_bytes(header({f"{i:x}": entry for i in range(100_000)}))
    refused(folder, "some 100,001 tensors, expected at most 30,000")


@pytest.mark.parametrize("length", [2**40, 2**63, 2**24, 0, 1])
def test_a_header_that_claims_another_length(refused, folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(folder, "is cut short or no safetensors file")


def header(entries):
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "bytes_",
    [
        header(b"[" * 100_000),
        header(b'{"a":' * 50_000),
        header({"model.norm.weight": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        header({"model.norm.weight": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}),
        header({"model.norm.weight": {"dtype": "F32", "shape": [32], "data_offsets": [0, 4]}}) + b"abcd",
        header({"model.norm.weight": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}) + b"abcd",
        header({"model.norm.weight": 5}),
        header({"model.norm.weight": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}) + b"abcd",
    ],
)
def test_a_header_that_lies(refused, folder, bytes_):
    (folder / "model.safetensors").write_bytes(bytes_)
    refused(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_not_cast(refused, folder, kind):
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(folder, lambda tensors: tensors | {name: tensors[name].to(kind)})
    refused(folder, f"{name} in .* is stored as .*: take weights that are not quantized")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_that_are_floats_are_cast(folder, kind):
    whole = load_pretrained(folder)[0](torch.arange(1, 9)[None])
    rewrite(folder, lambda tensors: {name: tensor.to(kind) for name, tensor in tensors.items()})
    torch.testing.assert_close(
        load_pretrained(folder)[0](torch.arange(1, 9)[None]), whole, atol=2e-2, rtol=2e-2
    )


def test_tied_weights_that_are_stored_with_two_values(refused, folder):
    config(folder, tie_word_embeddings=True)
    refused(
        folder, "lm_head.weight and model.embed_tokens.weight in .* are tied, but stored with other numbers"
    )
    rewrite(
        folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    )
    assert load_pretrained(folder)[0].cfg.tied


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_a_model_is_asked_for_in_floats(made, dtype):
    with pytest.raises(ValueError, match=r"dtype=torch.*: weights need floats"):
        load_pretrained(made / "llama", dtype=dtype)


# --- tokenizer.json -----------------------------------------------------------------------------------------

TOKENIZER = dict(
    version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None
)
TOKENIZER |= dict(
    post_processor=None, decoder=None, model=dict(type="WordLevel", vocab={"a": 0}, unk_token="a")
)
BROKEN = {
    "brackets": '{"a":' + "[" * 200_000,
    "list": "[1]",
    "null": "null",
    "empty": "",
    "negative id": json.dumps(TOKENIZER | dict(model=dict(type="WordLevel", vocab={"a": -1}, unk_token="a"))),
    "no merge": json.dumps(TOKENIZER | dict(model=dict(type="BPE", vocab={"a": 0}, merges=["a b"]))),
    "panic: prefix": json.dumps(
        TOKENIZER
        | dict(
            model=dict(
                type="BPE", vocab={"é": 0, "b": 1}, merges=[["é", "b"]], continuing_subword_prefix="xx"
            )
        )
    ),
    "panic: charsmap": json.dumps(
        TOKENIZER | dict(normalizer=dict(type="Precompiled", precompiled_charsmap="AAAA"))
    ),
    "regex": json.dumps(
        TOKENIZER
        | dict(pre_tokenizer=dict(type="Split", pattern={"Regex": "("}, behavior="Isolated", invert=False))
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tokenizer_that_is_none(refused, folder, name):
    "The library panics on some of them; its backtrace, which reads debug information, is off in the opener."
    (folder / "tokenizer.json").write_text(BROKEN[name])
    refused(folder, "tokenizer.json is no tokenizer")


def test_padding_to_a_trillion_tokens_is_not_done(folder):
    "The library would abort the process."
    fixed = dict(
        strategy={"Fixed": 10**12}, direction="Right", pad_to_multiple_of=None, pad_id=0, pad_type_id=0
    )
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER | dict(padding=fixed | dict(pad_token="a"))))
    assert load_pretrained(folder)[1].encode("a").ids == [0]


def test_claims_know_every_size(made):
    "Each setting that a tensor's shape shows is asked for; a rotary context shows in none."
    named = claims(Config(61, **LLAMA))
    assert {*named} >= {
        "vocab_size",
        "d_model",
        "heads",
        "kv_heads",
        "d_ff",
        "layers",
    } and "context" not in named
    assert "context" in claims(Config(61))
