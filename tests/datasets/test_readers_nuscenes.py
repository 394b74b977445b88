"""nuScenes: a made-up data set of a known world, the devkit as an oracle, Lyft's tables, damage."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import nuscenes_tree
import pytest
from nuscenes_tree import BACK, FRONT, LIDAR, SWEEP, Tree, ego

from perception.datasets.readers import NuScenes
from perception.datasets.readers.nuscenes import (
    NuScenesBoxes,
    boxes_from_nuscenes,
    nuscenes_from_boxes,
)
from perception.datasets.readers.nuscenes_classes import (
    DETECTION_CLASSES,
    LIDARSEG_CLASSES,
    split_scenes,
)
from perception.datasets.readers.nuscenes_tables import records, velocities
from perception.datasets.sample import IGNORE, Scans
from perception.geometry import Boxes3D, transform
from perception.io import FormatError, read

# The sensor's x points right, its y forward: forward = y, left = -x.
QUARTER = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Not to be changed."""
    return nuscenes_tree.build(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def own(tree: Tree, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(tree.root, tmp_path / "own")
    return tmp_path / "own"


def test_frames_and_sequences(tree: Tree) -> None:
    scans = NuScenes(tree.root)
    assert isinstance(scans, Scans)
    assert scans.version == "v1.0-mini"
    assert len(scans) == 4
    assert scans.names == [f"scene-0061/{i:03d}" for i in range(4)]
    assert NuScenes(tree.root, "val").names[0] == "scene-0103/000"
    everything = NuScenes(tree.root, "all")
    assert list(everything.sequences) == [range(0, 4), range(4, 8)]
    assert {name[:10] for name in everything.names[4:]} != {
        name[:10] for name in everything.names[:4]
    }
    assert NuScenes(tree.root, scenes=["scene-0103"]).names == [
        f"scene-0103/{i:03d}" for i in range(4)
    ]
    times = [scans[i].time for i in range(4)]
    np.testing.assert_allclose(np.diff(np.array(times, np.float64)), 0.2, atol=1e-6)
    samples = {row["token"]: row for row in tree.tables["sample"]}
    assert samples[scans.tokens[2]]["timestamp"] == pytest.approx(times[2] * 1e6, abs=2)  # type: ignore[operator]


@pytest.mark.parametrize("axes", ["forward", "sensor"])
def test_points_are_where_the_world_has_them(tree: Tree, axes: str) -> None:
    scans = NuScenes(tree.root, axes=axes)  # type: ignore[arg-type]
    for index in (0, 3):
        sample = scans[index]
        assert len(sample.cloud) == 401
        expected = ego(index * 0.2).matrix @ LIDAR.matrix
        if axes == "forward":
            expected = expected @ QUARTER
        assert sample.pose is not None
        np.testing.assert_allclose(sample.pose, expected, atol=1e-9)
        world = transform(sample.pose, sample.cloud.points[:-1].astype(np.float64))
        np.testing.assert_allclose(world, tree.landmarks, atol=1e-4)
    attributes = sample.cloud.attributes
    np.testing.assert_allclose(attributes["intensity"], np.arange(401) % 256 / 255, atol=1e-6)
    np.testing.assert_array_equal(attributes["ring"], np.arange(401) % 32)
    assert "time" not in attributes


def test_forward_is_forward_and_nothing_is_rounded(tree: Tree) -> None:
    ahead = NuScenes(tree.root)[0].cloud.points
    raw = NuScenes(tree.root, axes="sensor")[0].cloud.points
    np.testing.assert_array_equal(ahead, np.stack([raw[:, 1], -raw[:, 0], raw[:, 2]], 1))
    pose = NuScenes(tree.root)[0].pose
    assert pose is not None
    assert (ego(0).matrix[:3, 0] @ pose[:3, 0]) > 0.99


def test_past_sweeps_lie_on_the_key_frame(tree: Tree) -> None:
    scans = NuScenes(tree.root, sweeps=3, labels=True)
    sample = scans[2]
    # 400 landmarks in each of four clouds, the car's own roof in the newest alone.
    assert len(sample.cloud) == 401 + 3 * 400
    assert sample.pose is not None
    world = transform(sample.pose, sample.cloud.points.astype(np.float64))
    for past in range(4):
        start = past * 400 + min(past, 1)
        block = slice(start, start + 400)
        np.testing.assert_allclose(world[block], tree.landmarks, atol=2e-4)
        np.testing.assert_allclose(sample.cloud.attributes["time"][block], past * SWEEP, atol=1e-5)
        np.testing.assert_array_equal(sample.cloud.attributes["ring"][block], np.arange(400) % 32)
    assert sample.labels is not None
    assert (sample.labels[401:] == IGNORE).all()
    assert (sample.labels[:401] != IGNORE).any()
    # The first key frame of a scene has no past; the second has four sweeps.
    assert len(scans[0].cloud) == 401
    assert len(NuScenes(tree.root, sweeps=10)[1].cloud) == 401 + 4 * 400


def test_boxes_are_where_the_world_has_them(tree: Tree) -> None:
    scans = NuScenes(tree.root)
    sample = scans[1]
    boxes, pose = sample.boxes, sample.pose
    assert boxes is not None
    assert pose is not None
    # The car and the pedestrian; animals are no class of detection.
    names = [DETECTION_CLASSES[label] for label in boxes.labels]
    assert sorted(names) == ["car", "pedestrian"]
    car = boxes[np.array(names) == "car"]
    thing = tree.things[0]
    back = np.linalg.inv(pose)
    centre = back[:3, :3] @ thing.centre(0.2) + back[:3, 3]
    ahead = back[:3, :3] @ [np.cos(thing.yaw), np.sin(thing.yaw), 0]
    width, length, height = thing.size
    expected = [*centre, length, width, height, np.arctan2(ahead[1], ahead[0])]
    np.testing.assert_allclose(car.boxes[0], expected, atol=1e-4)
    assert car.velocity is not None
    np.testing.assert_allclose(car.velocity[0], thing.speed * ahead[:2], atol=1e-4)
    # Seen once only: its speed is unknown.
    assert boxes.velocity is not None
    assert np.isnan(boxes.velocity[np.array(names) == "pedestrian"]).all()
    tracks = [
        frame.track_ids.tolist()
        for i in range(4)
        if (frame := scans[i].boxes) and frame.track_ids is not None
    ]
    assert set(tracks[0]) & set(tracks[1]) & set(tracks[2]) & set(tracks[3])
    assert min(min(ids) for ids in tracks) >= 1


def test_boxes_nobody_measured_can_be_left_out(tree: Tree) -> None:
    assert [len(NuScenes(tree.root, min_points=n)[0].boxes or ()) for n in (0, 1)] == [2, 1]


def test_velocity_is_the_centred_difference() -> None:
    centres = np.array([[0.0, 0, 0], [1, 0, 0], [4, 0, 0], [9, 9, 9], [0, 0, 0]])
    times = np.array([0.0, 0.5, 1.0, 1.0, 9.0])
    before, after = np.array([-1, 0, 1, -1, 2]), np.array([1, 2, -1, -1, -1])
    speed = velocities(centres, times, before, after)
    np.testing.assert_allclose(speed[:3, 0], [2.0, 4.0, 6.0])
    assert np.isnan(speed[3]).all()  # alone
    assert np.isnan(speed[4]).all()  # eight seconds since


def test_lidarseg_labels(tree: Tree) -> None:
    scans = NuScenes(tree.root, labels=True)
    assert scans.classes == LIDARSEG_CLASSES
    assert scans.colors.shape == (16, 3)
    labels = scans[0].labels
    assert labels is not None
    names = ["" if label == IGNORE else LIDARSEG_CLASSES[label] for label in labels[:5]]
    assert names == ["", "car", "pedestrian", "", "driveable_surface"]
    assert NuScenes(tree.root).classes == ()


def test_cameras_see_what_the_world_has(tree: Tree) -> None:
    scans = NuScenes(tree.root)
    sample = scans[1]
    assert [image.name for image in sample.images] == ["CAM_BACK", "CAM_FRONT"]
    assert sample.pose is not None
    seen = 0
    for image, mount in zip(sample.images, (BACK, FRONT), strict=True):
        # Taken 10 ms before the scan, from where the car was then.
        world_from_camera = ego(0.2 - 0.01).matrix @ mount.matrix
        assert image.time == pytest.approx((sample.time or 0) - 0.01, abs=1e-5)
        local = (tree.landmarks - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
        pixels, depth = image.camera.project(sample.cloud.points[:-1].astype(np.float64))
        np.testing.assert_allclose(depth, local[:, 2], atol=1e-4)
        front = depth > 1
        u = 1266.4 * local[front, 0] / local[front, 2] + 816.3
        v = 1266.4 * local[front, 1] / local[front, 2] + 491.5
        np.testing.assert_allclose(pixels[front], np.stack([u, v], 1), atol=0.1)
        seen += int(front.sum())
        assert (image.camera.width, image.camera.height) == (1600, 900)
    assert seen > 200
    assert scans[0].images[0].pixels().shape == (900, 1600, 3)
    with pytest.raises(FileNotFoundError, match="no such image"):
        sample.images[0].pixels()
    assert NuScenes(tree.root, cameras=[])[0].images == ()
    assert [i.name for i in NuScenes(tree.root, cameras=["CAM_FRONT"])[0].images] == ["CAM_FRONT"]


def test_boxes_survive_the_way_to_the_world_and_back(tree: Tree) -> None:
    pose = NuScenes(tree.root)[0].pose
    assert pose is not None
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            rng.uniform(-50, 50, (100, 3)),
            rng.uniform(0.3, 12, (100, 3)),
            rng.uniform(-3.1, 3.1, (100, 1)),
        ],
        axis=1,
    )
    boxes = Boxes3D(rows, np.zeros(100), velocity=rng.normal(0, 5, (100, 2)))
    world = nuscenes_from_boxes(boxes, pose)
    np.testing.assert_allclose(np.linalg.norm(world.rotations, axis=1), 1)
    np.testing.assert_allclose(world.rotations[:, 1:3], 0, atol=1e-12)  # upright
    np.testing.assert_allclose(boxes_from_nuscenes(world, pose), boxes.boxes, atol=1e-4)
    assert world.velocities is not None
    assert boxes.velocity is not None
    np.testing.assert_allclose(
        np.linalg.norm(world.velocities, axis=1), np.linalg.norm(boxes.velocity, axis=1), rtol=2e-3
    )
    # And the tables' own annotations come back as they were.
    tables = tree.tables["sample_annotation"]
    theirs = NuScenesBoxes(
        *(np.array([row[k] for row in tables]) for k in ("translation", "size", "rotation"))
    )
    ours = Boxes3D(boxes_from_nuscenes(theirs, pose), np.zeros(len(tables)))
    again = nuscenes_from_boxes(ours, pose)
    np.testing.assert_allclose(again.centres, theirs.centres, atol=1e-3)
    np.testing.assert_allclose(again.sizes, theirs.sizes, atol=1e-6)
    same = np.abs(np.einsum("ij,ij->i", again.rotations, theirs.rotations))
    np.testing.assert_allclose(same, 1, atol=1e-6)


ORACLE = """
import json, sys
import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.lidarseg.utils import LidarsegClassMapper
from nuscenes.utils import splits
from nuscenes.utils.data_classes import LidarPointCloud

n = NuScenes("v1.0-mini", sys.argv[1], verbose=False)
mapper = LidarsegClassMapper.__new__(LidarsegClassMapper)
mapper.ignore_class = mapper.get_ignore_class()
answer = {"splits": {k: getattr(splits, k) for k in ("train", "val", "test", "mini_train", "mini_val")},
          "fine": mapper.get_fine2coarse(), "coarse": mapper.get_coarse2idx(),
          "colors": mapper.get_coarse2color(), "frames": {}}
for sample in n.sample:
    token = sample["data"]["LIDAR_TOP"]
    _, boxes, _ = n.get_sample_data(token)
    frame = []
    for box in boxes:
        ahead = box.orientation.rotation_matrix[:, 0]
        velocity = n.box_velocity(box.token)
        data = n.get("sample_data", token)
        for table, key in (("ego_pose", "ego_pose_token"), ("calibrated_sensor", "calibrated_sensor_token")):
            from pyquaternion import Quaternion
            velocity = Quaternion(n.get(table, data[key])["rotation"]).inverse.rotate(velocity)
        frame.append([box.name, *box.center, *box.wlh, float(np.arctan2(ahead[1], ahead[0])), *velocity[:2]])
    cloud, lag = LidarPointCloud.from_file_multisweep(n, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=4)
    answer["frames"][sample["token"]] = {"boxes": frame, "points": cloud.points[:3].T.tolist(), "lag": lag[0].tolist()}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def devkit(tree: Tree) -> dict:
    """The devkit's answers, from this Python or the one that PERCEPTION_NUSCENES_PYTHON names."""
    python = os.environ.get("PERCEPTION_NUSCENES_PYTHON", sys.executable)
    present = subprocess.run([python, "-c", "import nuscenes"], capture_output=True, check=False)
    if present.returncode:
        pytest.skip(f"{python} has no nuscenes-devkit; name one in PERCEPTION_NUSCENES_PYTHON")
    done = subprocess.run(
        [python, "-c", ORACLE, str(tree.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_against_the_devkit(tree: Tree, devkit: dict) -> None:
    scans = NuScenes(tree.root, "all", axes="sensor", sweeps=3)
    assert len(scans) == len(devkit["frames"]) == 8
    from perception.datasets.readers.nuscenes_classes import CATEGORY_TO_DETECTION

    compared = 0
    for index in range(8):
        sample, theirs = scans[index], devkit["frames"][scans.tokens[index]]
        assert sample.boxes is not None
        rows = [row for row in theirs["boxes"] if row[0] in CATEGORY_TO_DETECTION]
        assert len(rows) == len(sample.boxes)
        ours = [
            [*box[:3], box[4], box[3], *box[5:], *velocity]
            for box, velocity in zip(sample.boxes.boxes, sample.boxes.velocity, strict=True)  # type: ignore[arg-type]
        ]
        np.testing.assert_allclose(
            np.array(sorted(ours)), np.array(sorted(row[1:] for row in rows)), atol=1e-3
        )
        compared += len(rows)
        # The devkit drops the car's own points in the key frame too.
        keep = np.arange(len(sample.cloud)) != 400
        np.testing.assert_allclose(sample.cloud.points[keep], theirs["points"], atol=2e-3)
        np.testing.assert_allclose(sample.cloud.attributes["time"][keep], theirs["lag"], atol=1e-5)
    assert compared == 9


def test_names_against_the_devkit(devkit: dict) -> None:
    from perception.datasets.readers.nuscenes_classes import CATEGORY_TO_LIDARSEG

    for split, scenes in devkit["splits"].items():
        assert split_scenes(split) == frozenset(scenes)
    for fine, coarse in devkit["fine"].items():
        assert CATEGORY_TO_LIDARSEG.get(fine, "ignore") == coarse
    for coarse, number in devkit["coarse"].items():
        if coarse != "ignore":
            assert LIDARSEG_CLASSES[number - 1] == coarse
            colors = NuScenes.__init__.__globals__["LIDARSEG_COLORS"]
            assert colors[number - 1].tolist() == devkit["colors"][coarse]


def test_official_splits() -> None:
    sizes = {
        name: len(split_scenes(name)) for name in ("train", "val", "test", "mini_train", "mini_val")
    }
    assert sizes == {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2}
    assert not split_scenes("train") & split_scenes("val")
    assert split_scenes("mini_train") <= split_scenes("train") | split_scenes("val")


def test_the_index_is_kept_and_follows_the_tables(own: Path, tmp_path: Path) -> None:
    first = NuScenes(own)[1]
    (kept,) = (tmp_path / "cache" / "perception").iterdir()
    assert kept.name.startswith("nuscenes-")
    tables = own / "v1.0-mini"
    content = (tables / "sample_annotation.json").read_text()
    (tables / "sample_annotation.json").write_text("[]")
    boxes = NuScenes(own)[1].boxes
    assert boxes is not None
    assert len(boxes) == 0
    (tables / "sample_annotation.json").write_text(content)
    again = pickle.loads(pickle.dumps(NuScenes(own)))[1]
    np.testing.assert_array_equal(again.cloud.points, first.cloud.points)
    np.testing.assert_array_equal(again.boxes.boxes, first.boxes.boxes)  # type: ignore[union-attr]


def test_loader_processes_read_it(tree: Tree) -> None:
    from torch.utils.data import DataLoader

    loader: DataLoader = DataLoader(
        NuScenes(tree.root, sweeps=1),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        multiprocessing_context="spawn",
    )
    assert [len(sample.cloud) for sample in loader] == [401, 801, 801, 801]


def test_lyft_has_tables_of_the_same_kind(shared_data: Path, tmp_path: Path) -> None:
    lyft = shared_data / "mmdet3d_tiny" / "lyft"
    (tmp_path / "lyft").mkdir()
    (tmp_path / "lyft" / "v1.01-train").symlink_to(lyft / "v1.01-train" / "v1.01-train")
    (tmp_path / "lyft" / "lidar").mkdir()
    scan = next((lyft / "lidar").iterdir())
    (tmp_path / "lyft" / "lidar" / "host-a101_lidar1_1240710385903083166.bin").symlink_to(scan)
    root = tmp_path / "lyft"
    with pytest.raises(ValueError, match=r"none of the categories car, pedestrian, .* categories="):
        NuScenes(root, "all", version="v1.01-train")
    scans = NuScenes(
        root, "all", version="v1.01-train", categories={"car": "car", "pedestrian": "person"}
    )
    assert scans.box_classes == ("car", "person")
    assert len(scans) == 1
    sample = scans[0]
    assert len(sample.cloud) == 5
    assert sample.boxes is not None
    assert len(sample.boxes) == 4
    assert sample.pose is not None
    there = nuscenes_from_boxes(sample.boxes, sample.pose)
    table = json.loads((root / "v1.01-train" / "sample_annotation.json").read_text())
    np.testing.assert_allclose(there.centres, [row["translation"] for row in table], atol=1e-3)
    np.testing.assert_allclose(there.sizes, [row["size"] for row in table], atol=1e-5)
    # The car's forward is the cloud's, however the LiDAR is mounted.
    poses = {
        row["token"]: row
        for row in json.loads((root / "v1.01-train" / "ego_pose.json").read_text())
    }
    w, x, y, z = next(iter(poses.values()))["rotation"]
    forward = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    assert sample.pose[:3, 0] @ forward > 0.7
    assert scans.sequences == [range(0, 1)]


def test_ten_real_sweeps_in_one_file(shared_data: Path) -> None:
    cloud = read(next((shared_data / "nuscenes_10sweep").glob("*.bin")))
    assert len(cloud) == 271156
    lag = cloud.attributes["time"]
    assert int((lag == 0).sum()) == 34752
    np.testing.assert_allclose(np.unique(lag.round(2)), np.arange(10) * 0.05, atol=0.006)


# ---- damage


def edited(table: str, change: Callable[[list[dict]], object]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        file = root / "v1.0-mini" / f"{table}.json"
        rows = json.loads(file.read_text())
        change(rows)
        file.write_text(json.dumps(rows))

    return damage


def on_scan(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [change(p) for p in (root / "samples/LIDAR_TOP").iterdir()]


def on_labels(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [change(p) for p in (root / "lidarseg/v1.0-mini").iterdir()]


def holed(path: Path) -> None:
    rows = np.fromfile(path, "<f4")
    rows[7] = np.nan
    rows.tofile(path)


def cut(name: str, keep: float) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        text = (root / "v1.0-mini" / name).read_text()
        (root / "v1.0-mini" / name).write_text(text[: int(len(text) * keep)])

    return damage


def wrote(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "v1.0-mini" / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda r: shutil.rmtree(r / "v1.0-mini"),
            FileNotFoundError,
            "has no folder v1.0-trainval or v1",
        ),
        (
            lambda r: (r / "v1.0-mini/sample.json").unlink(),
            FileNotFoundError,
            "sample.json: no such table",
        ),
        (
            lambda r: shutil.rmtree(r / "samples/LIDAR_TOP"),
            FileNotFoundError,
            "bin: no such scan; is the",
        ),
        (
            lambda r: (r / "v1.0-mini/lidarseg.json").unlink(),
            FileNotFoundError,
            "lidarseg.json: no such",
        ),
        (
            lambda r: shutil.rmtree(r / "lidarseg"),
            FileNotFoundError,
            "no readable labels .* unpack nuSc",
        ),
        (cut("sample_data.json", 0.5), FormatError, "sample_data.json: is no JSON list of records"),
        (cut("ego_pose.json", 0.001), FormatError, "ego_pose.json: is no JSON list of records"),
        (wrote("scene.json", b"{}"), FormatError, "scene.json: is no JSON list"),
        (wrote("scene.json", b""), FormatError, "scene.json: is no JSON list"),
        (wrote("scene.json", b"[1, 2]"), FormatError, "scene.json: is no JSON list"),
        (wrote("scene.json", b"[\xff\xfe]"), FormatError, "scene.json: is no text"),
        (wrote("scene.json", b"[]"), FormatError, "sample.json: names .* which scene.json has not"),
        (wrote("sample_data.json", b"[]"), FormatError, "has no LIDAR_TOP for 8 of 8 key frames"),
        (edited("ego_pose", lambda r: r.pop()), FormatError, "which ego_pose.json has not"),
        (edited("instance", lambda r: r.pop()), FormatError, "which instance.json has not"),
        (edited("sample", lambda r: r[0].pop("timestamp")), FormatError, "KeyError\\('timestamp'"),
        (
            edited("sample_annotation", lambda r: r[0].update(size=[1])),
            FormatError,
            "sample_annotation",
        ),
        (
            edited("scene", lambda r: r[:] and [x.update(name="x") for x in r]),
            FileNotFoundError,
            "none of",
        ),
        (
            edited("category", lambda r: [x.pop("index") for x in r]),
            FormatError,
            "no lidarseg index",
        ),
        (on_scan(lambda p: p.write_bytes(p.read_bytes()[:-7])), FormatError, "no multiple of 20"),
        (on_scan(lambda p: p.write_bytes(b"")), FormatError, "is empty"),
        (on_scan(holed), FormatError, "1 of 401 points that are not finite"),
        (
            on_labels(lambda p: p.write_bytes(b"\1" * 400)),
            FormatError,
            "labels 400 points, the scan has 401",
        ),
        (
            on_labels(lambda p: p.write_bytes(b"\x63" * 401)),
            FormatError,
            "has class 99, which category.json",
        ),
    ],
)
def test_damaged_data(
    own: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    damage(own)
    with pytest.raises(error, match=message) as caught:
        NuScenes(own, labels=True)[0]
    assert "\n" not in str(caught.value)
    assert str(own) in str(caught.value)


def test_wrong_arguments(tree: Tree) -> None:
    for arguments, message in (
        ({"split": "training"}, "unknown split 'training'"),
        ({"scenes": ["scene-9999"]}, "unknown scene 'scene-9999'; .* has scene-"),
        ({"cameras": ["CAM_TOP"]}, "unknown camera 'CAM_TOP'; known are CAM_BACK, CAM_FRONT"),
        (
            {"categories": {"vehicle.boat": "boat"}},
            "unknown category 'vehicle.boat'; .* has .*noise",
        ),
        ({"sweeps": -1}, "sweeps=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            NuScenes(tree.root, **arguments)  # type: ignore[arg-type]
    with pytest.raises(
        FileNotFoundError, match=r"has no folder v1.0-test with the tables \(but lidarseg"
    ):
        NuScenes(tree.root, "test")
    with pytest.raises(IndexError):
        NuScenes(tree.root)[4]


def test_records_of_a_table_larger_than_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perception.datasets.readers.nuscenes_tables._CHUNK", 100)
    rows = [
        {"token": f"{i}", "name": "Größe ]},[{" * (i % 3), "list": [1, {"a": "}"}]}
        for i in range(40)
    ]
    for dump in (json.dumps(rows, ensure_ascii=False), json.dumps(rows, indent=1)):
        (tmp_path / "t.json").write_text(dump)
        assert list(records(tmp_path / "t.json")) == rows
    (tmp_path / "t.json").write_text(json.dumps(rows)[:-200])
    with pytest.raises(FormatError, match="is no JSON list"):
        list(records(tmp_path / "t.json"))
    (tmp_path / "t.json").write_text("[]")
    assert list(records(tmp_path / "t.json")) == []
