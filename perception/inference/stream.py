"""A running sequence: each new scan is labelled with the scans before it in mind."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from perception.datasets.encode import Encoder
from perception.geometry import as_pose
from perception.inference.causal import FrameByFrame, Memory, why_not_causal
from perception.inference.prediction import Prediction, Scored
from perception.inference.runner import Runner
from perception.inference.variants import Variant, variants
from perception.inference.window import Frame, Lattice, joined
from perception.io import PointCloud

__all__ = ["Keep", "StreamingSegmenter"]

Keep = Literal["auto", "layers", "frames"]


class Applied(Protocol):
    """What a stream needs of a `perception.Pipeline`."""

    name: str
    net: nn.Module
    encoder: Encoder
    device: torch.device
    runner: Runner
    frames: int | None
    frame_step: int

    def nothing(self, cloud: PointCloud, source: str = "") -> Prediction: ...
    def check_extent(self, cloud: PointCloud, moved: NDArray[np.float64] | None = None) -> None: ...
    def labelled(
        self, cloud: PointCloud, scored: Iterable[Scored], *, source: str = "", kept: str = ""
    ) -> Prediction: ...


class StreamingSegmenter:
    """Labels the scans of a drive as they come.

    What is kept of the past is one of two things; the labels are those of one run of the network on
    all frames that it names, in the lattice of the drive's first scan (`Lattice`):

    - ``"frames"``: sites and features of the last frames, as many as in training. The network runs on
      all of them for each scan: a kernel with taps on both sides of a frame changes the results of
      the past with every scan, so nothing that it computed can be kept.
    - ``"layers"``: of a network that never looks ahead (``kernel="causal"``, no stride along time),
      what its layers were given for the frames before. The past never changes, so a scan
      costs about what a single one does. The labels are those of one run on **all** frames since the
      drive began: layer upon layer the network looks further back than the frames of a training sample.

    Args:
        pipeline: a `perception.Pipeline` of a network over space and time (`Encoder.time`), or over
            several merged scans.
        frames: scans that the network sees at once; by default as in training. With ``"layers"`` it
            has no say.
        frame_step: every how manieth scan of the drive these are; by default as in training.
        keep: ``"layers"``, ``"frames"``, or ``"auto"``: layers where that is exact and the first scan
            fits into the memory, for with layers it is not cut into tiles.
        augment: turned copies, each a stream of its own, whose probabilities are averaged.
        period: seconds between two scans, where they come without times.

    Attributes:
        keep: what is kept.
        reason: why layers are not, as far as that was looked at.

    Raises:
        ValueError: layers are asked for and would not be exact; the number of frames is not known, or
            not positive.
    """

    def __init__(
        self,
        pipeline: Applied,
        *,
        frames: int | None = None,
        frame_step: int | None = None,
        keep: Keep = "auto",
        augment: int = 1,
        period: float = 0.1,
    ) -> None:
        if keep not in ("auto", "layers", "frames"):
            raise ValueError(
                f'StreamingSegmenter: keep={keep!r}; give "auto", "layers" or "frames"'
            )
        self.pipeline = pipeline
        self.reason = "" if keep == "frames" else _why_not_layers(pipeline)
        if keep == "layers" and self.reason:
            raise ValueError(
                f'{pipeline.name or "the network"} cannot keep layers: {self.reason}; use keep="frames"'
            )
        self.keep = "frames" if keep == "frames" or self.reason else "layers"
        frames = pipeline.frames if frames is None else frames
        if self.keep == "frames" and frames is None:
            raise ValueError(
                f"{pipeline.name or 'the model'}: does not say how many frames it was trained on; give "
                "frames= (perception infer --frames)"
            )
        # Layers of a scan that does not fit cannot be cut into tiles, sites of frames can.
        self._may_change = keep == "auto" and frames is not None
        self.frames = 1 if frames is None else int(frames)
        self.frame_step = int(pipeline.frame_step if frame_step is None else frame_step)
        if self.frames < 1 or self.frame_step < 1:
            raise ValueError(
                f"StreamingSegmenter: frames={self.frames}, frame_step={self.frame_step} must be positive"
            )
        self.period = period
        self.frame_by_frame = FrameByFrame(pipeline.net) if self.keep == "layers" else None
        self._variants = variants(augment)
        self.reset()

    def reset(self) -> None:
        """Forgets the drive: the next scan is the first of another."""
        self._number = -1
        self._streams: list[_Stream] = []

    def skip(self) -> None:
        """Leaves out a scan of the drive that cannot be read: the next one is two after the last."""
        self._number += 1

    def kept_bytes(self) -> int:
        """Bytes of the features that are kept of the past."""
        layers = sum(memory.bytes() for stream in self._streams for memory in stream.memories)
        frames = [kept.encoded for stream in self._streams for kept in stream.frames.values()]
        return layers + sum(encoded.features.nbytes + encoded.coords.nbytes for encoded in frames)

    def __repr__(self) -> str:
        seen = self._number + 1
        return f"StreamingSegmenter({self.pipeline.name!r}, keeps {self.keep}, {seen} scans seen)"

    def push(
        self,
        cloud: PointCloud | ArrayLike,
        pose: ArrayLike,
        *,
        time: float | None = None,
        source: str = "",
    ) -> Prediction:
        """Labels the next scan of the drive.

        Args:
            cloud: the scan in its sensor's frame, or an array ``[N, 3+]``.
            pose: ``[4, 4]`` or ``[3, 4]``, world_from_sensor.
            time: seconds; by default `cloud.time`.
            source: a name for it.

        Returns:
            The prediction, a label for every point of the scan. `method` says what it rests on.

        Raises:
            ValueError: the pose is no rigid motion, or the scan has moved out of the lattice's reach.
        """
        if not isinstance(cloud, PointCloud):
            cloud = PointCloud.from_array(cloud)
        place = as_pose(pose)
        time = cloud.time if time is None else time
        if not self._streams:
            self._streams = [_Stream(self, turn, place) for turn in self._variants]
        self._number += 1
        if len(cloud) == 0:
            return self.pipeline.nothing(cloud, source)
        self.pipeline.check_extent(cloud, place[:3, 3] - self._streams[0].anchor[:3, 3])
        if self._may_change and self.keep == "layers":
            self._may_change = False
            if not self._streams[0].fits(cloud, place):
                self.keep, self.reason = "frames", "a scan does not fit into the memory at once"
        scored = (stream.push(cloud, place, time, self._number) for stream in self._streams)
        return self.pipeline.labelled(cloud, scored, source=source, kept=self.keep)


class _Stream:
    """The sequence as one of the turned copies sees it."""

    def __init__(self, of: StreamingSegmenter, turn: Variant, anchor: NDArray[np.float64]) -> None:
        self.of, self.anchor = of, anchor
        pipeline = of.pipeline
        self.lattice = Lattice(
            pipeline.encoder, anchor, turn.motion(), pipeline.runner.needs_points
        )
        self.frames: dict[int, Frame] = {}
        # One memory for each of the scans between two that the network sees.
        self.memories = [Memory() for _ in range(of.frame_step)]
        self._seen = [0] * of.frame_step

    def fits(self, cloud: PointCloud, pose: NDArray[np.float64]) -> bool:
        """Whether the network can be given a scan at once."""
        return self.of.pipeline.runner.fits(self.lattice.frame(cloud, pose).encoded)

    def push(
        self, cloud: PointCloud, pose: NDArray[np.float64], time: float | None, number: int
    ) -> Scored:
        start = clock.perf_counter()
        frame = self.lattice.frame(cloud, pose, time)
        if self.of.keep == "layers":
            return self._by_layers(frame, number, start)
        step, oldest = self.of.frame_step, number - (self.of.frames - 1) * self.of.frame_step
        self.frames = {n: kept for n, kept in self.frames.items() if n >= oldest}
        self.frames[number] = frame
        seen = [n for n in self.frames if (number - n) % step == 0]
        encoded = joined(
            [self.frames[n] for n in seen],
            # The newest has the highest number of the training, whichever are there.
            [self.of.frames - 1 - (number - n) // step for n in seen],
            self.of.pipeline.encoder,
            period=self.of.period * step,
        )
        return self.of.pipeline.runner(encoded, len(cloud), start, frames=len(seen))

    def _by_layers(self, frame: Frame, number: int, start: float) -> Scored:
        turn, phase = divmod(number, self.of.frame_step)
        net, memory = self.of.frame_by_frame, self.memories[phase]
        assert net is not None
        in_space = replace(frame.encoded, coords=frame.encoded.coords[:, :-1].contiguous())
        scored = self.of.pipeline.runner(
            in_space,
            len(in_space.point_to_voxel),
            start,
            frames=self._seen[phase] + 1,
            instead=lambda x, *points: net(x, turn, memory, *points),
        )
        self._seen[phase] += 1
        return scored


def _why_not_layers(pipeline: Applied) -> str:
    encoder = pipeline.encoder
    if encoder.time is None:
        return "its sites have no time"
    if encoder.time != "frame":
        return "its sites have times in seconds, not frames"
    if encoder.age_channel is not None:
        return 'the feature "age" of a frame changes with every scan'
    return why_not_causal(pipeline.net, encoder.channels, pipeline.device)
