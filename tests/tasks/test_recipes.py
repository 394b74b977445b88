"""What trainings are made of, through the command line: averaged weights, precision, weights of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from small_street import QUICK, Watch, small_scan

import perception
from perception.cli.fit import run
from perception.datasets import street, street_scans
from perception.datasets.sample import Sample
from perception.datasets.segmentation import SegmentationData
from perception.io import checkpoint
from perception.models import MinkUNet
from perception.tasks import AveragedWeights, Segmentation
from perception.tasks.losses import class_weights

pytestmark = pytest.mark.filterwarnings("ignore")

EMA = [
    "--trainer.callbacks+=perception.tasks.AveragedWeights",
    "--trainer.callbacks.decay=0.2",  # the first average keeps 2 / 11, all others 0.2
]


@pytest.fixture(autouse=True)
def small_street(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(street_scans.street, "scan", small_scan)


def fit(root: Path, *extra: str) -> dict[str, torch.Tensor]:
    where = f"--trainer.default_root_dir={root}"
    assert run(["fit", "--config", "street-minkunet", where, *QUICK, *extra]) == 0
    tensors, _ = checkpoint.load(root / "model.safetensors")
    return tensors


def test_the_averaged_weights_are_validated_kept_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    swap = AveragedWeights.on_validation_epoch_start

    def on_validation_epoch_start(self: Any, trainer: Any, pl_module: Any) -> None:
        swap(self, trainer, pl_module)
        seen.append(pl_module.net.head.weight.clone())

    monkeypatch.setattr(AveragedWeights, "on_validation_epoch_start", on_validation_epoch_start)
    watch = ["--trainer.callbacks+=small_street.Watch"]
    exported = fit(tmp_path, *EMA, *watch, "--trainer.max_steps=5")

    assert len(Watch.states) == 5
    average = Watch.states[0]
    for kept, state in zip((2 / 11, 0.2, 0.2, 0.2), Watch.states[1:], strict=True):
        average = {name: kept * average[name] + (1 - kept) * state[name] for name in average}
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    for name, value in exported.items():
        if name.endswith("num_batches_tracked"):
            assert value == 5
            continue
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(saved["state_dict"][f"net.{name}"], value)
        now = saved["current_model_state"][f"net.{name}"]  # what training goes on with
        torch.testing.assert_close(now.double(), Watch.states[-1][name])
    assert torch.equal(seen[-1], exported["head.weight"])
    # Averaging changes nothing of the training itself.
    plain = fit(tmp_path / "plain", "--trainer.max_steps=5")
    for name, value in plain.items():
        assert torch.equal(value, saved["current_model_state"][f"net.{name}"]), name
    assert perception.load(tmp_path / "model.safetensors").names == street.CLASSES


def test_mixed_precision_with_all_that_has_a_state(tmp_path: Path, device: torch.device) -> None:
    precision = "16-mixed" if device.type == "cuda" else "bf16-mixed"
    everything = [
        *EMA,
        f"--trainer.accelerator={device.type}",
        "--trainer.max_steps=6",
        "--trainer.gradient_clip_val=1.0",
        "--model.scheduler=perception.tasks.OneCycle",
        "--model.focal=2.0",
    ]
    mixed = fit(tmp_path / "mixed", *everything, f"--trainer.precision={precision}")
    whole = fit(tmp_path / "whole", *everything)
    for name, value in mixed.items():
        assert value.dtype == whole[name].dtype
        assert value.isfinite().all()
        if name.endswith("running_var"):  # statistics are those of the network in full precision
            torch.testing.assert_close(value, whole[name], rtol=0.1, atol=0.02)


class Finite:
    """Three small scans that end."""

    classes = street.CLASSES
    colors = street.COLORS
    box_classes: tuple[str, ...] = ()
    names = ("a", "b", "c")
    sequences = (range(3),)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        return small_scan(index)


@pytest.mark.parametrize("balance", ["inverse", "sqrt", "effective"])
def test_weights_of_classes_come_from_the_data(balance: Any) -> None:
    data = SegmentationData(Finite(), Finite(), num_workers=0)
    net = MinkUNet(6, len(street.CLASSES), depth=14, channels=(4, 4, 4))
    task = Segmentation(net, class_names=street.CLASSES, class_weights=balance)
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    labels = [small_scan(i).labels for i in range(3)]
    counts = np.stack([np.bincount(l[l != 255], minlength=12) for l in labels])  # type: ignore[index,arg-type]
    assert task.loss.weights is not None
    np.testing.assert_allclose(task.loss.weights.numpy(), class_weights(counts, balance))


def test_classes_of_endless_data_cannot_be_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no end"):
        fit(tmp_path, "--trainer.max_steps=1", "--model.class_weights=sqrt")


def test_weights_of_classes_may_be_given(tmp_path: Path) -> None:
    numbers = "[1,2,1,5,1,1,1,1,1,1,1,0.5]"
    weighted = fit(tmp_path / "a", "--trainer.max_steps=2", f"--model.class_weights={numbers}")
    plain = fit(tmp_path / "b", "--trainer.max_steps=2")
    assert not torch.equal(weighted["head.weight"], plain["head.weight"])
    with pytest.raises(ValueError, match="12 numbers"):
        fit(tmp_path / "c", "--trainer.max_steps=2", "--model.class_weights=[1,2]")
