"""SyncBatchNorm over two processes equals BatchNorm over all their sites."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import perception
from perception import nn

# Sites of the two processes: as many as there are, one process without any, one site in all, none.
SITES = {"both": (60, 25), "one alone": (0, 25), "a single site": (1, 0), "none": (0, 0)}


def samples(sites: tuple[int, int], dtype: torch.dtype) -> list[perception.SparseTensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        perception.SparseTensor(
            (torch.randn(n, 5, dtype=torch.float64, generator=generator) + i).to(dtype),
            torch.arange(n, dtype=torch.int32)[:, None] * torch.tensor([0, 1, 1, 1]).int(),
            batch_size=1,
        )
        for i, n in enumerate(sites)
    ]


def layer(kind: type[nn.BatchNorm], dtype: torch.dtype = torch.float64, **options) -> nn.BatchNorm:
    out = kind(5, dtype=dtype, **options)
    with torch.no_grad():
        if out.weight is not None:
            out.weight.copy_(torch.arange(1.0, 6.0))
            out.bias.copy_(torch.arange(5.0))
        if out.running_mean is not None:
            out.running_mean.copy_(torch.arange(5.0) / 7)
            out.running_var.copy_(torch.arange(1.0, 6.0) / 3)
    return out


def run(norm: nn.BatchNorm, x: perception.SparseTensor, fused: bool) -> dict[str, torch.Tensor]:
    """What the layer gives: alone, or after a residual and a ReLU in the same pass."""
    features = x.features.clone().requires_grad_()
    residual = (x.features.flip(1) - 1).requires_grad_()
    y = norm.normalize(features, residual, True) if fused else norm(x.replace(features)).features
    (y**3).sum().backward()
    out = {"y": y.detach(), "grad": features.grad}
    if fused:
        out["residual"] = residual.grad
    out |= {name: p.grad for name, p in norm.named_parameters() if p.grad is not None}
    return out | dict(norm.named_buffers())


CASES = {
    f"{name}, {'fused' if fused else 'alone'}, {dtype}, {options}": (sites, fused, dtype, options)
    for name, sites in SITES.items()
    for fused in (False, True)
    for dtype in (torch.float64, torch.float32, torch.bfloat16)
    for options in ({}, {"affine": False}, {"track_running_stats": False}, {"momentum": None})
    if dtype == torch.float64 or (name == "both" and not options)
}


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


def work(rank: int, folder: str) -> None:
    before = threads()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    results = {}
    for name, (sites, fused, dtype, options) in CASES.items():
        wide = torch.float32 if dtype == torch.bfloat16 else dtype
        norm = layer(nn.SyncBatchNorm, wide, **options)
        results[name] = run(norm, samples(sites, dtype)[rank], fused)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    # The layers keep nothing of the group alive, whose threads would meet a dying interpreter.
    assert threads() == before


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalize_as_one(name: str, parts: list[dict]) -> None:
    sites, fused, dtype, options = CASES[name]
    whole = perception.batch(samples(sites, torch.float64))
    if dtype == torch.bfloat16:  # the same rounded features
        whole = perception.batch([x.replace(x.features.double()) for x in samples(sites, dtype)])
    wanted = run(layer(nn.BatchNorm, **options), whole, fused)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.03}[dtype]
    ours = [part[name] for part in parts]
    for key, value in wanted.items():
        if key in ("y", "grad", "residual"):
            got = torch.cat([part[key] for part in ours])
        elif key in ("weight", "bias"):
            got = ours[0][key] + ours[1][key]
        else:
            assert torch.equal(ours[0][key], ours[1][key])
            got = ours[0][key]
        error = (got.double() - value.double()).abs().max() if value.numel() else 0
        assert error <= tolerance * max(1.0, float(value.abs().max() if value.numel() else 1)), key


def test_converting_keeps_parameters_and_statistics() -> None:
    x = samples((60, 25), torch.float64)[0]
    net = torch.nn.Sequential(nn.Conv(5, 5, dim=3).double(), layer(nn.BatchNorm))
    net(x)
    converted = nn.SyncBatchNorm.convert(copy.deepcopy(net))
    assert isinstance(converted[1], nn.SyncBatchNorm)
    torch.testing.assert_close(converted.eval()(x).features, net.eval()(x).features)
