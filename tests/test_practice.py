"Exercises called by name: known wrong answers, limits, progress, and faults in one's own code."

import http.server
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from functools import partial

import exercise_cells
import pytest
import torch
from conftest import ROOT

from llmlab.course import records
from llmlab.course.attempts import run_limited
from llmlab.course.comparing import difference
from llmlab.course.mutations import function_from, mutate
from llmlab.course.practice import (
    EXERCISES,
    FORGETFUL,
    QUESTIONS,
    TAMPERED,
    UNCHANGED,
    UNWRITTEN,
    Exercise,
    Question,
    course_chapters,
    exercise,
    judge,
    load_chapter,
    predict,
    quiz,
    source_of,
    verify,
)

for chapter in course_chapters():
    load_chapter(chapter)
COURSE = {name: found for name, found in EXERCISES.items() if not name.startswith("demo.")}
LESSONS = {path.stem.partition("_")[2]: path for path in (ROOT / "nbs").glob("[0-9]*.ipynb")}


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    "Each test keeps its progress in a folder of its own."
    monkeypatch.setenv("LLMLAB_PROGRESS", str(tmp_path / "progress.json"))


def double(**changed):
    "A small exercise, with some of its parts changed."
    parts = dict(minutes=3, difficulty=1, task="Write `double(x)`.", stub="def double(x): ...")
    made = Exercise("demo.double", "Double", **{**parts, "hints": ["a", "b", "c"], **changed})

    @made.cases
    def cases(seed):
        yield "the number 3", 3
        yield "the list [1, 2]", [1, 2]

    @made.solution
    def right(x):
        return x * 2

    @made.wrong("adds two", "That is two more, not twice as much.")
    def adds_two(x):
        return x + 2 if isinstance(x, int) else [*x, 2]

    return made


# --- every exercise of the course -------------------------------------------------------------------------


@pytest.mark.parametrize("name", COURSE)
def test_right_answers_pass_and_each_wrong_one_hears_its_own_message(name):
    assert not verify(COURSE[name])


@pytest.mark.parametrize("name", COURSE)
def test_an_exercise_is_whole(name):
    found = COURSE[name]
    assert len(found.wrongs) >= 5, "give at least five wrong answers that people really write"
    assert len(found.solutions) >= 2, "give two right answers of different style"
    assert len({wrong.idea for wrong in found.wrongs}) == len(found.wrongs), "each idea once"
    assert found.stub and found.task and all(found.hints)
    if found.bug:
        assert found.bug in {wrong.idea for wrong in found.wrongs}
    elif found.make_cases:
        assert "raise NotImplementedError" in found.stub
    else:
        assert found.stub.startswith("answer = ...")


@pytest.mark.parametrize("name", [n for n, e in COURSE.items() if any(w.mutation for w in e.wrongs)])
def test_each_mutation_turns_the_solution_into_its_wrong_answer(name):
    found = COURSE[name]
    for wrong in found.wrongs:
        if wrong.mutation:
            broken = mutate(source_of(found.solutions[0]), *wrong.mutation)
            assert broken, f"the pattern {wrong.mutation[0]!r} is not in the solution"
            heard = found.examine(function_from(broken, found.solutions[0])).message
            assert heard == wrong.message, f"{wrong.mutation} gives {heard!r}"


@pytest.mark.parametrize("name", [n for n, e in COURSE.items() if e.bug])
def test_the_stub_of_a_hunt_holds_its_bug(name):
    found = COURSE[name]
    broken = function_from(found.stub, found.solutions[0])
    wrong = next(wrong for wrong in found.wrongs if wrong.idea == found.bug)
    assert found.examine(broken).message == wrong.message
    assert found.show_symptom().text != found._symptom(found.solutions[0])
    letter = next(letter for letter, idea in found._suspects().items() if idea == found.bug)
    found.fault = None
    assert found.diagnose(letter) and not found.diagnose("A" if letter != "A" else "B")


