"""What ``perception doctor`` draws beside a cloud: images with points in them, cameras in space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw

from perception.datasets.posed import PosedImages
from perception.datasets.sample import Image
from perception.geometry import Camera
from perception.io import PointCloud
from perception.viz import picture
from perception.viz.palette import colormap

__all__ = ["elsewhere", "posed_picture", "with_images"]

STRIP = 250  # pixels: height of the images below the cloud
MOST = 6


def with_images(
    drawn: PILImage.Image, images: Sequence[Image], cloud: PointCloud
) -> PILImage.Image:
    """The picture of a cloud, and below it its images with the points that fall into them."""
    tiles = []
    for image in images[:MOST]:
        try:
            pixels = image.pixels()
        except (OSError, ValueError):
            continue  # a finding of its own says so
        tiles.append(_tile(pixels, image.camera, cloud, image.name))
    return _stacked(drawn, tiles)


def _tile(
    pixels: NDArray[np.uint8], camera: Camera, cloud: PointCloud | None, name: str
) -> PILImage.Image:
    if pixels.shape[2] == 4:  # over grey: a black object on a black ground cannot be seen
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = (pixels[..., :3] * alpha + 90 * (1 - alpha)).astype(np.uint8)
    scale = STRIP / pixels.shape[0]
    tile = PILImage.fromarray(pixels).resize((max(round(pixels.shape[1] * scale), 1), STRIP))
    draw = ImageDraw.Draw(tile)
    if cloud is not None and len(cloud):
        points = cloud.points[:: max(len(cloud) // 60_000, 1)]
        where, depth = camera.project(points)
        seen = (depth > 0.1) & (where >= 0).all(axis=1)
        seen &= (where < [camera.width, camera.height]).all(axis=1)
        where, depth = where[seen] * scale, depth[seen]
        low, high = np.percentile(depth, [2, 98]) if len(depth) else (0.0, 1.0)
        colors = colormap(1 - np.clip((depth - low) / max(high - low, 1e-6), 0, 1))
        for i in np.argsort(-depth):
            x, y = where[i]
            draw.rectangle([x, y, x + 1, y + 1], fill=tuple(map(int, colors[i])))
    draw.rectangle([0, 0, 8 + 7 * len(name), 18], fill=(22, 25, 31))
    draw.text((4, 3), name, fill=(232, 234, 238))
    return tile


def _stacked(drawn: PILImage.Image, tiles: Sequence[PILImage.Image]) -> PILImage.Image:
    """Tiles in rows below a picture, as many a row as its width holds."""
    if not tiles:
        return drawn
    rows: list[list[PILImage.Image]] = [[]]
    for tile in tiles:
        if tile.width > drawn.width:
            tile = tile.resize((drawn.width, round(tile.height * drawn.width / tile.width)))
        if rows[-1] and sum(t.width + 4 for t in rows[-1]) + tile.width > drawn.width:
            rows.append([])
        rows[-1].append(tile)
    height = drawn.height + sum(max(tile.height for tile in row) + 4 for row in rows)
    canvas = PILImage.new("RGB", (drawn.width, height), (22, 25, 31))
    canvas.paste(drawn, (0, 0))
    top = drawn.height + 4
    for row in rows:
        left = 0
        for tile in row:
            canvas.paste(tile, (left, top))
            left += tile.width + 4
        top += max(tile.height for tile in row) + 4
    return canvas


def posed_picture(scene: PosedImages, title: str) -> PILImage.Image:
    """The cameras as pyramids, coloured by split, with the sparse points; below it some images."""
    origins = np.stack([image.camera.pose[:3, 3] for image in scene.images])
    size = 0.06 * max(float(np.linalg.norm(np.ptp(origins, axis=0))), 1e-6)
    split_of = np.zeros(len(scene), np.int64)
    for number, part in enumerate(scene.splits.values()):
        split_of[list(part)] = number
    points, kinds = [], []
    for number, image in enumerate(scene.images):
        frame = _pyramid(image.camera, size)
        points.append(frame)
        kinds.append(np.full(len(frame), split_of[number]))
    names, colors = ["train", "val", "test"], [[90, 180, 255], [255, 200, 60], [255, 90, 90]]
    if scene.points is not None:
        points.append(scene.points.points.astype(np.float64))
        kinds.append(np.full(len(scene.points), 3))
        names, colors = [*names, "sparse points"], [*colors, [170, 175, 180]]
    joined = np.concatenate(points)
    if scene.points is not None:  # far outliers of a sparse cloud would hide the rest
        low, high = np.percentile(joined, [1, 99], axis=0)
        kept = ((joined >= low - (high - low)) & (joined <= high + (high - low))).all(axis=1)
        joined, kinds = joined[kept], [np.concatenate(kinds)[kept]]
    drawn = picture(
        PointCloud(joined.astype(np.float32), frame="world"),
        labels=np.concatenate(kinds),
        names=names,
        colors=colors,
        title=title,
    )
    tiles = []
    for image in scene.images[:: max(len(scene) // MOST, 1)][:MOST]:
        try:
            tiles.append(_tile(image.pixels(), image.camera, scene.points, image.name))
        except (OSError, ValueError):
            continue
    return _stacked(drawn, tiles)


def _pyramid(camera: Camera, size: float) -> NDArray[np.float64]:
    """Points along the edges of the part of space that a camera sees, ``[K, 3]``."""
    w, h = float(camera.width), float(camera.height)
    origin, rays = camera.rays(np.array([[0, 0], [w, 0], [w, h], [0, h], [w / 2, h / 2]]))
    depth = rays @ camera.pose[:3, 2]
    # Of very wide lenses the corner is cut: the plane of the picture would be far away.
    tips = origin + rays / np.maximum(depth, 0.2)[:, None] * size
    share = np.linspace(0, 1, 40)[:, None]
    edges = [origin + share * (tip - origin) for tip in tips]
    edges += [tips[i] + share * (tips[(i + 1) % 4] - tips[i]) for i in range(4)]
    return np.concatenate(edges)


def elsewhere(path: Path, complaint: str) -> str | None:
    """A folder beside a scene's file that holds the image that a complaint says is missing."""
    root = path if path.is_dir() else path.parent
    missing = Path(complaint.split(": no such image")[0])
    if missing == Path(complaint):
        return None
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    for folder in folders:
        if (folder / missing.name).is_file():
            return folder.name
    return None
