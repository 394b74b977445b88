"""Networks as a whole: forward with maps built and with maps given, one training step.

`MinkUNet42`, and those of `perception.tools.bench.architectures`. Limit: the operations of their
convolutions and pointwise layers, or the bytes of these; three times that in a step. On a GPU in a
16-bit precision inference runs on converted networks under ``torch.inference_mode`` and a training
step under ``torch.autocast``, in float16 with a gradient scaler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from perception.models import MinkUNet
from perception.sparse import SparseTensor
from perception.tools.bench import architectures, peers, split
from perception.tools.bench.architectures import ENCODERS, OurKit
from perception.tools.bench.peers import Boxed, Kit, Library, SpconvUNet
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import Effort, interleave, kernels, peak_memory
from perception.tools.bench.workload import CHANNELS, Workload, fresh

__all__ = ["NETWORKS", "NetworkResult", "measure", "our_network", "their_network"]

CLASSES = 20
NETWORKS = {
    "minkunet": "MinkUNet42",
    "unet": "U-Net 32, 64-128-256, 128-96-96",
    "second": "SECOND encoder",
    "centerpoint": "CenterPoint encoder",
}
"""By the names of the command's options."""
Cases = dict[str, Callable[[], Tensor]]


@dataclass
class NetworkResult:
    """Rows, and where the time of each way to run goes.

    Attributes:
        operators: seconds by kind of operator.
        kernels: on a GPU seconds by kernel.
        shapes: of the forward pass, the convolutions by shape.
    """

    name: str
    rows: list[Row]
    operators: dict[str, dict[str, float]] = field(default_factory=dict)
    kernels: dict[str, dict[str, float]] = field(default_factory=dict)
    shapes: list[split.LayerShare] = field(default_factory=list)

    def look_later(
        self, row: Row, cases: Mapping[str, Callable[[], object]], target: Target
    ) -> None:
        """Finds out, when nothing is timed any more, where the time of a row goes."""
        what = row.name.removeprefix(f"{self.name}: ")

        def look() -> None:
            total = row.timings[OURS].median if target.is_cuda else None
            self.operators[what] = split.by_operator(cases[OURS], total)
            if target.is_cuda:
                self.kernels[what] = kernels(cases[OURS])

        # On the CPU maps are a small part, which the training step shows too.
        if target.is_cuda or what != "forward, maps built":
            row.later.append(look)
        if target.is_cuda:
            row.see_kernels_later(cases)


@dataclass
class _Peer:
    """A library's network and how it is called: features to its own sparse tensor."""

    library: Library
    net: nn.Module
    boxed: Boxed

    def __call__(self, features: Tensor) -> Any:
        return self.net(self.boxed.tensor(self.library, features))


def our_network(name: str, sizes: Mapping[str, Any]) -> nn.Module:
    if name == "minkunet":
        return MinkUNet(CHANNELS, CLASSES, depth=42, **sizes)
    return _build(name)(OurKit(), CHANNELS, **sizes)


def their_network(
    name: str, library: Library, ours: nn.Module, target: Target, sizes: Mapping[str, Any]
) -> nn.Module:
    library.allow_tf32(target.precision == "tf32")
    if isinstance(ours, MinkUNet):
        return SpconvUNet(ours, library, target.device)
    net = _build(name)(Kit(library, target.device), CHANNELS, **sizes)
    peers.copy_weights(ours, net)
    return net


def _build(name: str) -> Callable[..., nn.Module]:
    return ENCODERS.get(name, architectures.unet)


def measure(
    name: str,
    scan: Workload,
    effort: Effort,
    *,
    libraries: Sequence[Library] = (),
    target: Target = FLOAT32,
    sizes: Mapping[str, Any] | None = None,
    peers_train: bool = True,
) -> NetworkResult:
    """
    Args:
        name: one of `NETWORKS`.
        libraries: time their counterparts with the same weights beside it.
        sizes: arguments of the network other than the published ones, to try the harness.
        peers_train: also the counterparts' training steps.
    """
    torch.manual_seed(0)
    sizes = sizes or {}
    net = our_network(name, sizes).to(target.device)
    x = scan.tensor(target.device)
    words = NETWORKS[name]
    counts = {"sites": x.num_sites, "parameters": sum(p.numel() for p in net.parameters())}
    built, given, step = (
        Row("network", f"{words}: {what}", {}, counts=counts)
        for what in ("forward, maps built", "forward, maps given", "training step, maps built")
    )
    result = NetworkResult(words, [built, given, step])
    _settle(net, x, target)
    # Training has networks of its own, so that inference is compared on the same weights.
    others = _counterparts(name, libraries, net, x, target, sizes, built)
    work = _infer(result, deepcopy(net), others, x, effort, target)
    for row, times in zip(result.rows, (1, 1, 3), strict=True):
        row.flop, row.bytes = times * work.flop, times * work.bytes
    trained = libraries if peers_train else ()
    others = _counterparts(name, trained, net, x, target, sizes, step)
    _train(result, net, others, x, effort, target)
    return result


