"""Two processes that share a batch train as one process with the whole batch does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perception import nn
from perception.io import checkpoint
from perception.tasks import SparseSyncBatchNorm

SCRIPT = Path(__file__).parents[1] / "small_street.py"

OPTIONS = [
    "--trainer.max_steps=8",
    "--trainer.log_every_n_steps=1",
    "--trainer.gradient_clip_val=1.0",
    "--model.focal=1.0",
    "--model.class_weights=[1,2,1,3,1,1,1,1,1,1,1,1]",
]


def train(root: Path, *options: str) -> None:
    from small_street import QUICK

    where = f"--trainer.default_root_dir={root}"
    command = ["fit", "--config", "street-minkunet", where, *QUICK, *OPTIONS, *options]
    subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def column(root: Path, name: str) -> list[float]:
    with open(root / "csv/version_0/metrics.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    train(tmp_path / "one", "--data.batch_size=2")
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=1"]
    train(tmp_path / "two", *two)
    losses = [column(tmp_path / name, "train/loss") for name in ("one", "two")]
    assert len(losses[0]) == 8
    assert losses[0][0] != pytest.approx(losses[0][-1], rel=0.05)  # they move
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name in ("train/miou", "val/miou", "val/loss"):
        values = [column(tmp_path / run, name) for run in ("one", "two")]
        assert len(values[0]) == 4
        assert values[1] == pytest.approx(values[0], rel=1e-3), name
    weights = [checkpoint.load(tmp_path / n / "model.safetensors")[0] for n in ("one", "two")]
    for name, value in weights[0].items():  # Adam divides small gradients by their own size
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=1e-3)


def test_layers_are_converted_and_back() -> None:
    model = torch.nn.Sequential(
        nn.Sequential(nn.Conv(2, 4), nn.BatchNorm(4), nn.ReLU()),
        nn.Residual(nn.Sequential(nn.Conv(4, 4), nn.BatchNorm(4))),
        torch.nn.BatchNorm1d(3),
    )
    parameters = list(model.parameters())
    plugin = SparseSyncBatchNorm()
    synchronized = plugin.apply(model)
    kinds = [
        type(m)
        for m in synchronized.modules()
        if isinstance(m, torch.nn.modules.batchnorm._NormBase)
    ]
    assert kinds == [nn.SyncBatchNorm, nn.SyncBatchNorm, torch.nn.SyncBatchNorm]
    assert all(a is b for a, b in zip(parameters, synchronized.parameters(), strict=True))
    plain = plugin.revert(synchronized)
    kinds = [
        type(m) for m in plain.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)
    ]
    assert kinds[:2] == [nn.BatchNorm, nn.BatchNorm]
    assert not isinstance(kinds[2], torch.nn.SyncBatchNorm)
