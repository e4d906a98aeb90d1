"BART, Marian and T5 in our EncoderDecoder against `transformers`: numbers, greedy writing, refusals."

import json
import shutil

import pytest
import safetensors.torch
import tokenizers
import torch
from torch import nn

from llmlab.exporting import save_pretrained
from llmlab.families import (
    TargetIds,
    activation_name,
    forced_ids_processor,
    read_config,
    read_ids,
    write_targets,
)
from llmlab.generation import Sampling
from llmlab.loading import load_pretrained
from llmlab.storage import own_tensors
from llmlab.transformer import EncoderDecoder

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

BART = dict(vocab_size=61, d_model=32, max_position_embeddings=40, encoder_layers=3, decoder_layers=2)
BART |= {
    f"{side}_{name}": n
    for side in ("encoder", "decoder")
    for name, n in (("ffn_dim", 48), ("attention_heads", 4))
}
MARIAN = BART | dict(pad_token_id=60, decoder_start_token_id=60)
T5 = dict(vocab_size=61, d_model=32, d_kv=12, d_ff=48, num_heads=4, num_layers=3, num_decoder_layers=2)
T5 |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=16, decoder_start_token_id=0)
GATED = T5 | dict(feed_forward_proj="gated-gelu")
PEERS = {
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "bart-scaled": (
        "BartForConditionalGeneration",
        "BartConfig",
        BART | dict(scale_embedding=True, decoder_layers=4),
    ),
    "bart-relu": ("BartForConditionalGeneration", "BartConfig", BART | dict(activation_function="relu")),
    "marian": (
        "MarianMTModel",
        "MarianConfig",
        MARIAN | dict(scale_embedding=True, activation_function="swish"),
    ),
    "marian-plain": ("MarianMTModel", "MarianConfig", MARIAN),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5-gated": ("T5ForConditionalGeneration", "T5Config", GATED),
    "t5-1.1": ("T5ForConditionalGeneration", "T5Config", GATED | dict(tie_word_embeddings=False)),
}
every = pytest.mark.parametrize("name", PEERS)
one_each = pytest.mark.parametrize("name", ["bart", "marian", "t5"])


def roused(model):
    "Weights large enough that every part of the model matters, other gains, biases and constants everywhere."
    for p in model.parameters():
        if p.requires_grad:  # Marian's waves stay what they are
            nn.init.normal_(p, std=0.3) if p.ndim == 2 else nn.init.normal_(
                p, 1.0 if p.mean() > 0.5 else 0.0, 0.2
            )
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_(0, 0.5)
    return model.eval()


def peer_of(name):
    torch.manual_seed(0)
    model, config, shape = PEERS[name]
    peer = roused(getattr(transformers, model)(getattr(transformers, config)(**shape)))
    if name == "t5-1.1":  # an output matrix of its own, as its published files have
        peer.lm_head.weight = nn.Parameter(0.3 * torch.randn(61, 32))
    return peer


def words():
    "A tokenizer of 61 words."
    vocab = {f"w{i}": i for i in range(61)}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "w5"))


def save(peer, folder):
    "A folder as `transformers` writes it, with a toy tokenizer."
    peer.save_pretrained(folder)
    words().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    "A function from a name to a folder of its own, to damage."
    return lambda name: shutil.copytree(saved(name)[1], tmp_path / name)


def ids(*shape, seed=1):
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(seed))


def padded(lengths):
    "Sources of these lengths, and where they are tokens."
    return ids(len(lengths), max(lengths)), torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def edit(folder, file="config.json", **changes):
    path = folder / file
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in facts.items() if value != "drop"}))


def restore(folder, change):
    "The weights of a folder, changed and written back."
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


# parity


@every
@pytest.mark.parametrize("lengths", [[1], [17], [40], [17, 17, 17], [17, 5, 1], [40, 23]], ids=str)
def test_encoder_states_and_logits_equal(saved, name, lengths):
    peer, folder = saved(name)
    model, _ = load_pretrained(folder)
    (source, real), target = padded(lengths), ids(len(lengths), 9, seed=2)
    with torch.no_grad():
        theirs = peer(input_ids=source, attention_mask=real.long(), decoder_input_ids=target)
        close(model.encoder(source, real)[real], theirs.encoder_last_hidden_state[real])
        close(model(source, target, real), theirs.logits)


