"""SPVCNN against the oracle and the published figures, with points at sites and with a cloud's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from checks import assert_close, f64, here, random_sites, random_tensor
from network_oracle import Rows, run, run_up, scrambled
from oracle import Site

import perception
from perception.models import SPVCNN, MinkUNet
from perception.sparse import SparseTensor

ON_BOTH_DEVICES = pytest.mark.usefixtures("device")
SMALL = (3, 4, 5, 5, 4)


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    return scrambled(SPVCNN(2, 3, **{"channels": SMALL, **options}))


def cloud(dim: int = 3, count: int = 90) -> SparseTensor:
    return random_tensor(random_sites(count, dim), 2, requires_grad=False)


def points_in(x: SparseTensor, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One to four points in every site of ``x``: positions and rows, in shuffled order."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, x.num_sites, (2 * x.num_sites,), generator=generator)
    rows = torch.cat([torch.arange(x.num_sites), rows])
    rows = rows[torch.randperm(len(rows), generator=generator)]
    place = torch.rand(len(rows), x.dim, generator=generator, dtype=torch.float64)
    return x.coords[here(rows), 1:].double() + here(place), here(rows)


# --- what the network means -------------------------------------------------------------------


def run_network(net: SPVCNN, x: SparseTensor, positions: Rows, rows: list[int]) -> Rows:
    """The published order of things, with every exchange written out."""
    base = oracle.as_sites(x.coords)
    batch = [base[r][0] for r in rows]

    def stride_of(depth: int) -> tuple[int, ...]:
        return tuple(s**depth for s in net.args["stride"])

    def to_points(sites: list[Site], y: Rows, depth: int) -> Rows:
        terms = oracle.interpolation(
            sites, positions, [1.0] * x.dim, stride=stride_of(depth), batch=batch, mode="trilinear"
        )
        return oracle.devoxelize(y, terms)

    def to_voxels(sites: list[Site], z: Rows, depth: int) -> Rows:
        total, count = np.zeros((len(sites), z.shape[1])), np.zeros((len(sites), 1))
        for n, row in enumerate(rows):
            site = base[row]
            coarse = [c // s for c, s in zip(site[1:], stride_of(depth), strict=True)]
            m = sites.index((site[0], *coarse))
            total[m] += z[n]
            count[m] += 1
        return total / count

    def transform(index: int, z: Rows) -> Rows:
        branch = net.points[index]
        z = z @ f64(branch.linear.weight).T + f64(branch.linear.bias)
        return run(torch.nn.Sequential(branch.norm, perception.nn.ReLU()), [], z)[1]

    stages = len(net.encoder)
    sites, y = run(net.stem, base, f64(x.features))
    z = to_points(sites, y, 0)
    skips = [(sites, y)]
    y = to_voxels(sites, z, 0)
    for stage, down in enumerate(net.encoder):
        if stage:
            skips.append((sites, y))
        sites, y = run(down, sites, y)
    z = to_points(sites, y, stages) + transform(0, z)
    y = to_voxels(sites, z, stages)
    for stage, up in enumerate(net.decoder, 1):
        finer, skip = skips.pop()
        _, y = run_up(up, sites, y, finer, skip)
        sites = finer
        if stage == stages // 2:
            z = to_points(sites, y, stages - stage) + transform(1, z)
            y = to_voxels(sites, z, stages - stage)
    z = to_points(sites, y, 0) + transform(2, z)
    return run(net.head, [], z)[1]


@ON_BOTH_DEVICES
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": (3, 4, 4, 5, 5, 4, 3)},
        {"dim": 4, "kernel": "hybrid", "stride": (2, 2, 2, 1)},
        {"dim": 2, "stride": (3, 2)},
    ],
)
def test_equals_the_oracle_with_points_and_with_sites(options: dict) -> None:
    net, x = network(**options), cloud(options.get("dim", 3))
    positions, rows = points_in(x)
    expected = run_network(net, x, f64(positions), rows.tolist())
    assert_close(net(x, positions, rows), expected, 1e-10, "scores of points")
    centres = f64(x.coords[:, 1:]) + 0.5
    y = net(x)
    assert y.sites is x.sites
    expected = run_network(net, x, centres, list(range(x.num_sites)))
    assert_close(y.features, expected, 1e-10, "scores of sites")


@pytest.mark.parametrize(("width", "millions"), [(1.0, 21.8), (0.64, 8.8)])
def test_parameters_match_the_published_table(width: float, millions: float) -> None:
    # "Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution", table 1.
    net = SPVCNN(4, 19, width=width)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


def test_parameters_are_those_of_minkunet42_and_three_linear_layers() -> None:
    net, plain = SPVCNN(4, 19), MinkUNet(4, 19, depth=42)
    extra = {name: value for name, value in net.state_dict().items() if "points" in name}
    assert plain.load_state_dict({k: v for k, v in net.state_dict().items() if k not in extra})
    shapes = [tuple(branch.linear.weight.shape) for branch in net.points]
    assert shapes == [(256, 32), (128, 256), (96, 128)]


@ON_BOTH_DEVICES
def test_points_at_the_centres_score_as_the_sites() -> None:
    net, x = network(), cloud()
    rows = here(torch.randperm(x.num_sites))
    scores = net(x, x.coords[rows, 1:].double() + 0.5, rows)
    assert_close(scores, net(x).features[rows], 1e-10, "scores")


@ON_BOTH_DEVICES
def test_points_of_one_voxel_get_scores_of_their_own() -> None:
    net, x = network(), cloud()
    positions, rows = points_in(x)
    scores = net(x, positions, rows)
    mates = torch.nonzero(rows == rows[0])[:2, 0]
    assert len(mates) == 2
    assert not torch.allclose(scores[mates[0]], scores[mates[1]])


@ON_BOTH_DEVICES
def test_order_of_points_and_other_samples_do_not_matter() -> None:
    net, x = network(), cloud()
    positions, rows = points_in(x)
    scores = net(x, positions, rows)
    order = here(torch.randperm(len(rows)))
    assert_close(net(x, positions[order], rows[order]), scores[order], 1e-10, "shuffled")
    mine = x.coords[:, 0] == 1
    coords = x.coords[mine].clone()
    coords[:, 0] = 0
    taken = mine[rows]
    alone = net(
        SparseTensor(x.features[mine], coords),
        positions[taken],
        (mine.cumsum(0) - 1)[rows[taken]],
    )
    assert_close(alone, scores[taken], 1e-10, "alone")


@ON_BOTH_DEVICES
def test_shift_by_the_coarsest_stride_changes_nothing() -> None:
    net, x = network(), cloud()
    positions, rows = points_in(x)
    shift = here(torch.tensor([4, -40, 400]))
    coords = x.coords.clone()
    coords[:, 1:] += shift.int()
    moved = net(SparseTensor(x.features, coords), positions + shift, rows)
    assert_close(moved, net(x, positions, rows), 1e-9, "shifted")


@ON_BOTH_DEVICES
@pytest.mark.parametrize("with_points", [False, True])
def test_every_parameter_gets_a_gradient(with_points: bool) -> None:
    net, x = network().train().float(), cloud(count=200).to(torch.float32)
    positions, rows = points_in(x)
    scores = net(x, positions.float(), rows) if with_points else net(x).features
    scores.square().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name


@ON_BOTH_DEVICES
def test_gradient_of_the_features_is_that_of_differences() -> None:
    net, x = network(), cloud(count=12)
    positions, rows = points_in(x)

    def scores(features: torch.Tensor) -> torch.Tensor:
        return net(x.replace(features), positions, rows)

    features = x.features.clone().requires_grad_()
    assert torch.autograd.gradcheck(scores, (features,), atol=1e-6, fast_mode=True)


@ON_BOTH_DEVICES
def test_learns_what_lies_within_a_voxel() -> None:
    """A border through the middle of voxels: scores of voxels alone are right in 7 of 8 points."""
    torch.manual_seed(0)
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 4, 16, 1)]).int()
    x = SparseTensor(here(coords[:, 1:2].float() - 1.5), here(coords))
    positions, rows = points_in(x)
    labels = (positions[:, 0] > 1.5).long()
    net = here(SPVCNN(1, 2, channels=(8, 8, 8, 8, 8)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x, positions.float(), rows), labels).backward()
        optimizer.step()
    right = (net.eval()(x, positions.float(), rows).argmax(1) == labels).float().mean()
    assert right > 0.95


@ON_BOTH_DEVICES
def test_json_and_state_dict_rebuild_the_network() -> None:
    net = network(dropout=0.1, needs_points=True)
    again = here(SPVCNN(**json.loads(json.dumps(net.args))).double().eval())
    again.load_state_dict(net.state_dict())
    x = cloud()
    assert torch.equal(again(x).features, net(x).features)
    assert again.needs_points
    assert again.args == net.args


@ON_BOTH_DEVICES
def test_no_sites() -> None:
    net = network()
    x = SparseTensor(here(torch.zeros(0, 2).double()), here(torch.zeros(0, 4).int()))
    assert net(x).features.shape == (0, 3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="two or more"):
        SPVCNN(2, 3, channels=(4, 4, 4))
    x = cloud()
    with pytest.raises(ValueError, match=r"positions has shape \(3, 2\); give \[3, 3\]"):
        network()(x, torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
