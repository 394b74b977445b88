"""Convolution against the dense convolutions of torch, on full and on sparse grids."""

from __future__ import annotations

from collections.abc import Sequence

import oracle
import pytest
import torch
from checks import TOLERANCE, assert_close, dense_conv_weight, here, random_sites, randomized
from torch import Tensor
from torch.nn import functional

import perception
from perception import nn

pytestmark = pytest.mark.usefixtures("device")
DENSE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
MARGIN = 12  # empty border around the dense copy: a multiple of every stride below

CASES = [  # dim, kernel, stride, dilation, padding, channels in, out, groups
    (1, 3, 1, 1, "same", 3, 5, 1),
    (1, 5, 3, 2, 1, 4, 6, 2),
    (2, 3, 1, 1, "same", 4, 4, 1),
    (2, 2, 2, 1, "same", 4, 8, 4),
    (2, (3, 4), (1, 2), (2, 1), (0, 3), 6, 4, 2),
    (3, 3, 1, 1, "same", 5, 7, 1),
    (3, 1, 1, 1, "same", 5, 7, 1),
    (3, 2, 2, 1, "same", 4, 6, 1),
    (3, 3, 2, 1, "same", 4, 6, 1),
    (3, 3, 2, 1, 0, 4, 6, 1),
    (3, 2, 1, 1, "same", 3, 3, 1),
    (3, 3, 1, 2, "same", 4, 4, 1),
    (3, 5, 1, 1, "same", 2, 3, 1),
    (3, (1, 3, 2), (1, 2, 3), (1, 2, 1), (0, 1, 1), 4, 6, 2),
    (3, 3, 1, 1, "same", 8, 8, 8),  # depthwise
    (3, 3, 2, 1, 1, 8, 16, 8),  # depthwise with a multiplier
    (3, 3, 4, 3, 2, 6, 9, 3),
    (3, 1, 2, 1, "same", 4, 4, 1),
]


def _sample(dense: Tensor, coords: Tensor, origin: Sequence[int]) -> Tensor:
    """Values of ``[B, C, *shape]`` at sites, ``[N, C]``; torch's part of the work is on the CPU."""
    coords = coords.cpu()
    index = [coords[:, 0].long()]
    index += [coords[:, 1 + a].long() + origin[a] for a in range(len(origin))]
    return dense.movedim(1, -1)[tuple(index)]


def _embed(features: Tensor, coords: Tensor, size: int) -> Tensor:
    """Dense ``[2, C, *shape]`` with the sites written in, ``MARGIN`` away from the border."""
    coords, dim = coords.cpu(), coords.shape[1] - 1
    dense = features.new_zeros(2, *(size + 2 * MARGIN,) * dim, features.shape[1])
    index = (coords[:, 0].long(), *(coords[:, 1 + a].long() + MARGIN for a in range(dim)))
    return dense.index_put(index, features).movedim(-1, 1)


