"""Clouds in tiles: the same labels where the overlap says so, and always a label for every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_drive import COLORS, NAMES, drive, ground, pipeline

from perception.inference import TooLittleMemory, cut
from perception.inference.memory import LiveBytes, free_memory, rough_bytes_per_site
from perception.inference.tiles import Context, context_of, tiling
from perception.io import PointCloud
from perception.models import MinkUNetCRF
from perception.nn import GlobalPool
from perception.pipeline import Pipeline
from perception.sparse import SparseTensor


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    limit=st.integers(40, 400),
    overlap=st.integers(0, 6),
    step=st.sampled_from([1, 2, 4]),
)
def test_cores_hold_every_site_once_and_tiles_all_within_the_overlap(
    seed: int, limit: int, overlap: int, step: int
) -> None:
    rng = np.random.default_rng(seed)
    coords = np.unique(rng.integers(-30, 30, (500, 3)) * [1, 1, 0], axis=0).astype(np.int32)
    tiles = cut(coords, limit, (overlap,) * 3, (step,) * 3)
    if tiles is None:
        return
    cores = np.concatenate([tile.rows[tile.core] for tile in tiles])
    assert sorted(cores.tolist()) == list(range(len(coords)))
    for tile in tiles:
        assert len(tile.rows) <= limit
        assert (np.diff(tile.rows) > 0).all()
        core = coords[tile.rows[tile.core]]
        low, high = core.min(0) - overlap, core.max(0) + overlap
        inside = ((coords >= low) & (coords <= high)).all(1)
        assert np.isin(np.flatnonzero(inside), tile.rows).all()


@pytest.mark.parametrize("points", [False, True])
def test_tiles_that_overlap_by_the_context_change_nothing(
    points: bool, device: torch.device
) -> None:
    cloud = ground(20_000, 100.0)
    channels, memory = ((8, 8, 8, 8, 8), 11_000_000) if points else ((8, 8, 8), 4_000_000)
    options: dict[str, Any] = {
        "channels": channels,
        "points": points,
        "voxel_size": 0.4,
        "device": device,
    }
    whole = pipeline(**options)
    expected = whole(cloud)
    assert expected.method.tiles == 1
    some = pipeline(**options, memory=memory)
    result = some(cloud)
    assert result.method.tiles > 1
    assert result.method.context is not None
    assert result.method.overlap >= result.method.context > 0
    if device.type == "cpu":
        np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(
        result.scores, expected.scores, atol=1e-6 if device.type == "cpu" else 1e-3
    )
    assert result.summary()["method"]["tiles"] == result.method.tiles
    assert "exact" in str(result.method)


def test_sequences_are_cut_in_space_alone() -> None:
    frames = drive(3, 4000, 60.0)
    options = {"time": "frame", "kernel": "hybrid", "channels": (8, 8, 8), "voxel_size": 0.4}
    expected = pipeline(**options).window(frames)
    result = pipeline(**options, memory=2_500_000).window(frames)
    assert result.method.tiles > 1
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_little_memory_lowers_the_overlap_and_says_so() -> None:
    cloud = ground(20_000, 40.0)
    expected = pipeline()(cloud)
    result = pipeline(memory=1_200_000)(cloud)
    assert result.method.tiles > 4
    assert result.method.context is not None
    assert result.method.overlap < result.method.context
    assert "may differ" in str(result.method)
    assert len(result.labels) == len(cloud)
    assert (result.labels == expected.labels).mean() > 0.9


def test_tiles_overlap_by_a_part_of_a_coarsest_voxel_where_a_whole_one_is_too_dear() -> None:
    rng = np.random.default_rng(0)
    coords = np.unique(rng.integers(0, 512, (20_000, 3)) * [1, 1, 0], axis=0).astype(np.int32)
    plan = tiling(coords, 5000, Context((1800, 1800, 1800), (128, 128, 128)))
    assert 0 < plan.overlap[0] < 128
    assert sum(len(tile.rows) for tile in plan.tiles) <= 4 * len(coords)
    assert all(len(tile.rows) <= 5000 for tile in plan.tiles)


def test_too_little_memory_is_an_error_that_says_what_fits() -> None:
    with pytest.raises(TooLittleMemory, match=r"room for \d+ sites at once.* bytes a site"):
        pipeline(memory=1000)(ground(500, 20.0))
    with pytest.raises(ValueError, match="memory=0 bytes"):
        pipeline(memory=0)


def test_memory_that_others_took_in_the_meantime_is_done_without() -> None:
    class Crowded(torch.nn.Module):
        """Has room for 4000 sites, whatever was measured."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: SparseTensor) -> SparseTensor:
            if x.num_sites > 4000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.net(x)

    cloud = ground(8000, 100.0)
    plain = pipeline(channels=(8, 8, 8), voxel_size=0.4)
    crowded = Pipeline(Crowded(plain.net), plain.encoder, NAMES, COLORS)
    expected, result = plain(cloud), crowded(cloud)
    assert result.method.tiles > 1
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_the_context_holds_all_that_changes_a_site() -> None:
    """Points beyond it do not matter, and it is no wild guess: points well inside do."""
    one = pipeline(channels=(8, 8, 8))
    context = one.runner.context
    assert context.step == (2, 2, 2)
    assert context.reach is not None
    reach = context.reach[0] * 0.2
    line = np.zeros((400, 4), np.float32)
    line[:, 0] = np.arange(400) * 0.05 + 0.1
    base = one(line)
    scores = []
    for distance in (1.05 * reach, 0.5 * reach):
        cut_off = one(line[line[:, 0] < 5 + distance])
        at = int(np.flatnonzero(line[:, 0] > 5)[0])
        scores.append(abs(cut_off.scores[at] - base.scores[at]))
    assert scores[0] == 0
    assert scores[1] > 0


def test_networks_that_see_everything() -> None:
    net = torch.nn.Sequential(GlobalPool("avg"))
    assert context_of(net, 3, 3, torch.device("cpu")).reach is None
    crf = MinkUNetCRF(
        4,
        3,
        depth=14,
        channels=[8, 8, 8],
        color=[0],
        sigma_color=0.1,
        iterations=3,
        sigma_space=2.0,
    )
    context = context_of(crf.eval(), 4, 3, torch.device("cpu"))
    plain = pipeline(channels=(8, 8, 8)).runner.context
    assert context.reach is not None
    assert plain.reach is not None
    assert context.reach[0] == plain.reach[0] + 3 * 2 * 2


def test_memory_is_measured() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 1e6
    net = pipeline().net
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 20, 20, 5)]).int()
    with torch.inference_mode(), LiveBytes() as live:
        result = net(SparseTensor(torch.randn(len(coords), 6), coords))
        kept = live.peak
        del result
    per_site = kept / len(coords)
    assert 6 * 4 < per_site < rough_bytes_per_site(net)
    with LiveBytes() as live:
        for _ in range(5):
            torch.ones(1000)
    assert live.peak == 4000


def test_an_empty_cloud_needs_no_tiles() -> None:
    assert len(pipeline(memory=1000)(PointCloud(np.zeros((0, 3)))).labels) == 0
