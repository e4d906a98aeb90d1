"Weights of Hugging Face in our Transformer against `transformers`, the way back, and broken folders."

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest
import safetensors.torch
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from llmlab import attention_view
from llmlab.checkpoints import shipped_path
from llmlab.exporting import hub_config, save_pretrained
from llmlab.families import WEIGHT_NAMES, TextClassifier, read_config
from llmlab.horizons import with_experts
from llmlab.hub import pretrained_folder
from llmlab.loading import load_pretrained
from llmlab.masked import MaskedLM
from llmlab.pretrained import (
    BERT_WEIGHT_NAMES,
    GPT2_WEIGHT_NAMES,
    LLAMA_WEIGHT_NAMES,
    copy_weights,
    hub_attentions,
    weight_source,
)
from llmlab.recording import record_attention
from llmlab.storage import own_tensors
from llmlab.transformer import Config, Decoder, Encoder, EncoderDecoder, count_parameters

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

USUAL = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
USUAL |= dict(max_position_embeddings=40, bos_token_id=None, eos_token_id=None)
GROUPED = USUAL | dict(num_key_value_heads=2)
LONG = dict(rope_parameters=dict(rope_type="default", rope_theta=1e6))
STRETCH = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
STRETCHED = dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e5) | STRETCH)
GPT = dict(
    vocab_size=61, n_positions=40, n_layer=3, n_head=4, n_embd=32, bos_token_id=None, eos_token_id=None
)
DISTILLED = dict(vocab_size=61, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=40)
PEERS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "gpt2-narrow-untied": (
        "GPT2LMHeadModel",
        "GPT2Config",
        GPT | dict(n_inner=40, tie_word_embeddings=False),
    ),
    "bert": ("BertForMaskedLM", "BertConfig", USUAL),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", USUAL | LONG | dict(tie_word_embeddings=True)),
    "llama-3.1": ("LlamaForCausalLM", "LlamaConfig", GROUPED | STRETCHED | dict(head_dim=32)),
    "llama-one-kv-head": (
        "LlamaForCausalLM",
        "LlamaConfig",
        USUAL | dict(num_key_value_heads=1, head_dim=12),
    ),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED | LONG | dict(sliding_window=None)),
    "mistral-window": ("MistralForCausalLM", "MistralConfig", GROUPED | dict(sliding_window=40, head_dim=12)),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", USUAL | dict(pad_token_id=1, type_vocab_size=1)),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertConfig", DISTILLED),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED | LONG),
    "qwen2-tied": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED | dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", GROUPED | LONG | dict(head_dim=16)),
    "qwen3-tied": ("Qwen3ForCausalLM", "Qwen3Config", GROUPED | dict(head_dim=16, tie_word_embeddings=True)),
}
every = pytest.mark.parametrize("name", PEERS)


def roused(model):
    "Weights large enough that every part of the model matters, other gains and biases in every layer."
    for p in model.parameters():
        nn.init.normal_(p, std=0.3) if p.ndim == 2 else nn.init.normal_(
            p, 1.0 if p.mean() > 0.5 else 0.0, 0.2
        )
    return model.eval()


def words():
    "A tokenizer of 61 words."
    vocab = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "[UNK]": 4} | {f"w{i}": i for i in range(5, 61)}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "[UNK]"))


def peer_of(name):
    torch.manual_seed(0)
    model, config, shape = PEERS[name]
    return roused(getattr(transformers, model)(getattr(transformers, config)(**shape)))


@pytest.fixture
def folder(saved, tmp_path):
    "A GPT-2's folder to damage."
    return shutil.copytree(saved("gpt2")[1], tmp_path / "gpt2")


def ids(*shape):
    return torch.randint(5, 61, shape, generator=torch.Generator().manual_seed(1))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(
        json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v != "drop"})
    )


# parity, by family