def _settle(net: nn.Module, x: SparseTensor, target: Target) -> None:
    """Gives batch norm the statistics of the scan: in a network that has not learned, values would
    fade from layer to layer, and zeros are quicker to multiply."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    with torch.no_grad(), target.autocast():
        net(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _counterparts(
    name: str,
    libraries: Sequence[Library],
    net: nn.Module,
    x: SparseTensor,
    target: Target,
    sizes: Mapping[str, Any],
    row: Row,
) -> list[_Peer]:
    found = []
    for library in libraries:
        try:
            peer = their_network(name, library, net, target, sizes).to(target.device)
            found.append(_Peer(library, peer, Boxed(x.coords, x.batch_size)))
        except Exception as error:  # a reference must not keep us from measuring ourselves
            row.failed(library.name, error)
    return found


def _infer(
    result: NetworkResult,
    net: nn.Module,
    others: Sequence[_Peer],
    x: SparseTensor,
    effort: Effort,
    target: Target,
) -> split.Work:
    built, given, _ = result.rows
    for module in (net, *(peer.net for peer in others)):
        module.eval().to(target.dtype)
    x = x.to(target.dtype)
    with torch.inference_mode():
        y = net(x)  # makes the plans
        cases: Cases = {OURS: _on_fresh(net, x), "given": lambda: net(x).features}
        _remember(built, OURS, cases[OURS], target)
        _remember(given, OURS, cases["given"], target)
        for peer in others:
            name = peer.library.name
            try:
                found: list[Any] = []
                _remember(built, name, partial(_keep, found, peer, x.features), target)
                # Rounding adds up over the layers.
                far = peers.difference(y, found.pop(), peer.boxed)
                built.compare(name, far, 5 * target.tolerance)
                cases[name] = partial(_features, peer, x.features)
            except Exception as error:  # a reference must not keep us from measuring ourselves
                built.failed(name, error)
            found.clear()
        timings = interleave(cases, effort, warm=target.is_cuda, device=target.device)
        given.timings[OURS] = timings.pop("given")
        built.timings = timings
        result.shapes, work = split.by_shape(net, cases["given"], target)
    inferring = {name: partial(_inferring, case) for name, case in cases.items()}
    result.look_later(given, {OURS: inferring.pop("given")}, target)
    result.look_later(built, inferring, target)
    return work


def _inferring(case: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return case()


def _on_fresh(net: nn.Module, x: SparseTensor) -> Callable[[], Tensor]:
    return lambda: net(SparseTensor(x.features, fresh(x.sites))).features


def _features(peer: _Peer, features: Tensor) -> Tensor:
    return peer(features).features


def _keep(found: list[Any], peer: _Peer, features: Tensor) -> None:
    found.append(peer(features))


def _train(
    result: NetworkResult,
    net: nn.Module,
    others: Sequence[_Peer],
    x: SparseTensor,
    effort: Effort,
    target: Target,
) -> None:
    row = result.rows[2]
    loss = _loss(net, x)
    cases: Cases = {OURS: _step(net, _on_fresh(net, x), loss, target)}
    _remember(row, OURS, cases[OURS], target)
    for peer in others:
        case = _step(peer.net, partial(_features, peer, x.features), loss, target)
        try:
            _remember(row, peer.library.name, case, target)
            cases[peer.library.name] = case
        except Exception as error:
            row.failed(peer.library.name, error)
    # Measuring memory has let all of it go.
    row.timings = interleave(cases, effort, device=target.device)
    result.look_later(row, cases, target)


def _loss(net: nn.Module, x: SparseTensor) -> Callable[[Tensor], Tensor]:
    """Cross entropy where the network scores classes, else something that needs every value."""
    if not isinstance(net, MinkUNet):
        return lambda features: features.float().square().mean()
    labels = torch.randint(0, CLASSES, (x.num_sites,)).to(x.device)
    return lambda scores: nn.functional.cross_entropy(scores, labels)


def _remember(row: Row, name: str, case: Callable[[], object], target: Target) -> None:
    """Runs once unmeasured in time but not in memory."""
    if target.is_cuda:
        case()  # what is set up once, and plans that are kept, are not the call's own
    peak = peak_memory(case, target.device)
    if peak is not None:
        row.peak_memory[name] = peak


def _step(
    net: nn.Module,
    forward: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    target: Target,
) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(target.device.type, enabled=target.precision == "float16")

    net.train()

    def step() -> Tensor:
        optimizer.zero_grad()
        with target.autocast():
            found = loss(forward())
        scaler.scale(found).backward()
        scaler.step(optimizer)
        scaler.update()
        return found.detach()

    return step
