"Charts: distributions, texts cut into tokens, curves, beams and grids, and what each of them refuses."

import numpy as np
import pytest

from llmlab import beams_view, curves_view, decoding_view, grid_view, loss_view, next_token_view, tokens_view
from llmlab.figures.view import traits_json

# --- the next token -----------------------------------------------------------------------------------------


def test_next_token_shows_the_twenty_likeliest_in_order():
    p = {f"t{i}": (i + 1) / 1000 for i in range(40)}
    (shown,) = next_token_view([("context", p)]).data["candidates"]
    assert [token for token, _ in shown] == [f"t{i}" for i in range(39, 19, -1)]
    assert shown[0][1] == pytest.approx(0.04)


@pytest.mark.parametrize("p", [{"a": 0.7, "b": 0.7}, {"a": -0.1}, {"a": float("nan")}, {}])
def test_next_token_refuses_what_is_no_distribution(p):
    with pytest.raises(
        ValueError, match="after 'the': probabilities must be at least 0 and sum to at most 1"
    ):
        next_token_view([("the", p)])


def test_a_table_shows_the_numbers_of_the_figure():
    kept = next_token_view([("the", {" cat": 0.25})]).still()["text/html"]
    assert "<td>·cat</td><td>0.25</td>" in kept


# --- decoding and beams -------------------------------------------------------------------------------------


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


# --- steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [next_token_view, tokens_view])
def test_zero_steps_are_refused(draw):
    with pytest.raises(ValueError, match="zero tokens or steps"):
        draw([])


def test_a_text_of_a_hundred_thousand_tokens_is_refused():
    with pytest.raises(
        ValueError, match="100,000 tokens in one step, but a page shows 5,000 boxes: crop the text"
    ):
        tokens_view([("all", ["a"] * 100_000)])


def test_steps_may_come_from_a_generator():
    assert len(tokens_view((str(n), ["a"] * n) for n in (2, 1)).data["steps"]) == 2
    assert len(next_token_view((c, {"a": 1.0}) for c in "xy").data["contexts"]) == 2


# --- curves -------------------------------------------------------------------------------------------------


def test_curves_sort_their_points_and_leave_gaps():
    data = curves_view({"a": [(2, 1), (1, float("nan")), (3, float("inf"))]}).data
    assert data["series"]["a"] == [[1, None], [2, 1], [3, None]]
    assert curves_view({"a": np.array([[1, 2], [3, 4]])}).x == 3


def test_a_snapshot_may_be_text_and_matrix():
    shots = curves_view({"a": [(1, 2)]}, snapshots={1: ("said", [[0.5, 0.5]]), 0: "only"}).data["snapshots"]
    assert shots == [[0.0, ["only"]], [1.0, ["said", [[0.5, 0.5]]]]]


def test_loss_view_reads_the_rows_of_fit():
    history = [{"step": 1, "loss": 4.0, "lr": 0.1}, {"step": 2, "loss": 3.0, "valid": 3.5}]
    view = loss_view(history, {1: "xq", 2: "cat"}, {2: np.eye(2)})
    assert view.data["series"] == {"loss": [[1, 4], [2, 3]], "valid": [[2, 3.5]]} and view.x == 2
    assert view.data["snapshots"] == [[1, ["xq"]], [2, ["cat", [[1, 0], [0, 1]]]]]


@pytest.mark.parametrize("series", [{}, {"a": []}])
def test_curves_refuse_nothing(series):
    with pytest.raises(ValueError, match="a series has no points"):
        curves_view(series)


def test_curves_refuse_logarithms_of_zero():
    with pytest.raises(ValueError, match="a logarithmic axis has no place for numbers at or below 0"):
        curves_view({"a": [(0, 1), (1, 1)]}, log_x=True)
    with pytest.raises(ValueError, match="logarithmic"):
        curves_view({"a": [(0, -1), (1, 1)]}, log_y=True)
    curves_view({"a": [(0, 1), (1, 1)]}, log_y=True)


NAN, INF = float("nan"), float("inf")


def test_a_gap_is_drawn_where_y_or_a_cell_is_no_number():
    view = curves_view(
        {"a": [(1, 2.0), (2, NAN), (3, -INF), (4, 1e301), (5, 1.0)]}, snapshots={1: [[NAN, 0.5]]}
    )
    assert [y for _, y in view.data["series"]["a"]] == [2.0, None, None, None, 1.0]
    assert view.data["snapshots"] == [[1.0, [[[None, 0.5]]]]]
    assert "NaN" not in traits_json(view) and "Infinity" not in traits_json(view)


# --- grid ---------------------------------------------------------------------------------------------------


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
