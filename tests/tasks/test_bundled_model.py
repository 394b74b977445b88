"""What docs/models.md says of the bundled network."""

from __future__ import annotations

import numpy as np
import pytest

import perception
from perception.datasets.street import CLASSES
from perception.datasets.street_scans import StreetScans
from perception.io import checkpoint
from perception.metrics import label_iou
from perception.pipeline import bundled_models

MODEL = "street-minkunet"


@pytest.mark.parametrize(("split", "least"), [("val", 0.86), ("test", 0.80)])
def test_the_labels_of_streets_it_has_not_seen(split: str, least: float) -> None:
    pipeline = perception.load(MODEL, device="cpu")
    predicted, labels = [], []
    for sample in map(StreetScans(split, streets=20).__getitem__, range(6)):  # type: ignore[arg-type]
        near = np.linalg.norm(sample.cloud.points[:, :2], axis=1) < 50.0
        assert sample.labels is not None
        predicted.append(pipeline(sample.cloud).labels[near])
        labels.append(sample.labels[near])
    result = label_iou(np.concatenate(predicted), np.concatenate(labels), len(CLASSES))
    print(f"\n{result.table(pipeline.names)}")
    assert result.mean > least


def test_the_file_says_how_it_came_about() -> None:
    _, metadata = checkpoint.load(bundled_models()[MODEL])
    history = metadata["history"]
    assert history["command"] == "perception fit --config street-minkunet-bundled"
    assert history["steps"] == 5268
    assert history["metrics"]["val/miou"] > 0.9
