"""The study of 3D and 4D networks: noise, windows, batches, averaging, training, report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.datasets.collate import voxel_labels
from perception.io import FormatError
from perception.sparse import SparseTensor
from perception.tools.study import temporal
from perception.tools.study.batch import evaluation_batch, training_batch
from perception.tools.study.methods import METHODS, ROWS, averaged, network, scores
from perception.tools.study.noise import LEVELS, TABLE, Draws, Level, between, measured
from perception.tools.study.report import collect, tables
from perception.tools.study.training import Plan, train, weights_path
from perception.tools.study.windows import UNIT, Windows, files, load, record, scene

CPU = torch.device("cpu")
WIDTHS = (8, 8, 12, 12, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    record(path, "val", 2, 3, workers=1)
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> Windows:
    return load(files(folder, "val", 2, 3), CPU)


def test_noise_moves_points_along_their_rays_and_loses_a_share_of_them() -> None:
    points = torch.randn(20000, 3) * 20
    level = torch.tensor([Level(0.1, 0.3, 0.0)])
    kept, moved, _ = measured(
        points, torch.full((20000,), 0.5), level, Draws.make(20000, seed=1, device=CPU)
    )
    assert len(kept) / 20000 == pytest.approx(0.7, abs=0.02)
    before = points[kept]
    shift = moved.norm(dim=1) - before.norm(dim=1)
    assert float(shift.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(shift.mean())) < 0.005
    across = torch.linalg.cross(moved - before, before / before.norm(dim=1, keepdim=True))
    assert float(across.abs().max()) < 1e-3


def test_a_worse_sensor_sees_a_part_of_the_same_points() -> None:
    draws = Draws.make(1000, seed=3, device=CPU)
    points, intensity = torch.randn(1000, 3) * 9, torch.rand(1000)
    seen = [
        set(measured(points, intensity, torch.tensor([level]), draws)[0].tolist())
        for level in LEVELS
    ]
    assert seen[0] == set(range(1000))
    for better, worse in itertools.pairwise(seen):
        assert worse < better


def test_levels_lie_on_one_scale() -> None:
    assert [between(float(i)) for i in range(len(LEVELS))] == list(LEVELS)
    assert between(2.5) == pytest.approx((0.075, 0.6, 0.075))


def test_frames_of_a_window_are_registered(data: Windows) -> None:
    batch = evaluation_batch(data, 0, LEVELS[0])
    old, new = (
        {tuple(c) for c in batch.coords[batch.coords[:, 4] == t, 1:4].tolist()} for t in (0, 2)
    )
    # Static surfaces fall into the same voxels, whatever the car has moved meanwhile.
    assert len(old & new) / len(new) > 0.35
    assert torch.allclose(data.poses[0, 2], torch.eye(4), atol=1e-6)


def test_a_window_is_a_function_of_its_number(data: Windows) -> None:
    one = scene(1, 3)  # the second street of the validation
    start, stop = int(data.first[1]), int(data.first[2])
    assert np.array_equal(one["points"], data.points[start:stop].numpy())
    assert np.array_equal(one["labels"], data.labels[start:stop].numpy())
    assert one["counts"].tolist() == data.counts[1].tolist()
    assert UNIT * 32767 > 50.0


def test_recording_keeps_what_is_there_and_names_what_is_missing(folder: Path) -> None:
    (path,) = files(folder, "val", 2, 3)
    before = path.stat().st_mtime_ns
    record(folder, "val", 2, 3, workers=1)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileNotFoundError, match="run the stage generate"):
        load(files(folder, "train", 2, 3), CPU)
    broken = folder / "broken.npz"
    broken.write_bytes(b"PK no archive")
    with pytest.raises(FormatError, match="generate it again"):
        load([broken], CPU)


def test_all_networks_see_the_same_rows_and_3d_ones_one_frame_at_a_time(data: Windows) -> None:
    batch = training_batch(data, [0, 1], [0, 7])
    assert torch.equal(batch.in_time.coords, batch.coords)
    assert torch.equal(batch.in_space.features, batch.in_time.features)
    assert batch.in_space.batch_size == 6
    scan = batch.coords[:, 0] * 3 + batch.coords[:, 4]
    assert torch.equal(batch.in_space.coords[:, 0], scan)
    expected = voxel_labels(batch.point_labels, batch.point_to_voxel, len(batch.coords))
    assert torch.equal(batch.labels, expected)


def test_a_batch_is_a_function_of_its_seed(data: Windows) -> None:
    first = training_batch(data, [1], [0, 7])
    again = training_batch(data, [1], [0, 7])
    other = training_batch(data, [1], [0, 8])
    assert torch.equal(first.coords, again.coords)
    assert torch.equal(first.features, again.features)
    assert first.coords.shape != other.coords.shape or not torch.equal(first.coords, other.coords)


def test_the_single_frame_network_does_not_see_the_other_frames(data: Windows) -> None:
    batch = evaluation_batch(data, 0, LEVELS[TABLE])
    net = network("3d", WIDTHS).eval()
    with torch.no_grad():
        together = scores("3d", net, batch)[batch.newest]
        alone = net(batch.newest_scan()).features
    assert torch.allclose(together, alone, atol=1e-4)


def test_averaging_counts_every_frame_as_one_vote() -> None:
    coords = torch.tensor([[0, 5, 5, 5, 0], [0, 5, 5, 5, 2], [0, 5, 5, 6, 1], [0, 9, 9, 9, 2]])
    coords = coords.int()
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.3, 0.7]])
    x = SparseTensor(p, coords)
    same = averaged(p, x, 0)
    assert torch.allclose(same, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.3, 0.7]]))
    near = averaged(p, x, 1, coords[:, 4] == 2)
    assert torch.allclose(near, torch.tensor([[0.5, 0.5], [0.3, 0.7]]))


def test_a_training_that_is_cut_off_goes_on_as_if_it_had_not_been(
    data: Windows, tmp_path: Path
) -> None:
    plan = Plan(steps=4, windows=1, widths=WIDTHS)

    def quiet(line: str) -> None:
        pass

    whole = train(tmp_path / "a", "3d", 0, data, plan, say=quiet)
    over = iter([False, False, True])
    assert train(tmp_path / "b", "3d", 0, data, plan, over=lambda: next(over), say=quiet) is None
    rest = train(tmp_path / "b", "3d", 0, data, plan, say=quiet)
    assert whole is not None
    assert rest is not None
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name
    assert weights_path(tmp_path / "b", "3d", 0).is_file()
    with pytest.raises(FormatError, match="another plan"):
        train(tmp_path / "b", "3d", 0, data, Plan(steps=5, windows=1, widths=WIDTHS), say=quiet)


def test_a_crf_is_put_behind_the_hybrid_network_of_its_seed(data: Windows, tmp_path: Path) -> None:
    plan = Plan(steps=3, windows=1, branch=0.4, alone=0.7, widths=WIDTHS)

    def quiet(line: str) -> None:
        pass

    assert train(tmp_path, "crf-fixed", 0, data, plan, over=lambda: True, say=quiet) is None
    nets = {name: train(tmp_path, name, 0, data, plan, say=quiet) for name in ("hybrid", "crf")}
    over = iter([False, True])
    assert train(tmp_path, "crf-fixed", 0, data, plan, over=lambda: next(over), say=quiet) is None
    nets["crf-fixed"] = train(tmp_path, "crf-fixed", 0, data, plan, say=quiet)
    weights = {name: net.state_dict() for name, net in nets.items() if net is not None}
    for name, value in weights["hybrid"].items():
        assert torch.equal(value, weights["crf-fixed"][name]), name
    together = [
        torch.equal(value, weights["crf"][name]) for name, value in weights["hybrid"].items()
    ]
    assert not all(together)
    fresh = network("crf", WIDTHS).state_dict()
    for method in ("crf", "crf-fixed"):
        assert not torch.equal(weights[method]["crf.within"], fresh["crf.within"])


def test_the_tables_compare_seeds_in_pairs(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    plan = {"steps": 1, "widths": list(WIDTHS)}
    for method, base in (("3d", 50.0), ("hybrid", 52.0)):
        for seed in (0, 1):
            level = {"miou": base + seed, "classes": [base] * 11 + [None], "all_frames": base}
            rows = {key: [level] * len(LEVELS) for key, row in ROWS.items() if row.method == method}
            found = {"method": method, "seed": seed, "plan": plan, "rows": rows}
            (results / f"{method}-{seed}.json").write_text(json.dumps(found))
    text = tables(collect(tmp_path))
    line = next(line for line in text.splitlines() if line.startswith("| 4D, hybrid"))
    assert "52.5 ± 0.7" in line
    assert "+2.0 ± 0.0" in line
    (results / "cube-0.json").write_text("{}")
    with pytest.raises(FormatError, match="evaluate again"):
        collect(tmp_path)


def test_without_results_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the stages before first"):
        collect(tmp_path)


def test_a_stage_before_its_time_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--folder", str(tmp_path), "--methods", "3d", "--seeds", "0", "--devices", "cpu"]
    for stage in ("train", "evaluate", "time", "table"):
        assert temporal.main([stage, *options]) == 1
        assert "first" in capsys.readouterr().err


@pytest.mark.slow
def test_all_stages_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--folder", str(tmp_path), "--methods", "3d", "hybrid", "crf"]
    assert temporal.main(["all", *options]) == 0
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in ROWS.values() if row.method in options)
    assert (tmp_path / "noise.png").is_file()
    assert set(METHODS) > {"3d", "hybrid", "crf"}
