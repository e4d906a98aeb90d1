"""The tables of BENCHMARKS.md out of nbs/results/*.json: python tools/benchmarks.py

Each file is one run of one benchmark. Its plain values say where and how; its tables hold one row a
contestant. They
are written between <!-- train_step --> and <!-- end -->; all other words of the page are ours and stay.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "nbs" / "results"


def plain(value) -> bool:
    return not isinstance(value, dict | list)


def tables(tree: dict, path: tuple = ()):
    "(name, rows) wherever a dict holds dicts of plain values."
    inner = {key: value for key, value in tree.items() if isinstance(value, dict)}
    if inner and all(all(map(plain, value.values())) for value in inner.values()):
        yield " · ".join(path), inner
        return
    for key, value in inner.items():
        if all(map(plain, value.values())):
            yield " · ".join((*path, key)), {"": value}
        else:
            yield from tables(value, (*path, key))


def shown(value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: dict) -> str:
    "Markdown, a row a contestant."
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [["", *(c.replace("_", " ") for c in columns)], ["---"] * (len(columns) + 1)]
    lines += [[name, *(shown(row.get(c, "")) for c in columns)] for name, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(result: dict) -> str:
    "Where and how, then the tables."
    where = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result.items() if plain(value))
    named = ((f"**{title}**\n\n" if title else "") + table(rows) for title, rows in tables(result))
    return "\n\n".join([f"{where[0].upper()}{where[1:]}.", *named])


def renewed(page: str, results: dict[str, dict]) -> str:
    "The page with new tables; a benchmark that it does not speak of yet comes at its end."
    for name, result in results.items():
        block = f"<!-- {name} -->\n\n{section(result)}\n\n<!-- end -->"
        page, n = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, block=block: block, page, flags=re.S)
        if not n:
            page += f"\n## {name.replace('_', ' ').capitalize()}\n\n{block}\n"
    return page


if __name__ == "__main__":
    found = {f.relative_to(RESULTS).with_suffix("").as_posix(): f for f in sorted(RESULTS.rglob("*.json"))}
    path = ROOT / "BENCHMARKS.md"
    results = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in found.items()}
    results = {name: result for name, result in results.items() if "device" in result}  # the rest are claims
    path.write_text(renewed(path.read_text(encoding="utf-8"), results), encoding="utf-8")
