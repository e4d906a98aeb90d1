"""Measure once what does not fit into a reader's minute: trainings over several seeds.

    python tools/measure_claims.py horizons                 all parts of the table nbs/results/horizons.json
    python tools/measure_claims.py translation/own_words    one part of it, beside those that stand there

Most chapters define the functions that make a row, and run one row live: then the chapter runs first. The
trainings of chapters 17 to 19 stand in tools/task_claims.py, and run on one thread. The plots read the table
by `load_results(name)`.
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
JOBS = {  # table -> functions of task_claims.py, each a part
    "translation": ("own_words", "tables", "smoothing", "translators"),
    "answering": ("readers", "writers", "marks"),
    "summarization": ("summaries", "docstrings"),
}
MEASURES = {  # table -> the chapter (None: task_claims.py alone), and the expressions that make its parts
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
for name, jobs in JOBS.items():
    MEASURES[name] = None, {job: f"task_claims.rounded(task_claims.{job}())" for job in jobs}


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


def measure(chapter: str | None, parts: dict[str, str]) -> dict:
    "The values of the expressions in a kernel that has run the chapter, in the folder of the checkout."
    cells = nbformat.read(ROOT / "nbs" / f"{chapter}.ipynb", 4).cells if chapter else []
    # imported at the start: a long run must not meet files that changed meanwhile
    tools = (
        "import json, sys\nsys.path.insert(0, 'tools')\nimport make_checkpoints, task_claims\n"
        f"from measure_claims import ship\nmake_checkpoints.torch.set_num_threads({torch.get_num_threads()})"
    )
    inside = ", ".join(f"{name!r}: {expression}" for name, expression in parts.items())
    last = nbformat.v4.new_code_cell(f"print('\\n' + json.dumps({{{inside}}}))")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(tools), *cells, last])
    # cells that read or check the old table may fail: only the last one counts
    options = {"timeout": None, "kernel_name": "python3", "allow_errors": True}
    NotebookClient(book, resources={"metadata": {"path": str(ROOT)}}, **options).execute()
    if wrong := [out for out in last.outputs if out.output_type == "error"]:
        raise RuntimeError(f"{chapter or 'task_claims'}: {wrong[0]['ename']}: {wrong[0]['evalue']}")
    said = "".join(out["text"] for out in last.outputs if out.get("name") == "stdout")
    return json.loads(said.strip().splitlines()[-1])


def chosen_parts(what: str) -> tuple[str, dict[str, str]]:
    "A table and those of its parts that are asked for: 'cost' or 'cost/ladders'; ValueError for others."
    table, _, part = what.partition("/")
    if table not in MEASURES:
        raise ValueError(f"no measure {table!r}: take one of {', '.join(MEASURES)}")
    parts = MEASURES[table][1]
    if part and part not in parts:
        raise ValueError(f"no part {part!r} of {table}: take one of {', '.join(parts)}")
    return table, {part: parts[part]} if part else parts


def main(names: list[str]) -> int:
    try:
        chosen = [chosen_parts(name) for name in names or MEASURES]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for table, parts in chosen:
        chapter = MEASURES[table][0]
        if chapter is None:
            torch.set_num_threads(1)
        where = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {platform.system()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "llmlab": llmlab.__version__,
            "threads": torch.get_num_threads(),
        }
        path = ROOT / "nbs" / "results" / f"{table}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        kept = {part: known[part] for part in MEASURES[table][1] if part in known}
        found = where | kept | measure(chapter, parts)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