@every
def test_logits_hidden_states_and_attention_equal(saved, name):
    peer, folder = saved(name)
    model, _ = load_pretrained(folder)
    x = ids(2, 17)
    with torch.no_grad(), record_attention(model) as tape:
        hidden = model.hidden(x)
        logits = model.logits(hidden)
    theirs = peer(x, output_hidden_states=True)
    close(hidden, theirs.hidden_states[-1])
    close(logits, theirs.logits)
    kept = hub_attentions(peer, {"input_ids": x})["attention"]
    assert len(kept) == len(tape.attention()) == 3
    for ours, them in zip(tape.attention(), kept, strict=True):
        close(ours, them)


def test_bert_with_padding_and_segments(saved):
    peer, folder = saved("bert")
    model, _ = load_pretrained(folder)
    x, there = ids(3, 12), torch.arange(12)[None] < torch.tensor([[12], [7], [1]])
    segments = (torch.arange(12)[None] > torch.tensor([[5], [3], [20]])).long()
    theirs = dict(input_ids=x, attention_mask=there.long(), token_type_ids=segments)
    with torch.no_grad(), record_attention(model) as tape:
        hidden = model.encoder(x, there, segments)
    close(model.logits(hidden)[there], peer(**theirs).logits[there])
    rows = there[:, None, :, None].expand(-1, 4, -1, 12)
    for ours, them in zip(tape.attention(), hub_attentions(peer, theirs)["attention"], strict=True):
        close(ours[rows], them[rows])
        assert not ours[1, :, :, 7:].any()
    assert not torch.allclose(model.logits(hidden)[0], model.logits(model.encoder(x, there))[0], atol=1e-2)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_gradients_equal(saved, name):
    peer, folder = peer_of(name), saved(name)[1]
    model, _ = load_pretrained(folder)
    x = ids(2, 9)
    for m, logits in ((model, model(x)), (peer, peer(x).logits)):
        m.zero_grad()
        logits.log_softmax(-1)[..., 7].mean().backward()
    embed = peer.get_input_embeddings().weight.grad
    close(model.embed.tokens.weight.grad, embed)


