"Needs, wishes and tipping points against brute force; intervals against their definition; error texts."

import csv
import math

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmlab import choosing, sheets, tables
from llmlab.choosing import (
    Requirements,
    decision_matrix,
    eligible_models,
    ranking,
    sign_test,
    tipping_points,
    wilson_interval,
    win_shares,
)
from llmlab.cost import parameters_by_part
from llmlab.tables import published_configs

MODELS = tables.read_candidates()
HAND = decision_matrix({"a": {"x": 0, "y": 3}, "b": {"x": 10, "y": 1}, "c": {"x": 5, "y": 1}})


# --- the table ----------------------------------------------------------------------------------------------


def test_every_candidate_has_a_shape_a_source_and_a_date():
    for name, row in MODELS.items():
        assert (
            sum(parameters_by_part(published_configs()[name]).values()) > 1e8
            and row["source"]
            and row["date"] == "2024-12"
        )
        assert {"en"} <= row["languages"] and all(0 < row[c] < 100 for c in tables.BENCHMARKS)


def test_the_readers_own_table_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        (ROOT / "llmlab/data/model_choices.csv").read_text() + "Mine,MIT,free,en,1,2,3,4,me,2026\n"
    )
    assert tables.read_candidates(path)["Mine"]["maths"] == 2.0


# --- needs --------------------------------------------------------------------------------------------------


def test_needs_by_hand():
    assert list(eligible_models(MODELS, Requirements(gpu="T4 16GB", context=8192, use=("free",)))) == [
        "Qwen2.5 0.5B",
        "Qwen2.5 1.5B",
        "Phi-3.5 mini",
    ]
    assert "Qwen2.5 3B" in eligible_models(MODELS, Requirements(use=("research", "free")))
    assert "Llama 3.1 405B" in eligible_models(MODELS, Requirements(gpu="H100 80GB", gpus=12, context=8192))
    llama = MODELS["Llama 3.1 8B"]
    assert choosing.unmet_requirements("Llama 3.1 8B", llama, Requirements(languages=("zh", "en"))) == [
        "does not list zh"
    ]


@settings(deadline=None)
@given(st.sampled_from(["bf16", "int8", "int4"]), st.integers(1, 131072), st.integers(1, 16))
def test_a_stricter_need_never_lets_more_in(dtype, context, gpus):
    def names(need):
        return {name for name, row in MODELS.items() if not choosing.unmet_requirements(name, row, need)}

    need = Requirements(gpu="H100 80GB", gpus=gpus, dtype=dtype, context=context)
    assert names(need) <= names(need._replace(gpus=gpus + 1)) <= names(need._replace(gpu=None))
    assert names(need) <= names(need._replace(context=1))
    assert names(need._replace(languages=("en", "zh"))) <= names(need)


def test_an_unknown_shape_is_an_objection_only_where_memory_matters():
    row = MODELS["Qwen2.5 7B"]
    assert choosing.unmet_requirements("other", row, Requirements()) == []
    assert "its shape is unknown" in choosing.unmet_requirements("other", row, Requirements(gpu="T4 16GB"))[0]


# --- wishes -------------------------------------------------------------------------------------------------


def test_a_matrix_by_hand():
    assert HAND.values.tolist() == [[0, 1], [1, 0], [0.5, 0]]
    assert ranking(HAND, {"x": 1, "y": 3}) == {"a": 0.75, "b": 0.25, "c": 0.125}
    less = decision_matrix({"a": {"x": 1, "y": 5}, "b": {"x": 3, "y": 5}}, less=("x",))
    assert less.values.tolist() == [[1, 0], [0, 0]]


def test_tipping_points_by_hand():
    assert tipping_points(HAND, {"x": 1, "y": 3}) == {"x": [(3.0, "b")], "y": [(1.0, "b")]}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 4))
