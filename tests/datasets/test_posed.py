"""transforms.json and LLFF: known points fall on known pixels, damaged files name their cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from perception.datasets.posed import PosedImages, read_llff, read_posed, read_transforms
from perception.io import FormatError, PointCloud, write

POINT = np.array([[0.3, -0.2, 0.1]])


def looking(at: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """World-from-camera with OpenGL's axes (x right, y up, z back), world z up."""
    back = (eye - at) / np.linalg.norm(eye - at)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return pose


def ring(count: int = 9) -> list[np.ndarray]:
    angles = np.linspace(0, 5, count)
    return [looking(np.zeros(3), np.array([4 * np.cos(a), 4 * np.sin(a), 1.5])) for a in angles]


def expected_pixel(pose: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """By hand: along the camera's own axes; y up and z back are OpenGL's."""
    right, up, back = pose[:3, :3].T @ (POINT[0] - pose[:3, 3])
    return np.array([cx + fx * right / -back, cy - fy * up / -back])


def save_images(folder: Path, names: list[str], size: tuple[int, int] = (40, 30)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        PILImage.new("RGB", size, (i, 10, 20)).save(folder / name)


def write_transforms(file: Path, content: dict[str, Any], names: list[str]) -> None:
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist()}
        for name, pose in zip(names, ring(len(names)), strict=True)
    ]
    file.write_text(json.dumps({**content, "frames": frames}))


def check_pixels(scene: PosedImages, fx: float, fy: float, cx: float, cy: float) -> None:
    for image, pose in zip(scene.images, ring(len(scene)), strict=True):
        pixel, depth = image.camera.project(POINT)
        np.testing.assert_allclose(pixel[0], expected_pixel(pose, fx, fy, cx, cy), atol=1e-9)
        assert 3 < depth[0] < 5.5
    point, distances = scene.focus()
    np.testing.assert_allclose(point, 0, atol=1e-9)
    assert distances.max() < 1e-9


def test_blender(tmp_path: Path) -> None:
    """A field of view, no sizes, no suffixes, a file a split."""
    for split in ("train", "test"):
        save_images(tmp_path / split, [f"r_{i}.png" for i in range(4)])
        names = [f"./{split}/r_{i}" for i in range(4)]
        write_transforms(tmp_path / f"transforms_{split}.json", {"camera_angle_x": 0.7}, names)
    scene = read_posed(tmp_path)
    assert scene.layout == "transforms"
    assert len(scene) == 8
    assert scene.splits == {"train": (0, 1, 2, 3), "val": (), "test": (4, 5, 6, 7)}
    assert [image.name for image in scene.split("test")] == ["r_0", "r_1", "r_2", "r_3"]
    one = read_posed(tmp_path / "transforms_test.json")
    assert one.splits["test"] == (0, 1, 2, 3)
    focal = 20 / np.tan(0.35)
    check_pixels(one, focal, focal, 20, 15)
    assert one[2].pixels()[0, 0].tolist() == [2, 10, 20]
    assert one.mask(0) is one.depth(0) is one.near_far is one.points is None
    with pytest.raises(ValueError, match="split 'validation' is none of"):
        one.split("validation")


