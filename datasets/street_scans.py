"""The simulated street as a data set: every scan is made when it is asked for, none is stored."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perception.datasets import street
from perception.datasets.readers.index import Names, fingerprint
from perception.datasets.sample import Sample
from perception.geometry import Boxes3D
from perception.io import PointCloud

__all__ = ["TEST_SEED", "TRAIN_SEED", "VALIDATION_SEED", "StreetScans"]

VALIDATION_SEED = 0
TEST_SEED = 100_000
TRAIN_SEED = 1_000_000
"""First street of each split; training counts upwards without end, the others stop far below."""

BETWEEN_VIEWS: Final = 400
"""New streets between two views of one: a hundred batches and more; 4 GB of kept scans at four views."""


class StreetScans:
    """Scans of streets that are numbered on and on.

    The training split is endless: index `i` is any number from 0, and `len()` only says after how
    many scans there is a validation. Validation and test show the same streets every time, which
    training never shows.

    Args:
        split: `"train"`, `"val"` or `"test"`.
        streets: how many.
        frames: consecutive scans of each street, at 10 Hz: a drive.
        seed: another seed trains on other streets; validation and test do not change.
        weather: rain and fog; None for a clear day.
        range_noise: standard deviation of measured ranges in metres; None for the sensor's.
        dropout: share of returns that are lost; None for the sensor's.
        views: how often training shows each street, with hundreds of others in between. A scan takes
            ten times as long to make as to change at random and to encode, so with several views
            as many processes feed a faster network.
        folder: where scans are kept from their first view to their last; None for the system's
            temporary files. A scan that is not there is made again.

    Raises:
        ValueError: an unknown split, or a number that is not positive; several views of a drive or
            of scans that are for evaluation.
    """

    classes: tuple[str, ...] = street.CLASSES
    colors = street.COLORS
    box_classes: tuple[str, ...] = street.CLASSES

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        *,
        streets: int = 1000,
        frames: int = 1,
        seed: int = 0,
        weather: street.Weather | None = None,
        range_noise: float | None = None,
        dropout: float | None = None,
        views: int = 1,
        folder: Path | None = None,
    ) -> None:
        first = {"train": TRAIN_SEED * (1 + seed), "val": VALIDATION_SEED, "test": TEST_SEED}
        if split not in first:
            raise ValueError(f"StreetScans: split={split!r} is none of {', '.join(first)}")
        if streets < 1 or frames < 1:
            raise ValueError(f"StreetScans: streets={streets}, frames={frames} must be positive")
        if views < 1 or (views > 1 and (split != "train" or frames > 1)):
            raise ValueError(
                f"StreetScans: views={views} with split={split!r}, frames={frames}; give one view, or "
                "several of single scans for training"
            )
        self.views = views
        self.folder = folder or Path(tempfile.gettempdir()) / f"perception-street-{os.getuid()}"
        # What was kept before the simulator changed is another street.
        source = Path(street.__file__).parent
        maker = f"{fingerprint(sorted(source.glob('*.py')))} {weather} {range_noise} {dropout}"
        self._maker = hashlib.sha256(maker.encode()).hexdigest()[:12]
        self.first_seed, self.streets, self.frames = first[split], streets, frames
        self.endless = split == "train"
        options = {"weather": weather, "range_noise": range_noise, "dropout": dropout}
        self._options: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        self.sequences: Sequence[range] = [
            range(i * frames, (i + 1) * frames) for i in range(streets)
        ]
        self.names: Sequence[str] = Names(
            f"street_{self.first_seed + i}_{frame:06d}"
            for i in range(streets)
            for frame in range(frames)
        )

    def __len__(self) -> int:
        return self.streets * self.frames

    def __getitem__(self, index: int) -> Sample:
        if index < 0 or (index >= len(self) and not self.endless):
            raise IndexError(f"scan {index} of {len(self)} of the street")
        if self.views > 1:
            return self._view(index)
        number, frame = divmod(index, self.frames)
        seed = self.first_seed + number
        if self.frames == 1:
            return street.scan(seed, **self._options)
        return _street(seed).scan(frame, **self._options)

    def street_of(self, index: int) -> tuple[int, int]:
        """Number of the street that training shows at `index`, and which view of it that is."""
        new, view = divmod(index, self.views)
        number = new - view * BETWEEN_VIEWS
        if number < 0:  # in the beginning there is nothing to come back to: a street seen once
            return -1 - index, self.views - 1
        return number, view

    def _view(self, index: int) -> Sample:
        number, view = self.street_of(index)
        seed = self.first_seed + number
        file = self.folder / f"{self._maker}-{seed}.npz"
        sample = _load(file) if view else None
        if sample is None:
            sample = street.scan(seed, **self._options)
            if view < self.views - 1:
                _store(file, sample)
        if view == self.views - 1:
            file.unlink(missing_ok=True)
        return sample


def _store(file: Path, sample: Sample) -> None:
    arrays: dict[str, Any] = {f"cloud.{k}": v for k, v in sample.cloud.attributes.items()}
    if sample.boxes is not None:
        for name in ("boxes", "labels", "velocity", "track_ids"):
            arrays[f"boxes.{name}"] = getattr(sample.boxes, name)
    for name in ("labels", "instances", "pose", "name", "time"):
        arrays[name] = getattr(sample, name)
    arrays = {name: values for name, values in arrays.items() if values is not None}
    part = ""
    with suppress(OSError):  # read-only or full: the scan is made again
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as handle:
            part = handle.name
            np.savez(handle, points=sample.cloud.points, **arrays)
        os.replace(part, file)
        return
    if part:
        with suppress(OSError):
            os.unlink(part)


def _load(file: Path) -> Sample | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            arrays: dict[str, NDArray[Any]] = dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged
    of: dict[str, dict[str, NDArray[Any]]] = {"cloud": {}, "boxes": {}}
    for name, values in arrays.items():
        group, _, key = name.rpartition(".")
        if group:
            of[group][key] = values
    time = float(arrays["time"]) if "time" in arrays else None
    return Sample(
        cloud=PointCloud(arrays["points"], of["cloud"], time=time),
        labels=arrays.get("labels"),
        instances=arrays.get("instances"),
        boxes=Boxes3D(**of["boxes"]) if of["boxes"] else None,
        pose=arrays.get("pose"),
        name=str(arrays["name"]),
        time=time,
    )


@lru_cache(maxsize=2)
def _street(seed: int) -> street.Street:
    """The street of the last frames, which keeps what stands around the car."""
    return street.Street(seed)
