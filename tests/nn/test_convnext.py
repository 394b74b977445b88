"""ConvNeXt blocks against torch on dense blocks of sites, and their response norm sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checks import assert_close, f64, here, random_sites, random_tensor, randomized
from torch.nn import functional

from perception.nn import ConvNeXtBlock, GlobalResponseNorm
from perception.sparse import SparseTensor

pytestmark = pytest.mark.usefixtures("device")


def dense_block(
    block: ConvNeXtBlock, x: torch.Tensor, size: int
) -> torch.Tensor:  # [B, C, X, Y, Z] -> the same
    conv, norm, grow, _, *response, shrink = block.body
    channels = x.shape[1]
    weight = conv.weight.reshape(size, size, size, 1, channels).permute(4, 3, 0, 1, 2)
    y = functional.conv3d(x, weight, conv.bias, padding=size // 2, groups=channels)
    y = y.movedim(1, -1)
    y = functional.layer_norm(y, (channels,), norm.weight, norm.bias, 1e-6)
    y = functional.gelu(functional.linear(y, grow.weight, grow.bias))
    for grn in response:
        share = torch.norm(y, p=2, dim=(1, 2, 3), keepdim=True)
        share = share / (share.mean(-1, keepdim=True) + 1e-6)
        y = grn.weight * (y * share) + grn.bias + y
    y = functional.linear(y, shrink.weight, shrink.bias).movedim(-1, 1)
    return x + (y if block.scale is None else y * block.scale[:, None, None, None])


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("layer_scale", [None, 1e-6])
def test_equals_torch_where_every_site_exists(size: int, layer_scale: float | None) -> None:
    block = randomized(ConvNeXtBlock(3, size, layer_scale=layer_scale))
    assert isinstance(block, ConvNeXtBlock)
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (2, 4, 5, 6)]).int()
    x = random_tensor(coords, 3)
    y = block(x)
    assert y.sites is x.sites
    dense = x.dense().detach().requires_grad_()
    expected = dense_block(block, dense, size)
    assert_close(y.dense(), expected, 1e-10, "output")
    parameters = list(block.parameters())
    ours = torch.autograd.grad(y.features.square().sum(), [x.features, *parameters])
    theirs = torch.autograd.grad(expected.square().sum(), [dense, *parameters])
    grad = x.replace(ours[0]).dense()
    assert_close(grad, theirs[0], 1e-9, "gradient of the features")
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert_close(a, b, 1e-9, "gradient of a parameter")


def test_response_norm_is_that_of_each_sample() -> None:
    coords = random_sites(60, 3, batch_size=3)
    x = random_tensor(coords, 5)
    norm = randomized(GlobalResponseNorm(5))
    features, sample = f64(x.features), coords[:, 0].cpu().numpy()
    expected = np.empty_like(features)
    for b in range(3):
        rows = features[sample == b]
        size = np.sqrt((rows**2).sum(0))
        share = size / (size.mean() + 1e-6)
        expected[sample == b] = rows + f64(norm.bias) + f64(norm.weight) * rows * share
    assert_close(norm(x).features, expected, 1e-12, "output")


def test_response_norm_gradients_and_channels_of_zeros() -> None:
    coords = random_sites(12, 2)
    x = random_tensor(coords, 3)
    norm = randomized(GlobalResponseNorm(3))

    def run(features: torch.Tensor) -> torch.Tensor:
        return norm(x.replace(features)).features

    assert torch.autograd.gradcheck(run, (x.features,))
    dead = x.features.detach().clone()
    dead[:, 1] = 0
    dead.requires_grad_()
    run(dead).sum().backward()
    assert dead.grad is not None
    assert bool(dead.grad.isfinite().all())


def test_response_norm_starts_as_the_identity() -> None:
    x = random_tensor(random_sites(30, 3), 4, requires_grad=False)
    assert torch.equal(here(GlobalResponseNorm(4).double())(x).features, x.features)


@pytest.mark.parametrize(
    ("dim", "kernel", "taps"), [(4, "hybrid", 27 + 2), (4, "cube", 81), (2, "cross", 5)]
)
def test_kernels_of_other_axes(dim: int, kernel: str, taps: int) -> None:
    block = here(ConvNeXtBlock(4, 3, dim=dim, kernel=kernel))
    assert block.body[0].weight.shape == (taps, 1, 4)
    x = random_tensor(random_sites(50, dim), 4, dtype=torch.float32, requires_grad=False)
    assert block(x).features.shape == x.features.shape


def test_samples_and_the_order_of_sites_do_not_matter() -> None:
    block = randomized(ConvNeXtBlock(4, 5))
    x = random_tensor(random_sites(80, 3), 4, requires_grad=False)
    y = block(x).features
    order = here(torch.randperm(x.num_sites))
    shuffled = block(SparseTensor(x.features[order], x.coords[order]))
    assert_close(shuffled.features, y[order], 1e-12, "shuffled")
    mine = x.coords[:, 0] == 1
    coords = x.coords[mine].clone()
    coords[:, 0] = 0
    alone = block(SparseTensor(x.features[mine], coords))
    assert_close(alone.features, y[mine], 1e-12, "alone")


def test_starts_close_to_the_identity() -> None:
    torch.manual_seed(0)
    x = random_tensor(random_sites(80, 3), 8, dtype=torch.float32, requires_grad=False)
    block = here(ConvNeXtBlock(8, layer_scale=1e-6))
    assert (block(x).features - x.features).abs().max() < 1e-5
    assert block.body[0].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(module.bias.any() for module in (block.body[0], block.body[2]))


def test_no_sites() -> None:
    x = SparseTensor(here(torch.zeros(0, 4)), here(torch.zeros(0, 4).int()))
    assert here(ConvNeXtBlock(4, 3))(x).features.shape == (0, 4)


def test_half_precision_under_autocast() -> None:
    x = random_tensor(random_sites(80, 3), 8, dtype=torch.float32, requires_grad=False)
    block = randomized(ConvNeXtBlock(8, 3), torch.float32)
    exact = block(x).features
    with torch.autocast(x.device.type, torch.bfloat16):
        assert_close(block(x).features, exact, 0.05, "output")
