"""The data module for posed views: choice, cameras, colours, sizes, lenses, order, YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from PIL import Image as PILImage
from pytorch_lightning import LightningDataModule

from perception.datasets.posed import PosedImages, read_posed
from perception.datasets.rooms import Object
from perception.datasets.sample import Image
from perception.datasets.scenes import ObjectScenes, PosedScenes, RoomScenes, Scenes
from perception.datasets.views import Views, ViewsBatch, ViewsData, choose_views
from perception.geometry import Camera
from perception.io import PointCloud


class Memory:
    """Scenes in memory, as anybody's own."""

    def __init__(self, *scenes: PosedImages) -> None:
        self.scenes = scenes
        self.names = [f"scene{i}" for i in range(len(scenes))]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> PosedImages:
        return self.scenes[index]


def collection(*images: Image, **options: Any) -> PosedImages:
    return PosedImages(images, {"train": (), "val": (), "test": ()}, **options)


def camera(width: int = 12, height: int = 8) -> Camera:
    matrix = np.array([[10.0, 0, width / 2], [0, 10.0, height / 2], [0, 0, 1]])
    return Camera(matrix, width, height, np.eye(4))


def plain(count: int = 4, channels: int = 3) -> PosedImages:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (8, 12, channels), dtype=np.uint8) for _ in range(count)]
    return collection(*(Image(camera(), values) for values in pixels))


def module(train: Scenes, val: Scenes | None = None, **options: Any) -> ViewsData:
    return ViewsData(train, val or train, **{"num_workers": 0, **options})


def tensors(batch: ViewsBatch) -> list[torch.Tensor]:
    sides = (batch.inputs, batch.targets)
    values = [value for side in sides for value in vars(side).values() if value is not None]
    return [*values, *(p for p in batch.points if p is not None)]


def same(one: ViewsBatch, two: ViewsBatch) -> bool:
    pairs = zip(tensors(one), tensors(two), strict=True)
    return one.names == two.names and all(torch.equal(a, b) for a, b in pairs)


def first(views: Views) -> Views:
    """The views of the first scene of a batch."""
    return Views(**{k: None if v is None else v[0] for k, v in vars(views).items()})


# ---- which views


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 5),
    st.integers(1, 5),
    st.none() | st.integers(2, 45),
    st.none() | st.integers(0, 9),
)
def test_no_view_is_chosen_twice(
    count: int, inputs: int, targets: int, span: int | None, seed: int | None
) -> None:
    def chosen() -> tuple[list[int], list[int]]:
        rng = None if seed is None else np.random.default_rng(seed)
        seen, asked = choose_views(count, inputs, targets, span=span, rng=rng)
        return seen.tolist(), asked.tolist()

    length = count if span is None else min(span, count)
    if length < inputs + targets:
        with pytest.raises(ValueError, match="take fewer"):
            chosen()
        return
    seen, asked = chosen()
    assert (seen, asked) == chosen()
    assert (len(seen), len(asked)) == (inputs, targets)
    together = sorted(seen + asked)
    assert len(set(together)) == inputs + targets
    assert 0 <= together[0] <= together[-1] < count
    assert seen == sorted(seen)
    assert asked == sorted(asked)
    if span is not None and inputs > 1:
        assert seen[-1] - seen[0] == length - 1
        assert seen[0] < asked[0] < asked[-1] + 1 <= seen[-1]


# ---- cameras


def lego(shared_data: Path, **options: Any) -> PosedScenes:
    return PosedScenes([shared_data / "lego"], images="train_100", **options)


