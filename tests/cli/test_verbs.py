"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perception.cli.main import VERBS, main
from perception.io import PointCloud, checkpoint, read, read_labels, write, write_labels
from perception.models import MinkUNet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    net = MinkUNet(4, 3, depth=14, channels=[8, 8, 8, 8, 8])
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    saved = {
        "task": "segmentation",
        "net": {"name": "MinkUNet", "args": net.args},
        "classes": ["road", "car", "tree"],
        "colors": [[128, 64, 128], [40, 80, 255], [16, 130, 40]],
        "encoder": {"voxel_size": 0.2, "features": ["intensity", "offset"]},
    }
    checkpoint.save(path, net.state_dict(), saved)
    return str(path)


def write_scan(path: Path, count: int = 2000) -> Path:
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (count, 3)) * [1, 1, 0.1]
    write(path, PointCloud(points, {"intensity": rng.random(count).astype(np.float32)}))
    return path


def test_help_is_fast_and_complete() -> None:
    code = (
        "import sys; from perception.cli.main import main; code = main(['--help']); "
        "assert not {'torch', 'numba', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", ["infer", "view", "convert", "doctor", "demo"])
def test_every_verb_has_a_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"usage: perception {verb}" in capsys.readouterr().out


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["frobnicate"]) == 2
    assert main(["infer"]) == 2
    assert main(["infer", "a.bin", "--no-such-option"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["infer", "view", "doctor"])
def test_bad_input_is_one_line_and_one(
    verb: str, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--model", model, "--output", str(tmp_path / "o")] if verb == "infer" else []
    (tmp_path / "cut.bin").write_bytes(b"x" * 1001)
    (tmp_path / "empty").mkdir()
    cases = (("none.bin", "no such file"), ("cut.bin", "truncated"), ("empty", "director|no point"))
    for name, message in cases:
        assert main([verb, str(tmp_path / name), *extra]) == 1
        captured = capsys.readouterr()
        lines = (captured.err + captured.out).strip().splitlines()
        complaints = [line for line in lines if name in line]
        assert len(complaints) == 1, lines
        assert any(word in complaints[0] for word in message.split("|"))
        assert "Traceback" not in captured.err


def test_infer_writes_labels_clouds_pictures(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scan(tmp_path / "scan.bin")
    out = tmp_path / "out"
    words = ["infer", str(path), "--model", model, "--output", str(out), "--picture"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for part in ("2,000 points", "voxels", "read", "encode", "network", "write", "%"):
        assert part in text
    assert sorted(p.name for p in out.iterdir()) == [
        "scan.json",
        "scan.label",
        "scan.ply",
        "scan.png",
    ]
    assert len(read_labels(out / "scan.label").semantic) == 2000
    assert len(read(out / "scan.ply")) == 2000
    assert Image.open(out / "scan.png").size == (1600, 900)


def test_infer_folders_and_json(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("00", "01"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write_scan(tmp_path / "in" / folder / "000000.bin", 500)
        (tmp_path / "in" / folder / "poses.txt").write_text("1 0 0 0\n")
    (tmp_path / "in" / "01" / "000001.bin").write_bytes(b"123")
    out = tmp_path / "out"
    words = ["infer", str(tmp_path / "in"), "--model", model, "--output", str(out), "--json"]
    assert main(words) == 1  # one of three is damaged
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert [Path(f["path"]).parent.name for f in report["files"]] == ["00", "01"]
    assert [Path(f["path"]).name for f in report["failed"]] == ["000001.bin"]
    assert (out / "00" / "000000.label").is_file()
    assert (out / "01" / "000000.label").is_file()
    assert report["files"][0]["points"] == 500
    # Files of one name from two folders do not overwrite each other.
    words = ["infer", *[str(tmp_path / "in" / f / "000000.bin") for f in ("00", "01")]]
    assert main([*words, "--model", model, "--output", str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "two").glob("*.label"))) == 2


def test_infer_never_overwrites_its_input(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scan(tmp_path / "scan.ply")
    before = path.read_bytes()
    assert main(["infer", str(path), "--model", model, "--output", str(tmp_path)]) == 1
    assert "choose another --output" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_view_saves_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scan(tmp_path / "scan.bin")
    write_labels(tmp_path / "scan.label", np.full(2000, 40))
    boxes = {"boxes": [[5, 0, 0, 4, 2, 1.5, 0.3]], "box_labels": [0], "classes": ["car"]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    save = str(tmp_path / "out.png")
    assert main(["view", str(path), "--save", save]) == 0
    plain = np.asarray(Image.open(save)).astype(int)
    words = ["--labels", str(tmp_path / "scan.label"), "--boxes", str(tmp_path / "boxes.json")]
    assert main(["view", str(path), *words, "--save", save]) == 0
    labelled = np.asarray(Image.open(save)).astype(int)
    magenta = (labelled[..., 0] > 120) & (labelled[..., 2] > 120) & (labelled[..., 1] < 60)
    assert magenta.sum() > 2000  # SemanticKITTI's road
    assert (labelled != plain).any()
    # Without a display there is a picture in the current folder.
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.chdir(tmp_path)
    assert main(["view", str(path)]) == 0
    assert (tmp_path / "scan.png").is_file()


def test_view_refuses_labels_of_another_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scan(tmp_path / "scan.bin")
    write_labels(tmp_path / "a.label", np.zeros(7, int))
    assert main(["view", str(path), "--labels", str(tmp_path / "a.label"), "--save", "x.png"]) == 1
    assert "labels 7 points, the cloud has 2000" in capsys.readouterr().err


def test_view_real_boxes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "kitti_object" / "training"
    words = [str(folder / "velodyne" / "000001.bin"), "--boxes"]
    words += [str(folder / "label_2" / "000001.txt"), "--save", str(tmp_path / "a.png")]
    assert main(["view", *words]) == 0


def test_kitti_boxes_hold_the_points(shared_data: Path) -> None:
    from perception.io.boxes import read_boxes

    folder = shared_data / "kitti_object" / "training"
    expected = {"000000": {"Pedestrian": 376}, "000001": {"Truck": 70, "Car": 9, "Cyclist": 18}}
    for name, counts in expected.items():
        boxes, names = read_boxes(folder / "label_2" / f"{name}.txt")
        cloud = read(folder / "velodyne" / f"{name}.bin")
        inside = boxes.contains(cloud.points).sum(axis=1)
        for label, count in zip(boxes.labels, inside, strict=True):
            assert abs(int(count) - counts[names[label]]) <= 2


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scan(tmp_path / "scan.bin")
    for suffix in (".ply", ".pcd", ".laz", ".npz", ".csv"):
        assert main(["convert", str(path), str(tmp_path / f"b{suffix}")]) == 0
        np.testing.assert_allclose(
            read(tmp_path / f"b{suffix}").points, read(path).points, atol=1e-4
        )
    geo = read(path).replace(origin=np.array([5e5, 5e6, 100.0]))
    write(tmp_path / "geo.ply", geo)
    assert main(["convert", str(tmp_path / "geo.ply"), str(tmp_path / "geo.bin")]) == 1
    assert "--local" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "geo.ply"), str(tmp_path / "g.bin"), "--local"]) == 0
    assert main(["convert", str(path), str(path)]) == 1


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "agrees with a dense convolution" in text
    assert main(["doctor", str(write_scan(tmp_path / "scan.bin"))]) == 0
    text = capsys.readouterr().out
    assert "kitti (recognised" in text
    assert "2,000" in text


def test_convert_shrinks_a_model_and_keeps_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big, small = tmp_path / "big.safetensors", tmp_path / "small.safetensors"
    weights = {"weight": torch.randn(300, 40), "steps": torch.tensor(7)}
    checkpoint.save(big, weights, {"task": "segmentation"})
    assert main(["convert", str(big), str(small)]) == 0
    tensors, metadata = checkpoint.load(small)
    assert metadata["task"] == "segmentation"
    assert tensors["weight"].dtype == torch.float16
    assert int(tensors["steps"]) == 7
    torch.testing.assert_close(tensors["weight"].float(), weights["weight"], rtol=1e-3, atol=1e-4)
    assert small.stat().st_size < 0.6 * big.stat().st_size
    assert main(["convert", str(big), str(tmp_path / "scan.ply")]) == 1
    checkpoint.save(big, {"weight": torch.tensor([1e9])}, {})
    assert main(["convert", str(big), str(small)]) == 1
    assert "too large for float16" in capsys.readouterr().err
