"""Simulated rooms: reproducible, exact, and furnished as rooms are."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from perception.datasets.posed import PosedImages
from perception.datasets.rooms import (
    BOX_CLASSES,
    CLASSES,
    COLORS,
    DEVICES,
    KINDS,
    S3DIS_TO_ROOMS,
    SCANNET_TO_ROOMS,
    Room,
    Rooms,
    Scene,
    look_at,
)
from perception.datasets.sample import IGNORE, Image, Sample, Scans
from perception.geometry import Camera, invert, transform

SEEDS = (0, 3, 6, 8, 31)
STRUCTURE = {"wall", "floor", "ceiling"}


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [Room(seed) for seed in SEEDS]


def digest(sample: Sample, images: PosedImages) -> str:
    h = hashlib.sha256()
    assert sample.boxes is not None
    arrays = [sample.cloud.points, *sample.cloud.attributes.values(), sample.labels]
    arrays += [sample.instances, sample.boxes.boxes, sample.boxes.labels]
    for image in images.images:
        arrays += [image.pixels(), image.depth, image.camera.pose]
    for array in arrays:
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def room_digest(seed: int) -> str:
    room = Room(seed)
    return digest(room.scan(points=5000), room.views(2, width=40, height=30))


def points_of(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Points of all pixels with a depth, unprojected in the simplest way; which pixels."""
    camera, depth = image.camera, image.depth
    assert depth is not None
    v, u = np.nonzero(depth)
    z = depth[v, u].astype(np.float64)
    k = camera.intrinsics
    x = (u + 0.5 - k[0, 2]) / k[0, 0] * z
    y = (v + 0.5 - k[1, 2]) / k[1, 1] * z
    return transform(camera.pose, np.stack([x, y, z], axis=1)), np.stack([v, u], axis=1)


def test_tables_agree() -> None:
    assert COLORS.shape == (len(CLASSES), 3)
    assert len({tuple(c) for c in COLORS.tolist()}) == len(CLASSES)
    assert set(BOX_CLASSES) < set(CLASSES)
    for table in (S3DIS_TO_ROOMS, SCANNET_TO_ROOMS):
        assert set(table.values()) <= {*CLASSES, None}


