"""Thousands of damaged files of driving data sets: a sample, or an error that names the file."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("damage_driving.py")
_names = runpy.run_path(str(SCRIPT))
KINDS = [*_names["KINDS"], *(_names["AV2"] if importlib.util.find_spec("pyarrow") else ())]
ROUNDS = 100
PROCESSES = 3


@pytest.mark.parametrize("part", range(PROCESSES))
def test_damaged_files_never_crash(tmp_path: Path, part: int) -> None:
    kinds = KINDS[part::PROCESSES]
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(ROUNDS), *kinds]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert result.stdout.count("refused") == len(kinds)
