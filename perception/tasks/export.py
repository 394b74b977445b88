"""Writes the trained network as a model file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

from perception.io import checkpoint, write_labels


class ModelExport(Callback):
    """At the end of a training, writes what `perception.load` and `perception infer` read.

    The file holds the weights of the last step as safetensors, and as metadata the network's name
    and arguments, classes, colours and encoder, and how the weights came about.

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
        net = pl_module.get_submodule("net")
        tensors = {name: value.detach().cpu() for name, value in net.state_dict().items()}
        metadata: dict[str, Any] = {
            "format": "perception-model-1",
            **pl_module.metadata(),  # type: ignore[operator]
            "colors": data.colors,
            "encoder": data.encoder.metadata(),
            "history": {
                "command": self.command,
                "seed": self.seed,
                "steps": trainer.global_step,
                "metrics": _finite(trainer.callback_metrics),
            },
        }
        checkpoint.save(path, tensors, metadata)
        pl_module.print(f"model written to {path}")


class PredictionWriter(BasePredictionWriter):
    """Writes the predicted classes of every scan as `<name>.label` (SemanticKITTI's format).

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
        """Writes the scans of a batch: `prediction` is name to labels `[N] uint8`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, labels in prediction.items():
            write_labels(self.folder / f"{Path(name).name}.label", labels)


def _finite(metrics: Any) -> dict[str, float]:
    """Plain numbers of logged tensors; JSON has no NaN."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
