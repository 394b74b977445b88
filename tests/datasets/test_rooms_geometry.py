"""Primitives, trees and scenes of the simulated rooms: distances, rays and surfaces agree."""

from __future__ import annotations

import dataclasses
import math
from random import Random

import numpy as np
import pytest

from perception.datasets.rooms import Scene
from perception.datasets.rooms.placing import tight_box
from perception.datasets.rooms.shapes import Item
from perception.datasets.rooms.texture import COLUMNS

TURN = (0.7, -0.4, 1.1)
AT = (0.3, -0.2, 0.1)


def item(kind: str) -> Item:
    """One turned solid."""
    made = Item("clutter", Random(0))
    if kind == "box":
        return made.box(0, (0.8, 0.5, 0.3), AT, turn=TURN)
    if kind == "rounded box":
        return made.box(0, (0.8, 0.5, 0.3), AT, edge=0.1, turn=TURN)
    if kind == "ellipsoid":
        return made.ellipsoid(0, (0.5, 0.3, 0.02), AT, turn=TURN)
    if kind == "cylinder":
        return made.cylinder(0, 0.3, 0.7, AT, turn=TURN)
    if kind == "rounded cylinder":
        return made.cylinder(0, 0.3, 0.7, AT, edge=0.1, turn=TURN)
    if kind == "cone":
        return made.cone(0, 0.4, 0.1, 0.6, AT, turn=TURN)
    if kind == "torus":
        return made.torus(0, 0.4, 0.1, AT, turn=TURN)
    hole = made.ellipsoid(0, (0.3, 0.3, 0.3), (0.5, 0.0, 0.3)).last()
    return made.box(0, (0.8, 0.5, 0.5), AT, turn=TURN, cuts=hole)


KINDS = (
    "box",
    "rounded box",
    "ellipsoid",
    "cylinder",
    "rounded cylinder",
    "cone",
    "torus",
    "cut box",
)
AREAS = {
    "box": 2 * (0.8 * 0.5 + 0.5 * 0.3 + 0.3 * 0.8),
    "cylinder": 2 * math.pi * 0.3 * (0.3 + 0.7),
    "cone": math.pi * (0.4**2 + 0.1**2 + 0.5 * math.hypot(0.3, 0.6)),
    "torus": 4 * math.pi**2 * 0.4 * 0.1,
}


def scene(*items: Item) -> Scene:
    rows, cuts = [], []
    for k, one in enumerate(items):
        part = np.array(one.rows)
        part[:, 18] = k
        part[:, 19] += len(cuts)
        rows.append(part)
        cuts += one.cuts
    return Scene(
        np.concatenate(rows),
        np.array(cuts, np.float64).reshape(-1, 28),
        np.zeros((1, COLUMNS)),
        np.zeros((0, 10)),
        np.ones(3),
        np.zeros(len(items), np.uint8),
        np.arange(1, len(items) + 1, dtype=np.int32),
        np.array([[[-9.0] * 3, [9.0] * 3]]),
    )


