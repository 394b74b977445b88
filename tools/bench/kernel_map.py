"""Index, output sites and kernel maps. Limit: bytes, sites read and pairs written (hash look-ups
are not counted, so the share says how far building is from free)."""

from __future__ import annotations

from collections.abc import Callable

from perception.nn import Conv
from perception.sparse.kernel_map import KernelMap
from perception.sparse.ops import build_index
from perception.sparse.sites import Sites
from perception.tools.bench import peers
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import Effort, interleave
from perception.tools.bench.workload import Sequence4D, Workload, fresh

__all__ = ["levels", "measure", "measure_4d", "plan"]

LEVELS = 5


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


def _theirs(sites: Sites, size: int, stride: int) -> Callable[[], object]:
    boxed = peers.Boxed(sites.coords)
    return lambda: boxed.plan(size, stride)


def measure(scan: Workload, effort: Effort, *, peer: bool) -> list[Row]:
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
        if peer:
            cases[peers.NAME] = _theirs(sites, 3, 1)
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
    if peer:
        cases[peers.NAME] = _theirs(base, 2, 2)
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

    def theirs() -> None:
        box = peers.Boxed(base.coords)
        for level in range(LEVELS):
            box.plan(3, 1)
            if level < LEVELS - 1:
                box.coords = box.plan(2, 2)[0]
                box.shape = [side // 2 for side in box.shape]

    cases = {OURS: ours, **({peers.NAME: theirs} if peer else {})}
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


def measure_4d(sequence: Sequence4D, effort: Effort, *, peer: bool) -> list[Row]:
    """Hybrid (27 + 2 taps) and full 3^4 maps over space and time; spconv has the latter only."""
    base = sequence.sites()
    rows = []
    for kernel, name in (("hybrid", "4D hybrid 3^3 + 2"), ("cube", "4D cube 3^4")):
        layer = Conv(1, 1, 3, dim=4, kernel=kernel)
        pairs = plan(layer, fresh(base))[0].num_pairs
        cases: dict[str, Callable[[], object]] = {OURS: _ours(layer, base)}
        if peer and kernel == "cube":
            cases[peers.NAME] = _theirs(base, 3, 1)
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
