"""MinkUNet with a CRF behind it: built from JSON, from the network without, and trained as one."""

from __future__ import annotations

import json

import pytest
import torch
from checks import assert_close, here, random_sites, random_tensor

from perception.models import MinkUNet, MinkUNetCRF
from perception.sparse import SparseTensor

pytestmark = pytest.mark.usefixtures("device")

SMALL = {"depth": 14, "channels": (6, 8, 6)}
IN_4D = {**SMALL, "dim": 4, "kernel": "hybrid", "stride": (2, 2, 2, 1)}


def cloud(dim: int, channels: int = 4) -> SparseTensor:
    coords = random_sites(150, dim)
    return random_tensor(coords, channels, dtype=torch.float32, requires_grad=False)


@pytest.mark.parametrize(("dim", "color"), [(3, [0]), (4, [0]), (4, [3, 1, 2])])
def test_is_the_crf_on_the_scores_of_the_network(dim: int, color: list[int]) -> None:
    torch.manual_seed(0)
    options = IN_4D if dim == 4 else SMALL
    net = here(MinkUNetCRF(4, 3, color=color, sigma_color=0.5, sigma_space=2, **options).eval())
    x = cloud(dim)
    alone = here(MinkUNet(4, 3, **options).eval())
    missing = alone.load_state_dict(net.state_dict(), strict=False)
    assert not missing.missing_keys
    assert set(missing.unexpected_keys) == {"crf.between.weight", "crf.within"}
    y = net(x)
    assert y.sites is x.sites
    assert torch.equal(y.features, net.crf(alone(x), x.features[:, color]).features)
    assert not torch.equal(y.features, alone(x).features)
    assert len(net.crf.sigma) == dim + len(color)


def test_json_and_state_dict_rebuild_the_network() -> None:
    torch.manual_seed(0)
    net = here(
        MinkUNetCRF(
            4,
            3,
            color=[1, 2],
            sigma_color=[0.5, 0.25],
            sigma_time=2.0,
            crf_kernel="hybrid",
            iterations=3,
            smoothing=2.0,
            **IN_4D,
        ).eval()
    )
    again = here(MinkUNetCRF(**json.loads(json.dumps(net.args))).eval())
    again.load_state_dict(net.state_dict())
    x = cloud(4)
    assert torch.equal(again(x).features, net(x).features)
    assert again.args == net.args


def test_without_smoothing_it_starts_as_the_network() -> None:
    torch.manual_seed(0)
    net = here(MinkUNetCRF(4, 3, color=[0], sigma_color=0.5, smoothing=0.0, **SMALL).eval())
    x = cloud(3)
    assert torch.equal(net(x).features, super(MinkUNetCRF, net).forward(x).features)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = here(MinkUNetCRF(4, 3, color=[0], sigma_color=0.5, sigma_space=2, **IN_4D))
    net(cloud(4)).features.square().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name


def test_scans_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    net = here(MinkUNetCRF(4, 3, color=[0], sigma_color=0.5, **IN_4D).eval())
    x = cloud(4)
    rows = x.coords[:, 0] == 1
    coords = x.coords[rows].clone()
    coords[:, 0] = 0
    alone = net(SparseTensor(x.features[rows], coords))
    assert_close(alone.features, net(x).features[rows], 1e-5, "alone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": [4]}, "names channels"),
        ({"color": [-1]}, "names channels"),
        ({"sigma_color": [0.1, 0.2]}, "for 1 colours"),
        ({"sigma_color": 0.0}, "must be positive"),
        ({"depth": 20}, "depth=20"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MinkUNetCRF(4, 3, **{"color": [0], "sigma_color": 0.1, **options})