def test_cameras_of_the_real_scene_agree_with_its_files(shared_data: Path) -> None:
    source = read_posed(shared_data / "lego", images="train_100")
    data = module(lego(shared_data), inputs=3, targets=2, size=(50, 40))
    (batch,) = data.train_dataloader()
    assert batch.inputs.images.shape == (1, 3, 3, 40, 50)
    assert batch.targets.images.shape == (1, 2, 3, 40, 50)
    for views in (first(batch.inputs), first(batch.targets)):
        for v, number in enumerate(views.numbers.tolist()):
            calibrated = source[number].camera
            # The ray of any pixel, by hand from the batch's matrices and by the camera.
            pixel = np.array([[12.3, 30.9]])
            matrix, pose = (
                m[v].double().numpy() for m in (views.intrinsics, views.world_from_camera)
            )
            ray = pose[:3, :3] @ np.linalg.inv(matrix) @ [*pixel[0], 1.0]
            origin, (expected,) = calibrated.rays(pixel * (100 / 50, 100 / 40))
            np.testing.assert_allclose(ray / np.linalg.norm(ray), expected, atol=1e-6)
            np.testing.assert_allclose(pose[:3, 3], origin, atol=1e-6)
            # All cameras look at the origin, which falls into the middle of the image.
            local = np.linalg.inv(pose) @ [0, 0, 0, 1.0]
            u, w, depth = matrix @ local[:3]
            assert depth > 3
            assert 10 < u / depth < 40
            assert 8 < w / depth < 32
    assert batch.inputs.depth is None
    assert batch.inputs.mask.all()
    assert batch.names == (str(shared_data / "lego"),)


def test_colours_of_the_real_scene(shared_data: Path) -> None:
    black, white = (
        next(iter(module(lego(shared_data), background=(c, c, c)).train_dataloader()))
        for c in (0.0, 1.0)
    )
    source = read_posed(shared_data / "lego", images="train_100")
    for v, number in enumerate(black.inputs.numbers[0].tolist()):
        pixels = torch.from_numpy(source[number].pixels().astype(np.float32) / 255)
        alpha = pixels[..., 3]
        assert pixels.shape[-1] == 4
        assert ((alpha > 0) & (alpha < 1)).any()
        torch.testing.assert_close(
            black.inputs.images[0, v], (pixels[..., :3] * alpha[..., None]).movedim(-1, 0)
        )
        over = white.inputs.images[0, v] - black.inputs.images[0, v]
        torch.testing.assert_close(over, (1 - alpha).expand(3, -1, -1))


def test_points_of_a_rendered_scene_lie_where_every_view_sees_them() -> None:
    """Depth, intrinsics and poses of inputs and targets fit each other, also scaled."""
    data = module(ObjectScenes(2, views=12, size=64), inputs=2, targets=2, size=(48, 40))
    (batch, *_) = data.train_dataloader()
    assert batch.targets.depth is not None
    scene = Object(int(batch.names[0].removeprefix("object-"))).scene
    for views in (first(batch.inputs), first(batch.targets)):
        assert views.depth is not None
        assert views.depth.shape == (2, 40, 48)
        for v in range(2):
            depth = views.depth[v].double().numpy()
            matrix, pose = (
                m[v].double().numpy() for m in (views.intrinsics, views.world_from_camera)
            )
            row, column = np.nonzero(depth)
            pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
            local = np.linalg.inv(matrix) @ pixels * depth[row, column]
            world = (pose[:3, :3] @ local).T + pose[:3, 3]
            assert np.abs(world).max() < 0.75  # the object is 1 m long, around the origin
            assert np.median(np.abs(scene.sdf(world))) < 0.03  # pixels of 3 cm
            assert len(row) / depth.size > 0.05
            near, far = float(views.near[v]), float(views.far[v])
            assert near - 1e-5 <= depth[row, column].min() <= depth.max() <= far + 1e-5


def test_a_room_is_seen_along_its_walk() -> None:
    data = module(RoomScenes(1, views=20, width=32, height=24), inputs=2, targets=1, span=6)
    (batch,) = data.train_dataloader()
    one, two = batch.inputs.numbers[0].tolist()
    assert two - one == 5
    assert one < int(batch.targets.numbers[0, 0]) < two
    assert batch.inputs.images.shape == (1, 2, 3, 24, 32)
    assert 0 < batch.inputs.images.std() < 0.5


# ---- pixels


