"""The learning rate over a training."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from perception.tasks import OneCycle, WarmupCosine


def rates(steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = WarmupCosine(optimizer, steps, **options)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_rises_to_the_peak_and_falls_to_the_floor() -> None:
    values = rates(100, warmup=0.2, floor=0.01)
    assert values[0] == pytest.approx(0.005)
    assert values[20] == pytest.approx(0.5)
    assert values.index(max(values)) == 20
    assert values[60] == pytest.approx(0.5 * (0.01 + 0.99 * 0.5))  # half way down the cosine
    assert values[-1] < 0.01
    assert all(a < b for a, b in pairwise(values[:21]))
    assert all(a > b for a, b in pairwise(values[20:]))


def test_one_cycle_follows_its_paper_with_cosines() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = OneCycle(optimizer, 101, warmup=0.3, start=0.1, end=0.01)
    seen = []
    for _ in range(101):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        optimizer.step()
        schedule.step()  # also after the last step, as the trainer does

    peak = 0.3 * 101 - 1
    for step, (rate, momentum) in enumerate(seen):
        rises = step <= peak
        share = step / peak if rises else (step - peak) / (100 - peak)
        wave = (1 - math.cos(math.pi * share)) / 2
        low, high = (0.05, 0.5) if rises else (0.5, 0.0005)
        assert rate == pytest.approx(low + (high - low) * wave)
        low, high = (0.95, 0.85) if rises else (0.85, 0.95)
        assert momentum == pytest.approx(low + (high - low) * wave)


def test_one_cycle_may_leave_the_momentum() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    OneCycle(optimizer, 10, momentum=None)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_trainings_have_a_rate(steps: int) -> None:
    assert all(0 < value <= 0.5 for value in rates(steps))