def _full_grid(dim: int) -> Tensor:
    shape = (2, 6, 5, 4)[: dim + 1]
    return torch.nonzero(torch.ones(shape)).to(torch.int32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("fill", ["full", "sparse"])
@pytest.mark.parametrize(
    ("dim", "kernel", "stride", "dilation", "padding", "c_in", "c_out", "groups"), CASES
)
def test_conv_equals_dense_torch(
    dim, kernel, stride, dilation, padding, c_in, c_out, groups, fill, dtype
):
    coords = _full_grid(dim) if fill == "full" else random_sites(90, dim, low=0, high=9, seed=1)
    layer = randomized(
        nn.Conv(
            c_in,
            c_out,
            kernel,
            stride=stride,
            dilation=dilation,
            padding=padding,
            groups=groups,
            dim=dim,
        ),
        dtype,
    )
    features = here(torch.randn(len(coords), c_in, dtype=dtype)).requires_grad_()
    y = layer(perception.SparseTensor(features, here(coords)))

    size, step = oracle.per_axis(kernel, dim), oracle.per_axis(stride, dim)
    if padding == "same":
        spread = oracle.per_axis(dilation, dim)
        padding = [d * (k - 1) // 2 for d, k in zip(spread, size, strict=True)]
    # The margin moves sites by M and outputs by M / stride; torch is asked in float64.
    origin = [MARGIN // s for s in step]
    dense_features = features.detach().cpu().double().requires_grad_()
    weight = dense_conv_weight(layer, size).detach().cpu().double().requires_grad_()
    dense = DENSE[dim](
        _embed(dense_features, coords, 10),
        weight,
        layer.bias.detach().cpu().double(),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    expected = _sample(dense, y.coords, origin)
    assert y.stride == step
    assert_close(y.features, expected, TOLERANCE[dtype], "output")

    grad_out = torch.randn(y.features.shape, dtype=dtype)
    y.features.backward(here(grad_out))
    expected.backward(grad_out.double())
    assert_close(features.grad, dense_features.grad, TOLERANCE[dtype], "gradient of the features")
    expected_weight = weight.grad.permute(*range(2, dim + 2), 1, 0).reshape(layer.weight.shape)
    assert_close(layer.weight.grad, expected_weight, TOLERANCE[dtype], "gradient of the weight")
    assert_close(layer.bias.grad, grad_out.double().sum(0), TOLERANCE[dtype], "gradient of bias")


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_reach_is_the_whole_dense_output(dim):
    """With ``sites="reach"`` nothing is lost: the dense output is zero outside the sites."""
    coords = random_sites(25, dim, low=0, high=8, batch_size=2, seed=3)
    layer = randomized(
        nn.Conv(3, 4, 3, stride=2, padding=1, bias=False, dim=dim, sites="reach"), torch.float64
    )
    features = torch.randn(len(coords), 3, dtype=torch.float64)
    y = layer(perception.SparseTensor(here(features), coords, batch_size=2))
    weight = dense_conv_weight(layer, (3,) * dim).cpu()
    dense = DENSE[dim](_embed(features, coords, 10), weight, stride=2, padding=1)
    origin = [MARGIN // 2] * dim
    assert_close(y.features, _sample(dense, y.coords, origin), 1e-10, "output")
    total = dense.abs().sum().item()
    assert y.features.abs().sum().item() == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("dim", "kernel", "stride", "dilation", "padding"),
    [
        (1, 3, 1, 1, "same"),
        (1, 4, 3, 1, 1),
        (2, 3, 2, 1, 1),
        (2, (2, 3), (2, 1), (1, 2), (0, 2)),
        (3, 2, 2, 1, "same"),
        (3, 3, 2, 1, "same"),
        (3, 3, 1, 2, "same"),
        (3, (3, 2, 1), (2, 3, 1), 1, (1, 0, 0)),
    ],
)
def test_generative_transposed_conv_equals_dense_torch(
    dim, kernel, stride, dilation, padding, groups
):
    dense_conv = {
        1: functional.conv_transpose1d,
        2: functional.conv_transpose2d,
        3: functional.conv_transpose3d,
    }[dim]
    coords = random_sites(30, dim, low=0, high=6, seed=4)
    options = {
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "groups": groups,
        "dim": dim,
    }
    layer = randomized(nn.GenerativeConvTranspose(4, 8, kernel, **options))
    features = here(torch.randn(len(coords), 4, dtype=torch.float64)).requires_grad_()
    y = layer(perception.SparseTensor(features, coords))

    size, step = oracle.per_axis(kernel, dim), oracle.per_axis(stride, dim)
    weight = layer.weight.detach().cpu().reshape(*size, 4 // groups, groups, 8 // groups)
    weight = weight.permute(dim + 1, dim, dim + 2, *range(dim)).reshape(4, 8 // groups, *size)
    dense_features = features.detach().cpu().clone().requires_grad_()
    # Taps move back by p: undo the padding of torch (which crops) through the margin instead.
    dense = dense_conv(
        _embed(dense_features, coords, 6),
        weight,
        stride=stride,
        dilation=dilation,
        groups=groups,
    )
    if padding == "same":
        spread = oracle.per_axis(dilation, dim)
        pad = tuple(d * (k - 1) // 2 for d, k in zip(spread, size, strict=True))
    else:
        pad = oracle.per_axis(padding, dim)
    origin = [MARGIN * s + p for s, p in zip(step, pad, strict=True)]
    expected = _sample(dense, y.coords, origin)
    assert_close(y.features - layer.bias, expected, 1e-10, "output")
    # Every non-zero of the dense output is at a site.
    assert expected.abs().sum().item() == pytest.approx(dense.abs().sum().item(), rel=1e-10)

    grad_out = torch.randn(y.features.shape, dtype=torch.float64)
    y.features.backward(here(grad_out))
    expected.backward(grad_out)
    assert_close(features.grad, dense_features.grad, 1e-10, "gradient of the features")
