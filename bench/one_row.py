"""One row through the weights of a model, which is what a generated token costs: python bench/one_row.py
[--json FILE]

The linear layers of 6 × 384 (42 MB in fp32, more than the caches hold) multiply one vector each: as PyTorch
stores
them, turned, packed by oneDNN, and as int8. `gb_per_second` counts the bytes that this format reads;
`share_of_reading` compares it with adding up a tensor far larger than the caches, in the same run.
"""

import statistics
import warnings

import torch
from _shared import TINY, arguments, interleave, ratio, write
from torch import nn

WIDTH, LAYERS = (16, 1) if TINY else (384, 6)


def reading(megabytes: int) -> float:
    "Seconds to read one byte, out of adding up that many megabytes."
    numbers = torch.zeros(megabytes * 250_000)
    seconds = interleave({"sum": numbers.sum}, 10, warm=2)["sum"]
    return statistics.median(seconds) / (4 * numbers.numel())


def int8(layer: nn.Linear) -> nn.Module:
    "Weights as int8, one scale a layer; the vector becomes int8 on its way in."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao calls itself old
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]


def contestants() -> dict:
    "Name → (bytes that one pass reads, a function that makes the pass)."
    torch.manual_seed(0)
    widths = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)] * LAYERS
    layers = [nn.Linear(*width) for width in widths]
    rows = [torch.randn(1, wide) for wide, _ in widths]
    size = sum(layer.weight.numel() for layer in layers)
    biases = [layer.bias for layer in layers]
    turned = [layer.weight.t().contiguous() for layer in layers]
    packed = [torch.ops.mkldnn._reorder_linear_weight(layer.weight, 1) for layer in layers]
    small = [int8(layer) for layer in layers]

    def linear():
        return [layer(row) for layer, row in zip(layers, rows, strict=True)]

    def transposed():
        return [
            torch.addmm(bias, row, weight) for bias, row, weight in zip(biases, rows, turned, strict=True)
        ]

    def onednn():
        pointwise = torch.ops.mkldnn._linear_pointwise
        parts = zip(rows, packed, biases, strict=True)
        return [pointwise(row, weight, bias, "none", [], "") for row, weight, bias in parts]

    def quantized():
        return [layer(row) for layer, row in zip(small, rows, strict=True)]

    return {
        "fp32, as PyTorch stores it": (4 * size, linear),
        "fp32, turned": (4 * size, transposed),
        "fp32, packed by oneDNN": (4 * size, onednn),
        "int8 (dynamic)": (size, quantized),
    }


def main():
    args = arguments(__doc__, rounds=40).parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        ways = contestants()
        byte, wanted = reading(1 if TINY else 256), ways["fp32, as PyTorch stores it"][1]()
        seconds = interleave({name: way for name, (_, way) in ways.items()}, args.rounds)
        rows = {}
        for name, (size, way) in ways.items():
            middle = statistics.median(seconds[name])
            away = max(float((a - b).abs().max()) for a, b in zip(way(), wanted, strict=True))
            rows[name] = {
                "ms": round(1e3 * middle, 2),
                "this_over_pytorch": ratio(seconds["fp32, as PyTorch stores it"], seconds[name]),
                "gb_per_second": round(size / middle / 1e9, 1),
                "share_of_reading": round(size * byte / middle, 2),
                "largest_difference": round(away, 7),
            }
    write(args, {"ways": rows}, reading_gb_per_second=round(1e-9 / byte, 1))
    for name, facts in rows.items():
        print(f"{name:28}", "  ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
