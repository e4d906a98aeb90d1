"One mechanism for settings: kind, range, finite; and files that nobody has checked."

import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
import tracemalloc

import numpy as np
import pytest
import torch

import llmlab
from llmlab import checks
from llmlab.checks import (
    check_settings,
    check_value,
    choice,
    flag,
    integer,
    optional,
    parse_json,
    real_number,
    tuple_of,
)
from llmlab.generation import Beams, Sampling, generate
from llmlab.masked import Masking
from llmlab.training import Recipe
from llmlab.transformer import Config

CLASSES = [Config, Recipe, Masking, Sampling, Beams]
RIGHT = {"vocab_size": 20}  # what a class needs to be made


# rules


@pytest.mark.parametrize(
    "rule, right, wrong",
    [
        (integer(1), [1, 10**30], [0, -1, 1.0, 1.5, True, "1", None, math.nan, [1]]),
        (integer(0, 3), [0, 3], [-1, 4]),
        (real_number(0, 1), [0, 1, 0.5], [-0.1, 1.1, math.nan, math.inf, True, "0.5", 1j]),
        (real_number(), [-1e300, 0, 3], [math.nan, math.inf, -math.inf]),
        (real_number(above=0, infinite=True), [1e-300, math.inf], [0, -1, math.nan, -math.inf]),
        (real_number(low=0, below=1), [0, 0.999], [1, 1.0]),
        (flag(), [True, False], [1, 0, "yes", None]),
        (choice(True, False, "qkv"), [True, False, "qkv"], [1, 0, 1.0, "q", None]),
        (optional(integer(1)), [None, 1], [0, False]),
        (tuple_of(2, real_number(0, 1)), [(0, 1), [0.1, 0.2]], [(0,), (0, 1, 1), (0, 2), 0.5, "01"]),
    ],
)
def test_a_rule_lets_in_what_it_says(rule, right, wrong):
    for value in right:
        assert check_value("x", value, rule) == (tuple(value) if isinstance(value, list) else value)
    for value in wrong:
        with pytest.raises(ValueError, match="^x=.*: expected " + rule.expected.split("(")[0][:20]):
            check_value("x", value, rule)


@pytest.mark.parametrize("three", [np.int64(3), np.array(3), torch.tensor(3), np.uint8(3)])
def test_numbers_of_numpy_and_torch_become_pythons(three):
    assert type(check_value("n", three, integer(1))) is int
    assert type(check_value("x", np.float32(0.5), real_number())) is float
    assert check_value("yes", np.bool_(True), flag()) is True
    with pytest.raises(ValueError, match="whole number"):
        check_value("n", torch.tensor(3.0), integer(1))
    with pytest.raises(ValueError, match="whole number"):
        check_value("n", torch.tensor([3]), integer(1))


def test_an_error_shows_a_long_value_in_short():
    with pytest.raises(ValueError) as error:
        check_value("n", "a" * 10**6, integer(1))
    assert len(str(error.value)) < 200


# settings


@pytest.mark.parametrize("kind", CLASSES)
def test_every_field_has_its_rule_and_its_default_keeps_it(kind):
    assert {field.name for field in dataclasses.fields(kind)} == {*checks.setting_rules(kind)}
    kind(**(RIGHT if kind is Config else {}))


def test_the_type_of_a_field_is_its_rule():
    rules = checks.setting_rules(Recipe)
    assert rules["steps"] is checks.SIZE and rules["patience"].fits(None) and not rules["patience"].fits(0)
    assert rules["betas"].fits((0.9, 0.95)) and not rules["betas"].fits((0.9, 1.0))
    assert rules["schedule"].expected == "one of cosine, linear, constant"
    assert rules["muon"].fits(True) and not rules["muon"].fits(1)
    with pytest.raises(ValueError, match="a setting of type .* has no rule: take Size"):
        checks.rule_of(str)


