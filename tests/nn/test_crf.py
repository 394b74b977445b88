"""The trilateral CRF against a mean field in plain Python, and what it must do to labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from checks import assert_close, f64, here, random_sites, randomized

from perception.nn import TrilateralCRF
from perception.sparse import SparseTensor

pytestmark = pytest.mark.usefixtures("device")


def softmax(row: np.ndarray) -> np.ndarray:
    e = np.exp(row - row.max())
    return e / e.sum()


def mean_field(crf: TrilateralCRF, scores: SparseTensor, color: torch.Tensor) -> np.ndarray:
    """The definition, with a dictionary of cells and loops over pairs of sites."""
    unary, colors, dim = f64(scores.features), f64(color), scores.dim
    cells: dict[tuple[int, ...], list[int]] = {}
    cell_of = []
    for i, (batch, *site) in enumerate(scores.coords.tolist()):
        at = [c * s for c, s in zip(site, scores.stride, strict=True)] + colors[i].tolist()
        cell = (batch, *(math.floor(v / edge) for v, edge in zip(at, crf.sigma, strict=True)))
        cells.setdefault(cell, []).append(i)
        cell_of.append(cell)
    assert all(len(c) == 1 + len(crf.sigma) for c in cell_of)
    assert dim + colors.shape[1] == len(crf.sigma)
    taps = [tuple(o) for o in crf.between.offsets.tolist()]
    weight, within = f64(crf.between.weight), f64(crf.within)
    out = unary.copy()
    for _ in range(crf.iterations):
        belief = np.stack([softmax(row) for row in out])
        out = unary.copy()
        for i, (batch, *cell) in enumerate(cell_of):
            for tap, w in zip(taps, weight, strict=True):
                there = cells.get((batch, *(c + o for c, o in zip(cell, tap, strict=True))))
                if there is not None:
                    out[i] += w.T @ belief[there].mean(0)
            beside = [j for j in cells[(batch, *cell)] if j != i]
            if beside:
                out[i] += within.T @ belief[beside].mean(0)
    return out


def case(
    dim: int, colors: int, classes: int = 3, count: int = 60, **options: object
) -> tuple[TrilateralCRF, SparseTensor, torch.Tensor]:
    torch.manual_seed(1)
    coords = random_sites(count, dim, low=-3, high=3)
    scores = SparseTensor(here(torch.randn(len(coords), classes).double()), coords)
    color = here(torch.rand(len(coords), colors).double() - 0.3)
    crf = TrilateralCRF(classes, sigma_color=[0.3] * colors, dim=dim, **options)  # type: ignore[arg-type]
    return randomized(crf), scores, color


@pytest.mark.parametrize(
    ("dim", "colors", "kernel", "sigmas"),
    [
        (3, 0, "cube", {}),
        (3, 1, "hybrid", {}),
        (4, 1, "cross", {"sigma_space": 1.5}),
        (4, 1, "hybrid", {"sigma_space": 2.0, "sigma_time": 2.0}),
        (3, 3, "cross", {"sigma_space": 3.0}),
        (4, 3, "cross", {}),
        (4, 3, "hybrid", {"sigma_space": 2.0, "sigma_time": 3.0}),
    ],
)
def test_equals_the_mean_field_in_plain_python(
    dim: int, colors: int, kernel: str, sigmas: dict
) -> None:
    crf, scores, color = case(dim, colors, kernel=kernel, iterations=3, **sigmas)
    y = crf(scores, color)
    assert y.sites is scores.sites
    assert_close(y.features, mean_field(crf, scores, color), 1e-12, "scores")


def test_all_2186_neighbours_of_seven_axes() -> None:
    crf, scores, color = case(4, 3, kernel="cube", iterations=2, count=24, sigma_space=2.0)
    assert crf.between.num_taps == 3**7 - 1
    assert_close(crf(scores, color).features, mean_field(crf, scores, color), 1e-12, "scores")


def test_taps_of_the_kernels() -> None:
    def taps(**options: object) -> list[list[int]]:
        crf = TrilateralCRF(2, sigma_color=[1.0] * 3, dim=4, **options)  # type: ignore[arg-type]
        return crf.between.offsets.tolist()

    assert len(taps(kernel="cross")) == 14  # the 15 of the published kernel without the cell itself
    assert len(taps()) == 26 + 8
    assert [0] * 7 not in taps(kernel="cube")


def test_cells_too_far_apart_for_64_bits_are_told_apart() -> None:
    """Sites and colours over 2^30 steps an axis: a cell has 8 x 31 bits, and its neighbours are found."""
    torch.manual_seed(0)
    far = 2**29
    corners = list(itertools.product((-far, far), repeat=4))
    near = [(*c[:3], c[3] + 1) for c in corners]
    coords = here(torch.tensor([(0, *c) for c in corners + near], dtype=torch.int32))
    color = here(torch.tensor([[c[0], -c[1], c[2]] for c in corners + near]).double())
    scores = SparseTensor(here(torch.randn(len(coords), 3).double()), coords)
    crf = randomized(TrilateralCRF(3, sigma_color=[1.0] * 3, dim=4, iterations=2))
    y = crf(scores, color).features
    assert_close(y, mean_field(crf, scores, color), 1e-12, "scores")
    assert bool((y != scores.features).any(1).all())  # every site has met its neighbour


def test_strided_scores_lie_where_their_voxels_begin() -> None:
    crf, scores, color = case(3, 1, iterations=2, sigma_space=4.0)
    coarse = SparseTensor(scores.features, scores.coords, stride=(2, 4, 2))
    assert_close(crf(coarse, color).features, mean_field(crf, coarse, color), 1e-12, "scores")


@pytest.mark.parametrize("sigma_space", [1.0, 2.0])
def test_gradients(sigma_space: float) -> None:
    crf, scores, color = case(4, 1, count=12, iterations=2, sigma_space=sigma_space)

    def run(u: torch.Tensor, between: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
        weights = {"between.weight": between, "within": within}
        return torch.func.functional_call(crf, weights, (scores.replace(u), color)).features

    u = scores.features.clone().requires_grad_()
    inputs = (u, crf.between.weight, crf.within)
    assert torch.autograd.gradcheck(run, inputs, atol=1e-7)
    assert torch.autograd.gradgradcheck(run, inputs, atol=1e-6, fast_mode=True)


def test_starts_as_smoothing_that_cleans_a_noisy_labelling() -> None:
    torch.manual_seed(0)
    side = 24
    grid = torch.cartesian_prod(*[torch.arange(n) for n in (1, side, side, 1)])
    truth = (grid[:, 1] >= side // 2).long() + 2 * (grid[:, 2] >= side // 2).long()
    color = (truth.float()[:, None] + 0.5) * 0.2 + 0.02 * torch.randn(side**2, 1)
    noisy = torch.where(torch.rand(side**2) < 0.25, torch.randint(0, 4, (side**2,)), truth)
    unary = 2.0 * torch.nn.functional.one_hot(noisy, 4).float()
    scores = SparseTensor(here(unary), here(grid.int()))
    crf = here(TrilateralCRF(4, sigma_color=[0.2], kernel="hybrid", smoothing=12.0))
    wrong = (noisy != truth).float().mean()
    after = crf(scores, here(color)).features.argmax(1).cpu()
    assert wrong > 0.15
    assert (after != truth).float().mean() < wrong / 10


def test_colour_keeps_regions_apart() -> None:
    """The few sites of another colour keep their class, which without the colour they would lose."""
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 7, 7, 1)]).int()
    inside = ((coords[:, 1] - 3).abs() <= 0) & ((coords[:, 2] - 3).abs() <= 0)
    unary = here(torch.nn.functional.one_hot(inside.long(), 2).float())
    scores = SparseTensor(unary, here(coords))
    color = here(inside.float()[:, None])
    options = {"kernel": "hybrid", "smoothing": 30.0}
    crf = here(TrilateralCRF(2, sigma_color=[0.3], **options))  # type: ignore[arg-type]
    blind = here(TrilateralCRF(2, sigma_color=[], **options))  # type: ignore[arg-type]
    assert torch.equal(crf(scores, color).features.argmax(1), here(inside.long()))
    assert not blind(scores, color[:, :0]).features.argmax(1).any()


def test_without_smoothing_it_starts_as_the_identity() -> None:
    _, scores, color = case(4, 1)
    crf = here(TrilateralCRF(3, sigma_color=[0.3], dim=4, smoothing=0.0, sigma_space=2.0).double())
    assert torch.equal(crf(scores, color).features, scores.features)


def test_messages_are_bounded_whatever_the_scores_and_iterations() -> None:
    crf, scores, color = case(3, 1, iterations=50, sigma_space=2.0)
    limit = crf.between.weight.abs().amax(1).sum(0) + crf.within.abs().amax(0)
    for scale in (0.0, 1.0, 1e6):
        unary = scores.replace(scores.features * scale)
        moved = (crf(unary, color).features - unary.features).abs()
        assert bool((moved <= limit * (1 + 1e-9) + 1e-9 * scale).all())


def test_a_lone_site_keeps_its_scores() -> None:
    scores = SparseTensor(here(torch.randn(1, 3)), here(torch.tensor([[0, 5, 5, 5]]).int()))
    crf = here(TrilateralCRF(3, sigma_color=[1.0], smoothing=9.0))
    assert torch.equal(crf(scores, here(torch.zeros(1, 1))).features, scores.features)


def test_no_sites() -> None:
    scores = SparseTensor(here(torch.zeros(0, 3)), here(torch.zeros(0, 4).int()))
    crf = here(TrilateralCRF(3, sigma_color=[1.0]))
    assert crf(scores, here(torch.zeros(0, 1))).features.shape == (0, 3)


def test_order_of_sites_and_other_samples_do_not_matter() -> None:
    crf, scores, color = case(4, 1, iterations=3, sigma_space=2.0)
    y = crf(scores, color).features
    order = here(torch.randperm(scores.num_sites))
    shuffled = SparseTensor(scores.features[order], scores.coords[order])
    assert_close(crf(shuffled, color[order]).features, y[order], 1e-12, "shuffled")
    rows = scores.coords[:, 0] == 1
    coords = scores.coords[rows].clone()
    coords[:, 0] = 0
    alone = crf(SparseTensor(scores.features[rows], coords), color[rows])
    assert_close(alone.features, y[rows], 1e-12, "alone")


def test_learns_which_classes_meet() -> None:
    """Stripes 0, 1, 0, 1: only a compatibility that is no smoothing tells the blank sites' classes."""
    torch.manual_seed(0)
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 16, 4, 1)]).int()
    truth = here((coords[:, 1] % 2).long())
    blank = torch.rand(len(coords)) < 0.3
    unary = 2.0 * torch.nn.functional.one_hot(truth.cpu(), 2).float() * ~blank[:, None]
    scores = SparseTensor(here(unary), here(coords))
    color = here(torch.zeros(len(coords), 1))
    crf = here(TrilateralCRF(2, sigma_color=[1.0], iterations=3))
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(crf(scores, color).features, truth).backward()
        optimizer.step()
    assert torch.equal(crf(scores, color).features.argmax(1), truth)