def test_tipping_points_against_brute_force(seed, n, k):
    rng = np.random.default_rng(seed)
    table = {f"m{i}": {f"c{j}": float(rng.random()) for j in range(k)} for i in range(n)}
    matrix, weights = decision_matrix(table), {f"c{j}": float(rng.random() + 0.1) for j in range(k)}
    winner = next(iter(ranking(matrix, weights)))
    for criterion, points in tipping_points(matrix, weights).items():
        low = max((p.weight for p in points if p.weight < weights[criterion]), default=0.0)
        high = min((p.weight for p in points if p.weight > weights[criterion]), default=50.0)
        for w in np.linspace(low, high, 9)[1:-1]:
            changed = weights | {criterion: float(w)}
            assert next(iter(ranking(matrix, changed))) == winner
        for point in points:
            step = 1e-6 if point.weight > weights[criterion] else -1e-6
            assume(point.weight + step >= 0 and k > 1)
            best = ranking(matrix, weights | {criterion: point.weight + step})
            assert best[point.winner] == pytest.approx(max(best.values()), abs=1e-5)
            assert best[point.winner] >= best[winner]


def test_win_shares_are_shares_and_find_a_dominant():
    matrix = decision_matrix({"best": {"x": 2, "y": 2}, "worst": {"x": 1, "y": 1}})
    assert win_shares(matrix) == {"best": 1.0}
    assert sum(win_shares(HAND).values()) == pytest.approx(1)
    assert win_shares(HAND)["a"] == pytest.approx(0.5, abs=0.02) and "c" not in win_shares(HAND)


# --- items --------------------------------------------------------------------------------------------------


def test_items_are_scored():
    items = [("a", "bb", "c"), ("a", "c", "bb"), ("a", "b", "c")]
    assert choosing.evaluate_choices(items, lambda start, ending: len(ending)).tolist() == [1.0, 0.0, 0.5]


def test_the_shipped_items_are_thirty_and_different():
    items = list(csv.DictReader((ROOT / "llmlab/data/thirty_items.csv").read_text().splitlines()))
    assert len({row["start"] for row in items}) == 30 and all(row["right"] != row["wrong"] for row in items)


