"""Measure once what does not fit into a reader's minute: a chapter's own functions, over several seeds.

    python tools/measure_claims.py horizons    runs nbs/33_horizons.ipynb, table in nbs/results/horizons.json

The chapter defines the functions and runs one row live; its plots read the table by
`llmlab.load_results(name)`.
"""

import json
import platform
import sys
from datetime import date
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient

import llmlab

ROOT = Path(__file__).resolve().parent.parent
MEASURES = {  # name -> the chapter, and the expressions whose values are the table's parts
    "horizons": (
        "33_horizons",
        {
            "phone_book": "[phone_row(k, n, seed) for k in KINDS for n in (200, 400, 800, 1200) for seed in "
            "range(5)]",
            "captions": "[caption_row(seed) for seed in range(5)]",
        },
    ),
    "code": ("20_code", {"seeds": "[row(seed) for seed in range(5)]"}),
    "completion": ("21_completion", {"seeds": "[row(seed) for seed in range(3)]"}),
    "cost": ("30_cost", {"ladders": "[scaling_row(seed) for seed in range(5)]"}),
    "interpretability": ("31_interpretability", {"copiers": "[copier_row(seed) for seed in range(5)]"}),
    "ethics": ("32_ethics", {"trainings": "[training_row(seed) for seed in range(5)]"}),
    "recurrent": (
        "13_recurrent",
        {
            "runs": "[long_run(kind, seed) for kind in STEPS for seed in range(3)]",
            "shipped": "[ship('lstm', trained['LSTM', 0]), ship('gpt', trained['GPT', 0]),"
            " ship('attentive-lstm', trained['LSTM with attention', 0])]",
        },
    ),
    "pretrained": (
        "16_pretrained",
        {
            "runs": "[tuned_row(kind, seed) for kind in KINDS_OF_RUN for seed in range(3)]"
            " + [trainer_row(seed) for seed in range(3)]",
        },
    ),
    "masked": (
        "12_masked",
        {
            "runs": "[long_run(seed, *how) for how in ((0.3, 1500), (0.3, 400), (0.9, 400)) for seed in "
            "range(3)]",
            "shipped": "[ship('masked', trained[0, 0.3, 1500])]",
        },
    ),
}


def ship(name, model):
    "A chapter's model as a file of the package, noted in its manifest; the kernel calls it."
    from make_checkpoints import DATA, facts_of, made_with, note
    from safetensors.numpy import save_file

    from llmlab.checkpoints import save_checkpoint

    path = DATA / f"stories-{name}.safetensors"
    if hasattr(model, "read"):  # a guest from Keras has no weights of PyTorch
        arrays = model.read.func.get_weights()
        save_file({f"{i:02d}": array.astype("float16") for i, array in enumerate(arrays)}, path)
    else:
        save_checkpoint(model, path, torch.float16)
    licence = "Apache-2.0; trained on the stories that llmlab generates"
    about = {"licence": licence, "made_by": "tools/measure_claims.py", "dtype": "float16", "seed": 0}
    note(DATA, {path.name: facts_of(path) | about | made_with()})
    return path.name


def measure(chapter: str, parts: dict[str, str]) -> dict:
    "The values of the expressions in a kernel that has run the chapter, in the folder of the checkout."
    book = nbformat.read(ROOT / "nbs" / f"{chapter}.ipynb", 4)
    inside = ", ".join(f"{name!r}: {expression}" for name, expression in parts.items())
    # imported at the start: a long run must not meet files that changed meanwhile
    tools = (
        "import json, sys\nsys.path.insert(0, 'tools')\nimport make_checkpoints\n"
        "from measure_claims import ship"
    )
    last = nbformat.v4.new_code_cell(f"print('\\n' + json.dumps({{{inside}}}))")
    book.cells = [nbformat.v4.new_code_cell(tools), *book.cells, last]
    # cells that read or check the old table may fail: only the last one counts
    options = {"timeout": None, "kernel_name": "python3", "allow_errors": True}
    NotebookClient(book, resources={"metadata": {"path": str(ROOT)}}, **options).execute()
    if wrong := [out for out in last.outputs if out.output_type == "error"]:
        raise RuntimeError(f"{chapter}: {wrong[0]['ename']}: {wrong[0]['evalue']}")
    said = "".join(out["text"] for out in last.outputs if out.get("name") == "stdout")
    return json.loads(said.strip().splitlines()[-1])


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in MEASURES]:
        print(f"no measure {unknown[0]!r}: take one of {', '.join(MEASURES)}", file=sys.stderr)
        return 1
    for name in names or MEASURES:
        where = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {platform.system()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "llmlab": llmlab.__version__,
            "threads": torch.get_num_threads(),
        }
        table = where | measure(*MEASURES[name])
        path = ROOT / "nbs" / "results" / f"{name}.json"
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
