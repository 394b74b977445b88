"""What a data set yields: one scan with everything that is known about it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from perception.geometry import Boxes3D, Camera
from perception.io import FormatError, PointCloud

__all__ = ["IGNORE", "Image", "Sample", "Scans"]

#: Label of points that take no part in training or evaluation.
IGNORE = 255


@dataclass(slots=True)
class Image:
    """A picture with its camera; the pixels stay in the file until somebody asks for them.

    Attributes:
        camera: its calibration; the pose is in the frame of the sample's cloud (or the world, in a
            collection of posed images).
        source: the file, or ``[H, W, 3] uint8`` RGB or ``[H, W, 4]`` RGBA pixels.
        depth: ``[H, W] float32`` metres along the camera's z axis, 0 = unknown; or None.
        time: seconds on the clock of the cloud, or None.
        name: which camera, ``"front"``.
    """

    camera: Camera
    source: Path | NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    time: float | None = None
    name: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """``[H, W, 3]`` or ``[H, W, 4] uint8``.

        Raises:
            FileNotFoundError: the file is not there.
            FormatError: it is no image, or of another size than the camera says.
        """
        if isinstance(self.source, np.ndarray):
            return self.source
        try:
            # From memory: of a file, a forged length makes the decoder ask for gigabytes.
            with PILImage.open(io.BytesIO(self.source.read_bytes())) as image:
                mode = "RGBA" if "A" in image.getbands() else "RGB"
                values = np.asarray(image.convert(mode))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.source}: no such image; check the path") from None
        except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
            raise FormatError(
                self.source, f"is no readable image ({error})", "copy it again"
            ) from None
        if values.shape[:2] != (self.camera.height, self.camera.width):
            raise FormatError(
                self.source,
                f"has {values.shape[1]} x {values.shape[0]} pixels, its camera says "
                f"{self.camera.width} x {self.camera.height}",
                "use the calibration of this size, or Camera.resized",
            )
        return values


@dataclass(slots=True)
class Sample:
    """One point cloud with its annotations.

    Attributes:
        cloud: points and measured attributes in the LiDAR frame (x forward, y left, z up).
        labels: ``[N] uint8`` class ids, 255 = ignore; None when not annotated.
        instances: ``[N] int32``: the track id of the object a point belongs to, 0 = none.
        boxes: boxes of the objects, in the frame of the cloud.
        pose: ``[4, 4] float64`` ``world_from_sensor``.
        name: a stable identifier, used for output files.
        images: pictures taken with the scan; their cameras' poses are in the frame of the cloud.
        time: seconds, on a clock that the frames of a sequence share; None where unknown.
        flow: ``[N, 3] float32``, metres, axes of the cloud: how far each point moves over ground until
            the next frame; zero where nothing but the sensor moves. Or None.

    Raises:
        ValueError: an annotation does not have one entry a point, or the pose is not 4x4.
    """

    cloud: PointCloud
    labels: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None
    boxes: Boxes3D | None = None
    pose: NDArray[np.float64] | None = None
    name: str = ""
    images: tuple[Image, ...] = field(default=())
    time: float | None = None
    flow: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.cloud.points)
        for name, width in (("labels", ()), ("instances", ()), ("flow", (3,))):
            value = getattr(self, name)
            if value is not None and value.shape != (n, *width):
                raise ValueError(
                    f"Sample: {name} has shape {list(value.shape)}, the cloud {n} points"
                )
        if self.pose is not None and self.pose.shape != (4, 4):
            raise ValueError(f"Sample: pose must be [4, 4], got {list(self.pose.shape)}")


@runtime_checkable
class Scans(Protocol):
    """A data set: samples by number, frames of one drive one after the other.

    Attributes:
        classes: names of the point labels 0, 1, …; empty when points have none.
        colors: ``[len(classes), 3] uint8``.
        box_classes: names of the box labels 0, 1, …; empty when there are no boxes.
        sequences: the drives: ranges of numbers whose frames follow each other in time.
        names: one stable name a sample, known without reading it.
    """

    classes: tuple[str, ...]
    colors: NDArray[np.uint8]
    box_classes: tuple[str, ...]
    sequences: Sequence[range]
    names: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
