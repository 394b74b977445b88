"""From points to voxels and back."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from checks import assert_close, f64, here, random_sites, random_tensor

import perception
from perception import SparseTensor

pytestmark = pytest.mark.usefixtures("device")
REDUCE = ["mean", "sum", "max", "first"]


def _points(count: int, dim: int, *, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    """Points away from the faces of any voxel used below, so that rounding decides nothing."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(-int(spread * 4), int(spread * 4), (count, dim))
    return here(torch.from_numpy((cells + rng.uniform(0.1, 0.9, (count, dim))) * 0.25))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize(
    ("dim", "voxel_size", "origin"),
    [
        (1, 0.25, None),
        (2, 0.5, None),
        (3, 0.25, (0.5, -1.0, 0.25)),
        (3, (0.25, 0.5, 1.0), None),
        (4, (0.5, 0.5, 0.5, 2.0), (0.0, 0.0, 0.0, -7.0)),
        (7, 1.0, None),
    ],
)
def test_voxelize(dim, voxel_size, origin, reduce, dtype):
    points = _points(300, dim, seed=dim, spread=2).to(dtype)
    batch = here(torch.from_numpy(np.random.default_rng(1).integers(0, 3, 300)))
    features = here(torch.randn(300, 3, dtype=dtype)).requires_grad_()
    size = (voxel_size,) * dim if isinstance(voxel_size, float) else voxel_size
    expected = oracle.voxelize(
        f64(points), size, f64(features), batch=batch.tolist(), reduce=reduce, origin=origin
    )
    voxels = perception.voxelize(
        points,
        voxel_size,
        features=features,
        batch=batch,
        reduce=reduce,
        origin=0 if origin is None else origin,
    )
    assert voxels.coords.dtype == torch.int32
    assert oracle.as_sites(voxels.coords) == expected.sites
    assert voxels.point_to_voxel.tolist() == expected.point_to_voxel
    assert voxels.point_to_voxel.dtype == torch.int64
    assert voxels.counts.tolist() == expected.counts
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert_close(voxels.features, expected.features, tolerance, reduce)

    grad_out = torch.randn_like(voxels.features)
    voxels.features.backward(grad_out)
    row = voxels.point_to_voxel
    grad = grad_out[row].double()
    if reduce == "mean":
        grad = grad / voxels.counts[row][:, None]
    elif reduce == "max":
        grad = grad * (features.detach() == voxels.features.detach()[row])
    elif reduce == "first":
        first = torch.tensor([row.tolist().index(v) for v in row.tolist()])
        grad = grad * here(first == torch.arange(300))[:, None]
    assert_close(features.grad, grad, tolerance, "gradient")


def test_faces_belong_to_the_upper_voxel_and_negative_points_to_the_floor():
    points = here(torch.tensor([[0.0], [0.5], [0.49], [-0.5], [-0.51], [-0.01], [1.0]]))
    voxels = perception.voxelize(points, 0.5, features=points)
    assert oracle.as_sites(voxels.coords) == [(0, -2), (0, -1), (0, 0), (0, 1), (0, 2)]
    assert voxels.point_to_voxel.tolist() == [2, 3, 2, 1, 0, 1, 4]


def test_bounds_drop_points():
    points = _points(400, 3, seed=5)
    features = here(torch.randn(400, 2, dtype=torch.float64))
    low, high = (-1.5, -2.0, 0.0), (1.0, 2.0, 2.5)
    expected = oracle.voxelize(f64(points), (0.5,) * 3, f64(features), bounds=(low, high))
    voxels = perception.voxelize(points, 0.5, features=features, bounds=(low, high))
    assert -1 in expected.point_to_voxel
    assert oracle.as_sites(voxels.coords) == expected.sites
    assert voxels.point_to_voxel.tolist() == expected.point_to_voxel
    assert voxels.counts.tolist() == expected.counts
    assert_close(voxels.features, expected.features, 1e-12, "mean")