def test_nerfstudio(tmp_path: Path) -> None:
    """Focal lengths, overrides of a frame, lists, masks, depths, points, scaled copies."""
    names = [f"images/frame_{i}.jpg" for i in range(9)]
    save_images(tmp_path / "images", [Path(name).name for name in names])
    save_images(tmp_path / "images_2", [Path(name).name for name in names], (20, 15))
    write(tmp_path / "sparse.ply", PointCloud(np.arange(12.0).reshape(4, 3)))
    content = {
        "camera_model": "OPENCV", "fl_x": 50.0, "fl_y": 52, "cx": 21.0, "cy": 14.0, "w": 40, "h": 30,
        "k1": 0.1, "k2": -0.02, "p1": 0.001, "p2": 0.002, "ply_file_path": "sparse.ply",
        "train_filenames": names[:6], "val_filenames": names[6:8], "test_filenames": names[8:],
    }  # fmt: skip
    file = tmp_path / "transforms.json"
    write_transforms(file, content, names)
    saved = json.loads(file.read_text())
    saved["frames"][1] |= {"fl_x": 60, "k1": 0, "k2": 0.0, "p1": 0, "p2": 0}
    saved["frames"][2] |= {"mask_path": "mask.png", "depth_file_path": "depth.png"}
    saved["frames"][3] |= {"depth_file_path": "depth.npy"}
    file.write_text(json.dumps(saved))
    mask = np.zeros((30, 40), np.uint8)
    mask[3:5] = 255
    PILImage.fromarray(mask).save(tmp_path / "mask.png")
    PILImage.fromarray(mask.astype(np.uint16) * 10).save(tmp_path / "depth.png")
    np.save(tmp_path / "depth.npy", np.full((30, 40), np.inf))
    scene = read_posed(tmp_path)
    assert [len(scene.splits[split]) for split in ("train", "val", "test")] == [6, 2, 1]
    assert scene.points is not None
    np.testing.assert_array_equal(scene.points.points, np.arange(12).reshape(4, 3))
    assert scene[0].camera.distortion.tolist() == [0.1, -0.02, 0.001, 0.002]
    assert not scene[0].camera.fisheye
    pixel = scene[1].camera.project(POINT)[0][0]
    np.testing.assert_allclose(pixel, expected_pixel(ring(9)[1], 60, 52, 21, 14))
    # OpenCV's model by hand.
    right, up, back = ring(9)[0][:3, :3].T @ (POINT[0] - ring(9)[0][:3, 3])
    x, y = right / -back, up / back
    r2 = x * x + y * y
    radial = 1 + 0.1 * r2 - 0.02 * r2 * r2
    u = 21 + 50 * (x * radial + 2 * 0.001 * x * y + 0.002 * (r2 + 2 * x * x))
    np.testing.assert_allclose(scene[0].camera.project(POINT)[0][0, 0], u)
    kept, depth = scene.mask(2), scene.depth(2)
    assert kept is not None
    assert depth is not None
    assert np.flatnonzero(kept.all(axis=1)).tolist() == [3, 4]
    assert kept.sum() == 80
    np.testing.assert_allclose(depth[3], 2.55)
    assert scene.mask(0) is None
    unknown = scene.depth(3)
    assert unknown is not None
    assert not unknown.any()
    small = read_posed(tmp_path, images="images_2")
    assert small[1].pixels().shape == (15, 20, 3)
    np.testing.assert_allclose(small[1].camera.project(POINT)[0][0], pixel / 2)


@pytest.mark.parametrize("key", ["camera_model", "is_fisheye"])
def test_fisheye(tmp_path: Path, key: str) -> None:
    save_images(tmp_path, ["a.png", "b.png"])
    content = {"fl_x": 20, "k1": 0.05, "k2": 0.01, "k3": 0.002, "k4": 0.001}
    content[key] = "OPENCV_FISHEYE" if key == "camera_model" else True  # type: ignore[assignment]
    write_transforms(tmp_path / "transforms.json", content, ["a.png", "b.png"])
    camera = read_posed(tmp_path)[0].camera
    assert camera.fisheye
    assert camera.distortion.tolist() == [0.05, 0.01, 0.002, 0.001]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"fl_x": None}, "fl_x = 'None', no number"),
        ({"fl_x": 0}, "neither fl_x nor camera_angle_x"),
        ({"fl_x": 0, "camera_angle_x": 40.0}, "in radians"),
        ({"fl_x": float("nan")}, "no number"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera model 'EQUIRECTANGULAR'; undistort"),
        ({"k4": 0.1}, "k4 without OPENCV_FISHEYE"),
        ({"frames": []}, "no list 'frames'"),
        ({"frames": [{"transform_matrix": 1}]}, "frame 0 has no 'file_path'"),
        ({"frames": [{"file_path": "a.png"}]}, "frame 0 has no valid camera"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": [[2, 0, 0, 0]] * 4}]}, "rotation"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": "x"}]}, "frame 0 has no valid"),
        ({"train_filenames": ["z.png"]}, "lists 'z.png' in train_filenames"),
        ({"w": 400, "h": 30}, "40 x 30 pixels, its camera 400 x 30"),
    ],
)
def test_damaged_transforms_name_their_cause(
    tmp_path: Path, change: dict[str, Any], cause: str
) -> None:
    save_images(tmp_path, ["a.png", "b.png"])
    file = tmp_path / "transforms.json"
    write_transforms(file, {"fl_x": 50.0}, ["a.png", "b.png"])
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(FormatError, match=cause) as caught:
        read_posed(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.remedy


def test_missing_files_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"looked for transforms.json.*sparse/0.*poses_bounds"
    ):
        read_posed(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_posed(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"transforms.json: no such file"):
        read_transforms(tmp_path)
    write_transforms(tmp_path / "transforms.json", {"fl_x": 50.0}, ["x/a", "b.png"])
    with pytest.raises(FileNotFoundError, match=r"x/a.png: no such image; .*images="):
        read_posed(tmp_path)
    save_images(tmp_path / "x", ["a.png"])
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"b.png: is no readable image"):
        read_posed(tmp_path)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(FormatError, match="is no JSON"):
        read_posed(tmp_path)


