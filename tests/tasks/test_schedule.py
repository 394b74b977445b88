"""The learning rate over a training."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from perception.tasks import WarmupCosine


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


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_trainings_have_a_rate(steps: int) -> None:
    assert all(0 < value <= 0.5 for value in rates(steps))
