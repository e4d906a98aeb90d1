"""Sphinx extension: pages about the exercises.

`.. teachers-table::` writes, for each exercise, the wrong answers that its check tells apart; it shows no
solution. `.. answers-table::` writes a row a chapter, which answers.js fills with what the reader answered on
these pages.
"""

from itertools import groupby

from chapters import pages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llmlab.course.overview import course_exercises, teachers_table
from llmlab.course.practice import QUESTIONS


def table(heads: list[str], rows: list[list[nodes.Node]], widths: list[int]) -> nodes.table:
    "A table of cells that are made already."
    made = nodes.table(classes=["llmlab-teachers"])
    group = nodes.tgroup(cols=len(heads))
    made += group
    group += [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in heads))
    for row in rows:
        body += nodes.row("", *row)
    return made


class Inline(SphinxDirective):
    "A directive that writes sentences with `code` in them."

    def sentence(self, text: str) -> nodes.paragraph:
        found = nodes.paragraph()
        for place, part in enumerate(text.split("`")):
            if part:
                found += nodes.literal("", part) if place % 2 else nodes.Text(part)
        return found

    def lesson(self, chapter: str) -> nodes.paragraph:
        "The chapter's number and title as a link."
        found = pages(list(self.env.found_docs)).values()
        home = next(page for page in found if page.partition("_")[2] == chapter)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, home)
        said = f"Chapter {int(home.partition('_')[0])}: {chapter.replace('_', ' ')}"
        return nodes.paragraph("", "", nodes.reference("", said, internal=True, refuri=uri))


class TeachersTable(Inline):
    "What the check of each exercise tells apart."

    def run(self) -> list[nodes.Node]:
        rows = teachers_table()
        wrongs = sum(len(row.wrongs) for row in rows)
        rights = sum(row.solutions for row in rows)
        counted = (
            f"{len(rows)} exercises, {sum(row.minutes for row in rows) // 60} hours, {wrongs} known wrong"
        )
        parts = [nodes.paragraph("", f"{counted} answers and {rights} right ones.")]
        for chapter, group in groupby(rows, lambda row: row.name.partition(".")[0]):
            parts += [self.lesson(chapter), self.chapter(list(group))]
        return parts

    def chapter(self, rows: list) -> nodes.table:
        "The table of one chapter."
        lines = []
        for row in rows:
            facts = f"{row.minutes} min, difficulty {row.difficulty} of 3, {row.solutions} right answers"
            name = nodes.paragraph("", "", nodes.literal("", row.name))
            wrongs = nodes.bullet_list()
            for idea, message in row.wrongs.items():
                item = self.sentence(f"It {idea}. ")
                item += nodes.emphasis("", "", *self.sentence(message).children)
                wrongs += nodes.list_item("", item)
            first = nodes.entry("", name, self.sentence(row.title), nodes.paragraph("", facts))
            lines.append([first, nodes.entry("", wrongs)])
        return table(["Exercise", "A wrong answer, and what its author hears"], lines, [30, 70])


class AnswersTable(Inline):
    "A row a chapter with the names of its questions; answers.js fills in what the reader answered."

    def run(self) -> list[nodes.Node]:
        rows = []
        for chapter in course_exercises():
            names = [name for name in QUESTIONS if name.partition(".")[0] == chapter]
            fill = (
                f'<span class="llmlab-answers" data-names="{" ".join(names)}">{len(names)} questions</span>'
            )
            rows.append(
                [nodes.entry("", self.lesson(chapter)), nodes.entry("", nodes.raw("", fill, format="html"))]
            )
        return [table(["Chapter", "Your answers on these pages"], rows, [40, 60])]


def setup(app: Sphinx) -> dict:
    app.add_directive("teachers-table", TeachersTable)
    app.add_directive("answers-table", AnswersTable)
    app.add_js_file("answers.js", type="module")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
