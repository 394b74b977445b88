"""Several LiDARs and cameras on one vehicle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from perception.datasets.street.camera import Lens
from perception.datasets.street.sensor import Lidar, Sensor, SolidState

__all__ = ["RIGS", "Rig"]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What a vehicle carries.

    Attributes:
        lidars: at least one; the first is the main one, whose frame is the frame of the sample.
        cameras: may be none.

    Raises:
        ValueError: no LiDAR, or two cameras of one name.

    Example:
        >>> rig = Rig(lidars=(Sensor(), SolidState(x=2.0, height=0.7)))
        >>> len(rig.lidars), len(rig.cameras)
        (2, 0)
    """

    lidars: tuple[Lidar, ...]
    cameras: tuple[Lens, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.lidars) < 256:
            raise ValueError(f"Rig: {len(self.lidars)} LiDARs; give 1 to 255")
        names = [camera.name for camera in self.cameras]
        if len(set(names)) < len(names):
            raise ValueError(f"Rig: the cameras' names {names} must differ from each other")

    @property
    def main(self) -> Lidar:
        """The LiDAR whose frame is the frame of the sample."""
        return self.lidars[0]


def _around() -> tuple[Lens, ...]:
    """Six cameras, five of 70 degrees and one of 110 to the rear, as on the cars of nuScenes."""
    views = (
        ("front", 1.0, 0.0, 0.0, 70.0),
        ("front_left", 0.8, 0.5, 55.0, 70.0),
        ("front_right", 0.8, -0.5, -55.0, 70.0),
        ("back_left", 0.3, 0.5, 110.0, 70.0),
        ("back_right", 0.3, -0.5, -110.0, 70.0),
        ("back", -0.7, 0.0, 180.0, 110.0),
    )
    return tuple(
        Lens(
            name=name,
            x=x,
            y=y,
            height=1.55,
            yaw=math.radians(yaw),
            field_of_view=math.radians(view),
            size=(800, 450),
        )
        for name, x, y, yaw, view in views
    )


#: Rigs by name. "front": a 64-beam LiDAR and a wide camera, as on the car of KITTI. "surround":
#: 32 beams and six cameras, as in nuScenes. "solid-state": three rasters in front and at the
#: sides, a rosette to the rear, and a camera. "robotaxi": 128 beams on the roof and four small
#: rasters low at the sides.
RIGS: Final[dict[str, Rig]] = {
    "front": Rig(
        lidars=(Sensor(),),
        cameras=(Lens(name="front", x=0.27, y=0.06, height=1.65, size=(1242, 375)),),
    ),
    "surround": Rig(lidars=(Sensor.preset("spinning-32", height=1.84),), cameras=_around()),
    "solid-state": Rig(
        lidars=(
            SolidState(x=1.9, height=0.8, unit=1),
            SolidState(x=0.5, y=0.95, height=0.9, yaw=math.radians(90.0), unit=2),
            SolidState(x=0.5, y=-0.95, height=0.9, yaw=math.radians(-90.0), unit=3),
            SolidState.rosette(x=-2.0, height=0.9, yaw=math.pi, unit=4),
        ),
        cameras=(Lens(name="front", x=0.6, height=1.4),),
    ),
    "robotaxi": Rig(
        lidars=(
            Sensor.preset("spinning-128", height=2.0),
            *(
                SolidState(
                    x=x, y=y, height=0.7, yaw=math.radians(yaw), pitch=math.radians(8.0), unit=unit,
                    max_range=30.0, lines=40, pulses=40 * 600,
                )
                for unit, (x, y, yaw) in enumerate(
                    ((2.2, 0.0, 0.0), (0.6, 0.95, 90.0), (0.6, -0.95, -90.0), (-2.2, 0.0, 180.0)), 1
                )
            ),
        ),
        cameras=_around()[:3],
    ),
}  # fmt: skip