def test_dtype_and_mode(saved):
    model, tokenizer = load_pretrained(saved("llama")[1], dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and not model.training
    assert tokenizer.encode("w7").ids == [7]


def test_half_files_become_float32(saved, tmp_path):
    peer = peer_of("qwen2").half()
    peer.save_pretrained(tmp_path)
    words().save(str(tmp_path / "tokenizer.json"))
    model, _ = load_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    close(model(ids(1, 8)), peer.float()(ids(1, 8)).logits)


# the real shapes


def shape_of(config, tmp_path):
    config.save_pretrained(tmp_path)
    return read_config(tmp_path)


def test_gpt2_small_has_124_439_808(tmp_path):
    family, cfg = shape_of(transformers.GPT2Config(), tmp_path)
    assert (family, replace(cfg, dropout=0.0)) == ("gpt2", Config.gpt2_small())
    with torch.device("meta"):
        assert count_parameters(Decoder(cfg)) == 124_439_808


def test_bert_base_with_its_head_has_109_514_298(tmp_path):
    family, cfg = shape_of(transformers.BertConfig(), tmp_path)
    with torch.device("meta"):
        theirs = transformers.BertForMaskedLM(transformers.BertConfig())
        assert family == "bert" and count_parameters(MaskedLM(cfg)) == count_parameters(theirs) == 109_514_298


REAL = {
    "llama": ("Llama", 6_738_415_616, {}),  # Llama 2 7B
    "qwen2": (
        "Qwen2",
        494_032_768,
        dict(  # Qwen2 0.5B
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
    ),
    "qwen3": (
        "Qwen3",
        596_049_920,
        dict(  # Qwen3 0.6B
            vocab_size=151936,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        ),
    ),
}


@pytest.mark.parametrize("family", REAL)
def test_real_shapes_count_as_transformers_counts(family, tmp_path):
    name, total, shape = REAL[family]
    config = getattr(transformers, f"{name}Config")(**shape)
    found, cfg = shape_of(config, tmp_path)
    with torch.device("meta"):
        theirs = getattr(transformers, f"{name}ForCausalLM")(config)
        ours = Decoder(cfg)
    assert found == family and count_parameters(ours) == count_parameters(theirs) == total


def test_old_config_files_are_read(tmp_path):
    "As on the hub: rope_theta beside the rest, no head_dim, no tie_word_embeddings."
    old = dict(
        model_type="llama",
        vocab_size=9,
        max_position_embeddings=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    old |= dict(hidden_size=8, intermediate_size=6, rms_norm_eps=1e-5, rope_theta=5e5, rope_scaling=None)
    (tmp_path / "config.json").write_text(json.dumps(old))
    cfg = read_config(tmp_path)[1]
    assert (cfg.rope_base, cfg.tied, cfg.head_width, cfg.norm_eps, cfg.kv_heads) == (
        5e5,
        False,
        4,
        1e-5,
        None,
    )
    assert cfg.rope_factor == 1
    old["rope_scaling"] = STRETCH | dict(factor=32.0, rope_type="llama3")
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert read_config(tmp_path)[1].rope_factor == 32


# files as the hub has them


def rewrite(folder, change):
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, {"format": "pt"})


def test_sharded(saved, tmp_path):
    peer = saved("llama")[0]
    peer.save_pretrained(tmp_path, max_shard_size="20KB")
    words().save(str(tmp_path / "tokenizer.json"))
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    close(load_pretrained(tmp_path)[0](ids(1, 9)), peer(ids(1, 9)).logits)


def test_gpt2_without_prefix_and_with_its_mask_stored(saved, folder):
    def as_on_the_hub(tensors):
        bare = {name.removeprefix("transformer."): x for name, x in tensors.items()}
        return bare | {f"h.{i}.attn.bias": torch.ones(1, 1, 40, 40).tril() for i in range(3)}

    rewrite(folder, as_on_the_hub)
    close(load_pretrained(folder)[0](ids(1, 9)), saved("gpt2")[0](ids(1, 9)).logits)


def test_bert_with_its_old_names_and_second_head(saved, tmp_path):
    peer, source = saved("bert")
    folder = shutil.copytree(source, tmp_path / "bert")

    def as_on_the_hub(tensors):
        old = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
            for n, x in tensors.items()
        }
        old |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.seq_relationship.bias": torch.ones(2)}
        return old | {"bert.embeddings.position_ids": torch.arange(40)[None]}

    rewrite(folder, as_on_the_hub)
    close(load_pretrained(folder)[0](ids(1, 9)), peer(ids(1, 9)).logits)


def test_a_tied_model_may_store_its_output_matrix_too(saved, tmp_path):
    peer, source = saved("qwen2-tied")
    folder = shutil.copytree(source, tmp_path / "qwen2")
    rewrite(folder, lambda x: x | {"lm_head.weight": x["model.embed_tokens.weight"].clone()})
    close(load_pretrained(folder)[0](ids(1, 9)), peer(ids(1, 9)).logits)


# names


def test_where_a_tensor_stands_pencil():
    down = ["transformer.h.11.mlp.c_proj.weight"]
    assert weight_source("norm.weight", GPT2_WEIGHT_NAMES) == (["transformer.ln_f.weight"], False, 0)
    assert weight_source("blocks.11.mlp.down.weight", GPT2_WEIGHT_NAMES) == (down, True, 0)
    assert weight_source("bias", BERT_WEIGHT_NAMES) == (["cls.predictions.bias"], False, 0)
    gate, up = "model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp.up_proj.weight"
    assert weight_source("blocks.3.mlp.up.weight", LLAMA_WEIGHT_NAMES) == ([gate, up], False, 0)
    with pytest.raises(
        ValueError, match="our blocks.0.gate.weight has no line in the table of names: write one"
    ):
        weight_source("blocks.0.gate.weight", GPT2_WEIGHT_NAMES)


@every
def test_tables_name_exactly_the_tensors_of_transformers(saved, name):
    model, _ = load_pretrained(saved(name)[1])
    table = WEIGHT_NAMES[name.partition("-")[0]]
    ours = []
    for tensor_name in own_tensors(model):
        ours += weight_source(tensor_name, table).names
    assert sorted(ours) == sorted(safetensors.torch.load_file(saved(name)[1] / "model.safetensors"))


@every
def test_the_copy_of_the_lesson_is_that_of_the_library(saved, name):
    folder = saved(name)[1]
    model, _ = load_pretrained(folder)
    with torch.device("meta"):
        empty = type(model)(model.cfg)
    table = WEIGHT_NAMES[name.partition("-")[0]]
    copied = copy_weights(
        empty.to_empty(device="cpu"), safetensors.torch.load_file(folder / "model.safetensors"), table
    )
    for tensor_name, tensor in own_tensors(copied).items():
        assert torch.equal(tensor, own_tensors(model)[tensor_name]), tensor_name


# back out


@every
def test_round_trip_through_transformers(saved, name, tmp_path):
    peer, folder = saved(name)
    model, tokenizer = load_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    out = save_pretrained(model, tmp_path / "out", tokenizer)
    again, found = type(peer).from_pretrained(out, output_loading_info=True)
    assert not any(found.values())
    close(again.eval()(ids(2, 9)).logits, model(ids(2, 9)))
    assert transformers.AutoConfig.from_pretrained(out).model_type == name.partition("-")[0]
    tokens = transformers.PreTrainedTokenizerFast.from_pretrained(out)
    assert (tokens.mask_token, tokens.pad_token_id, tokens("w7").input_ids) == ("[MASK]", 0, [7])


FAMILIES = {
    "gpt2": dict(),
    "llama": dict(norm="rms", position="rope", feed_forward="swiglu", bias=False, norm_eps=1e-6),
    "qwen2": dict(norm="rms", position="rope", feed_forward="swiglu", bias="qkv"),
    "qwen3": dict(norm="rms", position="rope", feed_forward="swiglu", bias=False, qk_norm=True),
    "bert": dict(norm_place="post", feed_forward="gelu_exact", segments=2, norm_eps=1e-12),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([*FAMILIES]))
def test_any_shape_of_a_family_survives_the_folder(tmp_path, data, family):
    heads = data.draw(st.sampled_from([1, 2, 4]))
    free = dict(
        layers=data.draw(st.integers(1, 2)),
        heads=heads,
        d_model=8 * heads,
        d_ff=data.draw(st.sampled_from([None, 12])),
    )
    if family not in ("gpt2", "bert"):
        free |= dict(
            kv_heads=data.draw(st.sampled_from([k for k in (None, 1, heads)])),
            d_head=data.draw(st.sampled_from([None, 6])),
        )
    if family != "bert":
        free |= dict(tied=data.draw(st.booleans()))
    cfg = Config(61, context=10, **FAMILIES[family] | free)
    model = roused((MaskedLM if family == "bert" else Decoder)(cfg))
    assert hub_config(model)[0] == family
    again, _ = load_pretrained(save_pretrained(model, tmp_path, words(), overwrite=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(own_tensors(model).values(), own_tensors(again).values(), strict=True)
    )
    close(again(ids(1, 7)), model(ids(1, 7)))


def test_export_overwrites_nothing_silently(folder):
    model, tokenizer = load_pretrained(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(
        ValueError, match=r"already holds config.json, model.safetensors: choose another folder, or say"
    ):
        save_pretrained(model, folder)
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    with torch.no_grad():
        model.norm.bias.add_(1)
    save_pretrained(model, folder, tokenizer, overwrite=True)
    close(load_pretrained(folder)[0](ids(1, 5)), model(ids(1, 5)))


def test_a_model_of_no_family_is_named(tmp_path):
    model = Decoder(Config(61, layers=1, position="rope"))
    with pytest.raises(
        ValueError, match=r"Decoder with Config\(.*is none of gpt2, llama, mistral, qwen2, qwen3: trans"
    ):
        save_pretrained(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# the tokenizer of a folder


def test_a_length_that_training_left_cuts_and_pads_no_text(folder):
    stored = words()
    stored.enable_truncation(3)
    stored.enable_padding(length=3, pad_id=0, pad_token="[PAD]")
    stored.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    stored.save(str(folder / "tokenizer.json"))
    tokenizer = load_pretrained(folder)[1]
    assert tokenizer.truncation is None and tokenizer.padding is None
    assert tokenizer.encode("w5 w6 w7 w8 w9").ids == [5, 6, 7, 8, 9]
    assert tokenizer.encode("w5").ids == [5]
    assert [found.ids for found in tokenizer.encode_batch(["w5", "w6 w7"])] == [[5], [6, 7]]


def test_dropout_that_training_left_cuts_no_word_by_chance(folder):
    letters = {letter: i for i, letter in enumerate("abcdefgh")} | {"ab": 8, "abc": 9, "abcd": 10}
    merges = [("a", "b"), ("ab", "c"), ("abc", "d")]
    tokenizers.Tokenizer(tokenizers.models.BPE(letters, merges, dropout=0.9)).save(
        str(folder / "tokenizer.json")
    )
    tokenizer = load_pretrained(folder)[1]
    assert all(tokenizer.encode("abcd").ids == [10] for _ in range(20))


def test_export_stores_no_length_and_leaves_the_tokenizer_as_it_was(saved, tmp_path):
    tokenizer = words()
    tokenizer.enable_truncation(3)
    save_pretrained(load_pretrained(saved("gpt2")[1])[0], tmp_path / "out", tokenizer)
    assert tokenizer.truncation["max_length"] == 3
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["truncation"] is None


# encoders without a head, and with a classifier

ENCODERS = {
    "bert": ("Bert", USUAL),
    "roberta": ("Roberta", USUAL | dict(pad_token_id=1, type_vocab_size=1)),
    "xlm-roberta": ("XLMRoberta", USUAL | dict(pad_token_id=1, type_vocab_size=1)),
    "camembert": ("Camembert", USUAL | dict(pad_token_id=1, type_vocab_size=1)),
    "distilbert": ("DistilBert", DISTILLED),
}
encoder = pytest.mark.parametrize("family", ENCODERS)
LABELS = {0: "no", 1: "perhaps", 2: "yes"}


def folder_of(place, family, head, **more):
    "A model of transformers with this head, and the folder it was saved to."
    torch.manual_seed(0)
    name, shape = ENCODERS[family]
    config = getattr(transformers, f"{name}Config")(**shape | more)
    peer = roused(getattr(transformers, f"{name}{head}")(config))
    peer.save_pretrained(place)
    words().save(str(place / "tokenizer.json"))
    return peer, place


def padded():
    "Ids, and where they are tokens; RoBERTa's code counts positions by the id of padding, which is 1."
    there = torch.arange(12)[None] < torch.tensor([[12], [7], [1]])
    return ids(3, 12).where(there, torch.ones(1, dtype=torch.long)), there


@encoder
def test_an_encoder_without_a_head(family, tmp_path):
    peer, folder = folder_of(tmp_path / "in", family, "Model")
    model, tokenizer = load_pretrained(folder)
    x, there = padded()
    assert type(model) is Encoder and model.family == family
    with torch.no_grad():
        theirs = peer(input_ids=x, attention_mask=there.long()).last_hidden_state
        close(model(x, there)[there], theirs[there])
        out = save_pretrained(model, tmp_path / "out", tokenizer)
        again, found = type(peer).from_pretrained(out, output_loading_info=True)
        assert not found["unexpected_keys"] and not found["mismatched_keys"]
        assert {name.split(".")[0] for name in found["missing_keys"]} <= {"pooler"}
        close(again.eval()(input_ids=x, attention_mask=there.long()).last_hidden_state[there], theirs[there])
    assert transformers.AutoConfig.from_pretrained(out).model_type == family


@encoder
def test_a_classifier(family, tmp_path):
    names = {str(i): label for i, label in LABELS.items()}
    peer, folder = folder_of(
        tmp_path / "in", family, "ForSequenceClassification", id2label=names, num_labels=3
    )
    model, tokenizer = load_pretrained(folder)
    x, there = padded()
    assert type(model) is TextClassifier and model.labels == ("no", "perhaps", "yes")
    with torch.no_grad():
        theirs = peer(input_ids=x, attention_mask=there.long()).logits
        close(model(x, there), theirs)
        again, found = type(peer).from_pretrained(
            save_pretrained(model, tmp_path / "out", tokenizer), output_loading_info=True
        )
        assert not any(found.values()) and again.config.id2label == LABELS
        close(again.eval()(input_ids=x, attention_mask=there.long()).logits, theirs)


def test_masked_roberta_with_padding(tmp_path):
    peer, folder = folder_of(tmp_path, "roberta", "ForMaskedLM")
    x, there = padded()
    with torch.no_grad():
        close(
            load_pretrained(folder)[0](x, there)[there],
            peer(input_ids=x, attention_mask=there.long()).logits[there],
        )


@pytest.mark.parametrize("head", ["ForTokenClassification", "ForQuestionAnswering"])
def test_other_heads_are_named(tmp_path, head):
    folder = folder_of(tmp_path, "bert", head)[1]
    with pytest.raises(ValueError, match="missing: .*pooler|unexpected: (classifier|qa_outputs)"):
        load_pretrained(folder)


def test_bert_for_next_sentences_has_no_masked_head(tmp_path):
    "Its second head is left out, as that of BERT's first release; what is left is an encoder."
    peer, folder = folder_of(tmp_path, "bert", "ForNextSentencePrediction")
    x = ids(2, 9)
    with torch.no_grad():
        close(load_pretrained(folder)[0](x), peer.bert(x).last_hidden_state)


def test_a_window_smaller_than_the_context_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved("mistral")[1], tmp_path / "mistral")
    edit(folder, sliding_window=39)
    with pytest.raises(
        ValueError, match="sliding_window=39, but our mistral looks at all 40 tokens: use transformers"
    ):
        load_pretrained(folder)


# what export writes


def shape(**more):
    return Config(61, context=20, layers=1, heads=2, d_model=8, **more)


@pytest.mark.parametrize("kind", [Encoder, EncoderDecoder])
def test_export_writes_what_the_model_is_or_refuses_it_by_name(kind, tmp_path):
    "An encoder of GPT-2's shape is no GPT-2: that one would hide the future."
    with pytest.raises(
        ValueError,
        match=f"{kind.__name__}.* is none of |{kind.__name__} as any family: save_pretrained knows",
    ):
        save_pretrained(kind(shape()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Doubled(Decoder):
    def forward(self, ids):
        return 2 * super().forward(ids)


def test_export_refuses_models_that_compute_something_else(tmp_path):
    for model in (
        Doubled(shape()),
        Decoder(shape(), cross=True),
        nn.Linear(2, 2),
        with_experts(Decoder(shape()), 4, 2),
    ):
        with pytest.raises(ValueError, match="save_pretrained knows|has no line in the table|has a Mixture"):
            save_pretrained(model, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_export_as_a_family_of_the_readers_choice(tmp_path, saved):
    llama = load_pretrained(saved("llama")[1])[0]
    save_pretrained(llama, tmp_path / "mistral", family="mistral")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mistral").eval()
    assert theirs.config.model_type == "mistral" and theirs.config.sliding_window is None
    close(theirs(ids(1, 9)).logits, llama(ids(1, 9)))
    with pytest.raises(ValueError, match="Decoder as bert: save_pretrained knows Decoder as gpt2"):
        save_pretrained(llama, tmp_path / "bert", family="bert")
    with pytest.raises(ValueError, match="is none of gpt2: transformers has no class for it"):
        save_pretrained(llama, tmp_path / "gpt2", family="gpt2")


# what may be wrong with a folder


def test_missing_and_unexpected_tensors_are_named(folder):
    def change(tensors):
        del tensors["transformer.h.1.ln_1.bias"]
        return tensors | {"transformer.h.0.adapter.weight": torch.ones(2)}

    rewrite(folder, change)
    with pytest.raises(
        ValueError, match="1 missing: transformer.h.1.ln_1.bias; 1 unexpected: transformer.h.0.adapter.w"
    ):
        load_pretrained(folder)


def test_shapes_that_do_not_belong_together(folder, saved, tmp_path):
    edit(folder, n_inner=100)
    with pytest.raises(
        ValueError, match=r"mlp.c_fc.weight has shape \[\[128, 32\]\], but config.json asks for \[100, 32\]"
    ):
        load_pretrained(folder)
    llama = shutil.copytree(saved("llama")[1], tmp_path / "llama")
    edit(llama, num_key_value_heads=4)
    with pytest.raises(ValueError, match=r"q_proj.weight \+ .*k_proj.weight \+ .*v_proj.weight has shape"):
        load_pretrained(llama)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_lacking_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(ValueError, match=f"gpt2 lacks {file}"):
        load_pretrained(folder)


def test_a_lacking_shard_is_named(saved, tmp_path):
    saved("llama")[0].save_pretrained(tmp_path, max_shard_size="20KB")
    words().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "model-00002-of-00004.safetensors").unlink(missing_ok=True)
    gone = sorted(tmp_path.glob("model-0000*"))[-1]
    gone.unlink()
    with pytest.raises(ValueError, match=gone.name):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 300, -8])
def test_a_cut_file_is_said_to_be_cut(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"model.safetensors is cut short or no safetensors file .*: copy it again"
    ):
        load_pretrained(folder)


def test_a_corrupt_header_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])
    with pytest.raises(ValueError, match="is cut short or no safetensors file"):
        load_pretrained(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "null", "\x00"])