def test_wilson_as_published_and_as_defined():
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3: 81/263, 15/148, 0/20, 1/29
    known = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}
    known |= {(0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (right, n), ends in known.items():
        assert wilson_interval(right, n) == pytest.approx(ends, abs=6e-5)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_wilson_ends_are_where_the_share_is_just_believable(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert 0 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        if 1e-9 < end < 1 - 1e-9:
            assert abs(right / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_sign_test_by_hand():
    assert sign_test(np.array([1, 1, 1, 1, 1, 0]), np.zeros(6)) == (5, 0, 2 / 32)
    assert sign_test(np.array([1, 0]), np.array([0, 1])) == (1, 1, 1.0)
    assert sign_test(np.ones(3), np.ones(3))[2] == 1.0


def test_a_card_says_all_and_asks_for_the_rest():
    row = MODELS["Qwen2.5 7B"]
    card = sheets.model_card(
        "Qwen2.5 7B", row, Requirements(gpu="T4 16GB"), {"code": 2}, {"own items": "24 of 30"}
    )
    for part in ("Apache-2.0", "T4 16GB", "code 2", "own items: 24 of 30", "arXiv:2412.15115", "2024-12"):
        assert part in card
    assert card.count("to fill in") == 3


def test_a_card_without_a_gpu_says_how_much_memory():
    row = MODELS["Qwen2.5 72B"]
    card = sheets.model_card("Qwen2.5 72B", row, Requirements(context=8192), {"code": 2}, {})
    size = 2 * 72_706_203_648 + 2 * 2 * 80 * 8 * 128 * 8192  # weights, then keys and values
    assert f"{size / 1e9:.0f} GB of GPU memory (3 × H100 80GB), bf16, 8,192 tokens" in card
    unknown = sheets.model_card("Mine", row, Requirements(), {"code": 2}, {})
    assert "any GPU" not in card and "GPU memory to fill in" in unknown
    assert sheets.hardware_summary("Qwen2.5 7B", Requirements()) == "15 GB of GPU memory (1 × H100 80GB)"
    assert sheets.hardware_summary("Qwen2.5 7B", Requirements(gpu="T4 16GB", gpus=2)) == "2 × T4 16GB"


# --- rented models ------------------------------------------------------------------------------------------

BY_HAND = tables.ApiModel("at will", 3, 15, (0.5, 2.0), (50.0, 100.0), "me", "2026")


def test_an_answer_by_hand():
    assert choosing.answer_price(BY_HAND, 1000, 200) == pytest.approx(0.003 + 0.003)
    assert choosing.answer_price(BY_HAND, 1000, 200, thought=1800) == pytest.approx(0.003 + 0.030)
    assert choosing.answer_seconds(BY_HAND, 200) == (0.5 + 2, 2 + 4)
    assert choosing.answer_seconds(BY_HAND._replace(speed=None), 200) is None


def test_rented_models_have_prices_and_ranges():
    for name, model in tables.read_api_models().items():
        assert model.thinks in ("no", "yes", "at will") and 0 < model.price_in < model.price_out, name
        assert all(low <= high for low, high in filter(None, (model.first, model.speed)))
    assert tables.read_api_models()["Claude Opus 5.5"].first is None


# --- errors -------------------------------------------------------------------------------------------------

ROW = {c: "1" for c in tables.COLUMNS}


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: tables.parse_candidates([]), "the table has no rows"),
        (
            lambda: tables.parse_candidates([{"name": "x"}]),
            "lacks the columns licence, use, languages, knowledge",
        ),
        (
            lambda: tables.parse_candidates([ROW | {"code": "good"}]),
            "1, code: 'good' is no number; write one, or drop",
        ),
        (lambda: tables.parse_candidates([ROW, ROW]), "1 stands twice in the table"),
        (
            lambda: eligible_models(MODELS, Requirements(languages=("tlh",))),
            "no model is left. .*does not list tlh.* Drop a need",
        ),
        (
            lambda: eligible_models(MODELS, Requirements(gpu="T4 16GB", context=10**8)),
            "no model is left. .*context ends at 32,768",
        ),
        (
            lambda: eligible_models(MODELS, Requirements(gpu="T5")),
            "no gpu 'T5' in the table: choose one of T4 16GB",
        ),
        (lambda: eligible_models(MODELS, Requirements(gpus=-1)), "gpus=-1: expected a number above 0"),
        (lambda: decision_matrix({"a": {"x": 1}}), "1 candidates over .* give at least 2"),
        (lambda: decision_matrix({"a": {"x": 1}, "b": {"y": 1}}), "each with the same criteria"),
        (lambda: decision_matrix({"a": {"x": 1}, "b": {"x": math.nan}}), "not a finite number: fill the gap"),
        (lambda: ranking(HAND, {"x": 1}), "give a number of at least 0 for each of x, y"),
        (lambda: ranking(HAND, {"x": -1, "y": 1}), "give a number of at least 0 for each of x, y"),
        (lambda: ranking(HAND, {"x": 0, "y": 0}), "not all 0"),
        (lambda: choosing.answer_price(BY_HAND, 0, 1), "read=0: expected a number above 0"),
        (lambda: choosing.answer_price(BY_HAND, 1, 1, thought=-1), "thought=-1: expected a number of tokens"),
        (lambda: choosing.answer_seconds(BY_HAND, math.nan), "written=nan: expected"),
        (lambda: choosing.evaluate_choices([], len), "no items: write at least one"),
        (lambda: wilson_interval(4, 3), "4 right of 3: expected a number from 0 to n"),
        (lambda: sign_test(np.ones(2), np.ones(3)), r"answers of shape \[2\] and \[3\]"),
    ],
)
def test_errors_say_what_to_do(call, text):
    with pytest.raises(ValueError, match=text):
        call()
