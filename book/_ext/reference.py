"""Sphinx extension: the reference is made of the public names, so none can be forgotten and none stands there
twice.

A page of the reference is one directive, with a group of `llmlab.GROUPS`:

    .. public:: Scores

Each entry ends with links to the section of the notebook that defines the name and to its source.
"""

import ast
import functools
import inspect
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

import llmlab

NBS = Path(__file__).resolve().parents[2] / "nbs"


def defined(source: str) -> list[str]:
    "The names that an exported cell defines; none for any other cell."
    if not re.search(r"^#\|\s*export\b", source, re.M):
        return []
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


@functools.cache
def places() -> dict[str, tuple[str, str, str]]:
    "{public name: (page, title of the page, heading of its section)}."
    found = {}
    for path in sorted([*NBS.glob("*.ipynb"), *NBS.glob("workshop/*.ipynb")]):
        page, title, heading = path.relative_to(NBS).with_suffix("").as_posix(), "", ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                for level, text in re.findall(r"^(#+) (.+)$", source, re.M):
                    title, heading = (text, "") if level == "#" else (title, text)
            elif cell["cell_type"] == "code":
                found |= {name: (page, title, heading) for name in defined(source)}
    return found


def entry(name: str) -> list[str]:
    "The lines that document one public name, by the name that users import."
    if isinstance(getattr(llmlab, name), type):
        return [f".. autoclass:: llmlab.{name}", "   :members:", ""]
    return [f".. autofunction:: llmlab.{name}", ""]


class Public(SphinxDirective):
    "The names of one group."

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        group = self.arguments[0]
        if group not in llmlab.GROUPS:
            raise self.error(f"no group {group!r} in llmlab.GROUPS: it has {', '.join(llmlab.GROUPS)}")
        part = nodes.section()
        part.document = self.state.document
        for name in llmlab.GROUPS[group]:
            one = nodes.section()
            one.document = self.state.document
            self.state.nested_parse(StringList(entry(name), source="llmlab.GROUPS"), 0, one)
            content = next(one.findall(addnodes.desc_content))
            content += self.explained(name)
            part += one.children
        return part.children

    def explained(self, name: str) -> nodes.paragraph:
        "Where the name is explained, as a link."
        page, title, heading = places()[name]
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
        uri += f"#{nodes.make_id(heading)}" if heading else ""
        said = f"{title}: {heading}" if heading else title
        link = nodes.reference("", said, internal=True, refuri=uri)
        return nodes.paragraph("", "Explained in ", link, nodes.Text("."), classes=["llmlab-explained"])


def group_pages() -> dict[str, str]:
    "{group: the page that documents it}."
    found = {}
    for path in sorted((NBS / "api").glob("*.md")):
        if group := re.search(r"^\.\. public:: (.+)$", path.read_text(encoding="utf-8"), re.M):
            found[group[1]] = path.relative_to(NBS).with_suffix("").as_posix()
    return found


class PublicIndex(SphinxDirective):
    "All public names by group, each with its first sentence and a link to its entry."

    def run(self) -> list[nodes.Node]:
        parts, homes = [], group_pages()
        for group, names in llmlab.GROUPS.items():
            uri = self.env.app.builder.get_relative_uri(self.env.docname, homes[group])
            listed = nodes.definition_list(classes=["llmlab-index"])
            for name in names:
                link = nodes.reference(
                    "", "", nodes.literal("", name), internal=True, refuri=f"{uri}#llmlab.{name}"
                )
                sentence = inspect.getdoc(getattr(llmlab, name)).split("\n\n")[0].replace("\n", " ")
                definition = nodes.definition("", nodes.paragraph("", sentence.replace("`", "")))
                listed += nodes.definition_list_item("", nodes.term("", "", link), definition)
            title = nodes.reference("", group, internal=True, refuri=uri)
            parts += [nodes.paragraph("", "", nodes.strong("", "", title)), listed]
        return parts


def setup(app) -> dict:
    app.setup_extension("sphinx.ext.viewcode")  # the link to the source
    app.add_directive("public", Public)
    app.add_directive("public-index", PublicIndex)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
