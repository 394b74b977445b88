"""MinkUNet42 as a whole: forward with maps built and with maps given, one training step.

Limit: the operations of its convolutions and pointwise layers, three times those in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from perception.models import MinkUNet
from perception.sparse import SparseTensor
from perception.tools.bench import peers, split
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import Effort, interleave, peak_memory
from perception.tools.bench.workload import CHANNELS, Workload, fresh

__all__ = ["NetworkResult", "measure"]

CLASSES = 20


@dataclass
class NetworkResult:
    """Rows, and for each of "forward" (maps given) and "training step" the seconds by operator; for
    the forward pass also the convolutions by shape."""

    rows: list[Row]
    operators: dict[str, dict[str, float]] = field(default_factory=dict)
    shapes: list[split.LayerShare] = field(default_factory=list)


def measure(
    scan: Workload,
    effort: Effort,
    *,
    peer: bool,
    channels: Sequence[int] | None = None,
    peer_trains: bool = True,
) -> NetworkResult:
    """
    Args:
        peer: time spconv's counterpart with the same weights beside it.
        channels: widths other than the published ones, to try the harness.
        peer_trains: also the counterpart's training step.
    """
    torch.manual_seed(0)
    net = MinkUNet(CHANNELS, CLASSES, depth=42, channels=channels)
    theirs = peers.SpconvUNet(net) if peer else None
    x = scan.tensor()
    target = torch.randint(0, CLASSES, (x.num_sites,))

    def cold() -> SparseTensor:
        return SparseTensor(x.features, fresh(x.sites))

    result = NetworkResult(_forward_rows(net, theirs, x, cold, effort))
    net.eval()
    result.shapes, flop = split.by_shape(net, lambda: net(x))
    row = Row(
        "network",
        "training step, maps built",
        {},
        counts={"sites": x.num_sites, "parameters": sum(p.numel() for p in net.parameters())},
    )
    step = _step(net, lambda: net(cold()).features, target)
    cases: dict[str, Callable[[], Tensor]] = {OURS: step}
    if theirs is not None and peer_trains:
        cases[peers.NAME] = _step(theirs, lambda: theirs(peers.Boxed(x.coords), x.features), target)
    for name, case in cases.items():
        _remember(row, name, case)
    row.timings = interleave(cases, effort, warm=False)
    result.rows.append(row)
    for found, times in zip(result.rows, (1, 1, 3), strict=True):
        found.flop = times * flop
    with torch.no_grad():
        net.eval()
        result.operators["forward, maps given"] = split.by_operator(lambda: net(x))
    result.operators["training step, maps built"] = split.by_operator(step)
    return result


def _forward_rows(
    net: MinkUNet,
    theirs: peers.SpconvUNet | None,
    x: SparseTensor,
    cold: Callable[[], SparseTensor],
    effort: Effort,
) -> list[Row]:
    net.eval()
    cases: dict[str, Callable[[], Tensor]] = {
        "cold": lambda: net(cold()).features,
        "warm": lambda: net(x).features,
    }
    if theirs is not None:
        theirs.eval()
        cases[peers.NAME] = lambda: theirs(peers.Boxed(x.coords), x.features)
    built = Row("network", "forward, maps built", {}, counts={"sites": x.num_sites})
    given = Row("network", "forward, maps given", {}, counts={"sites": x.num_sites})
    with torch.no_grad():
        scores = _remember(built, OURS, cases["cold"])
        net(x)  # makes the plans
        _remember(given, OURS, cases["warm"])
        if theirs is not None:
            other = _remember(built, peers.NAME, cases[peers.NAME])
            built.difference = float((scores - other).abs().max() / other.abs().max())
            del other
        del scores
        timings = interleave(cases, effort, warm=False)
    given.timings[OURS] = timings.pop("warm")
    built.timings = {OURS: timings.pop("cold"), **timings}
    return [built, given]


def _remember(row: Row, name: str, case: Callable[[], Tensor]) -> Tensor:
    """Runs once unmeasured in time but not in memory."""
    out: list[Tensor] = []
    peak = peak_memory(lambda: out.append(case()))
    if peak is not None:
        row.peak_memory[name] = peak
    return out[0]


def _step(net: nn.Module, forward: Callable[[], Tensor], target: Tensor) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def step() -> Tensor:
        net.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
