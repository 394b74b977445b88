"""Random changes of a training scan that a real scan could show as well."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perception.datasets.sample import Sample


@dataclass(frozen=True)
class Augment:
    """Rotates, flips, scales, shifts and thins a scan; varies its intensity. Boxes do not follow.

    flip: probability of a mirror image (y to -y).
    rotation: largest turn about z in degrees, drawn from -rotation..rotation.
    scale: lower and upper bound of one factor on all coordinates.
    translation: largest shift along each axis in metres; moves the scan against the voxel grid.
    intensity_scale: lower and upper bound of a factor on the intensity.
    intensity_gamma: lower and upper bound of an exponent on the intensity: sensors differ in how
        they calibrate reflectance.
    missing_intensity: probability that the intensity reads zero, as in files without it.
    drop: largest share of points left out, drawn from 0..drop.
    """

    flip: float = 0.5
    rotation: float = 180.0
    scale: tuple[float, float] = (0.95, 1.05)
    translation: float = 0.2
    intensity_scale: tuple[float, float] = (0.8, 1.2)
    intensity_gamma: tuple[float, float] = (0.8, 1.25)
    missing_intensity: float = 0.1
    drop: float = 0.2

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A changed copy of `sample`; the same `rng` state gives the same copy."""
        cloud = sample.cloud
        keep = rng.random(len(cloud.points)) >= rng.uniform(0.0, self.drop)
        cloud = cloud[keep]
        points, attributes = cloud.points, dict(cloud.attributes)

        if rng.random() < self.flip:
            points[:, 1] *= -1.0
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]], np.float32)
        points = points @ turn * np.float32(rng.uniform(*self.scale))
        points += rng.uniform(-self.translation, self.translation, 3).astype(np.float32)

        gain, gamma = rng.uniform(*self.intensity_scale), rng.uniform(*self.intensity_gamma)
        missing = rng.random() < self.missing_intensity
        if "intensity" in attributes:
            changed = np.clip(gain * np.clip(attributes["intensity"], 0, 1) ** gamma, 0, 1)
            attributes["intensity"] = (changed * (not missing)).astype(np.float32)

        return replace(
            sample,
            cloud=cloud.replace(points=points, attributes=attributes),
            labels=None if sample.labels is None else sample.labels[keep],
            instances=None if sample.instances is None else sample.instances[keep],
            boxes=None,
            pose=None,
        )
