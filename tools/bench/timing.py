"""Timing that survives a shared machine: the cases of a comparison take turns, medians count, and
one thread is timed by the processor time it gets, which other processes do not lengthen."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Effort", "Timing", "clock", "clock_name", "interleave", "peak_memory"]


def clock() -> Callable[[], float]:
    """Seconds: the process's processor time where torch has one thread, else wall-clock time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def clock_name() -> str:
    """What `clock` counts, "processor" or "wall"."""
    return "processor" if clock() is time.process_time else "wall"


@dataclass(frozen=True)
class Timing:
    """Seconds (of `clock`) of one case: median and minimum over `samples` calls."""

    median: float
    minimum: float
    samples: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), len(seconds))


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds go on until `seconds` have passed, within the two bounds."""

    seconds: float
    least_rounds: int
    most_rounds: int


def interleave(
    cases: Mapping[str, Callable[[], object]], effort: Effort, *, warm: bool = True
) -> dict[str, Timing]:
    """Times cases in turns, so that whatever else the machine does meets all of them alike.

    What a case returns is freed outside the measured time.

    Args:
        cases: name to a function without arguments, called once a round.
        warm: call each once unmeasured first.
    """
    for case in cases.values() if warm else ():
        case()
    samples: dict[str, list[float]] = {name: [] for name in cases}
    end = time.perf_counter() + effort.seconds
    now = clock()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(effort.most_rounds):
            if done >= effort.least_rounds and time.perf_counter() > end:
                break
            for name, case in cases.items():
                begin = now()
                result = case()
                samples[name].append(now() - begin)
                del result
    finally:
        if collecting:
            gc.enable()
    return {name: Timing.of(seconds) for name, seconds in samples.items()}


def peak_memory(case: Callable[[], object]) -> int | None:
    """Bytes that the process holds at its highest during a call, above what it held before.

    Resident memory as the kernel counts it, native scratch included. None where the high-water
    mark cannot be reset (anything but Linux).
    """
    if not sys.platform.startswith("linux"):
        case()
        return None
    gc.collect()
    # Freed memory that the allocator keeps would be used again unseen.
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
