"""The command line of training on a street of a few thousand points, which costs next to nothing.

Tests patch the simulator with `small_scan`; run as a script this is ``perception`` with that street, in
a process of its own. ``DIE`` in the environment names when it kills itself: ``step:5`` (in the backward
pass of the sixth step), ``validation:4`` or ``writing:6`` (after so many steps).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning import Callback

from perception.datasets import street, street_scans
from perception.datasets.sample import Sample
from perception.io import PointCloud

QUICK = [
    "--model.net.channels=[4,4,6,6,4]",
    "--data.val.streets=2",
    "--data.test.streets=2",
    "--data.train.streets=4",
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


class SmallStreet:
    """Stands for `perception.datasets.street.Street`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def scan(self, frame: int, **options: Any) -> Sample:
        return small_scan(10 * self.seed + frame, **options)


def small_scan(seed: int, **options: Any) -> Sample:
    """Road and walls as the simulator might show them, at a hundredth of the cost."""
    rng = np.random.default_rng(seed)
    count = 1200 + seed % 3 * 150
    xy = rng.uniform(-20, 20, (count, 2))
    wall = np.abs(xy[:, 1]) > 10
    points = np.c_[xy, np.where(wall, rng.uniform(0, 5, count), 0) - 1.7].astype(np.float32)
    intensity = {"intensity": rng.random(count, dtype=np.float32)}
    labels = np.where(wall, street.CLASSES.index("building"), 0).astype(np.uint8)
    labels[rng.random(count) < 0.2 * (seed % 2)] = 255
    return Sample(PointCloud(points, intensity), labels, name=f"{seed:08d}", pose=np.eye(4))


class Watch(Callback):
    """Notes the network's state after every step of the last training that it was in."""

    states: ClassVar[list[dict[str, torch.Tensor]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 1:
            self.states.clear()
        state = pl_module.net.state_dict()
        self.states.append({name: value.double() for name, value in state.items()})


def die(when: str) -> None:
    """Has this process killed, as the operating system does it, at the named moment."""
    from perception.tasks import Segmentation, WholeCheckpoints

    event, _, count = when.partition(":")

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def on_after_backward(self: Segmentation) -> None:
        if event == "step" and self.global_step == int(count):
            kill()

    def on_validation_epoch_start(self: Segmentation) -> None:
        if event == "validation" and self.global_step == int(count):
            kill()

    Segmentation.on_after_backward = on_after_backward  # type: ignore[method-assign]
    Segmentation.on_validation_epoch_start = on_validation_epoch_start  # type: ignore[method-assign]
    if event == "writing":
        rename = os.replace

        def replace(source: Any, target: Any) -> None:
            state = torch.load(source, weights_only=True)
            if state["global_step"] == int(count):
                with open(source, "r+b") as file:
                    file.truncate(1000)
                kill()
            rename(source, target)

        module = sys.modules[WholeCheckpoints.__module__]
        module.os.replace = replace  # type: ignore[attr-defined]


if __name__ == "__main__":
    street_scans.street.scan = small_scan  # type: ignore[assignment]
    street_scans._street = SmallStreet  # type: ignore[assignment]
    from perception.cli.fit import run

    if os.environ.get("DIE"):
        die(os.environ["DIE"])
    sys.exit(run(sys.argv[1:]))