def test_left_padding_of_t5(saved):
    "BART and Marian count places from the padding on, ours from the first token: relative places agree."
    peer, folder = saved("t5")
    source, real = padded([17, 5])
    source, real = source.flip(1), real.flip(1)
    with torch.no_grad():
        theirs = peer.encoder(input_ids=source, attention_mask=real.long()).last_hidden_state
        close(load_pretrained(folder)[0].encoder(source, real)[real], theirs[real])


@one_each
def test_gradients_of_the_shared_table_equal(saved, name):
    peer, folder = saved(name)
    model, _ = load_pretrained(folder)
    (source, real), target = padded([9, 4]), ids(2, 6, seed=2)
    weights = torch.randn(2, 6, 61, generator=torch.Generator().manual_seed(3))
    peer.zero_grad()
    (
        peer(input_ids=source, attention_mask=real.long(), decoder_input_ids=target).logits * weights
    ).sum().backward()
    (model(source, target, real) * weights).sum().backward()
    theirs = peer.get_input_embeddings().weight.grad
    padding = (
        peer.config.pad_token_id if name != "t5" else None
    )  # transformers gives padding's row no gradient as an input
    rows = [i for i in range(61) if i != padding]
    torch.testing.assert_close(
        model.encoder.embed.tokens.weight.grad[rows], theirs[rows], atol=1e-3, rtol=1e-3
    )
    assert model.decoder.embed.tokens is model.encoder.embed.tokens


@every
def test_every_tensor_of_the_file_has_its_place(saved, name):
    peer, folder = saved(name)
    model, _ = load_pretrained(folder)
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    unread = 2 * 2 * 32 if name.startswith("bart") else 0  # rows 0 and 1 of BART's positions
    assert (
        sum(x.numel() for x in own_tensors(model).values())
        == sum(x.numel() for x in stored.values()) - unread
    )


def test_other_number_formats(saved):
    model, _ = load_pretrained(saved("marian")[1], dtype=torch.bfloat16)
    assert model.decoder.head_bias.dtype == model.encoder.embed.waves.dtype == torch.bfloat16
    assert not model.training and model.family == "marian"


# greedy writing


def same_texts(peer, model, lengths, n):
    "Both write greedily, no pair of ids twice; what they wrote, after a look that it is the same."
    source, real = padded(lengths)
    how = dict(max_new_tokens=n, num_beams=1, do_sample=False, no_repeat_ngram_size=2)
    theirs = peer.generate(input_ids=source, attention_mask=real.long(), **how).tolist()
    rows = [row[:t] for row, t in zip(source.tolist(), lengths, strict=True)]
    ours = write_targets(model, rows, n, Sampling(0, no_repeat_ngram_size=2))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other[1 : 1 + len(mine)]
        assert set(other[1 + len(mine) :]) <= {peer.config.pad_token_id}
    return ours


@every
def test_greedy_texts_equal(saved, name):
    peer, folder = saved(name)
    model, _ = load_pretrained(folder)
    texts = same_texts(peer, model, [17, 5, 1, 30], 12)
    assert len({i for text in texts for i in text}) > 6 and len({*map(tuple, texts)}) > 2


@one_each
def test_forced_and_forbidden_ids(saved, name, tmp_path):
    peer = peer_of(name)
    model, _ = load_pretrained(save(peer, tmp_path))
    usual = same_texts(peer, model, [9, 4], 6)
    facts = dict(
        forced_bos_token_id=7, forced_eos_token_id=11, bad_words_ids=[[usual[0][1]]], eos_token_id=[11, 12]
    )
    edit(tmp_path, "generation_config.json", **facts)
    peer.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
    model, _ = load_pretrained(tmp_path)
    texts = same_texts(peer, model, [9, 4], 6)
    assert all(text[0] == 7 and usual[0][1] not in text for text in texts)
    assert all(text[-1] in (11, 12) for text in texts)


