"""Parts of samples: some of the points, and the points of two samples together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import IGNORE, Sample
from perception.datasets.transforms.overlap import first_box, overlaps
from perception.geometry import Boxes3D

__all__ = ["joined", "select", "spliced"]


def select(sample: Sample, keep: NDArray[np.bool_] | NDArray[np.integer]) -> Sample:
    """The points of a mask or of an index array, with all that belongs to them; boxes stay."""
    rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
    return replace(
        sample,
        cloud=sample.cloud[rows],
        labels=None if sample.labels is None else sample.labels[rows],
        instances=None if sample.instances is None else sample.instances[rows],
        flow=None if sample.flow is None else sample.flow[rows],
    )


def joined(sample: Sample, partner: Sample) -> Sample:
    """All points and boxes of both; name, pose and time of `sample`.

    The attributes are those that both clouds have. Labels: 255 where only one of them is labelled.
    Instances and tracks of `partner` are counted on from those of `sample`. There are boxes and
    flow where both have them, and no images: they show one of the two.
    """
    a, b = sample.cloud, partner.cloud
    attributes = {
        name: np.concatenate([values, b.attributes[name].astype(values.dtype, copy=False)])
        for name, values in a.attributes.items()
        if name in b.attributes and values.shape[1:] == b.attributes[name].shape[1:]
    }
    cloud = a.replace(
        points=np.concatenate([a.points, b.points]), attributes=attributes, valid=None
    )
    offset = _highest_number(sample)
    labels = instances = flow = None
    if sample.labels is not None or partner.labels is not None:
        labels = np.concatenate(
            [_or_constant(s.labels, len(s.cloud), IGNORE, np.uint8) for s in (sample, partner)]
        )
    if sample.instances is not None or partner.instances is not None:
        mine = _or_constant(sample.instances, len(a), 0, np.int32)
        theirs = _or_constant(partner.instances, len(b), 0, np.int32)
        instances = np.concatenate([mine, theirs + np.where(theirs > 0, offset, 0)])
    if sample.flow is not None and partner.flow is not None:
        flow = np.concatenate([sample.flow, partner.flow])
    return replace(
        sample,
        cloud=cloud,
        labels=labels,
        instances=None if instances is None else instances.astype(np.int32),
        boxes=_joined_boxes(sample.boxes, partner.boxes, offset),
        flow=flow,
        images=(),
    )


def spliced(
    sample: Sample,
    mine: NDArray[np.bool_],
    my_boxes: NDArray[np.bool_],
    partner: Sample,
    theirs: NDArray[np.bool_],
    their_boxes: NDArray[np.bool_],
) -> Sample:
    """The chosen points and boxes of two samples, where no object is cut or filled by the other.

    The points in a box go where the box goes, whatever the masks `mine [N]` and `theirs [K]` say.
    A box of `partner` that would overlap one of `sample` is left out with its points, and so are the
    points of each that lie in a box of the other.
    """
    if sample.boxes is None or partner.boxes is None:
        return joined(select(sample, mine), select(partner, theirs))
    a, b = sample.boxes[my_boxes], partner.boxes[their_boxes]
    their_boxes = their_boxes.copy()
    their_boxes[their_boxes] = ~overlaps(b.boxes, a.boxes).any(axis=1)
    b = partner.boxes[their_boxes]
    keep_a = _with_boxes(sample, mine, my_boxes) & (first_box(sample.cloud.points, b.boxes) < 0)
    keep_b = _with_boxes(partner, theirs, their_boxes)
    keep_b &= first_box(partner.cloud.points, a.boxes) < 0
    return joined(
        replace(select(sample, keep_a), boxes=a), replace(select(partner, keep_b), boxes=b)
    )


def _with_boxes(
    sample: Sample, keep: NDArray[np.bool_], kept_boxes: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    assert sample.boxes is not None
    points, boxes = sample.cloud.points, sample.boxes.boxes
    keep = keep & (first_box(points, boxes[~kept_boxes]) < 0)
    return keep | (first_box(points, boxes[kept_boxes]) >= 0)


def _joined_boxes(a: Boxes3D | None, b: Boxes3D | None, offset: int) -> Boxes3D | None:
    if a is None or b is None:
        return None
    velocity = tracks = None
    if a.velocity is not None and b.velocity is not None:
        velocity = np.concatenate([a.velocity, b.velocity])
    if a.track_ids is not None and b.track_ids is not None:
        tracks = np.concatenate([a.track_ids, b.track_ids + offset])
    return Boxes3D(
        np.concatenate([a.boxes, b.boxes]), np.concatenate([a.labels, b.labels]), velocity, tracks
    )


def _highest_number(sample: Sample) -> int:
    highest = 0
    if sample.instances is not None and len(sample.instances):
        highest = max(highest, int(sample.instances.max()))
    if sample.boxes is not None and sample.boxes.track_ids is not None and len(sample.boxes):
        highest = max(highest, int(sample.boxes.track_ids.max()))
    return highest


def _or_constant(values: NDArray | None, count: int, constant: int, dtype: type) -> NDArray:
    return np.full(count, constant, dtype) if values is None else values
