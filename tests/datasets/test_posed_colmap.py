"""COLMAP models in binary and text: round trips, every camera model, damaged files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from perception.datasets.posed import read_colmap, read_posed
from perception.io import FormatError

# id, name, parameters
LENSES = [
    (0, "SIMPLE_PINHOLE", [50.0, 21, 14]),
    (1, "PINHOLE", [50.0, 52, 21, 14]),
    (2, "SIMPLE_RADIAL", [50.0, 21, 14, 0.1]),
    (3, "RADIAL", [50.0, 21, 14, 0.1, -0.02]),
    (4, "OPENCV", [50.0, 52, 21, 14, 0.1, -0.02, 0.001, 0.002]),
    (5, "OPENCV_FISHEYE", [50.0, 52, 21, 14, 0.1, -0.02, 0.01, 0.001]),
    (6, "FULL_OPENCV", [50.0, 52, 21, 14, 0.1, -0.02, 0.001, 0.002, 0.01, 0.02, 0.003, 0.001]),
    (8, "SIMPLE_RADIAL_FISHEYE", [50.0, 21, 14, 0.1]),
    (9, "RADIAL_FISHEYE", [50.0, 21, 14, 0.1, -0.02]),
]
POINTS = np.array([[0.3, -0.2, 4.0], [-0.5, 0.4, 3.0], [0.1, 0.6, 5.0]])
# Camera from world: a turn of 0.3 about y, and a shift.
QUATERNION = np.array([np.cos(0.15), 0, np.sin(0.15), 0])
SHIFT = np.array([0.1, -0.3, 0.5])


def colmap_pixels(name: str, n: list[float]) -> np.ndarray:
    """COLMAP's own formulas (sensor/models.h), applied to the points."""
    turn = np.array([[np.cos(0.3), 0, np.sin(0.3)], [0, 1, 0], [-np.sin(0.3), 0, np.cos(0.3)]])
    u, v, w = (POINTS @ turn.T + SHIFT).T
    u, v = u / w, v / w
    single = name in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE",
                      "RADIAL_FISHEYE")  # fmt: skip
    fx, fy, cx, cy = (n[0], n[0], n[1], n[2]) if single else n[:4]
    k = n[3:] if single else n[4:]
    r2 = u * u + v * v
    if "FISHEYE" in name:
        r = np.sqrt(r2)
        t = np.arctan(r)
        k = [*k, 0, 0, 0][:4]
        scale = t * (1 + k[0] * t**2 + k[1] * t**4 + k[2] * t**6 + k[3] * t**8) / r
        x, y = u * scale, v * scale
    elif name in ("SIMPLE_RADIAL", "RADIAL"):
        k = [*k, 0][:2]
        radial = k[0] * r2 + k[1] * r2 * r2
        x, y = u + u * radial, v + v * radial
    elif k:
        k1, k2, p1, p2, k3, k4, k5, k6 = [*k, 0, 0, 0, 0][:8]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        x = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
        y = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    else:
        x, y = u, v
    return np.stack([fx * x + cx, fy * y + cy], axis=1)


def write_model(
    root: Path, suffix: str, lens: tuple[int, str, list[float]], count: int = 9
) -> Path:
    model = root / "sparse" / "0"
    model.mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    names = [f"view {i}.png" for i in range(count)]
    for name in names:
        PILImage.new("RGB", (40, 30)).save(root / "images" / name)
    number, kind, values = lens
    if suffix == ".txt":
        text = " ".join(map(str, values))
        (model / "cameras.txt").write_text(f"# comment\n7 {kind} 40 30 {text}\n")
        pose = " ".join(map(repr, [*QUATERNION.tolist(), *SHIFT.tolist()]))
        seen = ["1.5 2.5 -1 3 4 12", ""]  # a view may have seen nothing: an empty line
        lines = [f"{i} {pose} 7 {name}\n{seen[i % 2]}" for i, name in enumerate(names[::-1])]
        (model / "images.txt").write_text("# comment\n" + "\n".join(lines) + "\n")
        rows = [f"{i} {p[0]} {p[1]} {p[2]} {i} 20 255 0.5 1 2 3 4" for i, p in enumerate(POINTS)]
        (model / "points3D.txt").write_text("# comment\n" + "\n".join(rows) + "\n")
        return model
    head = struct.pack("<Q", 1) + struct.pack("<IiQQ", 7, number, 40, 30)
    (model / "cameras.bin").write_bytes(head + struct.pack(f"<{len(values)}d", *values))
    data = struct.pack("<Q", count)
    for i, name in enumerate(names[::-1]):
        data += struct.pack("<I7dI", i, *QUATERNION, *SHIFT, 7) + name.encode() + b"\0"
        data += struct.pack("<Q", i % 2) + struct.pack("<ddq", 1.5, 2.5, -1) * (i % 2)
    (model / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(POINTS))
    for i, p in enumerate(POINTS):
        data += struct.pack("<Q3d3BdQ", i, *p, i, 20, 255, 0.5, i) + struct.pack("<II", 1, 2) * i
    (model / "points3D.bin").write_bytes(data)
    return model


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens[1])
def test_known_points_fall_on_known_pixels(
    tmp_path: Path, suffix: str, lens: tuple[int, str, list[float]]
) -> None:
    write_model(tmp_path, suffix, lens)
    scene = read_posed(tmp_path)
    assert scene.layout == "colmap"
    assert [image.name for image in scene.images] == [f"view {i}" for i in range(9)]
    assert scene.splits["test"] == (0, 8)
    for image in scene.images:
        pixels, depth = image.camera.project(POINTS)
        np.testing.assert_allclose(pixels, colmap_pixels(lens[1], lens[2]), atol=1e-9)
        assert (depth > 2).all()
        assert image.pixels().shape == (30, 40, 3)
    assert scene.points is not None
    np.testing.assert_allclose(scene.points.points, POINTS, rtol=1e-6)
    assert scene.points.attributes["red"].tolist() == [0, 1, 2]
    assert scene.points.attributes["blue"].tolist() == [255] * 3
    assert scene.points.frame == "world"


