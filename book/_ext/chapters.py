"""Sphinx extension: where a page says "chapter 5" or "chapters 5 and 6", the number leads to that chapter.

A notebook says the number and no more, as a book on paper does; files carry it too (`05_attention.ipynb`). So
a mention needs no address, and a chapter that does not exist is a warning.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
MENTION = re.compile(r"\b[Cc]hapters?\s(\d+(?:(?:,\s(?:and\s)?|\sand\s|\sto\s|–)\d+)*)\b")


def pages(names: list[str]) -> dict[int, str]:
    "{number: page} of the lessons among the names of pages."
    numbered = (re.fullmatch(r"(\d+)_\w+", name) for name in names)
    return {int(found[1]): found[0] for found in numbered if found}


def mentions(text: str) -> list[tuple[int, int]]:
    "Where the numbers of chapters stand in a text: (start, end) of each; the first includes the word."
    found = []
    for mention in MENTION.finditer(text):
        numbers = [
            (mention.start(1) + n.start(), mention.start(1) + n.end())
            for n in re.finditer(r"\d+", mention[1])
        ]
        found += [(mention.start(), numbers[0][1]), *numbers[1:]]
    return found


class LinkChapters(SphinxPostTransform):
    "Makes links of the mentions that are none yet."

    default_priority = 5  # before references are resolved

    def run(self) -> None:
        known = pages(list(self.env.all_docs))
        outside = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.math)
        for text in [*self.document.findall(nodes.Text)]:
            if not MENTION.search(text) or any(isinstance(p, outside) for p in parents(text)):
                continue
            parts, end = [], 0
            for start, stop in mentions(text):
                number = int(re.search(r"\d+$", text[start:stop])[0])
                if number not in known:
                    LOGGER.warning("chapter %s is mentioned, and there is none", number, location=text.parent)
                    continue
                parts += [nodes.Text(text[end:start]), self.link(known[number], text[start:stop])]
                end = stop
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])

    def link(self, page: str, said: str) -> nodes.reference:
        uri = self.app.builder.get_relative_uri(self.env.docname, page)
        return nodes.reference("", said, internal=True, refuri=uri)


def parents(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def setup(app: Sphinx) -> dict:
    app.add_post_transform(LinkChapters)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
