"""Tables and a plot of what the study found."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perception.datasets.street import CLASSES
from perception.io import FormatError
from perception.tools.study.methods import ROWS, network
from perception.tools.study.noise import LEVELS, TABLE

__all__ = ["collect", "plot", "tables"]

Found = dict[str, dict[int, list[dict[str, Any]]]]
"""By row and seed: what `scoring.score` found at every level."""


def collect(folder: Path) -> dict[str, Any]:
    """All results of a study as one dictionary of JSON values, for `tables` and `plot`.

    Returns:
        `rows`: by row, then by seed (as text), the levels' scores; `plan`: of the training;
        `time`: `device` and `rows`, milliseconds by row, where it was measured.

    Raises:
        FileNotFoundError: nothing has been evaluated yet.
        FormatError: a result is no JSON, or of another plan than the first.
    """
    paths = sorted((folder / "results").glob("*-*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder / 'results'}: no results; run the stages before first")
    rows: dict[str, dict[str, Any]] = {}
    plan: Any = None
    for path in paths:
        try:
            result = json.loads(path.read_text())
            scores, seed, own = result["rows"], str(result["seed"]), result["plan"]
        except (ValueError, KeyError) as error:
            raise FormatError(path, f"is no result ({error})", "evaluate again") from None
        plan = plan or own
        if own != plan:
            raise FormatError(path, f"was trained otherwise than {paths[0]}", "train all alike")
        for key, levels in scores.items():
            rows.setdefault(key, {})[seed] = levels
    found: dict[str, Any] = {"plan": plan, "rows": {key: rows[key] for key in ROWS if key in rows}}
    timed = folder / "results" / "time.json"
    if timed.is_file():
        found["time"] = json.loads(timed.read_text())
    return found


def tables(found: dict[str, Any]) -> str:
    """The comparison, the classes and the levels of noise, as Markdown."""
    rows: dict[str, dict[str, Any]] = found["rows"]
    times = found.get("time", {}).get("rows", {})
    widths = tuple(found["plan"]["widths"])
    weights = {
        key: sum(p.numel() for p in network(ROWS[key].method, widths).parameters()) for key in rows
    }
    lines = _table(
        [
            "",
            "mIoU, %",
            "seeds",
            "above 3D, same seed",
            "all frames",
            "weights",
            "ms a frame",
            "published",
        ],
        [
            [
                ROWS[key].name,
                _spread(_at(seeds, TABLE)),
                " ".join(f"{value:.1f}" for value in _at(seeds, TABLE)),
                _paired(rows.get("3d", {}), seeds) if key != "3d" else "",
                _spread([levels[TABLE]["all_frames"] for levels in seeds.values()]),
                f"{weights[key] / 1e6:.2f} M",
                f"{times[key]:.1f}" if key in times else "",
                "" if ROWS[key].published is None else f"{ROWS[key].published:.1f}",
            ]
            for key, seeds in rows.items()
        ],
    )
    if "hybrid" in rows:
        for key in ("crf", "crf-fixed"):
            if key in rows:
                gain = _paired(rows["hybrid"], rows[key])
                lines += ["", f"{ROWS[key].name}, above the network alone of the same seed: {gain}"]
    lines += ["", "mIoU, %, as the noise grows (the level of the table in bold):", ""]
    lines += _table(["", *map(_level, range(len(LEVELS)))], _by_level(rows))
    lines += ["", "IoU of the classes, %, mean over the seeds:", ""]
    lines += _table(["", *CLASSES], _by_class(rows))
    return "\n".join(lines)


def _by_level(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    return [
        [ROWS[key].name, *(_spread(_at(seeds, level)) for level in range(len(LEVELS)))]
        for key, seeds in rows.items()
    ]


def _by_class(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    cells = []
    for key, seeds in rows.items():
        columns = zip(*(levels[TABLE]["classes"] for levels in seeds.values()), strict=True)
        known = ([value for value in column if value is not None] for column in columns)
        cells.append([ROWS[key].name, *(f"{statistics.mean(v):.1f}" if v else "" for v in known)])
    return cells


def plot(found: dict[str, Any], path: Path) -> None:
    """Mean IoU against the level of noise, with the spread of the seeds, as a picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            'the plot needs matplotlib: pip install "sparse-perception[study]"'
        ) from None
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    places = list(range(len(LEVELS)))
    base = found["rows"].get("3d", {})
    for number, (key, seeds) in enumerate(found["rows"].items()):
        beside = [place + 0.06 * (number - len(found["rows"]) / 2) for place in places]
        values = [_at(seeds, level) for level in places]
        middle = [statistics.mean(v) for v in values]
        error = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        drawn = left.errorbar(beside, middle, error, marker="o", capsize=3, label=ROWS[key].name)
        if key != "3d" and base:
            gains = [_gains(base, seeds, level) for level in places]
            right.errorbar(
                beside,
                [statistics.mean(v) if v else 0.0 for v in gains],
                [statistics.stdev(v) if len(v) > 1 else 0.0 for v in gains],
                marker="o",
                capsize=3,
                color=drawn.lines[0].get_color(),
            )
    left.set_ylabel("mIoU of the newest frame, %")
    right.set_ylabel("points of mIoU above 3D, single frame")
    right.axhline(0.0, color="grey", linewidth=0.8)
    for axes in (left, right):
        axes.set_xticks(places, [_level(i, bold=False).replace(", ", "\n") for i in places])
        axes.set_xlabel("range noise, lost pulses, intensity noise")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _at(seeds: dict[str, Any], level: int) -> list[float]:
    return [levels[level]["miou"] for _, levels in sorted(seeds.items())]


def _gains(base: dict[str, Any], seeds: dict[str, Any], level: int) -> list[float]:
    shared = sorted(set(base) & set(seeds))
    return [seeds[seed][level]["miou"] - base[seed][level]["miou"] for seed in shared]


def _paired(base: dict[str, Any], seeds: dict[str, Any]) -> str:
    gains = _gains(base, seeds, TABLE)
    return _spread(gains, "+.1f") if gains else ""


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation over the seeds."""
    mean = f"{statistics.mean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _level(index: int, *, bold: bool = True) -> str:
    level = LEVELS[index]
    name = f"{100 * level.range_noise:g} cm, {100 * level.dropout:g} %, {level.intensity_noise:g}"
    return f"**{name}**" if bold and index == TABLE else name


def _table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    line: Callable[[Sequence[str]], str] = lambda row: "| " + " | ".join(row) + " |"  # noqa: E731
    return [line(head), "|" + "---|" * len(head), *map(line, cells)]