def directions(count: int, seed: int = 0) -> np.ndarray:
    ways = np.random.default_rng(seed).normal(size=(count, 3))
    return ways / np.linalg.norm(ways, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_to_the_nearest_point_of_the_surface(kind: str) -> None:
    world = scene(item(kind))
    surface = world.surface(20_000.0).points
    probes = np.random.default_rng(1).uniform(-1.0, 1.3, (200, 3))
    nearest = np.array([np.linalg.norm(surface - p, axis=1).min() for p in probes])
    sdf = world.sdf(probes)
    outside = sdf > 0
    assert outside.sum() > 100
    # Samples are some millimetres apart: they can only be farther than the surface.
    assert (nearest[outside] - sdf[outside]).min() > -1e-6
    if kind != "cut box":
        assert (nearest[outside] - sdf[outside]).max() < 0.017


@pytest.mark.parametrize("kind", KINDS)
def test_no_point_is_farther_from_another_than_their_distances_differ(kind: str) -> None:
    world = scene(item(kind))
    generator = np.random.default_rng(2)
    a = generator.uniform(-0.8, 1.2, (2000, 3))
    b = a + 0.05 * generator.normal(size=a.shape)
    change = np.abs(world.sdf(a) - world.sdf(b))
    assert (change <= np.linalg.norm(a - b, axis=1) + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rays_end_on_the_surface_and_pass_through_nothing(kind: str) -> None:
    world = scene(item(kind))
    eye = np.array([-1.5, 1.2, 1.4])
    ways = directions(4000)
    ways[:2000] = np.array(AT) - eye + 0.5 * ways[:2000]
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ranges, who = world.cast(eye, ways)
    met = who >= 0
    assert 200 < met.sum() < 3500
    assert np.isinf(ranges[~met]).all()
    assert np.abs(world.sdf(eye + ranges[met, None] * ways[met])).max() < 1e-5
    for t in np.linspace(0.02, 0.98, 25):
        assert world.sdf(eye + (t * ranges[met])[:, None] * ways[met]).min() > -1e-5
    for t in np.linspace(0.5, 3.5, 25):
        assert world.sdf(eye + t * ways[~met]).min() > -1e-5


@pytest.mark.parametrize("kind", sorted(AREAS))
def test_surface_samples_are_as_many_as_the_area_says(kind: str) -> None:
    surface = scene(item(kind)).surface(20_000.0)
    assert len(surface.points) == pytest.approx(20_000 * AREAS[kind], rel=0.03)
    assert np.abs(np.linalg.norm(surface.normals, axis=1) - 1.0).max() < 1e-5


def test_surface_samples_lie_on_the_surface_and_normals_point_out() -> None:
    for kind in KINDS:
        world = scene(item(kind))
        surface = world.surface(5000.0)
        assert np.abs(world.sdf(surface.points)).max() < 1e-6
        assert world.sdf(surface.points + 1e-3 * surface.normals).min() > 0.0


def test_surfaces_between_touching_solids_are_no_surface() -> None:
    left = Item("clutter", Random(0)).box(0, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    right = Item("clutter", Random(0)).box(0, (1.0, 1.0, 1.0), (1.0, 0.0, 0.0))
    surface = scene(left, right).surface(2000.0)
    assert len(surface.points) == pytest.approx(2000 * 10.0, rel=0.05)
    assert (np.abs(surface.points[:, 0] - 0.5) > 1e-3).mean() > 0.995


def test_the_tree_finds_what_every_primitive_alone_would_give() -> None:
    r = Random(5)
    parts = []
    for k in range(60):
        part = item(KINDS[k % len(KINDS)])
        moved = Item("clutter", r)
        moved.add(part, (r.uniform(-3, 3), r.uniform(-3, 3), r.uniform(-3, 3)), r.uniform(0, 6))
        parts.append(moved)
    world = scene(*parts)
    alone = [scene(part) for part in parts]
    probes = np.random.default_rng(3).uniform(-3.5, 3.5, (400, 3))
    assert np.allclose(world.sdf(probes), np.min([s.sdf(probes) for s in alone], axis=0))
    free = probes[world.sdf(probes) > 0.01]
    ways = directions(len(free))
    expected = np.min([s.cast(free, ways)[0] for s in alone], axis=0)
    assert np.allclose(world.cast(free, ways)[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cut box"])
def test_boxes_are_tight(kind: str) -> None:
    made = item(kind)
    yaw = 0.6
    box = tight_box(np.array(made.rows), yaw)
    points = scene(made).surface(30_000.0).points - np.array(box[:3])
    c, s = math.cos(yaw), math.sin(yaw)
    along = np.stack(
        [c * points[:, 0] + s * points[:, 1], c * points[:, 1] - s * points[:, 0], points[:, 2]], 1
    )
    half = 0.5 * np.array(box[3:6])
    assert (np.abs(along) <= half + 1e-6).all()
    assert (along.max(axis=0) > half - 0.02).all()
    assert (along.min(axis=0) < -half + 0.02).all()


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points must be \[N, 3\], got \[3\]"):
        scene(item("box")).sdf(np.zeros(3))


@pytest.mark.parametrize("kind", ["rounded box", "torus", "cone", "cut box"])
def test_meshes_are_closed_turned_outward_and_on_the_surface(kind: str) -> None:
    world = dataclasses.replace(
        scene(item(kind)), inside=np.array([[[-0.6, -1, -0.8], [1.1, 1, 1]]])
    )
    corners, triangles = world.mesh(0.02)
    assert np.abs(world.sdf(corners)).mean() < 5e-4
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    forth = np.unique(edges, axis=0)
    back = np.unique(edges[:, ::-1], axis=0)
    assert np.array_equal(forth, back)  # every edge has a triangle on both sides
    a, b, c = (corners[triangles[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    area = 0.5 * np.linalg.norm(across, axis=1)
    if kind in AREAS:
        assert area.sum() == pytest.approx(AREAS[kind], rel=0.03)
    big = area > 0.05 * np.median(area)
    middle = (a + b + c)[big] / 3.0
    outward = across[big] / (2.0 * area[big][:, None])
    assert (world.sdf(middle + 0.01 * outward) > world.sdf(middle)).mean() > 0.99
