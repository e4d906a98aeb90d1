"Task figures: what they keep, and what they refuse."

import pytest
import torch
from sample_figures import MARK

from llmlab import bias_view
from llmlab.figures.task_figures import best_span
from llmlab.tasks.answering import best_spans

# --- bias ---------------------------------------------------------------------------------------------------


def test_bias_keeps_its_numbers():
    view = bias_view({"one": {"work": MARK}, "two": {"work": MARK | {"at": 1.2}}}, "nats", "0: equal")
    assert view.data["models"] == ["one", "two"] and view.data["measures"] == ["work"]
    assert view.data["marks"][1][0]["at"] == 1.2 and "one, work: 1.00 nats" in view.alt


@pytest.mark.parametrize(
    "models, said",
    [
        ({}, "0 models with measures"),
        ({"one": {}}, "give one of each at least"),
        ({"one": {"a": MARK}, "two": {"b": MARK}}, "every model the same measures in one order"),
        ({"one": {"a": {"at": 1.0}}}, "lacks low, high, p, points"),
        ({"one": {"a": MARK | {"low": 2.0}}}, "give finite numbers, and low at most high"),
        ({"one": {"a": MARK | {"points": [float("nan")]}}}, "give finite numbers"),
    ],
)
def test_what_bias_view_refuses(models, said):
    with pytest.raises(ValueError, match=said):
        bias_view(models, "nats", "0: equal")


# --- spans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_best_span_is_that_of_chapter_18(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (12, 2), generator=generator).float()  # with equals among them
    scores[4, 0] = -torch.inf
    inside = torch.rand(12, generator=generator) > 0.3
    inside[:2] = torch.tensor([False, True])
    (wanted,) = best_spans(scores[None], inside[None], 3)
    assert best_span(scores.double().numpy(), inside.numpy(), 3) == (wanted.start, wanted.end)
