"""What the sensors of the simulated street cost: milliseconds a frame and a million rays.

    python -m perception.tools.bench.sensors [--streets 6]

Processor time of one thread for one frame of a street that is laid out already; the least of three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from perception.datasets.street import CLEAR, Lens, Lidar, Sensor, SolidState, Street, Weather

__all__ = ["main", "measure"]


def measure(street: Street, frame: Callable[[Street], object]) -> float:
    """Seconds that ``frame`` takes on a street."""
    frame(street)
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        frame(street)
        best = min(best, time.process_time() - start)
    return float(best)


def _scan(weather: Weather) -> Callable[[Street], object]:
    return lambda street: street.scan(0, weather=weather)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streets", type=int, default=6, help="streets 0 ... STREETS - 1")
    seeds = range(parser.parse_args(argv).streets)
    print("| sensor | rays | points | ms a frame | ms a million rays |\n|---|---|---|---|---|")
    lidars: dict[str, tuple[Lidar | None, Weather]] = {
        "default, 64 beams": (None, CLEAR),
        "64 beams, rain 10 mm/h": (None, Weather(rain=10.0)),
        "64 beams, fog 100 m": (None, Weather(visibility=100.0)),
        "32 beams": (Sensor.preset("spinning-32"), CLEAR),
        "128 beams": (Sensor.preset("spinning-128"), CLEAR),
        "solid-state raster": (SolidState(), CLEAR),
        "solid-state rosette": (SolidState.rosette(), CLEAR),
    }
    for name, (lidar, weather) in lidars.items():
        streets = [Street(seed, sensor=lidar) for seed in seeds]
        rays = np.mean([len(s.sensor.rays(0.0, s.seed).time) for s in streets])
        points = np.mean([len(s.scan(0, weather=weather).cloud.points) for s in streets])
        seconds = np.mean([measure(s, _scan(weather)) for s in streets])
        _row(name, float(rays), f"{points:.0f}", float(seconds))
    for lens in (Lens(), Lens(samples=4), Lens(size=(1242, 375))):
        name = f"camera {lens.size[0]} x {lens.size[1]}"
        name += f", {lens.samples} rays a pixel" if lens.samples > 1 else ""
        shots = lens.size[0] * lens.size[1] * lens.samples
        seconds = np.mean([measure(Street(s), lambda t, c=lens: t.picture(0, c)) for s in seeds])  # type: ignore[misc]
        _row(name, float(shots), "", float(seconds))


def _row(name: str, rays: float, points: str, seconds: float) -> None:
    per_million = 1e9 * seconds / rays
    print(f"| {name} | {rays:.0f} | {points} | {1e3 * seconds:.0f} | {per_million:.0f} |")


if __name__ == "__main__":
    main()
