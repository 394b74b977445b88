"""Output sites: ``reach`` with and without bounds, and sites anywhere in int32."""

from __future__ import annotations

import oracle
import pytest
import torch
from checks import check_conv, here, in_order, random_sites, random_tensor, randomized
from oracle import INT32_MAX, INT32_MIN

import perception
from perception import nn

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("stride", [1, 2, (1, 2, 3)])
@pytest.mark.parametrize("kernel", [2, 3, (3, 1, 2)])
@pytest.mark.parametrize("padding", ["same", 0, 1])
def test_reach(kernel, stride, padding):
    coords = random_sites(25, 3, seed=1)
    steps = oracle.per_axis(stride, 3)
    offsets = oracle.taps(3, kernel, padding=padding)
    check_conv(
        randomized(nn.Conv(2, 3, kernel, stride=stride, padding=padding, sites="reach")),
        random_tensor(coords, 2),
        offsets,
        stride=steps,
        expected=oracle.reach(oracle.as_sites(coords), offsets, steps),
    )


@pytest.mark.parametrize("dim", range(1, 8))
def test_reach_in_any_dimension(dim):
    coords = random_sites(12, dim, seed=dim)
    offsets = oracle.taps(dim, 3, kernel="cross")
    for stride in (1, 2):
        check_conv(
            randomized(nn.Conv(2, 2, 3, stride=stride, kernel="cross", dim=dim, sites="reach")),
            random_tensor(coords, 2),
            offsets,
            stride=(stride,) * dim,
            expected=oracle.reach(oracle.as_sites(coords), offsets, (stride,) * dim),
        )


def test_bounds_are_inclusive_and_in_output_sites():
    coords = random_sites(60, 3, seed=2, low=0, high=12)
    offsets = oracle.taps(3, 3)
    layer = randomized(nn.Conv(2, 2, 3, stride=2, sites="reach"))
    low, high = (0, 1, 2), (5, 3, 2)
    expected = oracle.reach(oracle.as_sites(coords), offsets, (2, 2, 2), (low, high))
    assert any(site[1] == 5 for site in expected)
    assert any(site[2] == 1 for site in expected)
    assert any(site[2] == 3 for site in expected)
    y = check_conv(
        layer,
        random_tensor(coords, 2),
        offsets,
        stride=(2, 2, 2),
        expected=expected,
        bounds=(torch.tensor(low), torch.tensor(high)),
    )
    assert y.num_sites > 0


def test_bounds_that_exclude_everything():
    x = random_tensor(random_sites(20, 2), 2)
    layer = randomized(nn.Conv(2, 2, 3, dim=2, sites="reach"))
    y = layer(x, bounds=(torch.tensor([100, 100]), torch.tensor([200, 200])))
    assert y.num_sites == 0
    assert y.batch_size == x.batch_size


def test_floor_stride_of_negative_sites():
    """-1 belongs to -1 at stride 2, not to 0: floor, not truncation."""
    coords = torch.tensor([[0, -1], [0, -2], [0, -3], [0, 0], [0, 1]], dtype=torch.int32)
    y = here(nn.Conv(1, 1, 2, stride=2, dim=1))(random_tensor(coords, 1, dtype=torch.float32))
    assert sorted(oracle.as_sites(y.coords)) == [(0, -2), (0, -1), (0, 0)]
    y = here(nn.Conv(1, 1, 2, stride=3, dim=1))(random_tensor(coords, 1, dtype=torch.float32))
    assert sorted(oracle.as_sites(y.coords)) == [(0, -1), (0, 0)]


# --- the ends of int32 ------------------------------------------------------------------------


