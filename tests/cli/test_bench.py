"""`perception bench` on a tiny scan: every topic runs, the JSON is complete, numbers fit together.

No time is asserted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perception.cli import bench
from perception.tools.bench import conv, kernel_map, limits, network, peers, report, workload
from perception.tools.bench.limits import Limits
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import Effort, Timing, interleave, peak_memory

ONCE = Effort(0.0, 1, 1)
LIMITS = Limits(200.0, {"mm": 100.0}, 10.0, 1)
WITH_PEER = peers.version() is not None


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A patch of road with a wall, 1500 points."""
    rng = np.random.default_rng(0)
    road = rng.uniform((-3, -3, 0), (3, 3, 0.05), (1000, 3))
    wall = rng.uniform((-3, 3, 0), (3, 3.05, 2), (500, 3))
    points = np.concatenate([road, wall]).astype(np.float32)
    path = tmp_path / "scans" / "a.npy"
    path.parent.mkdir()
    np.save(path, np.concatenate([points, np.ones((1500, 1), np.float32)], 1))
    np.save(path.with_name("b.npy"), points + np.float32(0.1))
    return path


def _check_row(row: dict[str, Any], limit: dict[str, Any]) -> None:
    assert row["topic"] in ("voxelize", "maps", "layers", "network")
    assert row["name"]
    assert OURS in row["seconds"]
    for seconds in row["seconds"].values():
        assert 0 < seconds["min"] <= seconds["median"]
        assert seconds["samples"] >= 1
    floor = max(row["flop"] / limit["gflops"], row["bytes"] / limit["copy_gbps"]) / 1e9
    assert row["limit_seconds"] == pytest.approx(floor)
    assert row["limit_by"] in ("flop", "bytes")
    assert row["share_of_limit"] == pytest.approx(floor / row["seconds"][OURS]["median"])
    if row["flop"]:
        rate = row["flop"] / row["seconds"][OURS]["median"] / 1e9
        assert row["gflops"] == pytest.approx(rate)
    else:
        assert row["gflops"] is None
        assert row["bytes"] > 0
    if row["difference"] is not None:
        assert row["difference"] < 1e-4


