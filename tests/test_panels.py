"Panels: what the figures of single chapters accept, and what they refuse."

import numpy as np
import pytest

from llmlab.figures.panels import beams_view, bias_view, decoding_view, grid_view, mask_view

# --- mask -----------------------------------------------------------------------------------------------------------


def test_mask_keeps_the_eight_likeliest_and_the_truth():
    guesses = {f"t{i}": (10 - i) / 60 for i in range(10)}
    (reader,) = mask_view(["t9", "b"], {"m": ([[0, 1], [1, 0]], [guesses, None])}).data["readers"]
    best, truth = reader["gaps"][0]
    assert [name for name, _ in best] == [f"t{i}" for i in range(8)] and truth == pytest.approx(1 / 60)
    assert reader["gaps"][1] is None and reader["sees"] == ["01", "10"]


def test_mask_starts_where_somebody_is_asked():
    view = mask_view(
        "abc", {"m": (np.eye(3), [None, {"a": 1.0}, None]), "n": (np.eye(3), [None, None, {"b": 1.0}])}
    )
    assert view.at == 1 and view.data["can"] == [False, True, True]
    assert mask_view("abc", {"m": (np.eye(3), None)}).data["can"] == [True] * 3


@pytest.mark.parametrize(
    "tokens, models, words",
    [
        ("ab", {}, r"no model to show: give \{name: \(sight, gaps\)\}"),
        ("ab", {"m": (np.eye(3), None)}, r"m: sight \[3, 3\] and 0 gaps, but 2 tokens: give a row, a column"),
        ("ab", {"m": (np.eye(2), [None])}, r"m: sight \[2, 2\] and 1 gaps, but 2 tokens"),
        ("ab", {"m": (np.eye(2), [None, None])}, "no gap has candidates"),
        ("ab", {"m": (np.eye(2), [{"a": 0.8, "b": 0.4}, None])}, "in the place of 'a': probabilities must"),
        (
            "ab",
            {"m": (np.eye(2), [{"a": np.nan}, None])},
            "in the place of 'a': probabilities must be at least 0",
        ),
        ("", {"m": (np.eye(0), None)}, "zero tokens"),
    ],
)
def test_mask_refuses_what_does_not_fit(tokens, models, words):
    with pytest.raises(ValueError, match=words):
        mask_view(tokens, models)


# --- decoding and beams ---------------------------------------------------------------------------------------------


def test_decoding_shows_whole_distributions_the_likeliest_first():
    view = decoding_view([("x", {"a": 0.25, "b": 0.75}), ("y", {f"t{i}": 0.001 for i in range(900)})])
    assert view.data["candidates"][0] == [["b", 0.75], ["a", 0.25]] and len(view.data["candidates"][1]) == 900
    assert (view.k, view.p, view.min_p, view.temperature) == (900, 1.0, 0.0, 1.0)


@pytest.mark.parametrize("p", [{"a": 0.8, "b": 0.4}, {"a": -0.1}, {"a": 0.0}, {"a": np.nan}])
def test_decoding_refuses_what_is_no_distribution(p):
    with pytest.raises(ValueError, match="after 'the': give at most 5,000 probabilities, none below 0"):
        decoding_view([("the", p)])


@pytest.mark.parametrize("searches", [{}, {1: []}, {2: [[]]}])
def test_beams_need_a_step(searches):
    with pytest.raises(ValueError, match="a search without steps or beams"):
        beams_view("x", searches)


# --- bias -------------------------------------------------------------------------------------------------------------

MARK = dict(at=1.0, low=0.5, high=1.5, p=0.01, points=[0.5, 1.5])


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
        ({"one": {"a": {"at": 1.0}}}, "lacks high, low, p, points"),
        ({"one": {"a": MARK | {"low": 2.0}}}, "give finite numbers, and low at most high"),
        ({"one": {"a": MARK | {"points": [float("nan")]}}}, "give finite numbers"),
    ],
)
def test_what_bias_view_refuses(models, said):
    with pytest.raises(ValueError, match=said):
        bias_view(models, "nats", "0: equal")


# --- grid -----------------------------------------------------------------------------------------------------------


def test_a_grid_starts_at_its_largest_number():
    view = grid_view([[0.1, -3], [2.00004, 0]], "ab", ["x", " y"], labels=[["1", "2"], ["3", "4"]])
    assert (view.row, view.column) == (1, 0) and view.data["values"] == [[0.1, -3.0], [2.0, 0.0]]
    assert view.data["labels"] == [["1", "2"], ["3", "4"]] and view.data["tips"] is None


@pytest.mark.parametrize(
    "given, words",
    [
        (
            dict(values=np.eye(3)),
            r"values \[3, 3\] for 2 rows and 2 columns: give a finite number for each cell",
        ),
        (dict(values=[[1, np.nan], [0, 0]]), "give a finite number for each cell"),
        (dict(values=np.eye(2), labels=[["a", "b"]]), "labels has 1 rows, expected 2 with 2 texts each"),
        (dict(values=np.eye(2), tips=[["a"], ["b"]]), "tips has 2 rows, expected 2 with 2 texts each"),
    ],
)
def test_a_grid_refuses_what_does_not_fit(given, words):
    with pytest.raises(ValueError, match=words):
        grid_view(rows="ab", columns="cd", **given)
