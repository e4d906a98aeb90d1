"The way the data goes: a module imports only modules that stand before it."

import ast
import re
import subprocess
import sys

import chapters
import make_map
import pytest
from conftest import ROOT

import llmlab

ORDER = [
    "checks",
    "progress",
    "segmentation",
    "corpora",
    "text",
    "chat",
    "fast_tokens",
    "tokens",
    "adapters",
    "ngrams",
    "ngram_tables",
    "recording",
    "attention_kernels",
    "attention",
    "attention_pooling",
    "cache",
    "model_inputs",
    "transformer",
    "scoring",
    "metrics",
    "bleu_statistics",
    "translation_scores",
    "rouge_lines",
    "overlap",
    "losses",
    "storage",
    "checkpoints",
    "devices",
    "optimizers",
    "same_run",
    "runs",
    "training",
    "causal",
    "mask_tokens",
    "masked",
    "keras_backend",
    "keras_models",
    "recurrent",
    "decoding",
    "stopping",
    "penalties",
    "beams",
    "generation",
    "streaming",
    "hub",
    "pretrained",
    "families",
    "embeddings",
    "loading",
    "exporting",
    "phrases",
    "text_pairs",
    "translation",
    "questions",
    "question_windows",
    "answering",
    "answer_models",
    "summary_pairs",
    "summary_scores",
    "summarization",
    "sandbox",
    "code_tasks",
    "code",
    "gaps",
    "completion",
    "tables",
    "activation_memory",
    "scaling_fits",
    "cost",
    "choosing",
    "sheets",
    "sentence_pairs",
    "activations",
    "residual_stream",
    "alternative_maps",
    "interpretability",
    "ethics",
    "figure_data",
    "pictures",
    "mixtures",
    "horizons",
    "explore",
]
PICTURES = [
    "checks",
    "inputs",
    "attention_maps",
    "stills",
    "view",
    "peers",
    "charts",
    "attention_figures",
    "task_figures",
]  # import nothing of ours but these, in this order
DRAWING = {"explore"}  # shows what the figures draw
COURSE = ["attempts", "comparing", "mutations", "records", "practice", "overview"]  # likewise
COMMAND = ["doctor", "lab"]  # likewise
ALONE = [
    *PICTURES,
    *COMMAND,
    *COURSE,
    "exercises",
]  # import nothing of ours but what stands before them in their row
LIGHT = [
    "segmentation",
    "corpora",
    "text",
    "chat",
    "fast_tokens",
    "tokens",
    "ngrams",
    "ngram_tables",
    *PICTURES,
    *COMMAND,
    *COURSE,
    "exercises",
]  # import no torch
HUB = {"pretrained"}  # the only module that may import transformers
DEVELOPERS = {"nbdev", "fastcore", "execnb", "pytest", "jupyter_book"}
FILES = {f.stem: f for f in (ROOT / "llmlab").rglob("[!_]*.py")}  # a stem is one module, whatever its room
MODULES = sorted(FILES)


def imports(source: str, top: bool = False) -> set[str]:
    "The dotted names that a source imports; with `top`, only where it is imported itself."
    tree = ast.parse(source)
    bodies = [f for f in ast.walk(tree) if top and isinstance(f, ast.FunctionDef)]
    inside, found = {n for f in bodies for n in ast.walk(f)}, set()
    for node in ast.walk(tree):
        if node in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["llmlab" if node.level else "", node.module]))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    "Those of the names that are modules of llmlab, by their stems."
    inside = {part for name in names if name.split(".")[0] == "llmlab" for part in name.split(".")[1:3]}
    return inside & {*ORDER, *ALONE}


def roots(names: set[str]) -> set[str]:
    return {n.split(".")[0] for n in names}


def source(module: str) -> str:
    return FILES[module].read_text()


def is_material(module: str) -> bool:
    "Whether a module holds a chapter's exercises with their answers."
    return module.endswith(("_exercises", "bug_hunts", "capstones"))