def test_scaled_copies_and_the_model_alone(tmp_path: Path) -> None:
    model = write_model(tmp_path, ".bin", LENSES[1])
    (tmp_path / "images_2").mkdir()
    for i in range(9):
        PILImage.new("RGB", (20, 15)).save(tmp_path / "images_2" / f"view {i}.png")
    small = read_posed(tmp_path, images="images_2")[0].camera
    whole = read_colmap(model)[0].camera
    np.testing.assert_allclose(small.project(POINTS)[0] * 2, whole.project(POINTS)[0])


@pytest.mark.parametrize("lens", [(7, "FOV", [50.0, 50, 20, 15, 0.9]),
                                  (10, "THIN_PRISM_FISHEYE", [50.0, 50, 20, 15, *[0.0] * 8])])  # fmt: skip
@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_models_without_counterpart_are_named(
    tmp_path: Path, suffix: str, lens: tuple[int, str, list[float]]
) -> None:
    write_model(tmp_path, suffix, lens)
    with pytest.raises(
        FormatError, match=rf"camera 7 has camera model {lens[1]}.*image_undistorter"
    ):
        read_colmap(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    file = write_model(tmp_path, ".bin", LENSES[4], count=2) / name
    whole = file.read_bytes()
    read_colmap(tmp_path)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(FormatError) as caught:
            read_colmap(tmp_path)
        assert caught.value.path == str(file)
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("cameras.txt", "7 PINHOLE 40 30 1 2 3", "PINHOLE has 4 parameters"),
        ("cameras.txt", "7 PINHOLE 40 x 1 2 3 4", "broken line"),
        ("cameras.txt", "7 MAGIC 40 30 1", "unknown camera model 'MAGIC'"),
        ("cameras.txt", "7 SIMPLE_PINHOLE 40 30 -5 1 1", "focal lengths -5"),
        ("cameras.txt", "7 SIMPLE_PINHOLE 40 30 nan 1 1", "impossible camera"),
        ("cameras.txt", "8 SIMPLE_PINHOLE 40 30 5 1 1", "names camera 7"),
        ("images.txt", "", "holds no image"),
        ("images.txt", "1 1 0 0 0 0 0 0 7", "without a name"),
        ("images.txt", "1 0 0 0 0 0 0 0 7 a.png", "no rotation"),
        ("images.txt", "1 1 0 0 nan 0 0 0 7 a.png", "no rotation"),
        ("images.txt", "1 1 0 0", "broken line"),
        ("points3D.txt", "1 2 3", "broken line"),
        ("points3D.txt", "1 1 2 3 999 0 0 0", "broken line"),
        ("points3D.txt", "1 inf 2 3 9 0 0 0", "not finite"),
    ],
)
def test_damaged_text_names_its_cause(tmp_path: Path, name: str, text: str, cause: str) -> None:
    file = write_model(tmp_path, ".txt", LENSES[1]) / name
    file.write_text(text + "\n")
    with pytest.raises(FormatError, match=cause) as caught:
        read_colmap(tmp_path)
    assert caught.value.remedy


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no COLMAP model; looked for"):
        read_colmap(tmp_path)
    model = write_model(tmp_path, ".bin", LENSES[1])
    (model / "points3D.bin").unlink()
    assert read_colmap(tmp_path).points is None
    (tmp_path / "images" / "view 3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"view 3.png: no such image"):
        read_colmap(tmp_path)
