"""Damage files at random and read them: ``python damage.py FOLDER ROUNDS KIND...``.

Runs in a process of its own, since a decoder that aborts, hangs or allocates what a forged header
says must fail a test, not end the test run. For every mutation a reader gives a result, or raises an
error with one line that names the file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from perception.io import FormatError, PointCloud, read, read_labels, write

COUNT = 300
SECONDS = 5  # for one file of some kilobytes
MEMORY = 1 << 30  # bytes beyond what is mapped before the first mutation
Case = tuple[Path, Callable[[], object]]

RNG = np.random.default_rng(0)
POINTS = RNG.normal(0, 20, (COUNT, 3)).astype(np.float32)


def cloud() -> PointCloud:
    return PointCloud(
        POINTS,
        {"intensity": RNG.random(COUNT).astype(np.float32), "label": np.arange(COUNT) % 7},
    )


def written(folder: Path, suffix: str) -> Case:
    file = folder / f"a{suffix}"
    write(file, cloud())
    return file, lambda: read(file)


def compressed_pcd(folder: Path) -> Case:
    raw = POINTS.T.tobytes()
    packed = b"".join(
        bytes([len(raw[i : i + 32]) - 1]) + raw[i : i + 32] for i in range(0, len(raw), 32)
    )
    file = folder / "a.pcd"
    file.write_bytes(
        pcd_header("binary_compressed") + struct.pack("<II", len(packed), len(raw)) + packed
    )
    assert np.array_equal(read(file).points, POINTS)
    return file, lambda: read(file)


def pcd_header(data: str) -> bytes:
    return (
        "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {COUNT}\nHEIGHT 1\nPOINTS {COUNT}\nDATA {data}\n"
    ).encode()


def ascii_pcd(folder: Path) -> Case:
    lines = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in POINTS.tolist())
    file = folder / "a.pcd"
    file.write_bytes(pcd_header("ascii") + lines.encode())
    return file, lambda: read(file)


def mesh_ply(folder: Path, text: bool) -> Case:
    """With an element before the vertices and lists among their properties: plyfile's way."""
    from plyfile import PlyData, PlyElement

    camera = np.ones(2, [("focal", "f4")])
    vertex = np.zeros(40, [("x", "f4"), ("y", "f4"), ("z", "f8"), ("near", "u1", (2,))])
    vertex["x"] = np.arange(40)
    elements = [PlyElement.describe(camera, "camera"), PlyElement.describe(vertex, "vertex")]
    file = folder / "a.ply"
    PlyData(elements, text=text).write(str(file))
    return file, lambda: read(file)


def label_file(folder: Path, suffix: str) -> Case:
    file = folder / f"a{suffix}"
    ids = np.arange(COUNT) % 20
    if suffix == ".label":
        file.write_bytes(ids.astype("<u4").tobytes())
    elif suffix == ".npy":
        np.save(file, ids)
    else:
        file.write_text("\n".join(map(str, ids)))
    return file, lambda: read_labels(file)


def box_file(folder: Path, suffix: str) -> Case:
    from perception.geometry import Boxes3D
    from perception.io.boxes import read_boxes, write_boxes

    boxes = Boxes3D(np.ones((5, 7)), np.arange(5), np.ones((5, 2), np.float32), np.arange(5))
    file = folder / "boxes.json"
    write_boxes(file, boxes, names=tuple("abcde"))
    if suffix == ".npy":
        file = folder / "boxes.npy"
        np.save(file, boxes.boxes)
    elif suffix == ".txt":
        file = folder / "boxes.txt"
        file.write_text("1 2 3 4 2 1.5 0.1 Car\n" * 5)
    return file, lambda: read_boxes(file)


def model(folder: Path) -> Case:
    import torch

    from perception.io import checkpoint

    file = folder / "a.safetensors"
    checkpoint.save(file, {"w": torch.randn(8, 8)}, {"task": "segmentation"})
    return file, lambda: checkpoint.load(file)


