"""Pooling, global pooling and unpooling."""

from __future__ import annotations

import oracle
import pytest
import torch
from checks import assert_close, by_site, check_pool, here, random_sites, random_tensor
from torch.nn import functional

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")
POOLS = {"max": nn.MaxPool, "avg": nn.AvgPool, "sum": nn.SumPool}
WINDOWS = [  # kernel, stride
    (2, 2),
    (3, 3),
    (3, 2),
    (3, 1),
    (2, 1),
    (1, 1),
    (5, 2),
    ((2, 3, 2), (2, 3, 2)),
    ((3, 1, 3), (2, 1, 2)),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_pool(kernel, stride, mode, dtype):
    coords = random_sites(90, 3, seed=1)
    steps = oracle.per_axis(stride, 3)
    sites = oracle.as_sites(coords)
    y = check_pool(
        POOLS[mode](kernel, stride),
        random_tensor(coords, 3, dtype=dtype),
        oracle.pool_taps(3, kernel, stride),
        stride=steps,
        expected=sites if steps == (1, 1, 1) else oracle.floor_stride(sites, steps),
        mode=mode,
    )
    assert y.stride == steps
    if steps == (1, 1, 1):
        assert torch.equal(y.coords, coords)


@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("dim", range(1, 8))
def test_pool_in_any_dimension(dim, mode):
    coords = random_sites(60, dim, seed=dim)
    check_pool(
        POOLS[mode](2, 2, dim=dim),
        random_tensor(coords, 2),
        oracle.pool_taps(dim, 2, 2),
        stride=(2,) * dim,
        expected=oracle.floor_stride(oracle.as_sites(coords), (2,) * dim),
        mode=mode,
    )


def test_max_of_negative_numbers_ignores_absent_sites():
    x = SparseTensor(torch.tensor([[-3.0], [-5.0]]), torch.tensor([[0, 0], [0, 1]]).int())
    assert here(nn.MaxPool(2, 2, dim=1))(here(x)).features.item() == -3.0


def test_avg_divides_by_the_sites_that_exist():
    x = SparseTensor(
        torch.tensor([[3.0], [5.0], [7.0]]), torch.tensor([[0, 0, 0], [0, 1, 1], [0, 2, 2]]).int()
    )
    assert by_site(here(nn.AvgPool(2, 2, dim=2))(here(x))) == {(0, 0, 0): [4.0], (0, 1, 1): [7.0]}


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_full_grid_equals_dense_torch(mode):
    dense = torch.randn(2, 3, 6, 4, 8)
    y = here(POOLS[mode](2, 2))(SparseTensor.from_dense(here(dense))).dense()
    expected = functional.max_pool3d(dense, 2) if mode == "max" else functional.avg_pool3d(dense, 2)
    assert_close(y, expected, 1e-6, "pool")


def test_max_pool_gives_each_gradient_to_one_site():
    coords = random_sites(60, 3)
    x = SparseTensor(here(torch.zeros(len(coords), 2)).requires_grad_(), coords)  # everything ties
    y = here(nn.MaxPool(2, 2))(x)
    y.features.sum().backward()
    assert x.features.grad.sum() == y.features.numel()
    assert set(x.features.grad.unique().tolist()) <= {0.0, 1.0}


def test_max_pool_passes_nan_on():
    """As torch does: a NaN must not vanish silently."""
    x = SparseTensor(torch.tensor([[float("nan")], [1.0]]), torch.tensor([[0, 0], [0, 1]]).int())
    assert here(nn.MaxPool(2, 2, dim=1))(here(x)).features.isnan().all()


@pytest.mark.parametrize("mode", ["max", "avg", "sum"])
def test_global_pool(mode):
    coords = random_sites(60, 3, batch_size=3, seed=2)
    coords[:, 0] *= 2  # samples 1 and 3 are empty
    x = random_tensor(coords, 3, batch_size=6)
    y = nn.GlobalPool(mode)(x)
    assert oracle.as_sites(y.coords) == [(b, 0, 0, 0) for b in range(6)]
    assert y.batch_size == 6
    expected = here(torch.zeros(6, 3, dtype=torch.float64))
    for b in (0, 2, 4):
        rows = x.features[coords[:, 0] == b].detach()
        reduced = {"max": rows.amax(0), "avg": rows.mean(0), "sum": rows.sum(0)}
        expected[b] = reduced[mode]
    assert_close(y.features, expected, 1e-12, "global pool")
    y.features[[1, 3, 5]].sum().backward(retain_graph=True)
    assert not x.features.grad.any()
    weight = torch.randn_like(y.features)
    (y.features * weight).sum().backward()
    per_row = weight[coords[:, 0].long()]
    if mode == "sum":
        assert_close(x.features.grad, per_row, 1e-12, "gradient")
    elif mode == "avg":
        counts = coords[:, 0].long().bincount(minlength=6).clamp(min=1)
        expected_grad = per_row / counts[coords[:, 0].long()][:, None]
        assert_close(x.features.grad, expected_grad, 1e-12, "gradient")
    else:
        hit = y.features.detach()[coords[:, 0].long()] == x.features.detach()
        assert_close(x.features.grad, per_row * hit, 1e-12, "gradient")


def test_global_pool_keeps_the_stride():
    x = random_tensor(random_sites(10, 2), 2, stride=(4, 2))
    assert nn.GlobalPool("max")(x).stride == (4, 2)


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_unpool_sums_the_coarse_sites_that_reach_a_fine_one(kernel, stride):
    fine = random_tensor(random_sites(60, 3, seed=3), 1)
    steps = oracle.per_axis(stride, 3)
    coarse = oracle.floor_stride(oracle.as_sites(fine.coords), steps)
    x = random_tensor(torch.tensor(coarse, dtype=torch.int32), 2, stride=steps)
    check_pool(
        nn.Unpool(kernel, stride),
        x,
        oracle.pool_taps(3, kernel, stride),
        stride=steps,
        expected=oracle.as_sites(fine.coords),
        mode="sum",
        transposed=True,
        like=fine,
    )


def test_unpool_copies_the_parent():
    fine = random_tensor(random_sites(60, 3, seed=4), 2)
    coarse = here(nn.AvgPool(2, 2))(fine)
    y = here(nn.Unpool(2, 2))(coarse, like=fine)
    assert torch.equal(y.coords, fine.coords)
    assert y.stride == fine.stride
    parents = by_site(coarse)
    for site, row in by_site(y).items():
        parent = (site[0], *(c // 2 for c in site[1:]))
        assert row.tolist() == parents[parent].tolist()


def test_pooling_is_an_unweighted_convolution():
    x = random_tensor(random_sites(60, 3, seed=5), 2)
    conv = here(nn.Conv(2, 2, 3, stride=2, bias=False).double())
    pool = here(nn.SumPool(3, 2))
    with torch.no_grad():
        conv.weight.copy_(torch.eye(2).expand(27, 2, 2))
    assert isinstance(conv(x), perception.SparseTensor)
    a, b = by_site(pool(x)), by_site(conv(x))
    assert a.keys() == b.keys()
    for site in a:
        assert_close(a[site], b[site], 1e-12, "sum pool")
