"""Fixtures that all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans: the folder named by PERCEPTION_SHARED_DATA, else ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PERCEPTION_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the real scans are not here ({folder} is missing)")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def surface(sites: int, dim: int = 3, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Sites near a bumpy sheet, ``[about sites, 1 + dim] int32``, unique, in random order.

    Real scans lie on surfaces; uniform random points have no neighbours and test nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    per_axis = max(2, round((sites / batch) ** (1 / max(dim - 1, 1))))
    if dim == 1:
        grid = torch.randint(0, 2 * per_axis, (sites, 1), generator=generator)
    else:
        grid = torch.randint(0, per_axis, (sites, dim - 1), generator=generator)
        height = (2 * torch.sin(grid[:, :1] * 0.7)).round().long()
        grid = torch.cat([grid, height + torch.randint(0, 2, height.shape, generator=generator)], 1)
    sample = torch.randint(0, batch, (len(grid), 1), generator=generator)
    coords = torch.unique(torch.cat([sample, grid - per_axis // 2], 1).int(), dim=0)
    return coords[torch.randperm(len(coords), generator=generator)]
