"""Random clouds for tests, and comparisons of the engine with the oracle.

``check_*`` run a layer forward and backward and compare output sites, outputs and every gradient
with ``oracle``; they return the output. All randomness is seeded by the caller, and drawn on the CPU.

Whatever is made here lies on the device of the running test (fixture ``device``, else the CPU);
``here`` moves there what a test makes itself. The oracle computes on the CPU, always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import oracle
import torch
from oracle import Site
from torch import Tensor

import perception

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}

# --- where ------------------------------------------------------------------------------------

Movable = TypeVar("Movable", Tensor, torch.nn.Module, perception.SparseTensor)
_place = torch.device("cpu")


def here(value: Movable) -> Movable:
    """A tensor, sparse tensor or layer on the device of the running test."""
    return value.to(_place)


@contextlib.contextmanager
def placed(device: str) -> Iterator[torch.device]:
    """``here`` is a device while the context lasts."""
    global _place
    before, _place = _place, torch.device(device, 0) if device == "cuda" else torch.device(device)
    try:
        yield _place
    finally:
        _place = before


# --- clouds -----------------------------------------------------------------------------------


def random_sites(
    count: int,
    dim: int,
    *,
    seed: int = 0,
    low: int = -4,
    high: int = 5,
    batch_size: int = 2,
) -> Tensor:
    """At most ``count`` distinct sites ``[N, 1+D]`` int32 in shuffled order, half of them close by.

    Uniform sites in many dimensions have no neighbours, so every second site is a step away from
    another one.
    """
    rng = np.random.default_rng(seed)
    count = min(count, batch_size * (high - low) ** dim * 2 // 3)  # leave holes
    chosen: dict[Site, None] = {}
    while len(chosen) < count // 2 + 1:
        xyz = rng.integers(low, high, dim)
        chosen[(int(rng.integers(batch_size)), *(int(v) for v in xyz))] = None
    anchors = list(chosen)
    for _ in range(20 * count):
        if len(chosen) >= count:
            break
        base = anchors[rng.integers(len(anchors))]
        near = np.clip(np.array(base[1:]) + rng.integers(-1, 2, dim), low, high - 1)
        chosen[(base[0], *(int(v) for v in near))] = None
    order = rng.permutation(len(chosen))
    return here(torch.tensor([list(chosen)[i] for i in order], dtype=torch.int32))


def in_order(coords: Tensor, order: str) -> Tensor:
    """The same sites ``"sorted"`` (lexicographically), or as they are."""
    return torch.unique(coords, dim=0) if order == "sorted" else coords


def surface_sites(count: int = 20_000, *, seed: int = 0) -> Tensor:
    """About ``count`` sites of a street-like scan: rings on a ground plane, walls and poles."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(-np.pi, np.pi, 1400, endpoint=False)[None, :]
    slope = np.tan(np.deg2rad(np.linspace(-24.0, 3.0, 64)))[:, None]  # 64 beams
    ground = np.where(slope < -0.02, -1.8 / np.minimum(slope, -0.02), np.inf)
    sine, cosine = np.abs(np.sin(angle)), np.abs(np.cos(angle))
    walls = np.minimum(9.0 / np.maximum(sine, 1e-3), 38.0 / np.maximum(cosine, 1e-3))
    poles = np.where(rng.random((1, 1400)) < 0.04, 4.0 + 10 * rng.random((1, 1400)), np.inf)
    distance = np.minimum(np.minimum(ground, walls), poles) + 0.02 * rng.normal(size=(64, 1400))
    points = np.stack(
        [distance * np.cos(angle), distance * np.sin(angle), distance * slope], axis=-1
    ).reshape(-1, 3)
    cells = np.floor(points / 0.1).astype(np.int32)
    sites = np.unique(np.concatenate([np.zeros_like(cells[:, :1]), cells], axis=1), axis=0)
    sites = sites[rng.permutation(len(sites))[:count]]
    return here(torch.from_numpy(sites))


def random_tensor(
    coords: Tensor,
    channels: int,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    requires_grad: bool = True,
    **kwargs: Any,
) -> perception.SparseTensor:
    """Normal features on given sites; the features are a leaf that collects its gradient."""
    coords = here(coords)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64)
    features = here(features.to(dtype)).requires_grad_(requires_grad)
    return perception.SparseTensor(features, coords, **kwargs)


def randomized(
    layer: torch.nn.Module, dtype: torch.dtype = torch.float64, *, seed: int = 0
) -> torch.nn.Module:
    """The layer with normal numbers in every parameter, so that no zero bias hides a mistake."""
    layer = here(layer.to(dtype))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(values.to(parameter.dtype))
    return layer


# --- comparisons ------------------------------------------------------------------------------


def f64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).cpu().numpy()


def assert_close(actual: Any, reference: Any, tolerance: float, what: str) -> None:
    """``max |actual - reference| <= tolerance * max |reference|``; says how far it is off."""
    a = f64(actual) if isinstance(actual, Tensor) else np.asarray(actual, dtype=np.float64)
    r = f64(reference) if isinstance(reference, Tensor) else np.asarray(reference, np.float64)
    assert a.shape == r.shape, f"{what}: shape {a.shape}, reference {r.shape}"
    assert np.isfinite(a).all(), f"{what}: not finite"
    if a.size == 0:
        return
    scale = max(float(np.abs(r).max()), np.finfo(np.float64).tiny)
    error = float(np.abs(a - r).max()) / scale
    where = tuple(int(i) for i in np.unravel_index(int(np.abs(a - r).argmax()), a.shape))
    assert error <= tolerance, (
        f"{what}: maximum relative error {error:.3g} > {tolerance:.3g} at {where}: "
        f"{a[where]!r}, reference {r[where]!r}"
    )


