"""What comes out: a label for every point, and how it was found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, write, write_labels
from perception.io.files import suffix_of

__all__ = ["IGNORE", "Method", "Prediction", "Scored"]

IGNORE = 255
"""The label of a row of the file that was no point (its coordinates were not finite)."""


@dataclass(frozen=True)
class Method:
    """How a prediction was made.

    Attributes:
        precision: of the products: ``float32``, ``bfloat16`` or ``float16``.
        augment: turned copies of the cloud whose probabilities were averaged; 1 is the cloud alone.
        tiles: parts that the cloud was cut into for want of memory; 1 is none.
        overlap: metres by which a tile is larger than what it labels; 0 without tiles.
        context: metres that the network sees around a point; tiles that overlap by as much change
            nothing. None where it sees the whole cloud, or where nobody asked.
        frames: scans that the network saw for this one, with time.
        kept: what a running sequence kept of the past: ``"layers"``, ``"frames"``, or nothing.
    """

    precision: str = "float32"
    augment: int = 1
    tiles: int = 1
    overlap: float = 0.0
    context: float | None = None
    frames: int = 1
    kept: str = ""

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {
            "text": str(self),
            "precision": self.precision,
            "augment": self.augment,
            "tiles": self.tiles,
            "frames": self.frames,
        }
        if self.tiles > 1:
            values["overlap"] = round(self.overlap, 3)
            values["context"] = None if self.context is None else round(self.context, 3)
        if self.kept:
            values["kept"] = self.kept
        return values

    def __str__(self) -> str:
        """What is out of the ordinary, as a person reads it; empty for one plain run."""
        parts = []
        if self.frames > 1:
            parts.append(f"{self.frames} frames")
        if self.kept:
            parts.append(f"kept {self.kept}")
        if self.tiles > 1:
            sees = "everything" if self.context is None else f"{self.context:.3g} m"
            exact = self.context is not None and self.overlap >= self.context
            seams = "exact" if exact else f"the network sees {sees}: labels near seams may differ"
            parts.append(f"{self.tiles} tiles overlapping by {self.overlap:.3g} m ({seams})")
        if self.augment > 1:
            parts.append(f"mean of {self.augment} turned copies")
        if self.precision != "float32":
            parts.append(self.precision)
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Scored:
    """What one run of the network says about a cloud.

    Attributes:
        scores: ``[M, C] float32``, probabilities of the sites, or of points.
        rows: ``[N] int64``, the row of each point.
        sites: how many the network was given.
        frames, tiles, overlap, context: as in `Method`.
        encode, network: seconds.
    """

    scores: torch.Tensor
    rows: torch.Tensor
    sites: int
    frames: int
    tiles: int
    overlap: float
    context: float | None
    encode: float
    network: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says about one cloud.

    Attributes:
        cloud: the cloud, N points.
        labels: ``[N]`` uint8, positions in `names`.
        scores: ``[N]`` float32 in 0..1, the probability of that label.
        names: the classes.
        colors: ``[len(names), 3]`` uint8.
        boxes: ``[M, 7]`` float32 in the frame of the cloud, None where the task gives none.
        box_labels: ``[M]`` int64, positions in `names`.
        box_scores: ``[M]`` float32 in 0..1.
        voxels: how many sites the network saw.
        seconds: wall time by step: ``read``, ``encode``, ``network``.
        model: the name of the model.
        source: the name of the file, where there is one.
        method: how it was made: tiles, copies, precision, frames.
    """

    cloud: PointCloud
    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    colors: NDArray[np.uint8]
    boxes: NDArray[np.float32] | None = None
    box_labels: NDArray[np.int64] | None = None
    box_scores: NDArray[np.float32] | None = None
    voxels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    model: str = ""
    source: str = ""
    method: Method = field(default_factory=Method)

    def shares(self) -> dict[str, float]:
        """The share of points of every class, 0..1, the largest first; absent ones left out."""
        counts = np.bincount(self.labels, minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        total = max(len(self.labels), 1)
        return {self.names[i]: float(counts[i]) / total for i in order if counts[i]}

    def labelled_cloud(self) -> PointCloud:
        """The cloud with attributes ``label``, ``score`` and the colours of the classes."""
        colors = self.colors[self.labels]
        return self.cloud.with_attributes(
            {
                "label": self.labels,
                "score": self.scores,
                "red": colors[:, 0],
                "green": colors[:, 1],
                "blue": colors[:, 2],
            }
        )

    def picture(self, size: tuple[int, int] = (1600, 900)) -> Any:
        """A ``PIL.Image`` of the cloud in the colours of its labels, with a legend."""
        from perception.viz import picture

        title = "   ".join(part for part in (self.source, self.model) if part)
        return picture(
            self.cloud,
            labels=self.labels,
            names=self.names,
            colors=self.colors,
            boxes=self._boxes(),
            title=title,
            size=size,
        )

    def save(self, path: str | PathLike[str]) -> list[Path]:
        """Write the prediction.

        Args:
            path: with a suffix, one file: ``.label`` (SemanticKITTI: uint32, one a row of the
                input file, the low 16 bits are the position of the class in `names`, 255 for rows
                that were no points), a point-cloud format such as ``.ply`` (points with label,
                score and colour), ``.json`` (classes, colours, shares, boxes) or ``.png``.
                Without one: ``PATH.label``, ``PATH.ply`` and ``PATH.json``.

        Returns:
            The files written.

        Raises:
            FormatError: a file cannot be written.
        """
        file = Path(path)
        suffix = file.suffix.lower()
        if suffix not in (".label", ".json", ".png") and not suffix_of(file):
            stem = file / "prediction" if file.is_dir() else file
            parts = [stem.with_name(stem.name + end) for end in (".label", ".ply", ".json")]
            return [written for part in parts for written in self.save(part)]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".label":
                write_labels(file, self._file_rows())
            elif suffix == ".json":
                file.write_text(json.dumps(self.summary(), indent=1) + "\n")
            elif suffix == ".png":
                from perception.viz import save_picture

                save_picture(file, self.picture())
            else:
                write(file, self.labelled_cloud())
        except OSError as error:
            cause = f"cannot be written ({error.strerror or error})"
            raise FormatError(file, cause, "check the folder and its rights") from None
        return [file]

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of the prediction, without the labels of single points."""
        content: dict[str, Any] = {
            "source": self.source,
            "model": self.model,
            "points": len(self.cloud),
            "voxels": self.voxels,
            "method": self.method.summary(),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "classes": list(self.names),
            "colors": self.colors.tolist(),
            "shares": {name: round(share, 5) for name, share in self.shares().items()},
        }
        if self.boxes is not None and self.box_labels is not None:
            content["boxes"] = np.round(self.boxes.astype(np.float64), 4).tolist()
            content["box_labels"] = self.box_labels.tolist()
            if self.box_scores is not None:
                content["box_scores"] = np.round(self.box_scores.astype(np.float64), 5).tolist()
        return content

    def show(self) -> None:
        """Open a window (extra ``viz``) and wait until it is closed.

        Raises:
            perception.viz.window.WindowError: there is no display or no Open3D; says what to do.
        """
        from perception.viz.palette import lifted
        from perception.viz.window import show

        colors = lifted(self.colors)
        boxes = self._boxes()
        box_colors = None if boxes is None else colors[boxes.labels]
        title = f"{self.source} {self.model}".strip() or "perception"
        show(self.cloud, colors[self.labels], boxes=boxes, box_colors=box_colors, title=title)

    def _boxes(self) -> Boxes3D | None:
        if self.boxes is None or self.box_labels is None:
            return None
        return Boxes3D(self.boxes, self.box_labels)

    def _file_rows(self) -> NDArray[np.uint8]:
        if self.cloud.valid is None:
            return self.labels
        rows = np.full(len(self.cloud.valid), IGNORE, np.uint8)
        rows[self.cloud.valid] = self.labels
        return rows