def test_a_config_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json (is no JSON .*again|holds a .*, expected a dict)"):
        load_pretrained(folder)


def test_an_unknown_family_names_the_known_ones(folder):
    edit(folder, model_type="mamba")
    with pytest.raises(
        ValueError,
        match="model_type='mamba': llmlab knows gpt2, bert, llama, mistral, qwen2, qwen3, distilbert",
    ):
        load_pretrained(folder)


REFUSED = {
    "gpt2": dict(activation_function="relu"),
    "bert": dict(position_embedding_type="relative_key"),
    "llama": dict(rope_parameters=dict(rope_type="yarn", rope_theta=5e5, factor=8.0)),
    "llama-3.1": dict(
        rope_parameters=dict(rope_type="llama3", rope_theta=5e5) | STRETCH | dict(low_freq_factor=2.0)
    ),
    "qwen2": dict(use_sliding_window=True),
    "qwen3": dict(attention_bias=True),
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_our_model_would_compute_otherwise_is_refused(saved, tmp_path, family):
    folder = shutil.copytree(saved(family)[1], tmp_path / family)
    edit(folder, **REFUSED[family])
    with pytest.raises(ValueError, match=rf"says \w+=.*, but our {family[:5]}\w* has .*: use transformers"):
        load_pretrained(folder)


def test_a_config_without_its_sizes(folder):
    edit(folder, n_layer="drop", n_embd="drop")
    with pytest.raises(ValueError, match="config.json lacks n_layer, n_embd: copy it again"):
        load_pretrained(folder)


class Marks:
    "A pickle that touches a file when it is read."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unread(folder, tmp_path, file):
    mark = str(tmp_path / "ran")
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(pickle.dumps(Marks(mark)))
    with pytest.raises(
        ValueError, match=f"it has {file}, but loading a pickle can run any code: ask for safetensors"
    ):
        load_pretrained(folder)
    assert not os.path.exists(mark)
    pickle.loads((folder / file).read_bytes())
    assert os.path.exists(mark), "the pickle is harmless: the test proves nothing"


def test_a_pickle_named_safetensors_is_refused_unread(folder, tmp_path):
    mark = str(tmp_path / "ran")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Marks(mark)))
    with pytest.raises(ValueError, match="no safetensors file"):
        load_pretrained(folder)
    assert not os.path.exists(mark)


