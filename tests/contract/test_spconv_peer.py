"""spconv on the CPU as a live peer: the same weights on the same cloud give the same numbers.

Its ``Native`` algorithm is the one that runs without a GPU. Its sites live in a box that starts at
zero; its weights are ``[out, *kernel, in]`` with our order of taps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from checks import assert_close, random_sites

from perception import SparseTensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    spconv = pytest.importorskip(
        "spconv.pytorch",
        reason='needs spconv on this machine: pip install "sparse-perception[spconv]"',
    )
    from spconv.core import ConvAlgo

pytestmark = pytest.mark.filterwarnings("ignore")
NATIVE = {"algo": ConvAlgo.Native}


def _small() -> torch.Tensor:
    return random_sites(400, 3, seed=1, low=0, high=11)


def _scan(shared_data: Path) -> torch.Tensor:
    """The 20 000 voxels of 0.1 m around the sensor of a real scan, moved into a box at zero."""
    points = np.load(shared_data / "spconv_bench" / "benchmark-pc.npz")["pc"]
    cells = np.unique(np.floor(points / 0.1).astype(np.int32), axis=0)
    middle = np.median(cells, axis=0)
    cells = cells[np.argsort(np.abs(cells - middle).max(1), kind="stable")[:20_000]]
    cells = np.concatenate([np.zeros_like(cells[:, :1]), cells - cells.min(0)], axis=1)
    return torch.from_numpy(np.random.default_rng(0).permutation(cells))


@pytest.fixture(params=["small", "scan"])
def coords(request: pytest.FixtureRequest) -> torch.Tensor:
    if request.param == "small":
        return _small()
    return _scan(request.getfixturevalue("shared_data"))


def _shape(coords: torch.Tensor) -> list[int]:
    return [int(n) + 1 for n in coords[:, 1:].amax(0)]


def _peer_weight(layer: torch.nn.Module, kernel: tuple[int, ...]) -> torch.Tensor:
    weight = layer.weight.detach()
    return weight.reshape(*kernel, *weight.shape[1:]).permute(4, 0, 1, 2, 3).contiguous()


def _rows(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """For each of our sites its row in the peer's output."""
    row = {site: i for i, site in enumerate(oracle.as_sites(theirs))}
    return torch.tensor([row[site] for site in oracle.as_sites(ours)])


def _compare(
    coords: torch.Tensor,
    channels: int,
    ours: Callable[[SparseTensor], SparseTensor],
    theirs: Callable,
    weights: list[tuple[torch.nn.Module, torch.nn.Module]],
    *,
    equal_sites: bool = True,
    positive: bool = False,
) -> SparseTensor:
    """Forward, gradient of the input and of each weight, on rows matched by site."""
    torch.manual_seed(0)
    batch_size = int(coords[:, 0].max()) + 1
    mine = torch.randn(len(coords), channels)
    mine = (mine.exp() if positive else mine).requires_grad_()
    peer = mine.detach().clone().requires_grad_()
    for layer, other in weights:
        kernel = tuple(other.kernel_size)
        other.weight.data.copy_(_peer_weight(layer, kernel))
        if other.bias is not None:
            other.bias.data.copy_(layer.bias.data)
    y = ours(SparseTensor(mine, coords))
    z = theirs(spconv.SparseConvTensor(peer, coords, _shape(coords), batch_size))
    if equal_sites:
        assert set(oracle.as_sites(y.coords)) == set(oracle.as_sites(z.indices))
    rows = _rows(y.coords, z.indices)
    assert_close(y.features, z.features[rows], 1e-5, "output")
    grad = torch.randn_like(y.features)
    y.features.backward(grad)
    z.features.backward(torch.zeros_like(z.features).index_copy_(0, rows, grad))
    assert_close(mine.grad, peer.grad, 1e-5, "gradient of the features")
    for layer, other in weights:
        expected = other.weight.grad.permute(1, 2, 3, 4, 0).reshape(layer.weight.shape)
        assert_close(layer.weight.grad, expected, 1e-5, "gradient of the weight")
        if other.bias is not None:
            assert_close(layer.bias.grad, other.bias.grad, 1e-5, "gradient of the bias")
    return y


@pytest.mark.parametrize(
    ("kernel", "dilation"), [((3, 3, 3), 1), ((5, 5, 5), 1), ((3, 3, 3), 2), ((1, 3, 5), 1)]
)
def test_submanifold(kernel, dilation):
    ours = nn.Conv(8, 12, kernel, dilation=dilation)
    theirs = spconv.SubMConv3d(8, 12, kernel, dilation=dilation, **NATIVE)
    coords = _small()
    y = _compare(coords, 8, ours, theirs, [(ours, theirs)])
    assert torch.equal(y.coords, coords)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
        ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_sparse_conv_is_reach_inside_the_box(kernel, stride, padding):
    """Inside the dense output shape, which drops the last plane when it does not fit."""
    coords = _small()
    shape = [
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(_shape(coords), kernel, stride, padding, strict=True)
    ]
    ours = nn.Conv(8, 12, kernel, stride=stride, padding=padding, sites="reach", bias=False)
    theirs = spconv.SparseConv3d(8, 12, kernel, stride, padding, bias=False, **NATIVE)
    bounds = ((0, 0, 0), tuple(n - 1 for n in shape))
    _compare(coords, 8, lambda x: ours(x, bounds=bounds), theirs, [(ours, theirs)])


