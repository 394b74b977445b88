"""MinkUNet whose scores a trilateral conditional random field makes consistent over space and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perception.models.minkunet import MinkUNet
from perception.nn import TrilateralCRF
from perception.nn.crf import Kernel
from perception.sparse import SparseTensor


class MinkUNetCRF(MinkUNet):
    """`MinkUNet`, then `TrilateralCRF` on its scores, trained end to end (Choy et al., CVPR 2019).

    The CRF's parameters are `crf.*`, all others have the names of `MinkUNet`, so that a trained
    network can be loaded with `strict=False` before the CRF is trained.

    Args:
        in_channels, num_classes: as `MinkUNet`.
        color: channels of the input that are the colour of a site: the intensity, or red, green, blue.
        sigma_color: edge of a lattice cell along each colour axis, in units of these features; one
            number for all, or one each. The published 12 of 255 is 0.047.
        sigma_space: edge of a cell in voxels.
        sigma_time: edge of a cell along the last axis of 4D sites, in time steps.
        crf_kernel: neighbours of a cell: "cross", "hybrid" or "cube".
        iterations: of the mean field.
        smoothing: logits that agreeing neighbours add before training; 0 starts as `MinkUNet`.
        options: those of `MinkUNet`.

    Shapes: as `MinkUNet`.

    Raises:
        ValueError: a channel that the input does not have; as `MinkUNet` and `TrilateralCRF`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        color: Sequence[int],
        sigma_color: float | Sequence[float],
        sigma_space: float = 1.0,
        sigma_time: float = 1.0,
        crf_kernel: Kernel = "hybrid",
        iterations: int = 10,
        smoothing: float = 8.0,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, **options)
        self.color = [int(channel) for channel in color]
        if not all(0 <= channel < in_channels for channel in self.color):
            raise ValueError(
                f"MinkUNetCRF: color={self.color} names channels that the {in_channels} of the input "
                "do not have"
            )
        sigmas = (
            [float(sigma_color)] * len(self.color)
            if isinstance(sigma_color, int | float)
            else [float(edge) for edge in sigma_color]
        )
        if len(sigmas) != len(self.color):
            raise ValueError(
                f"MinkUNetCRF: sigma_color={sigmas} for {len(self.color)} colours; give one number, "
                "or one each"
            )
        self.crf = TrilateralCRF(
            num_classes,
            sigma_color=sigmas,
            dim=self.args["dim"],
            sigma_space=sigma_space,
            sigma_time=sigma_time,
            kernel=crf_kernel,
            iterations=iterations,
            smoothing=smoothing,
        )
        self.args.update(
            color=self.color,
            sigma_color=sigmas,
            sigma_space=sigma_space,
            sigma_time=sigma_time,
            crf_kernel=crf_kernel,
            iterations=iterations,
            smoothing=smoothing,
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Class scores `[N, num_classes]` on the sites of `x` (features `[N, in_channels]`)."""
        scores: SparseTensor = self.crf(super().forward(x), x.features[:, self.color])
        return scores
