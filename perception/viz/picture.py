"""Pictures of point clouds without a display: a view in perspective, one from above, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud
from perception.viz.camera import Camera, above, fit_box
from perception.viz.palette import IGNORED, brightness, class_colors, cloud_colors, lifted
from perception.viz.raster import draw_lines, nearest_distances, shade, splat_points

SAMPLES = 2  # rendered pixels per side of a pixel of the picture
GROUND = np.array([13, 15, 19], np.float32)  # background
PANEL = (22, 25, 31)
TEXT = (232, 234, 238)
DIM = (150, 155, 165)
EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def render(
    cloud: PointCloud,
    colors: NDArray[np.uint8],
    camera: Camera,
    *,
    boxes: Boxes3D | None = None,
    box_colors: NDArray[np.uint8] | None = None,
    spacing: float | None = None,
) -> NDArray[np.uint8]:
    """One view of a cloud.

    Args:
        cloud: the points.
        colors: ``[N, 3]``.
        camera: the view; its size is that of the picture.
        boxes: drawn as wire frames, with a line from the centre through the front.
        box_colors: ``[M, 3]``, white if None.
        spacing: usual distance of neighbouring points in metres; None measures it.

    Returns:
        The picture ``[H, W, 3]``.
    """
    fine = camera.scaled(SAMPLES)
    width, height = fine.size
    image = np.empty((height, width, 3), np.float32)
    image[:] = GROUND
    zbuffer = np.full((height, width), np.inf, np.float32)
    spacing = point_spacing(cloud) if spacing is None else spacing

    pixels, depth, scale = fine.project(cloud.points)
    least, most = (0.85, 2.2) if camera.parallel else (1.1, 4.0)
    radius = np.clip(0.9 * spacing * scale, least * SAMPLES, most * SAMPLES)
    with np.errstate(invalid="ignore"):
        seen = (
            np.isfinite(depth)
            & (pixels[:, 0] > -radius)
            & (pixels[:, 0] < width + radius)
            & (pixels[:, 1] > -radius)
            & (pixels[:, 1] < height + radius)
        )
    painted = colors[seen].astype(np.float32)
    if not camera.parallel:
        # Haze: what is far fades a little into the ground.
        haze = np.clip((depth[seen] / camera.distance - 1.5) / 8, 0, 0.45)[:, None]
        painted += haze * (GROUND - painted)
    splat_points(pixels[seen], depth[seen], radius[seen], painted, image, zbuffer)
    if camera.parallel:
        # A step of a hundredth of the picture's width counts in full.
        steps = zbuffer * np.float32(100 * camera.focal / camera.size[0])
    else:
        steps = np.log2(zbuffer) * np.float32(25)
    shade(image, steps, SAMPLES, 1.6, 0.25)
    if boxes is not None and len(boxes):
        _draw_boxes(boxes, box_colors, fine, image, zbuffer)
    coarse = image.reshape(height // SAMPLES, SAMPLES, width // SAMPLES, SAMPLES, 3)
    return np.clip(coarse.mean(axis=(1, 3)), 0, 255).astype(np.uint8)


def _draw_boxes(
    boxes: Boxes3D,
    colors: NDArray[np.uint8] | None,
    camera: Camera,
    image: NDArray[np.float32],
    zbuffer: NDArray[np.float32],
) -> None:
    corners = boxes.corners().astype(np.float64)  # [M, 8, 3]
    lines = np.stack([corners[:, EDGES[:, 0]], corners[:, EDGES[:, 1]]], axis=2)
    yaw = boxes.boxes[:, 6].astype(np.float64)
    forward = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=1)
    centre = boxes.boxes[:, :3].astype(np.float64)
    nose = np.stack([centre, centre + forward * (boxes.boxes[:, 3:4] * 0.5 + 0.7)], axis=1)
    lines = np.concatenate([lines, nose[:, None]], axis=1)  # [M, 13, 2, 3]
    if colors is None:
        colors = np.full((len(boxes), 3), 255, np.uint8)
    painted = np.repeat(colors.astype(np.float32), lines.shape[1], axis=0)
    pixels, depth, _ = camera.project(lines.reshape(-1, 3))
    ends = np.concatenate([pixels, depth[:, None]], axis=1).reshape(-1, 2, 3)
    seen = np.isfinite(ends).all(axis=(1, 2))
    ends, painted = np.ascontiguousarray(ends[seen]), painted[seen]
    draw_lines(ends[:, 0].copy(), ends[:, 1].copy(), painted, 0.8 * SAMPLES, image, zbuffer)


def point_spacing(cloud: PointCloud) -> float:
    """The median distance from a point to its nearest neighbour, metres, from 200 samples."""
    if len(cloud) < 2:
        return 1.0
    points = cloud.points
    if len(points) > 1_000_000:
        # A slice keeps the density of its place, a thinned cloud would not.
        points = points[len(points) // 2 - 500_000 :][:1_000_000]
    picked = np.random.default_rng(0).integers(0, len(points), 200)
    distances = nearest_distances(points, picked)
    finite = distances[np.isfinite(distances)]
    return float(np.median(finite)) if len(finite) else 1.0


def _looks_like_scan(cloud: PointCloud) -> bool:
    """Whether the cloud is a scan around a sensor at zero: dense there and thin far away."""
    if cloud.frame != "lidar" or len(cloud) < 100:
        return False
    reach = np.hypot(cloud.points[:, 0], cloud.points[:, 1])
    middle, far = np.percentile(reach, [50, 98])
    low, high = np.percentile(cloud.points, [5, 95], axis=0)
    around = bool(((low[:2] < 0) & (high[:2] > 0)).any())
    return around and far > 15 and middle < 0.45 * far


def cameras(
    cloud: PointCloud, perspective: tuple[int, int], top: tuple[int, int]
) -> tuple[Camera, Camera]:
    """The two views of a picture: in perspective and from above, of the given pixel sizes.

    A scan around a sensor is seen from behind and above it; anything else from a corner, as near
    as its extent without the outermost percent of points allows.
    """
    if len(cloud) == 0:
        return fit_box((-1, -1, -1), (1, 1, 1), 35, 35, perspective), above(
            (-1, -1, -1), (1, 1, 1), top
        )
    if _looks_like_scan(cloud):
        reach = np.hypot(cloud.points[:, 0], cloud.points[:, 1])
        near, far = np.percentile(reach, [65, 93])
        near = float(np.clip(near, 8, 30))
        low = np.array([-0.5 * near, -1.1 * near, float(np.percentile(cloud.points[:, 2], 5))])
        high = np.array([1.6 * near, 1.1 * near, low[2] + 0.15 * near])
        view = fit_box(low, high, 0.0, 27.0, perspective, view_angle=55.0, margin=0.95)
        across = far * top[0] / top[1]
        lowest, highest = np.percentile(cloud.points[:, 2], [1, 99])
        return view, above((-far, -across, lowest), (far, across, highest), top, margin=1.0)
    low, high = np.percentile(cloud.points, [0.5, 99.5], axis=0)
    high = np.maximum(high, low + 1e-3)
    # The long side runs across the picture.
    azimuth = 65.0 if high[0] - low[0] >= high[1] - low[1] else 25.0
    view = fit_box(low, high, azimuth, 40.0, perspective, view_angle=40.0)
    return view, above(low, high, top, up="y")


def _below_ceiling(cloud: PointCloud) -> NDArray[np.bool_] | None:
    """Which points lie below the ceiling of a room, ``[N]``; None where there is no ceiling.

    A ceiling is a layer at the top, an eighth of the height thick, that covers half of the cells
    with points below it. A street's walls and trees do not.
    """
    if len(cloud) < 1000 or cloud.frame == "world":
        return None
    low, high = np.percentile(cloud.points, [1, 99], axis=0)
    extent = np.maximum(high - low, 1e-6)
    cells = np.clip(((cloud.points[:, :2] - low[:2]) / extent[:2] * 24).astype(int), 0, 23)
    cells = cells[:, 0] * 24 + cells[:, 1]
    under = cloud.points[:, 2] < high[2] - extent[2] / 8
    floor = np.bincount(cells[under], minlength=576) > 0
    roof = np.bincount(cells[~under], minlength=576) > 0
    covered = float((floor & roof).sum()) / max(float(floor.sum()), 1.0)
    return under if covered > 0.5 else None


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _round_length(metres: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is no longer than `metres`."""
    power = 10.0 ** np.floor(np.log10(max(metres, 1e-9)))
    return float(power * max(step for step in (1, 2, 5) if step * power <= metres * 1.0001))


