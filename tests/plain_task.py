"""The smallest task and data module that the command line takes: numbers that shall be guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader


class Guess(LightningModule):
    """Learns the mean; `prediction` is what it says."""

    task = "guess"
    monitor: ClassVar[tuple[str, str] | None] = ("val/error", "min")

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def metadata(self) -> Mapping[str, Any]:
        return {"task": self.task}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return ((self.net(batch) - 3) ** 2).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/error", ((self.net(batch) - 3) ** 2).mean())

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> list[float]:
        return self.net(batch)[:, 0].tolist()

    def write(self, folder: Path, prediction: list[float]) -> None:
        (folder / "guess.txt").write_text(f"{prediction}")


class Blind(Guess):
    """Monitors nothing."""

    monitor = None


class Numbers(LightningDataModule):
    """Ones."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.ones(4, 1), batch_size=2)  # type: ignore[arg-type]

    val_dataloader = predict_dataloader = train_dataloader
