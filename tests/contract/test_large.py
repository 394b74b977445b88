"""Clouds large enough for blocks, threads and every vector unit, in sorted and shuffled rows.

The reference groups the pairs of the oracle by tap, so that numpy can sum them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import oracle
import pytest
import torch
from checks import (
    TOLERANCE,
    assert_close,
    by_site,
    f64,
    here,
    random_tensor,
    randomized,
    surface_sites,
)

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")

Links = list[tuple[int, np.ndarray, np.ndarray]]  # tap, input rows, output rows


@cache
def _cloud(order: str) -> torch.Tensor:
    coords = surface_sites(10_000).cpu()
    return torch.unique(coords, dim=0) if order == "sorted" else coords


@cache
def _links(order: str, kernel: int, stride: int, transposed: bool) -> tuple[torch.Tensor, Links]:
    """Output sites (sorted, or the input's for stride 1) and the pairs of every tap."""
    sites, steps, offsets = oracle.as_sites(_cloud(order)), (stride,) * 3, oracle.taps(3, kernel)
    if transposed:
        out = oracle.reach_transposed(sites, offsets, steps)
        found = oracle.pairs_transposed(sites, out, offsets, steps)
    else:
        out = sites if stride == 1 else oracle.floor_stride(sites, steps)
        found = oracle.pairs(sites, out, offsets, steps)
    table = np.array(found)
    by_tap = [table[table[:, 0] == k] for k in range(len(offsets))]
    links = [(k, rows[:, 1], rows[:, 2]) for k, rows in enumerate(by_tap)]
    return torch.tensor(out, dtype=torch.int32), links


def _conv(features, weight, bias, links: Links, num_out: int, groups: int) -> np.ndarray:
    out = np.zeros((num_out, weight.shape[2]))
    out += bias
    c_in, c_out = weight.shape[1], weight.shape[2] // groups
    for k, i, o in links:  # every output appears once a tap
        for g in range(groups):
            block = weight[k][:, g * c_out : (g + 1) * c_out]
            out[o, g * c_out : (g + 1) * c_out] += features[i, g * c_in : (g + 1) * c_in] @ block
    return out


def _conv_backward(grad, features, weight, links: Links, groups: int) -> list[np.ndarray]:
    grad_features, grad_weight = np.zeros_like(features), np.zeros_like(weight)
    c_in, c_out = weight.shape[1], weight.shape[2] // groups
    for k, i, o in links:
        for g in range(groups):
            source, target = slice(g * c_in, (g + 1) * c_in), slice(g * c_out, (g + 1) * c_out)
            grad_features[i, source] += grad[o, target] @ weight[k][:, target].T
            grad_weight[k][:, target] += features[i, source].T @ grad[o, target]
    return [grad_features, grad_weight, grad.sum(0)]


def _check(layer, order, kernel, stride, groups, dtype, transposed=False) -> None:
    coords = _cloud(order)
    out_sites, links = _links(order, kernel, stride, transposed)
    channels = layer.weight.shape[1] * groups
    x = random_tensor(coords, channels, dtype=dtype, stride=stride if transposed else 1)
    y = layer(x)
    if stride == 1:
        assert torch.equal(y.coords.cpu(), coords)
        rows = torch.arange(len(coords))
    else:  # to the order of the oracle
        rows = torch.from_numpy(np.lexsort(y.coords.cpu().numpy().T[::-1]))
        assert torch.equal(y.coords.cpu()[rows], out_sites)
    features, weight, bias = f64(x.features), f64(layer.weight), f64(layer.bias)
    limit = TOLERANCE.get(dtype) or 4 * torch.finfo(dtype).eps
    expected = _conv(features, weight, bias, links, len(out_sites), groups)
    assert_close(y.features.cpu()[rows], expected, limit, "output")
    generator = torch.Generator().manual_seed(7)
    grad = torch.randn(y.features.shape, generator=generator).to(dtype)
    y.features.backward(here(grad))
    grads = _conv_backward(f64(grad[rows]), features, weight, links, groups)
    actual = (x.features.grad, layer.weight.grad, layer.bias.grad)
    for what, a, e in zip(("features", "weight", "bias"), actual, grads, strict=True):
        assert_close(a, e, limit, f"gradient of the {what}")


SHAPES = [  # kernel, stride, channels in, out, groups
    (3, 1, 32, 48, 1),
    (3, 1, 19, 35, 1),
    (3, 1, 4, 16, 1),
    (3, 1, 24, 24, 24),
    (3, 1, 32, 16, 4),
    (2, 1, 16, 16, 1),
    (2, 2, 16, 32, 1),
    (3, 2, 16, 31, 1),
    (1, 1, 33, 20, 1),
]
ORDERS = pytest.mark.parametrize("order", ["sorted", "shuffled"])
VARIANTS = pytest.mark.parametrize(
    ("order", "dtype"),
    [
        ("sorted", torch.float64),
        ("sorted", torch.float32),
        ("shuffled", torch.float32),
        ("sorted", torch.bfloat16),
        ("shuffled", torch.float16),
    ],
    ids=["f64", "f32", "f32-shuffled", "bf16", "f16-shuffled"],
)


@VARIANTS
@pytest.mark.parametrize(("kernel", "stride", "c_in", "c_out", "groups"), SHAPES)
def test_conv(kernel, stride, c_in, c_out, groups, order, dtype):
    layer = randomized(nn.Conv(c_in, c_out, kernel, stride=stride, groups=groups), dtype)
    _check(layer, order, kernel, stride, groups, dtype)


@VARIANTS
@pytest.mark.parametrize("groups", [1, 4])
def test_generative(order, groups, dtype):
    layer = randomized(nn.GenerativeConvTranspose(16, 12, 2, stride=2, groups=groups), dtype)
    _check(layer, order, 2, 2, groups, dtype, transposed=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_wide_channels(dtype):
    """Weights that do not fit a cache, on few sites."""
    coords = _cloud("sorted")[:300]
    layer = randomized(nn.Conv(384, 260, 3), dtype)
    sites = oracle.as_sites(coords)
    links = oracle.pairs(sites, sites, oracle.taps(3, 3), (1, 1, 1))
    x = random_tensor(coords, 384, dtype=dtype)
    y = layer(x)
    features, weight = f64(x.features), f64(layer.weight)
    expected = oracle.conv(features, weight, f64(layer.bias), links, len(sites))
    assert_close(y.features, expected, TOLERANCE[dtype], "output")
    y.features.sum().backward()  # a gradient that is expanded, not stored
    grads = oracle.conv_backward(np.ones_like(expected), features, weight, links)
    assert_close(x.features.grad, grads.features, TOLERANCE[dtype], "gradient of the features")
    assert_close(layer.weight.grad, grads.weight, TOLERANCE[dtype], "gradient of the weight")


@ORDERS
def test_one_row_can_be_computed_alone(order):
    """A sample gives the same bits in any batch."""
    x = random_tensor(_cloud(order), 16, dtype=torch.float32, requires_grad=False)
    other = random_tensor(
        _cloud(order)[:5000], 16, dtype=torch.float32, seed=3, requires_grad=False
    )
    for layer in (nn.Conv(16, 24, 3), nn.Conv(16, 24, 2, stride=2), nn.Conv(16, 16, 3, groups=16)):
        alone = here(layer)(x)
        together = layer(perception.batch([other, x])).decompose()[1]
        rows = by_site(together)
        for site, row in by_site(alone).items():
            assert (rows[site] == row).all()


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("mode", ["max", "avg", "sum"])
def test_pooling(mode):
    pool = here({"max": nn.MaxPool, "avg": nn.AvgPool, "sum": nn.SumPool}[mode](2, 2))
    x = random_tensor(_cloud("shuffled"), 16, dtype=torch.float32)
    y = pool(x).to("cpu")
    out_sites, _ = _links("sorted", 2, 2, False)
    order = np.lexsort(y.coords.numpy().T[::-1])
    assert torch.equal(y.coords[order], out_sites)
    row = {site: i for i, site in enumerate(oracle.as_sites(out_sites))}
    coords = x.coords.cpu()
    halved = torch.cat([coords[:, :1], coords[:, 1:].div(2, rounding_mode="floor")], 1)
    parents = torch.tensor([row[site] for site in oracle.as_sites(halved)])
    expected = torch.zeros(len(out_sites), 16, dtype=torch.float64).index_reduce(
        0,
        parents,
        x.features.detach().cpu().double(),
        {"max": "amax", "avg": "mean", "sum": "mean"}[mode],
        include_self=False,
    )
    if mode == "sum":
        expected = expected * parents.bincount()[:, None]
    assert_close(y.features[order], expected, 1e-6, mode)


def test_norms():
    x = random_tensor(_cloud("sorted"), 16, dtype=torch.float32)
    exact = x.features.detach().cpu().double()
    for layer, reference in (
        (nn.BatchNorm(16), (exact - exact.mean(0)) / (exact.var(0, unbiased=False) + 1e-5).sqrt()),
        (
            nn.GroupNorm(1, 16),
            (exact - exact.mean()) / (exact.var(unbiased=False) + 1e-5).sqrt(),
        ),
    ):
        assert_close(here(layer)(x).features, reference, 1e-5, type(layer).__name__)


def test_voxelize():
    generator = torch.Generator().manual_seed(5)
    points = (
        _cloud("shuffled")[:, 1:].repeat(4, 1) + torch.rand(40_000, 3, generator=generator)
    ) / 8
    values = torch.randn(40_000, 3, generator=generator) + 5
    voxels = perception.voxelize(here(points), 0.25, features=here(values))
    cells = np.floor(points.numpy() / 0.25).astype(np.int64)
    unique, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    assert np.array_equal(voxels.coords[:, 1:].cpu().numpy(), unique)
    assert np.array_equal(voxels.point_to_voxel.cpu().numpy(), inverse.reshape(-1))
    assert np.array_equal(voxels.counts.cpu().numpy(), counts)
    sums = np.zeros((len(unique), 3))
    np.add.at(sums, inverse.reshape(-1), values.double().numpy())
    assert_close(voxels.features, sums / counts[:, None], 1e-6, "mean")


def test_one_voxel_with_very_many_points():
    """float32 sums of 200 000 numbers keep their digits."""
    values = torch.rand(200_000, 2) + 100
    points = torch.rand(200_000, 3)
    for reduce in ("mean", "sum"):
        voxels = perception.voxelize(points, 1.0, features=values, reduce=reduce)
        expected = getattr(values.double(), reduce)(0)
        assert_close(voxels.features[0], expected, 1e-5, reduce)


def _line(values: torch.Tensor) -> SparseTensor:
    along = torch.arange(len(values), dtype=torch.int32)[:, None]
    sites = along * torch.tensor([[0, 1]], dtype=torch.int32)
    return SparseTensor(here(values), here(sites))


@pytest.mark.parametrize("mode", ["avg", "sum"])
def test_global_pool_of_very_many_sites(mode):
    values = torch.rand(200_000, 2) + 100
    expected = values.double().mean(0) if mode == "avg" else values.double().sum(0)
    assert_close(nn.GlobalPool(mode)(_line(values)).features[0], expected, 1e-5, mode)


def test_norms_of_very_many_sites():
    values = torch.rand(200_000, 2) + 100
    exact = values.double()
    expected = (exact - exact.mean(0)) / (exact.var(0, unbiased=False) + 1e-5).sqrt()
    for layer in (nn.BatchNorm(2), nn.InstanceNorm(2)):
        assert_close(here(layer)(_line(values)).features, expected, 1e-3, type(layer).__name__)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kernel", [1, 3])
def test_weight_gradient_of_very_many_sites(kernel, groups):
    """All terms have one sign, as after a ReLU: nothing averages out."""
    x = _line(torch.rand(200_000, 8) + 1)
    layer = here(nn.Conv(8, 8, kernel, groups=groups, dim=1))
    layer(x).features.sum().backward()
    exact = x.features.double()
    shifted = [exact] if kernel == 1 else [exact[:-1], exact, exact[1:]]
    expected = torch.stack([rows.sum(0) for rows in shifted])
    expected = expected[:, None, :] if groups == 8 else expected[:, :, None].expand(-1, 8, 8)
    assert_close(layer.weight.grad, expected, 1e-5, "gradient of the weight")
    assert_close(layer.bias.grad, torch.full((8,), 200_000.0), 1e-5, "gradient of the bias")
