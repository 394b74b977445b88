"""The loader's benchmark on a small file: that it runs, and that its figures belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.tools.bench.loader import main, measure


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).uniform(-20, 20, (500, 4)).astype(np.float32)
    rows[:, 3] = 0.5
    rows.tofile(tmp_path / "scan.bin")
    return tmp_path / "scan.bin"


def test_the_table_has_a_row_a_voxel_size(
    scan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(scan_file), "--workers", "0", "--scans", "4", "--repeats", "1"])
    copy, *table = capsys.readouterr().out.splitlines()
    assert "GB/s on one core" in copy
    assert [row.split("|")[1].strip() for row in table[2:]] == ["0.05 m", "0.1 m"]


def test_bytes_count_the_points_once(scan_file: Path) -> None:
    speed = measure([scan_file], 0.1, workers=0, scans=4, repeats=1)
    assert speed.points == 500
    assert 500 * 100 < speed.bytes < 500 * 400
    assert speed.scans > 0
    assert speed.core_seconds > 0
