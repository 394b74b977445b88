"""An upsampling that is not told where to go goes back to where its input came from."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from checks import here
from conftest import surface

import perception
from perception import nn

pytestmark = pytest.mark.usefixtures("device")


def cloud() -> perception.SparseTensor:
    coords = surface(300, batch=2)
    return perception.SparseTensor(here(torch.randn(len(coords), 4)), coords)


def test_a_whole_way_down_is_found_back() -> None:
    x = cloud()
    down = torch.nn.Sequential(
        nn.Conv(4, 4, 2, stride=2), nn.ReLU(), nn.MaxPool(2, 2), nn.BatchNorm(4)
    )
    up = torch.nn.Sequential(nn.ConvTranspose(4, 4, 2, stride=2), nn.Unpool(2, 2))
    down, up = here(down), here(up)
    coarse = down(x).detach()
    assert coarse.stride == (4, 4, 4)
    assert up(coarse).sites is x.sites
    assert torch.equal(up(pickle.loads(pickle.dumps(coarse))).coords, x.coords)
    assert torch.equal(up(copy.deepcopy(coarse)).coords, x.coords)


def test_layers_that_keep_the_stride_do_not_hide_the_way() -> None:
    x = cloud()
    down = torch.nn.Sequential(nn.Conv(4, 4, 2, stride=2), nn.Conv(4, 4, 3, sites="reach"))
    up = nn.ConvTranspose(4, 4, 2, stride=2)
    assert here(up)(here(down)(x)).sites is x.sites


def test_without_a_way_back_the_remedy_is_named() -> None:
    with pytest.raises(ValueError, match="like="):
        here(nn.ConvTranspose(4, 4, 2, stride=2))(cloud())
