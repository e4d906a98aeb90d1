"Pretrained weights straight onto the device: our own files, and folders that transformers wrote."

import pytest
import tokenizers
import torch
from on_device import CPU, DEVICE, decoder, relative_error

from llmlab.exporting import save_pretrained
from llmlab.loading import load_pretrained
from llmlab.masked import MaskedLM

IDS = torch.tensor([[5, 7, 9, 3, 11, 2, 60], [1, 2, 3, 4, 5, 6, 7]])


def words(size=64):
    "A word for each id."
    return tokenizers.Tokenizer(
        tokenizers.models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0")
    )


def loaded(folder, dtype=torch.float32):
    model, tokenizer = load_pretrained(folder, DEVICE, dtype)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {
        (DEVICE.type, dtype)
    } and not model.training
    assert {b.device.type for b in model.buffers()} <= {DEVICE.type}
    assert tokenizer.get_vocab_size() == 64
    return model


@pytest.mark.parametrize("shape", ["gpt2", "bert"])
def test_what_we_export_loads_onto_the_device(shape, tmp_path):
    if shape == "bert":
        model = decoder(MaskedLM, norm_place="post", feed_forward="gelu_exact", norm_eps=1e-12, segments=2)
    else:
        model = decoder()
    with torch.no_grad():
        wanted = model(IDS)
        assert (
            relative_error(loaded(save_pretrained(model, tmp_path, words()))(IDS.to(DEVICE)), wanted) < 1e-4
        )
        assert relative_error(loaded(tmp_path, torch.bfloat16)(IDS.to(DEVICE)), wanted) < 0.05
    on_device = save_pretrained(model.to(DEVICE), tmp_path / "again", words())
    assert (on_device / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def theirs(family):
    "A small model of transformers, its weights far from the start."
    transformers = pytest.importorskip("transformers", reason="transformers is not installed on this machine")
    small = dict(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    ends = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    grouped = small | ends | dict(num_key_value_heads=2, max_position_embeddings=48)
    configs = {
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=48, **ends
        ),
        "bert": lambda: transformers.BertConfig(**small, max_position_embeddings=48),
        "llama": lambda: transformers.LlamaConfig(**grouped),
        "qwen3": lambda: transformers.Qwen3Config(**grouped, head_dim=16),
    }
    classes = {
        "gpt2": "GPT2LMHeadModel",
        "bert": "BertForMaskedLM",
        "llama": "LlamaForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
    }
    torch.manual_seed(0)
    model = getattr(transformers, classes[family])(configs[family]()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama", "qwen3"])
def test_a_folder_of_transformers_loads_onto_the_device(family, tmp_path):
    peer = theirs(family)
    peer.save_pretrained(tmp_path)
    words().save(str(tmp_path / "tokenizer.json"))
    with torch.no_grad():
        wanted = peer.to(CPU)(IDS).logits
        assert relative_error(loaded(tmp_path)(IDS.to(DEVICE)), wanted) < 1e-4
        assert relative_error(peer.to(DEVICE)(IDS.to(DEVICE)).logits, wanted) < 1e-4
