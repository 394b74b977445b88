"""``perception doctor PATH``: which data set this is, what is in it, what is missing or suspicious."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perception.cli import suspicions
from perception.cli.doctor import Finding
from perception.cli.layouts import Layout, layout_at, layouts_below
from perception.datasets.sample import IGNORE, Sample, Scans
from perception.io import FormatError, PointCloud, read, read_labels
from perception.io.files import suffix_of

__all__ = ["examine"]

LOOK_AT = 5  # samples of a data set
ERRORS = (OSError, ValueError, ImportError, IndexError, MemoryError)


def examine(path: Path, target: Path | None = None) -> Iterator[Finding]:
    """Findings about a file or folder; the last one names the picture that was drawn.

    Args:
        path: the file or folder.
        target: the picture; by default a file in the folder for temporary files.

    Raises:
        FileNotFoundError: there is nothing of that name.
        FormatError: a folder holds no data.
    """
    from perception.datasets.posed.guess import layout_of

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; check the path")
    if target is None:
        name = path.resolve().name.replace(" ", "_") or "data"
        target = Path(tempfile.gettempdir()) / f"perception-doctor-{name}.png"
    if layout_of(path):
        yield from _posed(path, target)
        return
    if path.is_file():
        yield from _labels(path) if path.suffix.lower() == ".label" else _file(path, target)
        return
    layout = layout_at(path)
    if layout is not None:
        yield from _data_set(layout, path, target)
        return
    for above in (path.resolve().parent, path.resolve().parent.parent):
        layout = layout_at(above)
        if layout is not None:
            yield Finding(
                "note", "part of", f"{layout.name} in {above}: look at that folder for all"
            )
            break
    below = layouts_below(path)
    if any(name != "point files" for _, name in below):
        for folder, name in below:
            yield Finding("ok", name, f"{folder}: perception doctor {folder}")
        return
    yield from _own(path, target)


class _Heard:
    """Warnings, as lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            yield
        for warning in caught:
            line = " ".join(str(warning.message).split())
            if line not in self.lines:
                self.lines.append(line)

    def findings(self) -> Iterator[Finding]:
        for line in self.lines:
            yield Finding("note", "noticed", line)
        self.lines = []


def _data_set(layout: Layout, root: Path, target: Path) -> Iterator[Finding]:
    reader = f"perception.datasets.readers.{layout.reader}"
    yield Finding("ok", "data set", f"{layout.name} ({reader})")
    heard, opened = _Heard(), []
    failures: dict[str, list[str]] = {}  # the splits that fail with a message
    for split in layout.splits:
        try:
            with heard.listening():
                scans = layout.open(root, split)
        except ERRORS as error:
            failures.setdefault(" ".join(str(error).split()), []).append(split)
            continue
        opened.append(scans)
        drives = sum(len(part) > 1 for part in scans.sequences)
        count = f"{len(scans):,} scans" + (f" in {drives} drives" if drives else "")
        yield Finding("ok", f"split {split}", count)
    for text, splits in failures.items():
        yield Finding("note" if opened else "bad", f"split {', '.join(splits)}", text)
    yield from heard.findings()
    if opened:
        yield from _scans(opened[0], root, target)
        return
    yield Finding("note", "data set", "no split can be read; as plain point files:")
    try:
        yield from _own(root, target)
    except ERRORS as error:
        yield Finding("bad", "points", " ".join(str(error).split()))


def _own(root: Path, target: Path) -> Iterator[Finding]:
    """Data in no public layout."""
    import yaml  # type: ignore[import-untyped]

    from perception.datasets.readers.custom import Custom, is_points, suggest

    try:
        scans = Custom(root)
    except FileNotFoundError:
        raise FormatError(
            root,
            "holds no point cloud and is no data set that is known",
            "docs/custom-data.md says what to lay where",
        ) from None
    except FormatError as error:
        if "does not name" not in str(error):
            yield Finding("bad", "custom", str(error))
            if is_points(Path(error.path)):
                yield from _file(Path(error.path), target)
            return
        said = suggest(root)
        yield Finding("note", "names", f"{error.path} is missing or incomplete; a first one:")
        text = yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=88)
        yield from (Finding("note", "", f"    {line}") for line in text.splitlines())
        scans = Custom(root, description=said)
    if (root / "velodyne").is_dir() and (root / "calib.txt").is_file():
        yield Finding(
            "note",
            "layout",
            "looks like one drive of KITTI odometry; as ROOT/sequences/00 with poses.txt its poses "
            "are read too",
        )
    drives = sum(len(part) > 1 for part in scans.sequences)
    detail = f"{len(scans):,} scans" + (f" in {drives} drives" if drives else "")
    yield Finding("ok", "custom", f"{detail} (perception.datasets.readers.Custom)")
    yield from _scans(scans, root, target)