def test_whole_command(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = network.measure
    narrow = (4, 4, 8, 8, 8, 8, 8, 4, 4)
    monkeypatch.setattr(
        network, "measure", lambda *args, **kwargs: measure(*args, **kwargs, channels=narrow)
    )
    out = tmp_path / "bench.json"
    folder = str(scan_file.parent)
    argv = [folder, "--quick", "--voxel", "0.1", "--threads", "1", "--json", str(out)]
    assert bench.run(argv) == 0

    values = json.loads(out.read_text())
    assert values["format"] == report.FORMAT
    assert values["command"] == " ".join(["perception", "bench", *argv])
    assert values["machine"]["threads"] == 1
    assert values["machine"]["clock"] == "processor"
    assert {"processor", "cores", "torch", "perception", "spconv"} <= values["machine"].keys()
    limit = values["limits"]
    assert limit["gflops"] >= max(limit["product_gflops"].values()) > 0
    (scan,) = values["scans"]
    assert scan["name"] == "scans/a.npy"
    assert scan["points"] == 1500
    assert 0 < scan["sites"] < 1500
    assert "2 frames" in scan["sequence"]
    for row in scan["rows"]:
        _check_row(row, limit)
    names = [row["name"] for row in scan["rows"]]
    assert len(names) == len(set(names))
    assert "submanifold 3^3, stride 16" in names
    assert "4D hybrid 3^3 + 2, 0.2 m" in names
    for shape in conv.QUICK:
        assert f"{shape}, forward" in names
        assert f"{shape}, forward+backward" in names
    net = [row for row in scan["rows"] if row["topic"] == "network"]
    assert [row["flop"] / net[0]["flop"] for row in net] == [1, 1, 3]
    assert ("spconv" in net[0]["seconds"]) == WITH_PEER
    forward, step = scan["split"]["operators"].values()
    assert forward["convolution, forward"] > 0
    assert step["convolution, forward"] > 0
    assert step["convolution, gradient of the input"] > 0
    assert step["convolution, gradient of the weight"] > 0
    # 2 in the stem, 4 down, 4 up, and 2 blocks of 2 in each of 8 stages.
    assert sum(shape["calls"] for shape in scan["split"]["shapes"]) == 42

    text = capsys.readouterr().out
    for part in ("limits", "Voxelization", "kernel maps", "Layers", "MinkUNet42", "Where the time"):
        assert part in text
    assert max(map(len, text.splitlines())) < 160


def test_only_the_layers_that_are_named(scan_file: Path, capsys: pytest.CaptureFixture) -> None:
    argv = [str(scan_file), "--quick", "--layers", "subm:8:8@2", "up:8:4"]
    assert bench.run(argv) == 0
    text = capsys.readouterr().out
    assert "subm 3^3 8->8 @2, forward+backward" in text
    assert "up 2^3 8->4 @1, forward" in text
    assert "MinkUNet42" not in text


@pytest.mark.parametrize(
    "argv",
    [["--layers", "subm:4"], ["--layers", "subm:0:4"], ["--threads", "0"], ["--voxel", "-1"]],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.run(argv)
    assert stop.value.code == 2
    assert argv[-1] in capsys.readouterr().err


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        bench.run([str(tmp_path / "nothing.bin")])
    with pytest.raises(FileNotFoundError, match="no point files"):
        bench.run([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        bench.run(["--json", str(tmp_path / "missing" / "out.json")])


def test_layers_count_the_operations_of_a_dense_convolution() -> None:
    """On a full cube the pairs of a kernel are those of a dense convolution without padding."""
    side = 6
    grid = torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    coords = torch.cat([torch.zeros(len(grid), 1), grid], 1).int()
    sites = workload.SparseTensor(torch.ones(len(grid), 1), coords).sites
    forward, both = conv.measure(conv.Shape("subm", 2, 3), sites, ONCE, peer=WITH_PEER)
    pairs = (3 * side - 2) ** 3
    assert forward.counts["pairs"] == pairs
    assert forward.flop == 2 * pairs * 2 * 3
    assert both.flop == 3 * forward.flop
    down, _ = conv.measure(conv.Shape("down", 2, 3), sites, ONCE, peer=WITH_PEER)
    up, _ = conv.measure(conv.Shape("up", 2, 3), sites, ONCE, peer=WITH_PEER)
    assert down.counts == {"in_sites": 216, "out_sites": 27, "pairs": 216}
    assert up.counts == {"in_sites": 27, "out_sites": 216, "pairs": 216}
    assert [s.num_sites for s in kernel_map.levels(sites)] == [216, 27, 8, 1, 1]


def test_limits_are_a_roofline() -> None:
    assert LIMITS.gflops == 200
    assert LIMITS.seconds(flop=400e9, bytes_=10e9) == (2.0, "flop")
    assert LIMITS.seconds(flop=100e9, bytes_=10e9) == (1.0, "bytes")
    better = LIMITS.best_of(Limits(150.0, {"mm": 120.0}, 20.0, 1))
    assert (better.fma, better.products, better.copy) == (200.0, {"mm": 120.0}, 20.0)
    row = Row("layers", "x", {OURS: Timing(4.0, 3.0, 2)}, flop=400e9)
    assert row.share(LIMITS) == 0.5
    assert row.gflops == 100


def test_multiply_adds_outrun_a_scalar_loop() -> None:
    pytest.importorskip("llvmlite")
    assert (limits.fma_gflops(1, repeats=2) or 0) > 1


def test_cases_take_turns() -> None:
    calls: list[str] = []
    cases = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = interleave(cases, Effort(0.0, 2, 5))
    assert calls == ["a", "b"] * 3
    assert timings["a"].samples == 2
    assert timings["a"].minimum <= timings["a"].median


def test_peak_memory_sees_freed_memory() -> None:
    size = 1 << 26
    peak = peak_memory(lambda: torch.ones(size // 4).sum())
    if peak is None:
        pytest.skip("the high-water mark of this system cannot be reset")
    assert size * 0.9 < peak < size * 2
    assert math.isfinite(peak)
