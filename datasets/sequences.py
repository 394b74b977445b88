"""Consecutive scans as one: registered into the frame of the newest, with time beside every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.index import Names
from perception.datasets.sample import IGNORE, Sample, Scans
from perception.datasets.transforms import Similarity
from perception.geometry import as_pose, invert

__all__ = ["Frames", "merged"]


class Frames:
    """A data set whose samples are several consecutive scans of one drive, see `merged`.

    Sample i ends with a scan of `scans` and reaches back in time from there, within its drive.

    Args:
        scans: the data set of single scans, with poses.
        frames: scans in a sample.
        step: every how manieth scan of the drive is taken.
        complete: leave out the samples at the beginning of a drive that have fewer scans.
        period: seconds between two scans of a drive, for data sets without times.

    Raises:
        ValueError: a number that is not positive, or no drive is long enough.
    """

    def __init__(
        self,
        scans: Scans,
        frames: int = 4,
        *,
        step: int = 1,
        complete: bool = False,
        period: float = 0.1,
    ) -> None:
        if frames < 1 or step < 1 or not period > 0:
            raise ValueError(
                f"Frames: frames={frames}, step={step}, period={period} must be positive"
            )
        self.scans, self.frames, self.step, self.period = scans, frames, step, period
        self.classes, self.colors = scans.classes, scans.colors
        self.box_classes = scans.box_classes
        self.endless = bool(getattr(scans, "endless", False))
        skipped = (frames - 1) * step if complete else 0
        kept = [np.arange(drive.start, drive.stop)[skipped:] for drive in scans.sequences]
        self._newest = np.concatenate([np.zeros(0, np.int64), *kept])
        if len(self._newest) == 0:
            raise ValueError(
                f"Frames: no drive of the data set has {skipped + 1} scans; take fewer frames, a "
                "smaller step, or complete=False"
            )
        # How many scans of its drive stand before each.
        self._before = np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(skipped, len(drive)) for drive in scans.sequences)]
        )
        ends = np.cumsum([len(numbers) for numbers in kept]).tolist()
        self.sequences: Sequence[range] = [
            range(start, stop) for start, stop in zip([0, *ends[:-1]], ends, strict=True)
        ]
        self.names: Sequence[str] = Names(scans.names[i] for i in self._newest.tolist())
        root = getattr(scans, "root", None) or getattr(scans, "_root", None)
        if root is not None:
            self.root = root

    def __len__(self) -> int:
        return len(self._newest)

    def numbers(self, index: int) -> list[int]:
        """The scans of sample `index` in `scans`, the oldest first."""
        rounds, place = divmod(index, len(self))  # an endless data set goes on counting
        newest = rounds * len(self.scans) + int(self._newest[place])
        back = min(self.frames - 1, int(self._before[place]) // self.step)
        return [newest - self.step * i for i in range(back, -1, -1)]

    def __getitem__(self, index: int) -> Sample:
        samples = [self.scans[number] for number in self.numbers(index)]
        return merged(samples, frames=self.frames, period=self.period * self.step)


def merged(samples: Sequence[Sample], *, frames: int | None = None, period: float = 0.1) -> Sample:
    """Scans of one drive as one sample in the frame of the newest.

    The cloud gains two attributes: `frame` (`[N] int16`: the newest scan has number `frames - 1`, each
    older one a number less) and `age` (`[N] float32`: seconds from the scan of the point to the newest
    one). The other attributes are those that all scans have. Labels and instances go along; boxes,
    images, pose, name and time are the newest scan's. There is no flow: it belongs to one scan.

    Args:
        samples: the scans, the oldest first, with poses where there is more than one.
        frames: what the newest scan's number counts from; by default as many as there are.
        period: seconds between two of them, where they have no times.

    Raises:
        ValueError: no samples, or one of several has no pose.
    """
    if not samples:
        raise ValueError("merged: no samples")
    newest = samples[-1]
    frames = len(samples) if frames is None else frames
    clouds, ages = [], []
    for position, sample in enumerate(samples):
        cloud, behind = sample.cloud, len(samples) - 1 - position
        if behind:
            for one in (sample, newest):
                if one.pose is None:
                    raise ValueError(
                        f"{one.name or 'a scan'}: has no pose, and scans are put together by their "
                        "poses; take frames=1"
                    )
            assert newest.pose is not None
            assert sample.pose is not None
            relative = as_pose(invert(newest.pose) @ sample.pose, f"{sample.name}: pose")
            motion = Similarity(_orthogonal(relative[:3, :3]), shift=relative[:3, 3])
            cloud = cloud.replace(points=motion.points(cloud.points))
        then, now = _time(sample), _time(newest)
        known = then is not None and now is not None
        ages.append(now - then if known else behind * period)  # type: ignore[operator]
        clouds.append(cloud)
    counts = [len(cloud) for cloud in clouds]
    shared = [
        name
        for name in newest.cloud.attributes
        if all(name in cloud.attributes for cloud in clouds)
    ]
    attributes: dict[str, NDArray] = {
        name: np.concatenate([cloud.attributes[name] for cloud in clouds]) for name in shared
    }
    first = frames - len(samples)
    attributes["frame"] = np.repeat(np.arange(first, frames, dtype=np.int16), counts)
    attributes["age"] = np.repeat(np.array(ages, np.float32), counts)
    return replace(
        newest,
        cloud=newest.cloud.replace(
            points=np.concatenate([cloud.points for cloud in clouds]),
            attributes=attributes,
            valid=None,
        ),
        labels=_gathered([sample.labels for sample in samples], counts, IGNORE, np.uint8),
        instances=_gathered([sample.instances for sample in samples], counts, 0, np.int32),
        flow=None,
    )


def _time(sample: Sample) -> float | None:
    return sample.cloud.time if sample.time is None else sample.time


def _orthogonal(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to one of a text file, which carries few digits."""
    left, _, right = np.linalg.svd(turn)
    return left @ right


def _gathered(
    parts: Sequence[NDArray | None], counts: Sequence[int], missing: int, dtype: type
) -> NDArray | None:
    """All parts one after the other, None if there is none."""
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [
            np.full(count, missing, dtype) if part is None else part
            for part, count in zip(parts, counts, strict=True)
        ]
    )
