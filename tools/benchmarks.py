"""BENCHMARKS.md out of bench/results/*.json: python tools/benchmarks.py

Each file is one run of one benchmark. Its plain values say where and how; its tables hold one row a contestant.
"""
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Benchmarks

llmlab and its peers on the same work, in one run each, interleaved. Read the ratios: the rest belongs to one machine
and hour. `make bench` measures again and writes this page. A number that is not here was not measured.
"""


def plain(value) -> bool:
    return not isinstance(value, dict | list)


def tables(tree: dict, path: tuple = ()):
    "(name, rows) wherever a dict holds dicts of plain values."
    inner = {key: value for key, value in tree.items() if isinstance(value, dict)}
    if inner and all(all(map(plain, value.values())) for value in inner.values()):
        yield " · ".join(path), inner
        return
    for key, value in inner.items():
        yield from tables(value, (*path, key))


def table(rows: dict) -> str:
    "Markdown, a row a contestant."
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [["", *(c.replace("_", " ") for c in columns)], ["---"] * (len(columns) + 1)]
    lines += [[name, *(f"{row.get(c, '')}" for c in columns)] for name, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: dict[str, dict]) -> str:
    "The whole page."
    parts = [HEAD.strip()]
    for name, result in results.items():
        where = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result.items() if plain(value))
        parts.append(f"## {name.replace('_', ' ').capitalize()}\n\n{where}.")
        for title, rows in tables(result):
            parts.append((f"**{title}**\n\n" if title else "") + table(rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    text = page({file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files})
    (ROOT / "BENCHMARKS.md").write_text(text, encoding="utf-8")
    print(text)
