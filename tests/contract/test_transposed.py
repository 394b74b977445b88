"""Transposed convolution: back to finer sites, to everything in reach, and as the adjoint."""

from __future__ import annotations

import oracle
import pytest
import torch
from checks import (
    TOLERANCE,
    assert_close,
    check_conv,
    here,
    random_sites,
    random_tensor,
    randomized,
)

import perception
from perception import nn

pytestmark = pytest.mark.usefixtures("device")
VARIANTS = [  # kernel, stride, dilation, padding
    (2, 2, 1, "same"),
    (3, 2, 1, "same"),
    (3, 1, 1, "same"),
    (2, 1, 1, "same"),
    (3, 2, 1, 0),
    (4, 3, 1, 1),
    (3, 2, 2, 1),
    ((1, 2, 3), (2, 1, 3), (1, 1, 2), (0, 1, 2)),
]


def _coarse(sites: list[oracle.Site], stride: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(oracle.floor_stride(sites, stride), dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), VARIANTS)
def test_like_a_finer_tensor(kernel, stride, dilation, padding, groups, dtype):
    fine = random_sites(60, 3, seed=1)
    steps = oracle.per_axis(stride, 3)
    coarse = _coarse(oracle.as_sites(fine), steps)
    layer = nn.ConvTranspose(
        3, 6, kernel, stride=stride, dilation=dilation, padding=padding, groups=groups
    )
    y = check_conv(
        randomized(layer, dtype),
        random_tensor(coarse, 3, dtype=dtype, stride=steps),
        oracle.taps(3, kernel, dilation, padding),
        stride=steps,
        expected=oracle.as_sites(fine),
        ordered=True,
        transposed=True,
        groups=groups,
        like=random_tensor(fine, 1, dtype=dtype),
    )
    assert y.stride == (1, 1, 1)


@pytest.mark.parametrize("dim", range(1, 8))
def test_any_dimension(dim):
    fine = random_sites(50, dim, seed=dim)
    sites = oracle.as_sites(fine)
    check_conv(
        randomized(nn.ConvTranspose(2, 3, 2, stride=2, dim=dim)),
        random_tensor(_coarse(sites, (2,) * dim), 2, stride=2),
        oracle.taps(dim, 2),
        stride=(2,) * dim,
        expected=sites,
        ordered=True,
        transposed=True,
        like=random_tensor(fine, 1),
    )


@pytest.mark.parametrize("dim", range(1, 8))
def test_generative_in_any_dimension(dim):
    coords = random_sites(10, dim, seed=dim)
    offsets = oracle.taps(dim, 2)
    y = check_conv(
        randomized(nn.GenerativeConvTranspose(2, 3, 2, stride=2, dim=dim)),
        random_tensor(coords, 2, stride=2),
        offsets,
        stride=(2,) * dim,
        expected=oracle.reach_transposed(oracle.as_sites(coords), offsets, (2,) * dim),
        transposed=True,
    )
    assert y.num_sites == len(coords) * 2**dim
    assert y.stride == (1,) * dim


@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), VARIANTS)
def test_generative_and_reach_are_the_same(kernel, stride, dilation, padding):
    coords = random_sites(20, 3, seed=2)
    steps = oracle.per_axis(stride, 3)
    offsets = oracle.taps(3, kernel, dilation, padding)
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    for layer in (
        nn.GenerativeConvTranspose(2, 3, kernel, **options),
        nn.ConvTranspose(2, 3, kernel, sites="reach", **options),
    ):
        check_conv(
            randomized(layer),
            random_tensor(coords, 2, stride=6),
            offsets,
            stride=steps,
            expected=oracle.reach_transposed(oracle.as_sites(coords), offsets, steps),
            transposed=True,
        )


def test_bounds_of_the_generated_sites():
    coords = random_sites(30, 2, seed=3)
    offsets = oracle.taps(2, 3)
    low, high = (-3, -2), (4, 0)
    check_conv(
        randomized(nn.GenerativeConvTranspose(2, 2, 3, stride=2, dim=2)),
        random_tensor(coords, 2, stride=2),
        offsets,
        stride=(2, 2),
        expected=oracle.reach_transposed(oracle.as_sites(coords), offsets, (2, 2), (low, high)),
        transposed=True,
        bounds=(torch.tensor(low), torch.tensor(high)),
    )


def test_explicit_sites():
    coarse = random_sites(30, 3, seed=4)
    wanted = random_sites(50, 3, seed=5, low=-9, high=9)
    check_conv(
        randomized(nn.ConvTranspose(2, 3, 3, stride=2)),
        random_tensor(coarse, 2, stride=2),
        oracle.taps(3, 3),
        stride=(2, 2, 2),
        expected=oracle.as_sites(wanted),
        ordered=True,
        transposed=True,
        sites=wanted,
    )


