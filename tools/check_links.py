"""Do the links that lead out of the repository still lead somewhere?

    python tools/check_links.py         every address in the chapters, the pages and the texts; exit 1 when
    one is gone

Gone is what answers 404 or 410, or has no host any more. A host that refuses robots or is slow is reported:
no fault.
"""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import colab_line

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https?://[^\s<>\"'`\])}|\\]+")
ELSEWHERE = re.compile(r"https?://(localhost|127\.|example\.|[\w.-]+\.example)|[{$…]")


def texts() -> dict[str, str]:
    "What readers read: Markdown and the prose of notebooks, by file name."
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.ipynb", "*.cff", "*.csv"], cwd=ROOT, capture_output=True, text=True
    )
    found = {}
    for name in listed.stdout.split():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".ipynb"):
            text = "\n".join(
                "".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"
            )
        found[name] = text
    return found


def addresses(text: str) -> set[str]:
    "The addresses in a text, without the punctuation of the sentence around them."
    found = (address.rstrip(".,;:!?*_") for address in ADDRESS.findall(text))
    return {address.split("#")[0] for address in found if not ELSEWHERE.match(address) and "://" in address}


def answer(address: str, tries: int = 3) -> str:
    "`ok`, `gone: …` or `unsure: …`."
    request = Request(address, headers={"User-Agent": "Mozilla/5.0 (llmlab link check)"})
    said = "unsure: no answer"
    for attempt in range(tries):
        try:
            with urlopen(request, timeout=30):
                return "ok"
        except HTTPError as error:
            said = f"gone: {error.code}" if error.code in (404, 410) else f"unsure: {error.code}"
        except URLError as error:
            lost = "Name or service not known" in str(error.reason)
            said = f"{'gone' if lost else 'unsure'}: {error.reason}"
        except (OSError, ValueError) as error:
            said = f"unsure: {error}"
        time.sleep(2**attempt)
    return said


def main() -> int:
    places: dict[str, list[str]] = {}
    for name, text in texts().items():
        for address in addresses(text):
            places.setdefault(address, []).append(name)
    own = colab_line.settings()["git_url"] + "/"  # before the first release these lead to nothing
    places = {address: names for address, names in places.items() if not address.startswith(own)}
    with ThreadPoolExecutor(8) as pool:
        said = dict(zip(places, pool.map(answer, places), strict=True))
    for address, words in sorted(said.items()):
        if words != "ok":
            print(f"{words}  {address}  ({', '.join(places[address])})")
    gone = [address for address, words in said.items() if words.startswith("gone")]
    print(f"{len(said)} addresses, {len(gone)} gone")
    return bool(gone)


if __name__ == "__main__":
    sys.exit(main())