def _scans(scans: Scans, root: Path, target: Path) -> Iterator[Finding]:
    """Findings about any data set, from a few of its samples."""
    chosen = np.unique(np.linspace(0, len(scans) - 1, LOOK_AT).round().astype(int)).tolist()
    heard, samples = _Heard(), []
    for index in chosen:
        try:
            with heard.listening():
                samples.append(scans[index])
        except ERRORS as error:
            yield Finding("bad", "sample", f"{scans.names[index]}: {' '.join(str(error).split())}")
    yield from heard.findings()
    if not samples:
        return
    yield from _points([sample.cloud for sample in samples])
    yield from _annotations(samples, scans)
    missing = [
        what
        for what, there in (
            ("labels", any(s.labels is not None for s in samples)),
            ("boxes", any(s.boxes is not None for s in samples)),
            ("poses", any(s.pose is not None for s in samples)),
            ("images", any(s.images for s in samples)),
        )
        if not there
    ]
    if missing:
        yield Finding("note", "none of", ", ".join(missing))
    yield from _suspicious(scans, samples, chosen)
    shown = max(samples, key=lambda s: (len(s.boxes or ()) > 0) + (s.labels is not None))
    yield from _drawn(lambda: _picture(shown, scans, root), target)


def _points(clouds: Sequence[PointCloud]) -> Iterator[Finding]:
    sizes = [len(cloud) for cloud in clouds]
    spread = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} .. {max(sizes):,}"
    each = f" a scan, in {len(clouds)} looked at" if len(clouds) > 1 else ""
    lows, highs = zip(*(cloud.bounds() for cloud in clouds), strict=True)
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    yield Finding("ok", "points", f"{spread}{each}, frame {clouds[0].frame}")
    ranges = [f"{axis} {low[i]:.2f} .. {high[i]:.2f}" for i, axis in enumerate("xyz")]
    yield Finding("ok", "extent", ", ".join(ranges) + " m")
    if clouds[0].origin.any():
        origin = " ".join(f"{value:.10g}" for value in clouds[0].origin)
        yield Finding("ok", "origin", f"{origin} (geo-referenced)")
    for name, values in clouds[0].attributes.items():
        numeric = values.dtype.kind in "fiu" and values.size
        limits = f", {values.min():.4g} .. {values.max():.4g}" if numeric else ""
        yield Finding("ok", "attribute", f"{name}: {values.dtype}{limits}")
    if "intensity" not in clouds[0].attributes and "red" not in clouds[0].attributes:
        yield Finding("note", "attribute", "no intensity: networks that use it read zeros")


def _annotations(samples: Sequence[Sample], scans: Scans) -> Iterator[Finding]:
    labelled = [sample.labels for sample in samples if sample.labels is not None]
    if labelled:
        joined = np.concatenate(labelled)
        counts = np.bincount(joined, minlength=256)
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        shares = [
            f"{_class_name(i, scans.classes)} {counts[i] / len(joined):.1%}" for i in order[:12]
        ]
        more = f", and {len(order) - 12} more" if len(order) > 12 else ""
        yield Finding("ok", "labels", f"{', '.join(shares)}{more}")
        if len(labelled) < len(samples):
            yield Finding(
                "note",
                "labels",
                f"{len(samples) - len(labelled)} of {len(samples)} scans have none",
            )
    if any(sample.instances is not None for sample in samples):
        number = sum(
            len(np.unique(s.instances[s.instances > 0])) for s in samples if s.instances is not None
        )
        yield Finding("ok", "instances", f"{number:,} in the scans looked at")
    boxed = [sample for sample in samples if sample.boxes is not None]
    if boxed:
        kinds: dict[str, int] = {}
        inside: list[int] = []
        for sample in boxed:
            assert sample.boxes is not None
            for label in sample.boxes.labels:
                name = _class_name(int(label), scans.box_classes)
                kinds[name] = kinds.get(name, 0) + 1
            inside += sample.boxes.contains(sample.cloud.points).sum(axis=1).tolist()
        listed = ", ".join(
            f"{name} {n}" for name, n in sorted(kinds.items(), key=lambda x: -x[1])[:12]
        )
        yield Finding("ok", "boxes", f"{len(inside)} in {len(boxed)} scans: {listed or 'none'}")
        if inside:
            yield Finding(
                "ok",
                "in boxes",
                f"{min(inside)} .. {max(inside)} points, median {int(np.median(inside))}; "
                f"{inside.count(0)} boxes without points",
            )
    for image in samples[0].images:
        camera = image.camera
        yield Finding(
            "ok",
            "image",
            f"{image.name or 'camera'}: {camera.width} x {camera.height}, {_angle(camera)}",
        )


