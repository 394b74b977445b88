"""What users do with the memory that layers see: other layouts, changes in place, several threads at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from conftest import surface
from torch import Tensor

from perception import SparseTensor, nn

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "column by column": lambda t: t.t().contiguous().t(),
    "some columns": lambda t: torch.nn.functional.pad(t, (3, 2), value=float("nan"))[:, 3:-2],
    "every other row": lambda t: torch.stack([torch.full_like(t, float("nan")), t], 1).flatten(
        0, 1
    )[1::2],
    "an odd offset": lambda t: torch.cat([t.new_full((7,), float("nan")), t.flatten()])[7:].view(
        t.shape
    ),
}


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv(18, 18), nn.BatchNorm(18))
    layers = nn.Conv(5, 18), nn.BatchNorm(18), nn.ReLU(), nn.Residual(body), nn.Conv(18, 7)
    return nn.Sequential(*layers).to(dtype)


def outcome(net: nn.Sequential, x: SparseTensor, grad: Tensor) -> list[Tensor]:
    """The result and all gradients."""
    y = net(x).features
    return [y, *torch.autograd.grad(y, [x.features, *net.parameters()], grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_features_and_gradients_changes_no_bit(
    layout: str, dtype: torch.dtype
) -> None:
    sites = surface(200, batch=2)
    values, grad = torch.randn(len(sites), 5).to(dtype), torch.randn(len(sites), 7).to(dtype)
    laid_out = LAYOUTS[layout]
    plain = outcome(network(dtype), SparseTensor(values.requires_grad_(), sites), grad)
    features = laid_out(values.detach()).requires_grad_()
    other = outcome(network(dtype), SparseTensor(features, sites), laid_out(grad))
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("what", ["features", "weight", "result"])
def test_a_gradient_through_changed_memory_is_refused(what: str) -> None:
    sites = surface(100, batch=2)
    net = nn.Sequential(nn.Conv(5, 8), nn.BatchNorm(8), nn.ReLU())
    x = SparseTensor(torch.randn(len(sites), 5).requires_grad_().clone(), sites)
    y = net(x).features
    with torch.no_grad():
        {"features": x.features, "weight": net[0].weight, "result": y}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_residual_may_be_overwritten_after_it_was_added() -> None:
    sites = surface(100, batch=2)
    values, given = torch.randn(len(sites), 5), torch.randn(len(sites), 8)
    grads = []
    for overwritten in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv(5, 8), nn.BatchNorm(8))
        start = given.clone().requires_grad_()
        residual = start.clone()
        x = SparseTensor(values, sites)
        y = net(x, x.replace(residual)).features
        if overwritten:
            residual.detach().zero_()
        grads.append(torch.autograd.grad(y.square().sum(), [start, *net.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_threads_share_a_tensor_and_its_plans() -> None:
    sites = surface(400, batch=2)
    values, grad = torch.randn(len(sites), 5), torch.randn(len(sites), 7)
    net = network()
    expected = outcome(net, SparseTensor(values.requires_grad_(), sites), grad)
    for _ in range(5):
        x = SparseTensor(values, sites)  # nothing is planned yet: all threads begin at once
        found: list[list[Tensor]] = []

        def work(x: SparseTensor = x, found: list[list[Tensor]] = found) -> None:
            found.append(outcome(copy.deepcopy(net), x, grad))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        for other in found:
            assert all(torch.equal(a, b) for a, b in zip(expected, other, strict=True))
