"""Single layers with their maps given: forward, and forward with both gradients.

Limit: 2 * pairs * Cin * Cout operations forward, three times that with gradients; for narrow layers
the bytes of features, weights and maps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from perception.nn import Conv, ConvTranspose
from perception.sparse import SparseTensor
from perception.sparse.sites import Sites
from perception.tools.bench import peers
from perception.tools.bench.kernel_map import plan
from perception.tools.bench.limits import dense_products
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import Effort, interleave

__all__ = ["DEFAULT", "QUICK", "Shape", "measure"]

DENSE_ROWS = 1 << 16
Cases = dict[str, Callable[[], list[Tensor]]]


@dataclass(frozen=True)
class Shape:
    """One layer: "subm" is submanifold 3^3, "down" strided 2^3, "up" its transposed.

    Attributes:
        stride: of the finer of the layer's sites, 1, 2, 4, 8 or 16.
    """

    kind: str
    in_channels: int
    out_channels: int
    stride: int = 1

    @classmethod
    def parse(cls, text: str) -> Shape:
        """``subm:64:64``, ``down:32:64`` or, at stride 8, ``subm:384:256@8``.

        Raises:
            ValueError: anything else.
        """
        match = re.fullmatch(r"(subm|down|up):(\d+):(\d+)(?:@(1|2|4|8|16))?", text)
        if match is None or "0" in match.group(2, 3):
            raise ValueError(
                f"{text!r} is no layer; write KIND:IN:OUT[@STRIDE] with KIND subm, down or up and "
                "STRIDE 1, 2, 4, 8 or 16, e.g. subm:64:64 or subm:384:256@8"
            )
        kind, a, b, stride = match.groups()
        return cls(kind, int(a), int(b), int(stride or 1))

    def __str__(self) -> str:
        words = {"subm": "subm 3^3", "down": "down 2^3", "up": "up 2^3"}
        return f"{words[self.kind]} {self.in_channels}->{self.out_channels} @{self.stride}"


QUICK = tuple(
    Shape.parse(text)
    for text in (
        "subm:4:32",
        "subm:32:32",
        "subm:64:64",
        "subm:128:128",
        "subm:384:256@8",
        "down:32:64",
        "up:64:32",
    )
)
DEFAULT = tuple(
    Shape.parse(text)
    for text in (
        "subm:4:32",
        "subm:32:32",
        "subm:64:64",
        "subm:96:96",
        "subm:128:96",
        "subm:128:128",
        "subm:256:256",
        "subm:192:128@4",
        "subm:384:256@8",
        "down:32:64",
        "up:64:32",
    )
)
"""The widths that published networks use, on the full-resolution sites; with @4 and @8 the shapes in
which MinkUNet42 spends most of its operations."""


def measure(shape: Shape, finest: Sites, effort: Effort, *, peer: bool) -> list[Row]:
    """Rows "forward" and "forward+backward" of one layer on random features at real sites.

    Args:
        finest: sites of stride 1; coarser ones are found there.
    """
    fine = finest
    for _ in range(shape.stride.bit_length() - 1):
        fine = fine.strided((2,) * fine.dim)
    layer, in_sites, out_sites = _layer(shape, fine)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(in_sites.num_sites, shape.in_channels, generator=generator)
    grad = torch.randn(out_sites.num_sites, shape.out_channels, generator=generator)
    like = None if shape.kind != "up" else SparseTensor(grad, fine)

    def forward(features: Tensor) -> Tensor:
        tensor = SparseTensor(features, in_sites)
        return (layer(tensor) if like is None else layer(tensor, like=like)).features

    runs: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {OURS: (forward, layer.weight)}
    strided = Conv(1, 1, layer.kernel_size or 1, stride=layer.stride)
    found, _ = plan(strided, fine)
    if peer:
        weight = peers.peer_weight(layer).requires_grad_()
        pairs = peers.map_pairs(found, fine)
        rows_out = out_sites.num_sites
        runs[peers.NAME] = (
            lambda features: peers.conv(shape.kind, features, weight, pairs, rows_out),
            weight,
        )
    return _rows(shape, runs, found.num_pairs, x, grad, effort)


def _layer(shape: Shape, fine: Sites) -> tuple[Conv | ConvTranspose, Sites, Sites]:
    """The layer, its input and its output sites."""
    if shape.kind == "subm":
        return Conv(shape.in_channels, shape.out_channels, 3, bias=False), fine, fine
    coarse = fine.strided((2,) * fine.dim)
    if shape.kind == "down":
        layer = Conv(shape.in_channels, shape.out_channels, 2, stride=2, bias=False)
        return layer, fine, coarse
    up = ConvTranspose(shape.in_channels, shape.out_channels, 2, stride=2, bias=False)
    return up, coarse, fine


def _rows(
    shape: Shape,
    runs: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]],
    pairs: int,
    x: Tensor,
    grad: Tensor,
    effort: Effort,
) -> list[Row]:
    x_learns = x.clone().requires_grad_()

    def with_gradients(run: Callable[[Tensor], Tensor], weight: Tensor) -> list[Tensor]:
        y = run(x_learns)
        return [y.detach(), *torch.autograd.grad(y, (x_learns, weight), grad)]

    def only_forward(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [run(x)]

    forward: Cases = {name: partial(only_forward, run) for name, (run, _) in runs.items()}
    backward: Cases = {name: partial(with_gradients, *both) for name, both in runs.items()}
    rows = min(pairs, DENSE_ROWS)
    dense = dense_products(
        torch.randn(rows, shape.in_channels), torch.randn(shape.in_channels, shape.out_channels)
    )
    flop = 2.0 * pairs * shape.in_channels * shape.out_channels
    weight = runs[OURS][1]
    moved = float(x.nbytes + grad.nbytes + weight.nbytes + 8 * pairs)
    counts = {"in_sites": len(x), "out_sites": len(grad), "pairs": pairs}
    out = []
    for name, cases, times in (("forward", forward, 1), ("forward+backward", backward, 3)):
        timings = interleave({**cases, **dense}, effort)
        work = 2.0 * rows * shape.in_channels * shape.out_channels
        rates = {lib: work / timings.pop(lib).median / 1e9 for lib in dense}
        row = Row("layers", f"{shape}, {name}", timings, times * flop, times * moved, counts, rates)
        if peers.NAME in runs:
            row.difference = _difference(cases[OURS](), cases[peers.NAME]())
        out.append(row)
    return out


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest deviation of output or gradient of the input, relative to the largest value."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
        for a, b in zip(ours[:2], theirs[:2], strict=True)
    )
