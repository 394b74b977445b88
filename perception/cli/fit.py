"""``perception fit | validate | test | predict``: training from a YAML file.

One experiment is one file, `configs/<name>.yaml`; every value in it can be overridden on the
command line. One run lives in one folder, `trainer.default_root_dir`:

- `config.yaml`: everything that was run, overrides included;
- `checkpoints/last.ckpt`, `checkpoints/best.ckpt`: to resume and to evaluate; the first is written
  every `checkpoint_every` steps and at validations, the second when what the task monitors improves;
- `csv/`, `tensorboard/`: the logs;
- `model.safetensors`: the trained network for `perception infer`;
- `predictions/`: what `predict` gives, one `.label` file a scan.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.plugins.io import CheckpointIO

from perception._native import cuda_problem, supports
from perception.io import FormatError
from perception.tasks import ModelExport, PredictionWriter, WholeCheckpoints

VERBS = ("fit", "validate", "test", "predict")


def run(argv: list[str]) -> int:
    """Runs one verb.

    Args:
        argv: the verb, then its options: ``["fit", "--config", "street-minkunet"]``.

    Returns:
        0, or 2 where the command line cannot be understood (the reason is on stderr).

    Raises:
        FileNotFoundError: a configuration that is neither a file nor bundled; no such checkpoint.
        ValueError: a checkpoint that is none, with code in it, or of another network or optimizer.
    """
    # Neither concerns who trains here: advice to install another logger, and a call of a torch
    # function that torch is about to rename.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    try:
        FitCLI(argv)
    except pickle.UnpicklingError as error:
        cause = str(error).splitlines()[0]
        raise ValueError(
            f"the file of --ckpt_path holds more than tensors and plain values ({cause}); it is not "
            "opened, since that could run code: give a checkpoint that perception fit wrote"
        ) from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        if "loading state_dict" not in lines[0]:
            raise
        more = f" and {len(lines) - 2} more" if len(lines) > 2 else ""
        raise ValueError(
            f"the file of --ckpt_path is of another network ({lines[-1].rstrip('.')}{more}); give the "
            "configuration that it was trained with, config.yaml in the folder of its run, or leave "
            "--ckpt_path out"
        ) from None
    except SystemExit as stop:  # the parser's way to end on --help (0) and on wrong usage (2)
        return stop.code if isinstance(stop.code, int) else 2
    return 0


def bundled_configs() -> dict[str, Path]:
    """The configurations inside the package, by name."""
    import perception

    folders = [Path(folder) / "configs" for folder in perception.__path__]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> str:
    """The path of a configuration: a file, or else the name of a bundled one."""
    if Path(name).is_file():
        return name
    bundled = bundled_configs()
    stem = Path(name).stem if name.endswith(".yaml") else name
    if stem in bundled and Path(name).name in (stem, f"{stem}.yaml"):
        return str(bundled[stem])
    raise FileNotFoundError(
        f"{name}: no such configuration file; give a path or one of {', '.join(bundled)}"
    )


class FitCLI(LightningCLI):
    """The Lightning command line for any task and any data module of this package."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        _read_counts_as_counts()
        super().__init__(
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=_resolve_configs(argv),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is set beside model, data and trainer."""
        parser.add_argument(
            "--checkpoint_every",
            type=PositiveInt,
            default=1000,
            help="Steps between two writings of last.ckpt, which is written at validations too.",
        )
        # Else several processes train something else than one with their batch. No effect on one.
        parser.set_defaults({"trainer.sync_batchnorm": True})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `args` alone; the process's own command line plays no part."""
        self.config = parser.parse_args(args)
        verb = self.config[self.config.subcommand]
        # A checkpoint may come from anywhere: read tensors from it, never run what it pickles.
        verb.weights_only = True
        path = Path(verb.get("ckpt_path") or "")
        if path.is_file() and not zipfile.is_zipfile(path):
            raise FormatError(
                path,
                "is no checkpoint of a training, or is truncated",
                "give last.ckpt or best.ckpt of a run; model.safetensors is for perception infer",
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the run's logs, checkpoints and model file in its folder."""
        settings = self._get(self.config_init, "trainer")
        root = Path(settings.get("default_root_dir") or "runs/default")
        fitting = self.subcommand == "fit"
        quick = bool(settings.get("fast_dev_run"))

        if (
            settings.get("accelerator") == "auto"
        ):  # Lightning would take a GPU that the engine cannot use
            kwargs["accelerator"] = "cuda" if supports("cuda") else "cpu"
            if torch.cuda.is_available() and not supports("cuda"):
                warnings.warn(f"runs on the CPU: {cuda_problem()}", stacklevel=2)
        if settings.get("logger") is None:
            loggers: list[Logger] = [CSVLogger(root, name="csv")]
            if fitting:
                loggers.append(TensorBoardLogger(root, name="tensorboard"))
            kwargs["logger"] = loggers
        callbacks = settings.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        if not any(isinstance(c, ModelCheckpoint) for c in callbacks):
            callbacks += self._checkpoints(root / "checkpoints")
        plugins = settings.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
        if not any(isinstance(p, CheckpointIO) for p in plugins):
            plugins.append(WholeCheckpoints())
        if fitting and settings.get("logger") is not False and not quick:
            callbacks.append(LearningRateMonitor("step"))
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(root / "predictions"))
        if fitting:
            callbacks.append(_ValidateLast())
        if fitting and not any(isinstance(c, ModelExport) for c in callbacks):
            command = shlex.join(["perception", *self._argv])
            seed = self._get(self.config, "seed_everything")
            callbacks.append(ModelExport(command=command, seed=seed))
        trainer: Trainer = super().instantiate_trainer(
            **kwargs, callbacks=callbacks, plugins=plugins, default_root_dir=root
        )
        return trainer

    def _checkpoints(self, folder: Path) -> list[ModelCheckpoint]:
        """Writers of the last checkpoint and, if the task monitors anything, of the best one."""
        # Apart from each other, because `save_last` writes only when the best one is written. The last
        # one has two writers of one file, because a writer goes by steps or by validations.
        common: dict[str, Any] = {
            "dirpath": folder,
            "enable_version_counter": False,
            "save_on_train_epoch_end": False,
        }
        every = self._get(self.config, "checkpoint_every")
        writers = [
            ModelCheckpoint(filename="last", **common),
            ModelCheckpoint(filename="last", every_n_train_steps=every, **common),
        ]
        monitor: tuple[str, str] | None = getattr(self.model, "monitor", None)
        if monitor is not None:
            name, mode = monitor
            writers.append(ModelCheckpoint(filename="best", monitor=name, mode=mode, **common))
        return writers


def _read_counts_as_counts() -> None:
    """Has the parser take `--trainer.limit_val_batches=3` as three batches.

    `typing` keeps one order of a union for the whole process, that of whoever wrote it first. With float
    first the parser makes 3.0 of it, which the trainer refuses, and of 1 all batches.
    """
    annotations = inspect.unwrap(Trainer.__init__).__annotations__
    for name in ("train", "val", "test", "predict"):
        annotations[f"limit_{name}_batches"] = int | float | None


class _ValidateLast(Callback):
    """Validates after the last step, wherever in an epoch `max_steps` ends the training.

    What is exported and kept as last checkpoint is then what the last line of the log measures.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # the loop validates before it stops


class _SaveConfig(SaveConfigCallback):
    """Keeps the whole configuration of a training beside its checkpoints."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        path = Path(trainer.default_root_dir) / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jsonargparse warns of each callable it serialises
            self.parser.save(
                self.config, str(path), skip_none=False, overwrite=True, multifile=False
            )


def _resolve_configs(argv: list[str]) -> list[str]:
    resolved = list(argv)
    for index, word in enumerate(argv):
        if word in ("--config", "-c") and index + 1 < len(argv):
            resolved[index + 1] = find_config(argv[index + 1])
        elif word.startswith("--config="):
            resolved[index] = f"--config={find_config(word.removeprefix('--config='))}"
    return resolved
