"""Sphinx extension: the terms of book/glossary.yml as a page, and links both ways between it and the lessons.

`.. terms::` writes the page. In a lesson, each term of that lesson that stands in bold leads to its entry.
"""

import functools
from pathlib import Path

import yaml
from chapters import pages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

FILE = Path(__file__).resolve().parents[1] / "glossary.yml"
PAGE = "glossary"


@functools.cache
def terms() -> list[dict]:
    "The entries in the order of the alphabet."
    return sorted(
        yaml.safe_load(FILE.read_text(encoding="utf-8")), key=lambda entry: entry["term"].casefold()
    )


def anchor(entry: dict) -> str:
    return nodes.make_id(f"term-{entry['term']}")


def forms(entry: dict) -> list[str]:
    "A term and its other forms, as they are compared."
    return [form.casefold() for form in (entry["term"], *entry.get("also", []))]


class Terms(SphinxDirective):
    "The list of all terms, each with its definition and its lesson."

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FILE))
        listed = nodes.definition_list(classes=["llmlab-glossary"])
        for entry in terms():
            term = nodes.term("", entry["term"], ids=[anchor(entry)])
            other = [
                form for form in entry.get("also", []) if form.casefold() != f"{entry['term']}s".casefold()
            ]
            also = f" Also: {', '.join(other)}." if other else ""
            text, said = self.parse_inline(f"{entry['means']}{also} Chapter {entry['chapter']}."), []
            if isinstance(text, tuple):
                text, said = text
            definition = nodes.definition("", nodes.paragraph("", "", *text), *said)
            listed += nodes.definition_list_item("", term, definition)
        return [listed]


class LinkTerms(SphinxPostTransform):
    "Makes links of the terms that stand in bold in their lesson."

    default_priority = 6

    def run(self) -> None:
        page = {page: number for number, page in pages(list(self.env.all_docs)).items()}.get(self.env.docname)
        known = {form: entry for entry in terms() if entry["chapter"] == page for form in forms(entry)}
        home = self.app.builder.get_relative_uri(self.env.docname, PAGE) if known else ""
        for bold in [*self.document.findall(nodes.strong)]:
            entry = known.get(bold.astext().rstrip(".,:").casefold())
            if entry and not isinstance(bold.parent, nodes.reference):
                link = nodes.reference(
                    "", "", internal=True, refuri=f"{home}#{anchor(entry)}", classes=["llmlab-term"]
                )
                bold.parent.replace(bold, link)
                link += bold


def setup(app: Sphinx) -> dict:
    app.add_directive("terms", Terms)
    app.add_post_transform(LinkTerms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
