"""A training that is killed goes on as if it had not been."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_street import QUICK, small_scan

from perception.cli.fit import run
from perception.datasets import street_scans
from perception.io import checkpoint

SCRIPT = Path(__file__).parents[1] / "small_street.py"

# Epochs of four steps, of one sample each, that workers make ahead; everything that has a state.
OPTIONS = [
    "--checkpoint_every=2",
    "--trainer.max_steps=11",
    "--trainer.gradient_clip_val=1.0",
    "--data.batch_size=1",
    "--data.num_workers=1",
    "--model.scheduler=perception.tasks.OneCycle",
    "--trainer.callbacks+=perception.tasks.AveragedWeights",
    "--trainer.callbacks.decay=0.8",
]


def command(root: Path) -> list[str]:
    """The same every time: without a checkpoint it begins anew."""
    where = [f"--trainer.default_root_dir={root}", "--ckpt_path=last"]
    return ["fit", "--config", "street-minkunet", *where, *QUICK, *OPTIONS]


def killed_fit(root: Path, die: str) -> int:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command(root)],
        timeout=300,
        env={**os.environ, "DIE": die},
        stdout=subprocess.DEVNULL,
    ).returncode


def last_step(root: Path) -> int:
    state = torch.load(root / "checkpoints/last.ckpt", weights_only=True)
    return int(state["global_step"])


def column(root: Path, name: str) -> list[float]:
    """Of all runs in a folder, one after the other."""
    values = []
    for path in sorted(root.glob("csv/version_*/metrics.csv")):
        with open(path) as file:
            values += [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return values


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_killed_three_times_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(street_scans.street, "scan", small_scan)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(command(whole)) == 0
    for die, kept in (("step:3", 2), ("validation:4", 4), ("writing:8", 6)):
        assert killed_fit(killed, die) == -signal.SIGKILL, die
        assert last_step(killed) == kept, die
    assert run(command(killed)) == 0
    assert last_step(killed) == 11

    weights, metadata = checkpoint.load(whole / "model.safetensors")
    resumed, described = checkpoint.load(killed / "model.safetensors")
    assert weights.keys() == resumed.keys()
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name
    assert metadata["history"]["metrics"] == described["history"]["metrics"]
    # What an epoch counts does not begin anew in its middle.
    assert column(killed, "train/miou")[-1] == column(whole, "train/miou")[-1]

    assert run(command(killed)) == 0  # nothing is left to do, and nothing is lost
    again, described = checkpoint.load(killed / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert metadata["history"]["metrics"] == described["history"]["metrics"]
