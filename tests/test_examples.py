"The example in the docstring of each public name gives what it says."

import doctest

import numpy as np
import pytest
import torch

import llmlab

EXAMPLES = {name: getattr(llmlab, name).__doc__ or "" for name in sorted(llmlab.PUBLIC)}


@pytest.mark.parametrize("name", [name for name, text in EXAMPLES.items() if ">>>" in text])
def test_the_example_gives_what_it_says(name):
    words = set(
        EXAMPLES[name].replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ").split()
    )
    names = {public: getattr(llmlab, public) for public in llmlab.PUBLIC if public in words}
    example = doctest.DocTestParser().get_doctest(
        EXAMPLES[name], {"np": np, "torch": torch, name: getattr(llmlab, name), **names}, name, None, 0
    )
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=said.append)
    assert not said, "".join(said)
