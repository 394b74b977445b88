"""A network with its precision and its memory: probabilities of sites, in tiles where need be."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perception.datasets.encode import Encoded, Encoder
from perception.inference.memory import LiveBytes, free_memory, rough_bytes_per_site
from perception.inference.prediction import Scored
from perception.inference.tiles import Context, TooLittleMemory, context_of, tiling
from perception.sparse import SparseTensor

__all__ = ["PRECISIONS", "Precision", "Runner", "check_options"]

Precision = Literal["float32", "bfloat16", "float16"]
Network = Callable[..., Any]
"""Sites to scores of sites; or sites, positions and rows of points to scores of points."""
PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

SHARE = 0.5
"""The part of the free memory that is counted on: workspace of the products, and other programs."""
PROBE = 20_000
"""Sites on which the memory of a network is measured."""


def check_options(precision: str, memory: int | None) -> None:
    """Raises ValueError where a `Runner` would."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory={memory} bytes; give a positive number, or None for what is free")


class Runner:
    """Applies a network to sites.

    Args:
        net: in evaluation mode, on `device`.
        encoder: whose sites and features it takes.
        precision: of the products; sums, statistics and probabilities stay float32.
        memory: bytes that a run may take; None for half of what is free when it begins.

    Raises:
        ValueError: an unknown precision, or a memory that is not positive.
    """

    def __init__(
        self,
        net: nn.Module,
        encoder: Encoder,
        device: torch.device,
        precision: Precision = "float32",
        memory: int | None = None,
    ) -> None:
        check_options(precision, memory)
        self.net, self.encoder, self.device = net, encoder, device
        self.precision, self.memory = precision, memory
        self._bytes: float | None = None
        self._context: Context | None = None

    @property
    def needs_points(self) -> bool:
        """Whether the network takes points beside sites, and scores these."""
        return bool(getattr(self.net, "needs_points", False))

    def __call__(
        self,
        encoded: Encoded,
        points: int,
        start: float,
        *,
        frames: int = 1,
        instead: Network | None = None,
    ) -> Scored:
        """Probabilities of the last points of a cloud.

        Args:
            encoded: with positions where the network needs points.
            points: how many of them are asked for.
            start: when encoding began, on the clock of ``time.perf_counter``.
            frames: scans in `encoded`.
            instead: called on all sites at once in the network's stead.

        Raises:
            TooLittleMemory: a single coarsest voxel of the network does not fit.
            torch.OutOfMemoryError: nor do tiles that were halved until they were small, on a GPU.
        """
        coded = time.perf_counter()
        tiles, overlap, context = 1, 0.0, None
        with torch.inference_mode(), self._cast():
            count = len(encoded.coords)
            limit = self._limit(encoded) if instead is None else count
            while True:
                try:
                    if count <= limit:
                        scores = self._probabilities(encoded, instead or self.net)
                    else:
                        scores, tiles, overlap, context = self._by_tiles(encoded, limit)
                    break
                except torch.OutOfMemoryError:
                    # Others took what was free: a GPU says so, and half as much may do.
                    if instead is not None or limit < PROBE // 10:
                        raise
                    limit = min(limit, count) // 2
                torch.cuda.empty_cache()
        ended = time.perf_counter()
        rows = encoded.point_to_voxel[-points:].to(scores.device)
        if self.needs_points:
            rows = torch.arange(len(scores) - points, len(scores), device=scores.device)
        return Scored(
            scores,
            rows,
            sites=len(encoded.coords),
            frames=frames,
            tiles=tiles,
            overlap=overlap,
            context=context,
            encode=coded - start,
            network=ended - coded,
        )

    def fits(self, encoded: Encoded) -> bool:
        """Whether the network can be given these sites at once."""
        with torch.inference_mode(), self._cast():
            return len(encoded.coords) <= self._limit(encoded)

    @property
    def context(self) -> Context:
        """What the network sees around a site."""
        if self._context is None:
            encoder = self.encoder
            self._context = context_of(self.net, encoder.channels, encoder.dim, self.device)
        return self._context

    def _cast(self) -> AbstractContextManager:
        dtype = PRECISIONS[self.precision]
        # Float32 is torch's default, and a caller's autocast stays what it is.
        enabled = dtype != torch.float32 or torch.is_autocast_enabled(self.device.type)
        if dtype == torch.float32:
            dtype = torch.get_autocast_dtype(self.device.type)
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)

    def _probabilities(self, encoded: Encoded, net: Network) -> torch.Tensor:
        """``[M, C] float32`` of sites, or of points where the network scores these."""
        x = SparseTensor(encoded.features.to(self.device), encoded.coords.to(self.device))
        if not self.needs_points:
            return net(x).features.float().softmax(dim=1)
        assert encoded.positions is not None
        positions = encoded.positions.float().to(self.device)
        scores: torch.Tensor = net(x, positions, encoded.point_to_voxel.to(self.device))
        return scores.float().softmax(dim=1)

    def _limit(self, encoded: Encoded) -> int:
        """Sites that fit into the memory at once."""
        count = len(encoded.coords)
        free = free_memory(self.device) if self.memory is None else self.memory
        if free is None:
            return count
        room = free * SHARE if self.memory is None else free
        if self._bytes is None:
            if count * rough_bytes_per_site(self.net) <= room:
                return count
            near = _middle(encoded.coords[:, 1:4].numpy(), PROBE)
            some, _ = _part(encoded, near)
            with LiveBytes() as live:
                self._probabilities(some, self.net)
            self._bytes = live.peak / len(near)
        return int(room / max(self._bytes, 1.0))

    def _by_tiles(
        self, encoded: Encoded, limit: int
    ) -> tuple[torch.Tensor, int, float, float | None]:
        """Probabilities ``[M, C]`` on the CPU, tiles, overlap and context in metres."""
        context = self.context
        coords = encoded.coords[:, 1:].numpy()
        try:
            plan = tiling(coords, limit, context)
        except TooLittleMemory as error:
            raise TooLittleMemory(f"{error} ({self._told(limit)})") from None
        scores: torch.Tensor | None = None
        count = len(encoded.point_to_voxel) if self.needs_points else len(coords)
        for tile in plan.tiles:
            some, inside = _part(encoded, tile.rows)
            part = self._probabilities(some, self.net).cpu()
            core, rows = torch.from_numpy(tile.core), torch.from_numpy(tile.rows)
            if self.needs_points:
                core, rows = core[some.point_to_voxel], inside
            if scores is None:
                scores = part.new_empty(count, part.shape[1])
            scores[rows[core]] = part[core]
        assert scores is not None
        edges = np.array(self.encoder.edges)
        overlap = np.array(plan.overlap[:3])
        if context.reach is None:
            return scores, len(plan.tiles), float((overlap * edges).min()), None
        reach = np.array(context.reach[:3])
        # Where tiles are as long as the cloud, nothing is missing.
        overlap = np.where(overlap >= np.ptp(coords[:, :3], axis=0), reach, overlap)
        metres = np.minimum(overlap, reach) * edges
        return scores, len(plan.tiles), float(metres.min()), float((reach * edges).max())

    def _told(self, limit: int) -> str:
        size = (self._bytes or 0) * limit / 1e9
        return f"{size:.3g} GB at {self._bytes or 0:.0f} bytes a site"


def _middle(places: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The `count` rows in the smallest cube around the middle: as compact as a tile."""
    if count >= len(places):
        return np.arange(len(places))
    away = np.abs(places - np.median(places, axis=0)).max(1)
    return np.sort(np.argpartition(away, count)[:count])


def _part(encoded: Encoded, rows: NDArray[np.int64]) -> tuple[Encoded, torch.Tensor]:
    """Some sites ``[R]`` with the points in them, and which points these are."""
    place = torch.full((len(encoded.coords),), -1, dtype=torch.int64)
    chosen = torch.from_numpy(rows)
    place[chosen] = torch.arange(len(rows))
    point_rows = place[encoded.point_to_voxel]
    inside = (point_rows >= 0).nonzero()[:, 0]
    positions = None if encoded.positions is None else encoded.positions[inside]
    part = Encoded(encoded.coords[chosen], encoded.features[chosen], point_rows[inside], positions)
    return part, inside
