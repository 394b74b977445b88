"""The command line of training, in process, on a street of a few thousand points."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_street import QUICK, SmallStreet, small_scan

from perception.cli.fit import bundled_configs, find_config, run
from perception.datasets import street, street_scans
from perception.datasets.sample import Sample
from perception.io import FormatError, checkpoint
from perception.models import MinkUNet

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def small_street(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces the simulator; collects the seeds asked for."""
    seeds: list[int] = []

    def scan(seed: int, **options: Any) -> Sample:
        seeds.append(seed)
        return small_scan(seed, **options)

    monkeypatch.setattr(street_scans.street, "scan", scan)
    monkeypatch.setattr(street_scans, "_street", SmallStreet)
    return seeds


def fit(root: Path, *extra: str) -> int:
    where = f"--trainer.default_root_dir={root}"
    return run(["fit", "--config", "street-minkunet", where, *QUICK, *extra])


def test_a_run_leaves_config_logs_checkpoints_and_a_model(tmp_path: Path) -> None:
    assert fit(tmp_path, "--trainer.max_steps=4", "--model.optimizer.lr=0.01") == 0

    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["init_args"]["net"]["init_args"]["channels"] == [4, 4, 6, 6, 4]
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01
    assert config["trainer"]["max_steps"] == 4
    assert list(tmp_path.glob("tensorboard/version_0/events*"))
    header, *rows = (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()
    assert "val/miou" in header
    assert "val/iou/road" in header
    assert rows
    assert (tmp_path / "checkpoints/last.ckpt").is_file()
    assert (tmp_path / "checkpoints/best.ckpt").is_file()

    tensors, metadata = checkpoint.load(tmp_path / "model.safetensors")
    assert metadata["classes"] == list(street.CLASSES)
    assert metadata["colors"] == np.asarray(street.COLORS).tolist()
    features = ["intensity", "height", "range", "offset"]
    assert metadata["encoder"] == {"voxel_size": 0.2, "features": features}
    history = metadata["history"]
    assert history["steps"] == 4
    assert history["seed"] == 1
    assert history["command"].startswith("perception fit --config street-minkunet")
    assert 0 <= history["metrics"]["val/miou"] <= 1
    assert metadata["net"]["name"] == "MinkUNet"
    net = MinkUNet(**metadata["net"]["args"])
    net.load_state_dict(tensors)
    trained = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, trained[f"net.{name}"])


def test_resume_continues_where_the_last_checkpoint_ended(
    tmp_path: Path, small_street: list[int]
) -> None:
    assert fit(tmp_path, "--trainer.max_steps=2") == 0
    first = [s for s in small_street if s >= street_scans.TRAIN_SEED]
    small_street.clear()
    assert fit(tmp_path, "--trainer.max_steps=4", "--ckpt_path=last") == 0
    second = [s for s in small_street if s >= street_scans.TRAIN_SEED]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert first == list(range(first[0], first[0] + 4))
    assert second == list(range(first[0] + 4, first[0] + 8))  # streets go on, none comes twice


@pytest.mark.parametrize("net", ["MinkUNet", "SPVCNN"])  # without and with random numbers
def test_a_training_resumed_at_any_step_ends_with_the_same_weights(
    tmp_path: Path, net: str
) -> None:
    keep = [
        f"--model.net=perception.models.{net}",
        "--trainer.max_steps=6",  # epochs of four: within the first, at its end, in the second
        "--data.batch_size=1",
        "--data.num_workers=1",
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.filename={step}",
    ]
    steps = f"--trainer.callbacks.dirpath={tmp_path / 'steps'}"
    assert fit(tmp_path / "whole", *keep, steps) == 0
    whole, _ = checkpoint.load(tmp_path / "whole/model.safetensors")
    for step in (3, 4):
        root = tmp_path / f"from{step}"
        others = f"--trainer.callbacks.dirpath={root / 'steps'}"
        kept = f"--ckpt_path={tmp_path / 'steps' / f'step={step}.ckpt'}"
        assert fit(root, *keep, others, kept) == 0
        resumed, metadata = checkpoint.load(root / "model.safetensors")
        assert metadata["history"]["steps"] == 6
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), (step, name)


