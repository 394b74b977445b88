"""A labelled scan of a real street: the bundled network has never seen the like; others train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perception
from perception.cli.fit import run
from perception.datasets.street import SEMANTIC_KITTI_TO_STREET
from perception.io import checkpoint
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
    # Trucks, of which there are none, count as 0 in the mean where a point is called so.
    there = np.unique(labels[labels != 255])
    assert np.mean(result.per_class.numpy()[there]) > 0.60
    assert result.mean > 0.55
    assert accuracy > 0.83


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["minkunet14", pytest.param("minkunet14-4d-crf", marks=pytest.mark.slow)]
)
def test_configurations_of_its_data_set_train_on_it(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    # A drive that stands still: four times the same scan.
    for sequence in ("00", "08"):
        drive = tmp_path / "data/sequences" / sequence
        for folder, suffix in (("velodyne", "bin"), ("labels", "label")):
            (drive / folder).mkdir(parents=True)
            for frame in range(4):
                scan = shared_data / f"semantickitti_spvnas/000000.{suffix}"
                (drive / folder / f"{frame:06d}.{suffix}").symlink_to(scan)
        unit = " ".join(map(str, np.eye(4)[:3].ravel()))
        (drive / "calib.txt").write_text(
            "".join(f"P{i}: {unit}\n" for i in range(4)) + f"Tr: {unit}\n"
        )
        (drive / "poses.txt").write_text(f"{unit}\n" * 4)
        (drive / "times.txt").write_text("".join(f"{0.1 * i:e}\n" for i in range(4)))

    options = {
        "data.train.root": tmp_path / "data",
        "data.val.root": tmp_path / "data",
        "data.voxel_size": 0.4,
        "data.batch_size": 1,
        "data.num_workers": 0,
        "model.net.width": 0.25,
        "trainer.max_steps": 2,
        "trainer.limit_val_batches": 1,
        "trainer.limit_predict_batches": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": tmp_path / "run",
        "trainer.enable_progress_bar": "false",
    }
    words = [f"--{key}={value}" for key, value in options.items()]
    assert run(["fit", "--config", f"semantickitti-{name}", *words]) == 0
    _, metadata = checkpoint.load(tmp_path / "run/model.safetensors")
    history = metadata["history"]
    assert history["steps"] == 2
    assert 0 < history["metrics"]["train/loss"] < 20
    # The mean runs over all 19 classes, the scan has fewer: as semantic-kitti-api counts them.
    per_class = [v for key, v in history["metrics"].items() if key.startswith("val/iou/")]
    assert history["metrics"]["val/miou"] == pytest.approx(sum(per_class) / 19, abs=1e-5)

    last = f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"
    assert run(["predict", "--config", f"semantickitti-{name}", *words, last]) == 0
    files = sorted((tmp_path / "run/predictions").glob("*/*.label"))  # a folder a drive
    points = (shared_data / "semantickitti_spvnas/000000.bin").stat().st_size // 16
    assert len(files) == 2
    assert all(len(np.fromfile(file, np.uint32)) == points for file in files)