def test_without_like_it_goes_back_to_where_the_input_came_from():
    fine = random_tensor(random_sites(60, 3, seed=6), 2)
    down, up = (
        randomized(nn.Conv(2, 3, 2, stride=2)),
        randomized(nn.ConvTranspose(3, 2, 2, stride=2)),
    )
    again = randomized(nn.Conv(3, 3, 3, stride=2))
    up_again = randomized(nn.ConvTranspose(3, 3, 3, stride=2))
    coarse = down(fine)
    back = up(coarse)
    assert torch.equal(back.coords, fine.coords)
    assert back.stride == fine.stride
    assert torch.equal(back.features, up(coarse, like=fine).features)
    middle = nn.ReLU()(up_again(again(coarse)))  # two levels, with a layer between them
    assert torch.equal(middle.coords, coarse.coords)
    assert torch.equal(up(middle).coords, fine.coords)


def test_stride_one_keeps_the_sites():
    x = random_tensor(random_sites(40, 3, seed=7), 2)
    y = check_conv(
        randomized(nn.ConvTranspose(2, 2, 3)),
        x,
        oracle.taps(3, 3),
        stride=(1, 1, 1),
        expected=oracle.as_sites(x.coords),
        ordered=True,
        transposed=True,
    )
    assert y.stride == (1, 1, 1)


def test_no_sites_to_go_back_to():
    x = random_tensor(random_sites(20, 3), 2, stride=2)
    with pytest.raises(ValueError, match="like"):
        randomized(nn.ConvTranspose(2, 2, 2, stride=2))(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("kernel_kind", ["cube", "cross"])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), VARIANTS)
def test_adjoint(kernel, stride, dilation, padding, kernel_kind, dtype):
    """<Conv x, y> = <x, ConvTranspose y> with the transposed weight."""
    options = {
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "kernel": kernel_kind,
        "bias": False,
    }
    conv = randomized(nn.Conv(5, 3, kernel, **options), dtype)
    adjoint = here(nn.ConvTranspose(3, 5, kernel, **options).to(dtype))
    with torch.no_grad():
        adjoint.weight.copy_(conv.weight.transpose(1, 2))
    x = random_tensor(random_sites(80, 3, seed=8), 5, dtype=dtype)
    out = conv(x)
    y = out.replace(torch.randn_like(out.features))
    left = (out.features.double() * y.features.double()).sum()
    right = (x.features.double() * adjoint(y, like=x).features.double()).sum()
    scale = (out.features.double() * y.features.double()).abs().sum()
    assert abs(left - right) <= TOLERANCE[dtype] * scale


@pytest.mark.parametrize("groups", [2, 4])
def test_adjoint_of_groups_transposes_each_group(groups):
    conv = randomized(nn.Conv(8, 4, 3, stride=2, groups=groups, bias=False))
    adjoint = here(nn.ConvTranspose(4, 8, 3, stride=2, groups=groups, bias=False).double())
    assert adjoint.weight.shape == (27, 4 // groups, 8)
    blocks = conv.weight.detach().reshape(27, 8 // groups, groups, 4 // groups)
    with torch.no_grad():
        adjoint.weight.copy_(blocks.permute(0, 3, 2, 1).reshape(27, 4 // groups, 8))
    x = random_tensor(random_sites(80, 3, seed=9), 8)
    out = conv(x)
    y = out.replace(torch.randn_like(out.features))
    left = (out.features * y.features).sum()
    right = (x.features * adjoint(y, like=x).features).sum()
    assert_close(left, right, 1e-10, "inner product")


def test_adjoint_between_any_two_sets_of_sites():
    conv = randomized(nn.Conv(3, 4, 3, stride=2, bias=False))
    adjoint = here(nn.ConvTranspose(4, 3, 3, stride=2, bias=False).double())
    with torch.no_grad():
        adjoint.weight.copy_(conv.weight.transpose(1, 2))
    x = random_tensor(random_sites(60, 3, seed=10), 3)
    target = random_sites(30, 3, seed=11)
    y = random_tensor(target, 4, stride=2, seed=1)
    left = (conv(x, sites=target).features * y.features).sum()
    right = (x.features * adjoint(y, like=x).features).sum()
    assert_close(left, right, 1e-10, "inner product")


def test_stride_divides_and_never_falls_below_one():
    x = random_tensor(random_sites(20, 3), 2, stride=(4, 2, 1))
    y = randomized(nn.GenerativeConvTranspose(2, 2, 2, stride=2))(x)
    assert y.stride == (2, 1, 1)
    assert isinstance(x, perception.SparseTensor)
