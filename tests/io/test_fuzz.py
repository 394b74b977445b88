"""Damaged files: whatever the bytes, a reader returns a result or raises an error that names the file."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("damage.py")
KINDS = tuple(runpy.run_path(str(SCRIPT))["KINDS"])
ROUNDS = 10_000 // len(KINDS) + 1  # of each kind: ten thousand in all
PROCESSES = 6


@pytest.mark.parametrize("part", range(PROCESSES))
def test_damaged_files_never_crash(tmp_path: Path, part: int) -> None:
    kinds = KINDS[part::PROCESSES]
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(ROUNDS), *kinds]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert result.stdout.count("refused") == len(kinds)
