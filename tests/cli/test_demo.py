"""The demo, with a training of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from perception.cli import demo
from perception.cli.main import main
from perception.io import read, read_labels


@pytest.mark.slow
def test_demo_trains_evaluates_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FEWEST", 2)
    monkeypatch.setattr(demo, "MOST", 2)
    assert main(["demo", "--output", str(tmp_path), "--seconds", "100"]) == 0
    text = capsys.readouterr().out
    for part in ("[1/3]", "[2/3]", "[3/3]", "labelled rightly", "road", "done in"):
        assert part in text
    cloud = read(tmp_path / "street.bin")
    assert len(read_labels(tmp_path / "street.label").semantic) == len(cloud)
    assert (tmp_path / "training" / "model.safetensors").is_file()
    for name in ("street.png", "street-truth.png"):
        assert Image.open(tmp_path / name).size == (1600, 900)


def test_a_damaged_input_fails_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.bin").write_bytes(b"x" * 1001)
    assert main(["demo", "--input", str(tmp_path / "cut.bin"), "--output", str(tmp_path)]) == 1
    assert main(["demo", "--seconds", "0"]) == 1
    captured = capsys.readouterr()
    assert "truncated" in captured.err
    assert "[1/3]" not in captured.out