def test_runs_under_autocast_close_to_float32() -> None:
    crf, scores, color = case(3, 1, iterations=3, sigma_space=2.0)
    crf, scores = crf.float(), scores.to(torch.float32)
    exact = crf(scores, color).features
    with torch.autocast(scores.device.type, torch.bfloat16):
        y = crf(scores, color).features
    assert y.dtype == torch.float32
    assert_close(y, exact, 0.05, "scores")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 5}, "3 axes, or 4"),
        ({"dim": 4, "sigma_color": [1.0] * 4}, "more than 7"),
        ({"sigma_color": [0.0]}, "must be positive"),
        ({"sigma_space": float("inf")}, "must be positive"),
        ({"kernel": "ball"}, "kernel='ball'"),
        ({"iterations": 0}, "iterations=0"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrilateralCRF(2, **{"sigma_color": [1.0], **options})


def test_wrong_inputs_are_named() -> None:
    crf, scores, color = case(3, 1)
    with pytest.raises(ValueError, match=r"color has shape \(\d+, 2\)"):
        crf(scores, color.expand(-1, 2))
    with pytest.raises(ValueError, match="not finite"):
        crf(scores, color * float("nan"))
    with pytest.raises(ValueError, match="outside int32"):
        crf(scores, color + 1e12)
    with pytest.raises(ValueError, match="3 classes and the scores 2"):
        crf(scores.replace(scores.features[:, :2]), color)
    with pytest.raises(TypeError, match="takes a SparseTensor"):
        crf(scores.features, color)
