"""``perception infer`` on drives and with its options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_drive import COLORS, NAMES, drive, pipeline

from perception.cli.inputs import collect
from perception.cli.main import main
from perception.io import checkpoint, read_labels, write
from perception.pipeline import Pipeline


def saved(one: Pipeline, path: Path) -> str:
    metadata = {
        "task": "segmentation",
        "net": {"name": "MinkUNet", "args": one.net.args},
        "classes": list(NAMES),
        "colors": COLORS,
        "encoder": one.encoder.metadata(),
    }
    if one.frames is not None:
        metadata.update(frames=one.frames, frame_step=one.frame_step)
    checkpoint.save(path, one.net.state_dict(), metadata)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four scans and their poses."""
    frames = drive(4, 800)
    place = tmp_path / "drive" / "velodyne"
    place.mkdir(parents=True)
    for sample in frames:
        write(place / f"{sample.name}.bin", sample.cloud)
    rows = [sample.pose[:3].ravel() for sample in frames if sample.pose is not None]
    np.savetxt(tmp_path / "drive" / "poses.txt", rows)
    return place


@pytest.mark.parametrize(("kernel", "kept"), [("causal", "layers"), ("hybrid", "frames")])
def test_a_folder_is_a_drive(
    folder: Path, tmp_path: Path, kernel: str, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = pipeline(time="frame", kernel=kernel, frames=3)
    model, out = saved(one, tmp_path / "model.safetensors"), tmp_path / "out"
    assert main(["infer", str(folder), "--model", model, "--output", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"4 scans as one drive by {folder.parent / 'poses.txt'}, keeping {kept}" in text
    assert f"3 frames, kept {kept}" in text
    stream = one.stream()
    for number, sample in enumerate(drive(4, 800)):
        assert sample.pose is not None
        expected = stream.push(sample.cloud, sample.pose)
        labels = read_labels(out / f"{number:06d}.label").semantic
        # The file's intensities are float32, the poses' text has all digits.
        assert (labels == expected.labels).mean() > 0.999
    report = json.loads((out / "000003.json").read_text())
    assert report["method"]["frames"] == (4 if kept == "layers" else 3)
    assert report["method"]["kept"] == kept


def test_a_scan_that_cannot_be_read_does_not_end_the_drive(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "000001.bin").write_bytes(b"123")
    model = saved(pipeline(time="frame", kernel="causal", frames=3), tmp_path / "m.safetensors")
    out = tmp_path / "out"
    assert main(["infer", str(folder), "--model", model, "--output", str(out)]) == 1
    assert "000001.bin" in capsys.readouterr().err
    assert sorted(path.stem for path in out.glob("*.label")) == ["000000", "000002", "000003"]


def test_without_poses_every_scan_stands_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poses = folder.parent / "poses.txt"
    elsewhere = poses.rename(tmp_path / "trajectory-of-the-drive.txt")
    model = saved(pipeline(time="frame", kernel="hybrid", frames=3), tmp_path / "m.safetensors")
    words = ["infer", str(folder), "--model", model, "--output", str(tmp_path / "out")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "no poses.txt beside the scans, so each is labelled alone" in captured.out
    assert "sees one alone" in captured.err
    assert main([*words, "--poses", str(elsewhere)]) == 0
    assert "as one drive by" in capsys.readouterr().out
    assert main([*words, "--poses", str(tmp_path / "none.txt")]) == 1
    assert "none.txt: no such file of poses" in capsys.readouterr().err


def test_a_model_that_does_not_say_its_frames(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(pipeline(time="frame", kernel="hybrid"), tmp_path / "m.safetensors")
    words = ["infer", str(folder), "--model", model, "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "give frames=" in capsys.readouterr().err
    assert main([*words, "--frames", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [f["method"]["frames"] for f in report["files"]] == [1, 2, 2, 2]


def test_tiles_copies_and_precision_are_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(pipeline(), tmp_path / "m.safetensors")
    words = ["infer", str(folder / "000000.bin"), "--model", model]
    words += ["--output", str(tmp_path / "out")]
    more = ["--augment", "2", "--precision", "bfloat16", "--memory", "0.0002"]
    assert main([*words, *more]) == 0
    text = capsys.readouterr().out
    for part in ("tiles overlapping by", "mean of 2 turned copies", "bfloat16"):
        assert part in text
    for extra, message in (
        (["--precision", "int4"], "precision 'int4' is unknown"),
        (["--memory", "0"], "--memory 0 GB"),
        (["--memory", "nan"], "--memory nan GB"),
        (["--memory", "inf"], "--memory inf GB"),
        (["--augment", "0"], "augment=0 copies"),
        (["--frames", "3"], "sees one at a time"),
    ):
        assert main([*words, *extra]) == 1
        captured = capsys.readouterr()
        assert message in captured.err
        assert len(captured.err.strip().splitlines()) == 1


def test_notes_name_their_file_and_every_file_gets_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", drive(1, 50)[0].cloud.points)
    model = saved(pipeline(), tmp_path / "m.safetensors")
    words = ["infer", str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--model", model]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "no intensity" in line]
    assert [note.split(": ")[1] for note in notes] == ["[1/2] a.npy", "[2/2] b.npy"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert ["no intensity" in file["notes"][0] for file in report["files"]] == [True, True]


def test_the_sweeps_of_a_log_of_argoverse_are_its_scans(tmp_path: Path) -> None:
    for place in ("sensors/lidar/2.feather", "sensors/lidar/1.feather", "annotations.feather"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    np.savez(tmp_path / "ego_motion.npz", np.eye(4))
    found = [job.path.relative_to(tmp_path).as_posix() for job in collect([tmp_path])]
    assert found == ["sensors/lidar/1.feather", "sensors/lidar/2.feather"]
    inside = [job.path.name for job in collect([tmp_path / "sensors" / "lidar"])]
    assert inside == ["1.feather", "2.feather"]