def _scale_bar(draw: ImageDraw.ImageDraw, camera: Camera, left: int, bottom: int) -> None:
    length = _round_length(0.25 * camera.size[0] / camera.focal)
    pixels = length * camera.focal
    x, y = left + 14, bottom - 16
    draw.line([(x, y), (x + pixels, y)], fill=TEXT, width=2)
    for end in (x, x + pixels):
        draw.line([(end, y - 4), (end, y + 4)], fill=TEXT, width=2)
    draw.text((x + pixels + 8, y), f"{length:g} m", fill=TEXT, font=_font(14), anchor="lm")


def _legend_entries(
    labels: NDArray[np.integer], names: Sequence[str], colors: NDArray[np.uint8]
) -> list[tuple[str, tuple[int, ...]]]:
    """Name with share, and colour, of the classes that occur, the most frequent first."""
    ids, counts = np.unique(labels, return_counts=True)
    entries = []
    for i in np.argsort(-counts, kind="stable"):
        share = 100 * counts[i] / max(len(labels), 1)
        known = ids[i] < len(names)
        name = names[ids[i]] if known else "no class"
        color = colors[ids[i]] if known else IGNORED
        percent = f"{share:.0f} %" if share >= 1 else "<1 %"
        entries.append((f"{name}  {percent}", tuple(int(c) for c in color)))
    return entries


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    entries: list[tuple[str, tuple[int, ...]]],
    left: int,
    top: int,
    width: int,
) -> None:
    """Chips and names in two rows of equal columns; a third row where two cannot hold them."""
    if not entries:
        return
    rows = 1 if len(entries) <= 6 else 2 if len(entries) <= 16 else 3
    columns = -(-len(entries) // rows)
    size = 16 if columns <= 8 else 13
    step = min(width / columns, 220)
    for i, (text, color) in enumerate(entries):
        x = left + (i % columns) * step
        y = top + (i // columns) * 26 + 13
        draw.rounded_rectangle([x, y - 8, x + 16, y + 8], 4, fill=color)
        draw.text((x + 23, y), text, fill=TEXT, font=_font(size), anchor="lm")


def picture(
    cloud: PointCloud,
    *,
    labels: ArrayLike | None = None,
    names: Sequence[str] = (),
    colors: ArrayLike | None = None,
    boxes: Boxes3D | None = None,
    title: str = "",
    size: tuple[int, int] = (1600, 900),
) -> Image.Image:
    """A picture of a cloud: in perspective on the left, from above on the right, a legend below.

    Args:
        cloud: the points.
        labels: ``[N]`` integers, positions in `names`; others, such as 255, are drawn grey. None
            colours by the cloud's own colours, or else by height and intensity.
        names: the classes; numbers if there are none.
        colors: ``[len(names), 3]`` in 0..255; distinct ones if None.
        boxes: drawn in the colour of their class, white where it has none.
        title: one line above the picture.
        size: width and height in pixels, 640x360 at least.

    Returns:
        The picture, RGB.

    Raises:
        ValueError: labels or colours do not fit.
    """
    width, height = size
    if width < 640 or height < 360:
        raise ValueError(f"picture: size {width}x{height} is below 640x360")
    classes = np.asarray(labels) if labels is not None else None
    if classes is not None and classes.dtype.kind == "u":
        classes = classes.astype(np.int64)
    if classes is not None and (classes.shape != (len(cloud),) or classes.dtype.kind not in "iu"):
        raise ValueError(
            f"picture: labels has shape {list(classes.shape)} and dtype {classes.dtype}, expected "
            f"integers [{len(cloud)}]"
        )
    if classes is not None and not names:
        top_class = int(classes[classes < 255].max(initial=-1))
        names = [
            f"class {i}"
            for i in range(top_class + 1 if colors is None else len(np.asarray(colors)))
        ]
    table = class_colors(len(names)) if colors is None else np.asarray(colors, dtype=np.uint8)
    if table.shape != (len(names), 3):
        raise ValueError(f"picture: colors has shape {list(table.shape)} for {len(names)} names")
    table = lifted(table)

    entries: list[tuple[str, tuple[int, ...]]] = []
    if classes is None:
        painted = cloud_colors(cloud)
    else:
        lookup = np.concatenate([table, IGNORED[None]])
        known = (classes >= 0) & (classes < len(names))
        painted = lookup[np.where(known, classes, len(names))]
        painted = (painted * brightness(cloud, 0.8)[:, None]).astype(np.uint8)
        entries = _legend_entries(classes, names, table)
    box_colors = None
    if boxes is not None and len(table):
        lookup = np.concatenate([table, [[255, 255, 255]]]).astype(np.uint8)
        known = (boxes.labels >= 0) & (boxes.labels < len(table))
        box_colors = lookup[np.where(known, boxes.labels, len(table))]

    count = f"{len(cloud):,} points".replace(",", " ")
    under = _below_ceiling(cloud)
    if under is not None:
        cloud, painted = cloud[under], painted[under]
        count += ", ceiling cut away"

    head = 44 if title else 0
    rows = 0 if not entries else 1 if len(entries) <= 6 else 2 if len(entries) <= 16 else 3
    foot = rows * 26 + 16 if rows else 0
    body = (height - head - foot) // 2 * 2
    left_width = int(width * 0.62) // 2 * 2
    gap = 2
    right_width = (width - left_width - gap) // 2 * 2
    views = cameras(cloud, (left_width, body), (right_width, body))

    canvas = Image.new("RGB", size, PANEL)
    draw = ImageDraw.Draw(canvas)
    spacing = point_spacing(cloud)
    for view, left in zip(views, (0, left_width + gap), strict=True):
        pixels = render(cloud, painted, view, boxes=boxes, box_colors=box_colors, spacing=spacing)
        canvas.paste(Image.fromarray(pixels), (left, head))
    if len(cloud):
        _scale_bar(draw, views[1], left_width + gap, head + body)
        _mark_sensor(draw, cloud, views[1], (left_width + gap, head))
    if title:
        draw.text((16, head // 2), title, fill=TEXT, font=_font(20), anchor="lm")
        draw.text((width - 16, head // 2), count, fill=DIM, font=_font(16), anchor="rm")
    _draw_legend(draw, entries, 16, head + body + 8, width - 32)
    return canvas


def _mark_sensor(
    draw: ImageDraw.ImageDraw, cloud: PointCloud, camera: Camera, corner: tuple[int, int]
) -> None:
    """A small arrow where the sensor stands, pointing forward."""
    if not _looks_like_scan(cloud):
        return
    (x, y), *_ = camera.project(np.zeros((1, 3)))[0]
    if not (0 <= x < camera.size[0] and 0 <= y < camera.size[1]):
        return
    x, y = x + corner[0], y + corner[1]
    shape = [(x, y - 9), (x + 6, y + 6), (x, y + 3), (x - 6, y + 6)]
    draw.polygon(shape, fill=TEXT, outline=(0, 0, 0))


def save_picture(path: str | PathLike[str], image: Image.Image) -> None:
    """Save a picture; the format is found by the name (``.png``, ``.jpg``).

    Raises:
        FormatError: the name ends in no picture format, or the file cannot be written.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    except (OSError, ValueError) as error:
        raise FormatError(
            file,
            f"cannot be written as a picture ({error})",
            "name a .png file in a folder of yours",
        ) from None