# the hub


def alone(code, home, **env):
    "What another Python prints, whose cache is in `home`."
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(home)} | env
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    return ran.stdout.strip()


ASK = """
from llmlab.hub import pretrained_folder
try:
    pretrained_folder("gpt2")
except ConnectionError as error:
    print(error)
"""
HELP = "give a local folder instead, or set HF_HOME to a cache that has it, or HF_ENDPOINT to a mirror"


@pytest.mark.parametrize(
    "env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["offline", "refused"]
)
def test_no_network_fails_and_says_what_to_do(tmp_path, env):
    text = alone(ASK, tmp_path, **env)
    assert text.startswith("cannot fetch 'gpt2' from the hub") and text.endswith(HELP) and "\n" not in text


@pytest.mark.slow
@pytest.mark.timeout(600)  # ends a hang, as without the limit of five seconds
def test_a_host_that_never_answers_is_given_up(tmp_path):
    asked = 0
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        text = alone(ASK, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        silent.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                asked += 1
    assert 0 < asked <= 2 and text.endswith(HELP)  # the hub's client opens a second connection


def test_the_cache_serves_without_a_network(saved, tmp_path):
    cache = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(saved("gpt2")[1], cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    code = "from llmlab import load_pretrained; print(type(load_pretrained('me/tiny')[0]).__name__)"
    assert alone(code, tmp_path, HF_HUB_OFFLINE="1") == "Decoder"


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "", "two words"])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(
        ValueError, match="there is no folder .*, and an id on the hub looks like gpt2 or Qwen/"
    ):
        pretrained_folder(name)


