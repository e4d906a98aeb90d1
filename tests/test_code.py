"Chapter 20: the tasks are what they say, and no program is believed that does not give the value."

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.tasks.code import count_passing
from llmlab.tasks.code_tasks import (
    FILTERS,
    MAPPINGS,
    REDUCTIONS,
    TASK_KINDS,
    CodeTask,
    make_code_task,
    make_code_tasks,
)

# --- tasks --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TASK_KINDS), st.integers(0, 10**6))
def test_a_solution_passes_its_tests_and_says_its_parts(kind, seed):
    task = make_code_task(kind, random.Random(seed))
    names = {}
    exec(task.prompt + task.solution, names)
    assert [eval(call, names) for call, _ in task.tests] == [wanted for _, wanted in task.tests]
    assert len(task.tests) == 5 and task.solution.endswith("\n") and task.solution.count("\n") == 1


def test_the_tests_tell_combinations_apart():
    "A solution of another combination seldom passes."
    rng, wrong = random.Random(0), 0
    for kind in TASK_KINDS[::7]:
        one, another = (
            make_code_task(kind, rng),
            make_code_task(rng.choice([k for k in TASK_KINDS if k != kind]), rng),
        )
        name, theirs = (t.prompt.split("(")[1].split(")")[0] for t in (one, another))
        names = {}
        exec(f"def f({theirs}):\n    return{another.solution}", names)
        wrong += all(eval(call, names) == wanted for call, wanted in one.tests)
    assert wrong <= 3


def test_no_held_out_combination_is_in_the_training_tasks():
    learn, held = make_code_tasks(400, 0.2, seed=1)
    assert len(held) == int(0.2 * len(REDUCTIONS) * len(MAPPINGS) * len(FILTERS)) and len(learn) == 400
    assert make_code_tasks(400, 0.2, seed=1) == (learn, held) != make_code_tasks(400, 0.2, seed=2)
    assert not {task.kind for task in learn} & {task.kind for task in held}


# --- programs that flatter ----------------------------------------------------------------------------------

FLATTERERS = {
    "equal to all": "class A:\n    def __eq__(self, other):\n        return True\n"
    + "    def __repr__(self):\n        return '10'\ndef f(x):\n    return A()\n",
    "a list that is equal to all": "class A(list):\n    def __eq__(self, other):\n        return True\n"
    + "def f(x):\n    return A()\n",
    "inside a list": (
        "class A(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return [A()]\n"
    ),
    "another repr": "import builtins\nbuiltins.repr = lambda x: '10'\ndef f(x):\n    return 3\n",
    "all asserts pass": "import builtins\nbuiltins.AssertionError = Warning\ndef f(x):\n    return 3\n",
    "ends first": "import os, sys\nsys.exit(0)\n",
    "says that it passed": (
        "import os, sys\nfor n in range(1, 5):\n    try:\n        frame = sys._getframe(n)\n"
    )
    + "        os.write(frame.f_globals['pipe'], (frame.f_globals['nonce'] + ' passed ').encode())\n"
    + "    except (KeyError, ValueError):\n        pass\n",
}


@pytest.mark.parametrize("name", FLATTERERS)
def test_no_program_is_believed_that_does_not_give_the_value(name):
    task = CodeTask(("", "", ""), "", "", (("f([1, 4, 6, -2])", 10),))
    assert count_passing(task, [FLATTERERS[name]]) == 0
    right = [
        "def f(xs):\n    return sum(x for x in xs if x > 3)",
        "import sys\nf = lambda x: 10\nsys.exit(0)",
    ]
    assert count_passing(task, right) == 2
