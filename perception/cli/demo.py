"""``perception demo``: the whole job in a few minutes on two cores, nothing downloaded.

Trains the small network of ``configs/street-minkunet.yaml`` on the simulated street, evaluates it,
segments a scan it has not seen (or yours), and writes labels and a picture.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.infer import describe
from perception.io import read, write

if TYPE_CHECKING:
    from perception.datasets.sample import Sample
    from perception.pipeline import Pipeline, Prediction

CONFIG = "street-minkunet"
UNSEEN = 500_000  # a street between those of the test and of the training set
FEWEST, MOST = 30, 1000  # training steps


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception demo",
        description="Train a small network on the simulated street, evaluate it, segment a scan, "
        "write labels and a picture.",
    )
    result.add_argument("--input", type=Path, help="segment this file instead of a simulated scan")
    result.add_argument("--output", type=Path, default=Path("demo"), help="folder for the results")
    result.add_argument(
        "--seconds", type=float, default=200.0, help="time to train (fewer steps, worse labels)"
    )
    return result


def run(argv: list[str]) -> int:
    """Do the job.

    Returns:
        0, or the exit code of the training.
    """
    options = parser().parse_args(argv)
    if not options.seconds > 0:
        raise ValueError(f"--seconds {options.seconds:g} is no time to train; take 60 or more")
    begin = time.perf_counter()
    if options.input is not None:
        read(options.input)  # a damaged file shall not cost minutes first

    heading(1, "How fast is this machine?", begin)
    step = seconds_per_step()
    steps = int(min(max(options.seconds / step, FEWEST), MOST))
    print(f"a training step takes about {step:.2f} s here: {steps} steps")

    heading(2, f"Train and evaluate on the simulated street ({CONFIG}.yaml)", begin)
    training = options.output / "training"
    code = train(training, steps, options.seconds)
    if code:
        return code

    heading(3, "Segment a scan", begin)
    from perception.pipeline import load

    pipeline = load(training / "model.safetensors")
    if options.input is None:
        simulated(pipeline, options.output)
    else:
        prediction = pipeline(options.input)
        save(prediction, options.output / options.input.stem)
        second_opinion(options.input, options.output)
    minutes = (time.perf_counter() - begin) / 60
    print(f"\ndone in {minutes:.1f} min; the results are in {options.output}")
    print(f"your own scans: perception infer SCAN --picture --model {training}/model.safetensors")
    return 0


def heading(number: int, text: str, begin: float) -> None:
    """Say what comes next, and when."""
    print(f"\n[{number}/3] {text}  ({time.perf_counter() - begin:.0f} s)", flush=True)


def seconds_per_step() -> float:
    """Wall time of one training step on this machine: scans, voxels, forward, backward."""
    import torch
    import yaml  # type: ignore[import-untyped]

    from perception import SparseTensor
    from perception.cli.fit import find_config
    from perception.datasets.encode import Encoder
    from perception.datasets.street import scan
    from perception.models import MinkUNet
    from perception.tasks.losses import lovasz_softmax

    config = yaml.safe_load(Path(find_config(CONFIG)).read_text())
    data = config["data"]["init_args"]
    encoder = Encoder(data["voxel_size"], data["features"])
    scan(UNSEEN)  # compiles
    start = time.perf_counter()
    encoded = encoder(scan(UNSEEN).cloud)
    made = time.perf_counter() - start
    net = MinkUNet(**config["model"]["init_args"]["net"]["init_args"])
    learned = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        scores = net(SparseTensor(encoded.features, encoded.coords)).features
        labels = torch.arange(len(scores)) % scores.shape[1]
        loss = torch.nn.functional.cross_entropy(scores, labels) + lovasz_softmax(
            scores.softmax(1), labels
        )
        loss.backward()
        learned = min(learned, time.perf_counter() - start)
    # The workers that make the scans share the cores with the training, and a quarter goes to the
    # optimizer, augmentation and logs.
    shared = 1.5 * made / max(os.cpu_count() or 1, 1)
    return 1.25 * data["batch_size"] * (learned + shared)


def train(folder: Path, steps: int, seconds: float) -> int:
    """Train for `steps`, or until the time is well past; evaluates at the end."""
    from perception.cli.fit import run as fit

    limit = int(1.3 * seconds) + 1
    return fit(
        [
            "fit",
            f"--config={CONFIG}",
            "--data.val.streets=8",
            f"--trainer.max_steps={steps}",
            f"--trainer.max_time=00:{limit // 3600:02d}:{limit // 60 % 60:02d}:{limit % 60:02d}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_model_summary=false",
        ]
    )


def simulated(pipeline: Pipeline, output: Path) -> None:
    """Segment a simulated scan as a file of its own, beside what is true."""
    from perception.datasets.street import scan
    from perception.viz import picture, save_picture

    sample: Sample = scan(UNSEEN + 1)
    write(output / "street.bin", sample.cloud)
    prediction = pipeline(output / "street.bin")
    save(prediction, output / "street")
    if sample.labels is not None:
        known = sample.labels != 255
        right = float((prediction.labels == sample.labels)[known].mean())
        print(f"  {100 * right:.1f} % of its points are labelled rightly")
        drawn = picture(
            prediction.cloud,
            labels=sample.labels,
            names=pipeline.names,
            colors=pipeline.colors,
            title="street.bin   true labels",
        )
        save_picture(output / "street-truth.png", drawn)


def second_opinion(path: Path, output: Path) -> None:
    """Segment the user's file with the bundled network too, which was trained for longer."""
    from perception.pipeline import bundled_models, load

    for name in bundled_models():
        save(load(name)(path), output / f"{path.stem}-{name}")


def save(prediction: Prediction, stem: Path) -> None:
    """Write labels, cloud, report and picture, and say so."""
    start = time.perf_counter()
    files = prediction.save(stem)
    files += prediction.save(stem.with_name(stem.name + ".png"))
    prediction.seconds["write"] = time.perf_counter() - start
    report = {
        "path": prediction.source,
        **prediction.summary(),
        "files": [str(file) for file in files],
    }
    print(describe(report, 0.0), flush=True)