def _angle(camera: Any) -> str:
    wide = 2 * np.degrees(np.arctan(camera.width / 2 / camera.intrinsics[0, 0]))
    lens = "fisheye" if camera.fisheye else "distorted" if len(camera.distortion) else "pinhole"
    return f"{wide:.0f} degrees wide, {lens}"


def _class_name(number: int, names: Sequence[str]) -> str:
    if number == IGNORE:
        return "no class"
    return names[number] if number < len(names) else f"unknown class {number}"


def _suspicious(scans: Scans, samples: list[Sample], chosen: list[int]) -> Iterator[Finding]:
    lines: list[str] = []
    for line in (line for sample in samples for line in suspicions.axes(sample.cloud)):
        if line.split("(")[0][:40] not in [known.split("(")[0][:40] for known in lines]:
            lines.append(line)
    lines += suspicions.labels(samples, scans.classes)
    lines += suspicions.boxes(samples)
    lines += suspicions.images(samples[0].cloud, samples[0].images)
    heard = _Heard()
    for part in scans.sequences:
        if len(part) < 2:
            continue
        try:
            with heard.listening():
                first, later = scans[part[0]], scans[part[min(5, len(part) - 1)]]
        except ERRORS:
            break  # the samples above said so
        lines += suspicions.poses(first, later)
        if first.pose is not None and later.pose is not None:
            way = float(np.linalg.norm(later.pose[:3, 3] - first.pose[:3, 3]))
            yield Finding("ok", "poses", f"{way:.2f} m in {min(5, len(part) - 1)} frames")
        break
    for image in samples[0].images:
        try:
            image.pixels()
        except ERRORS as error:
            yield Finding("bad", "image", " ".join(str(error).split()))
    yield from (Finding("warn", "suspicious", line) for line in lines)


def _picture(sample: Sample, scans: Scans, root: Path) -> Any:
    from perception.cli.doctor_picture import with_images
    from perception.viz import picture
    from perception.viz.palette import class_colors

    names, colors = list(scans.classes), np.asarray(scans.colors, np.uint8).reshape(-1, 3)
    boxes = sample.boxes
    if sample.labels is None:
        names, colors = [], np.zeros((0, 3), np.uint8)  # white boxes
    elif boxes is not None and len(scans.box_classes):
        # Boxes take their colours from the table of the labels: their classes follow in it.
        place = {name: i for i, name in enumerate(names)}
        extra = [name for name in scans.box_classes if name not in place]
        place |= {name: len(names) + i for i, name in enumerate(extra)}
        names, colors = names + extra, np.concatenate([colors, class_colors(len(extra))])
        table = np.array([place[name] for name in scans.box_classes])
        known = (boxes.labels >= 0) & (boxes.labels < len(table))
        boxes = boxes[known]
        boxes = type(boxes)(boxes.boxes, table[boxes.labels])
    drawn = picture(
        # Rooms lie in the world, but have a ceiling to cut away as well.
        sample.cloud.replace(frame="lidar") if not sample.cloud.origin.any() else sample.cloud,
        labels=sample.labels,
        names=names,
        colors=colors,
        boxes=boxes,
        title=f"{root.resolve().name}  {sample.name}",
    )
    return with_images(drawn, sample.images, sample.cloud)


def _drawn(draw: Callable[[], Any], target: Path) -> Iterator[Finding]:
    from perception.viz import save_picture

    try:
        save_picture(target, draw())
    except ERRORS as error:
        yield Finding("bad", "picture", " ".join(str(error).split()))
        return
    yield Finding("ok", "picture", str(target))


def _labels(path: Path) -> Iterator[Finding]:
    labels = read_labels(path)
    ids = ", ".join(map(str, np.unique(labels.semantic)[:30]))
    yield Finding("ok", "labels", f"{len(labels.semantic):,} points, classes {ids}")


