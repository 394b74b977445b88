"""The simulated street as a data set: every scan is made when it is asked for, none is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from perception.datasets import street
from perception.datasets.readers.index import Names
from perception.datasets.sample import Sample

__all__ = ["TEST_SEED", "TRAIN_SEED", "VALIDATION_SEED", "StreetScans"]

VALIDATION_SEED = 0
TEST_SEED = 100_000
TRAIN_SEED = 1_000_000
"""First street of each split; training counts upwards without end, the others stop far below."""


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
    ) -> None:
        first = {"train": TRAIN_SEED * (1 + seed), "val": VALIDATION_SEED, "test": TEST_SEED}
        if split not in first:
            raise ValueError(f"StreetScans: split={split!r} is none of {', '.join(first)}")
        if streets < 1 or frames < 1:
            raise ValueError(f"StreetScans: streets={streets}, frames={frames} must be positive")
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
        number, frame = divmod(index, self.frames)
        seed = self.first_seed + number
        if self.frames == 1:
            return street.scan(seed, **self._options)
        return _street(seed).scan(frame, **self._options)


@lru_cache(maxsize=2)
def _street(seed: int) -> street.Street:
    """The street of the last frames, which keeps what stands around the car."""
    return street.Street(seed)