def test_bounds_that_drop_everything():
    voxels = perception.voxelize(
        _points(10, 3), 0.5, features=here(torch.ones(10, 2)), bounds=((50.0,) * 3, (60.0,) * 3)
    )
    assert voxels.coords.shape == (0, 4)
    assert voxels.features.shape == (0, 2)
    assert voxels.point_to_voxel.tolist() == [-1] * 10


@pytest.mark.parametrize("limit", [1, 3])
def test_max_points_keeps_the_first_of_each_voxel(limit):
    points = _points(200, 2, seed=6, spread=1)
    features = here(torch.randn(200, 2, dtype=torch.float64))
    everything = perception.voxelize(points, 0.5, features=features)
    limited = perception.voxelize(points, 0.5, features=features, max_points=limit)
    assert everything.counts.max() > 3
    assert torch.equal(limited.coords, everything.coords)
    for row in range(len(limited.coords)):
        members = torch.nonzero(everything.point_to_voxel == row).flatten()[:limit]
        assert_close(limited.features[row], features[members].mean(0), 1e-12, "mean of the first")


def test_order_of_points_changes_nothing_but_the_first():
    points, order = _points(200, 3, seed=7), here(torch.randperm(200))
    features = here(torch.randn(200, 2, dtype=torch.float64))
    a = perception.voxelize(points, 0.5, features=features)
    b = perception.voxelize(points[order], 0.5, features=features[order])
    assert torch.equal(a.coords, b.coords)
    assert torch.equal(a.point_to_voxel[order], b.point_to_voxel)
    assert_close(a.features, b.features, 1e-12, "mean")


def test_without_features_the_points_themselves_are_reduced():
    points = _points(100, 3, seed=11)
    plain = perception.voxelize(points, 0.5)
    assert_close(plain.features, perception.voxelize(points, 0.5, features=points).features, 0, "")


def test_far_points_reach_the_ends_of_int32():
    points = here(torch.tensor([[2.0**31 - 1], [-(2.0**31)], [0.0]], dtype=torch.float64))
    voxels = perception.voxelize(points, 1.0, features=points)
    assert oracle.as_sites(voxels.coords) == [(0, -(2**31)), (0, 0), (0, 2**31 - 1)]


def test_from_points():
    points = _points(300, 3, seed=8)
    batch = here(torch.arange(300) % 2)
    features = here(torch.randn(300, 2, dtype=torch.float64))
    for reduce in REDUCE:
        x = SparseTensor.from_points(points, features, 0.5, batch=batch, reduce=reduce)
        voxels = perception.voxelize(points, 0.5, features=features, batch=batch, reduce=reduce)
        assert torch.equal(x.coords, voxels.coords)
        assert torch.equal(x.features, voxels.features)
        assert (x.stride, x.batch_size) == ((1, 1, 1), 2)
    shifted = SparseTensor.from_points(points, features, 0.5, origin=(0.5, 1.0, -0.5))
    expected = oracle.voxelize(f64(points), (0.5,) * 3, f64(features), origin=(0.5, 1.0, -0.5))
    assert oracle.as_sites(shifted.coords) == expected.sites


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
@pytest.mark.parametrize(
    ("dim", "stride", "voxel_size", "origin"),
    [
        (1, 1, 0.25, None),
        (2, 2, 0.25, None),
        (3, 1, 0.5, (0.25, -1.0, 0.5)),
        (3, (1, 2, 4), (0.5, 0.25, 0.125), None),
        (4, 1, (0.5, 0.5, 0.5, 1.0), None),
    ],
)
def test_devoxelize(dim, stride, voxel_size, origin, mode, dtype):
    coords = random_sites(150, dim, seed=dim, low=-3, high=4)
    x = random_tensor(coords, 3, dtype=dtype, stride=stride)
    points = _points(200, dim, seed=9, spread=2).to(dtype)
    batch = here(torch.arange(200) % 3)  # nothing is in sample 2
    size = (voxel_size,) * dim if isinstance(voxel_size, float) else voxel_size
    terms = oracle.interpolation(
        oracle.as_sites(coords),
        f64(points),
        size,
        stride=oracle.per_axis(stride, dim),
        origin=origin,
        batch=batch.tolist(),
        mode=mode,
    )
    assert [] in terms
    y = perception.devoxelize(
        x,
        points,
        voxel_size,
        origin=0 if origin is None else origin,
        mode=mode,
        batch=batch,
    )
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert_close(y, oracle.devoxelize(f64(x.features), terms), tolerance, "output")
    grad_out = torch.randn_like(y)
    y.backward(grad_out)
    grad = oracle.devoxelize_backward(f64(grad_out), len(coords), terms)
    assert_close(x.features.grad, grad, tolerance, "gradient")