def test_the_unchanged_stub_is_no_attempt(tmp_path):
    found = exercise("causal.bug_softmax")
    path = tmp_path / "mine.py"
    path.write_text("import torch\n" + found.stub)
    spec = importlib.util.spec_from_file_location("mine", path)
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    assert found.check(mine.next_token_loss).message == UNCHANGED
    assert records.read_progress() == {}


@pytest.mark.parametrize("name", COURSE)
def test_no_message_or_hint_holds_the_solution(name):
    found = COURSE[name]
    code = source_of(found.solutions[0]).splitlines()
    lines = [line.strip() for line in code[1:] if len(line.strip()) > 25]
    said = "\n".join([found.task, found._repr_html_(), *(w.message for w in found.wrongs)])
    whole = [line for line in lines if line in said]
    assert len(whole) < max(1, len(lines)), f"the card gives the answer away: {whole}"


@pytest.mark.parametrize("name", [n for n in QUESTIONS if not n.startswith("demo.")])
def test_a_question_gives_a_reason_for_each_choice(name):
    question = QUESTIONS[name]
    assert len(question.choices) >= 2 and all(len(reason) > 10 for reason in question.choices.values())


@pytest.mark.parametrize("chapter", course_chapters())
def test_exercises_belong_to_a_lesson(chapter):
    assert chapter in LESSONS
    names = [*COURSE, *(n for n in QUESTIONS if not n.startswith("demo."))]
    assert {name.partition(".")[0] for name in names} <= set(LESSONS)


@pytest.mark.parametrize("chapter", course_chapters())
def test_a_chapter_has_something_to_write_to_measure_to_judge_and_a_quiz(chapter):
    mine = [found for name, found in COURSE.items() if name.partition(".")[0] == chapter]
    kinds = [q.kind for name, q in QUESTIONS.items() if name.partition(".")[0] == chapter]
    assert len(mine) >= 4 and len({found.difficulty for found in mine}) >= 2
    assert any(found.make_cases is None for found in mine), "one that changes an experiment and reads a value"
    assert "judgement" in kinds and kinds.count("quiz") >= 3


def long_lines(code: str) -> list[str]:
    "The lines of a solution that are long enough to be its own."
    return [line.strip() for line in code.splitlines()[1:] if len(line.strip()) > 30]


@pytest.mark.parametrize("name", COURSE)
def test_no_answer_stands_in_its_lesson(name):
    cells = json.loads(LESSONS[name.partition(".")[0]].read_text("utf-8"))["cells"]
    lesson = "\n".join("".join(cell["source"]) for cell in cells)
    for solution in COURSE[name].solutions:
        lines = [line for line in long_lines(source_of(solution)) if line not in COURSE[name].stub]
        found = [line for line in lines if line in lesson]
        assert len(found) <= len(lines) / 2, f"the lesson gives the answer away: {found}"


@pytest.mark.parametrize("chapter", LESSONS)
def test_a_lesson_shows_every_exercise_of_its_chapter_with_its_stub(chapter):
    cells = json.loads(LESSONS[chapter].read_text("utf-8"))["cells"]
    assert exercise_cells.with_exercises(cells, chapter) == cells, "run python tools/exercise_cells.py"


@pytest.mark.parametrize("chapter", LESSONS)
def test_no_notebook_of_a_learner_holds_an_answer(chapter):
    lesson = LESSONS[chapter].read_text("utf-8")
    for word in ("answer=", "solution=", "Question(", ".wrong("):
        assert word not in lesson, f"{word} belongs into llmlab.course"


# --- what a learner may write -----------------------------------------------------------------------------


def never_ends(x):
    while True:
        try:
            pass
        except Exception:
            pass


def floods(x):
    while True:
        print("again and again " * 1000)  # long lines: the limit of length comes before that of time


def forks(x):
    return os.fork()


