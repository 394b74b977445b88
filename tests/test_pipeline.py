"""A file in, labels out: with a small network of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import perception
from perception._native import supports
from perception.io import FormatError, PointCloud, checkpoint, read, read_labels, write
from perception.models import MinkUNet

NAMES = ["road", "car", "tree"]
COLORS = [[128, 64, 128], [40, 80, 255], [16, 130, 40]]


def metadata(net: MinkUNet, /, **changes: object) -> dict[str, object]:
    return {
        "task": "segmentation",
        "net": {"name": "MinkUNet", "args": net.args},
        "classes": NAMES,
        "colors": COLORS,
        "encoder": {"voxel_size": 0.2, "features": ["intensity", "offset"]},
        "history": {"steps": 0},
        **changes,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = MinkUNet(4, 3, depth=14, channels=[8, 8, 8, 8, 8])
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    checkpoint.save(path, net.state_dict(), metadata(net))
    return path


def scan(count: int = 3000) -> PointCloud:
    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 4, (count, 3)) * [1, 1, 0.1]
    return PointCloud(points, {"intensity": rng.random(count).astype(np.float32)})


def test_cloud_file_and_array_give_the_same(
    model: Path, tmp_path: Path, device: torch.device
) -> None:
    pipeline = perception.load(model, device=device.type)
    assert pipeline.device.type == device.type
    cloud = scan()
    write(tmp_path / "scan.bin", cloud)
    array = np.concatenate([cloud.points, cloud.attributes["intensity"][:, None]], axis=1)
    first = pipeline(cloud)
    assert first.labels.shape == first.scores.shape == (3000,)
    assert first.labels.dtype == np.uint8
    assert first.scores.dtype == np.float32
    assert (first.scores >= 1 / 3 - 1e-6).all()
    assert (first.scores <= 1).all()
    assert first.boxes is None
    for source in (tmp_path / "scan.bin", str(tmp_path / "scan.bin"), array, torch.tensor(array)):
        other = pipeline(source)
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-6)
    assert sum(first.shares().values()) == pytest.approx(1)
    assert 0 < first.voxels < 3000


def test_points_of_one_voxel_share_a_label_and_order_does_not_matter(model: Path) -> None:
    pipeline = perception.load(model, device="cpu")
    cloud = scan()
    order = np.random.default_rng(1).permutation(len(cloud))
    base, shuffled = pipeline(cloud), pipeline(cloud[order])
    np.testing.assert_allclose(shuffled.scores, base.scores[order], atol=1e-4)
    cells = np.floor(cloud.points / np.float32(0.2)).astype(int)
    _, inverse = np.unique(cells, axis=0, return_inverse=True)
    for cell in np.flatnonzero(np.bincount(inverse) > 1)[:50]:
        assert len(np.unique(base.labels[inverse == cell])) == 1


def test_the_network_is_the_one_in_the_file(model: Path) -> None:
    tensors, saved = checkpoint.load(model)
    net = MinkUNet(**saved["net"]["args"])
    net.load_state_dict(tensors)
    pipeline = perception.load(model, device="cpu")
    encoded = pipeline.encoder(scan())
    with torch.no_grad():
        x = perception.SparseTensor(encoded.features, encoded.coords)
        expected = net.eval()(x).features.softmax(1)[encoded.point_to_voxel]
    prediction = pipeline(scan())
    np.testing.assert_array_equal(prediction.labels, expected.argmax(1).numpy())
    np.testing.assert_allclose(prediction.scores, expected.max(1).values.numpy(), atol=1e-6)


def test_save(model: Path, tmp_path: Path) -> None:
    prediction = perception.load(model, device="cpu")(scan())
    written = prediction.save(tmp_path / "out" / "scan.v2")
    assert [path.name for path in written] == ["scan.v2.label", "scan.v2.ply", "scan.v2.json"]
    np.testing.assert_array_equal(read_labels(written[0]).semantic, prediction.labels)
    assert written[0].stat().st_size == 4 * 3000
    back = read(written[1])
    np.testing.assert_array_equal(back.attributes["label"], prediction.labels)
    np.testing.assert_allclose(back.attributes["score"], prediction.scores)
    assert back.attributes["red"][0] == COLORS[prediction.labels[0]][0]
    content = json.loads(written[2].read_text())
    assert content["classes"] == NAMES
    assert content["points"] == 3000
    assert [p.name for p in prediction.save(tmp_path / "a.label")] == ["a.label"]
    assert prediction.save(tmp_path / "a.png")[0].stat().st_size > 10_000
    with pytest.raises(FormatError, match="cannot be written"):
        prediction.save(tmp_path / "a.label" / "b.label")


def test_labels_keep_the_rows_of_the_file(model: Path, tmp_path: Path) -> None:
    rows = np.concatenate([scan().points, scan().attributes["intensity"][:, None]], axis=1)
    rows[[5, 17], 1] = np.nan
    rows.astype(np.float32).tofile(tmp_path / "scan.bin")
    with pytest.warns(UserWarning, match="dropped 2"):
        prediction = perception.load(model, device="cpu")(tmp_path / "scan.bin")
    assert len(prediction.labels) == 2998
    saved = read_labels(prediction.save(tmp_path / "a.label")[0], count=3000).semantic
    assert np.flatnonzero(saved == 255).tolist() == [5, 17]
    np.testing.assert_array_equal(np.delete(saved, [5, 17]), prediction.labels)


def test_clouds_unlike_the_training(model: Path) -> None:
    pipeline = perception.load(model, device="cpu")
    with pytest.warns(UserWarning, match="no intensity"):
        assert len(pipeline(scan().points).labels) == 3000
    assert len(pipeline(PointCloud(np.zeros((0, 3)))).labels) == 0
    assert pipeline(np.zeros((1, 4))).labels.shape == (1,)
    far = scan().replace(points=scan().points * 1000 + 5e6)  # spread over 40 km, 5000 km away
    assert len(pipeline(far).labels) == 3000
    with pytest.raises(ValueError, match=r"more than int32 sites of 0\.2 m"):
        pipeline(scan().replace(points=scan().points * 1e8))


def test_models_that_do_not_load(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such model"):
        perception.load("no-such-model")
    with pytest.raises(ValueError, match="unknown; use auto, cpu or cuda"):
        perception.load(model, device="tpu")
    if not supports("cuda"):
        with pytest.raises(ValueError, match=r"cannot be used: .*; or use cpu"):
            perception.load(model, device="cuda")
    tensors, saved = checkpoint.load(model)
    net = MinkUNet(**saved["net"]["args"])
    for changes, message in [
        ({"task": "detection"}, "is a model for 'detection'"),
        ({"net": {"name": "os.system", "args": {}}}, "unknown network 'os.system'"),
        ({"net": {"name": "MinkUNet", "args": {**net.args, "depth": 3}}}, "depth=3"),
        ({"net": {"name": "MinkUNet", "args": {**net.args, "num_classes": 9}}}, "does not fit"),
        ({"encoder": {"voxel_size": -1, "features": ["one"]}}, "incomplete metadata"),
        ({"colors": COLORS[:2]}, "3 classes and 2 colours"),
        ({"classes": 7}, "incomplete metadata"),
        ({"classes": NAMES[:2], "colors": COLORS[:2]}, "3 scores for 2 classes"),
        ({"encoder": {"voxel_size": 0.2, "features": ["one"]}}, "takes 4 features, .* gives 1"),
    ]:
        checkpoint.save(tmp_path / "bad.safetensors", tensors, metadata(net, **changes))
        with pytest.raises(FormatError, match=message) as error:
            perception.load(tmp_path / "bad.safetensors")
        assert "\n" not in str(error.value)


def test_a_cloud_in_another_unit_is_told_apart(model: Path) -> None:
    pipeline = perception.load(model, device="cpu")
    cloud = scan()
    with pytest.warns(UserWarning, match="its unit is not the metre"):
        pipeline(cloud.replace(points=cloud.points * 1000))
