"""The code in docs/training.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perception.io
from perception.datasets.collate import SegmentationBatch
from perception.datasets.sample import Scans
from perception.datasets.segmentation import SegmentationData

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def block(containing: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def test_a_data_set_of_own_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(3):
        attributes = {
            "intensity": rng.random(50, dtype=np.float32),
            "label": rng.integers(0, 2, 50).astype(np.uint8),
        }
        cloud = perception.io.PointCloud(rng.random((50, 3), dtype=np.float32), attributes)
        paths.append(str(tmp_path / f"{number}.ply"))
        perception.io.write(paths[-1], cloud)

    names: dict[str, Any] = {}
    exec(block("class MyScans"), names)
    scans = names["MyScans"](str(tmp_path))
    assert isinstance(scans, Scans)
    data = SegmentationData(scans, scans, features=["intensity", "height"], num_workers=0)
    batches = list(data.train_dataloader())
    assert len(batches) == 1  # three scans, two a batch
    for batch in batches:
        assert isinstance(batch, SegmentationBatch)
        assert set(batch.labels.tolist()) <= {0, 1}


def test_the_iou_of_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import perception
    from perception.datasets.encode import Encoder
    from perception.io import checkpoint
    from perception.models import MinkUNet

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    encoder = Encoder(0.1, ["height", "offset"])
    net = MinkUNet(4, 2, depth=14, channels=(4, 4, 4))
    metadata = {
        "task": "segmentation",
        "net": {"name": "MinkUNet", "args": net.args},
        "classes": ["road", "car"],
        "colors": [[0, 0, 0], [9, 9, 9]],
        "encoder": encoder.metadata(),
    }
    model = tmp_path / "runs/street-minkunet/model.safetensors"
    model.parent.mkdir(parents=True)
    checkpoint.save(model, net.state_dict(), metadata)
    points = rng.uniform(-5, 5, (200, 4)).astype(np.float32)
    points[:, 3] = rng.random(200)
    points.tofile("scan.bin")
    names = {"labels": rng.integers(0, 2, 200).astype(np.uint8)}
    exec(block("label_iou"), names)
    assert 0 <= names["result"].mean <= 1  # type: ignore[attr-defined]
    assert perception.load(model).names == ("road", "car")