def keeps(x, seen=[]):  # noqa: B006 (this is the fault)
    seen.append(x)
    return x * 2 if len(seen) < 3 else 0


def changes(x):
    if isinstance(x, list):
        x.append(0)
        return [1, 2, 1, 2]
    return 2 * x


class EqualToAll:
    "An object that is equal to everything."

    def __eq__(self, other):
        return True


class EqualNumber(float):
    "A number that is equal to everything."

    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (never_ends, "is there a loop that never stops?"),
        (floods, "It printed more than 1,000,000 characters."),
        (forks, "an exercise needs no process of its own"),
        (lambda x: input("?"), "an exercise needs no process of its own and no input"),
        (lambda x: sys.exit(0), "raised `SystemExit`"),
        (lambda x: 1 / 0, "raised `ZeroDivisionError` in line 1 of your function: division by zero"),
        (lambda x: None, "does the function end in `return`?"),
        (lambda x: EqualToAll(), "it is a EqualToAll, expected a whole number"),
        (lambda x: EqualNumber(1), "it is a EqualNumber, expected a whole number"),
        (lambda x: torch.tensor(6), "take the number out with `.item()`"),
        (lambda x: x + 2 if isinstance(x, int) else x + [2], "That is two more, not twice as much."),
        (lambda x: [x], "For the number 3: look at what you return: it is a list, expected a whole number."),
        (changes, "For the list [1, 2]: your function changed its argument number 1"),
        (keeps, FORGETFUL),
        (None, "pass the function itself, without calling it"),
        (6, "You gave 6, but a function is checked here"),
    ],
)
def test_whatever_a_learner_writes_is_a_result(attempt, words):
    result = double().check(attempt)
    assert not result and words in result.message


def test_what_was_not_written_is_no_attempt():
    def unwritten(t, n):
        raise NotImplementedError

    course = exercise("attention.window")
    assert course.check(unwritten).message == UNWRITTEN
    assert records.read_progress() == {}


def test_output_is_shown_with_the_result():
    def talks(x):
        print("hello")
        return x * 2

    result = double().check(talks)
    assert result and result.output == "hello\nhello\n" and "hello" in result._repr_html_()


def test_the_kernels_random_numbers_go_on_as_before():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    double().check(lambda x: torch.rand(1) * 0 + x * 2)
    run_limited(lambda: torch.manual_seed(99))
    assert torch.equal(torch.rand(1), expected)


def test_a_check_works_in_a_thread_of_the_kernel():
    found = []
    thread = threading.Thread(target=lambda: found.append(double().check(lambda x: x * 2)))
    thread.start()
    thread.join()
    assert found[0], "signals work in the main thread only, and we need none"


def test_who_changes_what_the_check_stands_on_passes_nothing(monkeypatch):
    monkeypatch.setattr("llmlab.course.practice.difference", lambda *args: "")
    assert double().check(lambda x: "anything").message == TAMPERED


def test_a_patched_torch_is_noticed(monkeypatch):
    monkeypatch.setattr(
        torch, "isclose", lambda found, *args, **more: torch.ones_like(found, dtype=torch.bool)
    )
    found = exercise("attention.masked").check(lambda q, k, v, mask: torch.zeros(len(q), v.shape[1]))
    assert not found and found.message == TAMPERED


def test_a_capstone_is_scored_on_data_that_nobody_has_seen():
    found = exercise("ngrams.capstone")
    assert found._on_hidden_seeds(found.solutions[1]).message == "Right, also on 5 of 5 hidden seeds."
    known = {tuple(given): found.solutions[0](*given) for _, *given in found.make_cases(0)}

    def hard_wired(train, test, merges):
        return known.get((train, test, merges), 0.0)

    refused = found.check(hard_wired)
    assert not refused and "but only on 0 of 5 hidden seeds. For a made-up text" in refused.message


