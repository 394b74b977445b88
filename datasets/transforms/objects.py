"""Random changes of single objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perception.datasets.sample import Sample
from perception.datasets.transforms.base import Transform
from perception.datasets.transforms.overlap import first_box, overlaps
from perception.datasets.transforms.rows import select
from perception.datasets.transforms.similarity import Similarity
from perception.geometry import Boxes3D

__all__ = ["ObjectNoise"]


@dataclass(frozen=True)
class ObjectNoise(Transform):
    """Moves every object a little: its box with its points, their flow and its velocity.

    An object that would overlap another seen from above, or overlaps one already, stays. Points of
    the scene that lie where an object goes are removed.

    shift: standard deviation of the shift along x and y in metres.
    degrees: the largest turn about the object's own axis.
    """

    shift: float = 0.25
    degrees: float = 9.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        boxes = sample.boxes
        if boxes is None or len(boxes) == 0:
            return sample
        old, new = boxes.boxes, boxes.boxes.copy()
        turns = np.deg2rad(rng.uniform(-self.degrees, self.degrees, len(boxes)))
        shifts = rng.normal(0, self.shift, (len(boxes), 2))
        moved = np.zeros(len(boxes), bool)
        for i in range(len(boxes)):
            candidate = new[i : i + 1].copy()
            candidate[0, :2] += shifts[i].astype(np.float32)
            candidate[0, 6] += np.float32(turns[i])
            both = np.concatenate([candidate, old[i : i + 1]])
            others = np.delete(np.concatenate([new, old]), [i, i + len(boxes)], axis=0)
            if not overlaps(both, others).any():
                new[i], moved[i] = candidate[0], True
        points = sample.cloud.points.copy()
        flow = None if sample.flow is None else sample.flow.copy()
        velocity = None if boxes.velocity is None else boxes.velocity.copy()
        owner = first_box(points, old[moved])
        for place, i in enumerate(np.flatnonzero(moved).tolist()):
            turn = Similarity.about_z(float(turns[i]))
            centre, target = old[i, :3].astype(np.float64), new[i, :3].astype(np.float64)
            motion = replace(turn, shift=target - turn.turn @ centre)
            rows = np.flatnonzero(owner == place)
            points[rows] = motion.points(points[rows])
            if flow is not None:
                flow[rows] = turn.vectors(flow[rows])
            if velocity is not None:
                velocity[i] = turn.vectors(velocity[i : i + 1])[0]
        covered = (owner < 0) & (first_box(points, new[moved]) >= 0)
        changed = replace(
            sample,
            cloud=sample.cloud.replace(points=points),
            boxes=Boxes3D(new, boxes.labels, velocity, boxes.track_ids),
            flow=flow,
        )
        return select(changed, ~covered) if covered.any() else changed
