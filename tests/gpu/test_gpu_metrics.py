"Every score is the same number wherever its tensors are."

import pytest
import torch
from on_device import CPU, DEVICE, decoder

from llmlab.masked import MaskedLM, pseudo_logprobs
from llmlab.metrics import (
    accuracy,
    accuracy_per_class,
    bits_per_byte,
    bootstrap_interval,
    cross_entropy,
    paired_test,
    perplexity,
    token_logprobs,
)
from llmlab.translation_scores import token_bleu


def logits_and_targets():
    generator = torch.Generator().manual_seed(0)
    logits, targets = (
        torch.randn(3, 50, 17, generator=generator),
        torch.randint(17, (3, 50), generator=generator),
    )
    return logits, targets.masked_fill(torch.rand(3, 50, generator=generator) < 0.2, -100)


def equal(a, b):
    "Value, rows and recipe."
    assert float(a) == float(b) and a.recipe == b.recipe and (a.rows == b.rows).all(), (a, b)


@pytest.mark.parametrize("k", [1, 5])
def test_accuracies(k):
    pair = logits_and_targets()
    moved = [x.to(DEVICE) for x in pair]
    equal(accuracy(*moved, k), accuracy(*pair, k))
    here, there = accuracy_per_class(*pair, k), accuracy_per_class(*moved, k)
    assert list(here) == list(there)
    for name, score in here.items():
        equal(there[name], score)


def test_scores_of_log_probabilities_and_their_intervals():
    logits, _ = logits_and_targets()
    one, two = logits.log_softmax(-1)[..., 0].flatten(), logits.log_softmax(-1)[..., 1].flatten()
    for score in (cross_entropy, perplexity, lambda x: bits_per_byte(x, 400)):
        here, there = score(one), score(one.to(DEVICE))
        equal(here, there)
        assert bootstrap_interval(here, n=50).recipe == bootstrap_interval(there, n=50).recipe
        a, b = (paired_test(x, score(two.to(device)), n=50) for x, device in ((here, CPU), (there, DEVICE)))
        assert float(a) == float(b) and a.recipe == b.recipe


def test_a_model_s_log_probabilities():
    text = torch.randint(64, (300,), generator=torch.Generator().manual_seed(2))
    here, there = (token_logprobs(decoder().to(device), text.to(device)) for device in (CPU, DEVICE))
    assert there.device.type == DEVICE.type and here.recipe == there.recipe
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-4)
    assert float(perplexity(there)) == pytest.approx(float(perplexity(here)), rel=1e-5)


class Letters:
    "a, b, c, … with the special ids of a MaskTokenizer."

    pad, cls, sep, mask, vocab_size, special = 60, 61, 62, 63, 64, (60, 61, 62, 63)

    def encode(self, text):
        return [self.cls, *(ord(c) - ord("a") for c in text), self.sep]

    def strings(self, ids):
        return [chr(ord("a") + i) for i in ids]


def test_a_masked_model_s_pseudo_log_probabilities():
    here, there = (
        pseudo_logprobs(decoder(MaskedLM).to(device), Letters(), "attention") for device in (CPU, DEVICE)
    )
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("many", [1, 3], ids=["one reference", "three references"])
@pytest.mark.parametrize(
    "options", [{}, {"smooth": "add-k"}, {"smooth": "none"}, {"effective_order": True}], ids=str
)
def test_translation_scores(many, options):
    generator = torch.Generator().manual_seed(4)
    refs = torch.randint(9, (40, many, 20), generator=generator)
    hyps = refs[:, 0].where(torch.rand(40, 20, generator=generator) < 0.7, torch.tensor(1))
    hyps[:, 15:] = -100
    here, there = token_bleu(hyps, refs, **options), token_bleu(hyps.to(DEVICE), refs.to(DEVICE), **options)
    assert 20 < here < 90
    equal(here, there)