NONSENSE = [math.nan, -1, -math.inf, "yes", 1j, [], object()]  # xdist wants the same names in every worker


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("bad", NONSENSE, ids=lambda bad: "an object" if type(bad) is object else repr(bad))
def test_no_field_of_any_class_takes_nonsense(kind, bad, unchecked):
    for field in dataclasses.fields(kind):
        if bad == -1 and field.name in ("length_penalty", "frequency_penalty", "presence_penalty"):
            continue  # below 0 helps the short, or what was said before
        if (kind, field.name, bad) == (Recipe, "compile", "yes"):
            continue
        with pytest.raises(ValueError, match=rf"^{field.name}=.*: expected "):
            kind(**{**(RIGHT if kind is Config else {}), field.name: bad})


@pytest.mark.parametrize(
    "call",
    [
        lambda: generate(None, [[1]], 3, seed=1.5),
        lambda: Sampling(top_k=True),
        lambda: Beams(length_penalty=math.nan),
        lambda: Config(20, dropout=1.5),
        lambda: Config(20, norm_eps=math.nan),
        lambda: Config(20, tied="yes"),
        lambda: Config(20, bias=1),
        lambda: Config(True),
        lambda: Recipe(weight_decay=-1),
        lambda: Recipe(betas=(0.9, 1.0)),
        lambda: Recipe(batch_size=0),
        lambda: Recipe(lr=math.inf),
    ],
)
def test_settings_that_went_unnoticed(call, unchecked):
    with pytest.raises(ValueError, match=": expected "):
        call()


def test_replace_checks_again_and_a_list_becomes_a_tuple(unchecked):
    assert Recipe(betas=[0.5, 0.9]).betas == (0.5, 0.9)
    with pytest.raises(ValueError, match="steps=0"):
        dataclasses.replace(Recipe(), steps=0)


def test_a_class_of_one_s_own_has_the_rules_of_its_types(unchecked):
    @dataclasses.dataclass(frozen=True)
    class Mine:
        n: checks.Size = 1

        def __post_init__(self):
            check_settings(self)

    assert Mine(np.int32(4)) == Mine(4) and type(Mine(np.int32(4)).n) is int
    with pytest.raises(ValueError, match="n=0"):
        Mine(0)


# arguments: every count, seed and share of a function is checked before anything happens


def guarded():
    "Every function of the library that has rules: {its name: the function}."
    found = {}
    for info in pkgutil.walk_packages(llmlab.__path__, "llmlab."):
        stem = info.name.split(".")[-1]
        if (
            info.ispkg or stem in ("__main__", "recurrent") or ".chapters" in info.name
        ):  # recurrent needs Keras
            continue
        module = importlib.import_module(info.name)
        mine = {
            key: part for key, part in vars(module).items() if getattr(part, "__module__", "") == info.name
        }
        for name, thing in mine.items():
            methods = vars(thing) if isinstance(thing, type) else {}
            parts = {name: thing}
            for key, part in methods.items():
                parts[f"{name}.{key}"] = part.__func__ if isinstance(part, classmethod) else part
            found |= {f"{stem}.{key}": part for key, part in parts.items() if hasattr(part, "rules")}
    return found


GUARDED = guarded()
WRONG = [1.5, True, math.nan, "3", [2], -(10**9), math.inf]


@pytest.mark.parametrize("name", sorted(GUARDED))
def test_a_wrong_number_is_refused_by_its_name_before_anything_else(name):
    function = GUARDED[name]
    given = {key: None for key in inspect.signature(function).parameters}
    for parameter, rule in function.rules.items():
        wrong = [value for value in WRONG if not rule.fits(value)]
        assert "3" in wrong and (True in wrong or rule.fits(False)), f"{name}({parameter}) takes anything"
        for value in wrong:
            with pytest.raises(ValueError, match=rf"^{parameter}=.*: expected "):
                function(**{**dict.fromkeys(given), **good(function), parameter: value})


def good(function):
    "A value that each rule of the function lets in."
    values = (1, 0.5, 64, None, True, "exp", "swap", "f1", "2.0")
    return {key: next(value for value in values if rule.fits(value)) for key, rule in function.rules.items()}


ENTRIES = """text.load_corpus corpora.generate_stories tokens.Tokenizer.train
tokens.bpe_merges ngram_tables.NGram.sample training.Batches.__init__
training.Batches.__call__ training.Windows.__init__ masked.padded_rows question_windows.span_rows
answer_models.answer_rows summary_pairs.summary_rows gaps.CodeCollator.__init__ devices.write_tokens
metrics.accuracy metrics.bootstrap_interval metrics.paired_test
metrics.token_logprobs overlap.pass_at_k""".split()


