"""Every network comes back from a model file, and labels a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perception
from perception import models
from perception.io import PointCloud, checkpoint

SMALL = {"channels": (4, 6, 6, 6, 4)}
NETWORKS: dict[str, list[dict[str, Any]]] = {
    "MinkUNet": [{**SMALL, "depth": 14}, {**SMALL, "depth": 42, "block": "convnext"}],
    "MinkUNetCRF": [{**SMALL, "depth": 14, "color": [0], "sigma_color": 0.25, "iterations": 2}],
    "SPVCNN": [SMALL, {**SMALL, "needs_points": True}],
}


def test_no_network_is_forgotten() -> None:
    assert set(NETWORKS) == set(models.__all__)


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, all_ in NETWORKS.items() for options in all_]
)
@pytest.mark.filterwarnings("ignore:nearly every point")
def test_a_model_file_labels_a_cloud(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = getattr(models, name)(4, 3, **options).eval()
    metadata = {
        "task": "segmentation",
        "net": {"name": name, "args": net.args},
        "classes": ["a", "b", "c"],
        "colors": [[0, 0, 0]] * 3,
        "encoder": {"voxel_size": 0.5, "features": ["intensity", "offset"]},
    }
    checkpoint.save(tmp_path / "net.safetensors", net.state_dict(), metadata)
    pipeline = perception.load(tmp_path / "net.safetensors", device="cpu")
    assert type(pipeline.net) is type(net)
    assert pipeline.net.args == net.args

    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 4, (800, 3)).astype(np.float32)
    points[:, 2] *= 0.1
    cloud = PointCloud(points, {"intensity": rng.random(800).astype(np.float32)})
    encoded = pipeline.encoder(cloud)
    x = perception.SparseTensor(encoded.features, encoded.coords)
    with torch.inference_mode():
        if options.get("needs_points"):
            scores = net(x, pipeline.encoder.positions(cloud), encoded.point_to_voxel)
        else:
            scores = net(x).features[encoded.point_to_voxel]
    assert np.array_equal(pipeline(cloud).labels, scores.argmax(1).numpy())
