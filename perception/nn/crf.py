"""A conditional random field over sites, space, time and colour alike: inference by sparse convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from perception.nn.conv import Conv, check_input
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import segment_sum, unique_sites
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor

__all__ = ["TrilateralCRF"]

Kernel = Literal["cross", "hybrid", "cube"]


class _Cells(NamedTuple):
    """N sites in M cells of the lattice.

    Attributes:
        sites: of the cells, in lexicographic order.
        of_site: ``[N] int64``, the cell of each site.
        members, ptr: ``[N] int32, [M + 1] int64``: the sites of each cell.
        counts: ``[M, 1]``, how many these are.
    """

    sites: Sites
    of_site: Tensor
    members: Tensor
    ptr: Tensor
    counts: Tensor


class TrilateralCRF(nn.Module):
    """Mean-field inference in a trilateral-stationary conditional random field (Choy, Gwak, Savarese,
    *4D Spatio-Temporal ConvNets*, CVPR 2019, section 5).

    A site with the position p (base voxels), the time t and the colour c lies in the cell
    ``floor((p / sigma_space, t / sigma_time, c / sigma_color))`` of a lattice: 7 axes for three
    colours of a sequence, 5 for the intensity, 4 for the intensity of a single scan. The pairwise
    potential of two sites is a matrix ``W[o] [C, C]`` that depends on the difference o of their cells
    alone, and is learned. With Q the site's class probabilities, starting at softmax(U), one
    iteration is ::

        S[i] = U[i] + sum over o != 0 of W[o].T @ mean(Q[j], j in cell(i) + o)
                    + W[0].T @ mean(Q[j], j in cell(i), j != i)
        Q[i] = softmax(S[i])

    over the cells that exist; the result is S. Every site keeps its own U, and none gets a message
    from itself. Where every site has a cell of its own, this is the published algorithm without
    its centre tap. The weights are shared by the iterations. Q sums to one, so that
    ``|S - U| <= sum over o of max |W[o]|`` after any number of iterations.

    The weights start as Potts smoothing: W[o] is the identity times ``smoothing`` times a Gaussian of
    ``|o|``, whose taps sum to 1.

    Args:
        num_classes: scores of a site, C.
        sigma_color: edge of a cell along each colour axis, in units of the colour; one number an axis.
        dim: axes of the sites, 3, or 4 with the time as the last.
        sigma_space: edge of a cell in voxels of stride 1.
        sigma_time: edge of a cell along the time axis, in time steps of stride 1.
        kernel: neighbours of a cell: ``"cross"`` (one step along one axis, as published), ``"hybrid"``
            (cube over space, cross over time and colours) or ``"cube"`` (3^D - 1).
        iterations: of the mean field.
        smoothing: how many logits all neighbours together add to the class on which they agree; 0
            starts as the identity.

    Raises:
        ValueError: more than 7 axes, or a sigma that is not positive.

    >>> import torch, perception
    >>> x = perception.SparseTensor(torch.randn(2, 5), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]]).int())
    >>> crf = perception.nn.TrilateralCRF(5, sigma_color=[0.1])
    >>> crf(x, torch.tensor([[0.42], [0.47]]))
    SparseTensor(2 sites, 5 channels, 3D, stride (1, 1, 1), batch 1, torch.float32, cpu)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        sigma_color: Sequence[float],
        dim: int = 3,
        sigma_space: float = 1.0,
        sigma_time: float = 1.0,
        kernel: Kernel = "hybrid",
        iterations: int = 10,
        smoothing: float = 8.0,
    ) -> None:
        super().__init__()
        if dim not in (3, 4):
            raise ValueError(f"TrilateralCRF: dim={dim}; sites have 3 axes, or 4 with time")
        sigma = (sigma_space,) * 3 + (sigma_time,) * (dim - 3) + tuple(sigma_color)
        axes = len(sigma)
        if axes > 7:
            raise ValueError(
                f"TrilateralCRF: {dim} axes and {len(sigma_color)} colours are more than 7"
            )
        if not all(0 < edge < float("inf") for edge in sigma):
            raise ValueError(
                f"TrilateralCRF: the edges of a cell are {sigma}; all must be positive"
            )
        if iterations < 1:
            raise ValueError(f"TrilateralCRF: iterations={iterations}; give a positive number")
        self.num_classes = num_classes
        self.dim = dim
        self.sigma = tuple(float(edge) for edge in sigma)
        self.iterations = iterations
        self.smoothing = smoothing
        offsets = _neighbours(axes, kernel)
        self.between = Conv(num_classes, num_classes, bias=False, dim=axes, kernel=offsets)
        self.within = nn.Parameter(torch.empty(num_classes, num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Potts smoothing; see the class."""
        distance = self.between.offsets.float().square().sum(1)
        gauss = torch.exp(-distance / 2)
        share = self.smoothing / (1 + gauss.sum())
        with torch.no_grad():
            eye = torch.eye(self.num_classes, device=gauss.device)
            self.between.weight.copy_(share * gauss[:, None, None] * eye)
            self.within.copy_(share * eye)

    def forward(self, scores: SparseTensor, color: Tensor) -> SparseTensor:
        """
        Args:
            scores: ``[N, C]`` logits U, on sites of any stride.
            color: ``[N, F]`` floating, one row a site of ``scores``; no gradient goes there.

        Returns:
            Logits ``[N, C]`` on the same sites.

        Raises:
            ValueError: wrong shapes, a colour that is not finite, a cell outside int32.
        """
        check_input(self, scores)
        cells = self._cells(scores, color)
        unary = scores.features
        if torch.is_autocast_enabled(scores.device.type) and unary.dtype != torch.float64:
            unary = unary.float()
        others = (cells.counts - 1).clamp(min=1)[cells.of_site].to(unary.dtype)
        counts = cells.counts.to(unary.dtype)
        out = unary
        for _ in range(self.iterations):
            belief = _softmax(out)
            total = _Collect.apply(belief, cells)
            mean = SparseTensor._make(total / counts, cells.sites, ())
            beside = (_Spread.apply(total, cells) - belief) / others
            message = _Spread.apply(self.between(mean).features, cells)
            out = unary + message.to(unary.dtype) + (beside @ self.within).to(unary.dtype)
        return scores.replace(out)

    @torch.no_grad()
    def _cells(self, scores: SparseTensor, color: Tensor) -> _Cells:
        count, axes = scores.num_sites, len(self.sigma)
        if scores.dim != self.dim:
            raise ValueError(
                f"TrilateralCRF has dim={self.dim} and the scores are on {scores.dim} axes"
            )
        if scores.num_channels != self.num_classes:
            raise ValueError(
                f"TrilateralCRF has {self.num_classes} classes and the scores {scores.num_channels}"
            )
        if color.shape != (count, axes - self.dim):
            raise ValueError(
                f"TrilateralCRF: color has shape {tuple(color.shape)}; give [{count}, {axes - self.dim}]"
            )
        step = torch.tensor(scores.stride, device=scores.device)
        place = torch.cat([(scores.coords[:, 1:] * step).double(), color.double()], 1)
        cell = torch.floor(place / place.new_tensor(self.sigma))
        if not bool((cell.abs() < 2**31 - 1).all()):  # also where it is NaN
            raise ValueError(
                "TrilateralCRF: a colour is not finite, or a cell lies outside int32; "
                "check the colours, or give larger sigmas"
            )
        coords, of_site, members, ptr = unique_sites(
            torch.cat([scores.coords[:, :1], cell.int()], 1)
        )
        sites = Sites(coords, (1,) * axes, scores.batch_size, is_sorted=True)
        return _Cells(sites, of_site, members, ptr, ptr.diff()[:, None])

    def extra_repr(self) -> str:
        return (
            f"{self.num_classes}, dim={self.dim}, sigma={self.sigma}, iterations={self.iterations}"
        )


def _neighbours(axes: int, kernel: str) -> Tensor:
    """Displacements of the cells around a cell, ``[K, axes] int32``, the cell itself left out."""
    if kernel not in ("cross", "hybrid", "cube"):
        raise ValueError(f'TrilateralCRF: kernel={kernel!r}; give "cross", "hybrid" or "cube"')
    offsets = kernel_offsets("cross" if kernel == "cross" else "cube", 3, dim=axes)
    moved = offsets != 0
    if kernel == "hybrid":
        elsewhere = moved[:, 3:].sum(1)
        offsets = offsets[(elsewhere == 0) | ((elsewhere == 1) & ~moved[:, :3].any(1))]
    return offsets[(offsets != 0).any(1)]


def _softmax(scores: Tensor) -> Tensor:
    # torch.softmax over so few channels takes six times as long on a CPU.
    e = (scores - scores.detach().amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)


class _Collect(torch.autograd.Function):
    """The sum over the sites of each cell, ``[N, C] -> [M, C]``, in a fixed order."""

    @staticmethod
    def forward(ctx: Any, of_sites: Tensor, cells: _Cells) -> Tensor:
        ctx.cells = cells
        return segment_sum(of_sites, cells.members, cells.ptr)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grad, ctx.cells), None


class _Spread(torch.autograd.Function):
    """The value of each site's cell, ``[M, C] -> [N, C]``: the adjoint of `_Collect`."""

    @staticmethod
    def forward(ctx: Any, of_cells: Tensor, cells: _Cells) -> Tensor:
        ctx.cells = cells
        return of_cells.index_select(0, cells.of_site)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Collect.apply(grad, ctx.cells), None
