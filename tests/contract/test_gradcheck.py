"""First and second derivatives of every layer by finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from checks import here, random_sites, random_tensor, randomized
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")
CONVS = {
    "conv": lambda: nn.Conv(2, 2, 3, dim=2),
    "even": lambda: nn.Conv(2, 2, 2, dim=2),
    "strided": lambda: nn.Conv(2, 2, 3, stride=2, dim=2),
    "dilated": lambda: nn.Conv(2, 2, 3, dilation=2, padding=1, dim=2),
    "groups": lambda: nn.Conv(4, 2, 3, groups=2, kernel="cross", dim=2),
    "depthwise": lambda: nn.Conv(4, 4, 2, groups=4, dim=2),
    "reach": lambda: nn.Conv(2, 2, 3, stride=2, sites="reach", dim=2),
    "pointwise": lambda: nn.Conv(2, 3, 1, dim=2),
    "custom": lambda: nn.Conv(2, 2, kernel=torch.tensor([[0, 1], [3, 0]]).int(), dim=2),
    "no bias": lambda: nn.Conv(2, 2, 3, bias=False, dim=2),
    "hybrid": lambda: nn.Conv(1, 2, 3, kernel="hybrid", dim=4),
    "transposed": lambda: nn.ConvTranspose(2, 2, 3, dim=2),
    "transposed groups": lambda: nn.ConvTranspose(4, 2, 2, groups=2, dim=2),
    "generative": lambda: nn.GenerativeConvTranspose(2, 2, 2, stride=2, dim=2),
}


def _check(function, inputs) -> None:
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, fast_mode=True)  # along random directions


@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name):
    layer = randomized(CONVS[name]())
    dim = layer.offsets.shape[1]
    channels = 4 if "groups" in name or name == "depthwise" else 1 if name == "hybrid" else 2
    x = random_tensor(random_sites(6, dim, low=0, high=3), channels)
    names = [key for key, _ in layer.named_parameters()]

    def function(features, *parameters):
        values = dict(zip(names, parameters, strict=True))
        return functional_call(layer, values, (x.replace(features),)).features

    _check(function, (x.features, *(p.detach().requires_grad_() for p in layer.parameters())))


@pytest.mark.parametrize("kind", ["sites", "like"])
def test_given_sites_and_like(kind):
    make = nn.Conv if kind == "sites" else nn.ConvTranspose
    layer = randomized(make(1, 2, 3, stride=2, dim=2))
    wanted = random_sites(6, 2, low=0, high=4, seed=1)
    x = random_tensor(random_sites(6, 2, low=0, high=4), 1, stride=2)
    call = {"sites": wanted} if kind == "sites" else {"like": random_tensor(wanted, 1)}

    def function(features, weight, bias):
        values = {"weight": weight, "bias": bias}
        return functional_call(layer, values, (x.replace(features),), call).features

    _check(function, (x.features, *(p.detach().requires_grad_() for p in layer.parameters())))


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool(2, 2, dim=2),
        nn.MaxPool(3, 1, dim=2),
        nn.AvgPool(2, 2, dim=2),
        nn.AvgPool(3, 2, dim=2),
        nn.SumPool(3, 2, dim=2),
        nn.GlobalPool("max"),
        nn.GlobalPool("avg"),
        nn.GlobalPool("sum"),
        nn.InstanceNorm(2),
        nn.GroupNorm(1, 2),
        nn.LayerNorm(2),
        nn.BatchNorm(2),
    ],
    ids=str,
)
def test_pooling_and_norms(layer):
    x = random_tensor(random_sites(7, 2, low=0, high=4), 2)
    layer = here(layer.double())
    _check(lambda features: layer(x.replace(features)).features, (x.features,))


def test_unpool():
    fine = random_tensor(random_sites(9, 2, low=0, high=4), 1)
    x = random_tensor(random_sites(4, 2, low=0, high=2, seed=1), 2, stride=2)
    unpool = here(nn.Unpool(2, 2, dim=2))
    _check(lambda features: unpool(x.replace(features), like=fine).features, (x.features,))


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_devoxelize(mode):
    x = random_tensor(random_sites(12, 3, low=0, high=3, batch_size=1), 2)
    points = here(torch.rand(7, 3, dtype=torch.float64) * 3)

    def function(features):
        return perception.devoxelize(x.replace(features), points, 1.0, mode=mode)

    _check(function, (x.features,))


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "first"])
def test_voxelize(reduce):
    points = here(torch.rand(12, 2, dtype=torch.float64) * 3)
    features = here(torch.randn(12, 2, dtype=torch.float64)).requires_grad_()

    def function(values):
        return perception.voxelize(points, 1.0, features=values, reduce=reduce).features

    _check(function, (features,))


def test_union_cat_dense_and_arithmetic():
    a = random_tensor(random_sites(7, 2, low=0, high=3), 2)
    b = random_tensor(random_sites(7, 2, low=0, high=3, seed=1), 2, seed=1)
    c = a.replace(torch.randn_like(a.features).requires_grad_())
    mask = here(torch.arange(a.num_sites) % 2 == 0)
    _check(
        lambda p, q: perception.union(a.replace(p), b.replace(q)).features,
        (a.features, b.features),
    )
    for function in (
        lambda p, q: perception.cat([a.replace(p), c.replace(q)]).features,
        lambda p, q: (a.replace(p) + c.replace(q)).features,
        lambda p, q: (a.replace(p) - c.replace(q)).features,
        lambda p, q: (a.replace(p) * c.replace(q)).features,
        lambda p, q: a.replace(p).dense().sum() * q.sum(),
        lambda p, q: a.replace(p).prune(mask).features.sum() * q,
    ):
        _check(function, (a.features, c.features))


def test_from_dense_is_differentiable():
    dense = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    dense[0, :, 1, 2] = torch.tensor([1.0, -2.0])
    dense[0, 1, 0, 0] = 3.0
    dense = here(dense).requires_grad_()
    x = SparseTensor.from_dense(dense)
    x.features.square().sum().backward()
    assert torch.equal(dense.grad, 2 * dense.detach())


def test_a_small_network_end_to_end():
    down = randomized(nn.Conv(1, 2, 3, stride=2, dim=2))
    up = randomized(nn.ConvTranspose(2, 1, 3, stride=2, dim=2))
    x = random_tensor(random_sites(6, 2, low=0, high=4), 1)

    def function(features):
        fine = x.replace(features)
        return perception.cat([up(down(fine)), fine]).features

    _check(function, (x.features,))
