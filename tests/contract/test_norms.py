"""Normalisation over sites, pointwise modules, and plain ``torch.nn.Sequential``."""

from __future__ import annotations

import pytest
import torch
from checks import assert_close, here, random_sites, random_tensor, randomized

from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")


def _sample(dtype: torch.dtype = torch.float64) -> SparseTensor:
    coords = random_sites(60, 3, batch_size=3, seed=1)
    return random_tensor(coords, 6, dtype=dtype, batch_size=4)  # the last sample is empty


@pytest.mark.parametrize("kind", ["BatchNorm", "SyncBatchNorm"])
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1}],
    ids=str,
)
def test_batch_norm_is_that_of_torch_over_sites(kind, options):
    ours = randomized(getattr(nn, kind)(6, **options))
    theirs = here(torch.nn.BatchNorm1d(6, **options).double())
    theirs.load_state_dict(ours.state_dict())
    for training in (True, True, False):
        x = _sample()
        features = x.features.detach().clone().requires_grad_()
        y, expected = ours.train(training)(x), theirs.train(training)(features)
        assert_close(y.features, expected, 1e-12, "output")
        assert torch.equal(y.coords, x.coords)
        # Turned round: drawn from the seed of the features it would be their multiple, of which
        # batch normalization leaves a gradient of rounding alone.
        grad = torch.randn_like(expected).flip(0)
        y.features.backward(grad)
        expected.backward(grad)
        assert_close(x.features.grad, features.grad, 1e-10, "gradient")
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_close(a.double(), b.double(), 1e-12, "running statistics")


def test_batch_norm_of_fewer_than_two_sites_uses_running_statistics():
    norm = randomized(nn.BatchNorm(3))
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    for count in (0, 1):
        coords = here(torch.zeros(count, 3).int())
        x = SparseTensor(here(torch.randn(count, 3).double()), coords, batch_size=1)
        trained = norm.train()(x).features
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, var)
        assert torch.equal(trained, norm.eval()(x).features)


@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_is_per_sample_over_sites(affine):
    x = _sample()
    norm = randomized(nn.InstanceNorm(6, affine=affine))
    y = norm(x).features
    for b in range(3):
        rows = x.coords[:, 0] == b
        expected = torch.nn.functional.instance_norm(
            x.features[rows].T[None],
            weight=norm.weight if affine else None,
            bias=norm.bias if affine else None,
            eps=norm.eps,
        )
        assert_close(y[rows], expected[0].T, 1e-10, f"sample {b}")


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm_is_per_sample_over_sites(groups):
    x = _sample()
    norm = randomized(nn.GroupNorm(groups, 6))
    y = norm(x).features
    for b in range(3):
        rows = x.coords[:, 0] == b
        expected = torch.nn.functional.group_norm(
            x.features[rows].T[None], groups, norm.weight, norm.bias, norm.eps
        )
        assert_close(y[rows], expected[0].T, 1e-10, f"sample {b}")


def test_layer_norm_is_per_site():
    x = _sample()
    norm = randomized(nn.LayerNorm(6))
    expected = torch.nn.functional.layer_norm(x.features, (6,), norm.weight, norm.bias, norm.eps)
    assert_close(norm(x).features, expected, 1e-12, "layer norm")


@pytest.mark.parametrize("make", [nn.InstanceNorm, lambda c: nn.GroupNorm(2, c)])
def test_per_sample_norms_of_one_site(make):
    x = SparseTensor(here(torch.randn(1, 4)), here(torch.zeros(1, 3).int()))
    assert here(make(4))(x).features.isfinite().all()


@pytest.mark.parametrize("kind", ["InstanceNorm", "GroupNorm", "LayerNorm", "BatchNorm"])
@pytest.mark.parametrize("shift", [1e4])
def test_norms_survive_a_large_mean(kind, shift):
    """Mean 1e4, deviation 1 in float32: E[x^2] - E[x]^2 would lose every digit."""
    make = {"GroupNorm": lambda: nn.GroupNorm(1, 6)}.get(kind, lambda: getattr(nn, kind)(6))
    x = _sample(torch.float32)
    moved = x.replace(x.features.detach() + shift)
    exact = here(make().double())(moved.replace(moved.features.double()))
    tolerance = 1e-2 if kind == "LayerNorm" else 2e-3  # LayerNorm is torch's own kernel
    assert_close(here(make())(moved).features, exact.features, tolerance, kind)


def test_pointwise_lifts_a_module():
    x = _sample()
    linear = here(torch.nn.Linear(6, 3).double())
    y = nn.Pointwise(linear)(x)
    assert torch.equal(y.features, linear(x.features))
    assert torch.equal(y.coords, x.coords)
    assert torch.equal(nn.Pointwise(torch.nn.Tanh())(x).features, x.features.tanh())


def test_relu():
    x = _sample()
    assert torch.equal(nn.ReLU()(x).features, x.features.relu())
    assert torch.equal(nn.ReLU(inplace=True)(x.replace(x.features * 1)).features, x.features.relu())


def test_sequential_composes_every_layer():
    net = torch.nn.Sequential(
        nn.Conv(6, 8, 3),
        nn.BatchNorm(8),
        nn.ReLU(),
        nn.Conv(8, 8, 2, stride=2, bias=False),
        nn.InstanceNorm(8),
        nn.Conv(8, 8, 3, groups=4),
        nn.GroupNorm(2, 8),
        nn.MaxPool(2, 2),
        nn.LayerNorm(8),
        nn.GenerativeConvTranspose(8, 8, 2, stride=2),
        nn.AvgPool(3, 1),
        nn.Pointwise(torch.nn.Linear(8, 4)),
        nn.SumPool(2, 2),
        nn.GlobalPool("avg"),
    ).double()
    x = _sample()
    y = here(net)(x)
    assert y.features.shape == (4, 4)
    assert y.stride == (4, 4, 4)
    y.features.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert x.features.grad.isfinite().all()
