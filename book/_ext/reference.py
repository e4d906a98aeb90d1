"""Sphinx extension: the reference is made of the public names, so none can be forgotten and none stands there twice.

A page of the reference is one directive, with a group of `llmlab.GROUPS`:

    .. public:: Scores
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import llmlab


def entries(group: str) -> list[str]:
    "The lines that document the names of a group, each from the module that defines it."
    lines = []
    for name, module in llmlab.GROUPS[group].items():
        thing = getattr(llmlab, name)
        lines += [f".. auto{'class' if isinstance(thing, type) else 'function'}:: llmlab.{module}.{name}"]
        lines += ["   :members:"] if isinstance(thing, type) else []
        lines += [""]
    return lines


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
        self.state.nested_parse(StringList(entries(group), source="llmlab.GROUPS"), 0, part)
        return part.children


def setup(app) -> dict:
    app.add_directive("public", Public)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
