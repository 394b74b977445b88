"""MinkUNet over space and time against the oracle, layer by layer in float64, and its symmetries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import assert_close, here, random_sites, random_tensor
from network_oracle import run_network, scrambled

from perception.models import MinkUNet
from perception.sparse import SparseTensor

pytestmark = pytest.mark.usefixtures("device")

KEPT, STRIDED = (2, 2, 2, 1), (2, 2, 2, 2)


def network(**options: Any) -> torch.nn.Module:
    options = {"depth": 14, "channels": (3, 4, 4, 4, 3), "dim": 4, **options}
    return scrambled(MinkUNet(2, 3, **options))


def cloud(count: int = 90, *, seed: int = 0, low: int = -4, high: int = 5) -> SparseTensor:
    coords = random_sites(count, 4, seed=seed, low=low, high=high)
    return random_tensor(coords, 2, requires_grad=False)


# --- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [KEPT, STRIDED, (2, 2, 1, 3)])
@pytest.mark.parametrize("kernel", ["cube", "hybrid", "cross"])
def test_equals_the_oracle(kernel: str, stride: tuple[int, ...]) -> None:
    net, x = network(kernel=kernel, stride=stride), cloud()
    y = net(x)
    assert torch.equal(y.coords, x.coords)
    assert_close(y.features, run_network(net, x), 1e-10, "scores")


@pytest.mark.parametrize("options", [{"depth": 42}, {"depth": 50, "width": 0.04, "channels": None}])
def test_other_depths_equal_the_oracle(options: dict) -> None:
    net, x = network(kernel="hybrid", stride=KEPT, **options), cloud(40)
    assert_close(net(x).features, run_network(net, x), 1e-10, "scores")


# --- what it is made of -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "stem", "down", "block"),
    [
        ("cube", KEPT, 5**3, 2**3, 3**4),
        ("cube", STRIDED, 5**4, 2**4, 3**4),
        ("hybrid", KEPT, 5**3, 2**3, 3**3 + 2),
        ("hybrid", STRIDED, 5**3 + 4, 2**4, 3**3 + 2),
        ("cross", KEPT, 1 + 4 * 3, 2**3, 1 + 2 * 4),
    ],
)
def test_taps(kernel: str, stride: tuple, stem: int, down: int, block: int) -> None:
    net = network(kernel=kernel, stride=stride)
    assert net.stem[0].num_taps == stem
    for stage in net.encoder:
        assert stage[0].num_taps == down
        assert stage[3][0].body[0].num_taps == block
    for stage in net.decoder:
        assert stage.up.num_taps == down


# --- its symmetries ---------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["cube", "hybrid"])
def test_later_is_the_same_by_any_number_of_frames_where_time_is_kept(kernel: str) -> None:
    net, x = network(kernel=kernel, stride=KEPT), cloud()
    y = net(x).features
    for frames in (1, -7, 1000):
        later = x.coords.clone()
        later[:, 4] += frames
        assert_close(net(SparseTensor(x.features, later)).features, y, 1e-12, f"{frames} later")


def test_later_is_the_same_by_whole_coarse_steps_where_time_is_strided() -> None:
    net, x = network(kernel="hybrid", stride=STRIDED), cloud()
    y = net(x).features
    later = x.coords.clone()
    later[:, 4] += 4
    assert_close(net(SparseTensor(x.features, later)).features, y, 1e-12, "a coarse step later")
    later[:, 4] += 1
    between = net(SparseTensor(x.features, later)).features
    assert not torch.allclose(between, y)  # half a coarse step groups the frames in other pairs


@pytest.mark.parametrize("stride", [KEPT, STRIDED])
def test_sequences_of_a_batch_do_not_see_each_other(stride: tuple[int, ...]) -> None:
    net, x = network(kernel="hybrid", stride=stride), cloud()
    rows = x.coords[:, 0] == 1
    coords = x.coords[rows].clone()
    coords[:, 0] = 0
    alone = net(SparseTensor(x.features[rows], coords)).features
    assert_close(alone, net(x).features[rows], 1e-12, "alone")


def test_frames_see_each_other_as_far_as_the_kernels_reach() -> None:
    """With time kept, a frame reaches as many others as there are 3-wide convolutions on the way."""
    net = network(kernel="hybrid", stride=KEPT, channels=(3, 4, 3))
    block = torch.cartesian_prod(*[torch.arange(n) for n in (1, 3, 3, 3, 20)]).int()
    x = random_tensor(block, 2, requires_grad=False)
    changed = x.features.clone()
    changed[x.coords[:, 4] == 0] += 1
    differs = (net(x.replace(changed)).features != net(x).features).any(1)
    # One encoder and one decoder stage of one block of two convolutions each: four frames.
    assert x.coords[differs, 4].unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kernel", ["cube", "hybrid"])
@pytest.mark.parametrize("stride", [KEPT, STRIDED])
def test_one_frame_in_4d_runs_and_every_parameter_learns(kernel: str, stride: tuple) -> None:
    net = here(network(kernel=kernel, stride=stride).train())
    coords = cloud().coords.clone()
    coords[:, 4] = 0
    x = random_tensor(coords.unique(dim=0), 2, requires_grad=False)
    assert net(x).features.isfinite().all()
    net(cloud()).features.square().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name
