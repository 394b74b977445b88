"""Arithmetic on sites: union, cat, + - *, prune, dense, bounds, samples of a batch."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from checks import assert_close, assert_same, by_site, f64, here, random_sites, random_tensor

import perception
from perception import SparseTensor

pytestmark = pytest.mark.usefixtures("device")


def test_attributes(device):
    coords = random_sites(20, 4, batch_size=3)
    features = here(torch.zeros(len(coords), 5))
    x = SparseTensor(features, coords, stride=(1, 2, 3, 4), batch_size=7)
    assert x.features.shape == (20, 5)
    assert torch.equal(x.coords, coords)
    assert x.stride == (1, 2, 3, 4)
    assert (x.dim, x.batch_size, x.num_sites) == (4, 7, 20)
    assert x.device == device
    assert x.dtype == torch.float32
    assert SparseTensor(features, coords).stride == (1, 1, 1, 1)
    assert SparseTensor(features, coords, stride=2).stride == (2, 2, 2, 2)


def test_default_batch_size_counts_the_samples():
    coords = here(torch.tensor([[3, 0, 0], [1, 0, 0]], dtype=torch.int32))
    assert SparseTensor(here(torch.zeros(2, 1)), coords).batch_size == 4


def test_replace_keeps_the_sites():
    x = random_tensor(random_sites(20, 2), 3, stride=2, batch_size=4)
    y = x.replace(here(torch.ones(x.num_sites, 8)))
    assert torch.equal(y.coords, x.coords)
    assert y.coords.data_ptr() == x.coords.data_ptr()
    assert (y.stride, y.batch_size, y.dtype) == (x.stride, 4, torch.float32)
    assert y.features.shape == (20, 8)


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_union(dim):
    a = random_tensor(random_sites(40, dim, seed=1), 3, seed=1)
    b = random_tensor(random_sites(40, dim, seed=2), 3, seed=2)
    expected = oracle.union(
        oracle.as_sites(a.coords), f64(a.features), oracle.as_sites(b.coords), f64(b.features)
    )
    y = perception.union(a, b)
    actual = by_site(y)
    assert actual.keys() == expected.keys()
    for site, row in expected.items():
        assert_close(actual[site], row, 1e-12, "union")
    assert_same(perception.union(a, b, reduce="sum"), y, 0)
    assert_same(perception.union(b, a), y, 1e-12)
    y.features.sum().backward()
    assert (a.features.grad == 1).all()
    assert (b.features.grad == 1).all()


def test_union_with_empty_with_itself_and_of_batches():
    x = random_tensor(random_sites(20, 2), 3, batch_size=2)
    nothing = torch.zeros(0, 3)
    empty = SparseTensor(here(nothing.double()), here(nothing.int()), batch_size=5)
    assert_same(perception.union(x, empty), x, 0)
    assert_same(perception.union(empty, x), x, 0)
    assert perception.union(x, empty).batch_size == 5
    assert_same(perception.union(x, x), x.replace(2 * x.features), 0)


def test_cat():
    x = random_tensor(random_sites(30, 3), 2)
    y = x.replace(here(torch.randn(30, 5, dtype=torch.float64)))
    joined = perception.cat([x, y, x])
    assert torch.equal(joined.features, torch.cat([x.features, y.features, x.features], 1))
    assert torch.equal(joined.coords, x.coords)


def test_cat_aligns_rows_to_the_first():
    x = random_tensor(random_sites(30, 3), 2, stride=2)
    order = here(torch.randperm(30, generator=torch.Generator().manual_seed(0)))
    features = here(torch.randn(30, 3, dtype=torch.float64))
    y = SparseTensor(features[order], x.coords[order].contiguous(), stride=2)
    joined = perception.cat([x, y])
    assert torch.equal(joined.coords, x.coords)
    assert torch.equal(joined.features, torch.cat([x.features, features], 1))
    assert joined.stride == (2, 2, 2)


@pytest.mark.parametrize("operator", ["add", "sub", "mul"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_arithmetic(operator, shuffle):
    a = random_tensor(random_sites(30, 3), 2, seed=1)
    values = here(torch.randn(30, 2, dtype=torch.float64))
    order = here(torch.arange(30))
    if shuffle:
        order = here(torch.randperm(30, generator=torch.Generator().manual_seed(0)))
    b = SparseTensor(values[order], a.coords[order].contiguous())
    y = {"add": a + b, "sub": a - b, "mul": a * b}[operator]
    expected = getattr(torch, operator)(a.features, values)
    assert torch.equal(y.coords, a.coords)
    assert torch.equal(y.features, expected)


def test_prune():
    x = random_tensor(random_sites(30, 3), 2, stride=2, batch_size=5)
    mask = here(torch.arange(30) % 3 == 0)
    y = x.prune(mask)
    assert torch.equal(y.coords, x.coords[mask])
    assert torch.equal(y.features, x.features[mask])
    assert (y.stride, y.batch_size) == ((2, 2, 2), 5)
    y.features.sum().backward()
    assert torch.equal(x.features.grad, mask[:, None].double().expand(30, 2))
    assert x.prune(here(torch.zeros(30, dtype=torch.bool))).num_sites == 0
    assert_same(x.prune(here(torch.ones(30, dtype=torch.bool))), x, 0)


@pytest.mark.parametrize("dim", range(1, 6))
def test_bounds_and_dense(dim):
    coords = random_sites(30, dim, seed=dim)
    x = random_tensor(coords, 2, batch_size=3)
    low, high = x.bounds()
    assert low.dtype == high.dtype == torch.int32
    assert low.tolist() == coords[:, 1:].amin(0).tolist()
    assert high.tolist() == coords[:, 1:].amax(0).tolist()
    dense = x.dense()
    shape = [h - lo + 1 for lo, h in zip(low.tolist(), high.tolist(), strict=True)]
    assert dense.shape == (3, 2, *shape)
    expected = np.zeros(dense.shape)
    for site, row in by_site(x).items():
        index = tuple(c - lo for c, lo in zip(site[1:], low.tolist(), strict=True))
        expected[(site[0], slice(None), *index)] = row
    assert np.array_equal(f64(dense), expected)
    assert_same(SparseTensor.from_dense(dense, min_coords=low), x, 0)
    assert SparseTensor.from_dense(dense, min_coords=low).batch_size == 3


def test_dense_of_a_given_frame():
    coords = torch.tensor([[0, -1, 2], [1, 0, 4]], dtype=torch.int32)
    x = here(SparseTensor(torch.tensor([[1.0], [2.0]]), coords))
    dense = x.dense(min_coords=(-2, 0), shape=(4, 6))
    assert dense.shape == (2, 1, 4, 6)
    assert dense[0, 0, 1, 2] == 1
    assert dense[1, 0, 2, 4] == 2
    assert dense.sum() == 3
    tensor = x.dense(min_coords=torch.tensor([-2, 0]), shape=(4, 6))
    assert torch.equal(tensor, dense)


def test_dense_leaves_out_what_lies_outside_the_frame():
    x = random_tensor(random_sites(60, 3), 2)
    frame = x.dense(min_coords=(-1, 0, 1), shape=(3, 2, 4))
    low = x.bounds()[0].tolist()
    start = [m - lo for m, lo in zip((-1, 0, 1), low, strict=True)]
    window = [slice(s, s + n) for s, n in zip(start, (3, 2, 4), strict=True)]
    assert torch.equal(frame, x.dense()[(slice(None), slice(None), *window)])


def test_from_dense_keeps_sites_where_any_channel_is_not_zero():
    dense = torch.zeros(2, 3, 4, 5)
    dense[0, 1, 2, 3] = 7
    dense[1, 2, 0, 0] = -1
    dense = here(dense)
    x = SparseTensor.from_dense(dense)
    assert sorted(oracle.as_sites(x.coords)) == [(0, 2, 3), (1, 0, 0)]
    assert by_site(x)[(0, 2, 3)].tolist() == [0, 7, 0]
    assert x.batch_size == 2
    shifted = SparseTensor.from_dense(dense, min_coords=(-5, 10))
    assert sorted(oracle.as_sites(shifted.coords)) == [(0, -3, 13), (1, -5, 10)]


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_samples_of_a_batch_round_trip(dim):
    samples = [
        random_tensor(random_sites(10 + s, dim, seed=s, batch_size=1), 2, seed=s, stride=2)
        for s in range(3)
    ]
    nothing = torch.zeros(0, 1 + dim, dtype=torch.int32)
    empty = SparseTensor(torch.zeros(0, 2).double(), nothing, stride=2, batch_size=1)
    samples.insert(1, here(empty))
    together = perception.batch(samples)
    assert together.batch_size == 4
    assert together.stride == (2,) * dim
    parts = together.decompose()
    assert len(parts) == together.batch_size
    for part, sample in zip(parts, samples, strict=True):
        assert_same(part, sample, 0)
        assert part.batch_size == 1
        assert not part.coords[:, 0].any()
    assert_same(perception.batch(parts), together, 0)


def test_decompose_interleaved_rows_and_empty_samples():
    coords = torch.tensor([[2, 0], [0, 5], [2, 1], [0, 4]], dtype=torch.int32)
    x = here(SparseTensor(torch.arange(4.0)[:, None], coords, batch_size=4))
    parts = x.decompose()
    assert [p.num_sites for p in parts] == [2, 0, 2, 0]
    assert by_site(parts[0]) == {(0, 5): [1.0], (0, 4): [3.0]}
    assert by_site(parts[2]) == {(0, 0): [0.0], (0, 1): [2.0]}
    assert perception.batch(parts).batch_size == 4


def test_batch_of_tensors_that_hold_several_samples():
    a = random_tensor(random_sites(10, 2, batch_size=2), 2, batch_size=2)
    b = random_tensor(random_sites(10, 2, batch_size=3, seed=1), 2, batch_size=3)
    together = perception.batch([a, b])
    assert together.batch_size == 5
    for part, sample in zip(together.decompose(), a.decompose() + b.decompose(), strict=True):
        assert_same(part, sample, 0)
