"""What the GPU tests share. They need torch, numpy, pytest, safetensors, tokenizers and jaxtyping, and
nothing else.

    python -m pytest tests/gpu                     on the GPU, or on the CPU where there is none
    LLMLAB_DEVICE=cpu python -m pytest tests/gpu   on the CPU: as in `make test`

Named alone, the folder takes its own pytest.ini, so neither beartype nor pytest-timeout need be there.
"""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmlab.transformer import Config, Decoder

DEVICE = torch.device(os.environ.get("LLMLAB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
GPU = DEVICE.type == "cuda"
only_gpu = pytest.mark.skipif(not GPU, reason="measures what only a GPU does")
CPU = torch.device("cpu")


def relative_error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    "Norm of the difference over norm of what is exact, in fp64 on the CPU."
    ours, exact = ours.detach().cpu().double(), exact.detach().cpu().double()
    assert ours.shape == exact.shape and ours.isfinite().all(), (ours.shape, exact.shape)
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-12))


def decoder(cls=Decoder, seed: int = 0, **change):
    "A small model whose weights are far from the start, so that no two tokens are nearly equally likely."
    torch.manual_seed(seed)
    model = cls(Config(**{"vocab_size": 64, "context": 96, "layers": 2, "heads": 4, "d_model": 64, **change}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


class LargestTensor(TorchDispatchMode):
    "The most numbers that any tensor held that was made while this was open, on whatever device."

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out
