"""The bundled configurations: complete, parsed without data, true to their data sets, and alike.

Every file is complete and readable alone, so most of it stands in many files; here is what holds them
together: of one data set they differ in the network, of one network in the data.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import pytest
import torch
import yaml
from conftest import surface

from perception.cli.fit import bundled_configs, find_config, run
from perception.datasets.encode import Encoder
from perception.sparse import SparseTensor

DATA = ("street", "semantickitti", "nuscenes-lidarseg", "scannet", "s3dis")
NETS = ("minkunet14", "minkunet18", "minkunet34", "minkunet42", "spvcnn")
MATRIX = [f"{data}-{net}" for data in DATA for net in NETS]
TIME = {
    "street": ("minkunet14-4d", "minkunet14-4d-cube", "minkunet14-4d-crf"),
    "semantickitti": ("minkunet14-4d", "minkunet14-4d-crf"),
}
IN_TIME = [f"{data}-{net}" for data, nets in TIME.items() for net in nets]
NAMES = sorted(bundled_configs())


@cache
def config(name: str) -> dict[str, Any]:
    with open(find_config(name)) as file:
        values: dict[str, Any] = yaml.safe_load(file)
    return values


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A copy without some entries, each a path with dots."""
    kept = dict(values)
    for key in keys:
        head, _, rest = key.partition(".")
        if rest and head in kept:
            kept[head] = without(kept[head], rest)
        else:
            kept.pop(head, None)
    return kept


def test_every_data_set_has_every_network() -> None:
    assert {*MATRIX, *IN_TIME, "street-minkunet"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_understood_without_data(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", "--config", name, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    given = config(name)
    assert shown["data"]["class_path"] == given["data"]["class_path"]
    assert shown["trainer"]["default_root_dir"] == f"runs/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_network_and_data_fit_each_other(name: str) -> None:
    given = config(name)
    model, data = given["model"]["init_args"], given["data"]["init_args"]
    encoder = Encoder(data["voxel_size"], data["features"], data.get("time"))
    net = model["net"]["init_args"]
    assert net["in_channels"] == encoder.channels
    assert net["num_classes"] == len(model["class_names"])
    assert net.get("dim", 3) == encoder.dim
    for channel in net.get("color", []):
        assert data["features"][channel] == "intensity"  # one channel each up to there
    reader = named(data["train"]["class_path"])
    if name.startswith("nuscenes"):  # whose classes depend on what is read
        from perception.datasets.readers.nuscenes_classes import LIDARSEG_CLASSES as classes
    else:
        classes = reader.classes
    assert tuple(model["class_names"]) == classes


@pytest.mark.parametrize("name", NAMES)
def test_the_network_scores_every_site(name: str) -> None:
    net = config(name)["model"]["init_args"]["net"]
    args = {"width": 0.25, **net["init_args"]}
    if "channels" in args:
        args.pop("width")
    network = named(net["class_path"])(**args)
    coords = surface(60, args.get("dim", 3), batch=2)
    x = SparseTensor(torch.rand(len(coords), args["in_channels"]), coords, batch_size=2)
    scores = network(x).features
    assert scores.shape == (len(coords), args["num_classes"])
    assert scores.isfinite().all()


@pytest.mark.parametrize("data", DATA)
def test_of_one_data_set_the_network_alone_differs(data: str) -> None:
    root = "trainer.default_root_dir"
    first, *others = (without(config(f"{data}-{net}"), "model.init_args.net", root) for net in NETS)
    for other in others:
        assert other == first
    # Over space and time, what a sample is differs too.
    sample = [f"data.init_args.{key}" for key in ("time", "frames", "frame_step", "voxel_size")]
    drives = [f"data.init_args.{split}" for split in ("train", "val", "test")]
    aside = [*sample, "data.init_args.batch_size", *(drives if data == "street" else [])]
    samples = []
    for net in TIME.get(data, ()):
        given = config(f"{data}-{net}")
        assert without(given, "model.init_args.net", root, *aside) == without(first, *aside)
        samples.append(given["data"])
    assert all(one == samples[0] for one in samples)


@pytest.mark.parametrize("net", [*NETS, *TIME["semantickitti"]])
def test_of_one_network_the_channels_and_classes_alone_differ(net: str) -> None:
    first, *others = (
        without(
            config(f"{data}-{net}")["model"]["init_args"]["net"],
            "init_args.in_channels",
            "init_args.num_classes",
            "init_args.sigma_time",  # follows the frames of a sample
        )
        for data in DATA
        if f"{data}-{net}" in NAMES
    )
    assert len(others) == (len(DATA) if net in NETS else 2) - 1
    for other in others:
        assert other == first


@pytest.mark.parametrize("name", IN_TIME)
def test_the_hybrid_kernel_is_a_cube_in_space_and_a_cross_in_time(name: str) -> None:
    args = config(name)["model"]["init_args"]["net"]["init_args"]
    assert args["dim"] == 4
    assert args["kernel"] == ("cube" if "cube" in name else "hybrid")
    assert args["stride"] == [2, 2, 2, 1]


def test_the_mean_iou_is_that_of_each_benchmark() -> None:
    means = {name: config(name)["model"]["init_args"].get("miou", "present") for name in NAMES}
    for name, mean in means.items():
        assert mean == ("all" if name.startswith("semantickitti") else "present"), name


@pytest.mark.parametrize("name", [n for n in IN_TIME if n.endswith("crf")])
def test_the_newest_frame_shares_no_cell_of_the_field_with_the_oldest(name: str) -> None:
    sigma = config(name)["model"]["init_args"]["net"]["init_args"]["sigma_time"]
    newest = config(name)["data"]["init_args"]["frames"] - 1
    assert newest // sigma > 0


@pytest.mark.parametrize("name", [n for n in IN_TIME if n.startswith("street")])
def test_bad_sensors_are_as_bad_in_all_splits(name: str) -> None:
    data = config(name)["data"]["init_args"]
    settings = [
        (data[s]["init_args"]["range_noise"], data[s]["init_args"]["dropout"])
        for s in ("train", "val", "test")
    ]
    assert settings == [(0.05, 0.5)] * 3
    assert all(data[s]["init_args"]["frames"] >= data["frames"] for s in ("train", "val", "test"))
