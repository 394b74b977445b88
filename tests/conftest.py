"""Fixtures that all rooms share, and the two devices that tests run on.

A test that uses the fixture ``device`` runs twice: on the CPU, and, marked ``cuda``, on a GPU with the
same assertions. Without a usable GPU the second half is deselected; ``pytest -m cuda`` runs it alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
import torch

from perception import _native


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _native.supports("cuda"):
        return
    on_cuda = [item for item in items if item.get_closest_marker("cuda")]
    if "cuda" in config.getoption("markexpr"):  # asked for: say why not
        for item in on_cuda:
            item.add_marker(pytest.mark.skip(reason=f"no CUDA: {_native.cuda_problem()}"))
    elif on_cuda:
        items[:] = [item for item in items if not item.get_closest_marker("cuda")]
        config.hook.pytest_deselected(items=on_cuda)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where the test runs: `checks.here` and all that `checks` makes puts its tensors there."""
    with checks.placed(request.param) as place:
        yield place
        if place.type == "cuda":
            torch.cuda.synchronize()  # a kernel that fails, fails here


@pytest.fixture
def on_cuda() -> Iterator[torch.device]:
    """As ``device``, for tests of what CUDA alone has; they carry the mark ``cuda`` themselves."""
    with checks.placed("cuda") as place:
        yield place
        torch.cuda.synchronize()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans: the folder named by PERCEPTION_SHARED_DATA, else ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PERCEPTION_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the real scans are not here ({folder} is missing)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Indices of data sets that tests make up do not pile up in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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
    return checks.here(coords[torch.randperm(len(coords), generator=generator)])
