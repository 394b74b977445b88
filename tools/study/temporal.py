"""Does time help? 3D and 4D networks on noisy scans of the simulated street (docs/4d.md).

    python -m perception.tools.study.temporal all                 # on a machine with GPUs
    python -m perception.tools.study.temporal all --quick         # a minute on two cores: a trial

Stages, each of which goes on where it was cut off:

    generate   record the windows of training and validation, in as many processes as there are cores
    train      train and evaluate every network with every seed, spread over the devices
    evaluate   evaluate trained networks again
    time       milliseconds a frame of every row of the table
    table      print the tables and draw the plot from what was found
    all        everything, in this order
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from perception.io import FormatError
from perception.tools.study.methods import METHODS, WIDTHS, network
from perception.tools.study.report import collect, plot, tables
from perception.tools.study.scoring import milliseconds, score
from perception.tools.study.training import Plan, train, weights_path
from perception.tools.study.windows import Split, Windows, files, load, record

__all__ = ["main"]

STAGES = ("generate", "train", "evaluate", "time", "table", "all")
QUICK: dict[str, Any] = {
    "windows": 4,
    "val": 2,
    "steps": 6,
    "batch": 1,
    "seeds": [0],
    "widths": (8, 8, 16, 16, 8),
    "repeats": 2,
}
FULL: dict[str, Any] = {
    "windows": 3000,
    "val": 200,
    "steps": 4500,
    "batch": 3,
    "seeds": [0, 1, 2],
    "widths": WIDTHS,
    "repeats": 40,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a stage; returns 0 when it is done, 1 when it has to be run again or cannot be run."""
    try:
        return _run(_parse(list(sys.argv[1:] if argv is None else argv)))
    except (FileNotFoundError, FormatError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    options.deadline = math.inf if options.minutes is None else begin + 60.0 * options.minutes
    stages = STAGES[:-1] if options.stage == "all" else (options.stage,)
    for stage in stages:
        if options.stage == "all" and stage == "evaluate":
            continue  # the trainings did
        status = {
            "generate": _generate,
            "train": _networks,
            "evaluate": _networks,
            "time": _time,
            "table": _table,
        }[stage](options, stage)
        print(f"{stage}: {time.monotonic() - begin:.0f} s", flush=True)
        if status:
            return status
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m perception.tools.study.temporal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--folder", type=Path, default=Path("runs/temporal"), help="of everything that is written")
    add("--quick", action="store_true", help="tiny networks and data: shows that all stages run")
    add("--frames", type=int, default=5, help="scans in a window")
    add("--windows", type=int, help=f"of the training ({FULL['windows']})")
    add("--val", type=int, help=f"windows of the validation ({FULL['val']})")
    add("--steps", type=int, help=f"of a training ({FULL['steps']})")
    add("--batch", type=int, help=f"windows a step ({FULL['batch']})")
    add("--rate", type=float, default=Plan.rate, help="peak of the learning rate")
    add("--widths", nargs="+", type=int, help="stem, S encoder and S decoder stages")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--seeds", nargs="+", type=int, help="0 1 2")
    add("--devices", nargs="+", help="such as cuda:0 cuda:1; by default all GPUs, else the CPU")
    add("--minutes", type=float, help="stop and keep checkpoints after so many")
    add("--workers", type=int, help="processes that record (one a core)")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if min(options.frames, options.windows, options.val, options.steps, options.batch) < 1:
        parser.error("--frames, --windows, --val, --steps and --batch must be positive")
    if options.devices is None:
        count = torch.cuda.device_count()
        options.devices = [f"cuda:{i}" for i in range(count)] or ["cpu"]
    options.plan = Plan(
        steps=options.steps,
        windows=options.batch,
        rate=options.rate,
        widths=tuple(options.widths),
    )
    return options


def _load(options: argparse.Namespace, split: Split, device: torch.device) -> Windows:
    count = options.windows if split == "train" else options.val
    return load(files(options.folder / "windows", split, count, options.frames), device)


def _generate(options: argparse.Namespace, stage: str) -> int:
    splits: tuple[tuple[Split, int], ...] = (("val", options.val), ("train", options.windows))
    for split, count in splits:
        record(options.folder / "windows", split, count, options.frames, workers=options.workers)
    return 0


def _networks(options: argparse.Namespace, stage: str) -> int:
    """Trains and evaluates: one network here, several each in a process of its own."""
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    if len(jobs) == 1:
        return _network(options, stage, *jobs[0])
    logs = options.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[tuple[str, int], tuple[subprocess.Popen[bytes], Path]] = {}
    threads = max(1, (os.cpu_count() or 1) // len(jobs))
    for number, (method, seed) in enumerate(jobs):
        device = options.devices[number * len(options.devices) // len(jobs)]
        command = [sys.executable, "-m", "perception.tools.study.temporal", stage]
        command += ["--folder", str(options.folder), "--methods", method, "--seeds", str(seed)]
        command += ["--frames", str(options.frames), "--windows", str(options.windows)]
        command += ["--val", str(options.val), "--steps", str(options.steps)]
        command += ["--batch", str(options.batch), "--rate", str(options.rate)]
        command += ["--widths", *map(str, options.widths)]
        command += ["--devices", device, *(["--quick"] if options.quick else [])]
        if options.deadline < math.inf:
            command += ["--minutes", str((options.deadline - time.monotonic()) / 60.0)]
        log = logs / f"{stage}-{method}-{seed}.txt"
        environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        with log.open("a") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment
            )
        running[method, seed] = process, log
        if options.devices == ["cpu"] and process.wait():
            break  # one after the other, because the CPU has no room for more
    failed = len(running) < len(jobs)
    while running:
        for (method, seed), (process, log) in list(running.items()):
            if process.poll() is None:
                continue
            del running[method, seed]
            last = " ".join(log.read_text().strip().splitlines()[-1:])
            state = "done" if process.returncode == 0 else "NOT done"
            print(f"{log.stem}: {state}: {last}", flush=True)
            failed |= process.returncode != 0
            if process.returncode and time.monotonic() < options.deadline and method == "hybrid":
                # A CRF waits for the hybrid network of its seed, which will not come now.
                for other, (waiting, _) in running.items():
                    if other[1] == seed and METHODS[other[0]].crf:
                        waiting.terminate()
        time.sleep(0.2)
    return int(failed)


def _network(options: argparse.Namespace, stage: str, method: str, seed: int) -> int:
    device = torch.device(options.devices[0])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    path = options.folder / "results" / f"{method}-{seed}.json"
    begin = time.monotonic()
    if stage == "train":
        if path.is_file():
            return 0
        data = _load(options, "train", device)
        net = train(
            options.folder,
            method,
            seed,
            data,
            options.plan,
            over=lambda: time.monotonic() > options.deadline,
            say=_say,
        )
        if net is None:
            return 1
        del data
    else:
        weights = weights_path(options.folder, method, seed)
        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: not trained yet; run the stage train first")
        net = network(method, options.plan.widths).to(device)
        net.load_state_dict(torch.load(weights, map_location=device, weights_only=True)["net"])
    trained = time.monotonic()
    rows = score(method, net, _load(options, "val", device))
    found = {
        "method": method,
        "seed": seed,
        "rows": rows,
        "plan": json.loads(json.dumps(asdict(options.plan))),
        "device": _device_name(device),
        "seconds": {"train": trained - begin, "evaluate": time.monotonic() - trained},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    for key, levels in rows.items():
        _say(f"{key}-{seed}: mIoU " + " ".join(f"{level['miou']:.2f}" for level in levels))
    return 0


def _time(options: argparse.Namespace, stage: str) -> int:
    device = torch.device(options.devices[0])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    data = _load(options, "val", device)
    rows = milliseconds(data, options.methods, options.plan.widths, repeats=options.repeats)
    path = options.folder / "results" / "time.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"device": _device_name(device), "rows": rows}, indent=1))
    return 0


def _table(options: argparse.Namespace, stage: str) -> int:
    found = collect(options.folder)
    (options.folder / "found.json").write_text(json.dumps(found, indent=1))
    print(tables(found))
    plot(found, options.folder / "noise.png")
    return 0


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
