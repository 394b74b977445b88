"""Training of one network of the study: the same windows, noise and schedule for all of a seed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.datasets.sample import IGNORE
from perception.io import FormatError
from perception.tasks.losses import lovasz_softmax
from perception.tools.study.batch import training_batch
from perception.tools.study.methods import METHODS, WIDTHS, network, scores
from perception.tools.study.windows import Windows

__all__ = ["Plan", "checkpoint_path", "train", "weights_path"]


@dataclass(frozen=True)
class Plan:
    """What all trainings have in common.

    steps: optimizer steps; windows: samples a step.
    rate: peak of the learning rate (AdamW; one cycle: linear rise over a tenth, then a cosine).
    branch: the share of the steps after which a CRF is put behind the hybrid network of the same
        seed; both then see the same batches at the same rate until the end.
    crf_rate: learning rate of the CRF's own weights as a multiple.
    alone: steps of a CRF behind a fixed network, as a share of the steps; a cycle of their own.
    widths: of the networks.
    """

    steps: int = 4500
    windows: int = 3
    rate: float = 3e-3
    weight_decay: float = 0.01
    branch: float = 0.6
    crf_rate: float = 2.0
    alone: float = 0.1
    widths: tuple[int, ...] = WIDTHS

    def steps_of(self, method: str) -> int:
        """Steps of the training of a method."""
        return max(1, int(self.alone * self.steps)) if METHODS[method].fixed else self.steps

    def factor(self, step: int, steps: int) -> float:
        """The learning rate of a step of so many, as a share of the peak."""
        rise = max(1.0, 0.1 * steps)
        if step < rise:
            return 0.01 + 0.99 * step / rise
        done = min(1.0, (step - rise) / max(1.0, steps - rise))
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))

    @property
    def branch_step(self) -> int:
        """The first step that a CRF takes part in."""
        return int(self.branch * self.steps)


def checkpoint_path(folder: Path, method: str, seed: int) -> Path:
    """Where a training that was cut off goes on from."""
    return folder / "checkpoints" / f"{method}-{seed}.pt"


def weights_path(folder: Path, method: str, seed: int) -> Path:
    """Weights of a finished training."""
    return folder / "weights" / f"{method}-{seed}.pt"


def _branch_path(folder: Path, seed: int) -> Path:
    return folder / "checkpoints" / f"hybrid-{seed}-branch.pt"


def train(
    folder: Path,
    method: str,
    seed: int,
    data: Windows,
    plan: Plan,
    *,
    over: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> nn.Module | None:
    """Trains a network, or goes on with it; its weights are then at `weights_path`.

    The loss is cross-entropy plus Lovász-Softmax of the sites of all frames.

    Args:
        folder: of the study.
        over: whether the time is over: the training then writes a checkpoint and returns None; call
            again to go on.

    Raises:
        FormatError: what lies in the folder is of another plan, or broken.
    """
    device = data.points.device
    torch.manual_seed(seed)
    net = network(method, plan.widths).to(device)
    done = weights_path(folder, method, seed)
    if done.is_file():
        net.load_state_dict(_read(done, plan)["net"])
        return net
    started = _started(folder, method, seed, net, plan, over)
    if started is None:
        return None
    optimizer, step = started

    path, steps = checkpoint_path(folder, method, seed), plan.steps_of(method)
    net.train(not METHODS[method].fixed)  # a fixed network keeps its statistics; a CRF has none
    began, first, losses = time.monotonic(), step, []
    while step < steps:
        if step == plan.branch_step and method == "hybrid":
            _write(_branch_path(folder, seed), net, optimizer, step, plan)
        if over():
            _write(path, net, optimizer, step, plan)
            say(f"{method}-{seed}: stopped before step {step} of {steps}")
            return None
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * group["multiple"] * plan.factor(step, steps)
        losses.append(_step(net, method, data, plan, seed, step, optimizer))
        step += 1
        if step % max(1, steps // 20) == 0:
            seconds = (time.monotonic() - began) / (step - first)
            loss = float(torch.stack(losses).mean())
            say(f"{method}-{seed}: step {step}, loss {loss:.4f}, {1e3 * seconds:.1f} ms a step")
            losses.clear()
            _write(path, net, optimizer, step, plan)
    _write(done, net, None, step, plan)
    return net


def _started(
    folder: Path, method: str, seed: int, net: nn.Module, plan: Plan, over: Callable[[], bool]
) -> tuple[torch.optim.Optimizer, int] | None:
    """The optimizer, and the step that comes next, with the weights in `net`: from a checkpoint, a
    hybrid network that a CRF is put behind, or the beginning. None: the time was over before."""
    options = METHODS[method]
    base = [p for name, p in net.named_parameters() if not name.startswith("crf.")]
    own = [p for name, p in net.named_parameters() if name.startswith("crf.")]
    crf_group = {"params": own, "weight_decay": 0.0, "multiple": plan.crf_rate}
    if options.fixed:
        for parameter in base:
            parameter.requires_grad_(False)
        optimizer = torch.optim.AdamW([crf_group], lr=plan.rate)
    else:
        network_group = {"params": base, "weight_decay": plan.weight_decay, "multiple": 1.0}
        optimizer = torch.optim.AdamW([network_group], lr=plan.rate)

    path = checkpoint_path(folder, method, seed)
    if path.is_file():
        if own and not options.fixed:
            optimizer.add_param_group(crf_group)
        state = _read(path, plan)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        return optimizer, int(state["step"])
    if options.crf is None:
        return optimizer, 0
    before = weights_path(folder, "hybrid", seed) if options.fixed else _branch_path(folder, seed)
    found = _await(before, plan, over)
    if found is None:
        return None
    # The same network to the bit, then the CRF's weights behind it.
    net.load_state_dict(found["net"], strict=False)
    if options.fixed:
        return optimizer, 0
    optimizer.load_state_dict(found["optimizer"])
    optimizer.add_param_group(crf_group)
    return optimizer, int(found["step"])


def _step(
    net: nn.Module,
    method: str,
    data: Windows,
    plan: Plan,
    seed: int,
    step: int,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    device = data.points.device
    epoch, place = divmod(step * plan.windows, len(data))
    order = np.random.default_rng([seed, epoch]).permutation(len(data))
    numbers = [int(order[(place + i) % len(data)]) for i in range(plan.windows)]
    batch = training_batch(data, numbers, [seed, step])
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        predicted = scores(method, net, batch)
    known = batch.labels != IGNORE
    predicted, labels = predicted[known], batch.labels[known]
    loss = functional.cross_entropy(predicted, labels) + lovasz_softmax(
        predicted.softmax(1), labels
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 10.0)
    optimizer.step()
    return loss.detach()


def _write(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer | None, step: int, plan: Plan
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"net": net.state_dict(), "step": step, "plan": asdict(plan)}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _read(path: Path, plan: Plan) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every way a file can be broken
        raise FormatError(
            path, f"is no checkpoint ({error})", "delete it and train again"
        ) from None
    if state.get("plan") != asdict(plan):
        raise FormatError(path, "is of another plan", "give the same options, or another --folder")
    return state


def _await(path: Path, plan: Plan, over: Callable[[], bool]) -> dict[str, Any] | None:
    """The checkpoint that the hybrid network's training writes on its way, in another process perhaps;
    None if it does not come in time."""
    while not path.is_file():
        if over():
            return None
        time.sleep(1.0)
    return _read(path, plan)