def picture(folder: Path, suffix: str) -> Case:
    from PIL import Image as PILImage

    from perception.datasets.sample import Image
    from perception.geometry import Camera

    file = folder / f"a{suffix}"
    PILImage.fromarray(RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(file)
    camera = Camera.from_field_of_view(40, 30, 1.0, np.eye(4))
    return file, lambda: Image(camera, file).pixels()


def scene(folder: Path) -> list[str]:
    from PIL import Image as PILImage

    names = [f"{i}.png" for i in range(4)]
    (folder / "images").mkdir(exist_ok=True)
    for name in names:
        PILImage.new("L", (40, 30)).save(folder / "images" / name)
    return names


def colmap(folder: Path, part: str) -> Case:
    from perception.datasets.posed import read_colmap

    names, suffix = scene(folder), Path(part).suffix
    if suffix == ".bin":
        cameras = struct.pack("<QIiQQ8d", 1, 7, 4, 40, 30, 50, 50, 20, 15, 0.1, 0, 0, 0)
        images = struct.pack("<Q", len(names))
        for i, name in enumerate(names):
            images += struct.pack("<I7dI", i, 1, 0, 0, 0, 0.1, 0.2, 0.3, 7) + name.encode() + b"\0"
            images += struct.pack("<Q", 2) + struct.pack("<ddq", 1.5, 2.5, -1) * 2
        points = struct.pack("<Q", 20)
        for i in range(20):
            points += struct.pack("<Q3d3BdQII", i, *POINTS[i], 1, 2, 3, 0.5, 1, 0, 1)
    else:
        cameras = b"7 OPENCV 40 30 50 50 20 15 0.1 0 0 0\n"
        lines = [f"{i} 1 0 0 0 0.1 0.2 0.3 7 {name}\n1.5 2.5 -1\n" for i, name in enumerate(names)]
        images = "".join(lines).encode()
        points = b"".join(b"%d 1 2 3 4 5 6 0.5 1 2\n" % i for i in range(20))
    for name, data in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}{suffix}").write_bytes(data)
    return folder / part, lambda: read_colmap(folder)


def transforms(folder: Path) -> Case:
    from perception.datasets.posed import read_transforms

    frames = [
        {"file_path": f"images/{name}", "transform_matrix": np.eye(4).tolist()}
        for name in scene(folder)
    ]
    file = folder / "transforms.json"
    file.write_text(json.dumps({"fl_x": 50.0, "w": 40, "h": 30, "k1": 0.1, "frames": frames}))
    return file, lambda: read_transforms(folder)


def llff(folder: Path) -> Case:
    from perception.datasets.posed import read_llff

    scene(folder)
    row = [0, 1, 0, 0, 30, 1, 0, 0, 0, 40, 0, 0, -1, 0, 50, 1, 9]
    file = folder / "poses_bounds.npy"
    np.save(file, np.tile(np.array(row, float), (4, 1)))
    return file, lambda: read_llff(folder)


