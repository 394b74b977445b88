"""The bundled configurations: complete, parsed without data, and true to their data sets."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import yaml

from perception.cli.fit import bundled_configs, find_config, run
from perception.datasets.encode import Encoder


def config(name: str) -> dict[str, Any]:
    with open(find_config(name)) as file:
        values: dict[str, Any] = yaml.safe_load(file)
    return values


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_every_data_set_has_one() -> None:
    expected = {"street", "semantickitti", "nuscenes-lidarseg", "scannet", "s3dis"}
    assert expected <= {name.rsplit("-", 1)[0] for name in bundled_configs()}


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_a_configuration_is_understood_without_data(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", "--config", name, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    given = config(name)
    assert shown["data"]["class_path"] == given["data"]["class_path"]
    assert shown["trainer"]["default_root_dir"] == f"runs/{name}"


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_network_and_data_fit_each_other(name: str) -> None:
    given = config(name)
    model, data = given["model"]["init_args"], given["data"]["init_args"]
    encoder = Encoder(data["voxel_size"], data["features"], data.get("time"))
    net = model["net"]["init_args"]
    assert net["in_channels"] == encoder.channels
    assert net["num_classes"] == len(model["class_names"])
    assert net.get("dim", 3) == encoder.dim
    reader = named(data["train"]["class_path"])
    if name.startswith("nuscenes"):  # whose classes depend on what is read
        from perception.datasets.readers.nuscenes_classes import LIDARSEG_CLASSES as classes
    else:
        classes = reader.classes
    assert tuple(model["class_names"]) == classes
