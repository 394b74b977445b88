"""Writes what a training gives: checkpoints, the network as a model file, predictions."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.plugins.io import TorchCheckpointIO

from perception.io import checkpoint


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or not there, also when the process is killed while it writes one.

    (Lightning's own writes to the folder for temporary files and moves from there, which copies where
    that is another disk.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes beside `path`, then renames."""
        part = Path(f"{os.fspath(path)}.part")
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class ModelExport(Callback):
    """At the end of a training, writes what `perception.load` and `perception infer` read.

    The file holds the weights after the last step (the averaged ones, if a callback averages) as
    safetensors, and as metadata what the task and the data module say of themselves (`metadata()`: the
    network's name and arguments, classes, colours, encoder), and how the weights came about.

    Args:
        path: the file; None for `model.safetensors` in the trainer's `default_root_dir`.
        command: the command line that is training, kept in the file.
        seed: the seed that it was given, kept in the file.
    """

    def __init__(
        self, path: Path | str | None = None, *, command: str = "", seed: int | None = None
    ) -> None:
        self.path = None if path is None else Path(path)
        self.command = command
        self.seed = seed

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file, on the first process."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self.path or Path(trainer.default_root_dir) / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
        described = data.metadata() if hasattr(data, "metadata") else {}
        net = pl_module.get_submodule("net")
        tensors = {name: value.detach().cpu() for name, value in net.state_dict().items()}
        metadata: dict[str, Any] = {
            "format": "perception-model-1",
            **pl_module.metadata(),  # type: ignore[operator]
            **described,
            "history": {
                "command": self.command,
                "seed": self.seed,
                "steps": trainer.global_step,
                "metrics": _finite(trainer.callback_metrics)
                or _metrics_of(path, trainer.global_step),
            },
        }
        checkpoint.save(path, tensors, metadata)
        pl_module.print(f"model written to {path}")


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as the task does it (`write`): of segmentation, one `.label` file a scan.

    Args:
        folder: where to; made if it is not there.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes what `predict_step` gave for a batch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pl_module.write(self.folder, prediction)  # type: ignore[operator]


def _metrics_of(path: Path, steps: int) -> dict[str, float]:
    """Those in the file that a training of as many steps wrote; a finished one given again has none."""
    try:
        history = checkpoint.load(path)[1].get("history", {})
    except (OSError, ValueError):  # none there, or not a model's
        return {}
    return dict(history.get("metrics", {})) if history.get("steps") == steps else {}


def _finite(metrics: Any) -> dict[str, float]:
    """Plain numbers of logged tensors; JSON has no NaN."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