def test_same_in_another_process_and_in_any_order() -> None:
    here = [room_digest(seed) for seed in (5, 2)]
    assert here == [room_digest(seed) for seed in (2, 5)][::-1]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(room_digest, (5, 2)) == here
    code = (
        "from perception.datasets.rooms import Room; r = Room(5);"
        "import hashlib; v = r.views(1, width=40, height=30)[0];"
        "print(hashlib.sha256(v.pixels().tobytes() + v.depth.tobytes()).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    view = Room(5).views(1, width=40, height=30)[0]
    assert view.depth is not None
    expected = hashlib.sha256(view.pixels().tobytes() + view.depth.tobytes()).hexdigest()
    assert out.stdout.strip() == expected


def test_other_seeds_and_walks_are_other_rooms_and_views() -> None:
    assert len({room_digest(seed) for seed in range(4)}) == 4
    room = Room(1)
    assert not np.allclose(room.path(4), room.path(4, walk=1))
    assert not np.array_equal(
        room.scan(points=500).cloud.points, room.scan(points=500, walk=1).cloud.points
    )


def test_unprojected_depth_lies_on_the_surface(rooms: list[Room]) -> None:
    for room in rooms:
        for image in room.views(3, width=80, height=60).images:
            points, _ = points_of(image)
            assert len(points) == 80 * 60
            assert np.abs(room.scene.sdf(points)).max() < 1e-3


def test_two_cameras_agree_where_both_see_a_point(rooms: list[Room]) -> None:
    """Depth and, since light does not depend on the observer, colour."""
    compared, passed = 0, 0
    for room in rooms:
        first, *others = room.views(12, width=80, height=60, field_of_view=90.0).images
        points, at = points_of(first)
        colors = first.pixels()[at[:, 0], at[:, 1]].astype(int)
        for other in others:
            pixels, depth = other.camera.project(points)
            inside = (depth > 0.1) & (pixels > 0).all(axis=1)
            inside &= (pixels[:, 0] < 80) & (pixels[:, 1] < 60)
            if not inside.any():
                continue
            eye = other.camera.pose[:3, 3]
            ways = points[inside] - eye
            length = np.linalg.norm(ways, axis=1)
            ranges, who = room.scene.cast(eye, ways / length[:, None])
            passed += int((ranges > length + 1e-3).sum())
            seen = np.abs(ranges - length) < 1e-3
            compared += int(seen.sum())
            again, _ = room.scene.paint(points[inside][seen], who[seen])
            assert np.median(np.abs(again.astype(int) - colors[inside][seen])) <= 1
            # The image's own depth, at the pixel the point falls in.
            u, v = pixels[inside][seen].astype(int).T
            assert other.depth is not None
            gap = np.abs(other.depth[v, u] - depth[inside][seen])
            assert np.median(gap, axis=0) < 0.03 if seen.sum() > 100 else True
    assert compared > 5000
    # Nothing can be behind what is there, but for rays along an outline.
    assert passed < 0.01 * compared


def test_views_know_what_they_see(rooms: list[Room]) -> None:
    for room in rooms:
        camera = room.cameras(5, width=80, height=60)[2]
        view = room.scene.render(camera)
        image = room.scene.image(camera)
        assert np.array_equal(view.color, image.pixels())
        assert image.depth is not None
        assert np.array_equal(view.depth, image.depth)
        assert (view.alpha == 255).all()
        points, at = points_of(image)
        labels, instances = room.scene.nearest(points)
        same = labels == view.labels[at[:, 0], at[:, 1]]
        assert same.mean() > 0.999  # two things may touch
        assert (instances == view.instances[at[:, 0], at[:, 1]]).mean() > 0.999
        normals = view.normals[at[:, 0], at[:, 1]]
        toward = camera.pose[:3, 3] - points
        assert (np.einsum("ij,ij->i", normals, toward) > -1e-3).mean() > 0.999
        assert (room.scene.sdf(points + 2e-3 * normals) > 0).mean() > 0.99  # corners


def test_views_are_a_collection_of_posed_images() -> None:
    views = Room(1).views(9, width=20, height=15)
    assert isinstance(views, PosedImages)
    assert views.splits["test"] == (0, 8)
    assert views.near_far is not None
    for image, (near, far) in zip(views.images, views.near_far, strict=True):
        assert image.depth is not None
        assert near == pytest.approx(image.depth.min())
        assert far == pytest.approx(image.depth.max())


def test_finer_colours_keep_the_geometry() -> None:
    room = Room(2)
    camera = room.cameras(1, width=40, height=30)[0]
    plain, fine = room.scene.render(camera), room.scene.render(camera, samples=3)
    assert np.array_equal(plain.depth, fine.depth)
    difference = np.abs(plain.color.astype(int) - fine.color.astype(int))
    assert 0.0 < difference.mean() < 12.0


def test_nothing_is_seen_where_nothing_is() -> None:
    room = Room(4, ceiling=False)
    eye = (0.0, 0.0, room.size[2] + 0.5)
    camera = Camera.from_field_of_view(20, 15, 1.0, look_at(eye, (0.0, 0.0, 9.0)))
    view = room.scene.render(camera)
    assert not view.depth.any()
    assert not view.color.any()
    assert not view.alpha.any()
    assert not view.normals.any()
    assert not view.instances.any()
    assert (view.labels == IGNORE).all()
    image = room.scene.image(camera, alpha=True)
    assert image.pixels().shape == (15, 20, 4)
    ranges, who = room.scene.cast(np.array(eye), np.array([[0.0, 0.0, 1.0]]))
    assert np.isinf(ranges).all()
    assert who.tolist() == [-1]


def test_the_ceiling_and_the_people_change_nothing_else() -> None:
    whole, bare = Room(7, people=False), Room(7, people=False, ceiling=False)
    assert np.array_equal(whole.boxes.boxes, bare.boxes.boxes)
    crowded = Room(7, people=True)
    assert len(crowded.boxes) > len(whole.boxes)
    assert np.array_equal(crowded.boxes.boxes[: len(whole.boxes)], whole.boxes.boxes)


def test_walks_stay_in_free_space(rooms: list[Room]) -> None:
    for room in rooms:
        path = room.path(40)
        eyes = path[:, :3, 3]
        half = 0.5 * np.array(room.size[:2])
        assert (np.abs(eyes[:, :2]) < half).all()
        assert room.scene.sdf(eyes).min() > 0.15
        assert np.allclose(path[:, :3, :3] @ path[:, :3, :3].transpose(0, 2, 1), np.eye(3))
        assert (path[:, 2, 1] < 0).all()  # the image's y axis points down
        steps = np.linalg.norm(np.diff(eyes, axis=0, append=eyes[:1]), axis=1)
        assert steps.max() < 1.0


@pytest.mark.parametrize("device", ["rgbd", "laser"])
def test_clouds_lie_near_the_surface_and_know_what_they_are_of(
    rooms: list[Room], device: str
) -> None:
    for room in rooms:
        sample = room.scan(device=device, points=20_000)
        points = sample.cloud.points
        assert 14_000 < len(points) <= 20_000
        assert sample.labels is not None
        assert sample.instances is not None
        known = sample.labels != IGNORE
        assert known.mean() > (0.999 if device == "rgbd" else 0.93)
        off = np.abs(room.scene.sdf(points[known]))
        assert np.median(off) < 0.01
        assert np.quantile(off, 0.99) < 0.06
        labels, instances = room.scene.nearest(points[known])
        assert (labels == sample.labels[known]).mean() > 0.94
        assert (instances == sample.instances[known]).mean() > 0.93
        for name in ("red", "green", "blue"):
            assert sample.cloud.attributes[name].dtype == np.uint8
        names = {CLASSES[i] for i in np.unique(sample.labels[known])}
        assert names >= STRUCTURE
        assert len(names) >= 8


@pytest.mark.filterwarnings("error")
def test_rooms_without_a_ceiling_are_scanned_too() -> None:
    room = Room(7, ceiling=False)
    for device in DEVICES:
        sample = room.scan(device=device, points=8000)
        assert 2000 < len(sample.cloud) <= 8000
        assert CLASSES.index("ceiling") not in sample.labels


def test_boxes_hold_their_objects_and_no_more(rooms: list[Room]) -> None:
    for room in rooms:
        surface = room.scene.surface(600.0)
        boxes = room.boxes
        assert boxes.track_ids is not None
        inside = boxes.contains(surface.points, margin=1e-3)
        for k, track in enumerate(boxes.track_ids):
            own = surface.instances == track
            assert own.any()
            assert inside[k, own].all()
            assert BOX_CLASSES[boxes.labels[k]] == CLASSES[surface.labels[own][0]]
            # Free-standing things, sampled alone, reach every side of their box.
            if BOX_CLASSES[boxes.labels[k]] in ("door", "window"):
                continue
            points = room.scene.part([int(track)]).surface(1500.0).points
            x, y, z, *size, yaw = boxes.boxes[k].astype(np.float64)
            c, s = np.cos(yaw), np.sin(yaw)
            local = (points - (x, y, z)) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            assert (local.max(axis=0) > 0.5 * np.array(size) - 0.06).all()
            assert (local.min(axis=0) < -0.5 * np.array(size) + 0.06).all()


def test_boxes_of_a_scan_are_those_of_objects_that_were_hit() -> None:
    sample = Room(3).scan(points=20_000)
    assert sample.boxes is not None
    assert sample.instances is not None
    assert sample.boxes.track_ids is not None
    inside = sample.boxes.contains(sample.cloud.points, margin=0.08)
    for k, track in enumerate(sample.boxes.track_ids):
        own = sample.instances == track
        assert own.sum() >= 20
        assert inside[k, own].mean() > 0.99


def test_objects_do_not_overlap(rooms: list[Room]) -> None:
    """No point of the surface of one is within another."""
    for room in rooms:
        tracks = [int(i) for i in room.scene.instances if i > 0]
        alone: dict[int, Scene] = {i: room.scene.part([i]) for i in tracks}
        samples = {i: alone[i].surface(800.0).points for i in tracks}
        for i in tracks:
            others = room.scene.part([j for j in tracks if j != i])
            assert others.sdf(samples[i]).min() > -1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_rooms_of_every_kind_are_furnished(kind: str) -> None:
    needed = {
        "living": "sofa",
        "bedroom": "bed",
        "office": "chair",
        "dining": "table",
        "meeting": "table",
    }
    has = 0
    for seed in range(16):
        room = Room(seed, kind=kind)
        names = [CLASSES[label] for label in room.scene.labels]
        assert set(names) >= STRUCTURE | {"door", "window"}
        movable = [n for n in names if n not in STRUCTURE | {"door", "window"}]
        assert len(movable) >= 5
        has += needed[kind] in names
    assert has >= 13


def test_rooms_are_a_data_set() -> None:
    rooms = Rooms(3, 40, points=800, kinds=("office", "bedroom"))
    assert isinstance(rooms, Scans)
    assert len(rooms) == 3
    assert rooms.names == ["room-000040", "room-000041", "room-000042"]
    assert [rooms[i].name for i in (0, 2)] == [rooms.names[0], rooms.names[2]]
    assert rooms[-1].name == rooms.names[2]
    assert [rooms.room(i).kind for i in range(3)] == ["office", "bedroom", "office"]
    assert list(rooms.sequences) == [range(0, 1), range(1, 2), range(2, 3)]
    with pytest.raises(IndexError, match="no sample 3"):
        rooms[3]
    assert Rooms(3, 40, points=800, endless=True)[7].name == "room-000047"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind 'castle'; choose"):
        Room(0, kind="castle")
    with pytest.raises(ValueError, match="no kind 'castle'; choose"):
        Rooms(1, kinds=["castle"])
    with pytest.raises(ValueError, match="no device 'radar'; choose"):
        Room(0).scan(device="radar")
    with pytest.raises(ValueError, match="no device 'radar'; choose"):
        Rooms(1, device="radar")
    with pytest.raises(ValueError, match="num is 0"):
        Rooms(0)
    with pytest.raises(ValueError, match="a scan of 0 points"):
        Room(0).scan(points=0)
    with pytest.raises(ValueError, match="0 poses"):
        Room(0).path(0)
    with pytest.raises(ValueError, match="no instance"):
        Room(0).scene.part([12345])


def test_poses_look_where_they_are_told() -> None:
    for target in ((3.0, 1.0, 0.5), (1.0, 2.0, 9.0), (1.0, 2.0, -9.0)):
        pose = look_at((1.0, 2.0, 0.0), target)
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3))
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        local = transform(invert(pose), np.array([target]))[0]
        assert np.allclose(local[:2], 0.0)
        assert local[2] > 0
