"""What a transform is, how several follow each other, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from perception.datasets.sample import Sample, Scans
from perception.datasets.transforms.paste import ObjectBank, Paste
from perception.datasets.transforms.similarity import Similarity, move

__all__ = ["Compose", "Geometric", "Mix", "Transform"]


class Transform(ABC):
    """A change of one sample. The same sample and state of `rng` give the same result.

    The sample that is given stays as it is: arrays that change are new ones.
    """

    @abstractmethod
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A changed copy of `sample`."""


class Geometric(Transform):
    """A transform that is one similarity of the whole scene; `Compose` joins neighbours into one pass."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Similarity:
        """The similarity for one sample."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return move(sample, self.draw(rng))


class Mix(ABC):
    """Two samples made one. `probability` is that of mixing at all, decided by `Compose`."""

    probability: float

    @abstractmethod
    def __call__(self, sample: Sample, partner: Sample, rng: np.random.Generator) -> Sample:
        """`sample` with parts of `partner`; the pose, name and time are those of `sample`."""


class Compose:
    """Transforms one after the other.

    Neighbouring `Geometric` transforms become one pass over the points. A `Mix` draws its partner
    from `scans`, changed by the transforms that stand before it. `Paste` takes its objects from
    `scans`, which are gathered when the first one is needed.

    Args:
        steps: the transforms in their order.
        scans: where partners and objects come from: the training set.

    Raises:
        ValueError: a step needs other samples and `scans` is not given.
    """

    def __init__(
        self, steps: Sequence[Transform | Mix | Paste], scans: Scans | None = None
    ) -> None:
        self.steps = tuple(steps)
        self.scans = scans
        self._bank: ObjectBank | None = None
        for step in self.steps:
            if isinstance(step, Mix | Paste) and scans is None:
                raise ValueError(
                    f"Compose: {type(step).__name__} needs other samples; give the data set: "
                    "Compose(steps, scans)"
                )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The transformed sample."""
        return self._run(sample, rng, len(self.steps))

    @property
    def bank(self) -> ObjectBank:
        """The objects for `Paste`."""
        if self._bank is None:
            assert self.scans is not None
            self._bank = ObjectBank.of(self.scans)
        return self._bank

    def prepare(self) -> None:
        """Gathers now what would be gathered at the first sample that needs it."""
        if any(isinstance(step, Paste) for step in self.steps):
            _ = self.bank

    def _run(self, sample: Sample, rng: np.random.Generator, count: int) -> Sample:
        pending: Similarity | None = None
        for position, step in enumerate(self.steps[:count]):
            if isinstance(step, Geometric):
                drawn = step.draw(rng)
                pending = drawn if pending is None else drawn @ pending
                continue
            if pending is not None:
                sample, pending = move(sample, pending), None
            if isinstance(step, Transform):
                sample = step(sample, rng)
            elif isinstance(step, Paste):
                sample = step(sample, rng, self.bank)
            elif rng.random() < step.probability:
                assert self.scans is not None
                partner = self.scans[int(rng.integers(len(self.scans)))]
                sample = step(sample, self._run(partner, rng, position), rng)
        return sample if pending is None else move(sample, pending)
