"""What the networks mean, layer by layer, by the loops of the oracle in float64.

`run` is one layer and all that is made of layers one after the other; the networks that are more than
that have a function of their own.
"""

from __future__ import annotations

import numpy as np
import oracle
import torch
from checks import f64, here, randomized
from oracle import Site

from perception import nn
from perception.models import MinkUNet
from perception.models.minkunet import UpStage
from perception.sparse import SparseTensor

Rows = np.ndarray


def scrambled(net: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
    """The network in float64 and evaluation, with random numbers of order one in every parameter and
    every running statistic."""
    net = randomized(net.eval(), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm):
            count = module.num_features
            module.running_mean = here(torch.randn(count, generator=generator).double())
            module.running_var = here(torch.rand(count, generator=generator).double() + 0.5)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("weight") and value.ndim == 3:
                value /= (value.shape[0] * value.shape[1]) ** 0.5
    return net


def run(layer: torch.nn.Module, sites: list[Site], x: Rows) -> tuple[list[Site], Rows]:
    """One layer by the oracle: sites and features to sites and features."""
    if isinstance(layer, torch.nn.Sequential):
        for child in layer:
            sites, x = run(child, sites, x)
        return sites, x
    if isinstance(layer, nn.Residual):
        _, around = run(layer.shortcut, sites, x)
        return sites, np.maximum(run(layer.body, sites, x)[1] + around, 0)
    if isinstance(layer, nn.Conv):
        size, kernel = layer.kernel_size, layer.kernel_name
        taps = oracle.taps(len(sites[0]) - 1, size, kernel=kernel)
        out = sites if set(layer.stride) == {1} else oracle.floor_stride(sites, layer.stride)
        links = oracle.pairs(sites, out, taps, layer.stride)
        return out, oracle.conv(x, f64(layer.weight), None, links, len(out))
    if isinstance(layer, nn.BatchNorm):
        scale = f64(layer.weight) / np.sqrt(f64(layer.running_var) + layer.eps)
        return sites, (x - f64(layer.running_mean)) * scale + f64(layer.bias)
    if isinstance(layer, nn.ReLU):
        return sites, np.maximum(x, 0)
    if isinstance(layer, nn.Linear):
        bias = 0 if layer.bias is None else f64(layer.bias)
        return sites, x @ f64(layer.weight).T + bias
    assert isinstance(layer, torch.nn.Identity), layer
    return sites, x


def run_up(
    stage: UpStage, sites: list[Site], x: Rows, finer: list[Site], skip: Rows
) -> tuple[list[Site], Rows]:
    taps = oracle.taps(len(sites[0]) - 1, stage.up.kernel_size)
    links = oracle.pairs_transposed(sites, finer, taps, stage.up.stride)
    y = oracle.conv(x, f64(stage.up.weight), None, links, len(finer))
    _, y = run(stage.norm, finer, y)
    return run(stage.blocks, finer, np.concatenate([y, skip], axis=1))


def run_network(net: MinkUNet, x: SparseTensor) -> Rows:
    sites, rows = run(net.stem, oracle.as_sites(x.coords), f64(x.features))
    skips = []
    for down in net.encoder:
        skips.append((sites, rows))
        sites, rows = run(down, sites, rows)
    for up in net.decoder:
        sites, rows = run_up(up, sites, rows, *skips.pop())
    return run(net.head, sites, rows)[1]
