"""What must not matter: where the cloud is, the order of its rows, and who else is in the batch."""

from __future__ import annotations

import pytest
import torch
from checks import assert_same, by_site, here, random_sites, random_tensor, randomized
from hypothesis import given, settings
from hypothesis import strategies as st

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")


def _layers(dim: int) -> dict[str, torch.nn.Module]:
    return {
        "conv": nn.Conv(3, 4, 3, dim=dim),
        "even": nn.Conv(3, 4, 2, dim=dim),
        "dilated": nn.Conv(3, 4, 3, dilation=2, dim=dim),
        "strided": nn.Conv(3, 4, 3, stride=2, dim=dim),
        "reach": nn.Conv(3, 4, 3, stride=2, sites="reach", dim=dim),
        "depthwise": nn.Conv(3, 3, 3, groups=3, dim=dim),
        "generative": nn.GenerativeConvTranspose(3, 4, 2, stride=2, dim=dim),
        "max": nn.MaxPool(2, 2, dim=dim),
        "avg": nn.AvgPool(3, 2, dim=dim),
        "sum": nn.SumPool(3, 1, dim=dim),
        "global": nn.GlobalPool("avg"),
        "instance": nn.InstanceNorm(3),
        "group": nn.GroupNorm(3, 3),
        "layer": nn.LayerNorm(3),
    }


NAMES = list(_layers(3))
UPSAMPLE, STRIDED, ABSOLUTE = {"generative"}, {"strided", "reach", "max", "avg"}, {"global"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_rows_may_come_in_any_order(name, dim):
    layer = randomized(_layers(dim)[name])
    x = random_tensor(random_sites(60, dim, seed=1), 3)
    order = torch.randperm(x.num_sites, generator=torch.Generator().manual_seed(1))
    shuffled = SparseTensor(x.features[order], x.coords[order].contiguous())
    assert_same(layer(shuffled), layer(x), 1e-12)


def test_rows_of_a_stride_one_layer_follow_the_input():
    layer = randomized(nn.Conv(3, 4, 3))
    x = random_tensor(random_sites(60, 3, seed=1), 3)
    order = torch.randperm(x.num_sites, generator=torch.Generator().manual_seed(1))
    shuffled = layer(SparseTensor(x.features[order], x.coords[order].contiguous()))
    torch.testing.assert_close(shuffled.features, layer(x).features[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [2, -14, 10**6, -(2**30), 2**31 - 2**10])
@pytest.mark.parametrize("name", NAMES)
def test_translation(name, shift):
    """Moving the input by a multiple of the stride moves the output, and changes nothing else."""
    layer = randomized(_layers(3)[name])
    x = random_tensor(random_sites(50, 3, seed=2), 3)
    scale = 1.0
    if name in UPSAMPLE:
        shift, scale = shift // 4 * 2, 2.0
    elif name in STRIDED:
        scale = 0.5
    elif name in ABSOLUTE:
        scale = 0.0
    move = torch.tensor([0, shift, 0, -shift], dtype=torch.int32)
    moved = by_site(layer(SparseTensor(x.features, x.coords + here(move))))
    y = layer(x)
    out = (move.double() * scale).to(torch.int32)
    assert_same(
        SparseTensor(
            torch.stack([torch.from_numpy(v) for v in moved.values()]),
            torch.tensor(list(moved), dtype=torch.int32) - out,
            stride=y.stride,
        ),
        y,
        1e-12,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [2, 3])
def test_samples_of_a_batch_do_not_see_each_other(name, dim):
    layer = randomized(_layers(dim)[name])
    samples = [
        random_tensor(random_sites(30, dim, seed=s, batch_size=1), 3, seed=s) for s in range(3)
    ]
    together = layer(perception.batch(samples)).decompose()
    for sample, alone in zip(together, (layer(s) for s in samples), strict=True):
        assert_same(sample, alone, 1e-12)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_linear(data):
    """Conv(a x + b y) = a Conv x + b Conv y without bias, for any axes, taps and stride."""
    dim = data.draw(st.integers(1, 6))
    stride = data.draw(st.tuples(*[st.integers(1, 3)] * dim))
    offsets = data.draw(
        st.lists(st.tuples(*[st.integers(-2, 2)] * dim), min_size=1, max_size=6, unique=True)
    )
    a, b = data.draw(st.tuples(*[st.floats(-4, 4)] * 2))
    layer = nn.Conv(
        2,
        3,
        kernel=torch.tensor(offsets, dtype=torch.int32),
        stride=stride,
        bias=False,
        dim=dim,
    )
    layer = randomized(layer)
    x = random_tensor(random_sites(30, dim, seed=3), 2, seed=1)
    y = x.replace(torch.randn_like(x.features))
    mixed = layer(x.replace(a * x.features + b * y.features)).features
    apart = a * layer(x).features + b * layer(y).features
    torch.testing.assert_close(mixed, apart, rtol=1e-9, atol=1e-9)


def test_an_impulse_paints_the_kernel():
    """A single site through all sites around it shows weight[k] at site - offsets[k]."""
    layer = randomized(nn.Conv(1, 1, 3, bias=False, sites="reach"))
    x = SparseTensor(torch.ones(1, 1).double(), torch.tensor([[0, 5, -7, 2]], dtype=torch.int32))
    painted = by_site(layer(here(x)))
    assert len(painted) == 27
    for tap, offset in enumerate(layer.offsets.tolist()):
        site = (0, *(c - d for c, d in zip((5, -7, 2), offset, strict=True)))
        assert painted[site][0] == layer.weight[tap, 0, 0].item()