def _file(path: Path, target: Path) -> Iterator[Finding]:
    from perception.viz import picture

    heard = _Heard()
    with heard.listening():
        try:
            cloud = read(path)
        except FormatError as error:
            yield Finding("bad", "file", str(error))
            return
    yield Finding("ok", "file", str(path))
    if suffix_of(path) in (".bin", ".pcd.bin"):
        from perception.io.bin import recognise

        layout = recognise(path, path.read_bytes())
        yield Finding("ok", "layout", f"{layout} (recognised; other: layout=)")
    yield from heard.findings()
    yield from _points([cloud])
    yield from (Finding("warn", "suspicious", line) for line in suspicions.axes(cloud))
    yield from _drawn(lambda: picture(cloud, title=path.name), target)


def _posed(path: Path, target: Path) -> Iterator[Finding]:
    from perception.cli.doctor_picture import elsewhere, posed_picture
    from perception.datasets.posed import read_posed

    try:
        scene = read_posed(path)
    except FileNotFoundError as error:
        folder = elsewhere(path, str(error))
        if folder is None:
            yield Finding("bad", "images", " ".join(str(error).split()))
            return
        yield Finding(
            "note",
            "images",
            f"not where the file says, but in {folder}: read_posed(..., images={folder!r})",
        )
        scene = read_posed(path, images=folder)
    except ERRORS as error:
        yield Finding("bad", "images", " ".join(str(error).split()))
        return
    splits = ", ".join(f"{name} {len(part)}" for name, part in scene.splits.items())
    reader = f"perception.datasets.posed.read_{scene.layout}"
    yield Finding("ok", "data set", f"posed images, {scene.layout} ({reader})")
    yield Finding("ok", "images", f"{len(scene)} ({splits})")
    cameras = {
        f"{c.width} x {c.height}, fx {c.intrinsics[0, 0]:.1f}, {_angle(c)}"
        for c in (image.camera for image in scene.images)
    }
    for line in sorted(cameras)[:4]:
        yield Finding("ok", "camera", line)
    if len(cameras) > 4:
        yield Finding("ok", "camera", f"and {len(cameras) - 4} more")
    point, beside = scene.focus()
    depths = np.array([image.camera.project(point[None])[1][0] for image in scene.images])
    where = " ".join(f"{value:.3g}" for value in point)
    yield Finding(
        "ok",
        "focus",
        f"optical axes pass ({where}) at {np.median(beside):.3g} (median), from {np.median(depths):.3g} away",
    )
    if (depths < 0).mean() > 0.5:
        yield Finding(
            "warn",
            "suspicious",
            "most cameras look away from where their axes meet: OpenGL's axes (y up, z back) in a "
            "file that should have OpenCV's, or the other way round?",
        )
    if scene.near_far is not None:
        near, far = scene.near_far.min(), scene.near_far.max()
        yield Finding("ok", "depths", f"{near:.3g} .. {far:.3g}")
        if near <= 0 or (scene.near_far[:, 0] >= scene.near_far[:, 1]).any():
            yield Finding("warn", "suspicious", "near and far depths are not 0 < near < far")
    if scene.points is not None:
        yield Finding("ok", "points", f"{len(scene.points):,} sparse points")
        seen = np.mean([_in_view(image.camera, scene.points) for image in scene.images])
        yield Finding("ok", "points", f"{seen:.0%} of them in a camera's view, on average")
        if seen < 0.02:
            yield Finding(
                "warn",
                "suspicious",
                "cameras see almost none of the points: inverted poses, wrong axes?",
            )
    for name, files in (("masks", scene.masks), ("depth maps", scene.depths)):
        if files:
            gone = [file for file in files if file is not None and not file.is_file()]
            yield Finding("ok", name, f"{sum(file is not None for file in files)}")
            if gone:
                yield Finding(
                    "bad", name, f"{len(gone)} missing, first {gone[0]}; export them again"
                )
    for image in scene.images[:: max(len(scene) // 4, 1)]:
        try:
            image.pixels()
        except ERRORS as error:
            yield Finding("bad", "image", " ".join(str(error).split()))
    yield from _drawn(lambda: posed_picture(scene, path.resolve().name), target)


def _in_view(camera: Any, cloud: PointCloud) -> float:
    pixels, depth = camera.project(cloud.points)
    inside = (depth > 0) & (pixels >= 0).all(axis=1)
    return float((inside & (pixels < [camera.width, camera.height]).all(axis=1)).mean())
