"""Learning-rate schedules over a known number of steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

__all__ = ["OneCycle", "WarmupCosine"]


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


class OneCycle(OneCycleLR):
    """torch's `OneCycleLR` up to the optimizer's own learning rate; momentum goes the other way.

    Source: Smith and Topin, "Super-Convergence" (2018).

    Args:
        optimizer: whose learning rates are the peaks; its momentum (or first beta) is cycled.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps in which the rate rises, 0..1.
        start: the first learning rate as a share of the peak.
        end: the last learning rate as a share of the first one.
        momentum: lowest and highest, at and away from the peak; None leaves it alone.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup: float = 0.3,
        start: float = 0.04,
        end: float = 1e-4,
        momentum: tuple[float, float] | None = (0.85, 0.95),
    ) -> None:
        low, high = momentum or (0.85, 0.95)
        super().__init__(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=warmup,
            div_factor=1.0 / start,
            final_div_factor=1.0 / end,
            cycle_momentum=momentum is not None,
            base_momentum=low,
            max_momentum=high,
        )
