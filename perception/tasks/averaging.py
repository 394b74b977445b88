"""Averages of the weights of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging

__all__ = ["AveragedWeights"]


class AveragedWeights(WeightAveraging):
    """Exponential moving average of weights and running statistics, of a training of any length.

    Validation, the checkpoints' `state_dict` and the exported model have the average, training goes on
    with its own weights (as Lightning's `EMAWeightAveraging`, whose average after few steps still is the
    beginning): after n updates the average keeps the share `min(decay, (1 + n) / (10 + n))` of itself,
    as TensorFlow's `ExponentialMovingAverage` does. Whole numbers are not averaged.

    Args:
        decay: share of the average that an update keeps in the end, 0..1.

    Raises:
        ValueError: a decay out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"AveragedWeights: decay={decay} must be 0 or more and below 1")

        @torch.no_grad()
        def update(
            average: Sequence[torch.Tensor], now: Sequence[torch.Tensor], updates: torch.Tensor
        ) -> None:
            n = int(updates)
            if average[0].is_floating_point():
                kept = min(decay, (1 + n) / (10 + n))
                torch._foreach_lerp_(list(average), list(now), 1.0 - kept)
            else:
                torch._foreach_copy_(list(average), list(now))

        super().__init__(multi_avg_fn=update)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the model, also where the training had ended before it was resumed."""
        self._copy_average_to_current(pl_module)
