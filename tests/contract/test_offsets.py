"""The buffer ``offsets``: which taps a kernel has, where they point, and in which order."""

from __future__ import annotations

import itertools

import oracle
import pytest
import torch

from perception import nn


def _offsets(**kwargs) -> list[tuple[int, ...]]:
    layer = nn.Conv(1, 1, **kwargs)
    assert layer.offsets.dtype == torch.int32
    assert layer.weight.shape[0] == layer.offsets.shape[0]
    return oracle.as_sites(layer.offsets)


def test_last_axis_is_fastest():
    assert _offsets(kernel_size=3, dim=3) == list(itertools.product((-1, 0, 1), repeat=3))
    assert _offsets(kernel_size=3, dim=1) == [(-1,), (0,), (1,)]


@pytest.mark.parametrize(
    ("size", "dilation", "expected"),
    [
        (1, 1, [0]),
        (2, 1, [0, 1]),
        (3, 1, [-1, 0, 1]),
        (4, 1, [-1, 0, 1, 2]),
        (5, 1, [-2, -1, 0, 1, 2]),
        (2, 2, [-1, 1]),  # p = floor(2 * 1 / 2) = 1
        (3, 2, [-2, 0, 2]),
        (4, 3, [-4, -1, 2, 5]),  # p = floor(3 * 3 / 2) = 4
        (1, 5, [0]),
    ],
)
def test_same_padding_of_one_axis(size, dilation, expected):
    assert _offsets(kernel_size=size, dilation=dilation, dim=1) == [(v,) for v in expected]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_is_the_padding_of_torch():
    """An impulse through torch's ``padding="same"`` lands where the offsets say."""
    for size, dilation in itertools.product((1, 2, 3, 4, 5), (1, 2, 3)):
        line = torch.zeros(1, 1, 41)
        line[0, 0, 20] = 1
        weight = torch.arange(1.0, size + 1).reshape(1, 1, size)
        out = torch.nn.functional.conv1d(line, weight, padding="same", dilation=dilation)[0, 0]
        expected = [
            20 - int(position)
            for tap in range(size)
            for position in torch.nonzero(out == tap + 1).flatten()
        ]
        assert _offsets(kernel_size=size, dilation=dilation, dim=1) == [(v,) for v in expected]


@pytest.mark.parametrize("padding", [0, 1, 2, 5, (0, 1, 2)])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1, 2)])
@pytest.mark.parametrize("size", [3, 2, (1, 2, 3)])
def test_explicit_padding(size, dilation, padding):
    expected = oracle.taps(3, size, dilation, padding)
    assert _offsets(kernel_size=size, dilation=dilation, padding=padding, dim=3) == expected


@pytest.mark.parametrize("dim", range(1, 8))
def test_cube_of_any_dimension(dim):
    assert _offsets(kernel_size=2, dim=dim) == oracle.taps(dim, 2)
    if dim <= 5:
        assert _offsets(kernel_size=3, dim=dim) == oracle.taps(dim, 3)


@pytest.mark.parametrize("dim", range(1, 8))
def test_cross(dim):
    offsets = _offsets(kernel_size=3, dim=dim, kernel="cross")
    assert len(offsets) == 1 + 2 * dim
    assert offsets == sorted(offsets)
    assert all(sum(v != 0 for v in offset) <= 1 for offset in offsets)


def test_cross_of_other_sizes():
    assert _offsets(kernel_size=(3, 5), dim=2, kernel="cross") == oracle.taps(
        2, (3, 5), kernel="cross"
    )
    assert _offsets(kernel_size=2, dim=2, kernel="cross") == [(0, 0), (0, 1), (1, 0)]
    assert _offsets(kernel_size=3, dilation=2, dim=2, kernel="cross") == [
        (-2, 0),
        (0, -2),
        (0, 0),
        (0, 2),
        (2, 0),
    ]


def test_hybrid_is_a_cube_in_space_and_a_cross_in_time():
    offsets = _offsets(kernel_size=3, dim=4, kernel="hybrid")
    assert len(offsets) == 29
    assert offsets == sorted(offsets)
    space = {(*xyz, 0) for xyz in itertools.product((-1, 0, 1), repeat=3)}
    assert set(offsets) == space | {(0, 0, 0, -1), (0, 0, 0, 1)}


def test_hybrid_per_axis():
    options = {"kernel_size": (3, 3, 1, 5), "dilation": (1, 1, 1, 2)}
    expected = oracle.taps(4, (3, 3, 1, 5), (1, 1, 1, 2), kernel="hybrid")
    assert len(expected) == 9 + 4
    assert _offsets(**options, dim=4, kernel="hybrid") == expected


def test_custom_offsets_keep_their_order_and_scale_with_the_dilation():
    custom = [(3, -1), (0, 0), (-7, 2), (0, 5)]
    assert _offsets(kernel=torch.tensor(custom, dtype=torch.int32), dim=2) == custom
    scaled = [(6, -3), (0, 0), (-14, 6), (0, 15)]
    kernel = torch.tensor(custom, dtype=torch.int32)
    assert _offsets(kernel=kernel, dilation=(2, 3), dim=2) == scaled


def test_shapes_of_the_parameters():
    layer = nn.Conv(6, 4, 3, groups=2, dim=2)
    assert layer.weight.shape == (9, 3, 4)
    assert layer.bias.shape == (4,)
    assert nn.Conv(6, 4, 3, bias=False).bias is None
    assert nn.Conv(6, 4).weight.shape == (27, 6, 4)  # kernel 3 in three axes by default
    up = nn.ConvTranspose(4, 6, 2, stride=2, groups=2)
    assert up.weight.shape == (8, 2, 6)
    assert up.bias.shape == (6,)


@pytest.mark.parametrize("kind", ["ConvTranspose", "GenerativeConvTranspose"])
def test_transposed_layers_have_the_taps_of_the_convolution(kind):
    layer = getattr(nn, kind)(1, 1, (3, 2, 1), stride=2, dilation=(2, 1, 1), padding=(1, 0, 2))
    assert oracle.as_sites(layer.offsets) == oracle.taps(3, (3, 2, 1), (2, 1, 1), (1, 0, 2))


def test_initial_weights_have_the_scale_of_torch():
    """Fan-in of the layer is taps times channels, as in ``torch.nn.Conv3d``."""
    torch.manual_seed(0)
    ours, theirs = nn.Conv(32, 64, 3), torch.nn.Conv3d(32, 64, 3)
    assert ours.weight.abs().max().item() == pytest.approx(
        theirs.weight.abs().max().item(), rel=0.1
    )
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.1)
    assert ours.bias.abs().max().item() <= theirs.bias.abs().max().item() * 1.3
