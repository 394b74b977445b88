"""Learning-rate schedules over a known number of steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """One cycle: linear warm-up to the optimizer's own learning rate, then a cosine to zero.

    Args:
        optimizer: whose learning rates are the peaks.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps spent warming up, 0..1.
        floor: learning rate of the first and last step as a share of the peak.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, floor: float = 0.01
    ) -> None:
        rise = max(1.0, warmup * total_steps)
        fall = max(1.0, total_steps - rise)

        def factor(step: int) -> float:
            if step < rise:
                return floor + (1.0 - floor) * step / rise
            done = min(1.0, (step - rise) / fall)
            return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)