def by_site(x: perception.SparseTensor) -> dict[Site, np.ndarray]:
    """Features keyed by site: comparisons that do not depend on the order of rows."""
    rows = dict(zip(oracle.as_sites(x.coords), f64(x.features), strict=True))
    assert len(rows) == x.num_sites, "the output has duplicate sites"
    return rows


def assert_same(a: perception.SparseTensor, b: perception.SparseTensor, tolerance: float) -> None:
    """The same sites with the same features, in any order."""
    left, right = by_site(a), by_site(b)
    assert left.keys() == right.keys()
    assert a.stride == b.stride
    if left:
        assert_close(
            np.stack([left[s] for s in right]), np.stack(list(right.values())), tolerance, "rows"
        )


def _check_sites(y: perception.SparseTensor, expected: Sequence[Site], *, ordered: bool) -> None:
    actual = oracle.as_sites(y.coords)
    assert y.coords.dtype == torch.int32
    assert len(set(actual)) == len(actual), "the output has duplicate sites"
    missing, surplus = set(expected) - set(actual), set(actual) - set(expected)
    assert not missing, f"missing output sites: {sorted(missing)[:5]}"
    assert not surplus, f"surplus output sites: {sorted(surplus)[:5]}"
    if ordered:
        assert actual == list(expected), "the output sites are not in the order that was given"


def check_conv(
    layer: torch.nn.Module,
    x: perception.SparseTensor,
    offsets: Sequence[oracle.Offset],
    *,
    stride: Sequence[int],
    expected: Sequence[Site],
    ordered: bool = False,
    transposed: bool = False,
    groups: int = 1,
    tolerance: float | None = None,
    **call: Any,
) -> perception.SparseTensor:
    """Forward and all gradients of ``layer(x, **call)`` against the loops of the oracle."""
    limit = TOLERANCE[x.dtype] if tolerance is None else tolerance
    layer.zero_grad()
    x.features.grad = None
    y = layer(x, **call)
    _check_sites(y, expected, ordered=ordered)
    assert y.dtype == x.dtype
    link = oracle.pairs_transposed if transposed else oracle.pairs
    links = link(oracle.as_sites(x.coords), oracle.as_sites(y.coords), offsets, stride)
    values = {name: f64(parameter) for name, parameter in layer.named_parameters()}
    weight, bias = values["weight"], values.get("bias")
    features = f64(x.features)
    reference = oracle.conv(features, weight, bias, links, y.num_sites, groups)
    assert_close(y.features, reference, limit, "output")

    generator = torch.Generator().manual_seed(99)
    grad_out = torch.randn(y.features.shape, generator=generator, dtype=torch.float64)
    grad_out = here(grad_out.to(x.dtype))
    y.features.backward(grad_out)
    grads = oracle.conv_backward(f64(grad_out), features, weight, links, groups)
    assert_close(x.features.grad, grads.features, limit, "gradient of the features")
    assert_close(layer.weight.grad, grads.weight, limit, "gradient of the weight")
    if bias is not None:
        assert_close(layer.bias.grad, grads.bias, limit, "gradient of the bias")
    return y


def check_pool(
    layer: torch.nn.Module,
    x: perception.SparseTensor,
    offsets: Sequence[oracle.Offset],
    *,
    stride: Sequence[int],
    expected: Sequence[Site],
    mode: str,
    transposed: bool = False,
    **call: Any,
) -> perception.SparseTensor:
    """Forward and gradient of a pooling layer against the loops of the oracle."""
    x.features.grad = None
    y = here(layer)(x, **call)
    _check_sites(y, expected, ordered=False)
    link = oracle.pairs_transposed if transposed else oracle.pairs
    links = link(oracle.as_sites(x.coords), oracle.as_sites(y.coords), offsets, stride)
    features = f64(x.features)
    limit = TOLERANCE[x.dtype]
    assert_close(y.features, oracle.pool(features, links, y.num_sites, mode), limit, "output")
    generator = torch.Generator().manual_seed(98)
    grad_out = torch.randn(y.features.shape, generator=generator, dtype=torch.float64)
    grad_out = here(grad_out.to(x.dtype))
    y.features.backward(grad_out)
    grad = oracle.pool_backward(f64(grad_out), features, links, y.num_sites, mode)
    assert_close(x.features.grad, grad, limit, "gradient of the features")
    return y


def dense_conv_weight(layer: torch.nn.Module, kernel_size: Sequence[int]) -> Tensor:
    """``weight [K, C/groups, C']`` of a cube kernel as torch's ``[C', C/groups, *kernel]``."""
    weight = layer.get_parameter("weight")
    dim = len(kernel_size)
    cube = weight.reshape(*kernel_size, *weight.shape[1:])
    return cube.permute(dim + 1, dim, *range(dim))