def test_validates_after_the_last_step_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    assert fit(tmp_path, "--trainer.max_steps=3") == 0  # an epoch has two
    header, *rows = (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()
    step, miou = header.split(",").index("step"), header.split(",").index("val/miou")
    assert [row.split(",")[step] for row in rows if row.split(",")[miou]] == ["1", "2"]
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert fit(tmp_path / name, "--trainer.max_steps=3") == 0
    one, two = (checkpoint.load(tmp_path / n / "model.safetensors")[0] for n in ("a", "b"))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_read_the_checkpoint(tmp_path: Path, verb: str) -> None:
    assert fit(tmp_path, "--trainer.max_steps=2") == 0
    where = f"--trainer.default_root_dir={tmp_path}"
    last = str(tmp_path / "checkpoints/last.ckpt")
    assert run([verb, "--config", "street-minkunet", where, *QUICK, f"--ckpt_path={last}"]) == 0
    if verb == "predict":
        files = sorted(tmp_path.glob("predictions/*.label"))
        assert [file.stem for file in files] == [
            f"{street_scans.TEST_SEED + i:08d}" for i in (0, 1)
        ]
        points = len(small_scan(street_scans.TEST_SEED).cloud)
        assert np.fromfile(files[0], np.uint32).shape == (points,)


def test_any_task_names_what_it_monitors_and_writes(tmp_path: Path) -> None:
    def verb(name: str, kind: str, *extra: str) -> Path:
        root = tmp_path / kind
        command = [name, f"--model=plain_task.{kind}", "--data=plain_task.Numbers"]
        quick = ["--trainer.max_epochs=3", f"--trainer.default_root_dir={root}", *QUICK[-3:]]
        assert run([*command, *quick, *extra]) == 0
        return root

    root = verb("fit", "Guess")
    best = torch.load(root / "checkpoints/best.ckpt", weights_only=True)
    writers = [c for key, c in best["callbacks"].items() if "ModelCheckpoint" in key]
    (by_error,) = [c for c in writers if c["monitor"] == "val/error"]
    assert by_error["best_model_score"] == by_error["current_score"]  # the error falls
    assert best["global_step"] == 6
    tensors, metadata = checkpoint.load(root / "model.safetensors")
    assert set(tensors) == {"weight", "bias"}
    assert metadata["task"] == "guess"
    assert "colors" not in metadata
    verb("predict", "Guess", f"--ckpt_path={root / 'checkpoints/last.ckpt'}")
    assert (root / "predictions/guess.txt").is_file()

    blind = verb("fit", "Blind") / "checkpoints"
    assert [path.name for path in blind.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_with_code_in_it_or_damaged_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    assert fit(tmp_path, "--trainer.max_steps=2") == 0
    bad = tmp_path / "bad.ckpt"
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    torch.save({**state, "evil": Evil()}, bad)
    with pytest.raises(ValueError, match="more than tensors"):
        fit(tmp_path, "--trainer.max_steps=4", f"--ckpt_path={bad}")
    assert not (tmp_path / "ran").exists()

    whole = (tmp_path / "checkpoints/last.ckpt").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    for file in (bad, tmp_path / "model.safetensors"):
        with pytest.raises(FormatError, match=rf"{file.name}: is no checkpoint .* truncated; give"):
            fit(tmp_path, "--trainer.max_steps=4", f"--ckpt_path={file}")


def test_usage_errors_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--config", "street-minkunet", "--data.nonsense=1"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert run(["fit", "--help"]) == 0


@pytest.mark.parametrize(("given", "meant"), [("1", 1), ("3", 3), ("0.5", 0.5), ("1.0", 1.0)])
def test_limits_are_counts_or_shares(
    given: str, meant: float, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = [f"--trainer.limit_{name}_batches={given}" for name in ("train", "val", "test")]
    assert run(["fit", "--config", "street-minkunet", *limits, "--print_config"]) == 0
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    for name in ("train", "val", "test"):
        value = trainer[f"limit_{name}_batches"]
        assert (value, type(value)) == (meant, type(meant))


def test_unknown_configuration_names_the_bundled_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.yaml.*street-minkunet"):
        run(["fit", "--config", "no.yaml"])


def test_a_file_comes_before_a_bundled_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("street-minkunet") == str(bundled_configs()["street-minkunet"])
    Path("street-minkunet").write_text("{}")
    assert find_config("street-minkunet") == "street-minkunet"


@pytest.mark.parametrize("name", sorted(n for n in bundled_configs() if n.startswith("street-")))
def test_every_configuration_of_the_street_trains(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where several views are kept
    options = [f"--trainer.default_root_dir={tmp_path}", *QUICK, "--trainer.fast_dev_run=1"]
    options.remove("--model.net.channels=[4,4,6,6,4]")
    coarse = ["--model.net.width=0.125", "--data.voxel_size=0.5"]
    assert run(["fit", "--config", name, *options, *coarse]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "--model.net.channels=[4,4,8,6,4]",
            r"of another network \(.* and \d+ more\); give the conf",
        ),
        (
            "--model.optimizer=torch.optim.SGD",
            "has no 'momentum' and is no SGD; set model.optimizer",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_in_one_line(
    tmp_path: Path, change: str, message: str
) -> None:
    assert fit(tmp_path, "--trainer.max_steps=1") == 0
    with pytest.raises(ValueError, match=message) as caught:
        fit(tmp_path, "--trainer.max_steps=2", change, "--ckpt_path=last")
    assert len(str(caught.value).splitlines()) == 1
