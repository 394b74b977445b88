"""Single layers with their maps given: forward, and forward with both gradients.

Limit: 2 * pairs * Cin * Cout operations forward, three times that with gradients; for narrow layers
the bytes of features, weights and maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from perception.nn import Conv, ConvTranspose
from perception.sparse.sites import Sites
from perception.tools.bench import peers
from perception.tools.bench.limits import dense_products
from perception.tools.bench.peers import Library
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.sides import Shape, Side, num_pairs, our_side, peer_side
from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import Effort, interleave

__all__ = ["DEFAULT", "GPU", "QUICK", "SEQUENCE", "measure"]

DENSE_ROWS = 1 << 16


def _shapes(*texts: str) -> tuple[Shape, ...]:
    return tuple(Shape.parse(text) for text in texts)


QUICK = _shapes(
    "subm:4:32",
    "subm:32:32",
    "subm:64:64",
    "subm:128:128",
    "subm:384:256@8",
    "down:32:64",
    "up:64:32",
)
DEFAULT = _shapes(
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
"""The widths that published networks use, on the full-resolution sites; with @4 and @8 the shapes in
which MinkUNet42 spends most of its operations."""
GPU = _shapes(
    "subm:4:32",
    "subm:16:16",
    "subm:32:32",
    "subm:64:64",
    "subm:128:128",
    "subm:256:256",
    "subm:384:256@8",
    "down:32:64",
    "down3:32:64",
    "up:64:32",
)
"""On a GPU by default: the widths that are compared elsewhere, and each kind of layer."""
SEQUENCE = tuple(Shape(kind, c, c) for kind in ("hybrid4", "subm4") for c in (32, 64))
"""On a sequence of scans."""


def measure(
    shape: Shape,
    finest: Sites,
    effort: Effort,
    *,
    libraries: Sequence[Library] = (),
    target: Target = FLOAT32,
) -> list[Row]:
    """Rows "forward" and "forward+backward" of one layer on random features at real sites.

    Args:
        finest: sites of stride 1; coarser ones are found there.
        libraries: those to time beside ours.
    """
    fine = finest
    for _ in range(shape.stride.bit_length() - 1):
        fine = fine.strided((2,) * fine.dim)
    ours = our_side(shape, fine, target)
    assert ours.coarse is not None
    sides: list[Side] = [ours]
    first = Row("layers", f"{shape}, forward", {})
    for library in libraries:
        try:
            sides.append(peer_side(library, shape, ours, target))
        except Exception as error:  # a reference must not keep us from measuring ourselves
            first.failed(library.name, error)
    into, out_of = (ours.coarse, fine) if shape.kind == "up" else (fine, ours.coarse)
    layer = ours.module
    assert isinstance(layer, Conv | ConvTranspose)
    pairs = num_pairs(layer, fine, ours.coarse)
    size = (shape.in_channels, shape.out_channels)
    generator = torch.Generator().manual_seed(0)
    x = _random(into, size[0], generator, target)
    grad = _random(out_of, size[1], generator, target)
    moved = float(x.nbytes + grad.nbytes + ours.weight.nbytes + target.map_bytes * pairs)
    counts = {"in_sites": len(x), "out_sites": len(grad), "pairs": pairs}
    rows = [first, Row("layers", f"{shape}, forward+backward", {})]
    for row, times in zip(rows, (1, 3), strict=True):
        row.flop = times * 2.0 * pairs * size[0] * size[1]
        row.bytes = times * moved
        row.counts = counts
        cases = _agreeing(row, sides, x, grad, target)
        dense = {} if target.is_cuda else _dense(min(pairs, DENSE_ROWS), *size)
        timings = interleave({**cases, **dense}, effort, device=target.device)
        work = 2.0 * min(pairs, DENSE_ROWS) * size[0] * size[1]
        row.rates = {name: work / timings.pop(name).median / 1e9 for name in dense}
        row.timings = timings
        if target.is_cuda:
            row.see_kernels_later(cases, partial(_set_mode, row, sides))
    return rows


def _random(sites: Sites, channels: int, generator: torch.Generator, target: Target) -> Tensor:
    x = torch.randn(sites.num_sites, channels, generator=generator)
    return x.to(target.device, target.dtype)


def _dense(rows: int, a: int, b: int) -> dict[str, Callable[[], Tensor]]:
    return dense_products(torch.randn(rows, a), torch.randn(a, b))


def _agreeing(
    row: Row, sides: Sequence[Side], x: Tensor, grad: Tensor, target: Target
) -> dict[str, Callable[[], object]]:
    """Runs each side once, compares, and returns the cases of those that ran."""
    _set_mode(row, sides)
    backward = row.name.endswith("backward")
    cases: dict[str, Callable[[], object]] = {}
    expected: list[Tensor] = []
    for side in sides:
        inputs = [x if side.in_rows is None else x[side.in_rows]]
        grads = [grad if side.out_rows is None else grad[side.out_rows]]
        run = partial(_with_gradients if backward else _forward, side)
        if side.name == OURS:
            expected = run(inputs[0], grads[0])
        else:
            try:
                found = run(inputs[0], grads[0])
            except Exception as error:
                row.failed(side.name, error)
                continue
            row.compare(side.name, _difference(sides[0], expected, side, found), target.tolerance)
        copies = target.rotation(x.nbytes + (grad.nbytes if backward else 0)) - 1
        inputs += [inputs[0].clone() for _ in range(copies)]
        grads += [grads[0].clone() if backward else grads[0] for _ in range(copies)]
        cases[side.name] = _turning(run, inputs, grads)
    return cases


def _set_mode(row: Row, sides: Sequence[Side]) -> None:
    for side in sides:
        side.module.train(row.name.endswith("backward"))


def _turning(
    run: Callable[[Tensor, Tensor], object], inputs: list[Tensor], grads: list[Tensor]
) -> Callable[[], object]:
    turns = cycle(list(zip(inputs, grads, strict=True)))
    return lambda: run(*next(turns))


def _forward(side: Side, x: Tensor, grad: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [side.given(x)]


def _with_gradients(side: Side, x: Tensor, grad: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = side.given(x)
    return [y.detach(), *torch.autograd.grad(y, (x, side.weight), grad)]


def _difference(ours: Side, mine: list[Tensor], theirs: Side, found: list[Tensor]) -> float:
    """The largest deviation of output and gradients, each relative to its largest value."""
    layer = ours.module
    assert isinstance(layer, Conv | ConvTranspose)

    def placed(value: Tensor, rows: Tensor | None) -> Tensor:
        return value if rows is None else value[rows]

    expected = [placed(mine[0], theirs.out_rows)]
    if len(mine) > 1:
        expected += [placed(mine[1], theirs.in_rows), peers.peer_weight(layer, mine[2])]
    return max(peers.deviation(a, b) for a, b in zip(expected, found, strict=True))
