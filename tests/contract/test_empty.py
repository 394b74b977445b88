"""No sites at all, or a sample without any: everything flows, nothing crashes."""

from __future__ import annotations

import pytest
import torch
from checks import here, random_sites, random_tensor, randomized

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")
LAYERS = {
    "conv": lambda d: nn.Conv(4, 6, 3, dim=d),
    "strided": lambda d: nn.Conv(4, 6, 2, stride=2, dim=d),
    "groups": lambda d: nn.Conv(4, 6, 3, groups=2, dim=d),
    "depthwise": lambda d: nn.Conv(4, 4, 3, groups=4, dim=d),
    "reach": lambda d: nn.Conv(4, 6, 3, stride=2, sites="reach", dim=d),
    "transposed": lambda d: nn.ConvTranspose(4, 6, 3, dim=d),
    "generative": lambda d: nn.GenerativeConvTranspose(4, 6, 2, stride=2, dim=d),
    "max": lambda d: nn.MaxPool(2, 2, dim=d),
    "avg": lambda d: nn.AvgPool(3, 2, dim=d),
    "sum": lambda d: nn.SumPool(3, 1, dim=d),
    "global max": lambda d: nn.GlobalPool("max"),
    "global avg": lambda d: nn.GlobalPool("avg"),
    "batch norm": lambda d: nn.BatchNorm(4),
    "sync batch norm": lambda d: nn.SyncBatchNorm(4),
    "instance norm": lambda d: nn.InstanceNorm(4),
    "group norm": lambda d: nn.GroupNorm(2, 4),
    "layer norm": lambda d: nn.LayerNorm(4),
    "relu": lambda d: nn.ReLU(),
    "pointwise": lambda d: nn.Pointwise(torch.nn.Linear(4, 6)),
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def _empty(dim: int, dtype: torch.dtype = torch.float32, batch_size: int = 2) -> SparseTensor:
    return SparseTensor(
        here(torch.zeros(0, 4, dtype=dtype)).requires_grad_(),
        here(torch.zeros(0, 1 + dim, dtype=torch.int32)),
        batch_size=batch_size,
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dim", [1, 3, 7])
def test_every_layer_takes_an_empty_tensor(name, dim, training):
    if dim == 7 and name in ("sum", "avg", "conv", "groups", "depthwise", "reach", "transposed"):
        layer = LAYERS["strided"](dim)  # 3^7 taps say nothing more
    else:
        layer = LAYERS[name](dim)
    x = _empty(dim)
    y = here(layer).train(training)(x)
    assert y.num_sites == (2 if name.startswith("global") else 0)
    assert y.batch_size == 2
    assert y.dim == dim
    assert y.coords.dtype == torch.int32
    assert y.features.shape == (y.num_sites, y.features.shape[1])
    assert not y.features.any()
    y.features.sum().backward()
    assert x.features.grad is None or x.features.grad.shape == (0, 4)
    for name_, parameter in layer.named_parameters():
        assert parameter.grad is not None, name_
        assert not parameter.grad.any(), name_


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype):
    net = torch.nn.Sequential(
        nn.Conv(4, 8, 3),
        nn.BatchNorm(8),
        nn.ReLU(),
        nn.Conv(8, 8, 2, stride=2),
        nn.MaxPool(2, 2),
        nn.GenerativeConvTranspose(8, 8, 2, stride=2),
    ).to(dtype)
    y = here(net)(_empty(3, dtype))
    assert y.features.shape == (0, 8)
    assert y.dtype == dtype
    y.features.sum().backward()


def test_from_nothing_to_given_sites_is_the_bias():
    wanted = random_sites(10, 3)
    layer = randomized(nn.Conv(4, 6, 3), torch.float32)
    y = layer(_empty(3), sites=wanted)
    assert torch.equal(y.features, layer.bias.expand(10, 6))
    y.features.sum().backward()
    assert (layer.bias.grad == 10).all()
    assert not layer.weight.grad.any()
    up = randomized(nn.ConvTranspose(4, 6, 3, stride=2), torch.float32)
    fine = random_tensor(wanted, 1, dtype=torch.float32)
    assert torch.equal(up(_empty(3), like=fine).features, up.bias.expand(10, 6))


def test_to_no_sites():
    layer = randomized(nn.Conv(2, 3, 3))
    x = random_tensor(random_sites(10, 3), 2)
    y = layer(x, sites=x.coords[:0])
    assert y.features.shape == (0, 3)
    y.features.sum().backward()
    assert not x.features.grad.any()
    assert not layer.weight.grad.any()


def test_without_like_back_to_nothing():
    down, up = here(nn.Conv(4, 6, 2, stride=2)), here(nn.ConvTranspose(6, 4, 2, stride=2))
    y = up(down(_empty(3)))
    assert (y.num_sites, y.stride, y.batch_size) == (0, (1, 1, 1), 2)
    y = here(nn.Unpool(2, 2))(here(nn.MaxPool(2, 2))(_empty(3)), like=_empty(3))
    assert (y.num_sites, y.stride) == (0, (1, 1, 1))


def test_operations_on_sites():
    x = _empty(3)
    assert perception.cat([x, x]).features.shape == (0, 8)
    assert perception.union(x, x).num_sites == 0
    assert (x + x).num_sites == (x - x).num_sites == (x * x).num_sites == 0
    assert x.prune(here(torch.zeros(0, dtype=torch.bool))).num_sites == 0
    assert [p.num_sites for p in x.decompose()] == [0, 0]
    assert perception.batch([x, x]).batch_size == 4
    assert x.dense(min_coords=(0, 0, 0), shape=(2, 3, 4)).shape == (2, 4, 2, 3, 4)
    assert not x.dense(min_coords=(0, 0, 0), shape=(2, 3, 4)).any()
    assert x.to(torch.float64).dtype == torch.float64
    assert "0" in repr(x)


def test_from_dense_of_zeros():
    x = SparseTensor.from_dense(here(torch.zeros(2, 3, 4, 5)))
    assert (x.num_sites, x.batch_size, x.dim, x.features.shape[1]) == (0, 2, 2, 3)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "first"])
def test_points(reduce):
    points, features = here(torch.zeros(0, 3)), here(torch.zeros(0, 2)).requires_grad_()
    voxels = perception.voxelize(points, 0.1, features=features, reduce=reduce)
    assert voxels.coords.shape == (0, 4)
    assert voxels.coords.dtype == torch.int32
    assert voxels.features.shape == (0, 2)
    assert len(voxels.point_to_voxel) == len(voxels.counts) == 0
    x = SparseTensor.from_points(points, features, 0.1, reduce=reduce)
    assert x.num_sites == 0
    some = here(torch.rand(5, 3))
    for mode in ("nearest", "trilinear"):
        assert not perception.devoxelize(_empty(3), some, 0.1, mode=mode).any()
        full = random_tensor(random_sites(5, 3, batch_size=1), 2, dtype=torch.float32)
        assert perception.devoxelize(full, points, 0.1, mode=mode).shape == (0, 2)


def test_one_site():
    x = random_tensor(torch.zeros(1, 4, dtype=torch.int32), 4, dtype=torch.float32)
    net = torch.nn.Sequential(
        nn.Conv(4, 4, 3), nn.BatchNorm(4), nn.Conv(4, 4, 2, stride=2), nn.MaxPool(2, 2)
    )
    y = here(net)(x)
    assert y.num_sites == 1
    y.features.sum().backward()
    assert x.features.grad.isfinite().all()
