"Another model, recipe, loss or other data in the folder of a run are noticed."

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_runs import IDS, Stop, decoder, loss, run, stopping

from llmlab import checkpoints
from llmlab.checkpoints import step_files
from llmlab.same_run import steps_to_compare
from llmlab.training import Batches, Recipe, Windows, fit

# --- model and recipe ---------------------------------------------------------------------------------------


def test_another_run_is_refused_and_every_difference_named(tmp_path):
    recipe = Recipe(steps=4, batch_size=4)
    run(recipe, checkpoint_dir=tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = replace(recipe, lr=0.5, steps=9, every=7, seconds=60.0)  # more steps alone would be no other run
    with pytest.raises(ValueError) as error:
        fit(
            decoder(heads=1, d_model=8),
            Batches(Windows(IDS, 10), batch_size=4),
            loss,
            other,
            checkpoint_dir=tmp_path,
        )
    text = str(error.value)
    for difference in (
        "embed.tokens.weight: [20, 16] in the file, [20, 8] in the model",
        "heads: 2 in the checkpoint, 1 now",
        "lr: 0.001 in the checkpoint, 0.5 now",
        "batch 0: ",
        "choose an empty folder, or the same model, data and recipe",
    ):
        assert difference in text
    assert "every" not in text and "seconds" not in text
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_another_schedule_is_another_run(tmp_path):
    recipe = Recipe(steps=4, batch_size=4)
    run(recipe, checkpoint_dir=tmp_path)
    text = "min_lr: 0.0 in the checkpoint, 0.0001 now; schedule: cosine in the checkpoint, linear now"
    with pytest.raises(ValueError, match=text):
        run(replace(recipe, schedule="linear", min_lr=1e-4), checkpoint_dir=tmp_path)


# --- data ---------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    "A run of 12 steps that stopped in step 12, with a checkpoint of step 10."
    recipe = Recipe(steps=12, batch_size=4, every=5)
    with pytest.raises(Stop):
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=4), stopping(11), recipe, checkpoint_dir=tmp_path)
    (tmp_path / ".step-00000011.safetensors.1.tmp").write_bytes(b"half")
    return recipe, {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_batches_that_are_compared():
    assert steps_to_compare(1, 12) == [0, 1]
    assert steps_to_compare(11, 12) == [0, 1, 2, 4, 8, 10, 11]
    assert steps_to_compare(12, 12) == [0, 1, 2, 4, 8, 11]
    assert len(steps_to_compare(10**6, 10**7)) == 23


@pytest.mark.parametrize("first", range(12))
def test_other_data_from_any_step_on_are_noticed_up_to_the_next_one(tmp_path, stopped, first):
    recipe, kept = stopped
    same_data, other_data = (
        Batches(Windows(IDS, 9), batch_size=4),
        Batches(Windows(IDS, 9), batch_size=4, seed=1),
    )
    model = decoder(seed=5)
    before = [p.detach().clone() for p in model.parameters()]

    def batches(step):
        return (other_data if step >= first else same_data)(step)

    if first == 11:  # nobody can know: what comes later was never seen
        assert len(fit(model, batches, loss, recipe, checkpoint_dir=tmp_path)) == 12
        return
    step = next(s for s in (0, 1, 2, 4, 8, 9, 10) if s >= first)
    with pytest.raises(
        ValueError, match=rf"is of another run \(batch {step}: .* \[4, 9\] int64 in the checkpoint"
    ):
        fit(model, batches, loss, recipe, checkpoint_dir=tmp_path)
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}, "a refused run changes nothing"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "change", [lambda ids: ids.int(), lambda ids: ids.reshape(9, 4), lambda ids: ids.flip(0)]
)
def test_the_same_numbers_in_another_form_are_other_data(tmp_path, stopped, change):
    source = Batches(Windows(IDS, 9), batch_size=4)
    with pytest.raises(ValueError, match="batch 0: "):
        fit(decoder(), lambda step: change(source(step)), loss, stopped[0], checkpoint_dir=tmp_path)


def test_a_source_that_ends_earlier_is_other_data(tmp_path, stopped):
    source = [Batches(Windows(IDS, 9), batch_size=4)(step) for step in range(9)]
    with pytest.raises(ValueError, match="batch 9: .* in the checkpoint, no batch now"):
        fit(decoder(), source.__getitem__, loss, stopped[0], checkpoint_dir=tmp_path)


# --- loss ---------------------------------------------------------------------------------------------------


OTHER_LOSSES = {
    "smoothed": lambda model, ids: F.cross_entropy(
        model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1
    ),
    "doubled": lambda model, ids: 2 * loss(model, ids),
    "of the last token": lambda model, ids: F.cross_entropy(model(ids[:, :-1])[:, -1], ids[:, -1]),
    "with a penalty": lambda model, ids: (
        loss(model, ids) + 0.01 * sum(p.square().sum() for p in model.parameters())
    ),
}


@pytest.mark.parametrize("name", OTHER_LOSSES)
def test_another_loss_is_noticed_and_the_model_stays_as_it_was(tmp_path, stopped, name):
    recipe, kept = stopped
    model = decoder(seed=5)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(
        ValueError, match=r"is of another run \(the loss of 4 rows: .* in the checkpoint, .* now\)"
    ):
        fit(
            model, Batches(Windows(IDS, 9), batch_size=4), OTHER_LOSSES[name], recipe, checkpoint_dir=tmp_path
        )
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_loss_that_cannot_be_asked_of_four_rows_is_not_compared(tmp_path):
    def whole_batch(model, ids):
        assert len(ids) == 8, "all or none"
        return loss(model, ids)

    recipe = Recipe(steps=4, batch_size=8, every=2)
    first = fit(
        decoder(), Batches(Windows(IDS, 9), batch_size=8), whole_batch, recipe, checkpoint_dir=tmp_path
    )
    assert (
        fit(decoder(), Batches(Windows(IDS, 9), batch_size=8), whole_batch, recipe, checkpoint_dir=tmp_path)
        == first
    )
    assert checkpoints.read_file(step_files(tmp_path)[-1])[0]["run"]["loss"] is None