def write_llff(root: Path, count: int = 9, bounds: tuple[float, float] = (1.2, 9.5)) -> np.ndarray:
    rows = []
    for pose in ring(count):
        # Columns down, right, back of OpenGL's right, up, back.
        matrix = np.stack([-pose[:3, 1], pose[:3, 0], pose[:3, 2], pose[:3, 3]], axis=1)
        size = np.array([[30.0], [40.0], [55.0]])
        rows.append([*np.concatenate([matrix, size], axis=1).ravel(), *bounds])
    table = np.array(rows)
    np.save(root / "poses_bounds.npy", table)
    return table


def test_llff(tmp_path: Path) -> None:
    write_llff(tmp_path)
    save_images(tmp_path / "images", [f"IMG_{i}.JPG" for i in range(9)])
    save_images(tmp_path / "images_4", [f"{i}.png" for i in range(9)], (10, 8))
    scene = read_posed(tmp_path)
    assert scene.layout == "llff"
    assert scene.splits["test"] == (0, 8)
    assert len(scene.splits["train"]) == 7
    assert scene.near_far is not None
    assert scene.near_far.tolist() == [[1.2, 9.5]] * 9
    check_pixels(scene, 55, 55, 20, 15)
    small = read_posed(tmp_path, images="images_4")[3]
    assert small.pixels().shape == (8, 10, 3)
    pixel = scene[3].camera.project(POINT)[0][0]
    np.testing.assert_allclose(small.camera.project(POINT)[0][0], pixel * [0.25, 8 / 30])


def test_damaged_llff_names_its_cause(tmp_path: Path) -> None:
    table = write_llff(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        read_llff(tmp_path)
    save_images(tmp_path / "images", [f"{i}.png" for i in range(8)])
    with pytest.raises(FormatError, match="9 poses for 8 images"):
        read_llff(tmp_path)
    save_images(tmp_path / "images", ["9.png"])
    file = tmp_path / "poses_bounds.npy"
    for broken, cause in (
        (table[:, :15], r"shape \[9, 15\]"),
        (table.astype(str), r"expected \[N, 17\] numbers"),
        (np.where(np.arange(17) == 3, np.nan, table), "not finite"),
        (table * -1, "row 0 has no valid camera"),
    ):
        np.save(file, broken)
        with pytest.raises(FormatError, match=cause) as caught:
            read_llff(tmp_path)
        assert caught.value.remedy
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FormatError, match="bytes"):
        read_llff(tmp_path)


def test_lego_looks_at_the_object(shared_data: Path) -> None:
    """A hundred cameras around the origin; what all masks agree on is the excavator."""
    scene = read_posed(shared_data / "lego", images="train_100")
    assert len(scene) == len(scene.split("train")) == 100
    camera = scene[0].camera
    assert (camera.width, camera.height) == (100, 100)
    np.testing.assert_allclose(camera.intrinsics[0, 0], 50 / np.tan(0.6911112 / 2), rtol=1e-6)
    point, distances = scene.focus()
    assert np.linalg.norm(point) < 1e-3
    assert distances.max() < 1e-3
    away = [np.linalg.norm(image.camera.pose[:3, 3]) for image in scene.images]
    np.testing.assert_allclose(away, 4.031, atol=0.01)
    # The visual hull of 24 alpha masks on a grid of 4 cm.
    axis = np.arange(-1.5, 1.5, 0.04)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = np.ones(len(grid), bool)
    for image in scene.images[::4]:
        alpha = image.pixels()[..., 3] > 127
        assert 0.05 < alpha.mean() < 0.6
        pixel, depth = image.camera.project(grid)
        column, row = np.floor(pixel).astype(int).T
        inside &= (depth > 0) & (column >= 0) & (column < 100) & (row >= 0) & (row < 100)
        inside[inside] &= alpha[row[inside], column[inside]]
    low, high = grid[inside].min(axis=0), grid[inside].max(axis=0)
    # The model is about 2.3 long, 1.3 wide and 1.4 high in Blender's units.
    extent = np.sort(high - low)
    assert 0.9 < extent[0] < 1.6
    assert 1.8 < extent[2] < 2.5
    assert 0.3 < inside.sum() * 0.04**3 < 2.5
    # Its picture through the hull: the silhouette of a view that took no part.
    image = scene[2]
    alpha = image.pixels()[..., 3] > 127
    column, row = np.floor(image.camera.project(grid[inside])[0]).astype(int).T
    assert alpha[row, column].mean() > 0.9
