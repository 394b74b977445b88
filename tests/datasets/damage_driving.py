"""Damage files of driving data sets: ``python damage_driving.py FOLDER ROUNDS KIND...``.

As ``tests/io/damage.py``, whose mutations and judgement it uses, in a process of its own.
"""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from perception.datasets.readers import Argoverse2, KittiObject, NuScenes, SemanticKitti

ENGINE = runpy.run_path(str(Path(__file__).parents[1] / "io" / "damage.py"), run_name="damage")
Case = tuple[Path, Callable[[], object]]
LINE = "Car 0.00 0 -1.57 600.00 150.00 640.00 180.00 1.50 1.60 4.00 -2.00 1.70 20.00 0.00\n"
MATRICES = "P2: 700 0 600 45 0 700 180 -0.3 0 0 1 0.005\nR0_rect: 1 0 0 0 1 0 0 0 1\n"


def points(count: int, columns: int) -> bytes:
    return np.full((count, columns), 0.5, "<f4").tobytes()


def kitti(folder: Path, part: str) -> Case:
    training = folder / "training"
    for name in ("velodyne", "label_2", "calib"):
        (training / name).mkdir(parents=True)
    (training / "velodyne/000000.bin").write_bytes(points(60, 4))
    (training / "label_2/000000.txt").write_text(LINE * 3)
    (training / "calib/000000.txt").write_text(
        MATRICES + "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27\n"
    )
    return training / part, lambda: KittiObject(folder)[0]


def drive(folder: Path, part: str) -> Case:
    place = folder / "sequences/08"
    for name in ("velodyne", "labels"):
        (place / name).mkdir(parents=True)
    (place / "velodyne/000000.bin").write_bytes(points(60, 4))
    (place / "labels/000000.label").write_bytes(np.full(60, 40, "<u4").tobytes())
    (place / "calib.txt").write_text("P2: 7 0 6 0 0 7 2 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    (place / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    (place / "times.txt").write_text("0.5\n")
    return place / part, lambda: SemanticKitti(folder, "val")[0]


def nuscenes(folder: Path, part: str) -> Case:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import nuscenes_tree

    tree = nuscenes_tree.build(folder / "tree")
    file = next(tree.root.glob(part))

    def load() -> None:
        scans = NuScenes(tree.root, "all", sweeps=1, labels=True)
        for index in range(len(scans)):
            _ = scans[index]

    return file, load


def argoverse(folder: Path, part: str) -> Case:
    import pyarrow as pa
    from pyarrow import feather

    log = folder / "val" / "log"
    (log / "sensors/lidar").mkdir(parents=True)
    (log / "sensors/cameras/ring_front_center").mkdir(parents=True)
    (log / "calibration").mkdir()
    pose = dict.fromkeys(("qw", "tx_m", "ty_m", "tz_m"), 1.0) | dict.fromkeys(
        ("qx", "qy", "qz"), 0.0
    )
    for stamp in (100, 200):
        bytes_ = {name: np.ones(60, np.uint8) for name in ("intensity", "laser_number")}
        half = {axis: np.ones(60, np.float16) for axis in "xyz"}
        sweep = pa.table(half | bytes_ | {"offset_ns": np.zeros(60, np.int32)})
        feather.write_feather(sweep, log / f"sensors/lidar/{stamp}.feather")
    (log / "sensors/cameras/ring_front_center/150.jpg").touch()
    size = dict.fromkeys(("length_m", "width_m", "height_m"), 2.0)
    text = {"track_uuid": ["a", "b"], "category": ["DOG", "BUS"], "timestamp_ns": [100, 200]}
    tables = {
        "annotations": text | {"num_interior_pts": [3, 4]},
        "city_SE3_egovehicle": {"timestamp_ns": [100, 200]},
        "calibration/egovehicle_SE3_sensor": {"sensor_name": ["ring_front_center", "up_lidar"]},
    }
    for name, columns in tables.items():
        values = pose | size if name == "annotations" else pose
        table = pa.table(columns | {column: [value] * 2 for column, value in values.items()})
        feather.write_feather(table, log / f"{name}.feather")
    numbers = ("fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px")
    lens = {name: [50.0] for name in numbers}
    table = pa.table({"sensor_name": ["ring_front_center"]} | lens)
    feather.write_feather(table, log / "calibration/intrinsics.feather")
    return log / part, lambda: Argoverse2(folder, "val")[0]


def sweep(folder: Path, compression: str) -> Case:
    import pyarrow as pa
    from pyarrow import feather

    from perception.io import read

    file = folder / "a.feather"
    table = pa.table({axis: np.arange(300).astype(np.float16) for axis in "xyz"})
    feather.write_feather(table, file, compression=compression)
    return file, lambda: read(file)


KINDS: dict[str, Callable[[Path], Case]] = {
    f"kitti {part}": partial(kitti, part=part)
    for part in ("velodyne/000000.bin", "label_2/000000.txt", "calib/000000.txt")
}
KINDS |= {
    f"semantickitti {part}": partial(drive, part=part)
    for part in ("labels/000000.label", "poses.txt", "times.txt", "calib.txt")
}
KINDS |= {
    f"nuscenes {part}": partial(nuscenes, part=part)
    for part in (
        "samples/LIDAR_TOP/*",
        "lidarseg/v1.0-mini/*",
        "v1.0-mini/category.json",
        "v1.0-mini/sample.json",
        "v1.0-mini/sample_annotation.json",
        "v1.0-mini/calibrated_sensor.json",
    )
}
AV2 = {
    f"argoverse {part}": partial(argoverse, part=part)
    for part in (
        "sensors/lidar/100.feather",
        "annotations.feather",
        "city_SE3_egovehicle.feather",
        "calibration/intrinsics.feather",
        "calibration/egovehicle_SE3_sensor.feather",
    )
} | {
    f"feather {kind}": partial(sweep, compression=kind) for kind in ("uncompressed", "lz4", "zstd")
}


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    warnings.simplefilter("ignore")
    ENGINE["KINDS"].update(KINDS | AV2)
    for number, kind in enumerate(sys.argv[3:]):
        refused = ENGINE["attack"](kind, folder / str(number), rounds)
        assert refused > rounds // 10, f"{kind}: refused only {refused} of {rounds}"
        print(f"{kind}: refused {refused} of {rounds}", flush=True)


if __name__ == "__main__":
    main()
