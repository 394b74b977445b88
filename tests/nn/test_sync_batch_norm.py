"""SyncBatchNorm over two processes equals BatchNorm over all their sites."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.multiprocessing as mp
from conftest import surface

import perception
from perception import nn


def samples() -> list[perception.SparseTensor]:
    coords = [surface(n, seed=n) for n in (60, 25)]
    generator = torch.Generator().manual_seed(0)
    return [
        perception.SparseTensor(
            torch.randn(len(c), 5, dtype=torch.float64, generator=generator) + i, c
        )
        for i, c in enumerate(coords)
    ]


def layer(kind: type[nn.BatchNorm]) -> nn.BatchNorm:
    out = kind(5, dtype=torch.float64)
    with torch.no_grad():
        out.weight.copy_(torch.arange(1.0, 6.0))
        out.bias.copy_(torch.arange(5.0))
    return out


def work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    x = samples()[rank]
    features = x.features.clone().requires_grad_()
    norm = layer(nn.SyncBatchNorm)
    y = norm(x.replace(features))
    (y.features**3).sum().backward()
    torch.save(
        {
            "y": y.features.detach(),
            "grad": features.grad,
            "mean": norm.running_mean,
            "var": norm.running_var,
        },
        f"{folder}/{rank}.pt",
    )
    torch.distributed.destroy_process_group()


def test_two_processes_normalize_as_one(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    whole = perception.batch(samples())
    features = whole.features.clone().requires_grad_()
    norm = layer(nn.BatchNorm)
    y = norm(whole.replace(features))
    (y.features**3).sum().backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, wanted in (("y", y.features), ("grad", features.grad)):
        torch.testing.assert_close(
            torch.cat([p[name] for p in parts]), wanted, rtol=1e-9, atol=1e-9
        )
    for part in parts:
        torch.testing.assert_close(part["mean"], norm.running_mean)
        torch.testing.assert_close(part["var"], norm.running_var)


def test_converting_keeps_parameters_and_statistics() -> None:
    x = samples()[0]
    net = torch.nn.Sequential(nn.Conv(5, 5, dim=3).double(), layer(nn.BatchNorm))
    net(x)
    converted = nn.SyncBatchNorm.convert(copy.deepcopy(net))
    assert isinstance(converted[1], nn.SyncBatchNorm)
    torch.testing.assert_close(converted.eval()(x).features, net.eval()(x).features)
