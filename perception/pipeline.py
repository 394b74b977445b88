"""From a file to a prediction in two lines.

pipeline = perception.load("street-minkunet")
pipeline("scan.bin").save("scan")
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from perception import _native, models
from perception.datasets.encode import Encoder
from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, checkpoint, read, write, write_labels
from perception.io.files import suffix_of
from perception.sparse import SparseTensor

IGNORE = 255
"""The label of a row of the file that was no point (its coordinates were not finite)."""
SITE_LIMIT = 2**30
"""Sites beyond this leave no room in int32 for the taps of a kernel and the strides of a net."""

ALONE = 0.95
"""A share of points alone in their voxel that no scan within a network's training has."""


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


class Pipeline:
    """A trained network with everything around it: file, voxels, network, points.

    Made by :func:`load`.

    Attributes:
        net: the network, in evaluation mode.
        encoder: makes sites and features of a cloud, as in training.
        names: the classes.
        colors: ``[len(names), 3]`` uint8.
        device: where the network is.
        name: of the model.
        history: how the weights came about, as the model file says.
    """

    def __init__(
        self,
        net: nn.Module,
        encoder: Encoder,
        names: Sequence[str],
        colors: ArrayLike,
        *,
        device: str | torch.device = "cpu",
        name: str = "",
        history: dict[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)
        self.encoder = encoder
        self.names = tuple(names)
        self.colors = np.asarray(colors, dtype=np.uint8).reshape(-1, 3)
        self.name = name
        self.history = history or {}
        if not 0 < len(self.names) <= IGNORE or len(self.colors) != len(self.names):
            raise ValueError(
                f"Pipeline: {len(self.names)} classes and {len(self.colors)} colours; give one "
                f"colour a class and 1 to {IGNORE} classes"
            )

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {len(self.names)} classes, {self.device})"

    def __call__(
        self, source: PointCloud | str | PathLike[str] | ArrayLike, *, layout: str | None = None
    ) -> Prediction:
        """Segment one cloud.

        Args:
            source: a cloud, a file (:func:`perception.io.read`), or an array ``[N, 3+]`` (x, y,
                z, intensity).
            layout: of a headerless ``.bin`` file.

        Returns:
            The prediction, a label for every point.

        Raises:
            FileNotFoundError, FormatError: the file cannot be read.
            ValueError: the array is no cloud, or the cloud is too wide for the voxel size.
        """
        start = time.perf_counter()
        name = ""
        if isinstance(source, PointCloud):
            cloud = source
        elif isinstance(source, str | PathLike):
            cloud = read(source, layout=layout)
            name = Path(source).name
        else:
            cloud = PointCloud.from_array(source)
        seconds = {"read": time.perf_counter() - start}
        if len(cloud) == 0:
            nothing = np.zeros(0, np.uint8), np.zeros(0, np.float32)
            return Prediction(cloud, *nothing, self.names, self.colors, model=self.name)
        self._check_extent(cloud)

        start = time.perf_counter()
        encoded = self.encoder(cloud)
        if len(cloud) > 1000 and len(encoded.coords) > ALONE * len(cloud):
            warnings.warn(
                f"nearly every point is alone in its {self.encoder.voxel_size:g} m voxel: the cloud is "
                f"sparser than what the network was trained on, or its unit is not the metre; "
                f"expect poor labels",
                stacklevel=2,
            )
        seconds["encode"] = time.perf_counter() - start

        start = time.perf_counter()
        with torch.inference_mode():
            x = SparseTensor(encoded.features.to(self.device), encoded.coords.to(self.device))
            best = self.net(x).features.float().softmax(dim=1).max(dim=1)
            rows = encoded.point_to_voxel.to(self.device)
            labels = best.indices[rows].to(torch.uint8).cpu().numpy()
            scores = best.values[rows].cpu().numpy()
        seconds["network"] = time.perf_counter() - start
        return Prediction(
            cloud,
            labels,
            scores,
            self.names,
            self.colors,
            voxels=len(encoded.coords),
            seconds=seconds,
            model=self.name,
            source=name,
        )

    def _check_extent(self, cloud: PointCloud) -> None:
        reach = float(np.abs(cloud.points).max())
        if reach / self.encoder.voxel_size >= SITE_LIMIT:
            raise ValueError(
                f"{self.name or 'Pipeline'}: points lie {reach:.3g} m from zero, more than int32 "
                f"sites of {self.encoder.voxel_size:g} m reach; crop the cloud or move its origin"
            )


def bundled_models() -> dict[str, Path]:
    """The model files inside the package, by name."""
    import perception

    folders = [Path(folder) / "weights" for folder in perception.__path__]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def find_device(name: str) -> torch.device:
    """The device a user names: ``auto`` (CUDA where the engine runs there), ``cpu``, ``cuda``.

    Raises:
        ValueError: the device is not there; says what to do.
    """
    if name not in ("auto", "cpu") and not name.startswith("cuda"):
        raise ValueError(f"device {name!r} is unknown; use auto, cpu or cuda")
    if name == "auto":
        return torch.device("cuda" if _native.supports("cuda") else "cpu")
    if name != "cpu" and not _native.supports("cuda"):
        raise ValueError(f"device {name!r} cannot be used: {_native.cuda_problem()}; or use cpu")
    return torch.device(name)


def _check_widths(net: nn.Module, encoder: Encoder, classes: int) -> None:
    """The network takes what the encoder gives and scores every class."""
    args: dict[str, Any] = getattr(net, "args", {})
    taken, given = args.get("in_channels", encoder.channels), encoder.channels
    if taken != given:
        raise ValueError(f"the network takes {taken} features, the encoder gives {given}")
    scored = args.get("num_classes", classes)
    if scored != classes:
        raise ValueError(f"the network gives {scored} scores for {classes} classes")


def load(name: str | PathLike[str], device: str = "auto") -> Pipeline:
    """A pipeline from the name of a bundled model or from a model file.

    Args:
        name: ``"street-minkunet"``, or the path of a ``.safetensors`` file that a training wrote.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        FileNotFoundError: there is no such model; names the bundled ones.
        FormatError: the file is no model file of this package or does not fit its network.
        ValueError: the device cannot be used.
    """
    text = fspath(name)
    bundled = bundled_models()
    path = bundled.get(text, Path(text))
    if not path.exists():
        known = ", ".join(bundled) or "none"
        raise FileNotFoundError(
            f"{text}: no such model; give a .safetensors file or a bundled model ({known})"
        )
    place = find_device(device)
    tensors, metadata = checkpoint.load(path)
    try:
        task, classes = metadata["task"], [str(name) for name in metadata["classes"]]
        kind, args = metadata["net"]["name"], dict(metadata["net"]["args"])
        encoder = Encoder(**metadata["encoder"])
        colors = np.array(metadata["colors"], dtype=np.uint8)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(path, f"has incomplete metadata ({error!r})", "export it again") from None
    if task != "segmentation":
        raise FormatError(
            path, f"is a model for {task!r}", "this version applies segmentation only"
        )
    if kind not in models.__all__:
        known = ", ".join(models.__all__)
        raise FormatError(path, f"names an unknown network {kind!r}", f"known are {known}")
    try:
        net = getattr(models, kind)(**args)
        net.load_state_dict(tensors)
        _check_widths(net, encoder, len(classes))
        return Pipeline(
            net,
            encoder,
            classes,
            colors,
            device=place,
            name=Path(text).stem,
            history=metadata.get("history"),
        )
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[:2]
        raise FormatError(
            path, f"does not fit its network ({' '.join(first)})", "export it again"
        ) from None


__all__ = ["Pipeline", "Prediction", "bundled_models", "load"]