def test_forbidden_names_are_found_in_inner_functions_too():
    made = double(forbidden={"sorted": "Leave sorted out."})
    assert made.check(lambda x: (lambda: sorted(x))() or x).message == "Leave sorted out."


# --- comparing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (True, 1, "expected a whole number"),
        (1, True, "expected True or False"),
        (0.5, 1, "it is a number, expected a whole number"),
        ((1, 2), [1, 2], ""),
        ([1, 2], [1, 2, 3], "it has 2 items, expected 3"),
        ({"a": 1}, {"a": 1, "b": 2}, "the key 'b' is missing"),
        ({"a": 1, "b": 2}, {"a": 1}, "the key 'b' should not be there"),
        (float("nan"), 1.0, "it is nan, expected 1"),
        (1.00001, 1.0, ""),
        (torch.ones(2), torch.ones(2, 1), "its shape is [2], expected [2, 1]"),
        (torch.ones(2), torch.ones(2).bool(), "it holds fractions (torch.float32), expected True and False"),
        (torch.ones(2, dtype=torch.float64), torch.ones(2), ""),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "entry [1] is nan, expected 1"),
        ({1, 2}, {1, 3}, "it is {1, 2}, expected {1, 3}"),
        ("a", "b", "it is 'a', expected 'b'"),
    ],
)
def test_a_difference_is_one_sentence(found, expected, words):
    said = difference(found, expected)
    assert words in said and bool(said) == bool(words)


# --- by name ----------------------------------------------------------------------------------------------


def test_a_name_that_does_not_exist_is_met_with_names_like_it():
    with pytest.raises(
        ValueError, match="there is no exercise 'attention.windw': did you mean attention.window"
    ):
        exercise("attention.windw")
    with pytest.raises(ValueError, match="there is no question"):
        predict("nowhere.nothing")
    with pytest.raises(ValueError, match="3 is no name"):
        inspect.unwrap(exercise)(3)
    with pytest.raises(ValueError, match="the chapter 'nowhere' has no quiz"):
        quiz("nowhere")


def test_a_question_opens_on_right_or_wrong_without_a_script():
    markup = judge("attention.explains")._repr_html_()
    assert markup.count("<details") == 3 and markup.count("✓ Right. ") == 1 and "<script" not in markup
    with pytest.raises(ValueError, match="the answer '3' of demo.q is none of the choices"):
        Question("demo.q", "How many?", {"1": "Too few.", "2": "Indeed."}, "3")


def test_text_is_escaped():
    made = double(task="<b>&", hints=["<u>", "<s>", "<i>"], specification="a < b")
    markup = made._repr_html_()
    assert not any(tag in markup for tag in ("<b>&", "<u>", "<s>", "<i>")) and "a &lt; b" in markup


@pytest.mark.parametrize("changed", [dict(difficulty=4), dict(minutes=0), dict(hints=["one"])])
def test_an_author_is_told_what_is_wrong(changed):
    with pytest.raises(ValueError, match="difficulty is 1, 2 or 3|give three"):
        double(**changed)


def test_verify_finds_what_is_wrong():
    made = double()

    @made.wrong("adds one twice", "Count again.")
    def adds_one_twice(x):
        return x + 1 + 1 if isinstance(x, int) else [*x, 2]

    assert "the answer that adds one twice hears 'That is two more" in verify(made)[0]

    @made.wrong("answers three", "Count again.")
    def three(x):
        return 3

    assert "two wrong answers have one message: give each its own" in verify(made)
    made.solutions.append(lambda x: x)
    assert "is refused" in "\n".join(verify(made))


# --- hints, solution, faults ------------------------------------------------------------------------------


def test_the_solution_waits_for_an_attempt():
    found = exercise("attention.window")
    assert "Try it first" in found.show_solution().text
    assert "triu" in found.show_solution(insist=True).text
    found.check(lambda t, n: torch.ones(t, t))
    assert found.show_solution().text.startswith("def window_mask(t, n):")


