"""The bundled network on a labelled scan of a real street, which it has never seen the like of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import perception
from perception.datasets.street import SEMANTIC_KITTI_TO_STREET
from perception.metrics import label_iou

MODEL = "street-minkunet"


def test_coarse_miou_on_a_real_scan(shared_data: Path) -> None:
    folder = shared_data / "semantickitti_spvnas"
    raw = np.fromfile(folder / "000000.label", np.uint32) & 0xFFFF
    table = np.full(int(raw.max()) + 1, 255, np.uint8)
    for number, street in SEMANTIC_KITTI_TO_STREET.items():
        if number < len(table):
            table[number] = street
    labels = table[raw]

    pipeline = perception.load(MODEL, device="cpu")
    prediction = pipeline(folder / "000000.bin")
    result = label_iou(prediction.labels, labels, len(pipeline.names))
    accuracy = float((prediction.labels == labels)[labels != 255].mean())
    print(
        f"\n{result.table(pipeline.names)}\naccuracy {100 * accuracy:.1f} %, {prediction.seconds}"
    )
    assert result.mean > 0.39
    assert accuracy > 0.69