def test_inverse_conv_is_the_transposed_one(coords):
    down = nn.Conv(8, 12, 3, stride=2, padding=1, sites="reach", bias=False)
    up = nn.ConvTranspose(12, 8, 3, stride=2, padding=1, bias=False)
    bounds = ((0, 0, 0), tuple((n - 1) // 2 for n in _shape(coords)))
    peer_down = spconv.SparseConv3d(8, 12, 3, 2, 1, bias=False, indice_key="key", **NATIVE)
    peer_up = spconv.SparseInverseConv3d(12, 8, 3, indice_key="key", bias=False, **NATIVE)
    y = _compare(
        coords,
        8,
        lambda x: up(down(x, bounds=bounds), like=x),
        lambda x: peer_up(peer_down(x)),
        [(down, peer_down), (up, peer_up)],
    )
    assert torch.equal(y.coords, coords)


def test_max_pool_2(coords):
    """On positive features: the maximum of the peer starts from zero, ours from nothing."""
    even = [n + n % 2 for n in _shape(coords)]
    corner = torch.tensor([[0, *(n - 1 for n in even)]], dtype=torch.int32)
    coords = torch.unique(torch.cat([coords, corner]), dim=0)  # so that no last plane is dropped
    _compare(coords, 8, nn.MaxPool(2, 2), spconv.SparseMaxPool3d(2, 2, **NATIVE), [], positive=True)


def test_max_pool_3(coords):
    """As above. The peer pools at every site in reach, we at the parents of the sites: a part of those."""
    _compare(
        coords,
        8,
        nn.MaxPool(3, 2),
        spconv.SparseMaxPool3d(3, 2, 1, **NATIVE),
        [],
        equal_sites=False,
        positive=True,
    )


def test_a_backbone_stage(coords):
    """Submanifold, then a strided convolution: what detectors are made of."""
    ours = [nn.Conv(4, 8, 3), nn.Conv(8, 12, 3, stride=2, padding=1, sites="reach", bias=False)]
    theirs = [
        spconv.SubMConv3d(4, 8, 3, **NATIVE),
        spconv.SparseConv3d(8, 12, 3, 2, 1, bias=False, **NATIVE),
    ]
    bounds = ((0, 0, 0), tuple((n - 1) // 2 for n in _shape(coords)))
    _compare(
        coords,
        4,
        lambda x: ours[1](ours[0](x), bounds=bounds),
        lambda x: theirs[1](theirs[0](x)),
        list(zip(ours, theirs, strict=True)),
    )


def test_a_small_network(coords):
    """Down, work, and back with a ReLU in between: maps are shared and stay right."""
    ours = [
        nn.Conv(4, 8, 3, bias=False),
        nn.Conv(8, 8, 2, stride=2, bias=False, sites="reach"),
        nn.Conv(8, 8, 3, bias=False),
        nn.Conv(8, 8, 3, bias=False),
        nn.ConvTranspose(8, 4, 2, stride=2, bias=False),
    ]
    theirs = [
        spconv.SubMConv3d(4, 8, 3, bias=False, indice_key="fine", **NATIVE),
        spconv.SparseConv3d(8, 8, 2, 2, bias=False, indice_key="down", **NATIVE),
        spconv.SubMConv3d(8, 8, 3, bias=False, indice_key="coarse", **NATIVE),
        spconv.SubMConv3d(8, 8, 3, bias=False, indice_key="coarse", **NATIVE),
        spconv.SparseInverseConv3d(8, 4, 2, bias=False, indice_key="down", **NATIVE),
    ]
    shape = [n // 2 - 1 for n in _shape(coords)]

    def run(x: SparseTensor) -> SparseTensor:
        y = nn.ReLU()(ours[0](x))
        y = nn.ReLU()(ours[1](y, bounds=((0, 0, 0), shape)))
        y = nn.ReLU()(ours[3](nn.ReLU()(ours[2](y))))
        return ours[4](y, like=x)

    def peer(x):
        for layer in theirs[:-1]:
            x = layer(x)
            x = x.replace_feature(x.features.relu())
        return theirs[-1](x)

    _compare(coords, 4, run, peer, list(zip(ours, theirs, strict=True)))