@one_each
def test_a_text_ends_at_any_of_its_stops(saved, name, tmp_path):
    peer = peer_of(name)
    usual = same_texts(peer, load_pretrained(save(peer, tmp_path))[0], [9, 4], 8)
    stops = [usual[0][4], usual[1][2]]
    edit(tmp_path, "generation_config.json", eos_token_id=stops)
    peer.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
    one, other = same_texts(peer, load_pretrained(tmp_path)[0], [9, 4], 8)
    assert len(one) <= 5 and len(other) <= 3 and {one[-1], other[-1]} <= {*stops}


def test_a_text_ends_where_the_context_does(saved):
    model, _ = load_pretrained(saved("marian")[1])
    (text,) = write_targets(model, [[5, 6]], 1000)
    assert len(text) <= 39 and text[-1] == 0


def test_a_model_that_does_not_say_how_it_begins(saved):
    model, _ = load_pretrained(saved("bart")[1])
    del model.target_ids
    with pytest.raises(ValueError, match="does not say which id its decoder reads first"):
        write_targets(model, [[5]], 3)


def test_framed_pencil():
    frame = forced_ids_processor(TargetIds(0, stop=(2,), first=4, last=(2,), never=(3,)), 3)
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0, 1.0]])
    picks = [int(frame(torch.zeros(1, t, dtype=torch.long), logits).argmax()) for t in (1, 2, 3)]
    assert picks == [4, 2, 2] and logits[0, 3] == 9


def test_target_ids_of_a_folder(folder):
    assert load_pretrained(folder("bart"))[0].target_ids == TargetIds(start=2, stop=(2,), last=(2,))
    assert load_pretrained(folder("t5"))[0].target_ids == TargetIds(start=0, stop=(1,))
    marian = folder("marian")
    (marian / "generation_config.json").unlink()
    edit(marian, bad_words_ids=[[60]])  # where files before transformers 5 have it
    assert load_pretrained(marian)[0].target_ids == TargetIds(start=60, stop=(0,), last=(0,), never=(60,))


@pytest.mark.parametrize("value", [61, -1, True, 1.5, "2", [[1, 2]], {"a": 1}])
def test_ids_outside_the_vocabulary_are_refused(folder, value, tmp_path):
    t5 = folder("t5")
    edit(t5, "generation_config.json", eos_token_id=value)
    with pytest.raises(ValueError, match="eos_token_id=.*expected single ids from 0 to 60"):
        load_pretrained(t5)
    assert read_ids(tmp_path, "x", [[3], 4], 61) == (3, 4) and read_ids(tmp_path, "x", None, 61) == ()


# files as the hub has them


def test_a_file_may_store_the_shared_table_several_times(folder):
    marian, t5 = folder("marian"), folder("t5")
    both = {f"model.{side}.embed_tokens.weight": "model.shared.weight" for side in ("encoder", "decoder")}
    for where, base, twins in (
        (marian, "model.shared.weight", [*both, "lm_head.weight"]),
        (
            t5,
            "shared.weight",
            ["lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"],
        ),
    ):
        restore(where, lambda x, base=base, twins=twins: x.update({name: x[base].clone() for name in twins}))
        assert load_pretrained(where)[0].cfg.tied


@pytest.mark.parametrize("name", ["model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"])
def test_tables_that_differ_are_refused(folder, name):
    marian = folder("marian")
    restore(marian, lambda x: x.update({f"{name}.weight": x["model.shared.weight"] + 1}))
    with pytest.raises(
        ValueError, match=f"{name}.weight and model.shared.weight .* stored with other numbers"
    ):
        load_pretrained(marian)


def test_a_file_without_the_constants(folder):
    bart = folder("bart")
    restore(bart, lambda x: x.pop("final_logits_bias"))
    model, _ = load_pretrained(bart)
    assert not model.cfg.head_bias
    peer = transformers.BartForConditionalGeneration.from_pretrained(bart)
    with torch.no_grad():
        close(model(ids(1, 8), ids(1, 5)), peer(input_ids=ids(1, 8), decoder_input_ids=ids(1, 5)).logits)


def test_bart_without_its_head(saved, tmp_path):
    "As facebook/bart-base is stored: names without `model.`, no constants."
    peer = saved("bart")[0]
    model, _ = load_pretrained(save(peer.model, tmp_path))
    with torch.no_grad():
        theirs = peer(input_ids=ids(1, 8), decoder_input_ids=ids(1, 5)).logits - peer.final_logits_bias
        close(model(ids(1, 8), ids(1, 5)), theirs)


