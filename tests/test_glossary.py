"The glossary: each term once, with a definition, and in bold in the lesson that introduces it."

import json
import re

import glossary
import pytest
from conftest import ROOT

TERMS = glossary.terms()
LESSONS = {int(f.stem[:2]): f for f in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")}
PROSE = {
    number: "\n".join(
        "".join(c["source"]) for c in json.loads(f.read_text())["cells"] if c["cell_type"] == "markdown"
    ).casefold()
    for number, f in LESSONS.items()
}


def test_there_are_enough_and_each_is_there_once():
    assert len(TERMS) >= 120
    every = [form for entry in TERMS for form in {*glossary.forms(entry)}]
    assert len(every) == len({*every}), {form for form in every if every.count(form) > 1}
    assert len({glossary.anchor(entry) for entry in TERMS}) == len(TERMS)


@pytest.mark.parametrize("entry", TERMS, ids=lambda entry: entry["term"])
def test_a_term_is_defined_in_a_sentence_and_bold_in_its_lesson(entry):
    assert len(entry["means"].split()) > 4 and entry["means"].rstrip(")").endswith(".")
    bold = {found.rstrip(".,:") for found in re.findall(r"\*\*([^*\n]+)\*\*", PROSE[entry["chapter"]])}
    assert bold & {*glossary.forms(entry)}, f"chapter {entry['chapter']} does not introduce {entry['term']}"
