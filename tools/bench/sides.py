"""One layer as each library runs it: with its map given, and on sites that have none yet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.nn import Conv, ConvTranspose
from perception.sparse import SparseTensor
from perception.sparse.sites import Sites
from perception.tools.bench import peers
from perception.tools.bench.peers import Boxed, Library
from perception.tools.bench.row import OURS
from perception.tools.bench.target import Target
from perception.tools.bench.workload import fresh

__all__ = ["Shape", "Side", "num_pairs", "our_side", "peer_side"]

PROBE = 16
"""Channels of a layer that is called for its map alone: 16-bit products want a multiple of 8."""
WORDS = {
    "subm": "subm 3^3",
    "down": "down 2^3",
    "down3": "down 3^3",
    "up": "up 2^3",
    "subm4": "4D subm 3^4",
    "hybrid4": "4D hybrid 3^3 + 2",
}


@dataclass(frozen=True)
class Shape:
    """One layer: "subm" is submanifold 3^3, "down" strided 2^3, "up" its transposed, "down3" strided
    3^3 onto every site that it reaches; over space and time "subm4" is submanifold 3^4, "hybrid4"
    3^3 in space and 3 in time.

    Attributes:
        stride: of the finer of the layer's sites, 1, 2, 4, 8 or 16.
    """

    kind: str
    in_channels: int
    out_channels: int
    stride: int = 1

    @classmethod
    def parse(cls, text: str) -> Shape:
        """``subm:64:64``, ``down:32:64`` or, at stride 8, ``subm:384:256@8``.

        Raises:
            ValueError: anything else.
        """
        match = re.fullmatch(r"(subm|down3?|up):(\d+):(\d+)(?:@(1|2|4|8|16))?", text)
        if match is None or "0" in match.group(2, 3):
            raise ValueError(
                f"{text!r} is no layer; write KIND:IN:OUT[@STRIDE] with KIND subm, down, down3 or up "
                "and STRIDE 1, 2, 4, 8 or 16, e.g. subm:64:64 or subm:384:256@8"
            )
        kind, a, b, stride = match.groups()
        return cls(kind, int(a), int(b), int(stride or 1))

    def __str__(self) -> str:
        return f"{WORDS[self.kind]} {self.in_channels}->{self.out_channels} @{self.stride}"


@dataclass
class Side:
    """A library's layer on its own sites, which may be in another order than ours.

    Attributes:
        module: the layer; in training mode where gradients are wanted.
        weight: its parameter.
        given: features ``[N, Cin]`` to ``[M, Cout]``, with the map that was made before.
        fresh: the same, the map made anew.
        in_rows, out_rows: our row of each of its rows; None where they are the same.
    """

    name: str
    module: nn.Module
    weight: Tensor
    given: Callable[[Tensor], Tensor]
    fresh: Callable[[Tensor], Tensor]
    in_rows: Tensor | None = None
    out_rows: Tensor | None = None


@dataclass
class OurSide(Side):
    """Ours, with what a reference needs to do the same."""

    fine: Sites | None = None
    coarse: Sites | None = None


def our_side(shape: Shape, fine: Sites, target: Target) -> OurSide:
    """Our layer on ``fine`` sites (their coarser ones for "up"), with its map made."""
    kind = Conv if shape.kind != "up" else ConvTranspose
    size = 2 if shape.kind in ("down", "up") else 3
    layer = kind(
        shape.in_channels,
        shape.out_channels,
        size,
        stride=1 if shape.kind in ("subm", "subm4", "hybrid4") else 2,
        sites="reach" if shape.kind == "down3" else None,
        bias=False,
        dim=fine.dim,
        kernel="hybrid" if shape.kind == "hybrid4" else "cube",
    ).to(target.device, target.dtype)
    channels = 1 if shape.kind == "up" else shape.in_channels
    zeros = SparseTensor(_zeros(fine, channels, target), fine)
    if shape.kind == "up":
        return _our_way_back(layer, zeros)

    def given(features: Tensor) -> Tensor:
        return layer(SparseTensor(features, fine)).features

    def anew(features: Tensor) -> Tensor:
        return layer(SparseTensor(features, fresh(fine))).features

    with torch.no_grad():
        coarse = layer(zeros).sites
    return OurSide(OURS, layer, layer.weight, given, anew, fine=fine, coarse=coarse)


def _our_way_back(layer: Conv | ConvTranspose, like: SparseTensor) -> OurSide:
    coarse = like.sites.strided(layer.stride)

    def given(features: Tensor) -> Tensor:
        return layer(SparseTensor(features, coarse), like=like).features

    def anew(features: Tensor) -> Tensor:
        other = SparseTensor(like.features, fresh(like.sites))
        return layer(SparseTensor(features, fresh(coarse)), like=other).features

    return OurSide(OURS, layer, layer.weight, given, anew, fine=like.sites, coarse=coarse)


def _zeros(sites: Sites, channels: int, target: Target) -> Tensor:
    return torch.zeros(sites.num_sites, channels, device=target.device, dtype=target.dtype)


def num_pairs(layer: Conv | ConvTranspose, fine: Sites, coarse: Sites) -> int:
    """Active pairs of a layer between two sets of sites, counted on the CPU."""
    there = fine.to("cpu")
    out = there if coarse is fine else coarse.to("cpu")
    symmetric = layer._symmetric and out is there
    return there.map_to(out, layer.offsets.cpu(), layer.stride, layer._key, symmetric).num_pairs


def peer_side(library: Library, shape: Shape, ours: OurSide, target: Target) -> Side:
    """The layer of a library with our weights, on our sites.

    Raises:
        RuntimeError: its layer reaches other sites than ours.
    """
    assert ours.fine is not None
    assert ours.coarse is not None
    layer = ours.module
    assert isinstance(layer, Conv | ConvTranspose)
    assert layer.kernel_size is not None
    library.allow_tf32(target.precision == "tf32")
    kit = peers.Kit(library, target.device)
    size, stride = layer.kernel_size, layer.stride
    boxed = Boxed(ours.fine.coords, ours.fine.batch_size)
    if shape.kind == "hybrid4":
        raise RuntimeError("it has no kernels but cubes")
    if shape.kind in ("subm", "subm4"):
        peer = kit.conv(shape.in_channels, shape.out_channels, size, "map")
        return _on_fine(library, peer, boxed, ours, target)
    if shape.kind != "up":
        peer = kit.conv(shape.in_channels, shape.out_channels, size, "map", stride=stride)
        return _on_fine(library, peer, boxed, ours, target)

    there = kit.conv(PROBE, PROBE, size, "map", stride=stride).to(target.device, target.dtype)
    with torch.no_grad():
        coarse = there(boxed.tensor(library, _zeros(ours.fine, PROBE, target)))
    peer = kit.up(shape.in_channels, shape.out_channels, size, "map")
    weight = peers.set_weight(peer.to(target.device, target.dtype), layer)
    box = boxed.coarser(coarse.indices, coarse.spatial_shape)

    def given(features: Tensor) -> Tensor:
        return peer(box.tensor(library, features, coarse.indice_dict)).features

    rows = _rows(ours.coarse, boxed, coarse.indices)
    return Side(library.name, peer, weight, given, given, in_rows=rows)


def _on_fine(
    library: Library, peer: nn.Module, boxed: Boxed, ours: OurSide, target: Target
) -> Side:
    layer = ours.module
    assert isinstance(layer, Conv)
    assert ours.fine is not None
    assert ours.coarse is not None
    weight = peers.set_weight(peer.to(target.device, target.dtype), layer)

    def anew(features: Tensor) -> Tensor:
        return peer(boxed.tensor(library, features)).features

    plans: dict[bool, dict] = {}

    def planned(features: Tensor) -> dict:
        # What it plans for training and for inference is not the same.
        if peer.training not in plans:
            with torch.no_grad():
                plans[peer.training] = peer(boxed.tensor(library, features)).indice_dict
        return plans[peer.training]

    def submanifold(features: Tensor) -> Tensor:
        return peer(boxed.tensor(library, features, planned(features))).features

    def strided(features: Tensor) -> Tensor:
        # Its strided layers take no map that is there already; their product does.
        return product(library, features, weight, planned(features)["map"], peer.training)

    same = ours.coarse is ours.fine
    given = submanifold if same else strided
    rows = None
    if not same:
        zeros = _zeros(ours.fine, layer.in_channels, target)
        with torch.no_grad():
            rows = _rows(ours.coarse, boxed, peer(boxed.tensor(library, zeros)).indices)
    return Side(library.name, peer, weight, given, anew, out_rows=rows)


def product(
    library: Library, features: Tensor, weight: Tensor, plan: object, training: bool
) -> Tensor:
    """The strided convolution of a library over a map that one of its layers made."""
    functional = library.part("pytorch.functional")
    data = vars(plan)
    outputs = data["out_indices"].shape[0]
    if "indice_pairs" in data:
        return functional.indice_conv(
            features, weight, data["indice_pairs"], data["indice_pair_num"], outputs, data["algo"]
        )
    return functional.implicit_gemm(
        features,
        weight,
        data["pair_fwd"],
        data["pair_bwd"],
        data["pair_mask_fwd_splits"],
        data["pair_mask_bwd_splits"],
        data["mask_argsort_fwd_splits"],
        data["mask_argsort_bwd_splits"],
        outputs,
        data["masks"],
        training,
        False,
    )


def _rows(sites: Sites, boxed: Boxed, theirs: Tensor) -> Tensor:
    """Our row of each of their sites on the coarser side."""
    coarse = [2] * sites.dim
    rows = peers.our_rows(sites.coords, boxed.ours(theirs, coarse))
    if rows is None:
        raise RuntimeError(f"reaches {len(theirs)} sites and we reach {sites.num_sites}")
    return rows
