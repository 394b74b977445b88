"""``perception view PATH``: a window, or a picture where there is none."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, read, read_labels


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception view",
        description="Show a point cloud in a window (Open3D), or save a picture of it. Without a "
        "display the picture NAME.png is saved into the current folder.",
    )
    result.add_argument("path", type=Path, metavar="PATH", help="a point-cloud file")
    result.add_argument("--labels", type=Path, help="a .label file (class names from its .json)")
    result.add_argument("--boxes", type=Path, help="boxes: .json, .npy [M, 7] or KITTI .txt")
    result.add_argument("--save", type=Path, metavar="OUT.png", help="save a picture, no window")
    result.add_argument("--layout", help="what a headerless .bin file holds: kitti, nuscenes, ...")
    return result


def run(argv: list[str]) -> int:
    """Show or draw one file."""
    options = parser().parse_args(argv)
    cloud = read(options.path, layout=options.layout)
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    colors: NDArray[np.uint8] | None = None
    if options.labels:
        labels, names, colors = labels_for(cloud, options.labels)
    boxes: Boxes3D | None = None
    box_names: tuple[str, ...] = ()
    if options.boxes:
        from perception.io.boxes import read_boxes

        boxes, box_names = read_boxes(options.boxes)

    from perception.viz import picture, save_picture
    from perception.viz.palette import class_colors, cloud_colors, lifted
    from perception.viz.window import WindowError, show

    if box_names and not names:
        names, colors = box_names, class_colors(len(box_names))
    target = options.save
    if target is None:
        painted = cloud_colors(cloud)
        if labels is not None and colors is not None:
            table = np.concatenate([lifted(colors), [[105, 108, 115]]]).astype(np.uint8)
            painted = table[np.minimum(labels, len(colors))]
        try:
            show(cloud, painted, boxes=boxes, title=options.path.name)
            return 0
        except WindowError as error:
            target = Path(options.path.name).with_suffix(".png")
            print(f"{error}")
    image = picture(
        cloud, labels=labels, names=names, colors=colors, boxes=boxes, title=options.path.name
    )
    save_picture(target, image)
    print(f"wrote {target}")
    return 0


def labels_for(
    cloud: PointCloud, path: Path
) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.uint8]]:
    """Labels of the cloud's points, and the names and colours of their classes.

    The classes are those of ``NAME.json`` beside ``NAME.label`` (as ``perception infer`` writes
    it); without one, those of SemanticKITTI where every id is one of its; else numbers.

    Raises:
        FormatError: the file labels another number of points, or the JSON is not as written.
    """
    from perception.viz.palette import SEMANTIC_KITTI, class_colors

    rows = len(cloud) if cloud.valid is None else len(cloud.valid)
    labels = read_labels(path, count=rows).semantic.astype(np.int64)
    if cloud.valid is not None:
        labels = labels[cloud.valid]
    table = path.with_suffix(".json")
    if table.is_file():
        try:
            content = json.loads(table.read_text())
            names = tuple(str(name) for name in content["classes"])
            colors = np.array(content["colors"], dtype=np.uint8).reshape(len(names), 3)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise FormatError(table, f"does not name classes ({error!r})", "delete it") from None
        return labels, names, colors
    ids = np.array(sorted(SEMANTIC_KITTI))
    if np.isin(labels, ids).all():
        names = tuple(SEMANTIC_KITTI[int(i)][0] for i in ids)
        colors = np.array([SEMANTIC_KITTI[int(i)][1] for i in ids], dtype=np.uint8)
        return np.searchsorted(ids, labels), names, colors
    present = np.unique(labels)
    names = tuple(f"class {i}" for i in present)
    return np.searchsorted(present, labels), names, class_colors(len(names))