@pytest.mark.parametrize("tie, scale", [(True, 32**-0.5), (False, 1.0), ("drop", 32**-0.5)])
def test_t5_before_transformers_5_says_its_scale_by_the_tie(folder, tie, scale):
    t5 = folder("t5")
    edit(t5, scale_decoder_outputs="drop", tie_word_embeddings=tie)
    assert read_config(t5)[1].head_scale == pytest.approx(scale)
    edit(t5, scale_decoder_outputs=False, tie_word_embeddings=True)
    assert read_config(t5)[1].head_scale == 1.0


def test_a_t5_start_is_its_padding_where_nothing_is_said(folder):
    t5 = folder("t5")
    (t5 / "generation_config.json").unlink()
    edit(t5, decoder_start_token_id="drop")
    assert load_pretrained(t5)[0].target_ids.start == 0


def test_old_t5_files_hold_one_table_that_nothing_uses(folder):
    t5 = folder("t5")
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    restore(t5, lambda x: x.update({name: torch.zeros(8, 4)}))
    load_pretrained(t5)


# what is refused, by name


@pytest.mark.parametrize("family", ["mbart", "pegasus", "mt5", "m2m_100", "longt5", "blenderbot", "led"])
def test_other_families_are_refused_by_name(folder, family):
    bart = folder("bart")
    edit(bart, model_type=family)
    with pytest.raises(ValueError, match=f"model_type='{family}': llmlab knows .*bart, marian, t5"):
        load_pretrained(bart)


REFUSED = {
    "bart": dict(
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        tie_word_embeddings=False,
        activation_function="mish",
        normalize_before=True,
        is_encoder_decoder=False,
    ),
    "marian": dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=60, normalize_embedding=True),
    "t5": dict(feed_forward_proj="gated-relu", is_encoder_decoder=False),
}


@pytest.mark.parametrize("family, name", [(family, name) for family in REFUSED for name in REFUSED[family]])
def test_settings_that_ours_do_not_have(folder, family, name):
    where = folder(family)
    edit(where, **{name: REFUSED[family][name]})
    with pytest.raises(ValueError, match=f"{name}=.*use transformers"):
        load_pretrained(where)


@pytest.mark.parametrize("value", [0, -1, 10**9, 1.5, "2"])
@pytest.mark.parametrize("family, name", [("bart", "decoder_layers"), ("t5", "num_decoder_layers")])
def test_a_decoder_of_no_size(folder, family, name, value):
    where = folder(family)
    edit(where, **{name: value})
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(where)


def test_a_decoder_has_no_more_layers_than_there_are_tensors_for(folder):
    bart = folder("bart")
    edit(bart, decoder_layers=1000)
    with pytest.raises(ValueError, match="decoder_layers=1,000, which needs 4,000 tensors"):
        load_pretrained(bart)


def test_other_heads_are_refused(saved, tmp_path):
    torch.manual_seed(0)
    transformers.BartForSequenceClassification(transformers.BartConfig(**BART)).save_pretrained(tmp_path)
    shutil.copy(saved("bart")[1] / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match=r"unexpected: classification_head"):
        load_pretrained(tmp_path)


def test_an_encoder_decoder_is_read_only(saved, tmp_path):
    model, _ = load_pretrained(saved("bart")[1])
    assert type(model) is EncoderDecoder
    with pytest.raises(ValueError, match="EncoderDecoder as any family: save_pretrained knows"):
        save_pretrained(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_activation_that_is_no_text(tmp_path):
    with pytest.raises(ValueError, match="activation_function=\\['gelu'\\]"):
        activation_name(
            tmp_path, "activation_function", {"activation_function": ["gelu"]}, "gelu", {"gelu": "gelu"}
        )


def test_a_table_of_waves_that_takes_all_memory_is_refused(folder):
    marian = folder("marian")
    edit(marian, max_position_embeddings=10**12)
    with pytest.raises(ValueError, match=r"context=.*a table of .* numbers that is not stored"):
        load_pretrained(marian)
