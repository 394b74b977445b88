"""Damaged files: whatever the bytes, a reader returns a cloud or raises FormatError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Run in a process of its own: a decoder that aborts must fail a test, not end the test run.
SCRIPT = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
from perception.io import FormatError, PointCloud, read, read_labels, write
from perception.io import checkpoint

path, suffix, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
count = 300
points = rng.normal(0, 20, (count, 3)).astype(np.float32)
cloud = PointCloud(points, {"intensity": rng.random(count).astype(np.float32),
                            "label": np.arange(count) % 7})
load = read
file = path / ("a" + suffix)
if suffix == ".label":
    file.write_bytes(np.arange(count, dtype=np.uint32).tobytes())
    load = read_labels
elif suffix == ".safetensors":
    import torch
    checkpoint.save(file, {"w": torch.randn(8, 8)}, {"task": "segmentation"})
    load = checkpoint.load
elif suffix.endswith("compressed.pcd"):
    header = ("VERSION 0.7\\nFIELDS x y z\\nSIZE 4 4 4\\nTYPE F F F\\nCOUNT 1 1 1\\n"
              f"WIDTH {count}\\nHEIGHT 1\\nPOINTS {count}\\nDATA binary_compressed\\n").encode()
    raw = points.T.tobytes()
    packed = b"".join(bytes([len(raw[i:i+32]) - 1]) + raw[i:i+32] for i in range(0, len(raw), 32))
    sizes = np.array([len(packed), len(raw)], dtype="<u4").tobytes()
    file.write_bytes(header + sizes + packed)
    assert np.array_equal(read(file).points, points)
elif suffix == ".ascii.pcd":
    lines = "".join("%r %r %r\\n" % tuple(map(float, row)) for row in points)
    file.write_text("VERSION 0.7\\nFIELDS x y z\\nSIZE 4 4 4\\nTYPE F F F\\nCOUNT 1 1 1\\n"
                    f"WIDTH {count}\\nHEIGHT 1\\nPOINTS {count}\\nDATA ascii\\n" + lines)
    assert np.allclose(read(file).points, points)
else:
    write(file, cloud)
whole = file.read_bytes()
load(file)
# 4 GiB of address space beyond what is mapped now: a forged size must not be allocated.
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), resource.RLIM_INFINITY))
refused = 0
for round in range(rounds):
    data = bytearray(whole)
    head = min(len(data), 600)
    for _ in range(int(rng.integers(1, 6))):
        where = int(rng.integers(0, head if rng.random() < 0.7 else len(data)))
        kind = rng.integers(0, 5)
        if kind == 0:
            data[where] = int(rng.integers(0, 256))
        elif kind == 1:
            data[where : where + 4] = b"\\xff\\xff\\xff\\xff"[: len(data[where : where + 4])]
        elif kind == 2:
            del data[where : where + int(rng.integers(1, 40))]
        elif kind == 3:
            data[where:where] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        else:
            del data[max(where, 1) :]
        head = max(1, min(len(data), 600))
        if not data:
            data = bytearray(b"x")
    file.write_bytes(data)
    try:
        load(file)
    except FormatError as error:
        assert str(file) in str(error) and "\\n" not in str(error)
        refused += 1
    except BaseException as error:
        print("round", round, type(error), error)
        raise
print("refused", refused)
assert refused > rounds // 20
"""

KINDS = (
    ".bin",
    ".pcd.bin",
    ".pcd",
    "compressed.pcd",
    ".ascii.pcd",
    ".ply",
    ".las",
    ".laz",
    ".npy",
    ".npz",
    ".csv",
    ".label",
    ".safetensors",
)


@pytest.mark.parametrize("suffix", KINDS)
def test_damaged_files_never_crash(tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), suffix, "300"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
