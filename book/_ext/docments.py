"""Sphinx extension: the comments beside parameters become the parameter list of the API pages.

    def scale(x: float,  # the number
              by: float = 2.0,  # the factor
    ) -> float:  # x·by

reads as `:param x:`, `:param by:` and `:returns:`, each with its type as literal text. So a jaxtyping shape
stands
there as it was written, and Sphinx has no reference to resolve. Docstrings are plain text, `code` in
backticks; a line that begins with
`Raises:` or `Source:` is a paragraph of its own, and what begins with `>>>` is an example.
"""

import ast
import inspect
import re
import textwrap

from fastcore.docments import docments


def plain(text: str) -> str:
    "Text with `code` in single backticks, as reStructuredText that means just that."
    parts = re.split(r"(`+)(.+?)\1", text)  # outside, ticks, inside, outside, …
    outside = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[::3]]
    return outside[0] + "".join(
        f"{literal(code)}{rest}" for code, rest in zip(parts[2::3], outside[1:], strict=True)
    )


LABEL = re.compile(r"(Shapes?|Units?|Raises|Sources?|Example): ")


def paragraphs(lines: list[str]) -> list[str]:
    "A docstring as reStructuredText: labelled lines are paragraphs, examples stay as they are."
    written, example = [], False
    for line in lines:
        inside, example = example, line.startswith(">>>") or example and bool(line.strip())
        if example:
            written += [line] if inside else ["", line]
        elif label := LABEL.match(line):
            written += ["", f"**{label[1]}:** {plain(line[label.end() :])}"]
        else:
            written.append(plain(line))
    return written


def literal(code: str) -> str:
    "A reStructuredText literal; the escapes keep it one beside letters, and vanish."
    return rf"\ ``{' '.join(code.split())}``\ "


def annotations(obj) -> dict[str, str]:
    "Every annotated parameter (or dataclass field) with its type as it stands in the source; `return` too."
    source = textwrap.dedent(inspect.getsource(obj))
    node, text = ast.parse(source).body[0], lambda part: ast.get_source_segment(source, part)
    if isinstance(node, ast.ClassDef):
        return {n.target.id: text(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign)}
    args = node.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    found = {arg.arg: text(arg.annotation) for arg in every if arg is not None and arg.annotation}
    return found | ({"return": text(node.returns)} if node.returns else {})


def starred(obj, comments: dict) -> dict:
    "The comments of `*args` and `**kwargs`, which fastcore gives to what is returned where that has none."
    source = textwrap.dedent(inspect.getsource(obj))
    node, rows = ast.parse(source).body[0], source.splitlines()
    for arg in filter(None, (getattr(node, "args", None) and (node.args.vararg, node.args.kwarg)) or ()):
        said = rows[arg.lineno - 1].partition("#")[2].strip()
        if said and comments.get("return") == said:
            comments = comments | {arg.arg: said, "return": None}
    return comments


def fields(obj) -> list[str]:
    "The lines `:param …:` and `:returns:` of a function or class; none where nothing was written."
    if inspect.isclass(obj) and not hasattr(obj, "__dataclass_fields__"):
        obj = obj.__init__
    try:
        comments, types = starred(obj, docments(obj)), annotations(obj)
    except (
        OSError,
        TypeError,
        AttributeError,
    ):  # built in, inherited from C, a property: no source of its own
        return []
    lines = []
    for name, comment in comments.items():
        if name in ("self", "cls") or not (comment or types.get(name)) or types.get(name) == "None":
            continue
        head = ":returns:" if name == "return" else f":param {name}:"
        words = plain(" ".join((comment or "").split()))
        lines.append(" ".join(filter(None, [head, literal(types[name]) if name in types else "", words])))
    return lines


def process(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    "Rewrite one docstring in place, at Sphinx's request."
    inherited = inspect.isclass(obj) and not obj.__dict__.get("__doc__")
    doc = [] if inherited else paragraphs(lines)
    if (
        what == "class" and doc and doc[0].startswith(f"{obj.__name__}(")
    ):  # dataclass's own: repeats the signature
        doc = []
    obj = inspect.unwrap(getattr(obj, "__func__", obj)) if callable(obj) and not inspect.isclass(obj) else obj
    wanted = fields(obj) if what in ("function", "method", "class") else []
    lines[:] = [*doc, "", *wanted, ""]


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
