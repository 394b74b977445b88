"""One line of the results, and the work it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perception.tools.bench.limits import Limits
from perception.tools.bench.timing import Timing

__all__ = ["OURS", "Row"]

OURS = "perception"


@dataclass
class Row:
    """What was measured.

    Attributes:
        topic: "voxelize", "maps", "layers" or "network".
        name: what was run, unique within topic and scan.
        timings: `perception` and, where it can do the same, each reference.
        flop: multiplications and additions that the result needs, 0 where it is not arithmetic.
        bytes: what must be read and written once at least: inputs, weights, maps, outputs.
        counts: sizes such as sites, pairs, points.
        rates: GFLOP/s of dense matrix products of this layer's widths, library by library, timed
            in turns with the layer.
        difference: largest deviation from the reference's result, relative to its largest value.
        peak_memory: bytes above what was there before the call.
    """

    topic: str
    name: str
    timings: dict[str, Timing]
    flop: float = 0.0
    bytes: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    peak_memory: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.timings[OURS].median

    @property
    def gflops(self) -> float | None:
        return self.flop / self.seconds / 1e9 if self.flop else None

    @property
    def peers(self) -> dict[str, Timing]:
        return {name: t for name, t in self.timings.items() if name != OURS}

    def limit(self, limits: Limits) -> tuple[float, str]:
        """The shortest possible time in seconds and what sets it, "flop" or "bytes"."""
        return limits.seconds(self.flop, self.bytes)

    def share(self, limits: Limits) -> float:
        """The shortest possible time as a part of the time taken, 0..1."""
        return self.limit(limits)[0] / self.seconds

    def record(self, limits: Limits) -> dict[str, Any]:
        """The row as JSON values; seconds, bytes, GFLOP/s."""
        seconds, binds = self.limit(limits)
        return {
            "topic": self.topic,
            "name": self.name,
            "counts": self.counts,
            "flop": self.flop,
            "bytes": self.bytes,
            "seconds": {
                name: {"median": t.median, "min": t.minimum, "samples": t.samples}
                for name, t in self.timings.items()
            },
            "gflops": self.gflops,
            "limit_seconds": seconds,
            "limit_by": binds,
            "share_of_limit": self.share(limits),
            "dense_gflops": self.rates,
            "difference": self.difference,
            "peak_memory": self.peak_memory,
        }
