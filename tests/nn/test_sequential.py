"""`nn.Sequential` and `nn.Residual`: what torch's own would compute, in fewer steps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from checks import assert_close, here, random_sites, random_tensor, randomized

from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")


def tensor(channels: int = 4, dtype: torch.dtype = torch.float64) -> SparseTensor:
    return random_tensor(random_sites(200, 3, batch_size=2, seed=1), channels, dtype=dtype)


def layers() -> list[torch.nn.Module]:
    return [
        *(nn.Conv(4, 8), nn.BatchNorm(8), nn.ReLU(inplace=True)),
        *(nn.Conv(8, 8, 2, stride=2, bias=False), nn.BatchNorm(8, affine=False)),
        *(nn.GELU(), nn.BatchNorm(8), nn.ReLU(), nn.Linear(8, 6), nn.BatchNorm(6)),
        *(nn.Conv(6, 6, groups=2), nn.BatchNorm(6, momentum=None), nn.ReLU()),
        *(nn.ConvTranspose(6, 5, 2, stride=2), nn.BatchNorm(5), nn.ReLU(), nn.Conv(5, 3)),
    ]


def pair() -> tuple[nn.Sequential, torch.nn.Sequential]:
    ours = randomized(nn.Sequential(*layers()))
    theirs = torch.nn.Sequential(*deepcopy(list(ours)))
    return ours, theirs


def assert_same(ours: torch.nn.Module, theirs: torch.nn.Module, x: SparseTensor) -> None:
    """Equal results, gradients of everything, and running statistics."""
    found, wanted = [], []
    for net, into in ((ours, found), (theirs, wanted)):
        features = x.features.detach().clone().requires_grad_()
        y = net(x.replace(features))
        into.append(y.features.detach())
        if y.requires_grad:
            y.features.square().sum().backward()
            into.append(features.grad)
        into += [p.grad for p in net.parameters() if p.grad is not None]
        into += [b.double() for b in net.buffers()]
        net.zero_grad()
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-9, "fused against layer by layer")


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_the_layers_do_one_by_one(training: bool, frozen: bool) -> None:
    ours, theirs = pair()
    for net in (ours, theirs):
        net.train(training).requires_grad_(not frozen)
    for _ in range(2):
        assert_same(ours, theirs, tensor())
    with torch.no_grad():
        assert_same(ours, theirs, tensor())


def test_inference_mode_and_training_statistics_without_gradients() -> None:
    ours, theirs = pair()
    with torch.inference_mode():
        for training in (True, False):
            x = tensor()
            a, b = ours.train(training)(x), theirs.train(training)(x)
            assert_close(a.features, b.features, 1e-9, "inference mode")
            assert a.sites is x.sites


@pytest.mark.parametrize("training", [True, False])
def test_autocast(training: bool, device: torch.device) -> None:
    ours, theirs = pair()
    x = tensor(dtype=torch.float32)
    dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
    for net in (ours, theirs):
        net.float().train(training)
    with torch.autocast(device.type, dtype):
        a, b = ours(x), theirs(x)
    assert a.dtype == b.dtype == dtype
    assert_close(a.features.float(), b.features.float(), 60 * torch.finfo(dtype).eps, "autocast")
    if training:
        a.features.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_less_than_layer_by_layer(dtype: torch.dtype) -> None:
    exact = randomized(nn.Sequential(nn.Conv(16, 32), nn.BatchNorm(32), nn.ReLU())).eval()
    x = tensor(16)
    wanted = exact(x).features
    half = deepcopy(exact).to(dtype)
    with torch.no_grad():
        found = half(x.to(dtype)).features
    scale = wanted.abs().max()
    assert ((found - wanted).abs().max() / scale) < 4 * torch.finfo(dtype).eps


def test_second_derivatives_exist() -> None:
    net = randomized(nn.Sequential(nn.Conv(4, 3), nn.BatchNorm(3), nn.ReLU()))
    x = random_tensor(random_sites(20, 3, batch_size=1, seed=3), 4)
    inputs = [x.features.detach().requires_grad_(), *net.parameters()]

    def run(features: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return net(x.replace(features)).features

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_the_state_is_that_of_torch_and_fuse_turns_one_into_the_other() -> None:
    ours, theirs = pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    outer = torch.nn.ModuleDict({"a": theirs, "b": torch.nn.Sequential(torch.nn.Identity())})
    assert nn.fuse(outer) is outer
    assert all(type(child) is nn.Sequential for child in outer.children())
    assert_same(ours, outer["a"], tensor())


@pytest.mark.parametrize("watched", [0, 1, 2])
def test_a_layer_that_is_watched_runs_by_itself(watched: int) -> None:
    ours, theirs = pair()
    seen: list[Any] = []
    ours[watched].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert_same(ours, theirs, tensor())
    assert len(seen) == 1
    assert isinstance(seen[0], SparseTensor)


def test_a_norm_that_does_not_fit_says_so() -> None:
    net = here(nn.Sequential(nn.Conv(4, 8), nn.BatchNorm(6)))
    with pytest.raises(ValueError, match="6 features and the tensor 8"):
        net(tensor(dtype=torch.float32))


def test_one_site_in_training_uses_running_statistics() -> None:
    ours, theirs = (randomized(net.double()) for net in pair())
    theirs.load_state_dict(ours.state_dict())
    x = SparseTensor(here(torch.randn(1, 4).double()), here(torch.zeros(1, 4).int()))
    assert_close(ours(x).features, theirs(x).features, 1e-9, "one site")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("widen", [False, True])
def test_residual_blocks(training: bool, widen: bool) -> None:
    out = 6 if widen else 4
    shortcut = nn.Sequential(nn.Linear(4, out), nn.BatchNorm(out)) if widen else None
    body = nn.Sequential(
        *(nn.Conv(4, out), nn.BatchNorm(out), nn.ReLU(), nn.Conv(out, out), nn.BatchNorm(out))
    )
    ours = randomized(nn.Residual(body, shortcut)).train(training)
    theirs = deepcopy(ours)
    theirs.body = torch.nn.Sequential(*theirs.body)
    assert_same(ours, theirs, tensor())
    with torch.no_grad():
        assert_same(ours, theirs, tensor())
    x = tensor()
    wanted = torch.relu((theirs.body(x) + theirs.shortcut(x)).features)
    assert_close(ours(x).features, wanted, 1e-9, "the definition")


def test_a_residual_on_other_sites_is_refused() -> None:
    body = nn.Sequential(nn.Conv(4, 4, 2, stride=2), nn.BatchNorm(4))
    with pytest.raises(ValueError, match="other sites"):
        here(nn.Residual(body))(tensor(dtype=torch.float32))


def test_one_graph_under_compile() -> None:
    net = randomized(nn.Sequential(*layers()[:10]))
    x = tensor()
    net(x)  # builds the plans
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for training in (True, False):
        wanted = deepcopy(net.train(training))
        assert_close(compiled(x).features, wanted(x).features, 1e-9, "compiled")
        for a, b in zip(net.buffers(), wanted.buffers(), strict=True):
            assert_close(a.double(), b.double(), 1e-12, "running statistics")
