"""The cells of the exercises in the lessons, in step with `llmlab.course`.

python tools/exercise_cells.py [NOTEBOOK …]     all lessons, or these

After a cell `exercise("attention.window")` stands the stub with its check. Exercises, judgements and a quiz
that a lesson does not show yet are put at the end of its section "Exercises".
"""

import hashlib
import json
import re
import sys
from pathlib import Path

from llmlab.course.practice import Exercise, chapter_exercises, chapter_questions

ROOT = Path(__file__).resolve().parent.parent
CARD = re.compile(r'exercise\("([a-z_]+\.[a-z0-9_]+)"\)')


def stub_source(exercise: Exercise) -> str:
    "The cell in which a learner writes."
    target = "answer"
    if found := re.search(r"^def (\w+)", exercise.stub, re.MULTILINE):
        target = found[1]
    gap = "\n\n\n" if found else "\n"
    return f'{exercise.stub}{gap}exercise("{exercise.name}").check({target})'


def code_cell(source: str) -> dict:
    "A code cell, whose id follows from its source's first use."
    key = hashlib.sha256(source.encode()).hexdigest()[:8]
    lines = source.splitlines(keepends=True)
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": key,
        "metadata": {},
        "outputs": [],
        "source": lines,
    }


def role(cell: dict, name: str) -> str:
    "What a cell is for an exercise: its symptom, its stub, or nothing."
    source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
    if source == symptom_source(name):
        return "symptom"
    return "stub" if f'exercise("{name}").check(' in source else ""


def symptom_source(name: str) -> str:
    "The cell that shows what a bug does."
    return f'exercise("{name}").show_symptom()'


def followers(exercise: Exercise, cells: list[dict]) -> list[dict]:
    "The cells after an exercise's card; those that the lesson has keep their ids."
    made = {"stub": code_cell(stub_source(exercise))}
    if exercise.bug:
        made = {"symptom": code_cell(symptom_source(exercise.name)), **made}
    there = {role(cell, exercise.name): cell for cell in cells}
    kept = {key: {k: there[key][k] for k in ("id", "metadata")} for key in made if key in there}
    return [cell | kept.get(key, {}) for key, cell in made.items()]


def with_exercises(cells: list[dict], chapter: str) -> list[dict]:
    "The cells of a lesson with a stub after each card, and with every exercise of its chapter."
    mine = {exercise.name: exercise for exercise in chapter_exercises(chapter)}
    wanted = [f'exercise("{name}")' for name in mine]
    wanted += [f'judge("{question.name}")' for question in chapter_questions(chapter, "judgement")]
    if any(chapter_questions(chapter, "quiz")):
        wanted.append(f'quiz("{chapter}")')
    sources = {"".join(cell["source"]).strip() for cell in cells}
    missing = [code_cell(source) for source in wanted if source not in sources]
    cells = [*cells]
    cells[end_of_exercises(cells) : end_of_exercises(cells)] = missing
    found = []
    for cell in cells:
        if any(role(cell, name) for name in mine):
            continue  # written anew below
        found.append(cell)
        card = CARD.fullmatch("".join(cell["source"]).strip())
        if card and card[1] in mine:
            found += followers(mine[card[1]], cells)
    return found


def end_of_exercises(cells: list[dict]) -> int:
    "Where the section of the exercises ends; a lesson without one ends there itself."
    headings = [n for n, cell in enumerate(cells) if "".join(cell["source"]).startswith("## ")]
    for place, n in enumerate(headings):
        if "".join(cells[n]["source"]).startswith("## Exercises"):
            return headings[place + 1] if place + 1 < len(headings) else len(cells)
    return len(cells)


def update(path: Path) -> bool:
    "Bring a lesson's exercises in step; whether that changed the file."
    book = json.loads(path.read_text(encoding="utf-8"))
    cells = with_exercises(book["cells"], path.stem.partition("_")[2])
    if cells == book["cells"]:
        return False
    book["cells"] = cells
    path.write_text(json.dumps(book, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return True


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    for path in paths:
        if update(path):
            print(f"{path.name}: exercises brought in step")


if __name__ == "__main__":
    main()