def test_scaling_keeps_colours_in_place() -> None:
    """A horizontal ramp stays one: the centre of a pixel has the value of its place."""
    ramp = np.tile(np.arange(120, dtype=np.uint8)[None, :, None], (80, 1, 3))
    image = Image(camera(120, 80), ramp, np.full((80, 120), 3.0, np.float32))
    for size in ((60, 40), (30, 80), (240, 40)):
        data = module(Memory(collection(image, image)), inputs=1, targets=1, size=size)
        (batch,) = data.train_dataloader()
        width, height = size
        assert batch.inputs.images.shape == (1, 1, 3, height, width)
        expected = ((np.arange(width) + 0.5) * 120 / width - 0.5) / 255
        middle = slice(width // 10, -width // 10)
        np.testing.assert_allclose(
            batch.inputs.images[0, 0, 0, height // 2, middle], expected[middle], atol=2e-4
        )
        assert batch.inputs.depth is not None
        assert (batch.inputs.depth == 3).all()
        np.testing.assert_allclose(
            batch.inputs.intrinsics[0, 0],
            [[10 * width / 120, 0, width / 2], [0, 10 * height / 80, height / 2], [0, 0, 1]],
        )


def test_lenses_are_taken_out_and_masks_kept(tmp_path: Path) -> None:
    matrix = np.array([[80.0, 0, 60], [0, 80, 40], [0, 0, 1]])
    lens = Camera(matrix, 120, 80, np.eye(4), np.array([-0.3, 0.05, 0.001, -0.002]))
    # Paint where each pixel looks; without the lens a pixel looks along its pinhole ray.
    _, rays = lens.rays()
    plane = (rays[:, :2] / rays[:, 2:]).reshape(80, 120, 2)
    paint = np.zeros((80, 120, 3), np.uint8)
    paint[..., :2] = np.clip(plane * 60 + 128, 0, 255).round()
    black = np.full((80, 120), 255, np.uint8)
    black[:, :20] = 0
    PILImage.fromarray(black).save(tmp_path / "mask.png")
    scene = collection(Image(lens, paint), Image(lens, paint), masks=(tmp_path / "mask.png",) * 2)
    (batch,) = module(Memory(scene), inputs=1, targets=1).train_dataloader()
    views = first(batch.inputs)
    np.testing.assert_array_equal(views.intrinsics[0], matrix)
    v, u = np.mgrid[0:80, 0:120] + 0.5
    straight = np.stack([(u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]], -1)
    seen = views.images[0, :2].movedim(0, -1).numpy() * 255
    mask = views.mask[0].numpy()
    inside = np.abs(seen - (straight * 60 + 128)).max(axis=2)
    assert np.quantile(inside[mask], 0.99) < 1.0
    assert 0.6 < mask.mean() < 0.95
    assert not mask[40, :15].any()


def test_points_of_the_scene() -> None:
    cloud = PointCloud(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    scene = collection(*plain().images, points=cloud, near_far=np.tile([1.0, 7.0], (4, 1)))
    data = module(Memory(scene, plain()), points=20, batch_size=2, inputs=1, targets=1)
    (batch,) = data.train_dataloader()
    for name, points, near, far in zip(
        batch.names, batch.points, batch.inputs.near, batch.inputs.far, strict=True
    ):
        if name == "scene0":
            assert points is not None
            assert points.shape == (20, 3)
            assert {tuple(p) for p in points.tolist()} <= {tuple(p) for p in cloud.points.tolist()}
            assert (near.item(), far.item()) == (1.0, 7.0)
        else:
            assert points is None
            assert (near.item(), round(far.item(), 4)) == (pytest.approx(0.1), 100.0)
    assert batch.to("meta").inputs.images.device.type == "meta"


# ---- order


def test_groups_depend_on_epoch_and_number_alone() -> None:
    scenes = Memory(plain(9), plain(7), plain(8))
    options: dict[str, Any] = {"groups": 2, "batch_size": 2, "inputs": 2, "targets": 1}
    loaders = [module(scenes, num_workers=n, **options).train_dataloader() for n in (0, 2)]
    epochs = []
    for epoch in range(2):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        alone, beside = (list(loader) for loader in loaders)
        assert len(alone) == 3
        assert all(same(a, b) for a, b in zip(alone, beside, strict=True))
        names = sorted(name for batch in alone for name in batch.names)
        assert names == ["scene0", "scene0", "scene1", "scene1", "scene2", "scene2"]
        epochs.append(torch.cat([batch.inputs.numbers for batch in alone]).tolist())
    assert epochs[0] != epochs[1]

    loader = module(scenes, **options).train_dataloader()
    loader.sampler.set_epoch(1)
    expected = list(loader)
    next(iter(loader))
    resumed = module(scenes, **options).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert all(same(a, b) for a, b in zip(list(resumed), expected[1:], strict=True))


def test_evaluation_takes_the_same_views_every_time() -> None:
    scenes = Memory(plain(9), plain(7))
    one, two = (list(module(scenes, seed=s, groups=3).val_dataloader()) for s in (0, 5))
    assert [batch.names for batch in one] == [("scene0",), ("scene1",)]
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    assert one[0].inputs.numbers.tolist() == [[0, 8]]


def test_endless_scenes_count_on() -> None:
    scenes = ObjectScenes(2, views=4, size=8, endless=True)
    loader = module(scenes, inputs=1, targets=1, batch_size=2).train_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen += [batch.inputs.images for batch in loader]
    assert not torch.equal(seen[0], seen[1])
    with pytest.raises(IndexError):
        ObjectScenes(2)[2]


# ---- YAML and mistakes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_argument_can_stand_in_yaml(shared_data: Path) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    text = f"""
class_path: perception.datasets.views.ViewsData
init_args:
  train:
    class_path: perception.datasets.scenes.PosedScenes
    init_args: {{paths: [{shared_data / "lego"}], images: train_100, split: train}}
  val:
    class_path: perception.datasets.scenes.RoomScenes
    init_args: {{num: 1, views: 6, width: 16, height: 12}}
  test:
    class_path: perception.datasets.scenes.ObjectScenes
    init_args: {{num: 1, views: 6, size: 16}}
  inputs: 3
  targets: 2
  span: 10
  groups: 4
  size: [32, 24]
  background: [0, 0, 0.5]
  near_far: [2, 6]
  depth: false
  points: 100
  batch_size: 2
  num_workers: 0
  seed: 3
"""
    parsed = parser.instantiate_classes(parser.parse_object({"data": yaml.safe_load(text)}))
    data = parsed.data
    assert isinstance(data, ViewsData)
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    assert batches[0].inputs.images.shape == (2, 3, 3, 24, 32)
    assert (batches[0].inputs.near[0, 0].item(), batches[0].inputs.far[0, 0].item()) == (2, 6)
    corner = batches[0].inputs.images[0, 0, :, 0, 0]
    torch.testing.assert_close(corner, torch.tensor([0, 0, 0.5]))


def test_mistakes_say_what_to_do() -> None:
    scenes = Memory(plain(3))
    with pytest.raises(ValueError, match="scene0: 2 inputs and 2 targets of 3 images; take fewer"):
        list(module(scenes).train_dataloader())
    wide = collection(*(Image(camera(16, 8), np.zeros((8, 16, 3), np.uint8)) for _ in range(4)))
    with pytest.raises(ValueError, match=r"give size: \[width, height\]"):
        list(module(Memory(plain(), wide), batch_size=2).train_dataloader())
    for wrong, what in (
        ({"inputs": 0}, "one or more"),
        ({"size": (0, 4)}, "positive width and height"),
        ({"background": (0, 0, 255)}, "red, green, blue"),
        ({"near_far": (2.0, 1.0)}, "ascend"),
    ):
        with pytest.raises(ValueError, match=what):
            module(scenes, **wrong)
    with pytest.raises(ValueError, match="at least one folder"):
        PosedScenes([])