def test_reading_weights_needs_no_transformers(saved):
    code = (
        "import sys; from llmlab import load_pretrained; "
        "load_pretrained(sys.argv[1]); print('transformers' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, saved("llama")[1]], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def test_nothing_asks_for_remote_code():
    package = shipped_path("manifest.json").parents[1]
    for module in ("hub", "pretrained", "families", "loading", "embeddings", "exporting"):
        source = (package / f"{module}.py").read_text()
        for call in ("trust_remote_code", "torch.load", "pickle.load"):
            assert call not in source, (module, call)


# attention of any model


def both():
    small = dict(
        vocab_size=61, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48
    )
    bart = transformers.BartConfig(
        **small, encoder_attention_heads=4, decoder_attention_heads=2, max_position_embeddings=20
    )
    t5 = transformers.T5Config(vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return [transformers.BartForConditionalGeneration(bart), transformers.T5ForConditionalGeneration(t5)]


@pytest.mark.parametrize("n", [0, 1], ids=["bart", "t5"])
def test_attentions_of_an_encoder_decoder(n):
    model = both()[n].train()
    before = model.config._attn_implementation
    found = hub_attentions(model, {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 4)})
    shapes = {kind: [tuple(x.shape[2:]) for x in layers] for kind, layers in found.items()}
    assert shapes == {"encoder": [(7, 7)] * 2, "decoder": [(4, 4)] * 2, "cross": [(4, 7)] * 2}
    for layers in found.values():
        assert all(
            torch.allclose(x.sum(-1), torch.ones(x.shape[:-1]), atol=1e-5) and not x.requires_grad
            for x in layers
        )
    assert all((x.triu(1) == 0).all() for x in found["decoder"])
    assert model.config._attn_implementation == before == "sdpa" and model.training
    read, written = [f"r{i}" for i in range(7)], [f"w{i}" for i in range(4)]
    attention_view(found["encoder"], read), attention_view(found["cross"], (written, read))


def test_stacks_with_a_configuration_of_their_own_are_switched_and_back(monkeypatch):
    "As in transformers 5.15, which Colab has: a switch of the whole model leaves T5's stacks as they are."
    model = both()[1].eval()
    stacks = model.encoder, model.decoder
    assert len({id(part.config) for part in (model, *stacks)}) == 3

    def own_only(self, kind):
        self.config._attn_implementation = kind

    monkeypatch.setattr(transformers.PreTrainedModel, "set_attn_implementation", own_only)
    found = hub_attentions(model, {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 4)})
    assert [len(layers) for layers in found.values()] == [2, 2, 2]
    assert [stack.config._attn_implementation for stack in stacks] == ["sdpa", "sdpa"]


def test_attention_is_switched_back_after_an_error(saved):
    peer = saved("bert")[0]
    with pytest.raises(ValueError, match="input_ids"):
        hub_attentions(peer, {})
    assert peer.config._attn_implementation == "sdpa"


def test_a_model_without_attention_is_named():
    mamba = transformers.MambaModel(
        transformers.MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    with pytest.raises(ValueError, match="MambaModel gives no attention weights"):
        hub_attentions(mamba, {"input_ids": ids(1, 5)})
