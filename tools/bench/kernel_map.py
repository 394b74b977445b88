"""Index, output sites and kernel maps. Limit: bytes, sites read and pairs written (hash look-ups
are not counted, so the share says how far building is from free).

On a GPU, where a map is made in several steps and partly by the layer that uses it, "a fresh map" is
what a narrow layer takes longer on sites that have no plan yet than on sites that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from perception._native import ops
from perception.nn import Conv
from perception.sparse.kernel_map import KernelMap, rank_taps
from perception.sparse.ops import build_index, strided_sites
from perception.sparse.sites import Sites
from perception.tools.bench.peers import Boxed, Library
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.sides import Shape, Side, num_pairs, our_side, peer_side
from perception.tools.bench.target import Target
from perception.tools.bench.timing import Effort, interleave, kernels
from perception.tools.bench.workload import Sequence4D, Workload, fresh

__all__ = ["gpu_parts", "levels", "measure", "measure_4d", "plan"]

LEVELS = 5
NARROW = 16
"""Channels of the layer whose first call is set against its next."""
NAMES = {
    "subm": "submanifold 3^3",
    "down": "strided 2^3 and its sites",
    "down3": "strided 3^3 and the sites it reaches",
}


def plan(layer: Conv, sites: Sites) -> tuple[KernelMap, Sites]:
    """The plan that a layer asks for on these sites, and its output sites."""
    out = sites.strided(layer.stride)
    return sites.map_to(out, layer.offsets, layer.stride, layer._key, layer._symmetric), out


def levels(sites: Sites, count: int = LEVELS) -> list[Sites]:
    """The sites of a U-Net: these, and each next ones at half the resolution."""
    out = [sites]
    while len(out) < count:
        out.append(out[-1].strided((2,) * sites.dim))
    return out


def _bytes(pairs: int, *sites: Sites) -> float:
    return 8.0 * pairs + sum(s.coords.nbytes for s in sites)


def _ours(layer: Conv, sites: Sites) -> Callable[[], object]:
    return lambda: plan(layer, fresh(sites))


def _theirs(library: Library, sites: Sites, size: int, stride: int) -> Callable[[], object]:
    boxed = Boxed(sites.coords, sites.batch_size)
    return lambda: boxed.plan(library, size, stride)


def measure(scan: Workload, effort: Effort, *, libraries: Sequence[Library] = ()) -> list[Row]:
    """The index, submanifold 3^3 maps at every stride, a strided 2^3 one, and all of a U-Net."""
    base = scan.tensor().sites
    cube, halve = Conv(1, 1, 3), Conv(1, 1, 2, stride=2)
    rows = [
        Row(
            "maps",
            "index, stride 1",
            interleave({OURS: lambda: build_index(base.coords)}, effort),
            bytes=float(base.coords.nbytes),
            counts={"sites": base.num_sites},
        )
    ]
    all_levels = levels(base)
    for level, sites in enumerate(all_levels):
        pairs = plan(cube, fresh(sites))[0].num_pairs
        cases: dict[str, Callable[[], object]] = {OURS: _ours(cube, sites)}
        for library in libraries:
            cases[library.name] = _theirs(library, sites, 3, 1)
        rows.append(
            Row(
                "maps",
                f"submanifold 3^3, stride {2**level}",
                interleave(cases, effort),
                bytes=_bytes(pairs, sites),
                counts={"sites": sites.num_sites, "pairs": pairs},
            )
        )
    cases = {OURS: _ours(halve, base)}
    for library in libraries:
        cases[library.name] = _theirs(library, base, 2, 2)
    rows.append(
        Row(
            "maps",
            "strided 2^3 and its sites, stride 1 to 2",
            interleave(cases, effort),
            bytes=_bytes(base.num_sites, base, all_levels[1]),
            counts={"sites": base.num_sites, "pairs": base.num_sites},
        )
    )

    def ours() -> int:
        pairs = 0
        sites = fresh(base)
        for level in range(LEVELS):
            pairs += plan(cube, sites)[0].num_pairs
            if level < LEVELS - 1:
                found, sites = plan(halve, sites)
                pairs += found.num_pairs
        return pairs

    def theirs(library: Library) -> None:
        box = Boxed(base.coords, base.batch_size)
        for level in range(LEVELS):
            box.plan(library, 3, 1)
            if level < LEVELS - 1:
                coords = box.plan(library, 2, 2)[0]
                box = box.coarser(coords, [side // 2 for side in box.shape])

    cases = {OURS: ours}
    for library in libraries:
        cases[library.name] = partial(theirs, library)
    pairs = ours()
    rows.append(
        Row(
            "maps",
            f"all {2 * LEVELS - 1} maps of MinkUNet42",
            interleave(cases, effort),
            bytes=_bytes(pairs, *all_levels),
            counts={"sites": base.num_sites, "pairs": pairs},
        )
    )
    return rows


def measure_4d(
    sequence: Sequence4D, effort: Effort, *, libraries: Sequence[Library] = ()
) -> list[Row]:
    """Hybrid (27 + 2 taps) and full 3^4 maps over space and time; spconv has the latter only."""
    base = sequence.sites()
    rows = []
    for kernel, name in (("hybrid", "4D hybrid 3^3 + 2"), ("cube", "4D cube 3^4")):
        layer = Conv(1, 1, 3, dim=4, kernel=kernel)
        pairs = plan(layer, fresh(base))[0].num_pairs
        cases: dict[str, Callable[[], object]] = {OURS: _ours(layer, base)}
        for library in libraries if kernel == "cube" else ():
            cases[library.name] = _theirs(library, base, 3, 1)
        rows.append(
            Row(
                "maps",
                f"{name}, {sequence.voxel_size:g} m",
                interleave(cases, effort),
                bytes=_bytes(pairs, base),
                counts={"sites": base.num_sites, "pairs": pairs},
            )
        )
    return rows


def gpu_parts(
    sites: Sites, effort: Effort, *, libraries: Sequence[Library] = (), target: Target
) -> list[tuple[str, Callable[[], list[Row]]]]:
    """What a fresh map adds to a layer's first call, of each kind; and our steps one by one.

    Returns:
        Names, and functions that measure.
    """
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        (f"fresh map, {words}", partial(_fresh, kind, sites, effort, libraries, target))
        for kind, words in NAMES.items()
    ]
    return [*parts, ("steps of a map", partial(_steps, sites, effort, target))]


def _fresh(
    kind: str, sites: Sites, effort: Effort, libraries: Sequence[Library], target: Target
) -> list[Row]:
    shape = Shape(kind, NARROW, NARROW)
    ours = our_side(shape, sites, target)
    assert ours.coarse is not None
    layer = ours.module
    assert isinstance(layer, Conv)
    pairs = num_pairs(layer, sites, ours.coarse)
    row = Row(
        "maps",
        f"fresh map adds, {NAMES[kind]}",
        {},
        bytes=float(sites.coords.nbytes + ours.coarse.coords.nbytes + target.map_bytes * pairs),
        counts={"sites": sites.num_sites, "pairs": pairs},
    )
    x = torch.randn(sites.num_sites, NARROW, device=target.device, dtype=target.dtype)
    cases = _first_and_next(ours, x)
    for library in libraries:
        try:
            found = _first_and_next(peer_side(library, shape, ours, target), x)
            for case in found.values():
                case()
            cases.update(found)
        except Exception as error:  # a reference must not keep us from measuring ourselves
            row.failed(library.name, error)
    timings = interleave(cases, effort, device=target.device)
    for name in (OURS, *(library.name for library in libraries)):
        if f"{name}, first" in timings:
            row.timings[name] = timings[f"{name}, first"].minus(timings[f"{name}, next"])

    def see() -> None:
        for name, timing in row.timings.items():
            first, after = (sum(kernels(cases[f"{name}, {n}"]).values()) for n in ("first", "next"))
            row.timings[name] = replace(timing, busy=max(first - after, 0.0))

    row.later.append(see)
    return [row]


def _first_and_next(side: Side, x: Tensor) -> dict[str, Callable[[], object]]:
    side.module.eval()

    def call(run: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return run(x)

    return {
        f"{side.name}, first": partial(call, side.fresh),
        f"{side.name}, next": partial(call, side.given),
    }


def _steps(sites: Sites, effort: Effort, target: Target) -> list[Row]:
    """The native operators that a submanifold 3^3 map and a strided one are made of."""
    layer = Conv(1, 1, 3).to(target.device)
    coords, offsets = sites.coords, layer.offsets
    taps, rows = offsets.shape[0], sites.num_sites
    index = build_index(coords)[0]
    rank = rank_taps(layer._key)
    ends = index, coords, coords, offsets, [1, 1, 1], rank, True
    (table,) = ops.plan_table(*ends, False, False)
    pairs = int((table >= 0).sum())
    steps: dict[str, tuple[Callable[[], object], int]] = {
        "index": (lambda: build_index(coords), coords.nbytes),
        "neighbour table, 3^3": (
            lambda: ops.plan_table(*ends, False, False),
            coords.nbytes + 4 * rows * taps,
        ),
        "neighbour table and its tiles": (
            lambda: ops.plan_table(*ends, True, False),
            coords.nbytes + 8 * rows * taps + 4 * pairs,
        ),
        "pairs, for the gradient of the weight": (
            lambda: ops.plan_parts(table, rank, True, False, True),
            4 * rows * taps + 8 * pairs,
        ),
        "strided sites, stride 1 to 2": (lambda: strided_sites(coords, (2, 2, 2)), coords.nbytes),
    }
    out = []
    for name, (case, moved) in steps.items():
        cases: dict[str, Callable[[], object]] = {OURS: case}
        timings = interleave(cases, effort, device=target.device)
        row = Row("maps", f"step: {name}", timings, bytes=float(moved))
        row.counts = {"sites": rows, "pairs": pairs}
        row.see_kernels_later(cases)
        out.append(row)
    return out