def _corners(dim: int) -> torch.Tensor:
    """Sites at both ends of int32 on every axis, their inner neighbours, and some near zero."""
    rows = set()
    for axis in range(dim):
        for end, inward in ((INT32_MIN, 1), (INT32_MAX, -1)):
            for other in (0, INT32_MIN, INT32_MAX):
                for step in range(3):
                    site = [other] * dim
                    site[axis] = end + inward * step
                    rows.add((0, *site))
                    rows.add((1, *site))
    rows |= set(oracle.as_sites(random_sites(20, dim, seed=dim, low=-2, high=3)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    listed = sorted(rows)
    return here(torch.tensor([listed[i] for i in order], dtype=torch.int32))


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dim", range(1, 8))
def test_both_ends_of_int32_in_one_tensor(dim, stride, order):
    """A tap that leaves int32 finds nothing; it never wraps around to the other end."""
    coords = in_order(_corners(dim), order)
    sites = oracle.as_sites(coords)
    kernel = "cube" if dim <= 3 else "cross"
    offsets = oracle.taps(dim, 3, kernel=kernel)
    check_conv(
        randomized(nn.Conv(2, 2, 3, stride=stride, kernel=kernel, dim=dim)),
        random_tensor(coords, 2),
        offsets,
        stride=(stride,) * dim,
        expected=sites if stride == 1 else oracle.floor_stride(sites, (stride,) * dim),
    )


@pytest.mark.parametrize("dilation", [2**20, 2**30, 2**31 - 1])
def test_displacements_of_the_size_of_int32(dilation):
    far = [(0, -dilation), (0, 0), (0, dilation), (0, INT32_MIN), (0, INT32_MAX), (0, 1)]
    coords = torch.tensor(sorted(set(far)), dtype=torch.int32)
    offsets = oracle.taps(1, 3, dilation)
    check_conv(
        randomized(nn.Conv(2, 2, 3, dilation=dilation, dim=1)),
        random_tensor(coords, 2),
        offsets,
        stride=(1,),
        expected=oracle.as_sites(coords),
    )


def test_stride_times_site_does_not_wrap():
    """2 * 2^30 = 2^31 is no site; -2^31, where int32 would wrap to, is one."""
    coords = torch.tensor([[0, INT32_MIN], [0, 0], [0, INT32_MAX]], dtype=torch.int32)
    wanted = here(torch.tensor([[0, 2**30], [0, INT32_MAX], [0, -(2**30)]], dtype=torch.int32))
    y = check_conv(
        randomized(nn.Conv(1, 1, 3, stride=2, dim=1)),
        random_tensor(coords, 1),
        oracle.taps(1, 3),
        stride=(2,),
        expected=oracle.as_sites(wanted),
        ordered=True,
        sites=wanted,
    )
    assert y.stride == (2,)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_reach_beyond_int32_is_an_error_unless_bounds_exclude_it(dim):
    coords = _corners(dim)
    offsets = oracle.taps(dim, 3, kernel="cross")
    with pytest.raises(ValueError, match="int32"):
        here(nn.Conv(1, 1, 3, kernel="cross", dim=dim, sites="reach"))(
            random_tensor(coords, 1, dtype=torch.float32)
        )
    bounds = ((INT32_MIN,) * dim, (INT32_MAX,) * dim)
    for stride in (1, 2):
        check_conv(
            randomized(
                nn.Conv(1, 1, 3, stride=stride, kernel="cross", dim=dim, sites="reach", bias=False)
            ),
            random_tensor(coords, 1),
            offsets,
            stride=(stride,) * dim,
            expected=oracle.reach(oracle.as_sites(coords), offsets, (stride,) * dim, bounds),
            bounds=bounds,
        )


def test_generating_beyond_int32_is_an_error_unless_bounds_exclude_it():
    coords = torch.tensor(
        [[0, INT32_MIN, 0], [0, 2**30, 0], [0, 2**30 - 1, 5], [0, -(2**30), INT32_MAX]],
        dtype=torch.int32,
    )
    layer = randomized(nn.GenerativeConvTranspose(1, 1, 2, stride=2, dim=2))
    with pytest.raises(ValueError, match="int32"):
        layer(random_tensor(coords, 1))
    offsets, bounds = oracle.taps(2, 2), ((INT32_MIN,) * 2, (INT32_MAX,) * 2)
    check_conv(
        layer,
        random_tensor(coords, 1),
        offsets,
        stride=(2, 2),
        expected=oracle.reach_transposed(oracle.as_sites(coords), offsets, (2, 2), bounds),
        transposed=True,
        bounds=bounds,
    )


@pytest.mark.parametrize("batch", [0, 1, 1000, 2_000_000])
def test_large_batch_indices(batch):
    coords = random_sites(30, 3, batch_size=2)
    coords[:, 0] *= batch
    coords = torch.unique(coords, dim=0)
    check_conv(
        randomized(nn.Conv(1, 1, 3)),
        random_tensor(coords, 1),
        oracle.taps(3, 3),
        stride=(1, 1, 1),
        expected=oracle.as_sites(coords),
    )


def test_far_apart_pooling_and_union():
    coords = _corners(3)
    x = random_tensor(coords, 2)
    pooled = here(nn.SumPool(2, 2))(x)
    expected = oracle.floor_stride(oracle.as_sites(coords), (2, 2, 2))
    assert sorted(oracle.as_sites(pooled.coords)) == expected
    torch.testing.assert_close(pooled.features.sum(0), x.features.sum(0))
    other = random_tensor(_corners(3)[::2].contiguous(), 2, seed=1)
    assert perception.union(x, other).num_sites == x.num_sites


def test_duplicates_are_found_at_the_ends_of_int32():
    coords = _corners(3)
    repeated = torch.cat([coords, coords[7:8]])
    name = str(oracle.as_sites(coords[7:8])[0]).strip("()")
    with pytest.raises(ValueError, match=name):
        perception.SparseTensor(here(torch.zeros(len(repeated), 1)), repeated)