def test_hints_come_one_after_the_other():
    found = double()
    assert [found.show_hint().text[:6] for _ in range(4)] == ["Hint 1", "Hint 2", "Hint 3", "Hint 1"]


def my_window(t, n):
    rows = torch.ones(t, t, dtype=torch.bool)
    return rows.tril().triu(1 - n)


def test_a_fault_is_put_into_the_learners_own_code():
    found = exercise("attention.window")
    found.passed = found.fault = None
    assert "Pass the check first" in found.break_it().text
    assert "Nothing is broken yet" in found.diagnose("A").message
    assert found.check(my_window)
    card = found.break_it()
    assert found.fault.idea == "lets one token too many in" and "before" in card.text
    letters = found._suspects()
    right = next(letter for letter, idea in letters.items() if idea == found.fault.idea)
    assert found.diagnose(right) and not found.diagnose(next(k for k in letters if k != right))
    assert "is none of the letters" in found.diagnose("?").message


# --- progress ---------------------------------------------------------------------------------------------


def test_only_the_learners_own_code_counts():
    found = exercise("attention.window")
    found.check(found.solutions[0])
    assert "passed" not in records.read_progress()["attention.window"]
    found.check(my_window)
    assert records.read_progress()["attention.window"]["passed"]


def test_a_damaged_file_is_put_aside_and_never_lost():
    records.progress_path().write_text("[1, 2")
    with pytest.warns(UserWarning, match="was damaged: it now stands in"):
        records.note_attempt("attention.window")
    aside = next(records.progress_path().parent.glob("progress.json.damaged-*"))
    assert aside.read_text() == "[1, 2" and records.tried("attention.window")


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMLAB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    with pytest.warns(UserWarning, match="could not be written|cannot be read"):
        assert exercise("attention.window").check(my_window)


def test_two_kernels_lose_nothing():
    code = "from llmlab.course.records import note_attempt\nfor _ in range(20): note_attempt('a.b')"
    kernels = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [kernel.wait() for kernel in kernels] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json.loads(records.progress_path().read_text()) == {"a.b": {"attempts": 60}}


# --- on a page --------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    "A folder that is served, with the book's script for answers; its address."
    shutil.copy(ROOT / "book" / "_static" / "answers.js", tmp_path)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_page(folder, *shown):
    "A page with the script and some cards."
    script = '<!doctype html><meta charset="utf-8"><script type="module" src="answers.js"></script>'
    (folder / "page.html").write_text(script + "".join(shown), "utf-8")


@pytest.mark.slow
def test_hints_open_one_inside_the_other_without_javascript(browser, site, tmp_path):
    found = exercise("attention.window")
    write_page(tmp_path, found._repr_html_())
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/page.html")
    last = page.get_by_text("keeps the entries")
    for number in (1, 2, 3):
        assert not last.is_visible()
        page.get_by_text(f"Hint {number} of 3", exact=True).click()
    assert last.is_visible()
    assert "return causal_mask(t)" not in page.content(), "the solution is nowhere on the page"
    context.close()


@pytest.mark.slow
def test_the_first_choice_counts_and_the_browser_keeps_it(browser, site, tmp_path):
    names = "attention.fits attention.masked_share"
    table = f'<span class="llmlab-answers" data-names="{names}">2 questions</span>'
    write_page(tmp_path, predict("attention.fits")._repr_html_(), table)
    page = browser.new_context().new_page()
    page.goto(f"{site}/page.html")
    count = page.locator(".llmlab-answers")
    assert count.text_content() == "2 questions, none answered yet"
    page.get_by_text("sat", exact=True).last.click()
    page.get_by_text("cat", exact=True).last.click()
    page.wait_for_function("localStorage.getItem('llmlab-answers')")
    page.reload()
    assert count.text_content() == "0 right at once, 1 of 2 answered"
    page.context.close()