@pytest.mark.parametrize("name", ENTRIES)
def test_these_functions_take_a_count_and_check_it(name):
    assert name in GUARDED


def test_what_a_function_takes_becomes_pythons_own_and_nothing_else_changes():
    @checks.check_arguments(n=checks.SIZE)
    def twice(n, *rest, m=2.5):
        "Doc."
        return type(n), n, rest, m

    assert twice(np.int64(3), 4, m="as it is") == (int, 3, (4,), "as it is") == twice(3, 4, m="as it is")
    assert twice(n=torch.tensor(3)) == (int, 3, (), 2.5)
    assert twice.__doc__ == "Doc." and str(inspect.signature(twice)) == "(n, *rest, m=2.5)"
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'n'"):
        twice()
    with pytest.raises(ValueError, match="f has no parameter"):

        @checks.check_arguments(m=checks.SIZE)
        def f(n):
            pass


# ids


IDS = [[3, 0], (3, 0), iter([3, 0]), np.array([3, 0], np.uint8), torch.tensor([3, 0], dtype=torch.uint16)]


@pytest.mark.parametrize("ids", IDS, ids=lambda ids: type(ids).__name__)
def test_whole_numbers_are_ids(ids):
    assert checks.integer_ids(ids, 4).tolist() == [3, 0]


NO_IDS = [[1.0], [1, 2.5], np.array([1.0]), torch.tensor([1.0]), [True, False], "12", ["1"], [None], 3, None]
NO_IDS += [[[1], [1, 2]], [10**30], [1j], {1: 2}, object()]


@pytest.mark.parametrize("ids", NO_IDS, ids=lambda ids: type(ids).__name__)
def test_ids_are_never_rounded(ids):
    with pytest.raises(ValueError, match=r"^ids are .*expected .*whole numbers"):
        checks.integer_ids(ids)


def test_ids_outside_the_vocabulary_are_named():
    assert checks.integer_ids([], 4).tolist() == [] and checks.integer_ids([-100, 9]).tolist() == [-100, 9]
    with pytest.raises(ValueError, match=r"id 4 is outside the vocabulary: starts run from 0 to 3"):
        checks.integer_ids([1, 4], 4, "starts")
    with pytest.raises(ValueError, match=r"id -1 is outside"):
        checks.integer_ids(torch.tensor([1, -1]), 4)


# files


HOSTILE = {
    "deep": b"[" * 10**6,
    "deep and closed": b"[" * 500 + b"]" * 500,
    "wide": b"[" + b"{}," * 10**6 + b"{}]",
    "cut": b'{"a": [1, 2',
    "a list": b"[1]",
    "a number": b"1",
    "bytes": bytes(range(256)) * 10,
    "long number": b'{"a": ' + b"9" * 10_000 + b"}",
    "empty": b"",
}


@pytest.mark.timeout(300)  # ends a hang
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_a_clear_error_and_little_memory(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(ValueError, match="config.json"):
        checks.read_json(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        checks.read_json(tmp_path)
    with pytest.raises(ValueError, match="is no file"):
        checks.read_json("/dev/zero")
    with pytest.raises(FileNotFoundError):
        checks.read_json(tmp_path / "none.json")
    (tmp_path / "big.json").write_bytes(b" " * 5_000_000)
    with pytest.raises(ValueError, match="5,000,000 bytes, expected at most 4,000,000"):
        checks.read_json(tmp_path / "big.json")


def test_what_is_fine_comes_back():
    value = {"a": [1, {"b": None}], "ü": "[[[[,,,,"}
    assert parse_json(json.dumps(value), "x") == value and parse_json("[1]", "x", list) == [1]
    assert checks.nesting_depth(value) == 3 and checks.nesting_depth(1) == 0


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "..", None, 3, ["a"], "a\0b"])
def test_no_way_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError):
        checks.path_inside(tmp_path, name)


def test_ways_inside(tmp_path):
    assert checks.path_inside(tmp_path, "a/b.safetensors") == tmp_path / "a" / "b.safetensors"
    assert checks.path_inside("here", "x/../y") == checks.Path("here/y")
