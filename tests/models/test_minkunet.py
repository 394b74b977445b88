"""MinkUNet against the parameter counts others published, and what a network of modules must do."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from checks import here
from torch import nn

import perception.models
import perception.nn
from perception.models import MinkUNet
from perception.sparse import SparseTensor


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def cloud(dim: int, channels: int, *, sites: int = 400, batch: int = 2) -> SparseTensor:
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(-6, 7, (sites, dim), generator=generator)
    coords = torch.cat([torch.arange(sites)[:, None] % batch, coords], dim=1)
    coords = coords.unique(dim=0).to(torch.int32)
    features = torch.randn(len(coords), channels, generator=generator)
    return SparseTensor(here(features), here(coords), batch_size=batch)


SMALL = (6, 8, 10, 10, 6)
ON_BOTH_DEVICES = pytest.mark.usefixtures("device")


def test_parameters_equal_a_published_print_of_minkunet14b() -> None:
    # MinkowskiEngine's GitHub issue 29 prints this network with 1 channel in, 20 classes: 8953588.
    net = MinkUNet(1, 20, depth=14, channels=(32, 32, 64, 128, 256, 128, 128, 128, 128))
    assert parameters(net) == 8_953_588


@pytest.mark.parametrize(("width", "millions"), [(1.0, 21.7), (0.64, 8.8), (0.5, 5.4)])
def test_parameters_of_the_42_layer_network_match_spvnas(width: float, millions: float) -> None:
    # The model table of SPVNAS, which rounds 5.44 up to 5.5.
    net = MinkUNet(4, 19, depth=42, width=width)
    assert round(parameters(net) / 1e6, 1) == millions


def test_parameters_of_minkunet34c_match_the_literature() -> None:
    # 37.9 M in comparison tables of ScanNet papers (3 colours, 20 classes).
    assert round(parameters(MinkUNet(3, 20, depth=34)) / 1e6, 1) == 37.9


def test_the_42_layer_network_is_its_layer_table() -> None:
    # (kernel taps, in, out) of every layer with weights, in the order the data pass.
    def res(a: int, b: int) -> list[tuple[int, int, int]]:
        return [(27, a, b), (27, b, b), *([(1, a, b)] if a != b else [])]

    table = [(27, 4, 32), (27, 32, 32)]
    for a, b in [(32, 32), (32, 64), (64, 128), (128, 256)]:
        table += [(8, a, a), *res(a, b), *res(b, b)]
    for a, b, joined in [(256, 256, 384), (256, 128, 192), (128, 96, 128), (96, 96, 128)]:
        table += [(8, a, b), *res(joined, b), *res(b, b)]
    table += [(1, 96, 19)]

    layers = []
    for name, value in MinkUNet(4, 19, depth=42).named_parameters():
        if value.ndim == 3:
            layers.append(tuple(value.shape))
        elif value.ndim == 2:
            assert "head" in name or "shortcut" in name
            layers.append((1, value.shape[1], value.shape[0]))
    assert layers == table
    # 42 k3/k2/stem convolutions along the path, 7 shortcuts and the head: 49 convolutions + head.
    assert len(table) == 50


@ON_BOTH_DEVICES
@pytest.mark.parametrize("depth", [14, 18, 42])
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_scores_come_on_the_input_sites(depth: int, dim: int) -> None:
    x = cloud(dim, 3)
    y = here(MinkUNet(3, 7, depth=depth, dim=dim, channels=SMALL))(x)
    assert y.features.shape == (x.num_sites, 7)
    assert torch.equal(y.coords, x.coords)
    assert tuple(y.stride) == tuple(x.stride)


@ON_BOTH_DEVICES
@pytest.mark.parametrize("depth", [34, 50])
def test_deep_networks_run(depth: int) -> None:
    x = cloud(3, 3, sites=100)
    y = here(MinkUNet(3, 4, depth=depth, width=0.0625))(x)
    assert y.features.shape == (x.num_sites, 4)


@ON_BOTH_DEVICES
def test_hybrid_kernel_over_space_and_time() -> None:
    x = cloud(4, 2)
    net = MinkUNet(2, 3, dim=4, depth=14, channels=SMALL, kernel="hybrid", stride=(2, 2, 2, 1))
    assert here(net)(x).features.shape == (x.num_sites, 3)
    blocks = [p for n, p in net.named_parameters() if "body.0.weight" in n]
    assert blocks
    assert all(p.shape[0] == 27 + 2 for p in blocks)
    stem = next(net.parameters())
    assert stem.shape[0] == 5**3  # one frame wide
    assert net.encoder[0][0].weight.shape[0] == 2**3  # time is not strided


@ON_BOTH_DEVICES
def test_scans_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 4, depth=14, channels=SMALL).eval())
    x = cloud(3, 3)
    y = net(x)
    rows = x.coords[:, 0] == 1
    coords = x.coords[rows].clone()
    coords[:, 0] = 0
    alone = net(SparseTensor(x.features[rows], coords))
    torch.testing.assert_close(alone.features, y.features[rows], rtol=1e-4, atol=1e-5)


@ON_BOTH_DEVICES
def test_shift_by_the_coarsest_stride_changes_nothing() -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 4, depth=14, channels=SMALL).eval())
    x = cloud(3, 3, batch=1)
    shifted = x.coords.clone()
    shifted[:, 1:] += here(torch.tensor([4, -40, 400], dtype=torch.int32))
    y = net(SparseTensor(x.features, shifted))
    torch.testing.assert_close(y.features, net(x).features, rtol=1e-4, atol=1e-5)


@ON_BOTH_DEVICES
def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 4, depth=42, channels=SMALL))
    net(cloud(3, 3)).features.square().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name


@ON_BOTH_DEVICES
def test_learns_to_tell_shapes_apart() -> None:
    """Sites of a plane, of posts and of a box, told apart by their surroundings alone."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    plane = [(x, y, 0, 0) for x in range(24) for y in range(24)]
    posts = [(x, y, z, 1) for x in (3, 12, 20) for y in (4, 18) for z in range(1, 9)]
    box = [(x, y, z, 2) for x in range(6, 11) for y in range(8, 13) for z in range(1, 5)]
    rows = torch.tensor(plane + posts + box)
    coords = torch.cat([torch.zeros(len(rows), 1), rows[:, :3]], dim=1).to(torch.int32)
    labels = here(rows[:, 3])
    x = here(SparseTensor(torch.randn(len(rows), 1, generator=generator) * 0.1 + 1, coords))
    net = here(MinkUNet(1, 3, depth=14, channels=(8, 8, 12, 12, 8)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x).features, labels).backward()
        optimizer.step()
    net.eval()
    right = net(x).features.argmax(1) == labels
    for label in range(3):
        assert right[labels == label].float().mean() > 0.95


