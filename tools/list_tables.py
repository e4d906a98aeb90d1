"""Write the tables of llmlab/data into its manifest: python tools/list_tables.py"""

import hashlib
import json
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "llmlab" / "data"


def main() -> None:
    manifest = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    for path in sorted(DATA.glob("*.csv")):
        held = path.read_bytes()
        facts = {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)}
        made = "by hand; each row names its source and its date"
        licence = "CC-BY-4.0; facts from the sources that the rows name"
        manifest[path.name] = {**facts, "licence": licence, "made_by": made}
    (DATA / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
