"""From a file to a prediction in two lines.

pipeline = perception.load("street-minkunet")
pipeline("scan.bin").save("scan")
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from perception import _native, models
from perception.datasets.encode import Encoder
from perception.datasets.sample import Sample
from perception.inference.prediction import IGNORE, Method, Prediction, Scored
from perception.inference.runner import Precision, Runner, check_options
from perception.inference.stream import Keep, StreamingSegmenter
from perception.inference.variants import Variant, variants
from perception.inference.window import Lattice, joined
from perception.io import FormatError, PointCloud, checkpoint, read

SITE_LIMIT = 2**30
"""Sites beyond this leave no room in int32 for the taps of a kernel and the strides of a net."""

ALONE = 0.95
"""A share of points alone in their voxel that no scan within a network's training has."""


class Pipeline:
    """A trained network with everything around it: file, voxels, network, points.

    Made by :func:`load`. Every prediction says in `method` how it was made: a cloud that is too large
    for the memory is cut into tiles.

    Attributes:
        net: the network, in evaluation mode.
        encoder: makes sites and features of a cloud, as in training.
        names: the classes.
        colors: ``[len(names), 3]`` uint8.
        device: where the network is.
        name: of the model.
        history: how the weights came about, as the model file says.
        frames: scans in a training sample; None where the model file does not say.
        frame_step: every how manieth scan of a drive these are.
        runner: applies the network to sites.
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
        frames: int | None = None,
        frame_step: int = 1,
        precision: Precision = "float32",
        memory: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)
        self.encoder = encoder
        self.names = tuple(names)
        self.colors = np.asarray(colors, dtype=np.uint8).reshape(-1, 3)
        self.name = name
        self.history = history or {}
        self.frames = frames
        self.frame_step = frame_step
        self.runner = Runner(self.net, encoder, self.device, precision, memory)
        if not 0 < len(self.names) <= IGNORE or len(self.colors) != len(self.names):
            raise ValueError(
                f"Pipeline: {len(self.names)} classes and {len(self.colors)} colours; give one "
                f"colour a class and 1 to {IGNORE} classes"
            )

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {len(self.names)} classes, {self.device})"

    def __call__(
        self,
        source: PointCloud | str | PathLike[str] | ArrayLike,
        *,
        layout: str | None = None,
        augment: int = 1,
    ) -> Prediction:
        """Segment one cloud.

        A network over space and time sees a cloud without the attribute ``frame`` as a drive of one
        scan, with a warning; `stream` and `window` give it the scans before.

        Args:
            source: a cloud, a file (:func:`perception.io.read`), or an array ``[N, 3+]`` (x, y,
                z, intensity).
            layout: of a headerless ``.bin`` file.
            augment: turned and mirrored copies whose probabilities are averaged
                (:func:`perception.inference.variants`); 1 is the cloud alone. The time grows with
                it, the memory by a row of probabilities a point.

        Returns:
            The prediction, a label for every point.

        Raises:
            FileNotFoundError, FormatError: the file cannot be read.
            ValueError: the array is no cloud, or the cloud is too wide for the voxel size.
            TooLittleMemory: not even the smallest tile fits.
        """
        turns = variants(augment)
        start = time.perf_counter()
        name = ""
        if isinstance(source, PointCloud):
            cloud = source
        elif isinstance(source, str | PathLike):
            cloud = read(source, layout=layout)
            name = Path(source).name
        else:
            cloud = PointCloud.from_array(source)
        took = time.perf_counter() - start
        if len(cloud) == 0:
            return self.nothing(cloud, name)
        self.check_extent(cloud)
        seen, frames = self._with_frames(cloud)

        def run(turn: Variant) -> Scored:
            start = time.perf_counter()
            copy = turn(seen)
            encoded = self.encoder(copy)
            if self.runner.needs_points:
                encoded = replace(encoded, positions=self.encoder.positions(copy))
            if turn.plain and len(cloud) > 1000 and len(encoded.coords) > ALONE * len(cloud):
                warnings.warn(
                    f"nearly every point is alone in its {self.encoder.voxel_size:g} m voxel: the cloud "
                    "is sparser than what the network was trained on, or its unit is not the metre; "
                    "expect poor labels",
                    stacklevel=4,
                )
            return self.runner(encoded, len(cloud), start, frames=frames)

        return self.labelled(cloud, map(run, turns), source=name, seconds={"read": took})

    def window(
        self,
        samples: Sequence[Sample],
        *,
        anchor: NDArray[np.float64] | None = None,
        augment: int = 1,
    ) -> Prediction:
        """Segment the newest of several scans of a drive, in one run of the network on all of them.

        Args:
            samples: the scans, the oldest first, with poses.
            anchor: ``[4, 4]``, world_from_sensor of the scan whose frame the lattice has; by default
                the newest one's. A `StreamingSegmenter` takes the first of the drive.
            augment: as for one cloud.

        Raises:
            ValueError: no scans, or one has no pose.
            TooLittleMemory: not even the smallest tile fits.
        """
        turns = variants(augment)
        if not samples:
            raise ValueError("Pipeline.window: no scans")
        poses = [sample.pose for sample in samples if sample.pose is not None]
        if len(poses) < len(samples):
            name = next(sample.name for sample in samples if sample.pose is None)
            raise ValueError(
                f"{name or 'a scan'}: has no pose, and scans are put together by their poses; "
                "give one, or label the scan alone"
            )
        newest = samples[-1]
        if len(newest.cloud) == 0:
            return self.nothing(newest.cloud, newest.name)
        place = poses[-1] if anchor is None else anchor
        for sample, pose in zip(samples, poses, strict=True):
            self.check_extent(sample.cloud, pose[:3, 3] - place[:3, 3])

        def run(turn: Variant) -> Scored:
            start = time.perf_counter()
            lattice = Lattice(self.encoder, place, turn.motion(), self.runner.needs_points)
            frames = [
                lattice.frame(
                    sample.cloud, pose, sample.cloud.time if sample.time is None else sample.time
                )
                for sample, pose in zip(samples, poses, strict=True)
            ]
            first = (self.frames or len(samples)) - len(samples)
            numbers = range(first, first + len(samples))
            encoded = joined(frames, numbers, self.encoder, period=0.1 * self.frame_step)
            return self.runner(encoded, len(newest.cloud), start, frames=len(samples))

        return self.labelled(newest.cloud, map(run, turns), source=newest.name)

    def stream(
        self,
        *,
        frames: int | None = None,
        frame_step: int | None = None,
        keep: Keep = "auto",
        augment: int = 1,
    ) -> StreamingSegmenter:
        """A running sequence on this pipeline, see :class:`StreamingSegmenter`."""
        return StreamingSegmenter(
            self, frames=frames, frame_step=frame_step, keep=keep, augment=augment
        )

    @property
    def takes_sequences(self) -> bool:
        """Whether the network was trained on several scans at a time."""
        return self.encoder.time is not None or (self.frames or 1) > 1

    def nothing(self, cloud: PointCloud, source: str = "") -> Prediction:
        """The prediction for a cloud without points."""
        empty = np.zeros(0, np.uint8), np.zeros(0, np.float32)
        return Prediction(cloud, *empty, self.names, self.colors, model=self.name, source=source)

    def labelled(
        self,
        cloud: PointCloud,
        scored: Iterable[Scored],
        *,
        source: str = "",
        seconds: dict[str, float] | None = None,
        kept: str = "",
    ) -> Prediction:
        """The prediction for `cloud` by the mean of the probabilities that runs of the network give."""
        took = {**(seconds or {}), "encode": 0.0, "network": 0.0}
        runs = iter(scored)
        first = last = next(runs)
        tiles, overlap, count = first.tiles, first.overlap, 1
        total: torch.Tensor | None = None
        while True:
            took["encode"] += last.encode
            took["network"] += last.network
            following = next(runs, None)
            if following is None:
                break
            if total is None:
                total = first.scores[first.rows]
            last, count = following, count + 1
            total += last.scores[last.rows].to(total.device)
            overlap = last.overlap if tiles == 1 else min(overlap, last.overlap)
            tiles = max(tiles, last.tiles)
        start = time.perf_counter()
        best = (first.scores if total is None else total / count).max(dim=1)
        labels, scores = best.indices.to(torch.uint8), best.values
        if total is None:
            labels, scores = labels[first.rows], scores[first.rows]
        prediction = Prediction(
            cloud,
            labels.cpu().numpy(),
            scores.cpu().numpy(),
            self.names,
            self.colors,
            voxels=first.sites,
            seconds=took,
            model=self.name,
            source=source,
            method=Method(
                precision=self.runner.precision,
                augment=count,
                tiles=tiles,
                overlap=overlap,
                context=first.context,
                frames=first.frames,
                kept=kept,
            ),
        )
        took["network"] += time.perf_counter() - start
        return prediction

    def check_extent(self, cloud: PointCloud, moved: NDArray[np.float64] | None = None) -> None:
        """Sites of `cloud`, `moved` by metres ``[3]``, are integers that the engine has.

        Raises:
            ValueError: they are not.
        """
        reach = float(np.abs(cloud.points).max(initial=0))
        reach += 0 if moved is None else float(np.linalg.norm(moved))
        if reach / self.encoder.voxel_size >= SITE_LIMIT:
            raise ValueError(
                f"{self.name or 'Pipeline'}: points lie {reach:.3g} m from zero, more than int32 "
                f"sites of {self.encoder.voxel_size:g} m reach; crop the cloud or move its origin"
            )

    def _with_frames(self, cloud: PointCloud) -> tuple[PointCloud, int]:
        """The cloud with the time that the encoder asks for, and how many scans it is."""
        if "frame" in cloud.attributes:
            return cloud, len(np.unique(cloud.attributes["frame"]))
        if self.encoder.time is None or "age" in cloud.attributes:
            return cloud, 1
        warnings.warn(
            f"{self.name or 'the network'} was trained on {self.frames or 'several'} scans at a time and "
            "sees one alone: expect poorer labels; give the scans before with their poses "
            "(Pipeline.stream)",
            stacklevel=3,
        )
        newest = np.full(len(cloud), (self.frames or 1) - 1, np.int16)
        return cloud.with_attributes({"frame": newest, "age": np.zeros(len(cloud), np.float32)}), 1


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
    if args.get("dim", encoder.dim) != encoder.dim:
        raise ValueError(f"the network has {args['dim']} axes, the encoder gives {encoder.dim}")
    scored = args.get("num_classes", classes)
    if scored != classes:
        raise ValueError(f"the network gives {scored} scores for {classes} classes")


def load(
    name: str | PathLike[str],
    device: str = "auto",
    *,
    precision: Precision = "float32",
    memory: int | None = None,
) -> Pipeline:
    """A pipeline from the name of a bundled model or from a model file.

    Args:
        name: ``"street-minkunet"``, or the path of a ``.safetensors`` file that a training wrote.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: of the products: ``float32``, ``bfloat16`` or ``float16``; sums, statistics and
            probabilities stay float32.
        memory: bytes that the network may take; by default half of what is free. A larger cloud is
            cut into tiles.

    Raises:
        FileNotFoundError: there is no such model; names the bundled ones.
        FormatError: the file is no model file of this package or does not fit its network.
        ValueError: the device cannot be used, or the precision is unknown.
    """
    check_options(precision, memory)
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
        frames, step = metadata.get("frames"), int(metadata.get("frame_step", 1))
        frames = None if frames is None else int(frames)
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
            frames=frames,
            frame_step=step,
            precision=precision,
            memory=memory,
        )
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[:2]
        raise FormatError(
            path, f"does not fit its network ({' '.join(first)})", "export it again"
        ) from None


__all__ = ["Pipeline", "Prediction", "bundled_models", "load"]