def test_weights_start_at_kaiming_values() -> None:
    torch.manual_seed(0)
    net = MinkUNet(4, 19, depth=14)
    weight = net.stem[0].weight  # 125 taps, 32 channels out
    assert weight.std().item() == pytest.approx((2 / (125 * 32)) ** 0.5, rel=0.05)
    assert net.head.bias.abs().max() == 0


@ON_BOTH_DEVICES
def test_state_dict_and_arguments_rebuild_the_network() -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 5, depth=42, channels=SMALL, width=1.5).eval())
    again = here(MinkUNet(**net.args).eval())
    again.load_state_dict(net.state_dict())
    x = cloud(3, 3)
    assert torch.equal(again(x).features, net(x).features)
    assert again.args == net.args


@ON_BOTH_DEVICES
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_compute_the_same(copied) -> None:  # type: ignore[no-untyped-def]
    net = here(MinkUNet(3, 5, depth=14, channels=SMALL).eval())
    x = cloud(3, 3)
    before = net(x).features
    other = copied(net)
    assert torch.equal(other(x).features, before)
    next(other.parameters()).data.zero_()
    assert torch.equal(net(x).features, before)


def test_exported_names_are_networks() -> None:
    assert "MinkUNet" in perception.models.__all__
    for name in perception.models.__all__:
        assert issubclass(getattr(perception.models, name), nn.Module)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth=20 does not exist"),
        ({"channels": (8, 8, 8, 8)}, "1 \\+ 2 S positive widths"),
        ({"width": 0.01}, "1 \\+ 2 S positive widths"),
        ({"depth": 34, "channels": SMALL}, "depth=34 has 4 stages"),
        ({"stride": (2, 2)}, "does not fit dim=3"),
        ({"block": "dense"}, "block='dense'"),
        ({"block": "convnext", "depth": 50}, "other than 50"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MinkUNet(3, 4, **arguments)


@ON_BOTH_DEVICES
@pytest.mark.parametrize("depth", [14, 42])
def test_compiles_to_one_graph_once_the_maps_are_given(depth: int) -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 4, depth=depth, channels=(4, 4, 4)).eval())
    x = cloud(3, 3, sites=100)
    eager = net(x)  # fills the maps of the sites
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).features, eager.features, rtol=1e-4, atol=1e-5)


@ON_BOTH_DEVICES
def test_exports_once_the_maps_are_given() -> None:
    torch.manual_seed(0)
    net = here(MinkUNet(3, 4, depth=14, channels=(4, 4, 4)).eval())
    x = cloud(3, 3, sites=100)
    eager = net(x)
    program = torch.export.export(net, (x,))
    torch.testing.assert_close(program.module()(x).features, eager.features, rtol=1e-4, atol=1e-5)


@ON_BOTH_DEVICES
@pytest.mark.parametrize("depth", [14, 42])
@pytest.mark.parametrize("dim", [3, 4])
def test_convnext_blocks_learn_from_json(depth: int, dim: int) -> None:
    torch.manual_seed(0)
    options = {"depth": depth, "dim": dim, "channels": SMALL, "block": "convnext"}
    net = MinkUNet(3, 4, **options, kernel="hybrid" if dim == 4 else "cube")
    depthwise = [m for m in net.modules() if isinstance(m, perception.nn.ConvNeXtBlock)]
    assert len(depthwise) == 4 * (1 if depth == 14 else 2)
    assert all(m.body[0].num_taps == (125 if dim == 3 else 125 + 4) for m in depthwise)
    # The blocks start as they do alone, the rest of the network as ever.
    assert depthwise[-1].body[2].weight.std().item() == pytest.approx(0.02, rel=0.25)
    net = here(net)
    x = cloud(dim, 3)
    again = here(MinkUNet(**net.args))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x).features, net.eval()(x).features)
    net.train()(x).features.square().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name
