"Exercises: what a check says, what shows, and that every exercise of the course verifies itself."

import ast
import json

import pytest
from conftest import ROOT

from llmlab.course.exercises import Exercise, predict

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


def check_double(double):
    assert double(2) == 4, "Two twos are four: look at the factor."


def exercise(**changed):
    "An exercise, with some of its parts changed."
    parts = dict(title="Double", minutes=3, difficulty=2, task="Write `double(x)`.", check=check_double)
    rest = dict(hints=["Multiply.", "By two."], solution="def double(x):\n    return 2 * x")
    return Exercise(**{**parts, **rest, **changed})


def test_a_right_attempt_passes_and_a_wrong_one_hears_what_to_look_at():
    right, wrong = exercise().check(lambda x: x + x), exercise().check(lambda x: x * 3)
    assert right and repr(right).startswith("✓ ")
    assert not wrong and repr(wrong).startswith("✗ Two twos are four: look at the factor.")
    assert 'role="status"' in wrong._repr_html_() and "Two twos" in wrong._repr_html_()


def test_whatever_goes_wrong_is_a_result():
    def unwritten(x):
        raise NotImplementedError

    assert "Nothing written yet" in exercise().check(unwritten).message
    assert (
        exercise().check(lambda x: 1 / 0).message == "Your code raised `ZeroDivisionError`: division by zero"
    )
    assert "TypeError" in exercise().check(None).message
    assert "no message" in exercise(check=lambda f: (_ for _ in ()).throw(AssertionError)).check(0).message


def test_verify_passes_a_right_solution_and_refuses_a_wrong_one():
    exercise().verify()
    exercise(solution="double = lambda x: 2 * x").verify()
    with pytest.raises(
        AssertionError, match="the solution of 'Double' fails its own check: Two twos are four"
    ):
        exercise(solution="def double(x):\n    return 3 * x").verify()


def test_a_solution_may_use_helpers_and_the_chapters_names():
    exercise(
        solution="def two():\n    return len(NOTEBOOKS) * 0 + 2\n\ndef double(x):\n    return two() * x"
    ).verify()


def test_a_solution_must_end_in_what_is_checked():
    with pytest.raises(
        ValueError, match="the solution ends in Expr: end it in the function or the assignment"
    ):
        exercise(solution="def double(x):\n    return 2 * x\ndouble(2)").verify()


@pytest.mark.parametrize("changed", [dict(difficulty=4), dict(difficulty=0), dict(minutes=0)])
def test_difficulty_and_minutes_are_checked(changed):
    with pytest.raises(ValueError, match="difficulty is 1, 2 or 3, and minutes are positive"):
        exercise(**changed)


def test_hints_open_one_inside_the_other_and_the_solution_last():
    markup = exercise()._repr_html_()
    parts = ("Double", "3 min", "Write <code>double(x)</code>", "Hint 1 of 2", "Hint 2 of 2", "Solution")
    places = [markup.index(part) for part in parts]
    assert places == sorted(places) and markup.count("<details") == 3
    assert markup.index("</details>") > markup.index("return 2 * x"), (
        "nested: no details closes before the solution"
    )


def test_text_is_escaped():
    markup = exercise(task="<b>&", title="<i>", hints=["<u>"], solution='x = "<s>"')._repr_html_()
    assert not any(tag in markup for tag in ("<b>&", "<i>", "<u>", "<s>")) and "&lt;b&gt;&amp;" in markup
    assert "<script" not in predict("<script>", {"<script>": "<script>"}, answer="<script>")._repr_html_()


def test_predict_says_right_and_wrong_with_reasons():
    card = predict("How many?", {"1": "Too few.", "2": "Indeed."}, answer="2")
    markup = card._repr_html_()
    assert "✗ Not this one. Too few." in markup and "✓ Right. Indeed." in markup
    assert "onclick" not in markup and "<script" not in markup
    assert repr(card) == "Predict: How many?\n  ( ) 1\n  ( ) 2"
    with pytest.raises(ValueError, match=r"the answer '3' is none of the choices \['1', '2'\]"):
        predict("How many?", {"1": "", "2": ""}, answer="3")


# --- the course ---------------------------------------------------------------------------------------------


def made_and_verified(cells):
    "Names of the exercises that cells make, and of those that they verify."
    tree = ast.parse("\n".join(cells))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    verified = {ast.unparse(call.func.value) for call in calls if getattr(call.func, "attr", "") == "verify"}
    exercises = [call for call in calls if getattr(call.func, "id", "") == "Exercise"]
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and node.value in exercises]
    return {ast.unparse(node.targets[0]) for node in named}, verified, len(exercises) - len(named)


def code(path):
    "Code cells without their directives and magics; hidden ones included, exported ones not."
    cells = [
        "".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"
    ]
    kept = [
        c
        for c in cells
        if "#| export" not in c and not c.lstrip().startswith("%%") and "get_ipython" not in c
    ]
    return [
        "\n".join(line for line in c.split("\n") if not line.lstrip().startswith(("%", "!"))) for c in kept
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[f.stem for f in NOTEBOOKS])
def test_every_exercise_of_a_chapter_is_verified_where_it_stands(path):
    made, verified, anonymous = made_and_verified(code(path))
    made -= {"weak"}  # chapter 91 shows what a weak check lets through
    assert not anonymous, "give the exercise a name and verify it in a hidden cell: name.verify()"
    assert made <= verified, f"add a hidden cell with {sorted(made - verified)}.verify()"


def test_the_finder_finds():
    assert made_and_verified(["a = Exercise(1)", "a.verify()", "b = Exercise(2)"]) == ({"a", "b"}, {"a"}, 0)
    assert made_and_verified(["Exercise(1)"]) == (set(), set(), 1)
