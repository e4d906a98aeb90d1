"""Sphinx extension: the comments beside parameters become the parameter list of the API pages.

    def scale(x: float,  # the number
              by: float = 2.0,  # the factor
    ) -> float:  # x·by

reads as `:param x:`, `:param by:` and `:returns:`, each with its type as literal text. So a jaxtyping shape
stands there as it was written, and Sphinx has no reference to resolve. Docstrings are plain text, `code` in
backticks; a line that begins with `Raises:` or `Source:` is a paragraph of its own, and what begins
with `>>>` is an example.
"""

import ast
import inspect
import io
import re
import textwrap
import tokenize


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


def annotations(node: ast.AST, source: str) -> dict[str, str]:
    "Every annotated parameter (or dataclass field) with its type as it stands in the source; `return` too."
    types = {name: part.annotation for name, part, _ in parameters(node)}
    if isinstance(node, ast.FunctionDef):
        types["return"] = node.returns
    return {name: ast.get_source_segment(source, kind) for name, kind in types.items() if kind is not None}


def parameters(node: ast.AST) -> list[tuple[str, ast.AST, int]]:
    "Parameters of a function, or fields of a dataclass: (name, node, last line with its default)."
    if isinstance(node, ast.ClassDef):
        return [(n.target.id, n, n.end_lineno) for n in node.body if isinstance(n, ast.AnnAssign)]
    args = node.args
    plain_ones = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain_ones) - len(args.defaults)) + args.defaults
    pairs = [*zip(plain_ones, defaults, strict=True), (args.vararg, None)]
    pairs += [*zip(args.kwonlyargs, args.kw_defaults, strict=True), (args.kwarg, None)]
    return [(arg.arg, arg, (default or arg).end_lineno) for arg, default in pairs if arg is not None]


def comments(node: ast.AST, source: str) -> dict[str, str]:
    """What is written beside each parameter, or in lines of their own above it; `return` too.

    fastcore's docments does the same where a parameter has one line, but ruff breaks long ones into several.
    """
    written, code = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            written[token.start[0]] = token.string.lstrip("# ")
        elif token.string.strip():
            code |= set(range(token.start[0], token.end[0] + 1))
    returns = getattr(node, "returns", None)
    last = returns.end_lineno if returns else 0
    ends = {end: name for name, _, end in parameters(node)}  # of several on a line, the last one
    found = {"return": written.get(last, "")} if returns else {}
    for name, part, end in parameters(node):
        above = part.lineno - 1
        while above in written and above not in code:
            above -= 1
        own = [line for line in range(part.lineno, end + 1) if line != last and ends.get(line, name) == name]
        lines = [*range(above + 1, part.lineno), *own]
        found[name] = " ".join(written[line] for line in lines if line in written)
    return found


def fields(obj) -> list[str]:
    "The lines `:param …:` and `:returns:` of a function or class; none where nothing was written."
    if inspect.isclass(obj) and not hasattr(obj, "__dataclass_fields__"):
        obj = obj.__init__
    try:
        source = textwrap.dedent(inspect.getsource(obj))
    except (OSError, TypeError):  # built in, inherited from C, a property: no source of its own
        return []
    node = ast.parse(source).body[0]
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return []
    types, said, lines = annotations(node, source), comments(node, source), []
    for name in [*(name for name, _, _ in parameters(node)), "return"]:
        comment = said.get(name, "")
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
