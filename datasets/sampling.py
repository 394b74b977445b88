"""In which order a training sees its samples: shuffled, shared by processes, balanced, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from perception.datasets.kept import kept
from perception.datasets.readers.index import progress
from perception.datasets.sample import IGNORE, Scans

__all__ = ["EpochSampler", "ResumableLoader", "ShareSampler", "balanced_weights", "class_counts"]

Key = tuple[int, int]
"""Epoch and number of a sample: all that a training item depends on."""


class EpochSampler(DistributedSampler[Key]):
    """Keys `(epoch, index)` of one process.

    The order is a function of the seed and the epoch alone: sample i of an epoch goes to process i
    modulo their number, so that a step of P processes with batches of B sees the samples that one
    process with batches of P B sees. The samples that fill no whole round are left out.

    (It is a `DistributedSampler` because the trainer would hide any other behind one of its own in a
    training of several processes.)

    Args:
        length: samples an epoch.
        processes: number of processes that share them.
        process: which of them this is.
        seed: of the order.
        weights: `[length]`, how often each sample shall come relative to the others: a sample of
            weight w comes `length * w / sum` times, rounded up or down at random; None: once.
        endless: no order and no repetition: epoch e has the indices `e * length` and up.

    Raises:
        ValueError: weights of another length, or of endless samples.
    """

    def __init__(
        self,
        length: int,
        processes: int = 1,
        process: int = 0,
        *,
        seed: int = 0,
        weights: NDArray[np.floating] | None = None,
        endless: bool = False,
    ) -> None:
        if weights is not None and (endless or len(weights) != length):
            raise ValueError(
                f"EpochSampler: {len(weights)} weights for {length} samples"
                f"{' without end, which cannot be counted' if endless else ''}"
            )
        super().__init__(range(length), processes, process, shuffle=False, drop_last=True)  # type: ignore[arg-type]
        self.num_samples = length // processes  # torch would round up
        self.length = length
        self.seed = seed
        self.weights = weights
        self.endless = endless
        self.skip = 0
        """Samples of this process that the next epoch begins after."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """`[length]` indices of an epoch, of all processes."""
        if self.endless:
            return np.arange(epoch * self.length, (epoch + 1) * self.length)
        rng = np.random.default_rng([self.seed, epoch])
        if self.weights is None:
            return rng.permutation(self.length)
        # Systematic sampling: evenly spaced marks on the line of all weights.
        ends = np.cumsum(self.weights, dtype=np.float64)
        marks = (rng.random() + np.arange(self.length)) * (ends[-1] / self.length)
        picked = np.searchsorted(ends, marks, side="right").clip(max=self.length - 1)
        return rng.permutation(picked)

    def __iter__(self) -> Iterator[Key]:
        epoch, skip, self.skip = self.epoch, self.skip, 0
        mine = self.order(epoch)[self.rank :: self.num_replicas][: self.num_samples]
        return iter([(epoch, index) for index in mine[skip:].tolist()])


class ShareSampler(DistributedSampler[int]):
    """Every process's share of `length` samples, each sample once: for exact evaluation."""

    def __init__(self, length: int, processes: int = 1, process: int = 0) -> None:
        super().__init__(range(length), processes, process, shuffle=False)  # type: ignore[arg-type]
        self.num_samples = len(range(process, length, processes))
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.length, self.num_replicas))


class ResumableLoader(DataLoader):
    """A loader over an `EpochSampler` that knows, and can go on from, the place where it stands.

    The trainer keeps `state_dict()` in its checkpoints and gives it back when it resumes. The place
    is counted in batches that were taken out, so batches that workers have made ahead do not matter.
    The same samples follow in the same order, also with another number of workers, or of processes
    as long as the batch of all processes together stays the same.
    """

    sampler: EpochSampler
    _taken = 0
    _skipped = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: workers start when the first batch is asked for, when the epoch is set.
        self._taken = self._skipped
        self.sampler.skip = self._skipped * self._per_process
        self._skipped = 0
        for batch in super().__iter__():
            self._taken += 1
            yield batch

    @property
    def _per_process(self) -> int:
        assert self.batch_size is not None
        return self.batch_size

    @property
    def _together(self) -> int:
        return self._per_process * self.sampler.num_replicas

    def state_dict(self) -> dict[str, int]:
        """Where the training stands: the epoch, and samples of it that were seen by all processes."""
        return {"epoch": self.sampler.epoch, "samples": self._taken * self._together}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there.

        Raises:
            ValueError: the batch of all processes together has another size that does not fit.
        """
        batches, rest = divmod(state["samples"], self._together)
        if rest:
            raise ValueError(
                f"the checkpoint was written after {state['samples']} samples of an epoch, which is no "
                f"whole number of batches of {self._together}; resume with the same batch_size times "
                "number of processes"
            )
        done = batches >= len(self)
        self.sampler.set_epoch(state["epoch"] + done)
        self._skipped = 0 if done else batches


def class_counts(scans: Scans, *, boxes: bool = False) -> NDArray[np.int64]:
    """`[len(scans), C]`: points of each class in each scan, or boxes where points have no classes.

    All samples are read once, with a progress bar. Where the data set has a folder (`scans.root`) the
    result is kept like the readers' indices.

    Args:
        scans: the data set.
        boxes: count boxes, also where points have classes.

    Raises:
        ValueError: the data set has no classes, or it has no end.
    """
    if getattr(scans, "endless", False):
        raise ValueError(f"{type(scans).__name__} has no end, so its classes cannot be counted")
    boxes = boxes or not scans.classes
    classes = scans.box_classes if boxes else scans.classes
    if not classes:
        raise ValueError(f"{type(scans).__name__} has no classes to balance")

    def counted() -> dict[str, NDArray]:
        counts = np.zeros((len(scans), len(classes)), np.int64)
        with progress(len(scans), "counting classes", "scan") as bar:
            for index in range(len(scans)):
                sample = scans[index]
                bar.update()
                labels: NDArray = np.zeros(0, np.int64)
                if boxes and sample.boxes is not None:
                    labels = sample.boxes.labels
                elif not boxes and sample.labels is not None:
                    labels = sample.labels[sample.labels != IGNORE]
                counts[index] = np.bincount(labels, minlength=len(classes))[: len(classes)]
        return {"counts": counts}

    kind = "boxes-1" if boxes and scans.classes else "classes-1"
    return kept(kind, scans, counted)["counts"]


def balanced_weights(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """How often each scan shall be seen so that scans of every class are seen equally often.

    As if a class were drawn first, then one of the scans that it occurs in (Zhu and others, CBGS,
    2019). Scans without any class weigh nothing.

    Args:
        counts: `[N, C]`, how much of each class is in each scan.

    Returns:
        `[N]`, sum 1.

    Raises:
        ValueError: no scan has any class.
    """
    present = counts > 0
    scans = present.sum(axis=0)
    if not scans.any():
        raise ValueError("balanced_weights: no scan has a label of any class")
    share = present / np.maximum(scans, 1)
    weights: NDArray[np.float64] = share.sum(axis=1) / share.sum()
    return weights