def test_there_and_back():
    points = _points(200, 3, seed=10)
    features = here(torch.randn(200, 2, dtype=torch.float64))
    voxels = perception.voxelize(points, 0.25, features=features)
    x = SparseTensor(voxels.features, voxels.coords)
    back = perception.devoxelize(x, points, 0.25)  # nearest is the default
    assert torch.equal(back, voxels.features[voxels.point_to_voxel])
    centres = (voxels.coords[:, 1:] + 0.5) * 0.25
    for mode in ("nearest", "trilinear"):
        at_centres = perception.devoxelize(x, centres.double(), 0.25, mode=mode)
        assert_close(at_centres, x.features, 1e-10, mode)


@pytest.mark.parametrize("voxel_size", [0.1, (0.05, 0.1, 0.15)], ids=str)
@pytest.mark.parametrize("origin", [0.0, (0.3, -51.2, -3.7)], ids=str)
def test_every_float32_point_finds_its_own_voxel_again(origin, voxel_size):
    """Also at strides, and where dividing by 0.1 rounds: both ways agree on the arithmetic."""
    points = here(torch.rand(50_000, 3) * 200 - 100)
    voxels = perception.voxelize(points, voxel_size, features=points, origin=origin)
    x = SparseTensor(voxels.features, voxels.coords)
    back = perception.devoxelize(x, points, voxel_size, origin=origin)
    assert torch.equal(back, voxels.features[voxels.point_to_voxel])
    coarse = torch.cat(
        [voxels.coords[:, :1], voxels.coords[:, 1:].div(4, rounding_mode="floor")], 1
    )
    unique, inverse = torch.unique(coarse, dim=0, return_inverse=True)
    numbers = here(torch.arange(float(len(unique)))[:, None])
    back = perception.devoxelize(
        SparseTensor(numbers, unique, stride=4), points, voxel_size, origin=origin
    )
    assert torch.equal(back[:, 0].long(), inverse[voxels.point_to_voxel])


def test_trilinear_of_a_linear_field_is_exact():
    grid = here(torch.nonzero(torch.ones(1, 6, 6, 6)).int())
    centres = (grid[:, 1:] + 0.5).double() * 0.5 * 2
    slope = here(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    x = SparseTensor((centres @ slope)[:, None] + 3, grid, stride=2)
    points = here(torch.rand(50, 3, dtype=torch.float64) * 5 + 0.5)  # inside the outermost centres
    y = perception.devoxelize(x, points, 0.5, mode="trilinear")
    assert_close(y[:, 0], points @ slope + 3, 1e-12, "linear field")


def test_trilinear_on_an_absent_site_uses_the_others():
    """A point in the middle of a hole sees nothing; a step aside it sees its neighbour fully."""
    x = here(SparseTensor(torch.tensor([[4.0], [8.0]]), torch.tensor([[0, 0], [0, 3]]).int()))
    points = here(torch.tensor([[0.5], [1.25], [1.5], [2.0], [3.5], [9.0]]))
    y = perception.devoxelize(x, points, 1.0, mode="trilinear")
    assert y.flatten().tolist() == [4.0, 4.0, 0.0, 0.0, 8.0, 0.0]
