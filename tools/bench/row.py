"""One line of the results, and the work it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from perception.tools.bench.limits import Limits
from perception.tools.bench.timing import Timing, kernels

__all__ = ["OURS", "Row"]

OURS = "perception"


@dataclass
class Row:
    """What was measured.

    Attributes:
        topic: "voxelize", "maps", "layers", "network" or "cold".
        name: what was run, unique within topic and scan.
        timings: `perception` and, where it can do the same, each reference.
        flop: multiplications and additions that the result needs, 0 where it is not arithmetic.
        bytes: what must be read and written once at least: inputs, weights, maps, outputs.
        counts: sizes such as sites, pairs, points.
        rates: GFLOP/s of dense matrix products of this layer's widths, library by library, timed
            in turns with the layer.
        differences: for each reference the largest deviation from its result, relative to its
            largest value.
        peak_memory: bytes above what was there before the call.
        notes: what a reader must know: a reference that failed or disagrees.
        later: what is still to be looked at when nothing is timed any more.
    """

    topic: str
    name: str
    timings: dict[str, Timing]
    flop: float = 0.0
    bytes: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def seconds(self) -> float:
        return self.timings[OURS].median

    @property
    def gflops(self) -> float | None:
        return self.flop / self.seconds / 1e9 if self.flop and self.seconds else None

    @property
    def peers(self) -> dict[str, Timing]:
        return {name: t for name, t in self.timings.items() if name != OURS}

    def limit(self, limits: Limits) -> tuple[float, str]:
        """The shortest possible time in seconds and what sets it, "flop" or "bytes"."""
        return limits.seconds(self.flop, self.bytes)

    def share(self, limits: Limits) -> float:
        """The shortest possible time as a part of the time taken, 0..1."""
        return self.limit(limits)[0] / self.seconds if self.seconds else 0.0

    def compare(self, name: str, difference: float, tolerance: float) -> None:
        """Remembers how far a reference's result is from ours, and notes it where that is far."""
        self.differences[name] = difference
        if difference > tolerance:
            self.notes.append(f"{name}: results differ by {difference:.1e} of the largest value")

    def see_kernels_later(
        self, cases: Mapping[str, Callable[[], object]], prepare: Callable[[], object] | None = None
    ) -> None:
        """Finds out, later, how long the kernels of the cases run on the GPU.

        Args:
            prepare: called before.
        """

        def see() -> None:
            if prepare is not None:
                prepare()
            for name, timing in self.timings.items():
                spent = sum(kernels(cases[name]).values())
                self.timings[name] = replace(timing, busy=spent or None)

        self.later.append(see)

    def finish(self) -> None:
        """Does what was put off."""
        while self.later:
            self.later.pop(0)()

    def failed(self, name: str, error: Exception) -> None:
        """Notes why a reference is not there."""
        lines = str(error).strip().splitlines()
        self.notes.append(f"{name}: {type(error).__name__}: {lines[0] if lines else ''}"[:160])

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
                name: {
                    ("min" if key == "minimum" else key): value
                    for key, value in asdict(t).items()
                    if value is not None
                }
                for name, t in self.timings.items()
            },
            "gflops": self.gflops,
            "limit_seconds": seconds,
            "limit_by": binds,
            "share_of_limit": self.share(limits),
            "dense_gflops": self.rates,
            # JSON has no infinity.
            "differences": {n: min(d, 1e30) for n, d in self.differences.items()},
            "peak_memory": self.peak_memory,
            "notes": self.notes,
        }
