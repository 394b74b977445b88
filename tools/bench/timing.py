"""Timing that survives a shared machine: the cases of a comparison take turns, medians count, and
one thread is timed by the processor time it gets, which other processes do not lengthen.

On a GPU a case is called in bursts of calls that are queued back to back, between two events: where
the GPU is slower than the host this is the GPU's time, where the host is slower the host's, as in a
running network. The host's own time and the kernels' own time stand beside it.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from perception._native import release_memory

__all__ = [
    "CPU",
    "Effort",
    "Timing",
    "clock",
    "clock_name",
    "interleave",
    "kernels",
    "peak_memory",
]

CPU = torch.device("cpu")
BURST_SECONDS = 2e-3
"""Long beside the lead-in of a first launch, which is about 10 microseconds."""
MOST_CALLS = 64
"""In a burst; the launches of all must fit into the driver's queue, or the host would wait for it."""


def clock() -> Callable[[], float]:
    """Seconds: the process's processor time where torch has one thread, else wall-clock time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def clock_name() -> str:
    """What `clock` counts, "processor" or "wall"."""
    return "processor" if clock() is time.process_time else "wall"


@dataclass(frozen=True)
class Timing:
    """Seconds of one call of a case.

    Attributes:
        median, minimum: over `samples` calls by `clock`; on a GPU over bursts of calls, by events.
        host: on a GPU, the median of the wall-clock time after which a call returns.
        busy: on a GPU, the time that its kernels and copies run.
    """

    median: float
    minimum: float
    samples: int
    host: float | None = None
    busy: float | None = None

    @classmethod
    def of(cls, seconds: list[float], host: list[float] | None = None) -> Timing:
        returned = statistics.median(host) if host else None
        return cls(statistics.median(seconds), min(seconds), len(seconds), returned)

    def minus(self, other: Timing) -> Timing:
        """What this takes longer than the other; none of it below zero."""

        def less(a: float | None, b: float | None) -> float | None:
            return None if a is None or b is None else max(a - b, 0.0)

        return Timing(
            max(self.median - other.median, 0.0),
            max(self.minimum - other.minimum, 0.0),
            self.samples,
            less(self.host, other.host),
            less(self.busy, other.busy),
        )


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds go on until `seconds` have passed, within the two bounds."""

    seconds: float
    least_rounds: int
    most_rounds: int


def interleave(
    cases: Mapping[str, Callable[[], object]],
    effort: Effort,
    *,
    warm: bool = True,
    device: torch.device = CPU,
) -> dict[str, Timing]:
    """Times cases in turns, so that whatever else the machine does meets all of them alike.

    What a case returns is freed outside the measured time (on a GPU, where freeing is the
    allocator's bookkeeping, within it).

    Args:
        cases: name to a function without arguments, called once a round, on a GPU a burst.
        warm: call each once unmeasured first.
    """
    for case in cases.values() if warm else ():
        case()
    collecting = gc.isenabled()
    gc.disable()
    try:
        if device.type == "cuda":
            return _bursts(cases, effort)
        samples: dict[str, list[float]] = {name: [] for name in cases}
        now = clock()
        for _ in _rounds(effort):
            for name, case in cases.items():
                begin = now()
                result = case()
                samples[name].append(now() - begin)
                del result
    finally:
        if collecting:
            gc.enable()
    return {name: Timing.of(seconds) for name, seconds in samples.items()}


def _rounds(effort: Effort) -> Iterator[int]:
    end = time.perf_counter() + effort.seconds
    for done in range(effort.most_rounds):
        if done >= effort.least_rounds and time.perf_counter() > end:
            return
        yield done


def _bursts(cases: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, Timing]:
    calls = {}
    for name, case in cases.items():
        torch.cuda.synchronize()
        begin = time.perf_counter()
        case()
        case()
        torch.cuda.synchronize()
        once = (time.perf_counter() - begin) / 2
        calls[name] = min(max(round(BURST_SECONDS / once), 1), MOST_CALLS)
    elapsed: dict[str, list[float]] = {name: [] for name in cases}
    returned: dict[str, list[float]] = {name: [] for name in cases}
    start = torch.cuda.Event(enable_timing=True)
    stop = torch.cuda.Event(enable_timing=True)
    for _ in _rounds(effort):
        for name, case in cases.items():
            torch.cuda.synchronize()
            start.record()
            begin = time.perf_counter()
            for _ in range(calls[name]):
                case()
            host = time.perf_counter() - begin
            stop.record()
            stop.synchronize()
            elapsed[name].append(start.elapsed_time(stop) * 1e-3 / calls[name])
            returned[name].append(host / calls[name])
    return {name: Timing.of(elapsed[name], returned[name]) for name in cases}


def kernels(case: Callable[[], object], calls: int = 3) -> dict[str, float]:
    """Seconds that the GPU spends in each kernel, copy or fill of one call, longest first.

    Empty where the profiler sees no GPU. Once the profiler has run, launches may take the host longer
    in this process, so nothing is timed after it.
    """
    case()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(calls):
            case()
        torch.cuda.synchronize()
    seconds: dict[str, float] = {}
    for event in trace.events() or ():
        if event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False):
            continue
        spent = event.time_range.elapsed_us() * 1e-6 / calls
        seconds[event.name] = seconds.get(event.name, 0.0) + spent
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def peak_memory(case: Callable[[], object], device: torch.device = CPU) -> int | None:
    """Bytes held at the highest during a call, above what was held before.

    On the CPU resident memory as the kernel counts it, native scratch included, and None where the
    high-water mark cannot be reset (anything but Linux). On a GPU what torch's allocator gave out.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        case()
        torch.cuda.synchronize()
        return max(torch.cuda.max_memory_allocated() - held, 0)
    if not sys.platform.startswith("linux"):
        case()
        return None
    gc.collect()
    # Freed memory that the allocators keep would be used again unseen.
    release_memory()
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        case()
        return None
    before = _status_bytes("VmRSS")
    case()
    return max(_status_bytes("VmHWM") - before, 0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
