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
from perception.tools.bench import (
    architectures,
    cold,
    conv,
    kernel_map,
    limits,
    network,
    peers,
    report,
    sides,
    table,
    timing,
    workload,
)
from perception.tools.bench.limits import Limits
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.sides import Shape
from perception.tools.bench.target import FLOAT32, PRECISIONS, Target
from perception.tools.bench.timing import Effort, Timing, interleave, peak_memory

ONCE = Effort(0.0, 1, 1)
LIMITS = Limits(200.0, {"mm": 100.0}, 10.0, 1)
LIBRARIES = peers.available(FLOAT32)
NARROW: dict[str, dict[str, Any]] = {
    "minkunet": {"channels": (4, 4, 8, 8, 8, 8, 8, 4, 4)},
    "unet": {"stem": 4, "encoder": (8, 8, 8), "decoder": (8, 4, 4)},
    "second": {"width": 4},
    "centerpoint": {"width": 4},
}


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
    assert all(difference < 1e-4 for difference in row["differences"].values())
    assert row["notes"] == []


@pytest.fixture
def narrow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = network.measure
    monkeypatch.setattr(
        network,
        "measure",
        lambda name, *args, **kwargs: measure(name, *args, **kwargs, sizes=NARROW[name]),
    )


@pytest.mark.usefixtures("narrow_networks")
def test_whole_command(scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "bench.json"
    folder = str(scan_file.parent)
    argv = [folder, "--quick", "--voxel", "0.1", "--threads", "1", "--json", str(out)]
    assert bench.run(argv) == 0

    values = json.loads(out.read_text())
    assert values["format"] == report.FORMAT
    assert values["command"] == " ".join(["perception", "bench", *argv])
    assert values["machine"]["threads"] == 1
    assert values["machine"]["clock"] == "processor"
    assert {"processor", "cores", "torch", "perception"} <= values["machine"].keys()
    assert values["machine"]["libraries"].keys() == {library.name for library in LIBRARIES}
    limit = values["limits"]
    assert limit["gflops"] >= max(limit["product_gflops"].values()) > 0
    (scan,) = values["scans"]
    assert scan["name"] == "scans/a.npy"
    assert scan["voxel"] == "0.1 m"
    assert scan["points"] == 1500
    assert 0 < scan["sites"] < 1500
    assert "2 frames" in scan["sequence"]
    assert scan["failures"] == []
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
    assert ("spconv" in net[0]["seconds"]) == bool(LIBRARIES)
    split = scan["splits"]["MinkUNet42"]
    forward, step = split["operators"].values()
    assert forward["convolution with norm and ReLU, forward"] > 0
    assert step["convolution with norm and ReLU, forward"] > 0
    assert step["convolution with norm and ReLU, gradients"] > 0
    # 2 in the stem, 4 down, 4 up, and 2 blocks of 2 in each of 8 stages.
    assert sum(shape["calls"] for shape in split["shapes"]) == 42

    text = capsys.readouterr().out
    for part in ("limits", "Voxelization", "kernel maps", "Layers", "MinkUNet42", "Where the time"):
        assert part in text
    assert max(map(len, text.splitlines())) < 170

    page = table.render([values])
    assert "subm 3^3 32->32 @1, forward" in page
    assert "scans/a.npy, 0.1 m" in page


def test_only_the_layers_that_are_named(scan_file: Path, capsys: pytest.CaptureFixture) -> None:
    argv = [str(scan_file), "--quick", "--layers", "subm:8:8@2", "up:8:4", "--batch", "2"]
    assert bench.run(argv) == 0
    text = capsys.readouterr().out
    assert "batch of 2" in text
    assert "subm 3^3 8->8 @2, forward+backward" in text
    assert "up 2^3 8->4 @1, forward" in text
    assert "MinkUNet42" not in text


@pytest.mark.parametrize(
    "argv",
    [
        ["--layers", "subm:4"],
        ["--layers", "subm:0:4"],
        ["--threads", "0"],
        ["--voxel", "-1"],
        ["--voxel", "0.1,0.2"],
        ["--only", "everything"],
        ["--against", "nothing"],
        ["--dtype", "tf32"],
    ],
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
    forward, both = conv.measure(Shape("subm", 2, 3), sites, ONCE, libraries=LIBRARIES)
    pairs = (3 * side - 2) ** 3
    assert forward.counts["pairs"] == pairs
    assert forward.flop == 2 * pairs * 2 * 3
    assert both.flop == 3 * forward.flop
    rows = {
        kind: conv.measure(Shape(kind, 2, 3), sites, ONCE, libraries=LIBRARIES)
        for kind in ("down", "up", "down3")
    }
    assert rows["down"][0].counts == {"in_sites": 216, "out_sites": 27, "pairs": 216}
    assert rows["up"][0].counts == {"in_sites": 27, "out_sites": 216, "pairs": 216}
    # Along an axis outputs -0 .. 3 reach 2, 3, 3 and 1 of the six sites: one plane past the last.
    assert rows["down3"][0].counts == {"in_sites": 216, "out_sites": 64, "pairs": 9**3}
    assert [s.num_sites for s in kernel_map.levels(sites)] == [216, 27, 8, 1, 1]
    for row in (forward, both, *(row for pair in rows.values() for row in pair)):
        assert row.notes == []
        assert row.differences.keys() == {library.name for library in LIBRARIES}
        assert all(difference < 1e-5 for difference in row.differences.values())


def test_layers_over_space_and_time_count_a_full_cube_too() -> None:
    side = 4
    grid = torch.stack(torch.meshgrid(*[torch.arange(side)] * 4, indexing="ij"), -1).reshape(-1, 4)
    coords = torch.cat([torch.zeros(len(grid), 1), grid], 1).int()
    sites = workload.SparseTensor(torch.ones(len(grid), 1), coords).sites
    line = 3 * side - 2  # pairs of three taps along one axis
    cube, _ = conv.measure(Shape("subm4", 2, 3), sites, ONCE, libraries=LIBRARIES)
    assert cube.counts["pairs"] == line**4
    assert cube.notes == []
    assert all(difference < 1e-5 for difference in cube.differences.values())
    hybrid, _ = conv.measure(Shape("hybrid4", 2, 3), sites, ONCE)
    assert hybrid.counts["pairs"] == line**3 * side + side**3 * 2 * (side - 1)


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


# -- networks --------------------------------------------------------------------------------------


def _workload(scan_file: Path, batch: int = 1) -> workload.Workload:
    return workload.from_path(scan_file.parent, (0.1, 0.1, 0.2), batch=batch)[0]


@pytest.mark.parametrize("name", network.NETWORKS)
def test_networks_agree_with_the_reference(scan_file: Path, name: str) -> None:
    scan = _workload(scan_file, batch=3)
    assert scan.tensor().batch_size == 3
    result = network.measure(name, scan, ONCE, libraries=LIBRARIES, sizes=NARROW[name])
    built, given, step = result.rows
    for row in result.rows:
        assert row.notes == []
        assert row.flop > 0
        assert row.bytes > 0
    names = {OURS, *(library.name for library in LIBRARIES)}
    assert built.timings.keys() == step.timings.keys() == names
    assert given.timings.keys() == {OURS}
    assert built.differences.keys() == names - {OURS}


def test_networks_have_the_published_layers() -> None:
    """Convolutions, and parameters of the published SECOND and CenterPoint encoders."""
    kit = architectures.OurKit()
    for build, count in ((architectures.second, 12), (architectures.centerpoint, 21)):
        net = build(kit, 4)
        layers = [m for m in net.modules() if isinstance(m, sides.Conv)]
        assert len(layers) == count
        assert [layer.num_taps for layer in layers].count(3) == 1
        assert sum(max(layer.stride) > 1 for layer in layers) == 4
    unet = architectures.unet(kit, 4)
    assert sum(isinstance(m, sides.Conv | sides.ConvTranspose) for m in unet.modules()) == 20


def test_sites_of_a_reference_are_found_in_another_order() -> None:
    rng = torch.Generator().manual_seed(0)
    coords = torch.randint(-40, 40, (50, 4), generator=rng).unique(dim=0).int()
    coords[:, 0] = coords[:, 0].abs() % 2
    coords = coords.unique(dim=0)
    boxed = peers.Boxed(coords, 2)
    assert int(boxed.coords[:, 1:].min()) >= peers.MARGIN
    assert all(side % 16 == 0 for side in boxed.shape)
    assert torch.equal(boxed.ours(boxed.coords, (1, 1, 1)), coords)
    order = torch.randperm(len(coords), generator=rng)
    rows = peers.our_rows(coords, coords[order])
    assert rows is not None
    assert torch.equal(rows, order)
    assert peers.our_rows(coords, coords[:-1]) is None
    other = coords.clone()
    other[0, 3] += 1000
    assert peers.our_rows(coords, other) is None


def test_first_call_runs_in_its_own_process(scan_file: Path) -> None:
    first, second = cold.measure(_workload(scan_file), target=FLOAT32, network="second")
    assert first.timings[OURS].median > 0
    assert second.timings[OURS].median > 0


def test_no_layer_of_a_network_fades() -> None:
    """Inference is timed on values of a learned network's size, not on zeros."""
    scan = workload.simulated((0.4, 0.4, 0.4))
    net = network.our_network("unet", NARROW["unet"])
    x = scan.tensor()
    network._settle(net, x, FLOAT32)
    with torch.no_grad():
        y = net.eval()(x).features
    assert 0.1 < float(y.std()) < 10


def test_a_missing_number_is_a_difference() -> None:
    bad = torch.tensor([1.0, math.nan])
    assert peers.deviation(bad, torch.ones(2)) == math.inf
    assert peers.deviation(torch.ones(2), bad) == math.inf
    assert peers.deviation(torch.ones(2), torch.ones(3)) == math.inf


def test_a_failing_reference_is_noted(scan_file: Path) -> None:
    absent = peers.Library("absent", "no_such_package", ("cpu",))
    assert "no_such_package" in (absent.obstacle(FLOAT32) or "")
    assert "not run on cpu" in (peers.LIBRARIES[1].obstacle(FLOAT32) or "")
    sites = _workload(scan_file).tensor().sites
    forward, both = conv.measure(Shape("subm", 4, 4), sites, ONCE, libraries=[absent])
    assert forward.timings.keys() == both.timings.keys() == {OURS}
    assert "no_such_package" in forward.notes[0]


# -- the GPU's clock, on a clock of our own --------------------------------------------------------


class _Gpu:
    """Stands in for torch.cuda: the host queues work of a known length, which runs in order."""

    def __init__(self) -> None:
        self.host = 0.0
        self.free = 0.0

    def launch(self, host: float, busy: float) -> None:
        self.host += host
        self.free = max(self.free, self.host) + busy

    def synchronize(self) -> None:
        self.host = max(self.host, self.free)

    def event(self, enable_timing: bool) -> _Event:
        assert enable_timing
        return _Event(self)


class _Event:
    def __init__(self, gpu: _Gpu):
        self.gpu = gpu
        self.at = 0.0

    def record(self) -> None:
        self.at = max(self.gpu.free, self.gpu.host)

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def elapsed_time(self, other: _Event) -> float:
        return (other.at - self.at) * 1e3


def test_bursts_see_the_slower_of_host_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = _Gpu()
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: gpu.host)
    cases = {
        "gpu": lambda: gpu.launch(1e-5, 1e-4),
        "host": lambda: gpu.launch(1e-4, 1e-5),
    }
    found = interleave(cases, Effort(0.0, 3, 3), device=torch.device("cuda"))
    assert found["gpu"].median == pytest.approx(1e-4, rel=0.02)
    assert found["gpu"].host == pytest.approx(1e-5)
    assert found["host"].median == pytest.approx(1e-4, rel=0.02)
    assert found["host"].host == pytest.approx(1e-4)
    added = found["gpu"].minus(found["host"])
    assert added.host == 0.0
    assert added.busy is None


def test_options_name_what_there_is() -> None:
    assert tuple(library.name for library in peers.LIBRARIES) == bench.LIBRARIES
    assert tuple(network.NETWORKS) == bench.NETWORKS
    assert tuple(PRECISIONS) == bench.PRECISIONS


def test_precisions() -> None:
    half = Target(torch.device("cuda"), "float16")
    assert half.dtype == torch.float16
    assert half.map_bytes < FLOAT32.map_bytes
    assert FLOAT32.rotation(1) == 1
    before = torch.backends.cuda.matmul.allow_tf32
    with Target(torch.device("cuda"), "tf32").switches():
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert peers.available(Target(torch.device("cuda"), "bfloat16")) == []


def test_gpu_rows_are_set_against_the_floor() -> None:
    row = Row("layers", "x", {OURS: Timing(4e-3, 4e-3, 2, 1e-3, 2e-3)}, flop=400e6)
    row.timings["spconv"] = Timing(8e-3, 8e-3, 2, 1e-3)
    row.compare("spconv", 0.5, 1e-2)
    result = report.ScanResult("scan", "0.1 m", 10, 5, [row])
    text = report.render_scan(result, LIMITS)
    head, _, line = text.splitlines()[2:5]
    assert head.split()[-6:] == ["x", "floor", "spconv", "ms", "kernels", "ratio"]
    assert line.split() == [
        "x",
        "-",
        "-",
        "4.00",
        "2.00",
        "1.00",
        "2.00",
        "2.0",
        "flop",
        "8.00",
        "-",
        "2.00x",
    ]
    assert "spconv: results differ by 5.0e-01" in text


@pytest.mark.cuda
@pytest.mark.usefixtures("narrow_networks")
def test_whole_command_on_a_gpu(scan_file: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    out = tmp_path / "bench.json"
    argv = [str(scan_file), "--device", "cuda", "--quick", "--json", str(out), "--only"]
    assert bench.run([*argv, "voxelize", "maps", "layers", *network.NETWORKS]) == 0
    values = json.loads(out.read_text())
    for row in values["scans"][0]["rows"]:
        assert row["seconds"][OURS]["median"] >= 0
        assert row["seconds"][OURS]["host"] >= 0