def scannet(folder: Path, part: str) -> Case:
    from plyfile import PlyData, PlyElement

    from perception.datasets.readers.scannet import ScanNet

    root = folder / "scannet"
    place = root / "scene0000_00"
    place.mkdir(parents=True, exist_ok=True)
    stem = str(place / "scene0000_00")
    kind = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("label", "u2")]
    vertex = np.zeros(60, kind)
    vertex["x"], vertex["label"] = np.arange(60), np.arange(60) % 41
    face = np.zeros(3, [("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    for name in ("_vh_clean_2.ply", "_vh_clean_2.labels.ply"):
        PlyData(elements, byte_order="<").write(stem + name)
    Path(stem + "_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"segIndices": (np.arange(60) // 5).tolist()})
    )
    groups = [{"objectId": i, "segments": [i, i + 4]} for i in range(3)]
    Path(stem + ".aggregation.json").write_text(json.dumps({"segGroups": groups}))
    Path(stem + ".txt").write_text("axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    return Path(stem + part), lambda: ScanNet(root, split="all")[0]


def prepared(folder: Path, part: str) -> Case:
    from perception.datasets.readers.s3dis import S3DIS

    for name, kind in (("points", "f4"), ("semantic_mask", "i8"), ("instance_mask", "i8")):
        (folder / name).mkdir(exist_ok=True)
        values = np.ones((60, 6 if name == "points" else 1), kind)
        (folder / name / "Area_1_office_1.bin").write_bytes(values.tobytes())
    return folder / part / "Area_1_office_1.bin", lambda: S3DIS(folder, split="all")[0]


def s3dis(folder: Path) -> Case:
    from perception.datasets.readers.s3dis import S3DIS

    file = folder / "Area_1" / "office_1" / "Annotations" / "chair_1.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("1.5 2.5 3.5 100 200 50\n" * 40)
    return file, lambda: S3DIS(folder, split="all")[0]


def custom(folder: Path, part: str) -> Case:
    from perception.datasets.readers.custom import Custom

    (folder / "points").mkdir(exist_ok=True)
    write(folder / "points" / "0.ply", cloud())
    (folder / "poses.txt").write_text("1 0 0 1.5 0 1 0 2.5 0 0 1 3.5\n")
    (folder / "dataset.yaml").write_text("classes: {a: [0, 1, 2], b: 3}\nignore: others\n")
    return folder / part, lambda: Custom(folder)[0]


def kitti(folder: Path, part: str) -> Case:
    from perception.datasets.readers.kitti_object import KittiObject

    root = folder / "training"
    for name in ("velodyne", "label_2", "calib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    rows = np.column_stack([POINTS, np.full(COUNT, 0.5, np.float32)])
    (root / "velodyne" / "000000.bin").write_bytes(rows.tobytes())
    line = "Car 0.00 0 1.5 1 2 3 4 1.5 1.6 3.9 1.8 1.5 9.1 0.3\n"
    (root / "label_2" / "000000.txt").write_text(line * 3)
    flat = "7e2 0 6e2 0 0 7e2 2e2 0 0 0 1 0"
    (root / "calib" / "000000.txt").write_text(
        f"P2: {flat}\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
    )
    return next((root / part).iterdir()), lambda: KittiObject(folder)[0]


def kinds() -> dict[str, Callable[[Path], Case]]:
    """What is damaged: a name, and how a folder becomes a file and its reader."""
    found: dict[str, Callable[[Path], Case]] = {
        "compressed.pcd": compressed_pcd,
        "ascii.pcd": ascii_pcd,
        "mesh.ply": partial(mesh_ply, text=False),
        "ascii.ply": partial(mesh_ply, text=True),
        ".safetensors": model,
        "transforms.json": transforms,
        "poses_bounds.npy": llff,
        "s3dis": s3dis,
    }
    scans = (".bin", ".pcd.bin", ".pcd", ".ply", ".las", ".laz", ".npy", ".npz", ".csv")
    if find_spec("pyarrow") is not None:  # of the extra that reads Argoverse
        scans = (*scans, ".feather")
    found |= {suffix: partial(written, suffix=suffix) for suffix in scans}
    for suffix in (".label", ".npy", ".txt"):
        found[f"labels{suffix}"] = partial(label_file, suffix=suffix)
    for suffix in (".json", ".npy", ".txt"):
        found[f"boxes{suffix}"] = partial(box_file, suffix=suffix)
    for suffix in (".png", ".jpg", ".webp"):
        found[f"picture{suffix}"] = partial(picture, suffix=suffix)
    for suffix in (".bin", ".txt"):
        for part in ("cameras", "images", "points3D"):
            found[part + suffix] = partial(colmap, part=part + suffix)
    rooms = ("_vh_clean_2.ply", "_vh_clean_2.labels.ply", "_vh_clean_2.0.010000.segs.json")
    for part in (*rooms, ".aggregation.json", ".txt"):
        found[f"scannet{part}"] = partial(scannet, part=part)
    for part in ("points", "semantic_mask", "instance_mask"):
        found[f"prepared {part}"] = partial(prepared, part=part)
    for part in ("velodyne", "label_2", "calib"):
        found[f"kitti {part}"] = partial(kitti, part=part)
    for part in ("dataset.yaml", "poses.txt"):
        found[f"custom {part}"] = partial(custom, part=part)
    return found


KINDS = kinds()


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """One to five bits or bytes changed, numbers forged, pieces cut out or put in; more in front,
    where headers are."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 6))):
        head = max(1, min(len(data), 600))
        where = int(rng.integers(0, head if rng.random() < 0.7 else max(1, len(data))))
        kind = int(rng.integers(0, 7))
        if not data:
            data = bytearray(b"x")
        elif kind == 0:
            data[where % len(data)] = int(rng.integers(0, 256))
        elif kind == 1:
            data[where % len(data)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            data[where : where + 4] = b"\xff" * len(data[where : where + 4])
        elif kind == 3:
            forged = struct.pack("<Q", int(rng.choice([0, 1, 2**31, 2**32 - 1, 2**40, 2**63])))
            data[where : where + 8] = forged[: len(data[where : where + 8])]
        elif kind == 4:
            del data[where : where + int(rng.integers(1, 40))]
        elif kind == 5:
            data[where:where] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        else:
            del data[max(where, 1) :]
    return bytes(data)


def attack(kind: str, folder: Path, rounds: int) -> int:
    """How many of the mutations were refused."""
    inner = folder / "data"  # a reader may look in the folder above
    inner.mkdir(parents=True)
    file, load = KINDS[kind](inner)
    whole = file.read_bytes()
    load()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    rng, refused = np.random.default_rng(1), 0
    for round in range(rounds):
        data = damaged(whole, rng)
        file.write_bytes(data)
        signal.alarm(SECONDS)
        try:
            load()
        except (FormatError, FileNotFoundError, ValueError) as error:
            text = str(error)
            assert str(folder) in text, f"{kind}, round {round}: no file in {text!r}"
            assert "\n" not in text, f"{kind}, round {round}: {text!r}"
            refused += 1
        except BaseException as error:
            print(f"{kind}, round {round}: {type(error).__name__}: {error}")
            raise
        finally:
            signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return refused


def main(words: list[str]) -> None:
    folder, rounds = Path(words[0]), int(words[1])
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    warnings.simplefilter("ignore")
    for number, kind in enumerate(words[2:]):
        print(kind, flush=True)  # the last one printed is the one that ended the process
        refused = attack(kind, folder / f"{number}", rounds)
        assert refused > rounds // 50, f"{kind}: refused only {refused} of {rounds}"
        print(f"  refused {refused} of {rounds}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