def test_every_module_has_its_place():
    assert {m for m in MODULES if not is_material(m)} <= {*ORDER, *ALONE}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_before_it(module):
    if is_material(module):  # it stands last, and uses the whole library
        assert not any(map(is_material, imports(source(module))))
        return
    row = next((row for row in (ORDER, PICTURES, COURSE, COMMAND) if module in row), [module])
    before = set(row[: row.index(module)]) | (set(PICTURES) if module in DRAWING else set())
    before |= set(COURSE) if row is COMMAND else set()  # `llmlab progress`
    assert ours(imports(source(module))) - {module} <= before


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_what_it_must_not(module):
    every = roots(imports(source(module)))
    assert not every & DEVELOPERS, "a reader does not have the developers' tools"
    assert module in HUB or "transformers" not in every
    late = {"bertviz", "matplotlib", "keras", "tensorflow"}
    assert not roots(imports(source(module), top=True)) & late, "import it where it is used"


@pytest.mark.parametrize("module", [m for m in LIGHT if m in MODULES])
def test_light_modules_load_no_torch(module):
    heavy = {"torch", "transformers", "bertviz", "matplotlib"}
    path = ".".join(FILES[module].relative_to(ROOT).with_suffix("").parts)
    code = f"import sys, {path}; print(*{heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(
    "line, names",
    [
        ("from llmlab.text import corpus", {"text"}),
        ("from llmlab import text, charts", {"text", "charts"}),
        ("import llmlab.causal as c", {"causal"}),
        ("from . import text", {"text"}),
        ("from .tokens import Tokenizer", {"tokens"}),
        ("def f():\n    from llmlab import lab", {"lab"}),
        ("import torch.nn", set()),
    ],
)
def test_every_kind_of_import_is_seen(line, names):
    assert ours(imports(line)) == names


def test_an_import_in_a_function_is_not_at_the_top():
    assert imports("import json\ndef f():\n    import bertviz", top=True) == {"json"}


def test_the_map_is_in_step():
    assert make_map.drawn(ROOT) == (ROOT / "MAP.md").read_text(encoding="utf-8"), "run make export"


# --- what the texts name exists -----------------------------------------------------------------------------

NAMED = re.compile(r"(?<![\w./~-])llmlab\.((?:figures|tasks|course)\.)?([a-z_]+)(?:\.([A-Za-z]\w*))?")


def strangers(text: str) -> set[str]:
    "Names such as llmlab.room.module.name in a text that lead nowhere."
    lost = set()
    for found in NAMED.finditer(text):
        room, stem, name = found.groups()
        if room is None and (
            stem in ("figures", "tasks", "course", "chapters", "static", "data", "__version__")
            or stem in llmlab.PUBLIC
        ):
            continue
        file = ROOT / "llmlab" / (room or "").rstrip(".") / f"{stem}.py"
        if (
            not file.exists()
            or name
            and not re.search(rf"^(?:\s*(?:def|class) {name}\b|\s*{name}\b.*=)", file.read_text(), re.M)
        ):
            lost.add(found[0])
    return lost


@pytest.mark.parametrize(
    "page", ["README.md", "DECISIONS.md", "CONTRIBUTING.md", "BENCHMARKS.md", "SECURITY.md"]
)
def test_a_text_names_only_modules_that_exist(page):
    assert not strangers((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_error_texts_and_docstrings_name_only_modules_that_exist(module):
    said = [
        n.value
        for n in ast.walk(ast.parse(source(module)))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    assert not strangers(" ".join(text for text in said if not text.startswith("import ")))


def test_a_text_names_only_chapters_that_exist():
    numbers = {int(f.stem[:2]) for f in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")}
    for page in (
        "README.md",
        "DECISIONS.md",
        "CONTRIBUTING.md",
        "BENCHMARKS.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        said = [int(re.search(r"\d+$", text[start:end])[0]) for start, end in chapters.mentions(text)]
        assert {*said} <= numbers, page
    for module in MODULES:
        said = [
            int(re.search(r"\d+$", source(module)[start:end])[0])
            for start, end in chapters.mentions(source(module))
        ]
        assert {*said} <= numbers, module
