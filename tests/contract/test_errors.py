"""Bad input: the class of the error, and one line that names what is wrong."""

from __future__ import annotations

import pytest
import torch
from checks import here, random_sites, random_tensor

import perception
from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")


def _sites(dim: int = 3, count: int = 20) -> torch.Tensor:
    return random_sites(count, dim)


def _x(dim: int = 3, channels: int = 4, dtype: torch.dtype = torch.float32) -> SparseTensor:
    return random_tensor(_sites(dim), channels, dtype=dtype, requires_grad=False)


def _moved(x: SparseTensor) -> SparseTensor:
    return SparseTensor(x.features, x.coords + here(torch.tensor([0, 1, 0, 0], dtype=torch.int32)))


def F(*shape: int) -> torch.Tensor:
    return here(torch.zeros(*shape))


def C() -> torch.Tensor:
    return _sites()


def P() -> torch.Tensor:
    return here(torch.rand(10, 3))


def T(rows: list) -> torch.Tensor:
    return here(torch.tensor(rows, dtype=torch.int32))


N = 20

TENSORS = {  # what is wrong -> (error, words of the message, call)
    "features are a list": (TypeError, "features", lambda: SparseTensor([[1.0]] * N, C())),
    "coords are a list": (TypeError, "coords", lambda: SparseTensor(F(N, 1), C().tolist())),
    "integer features": (TypeError, "features", lambda: SparseTensor(F(N, 1).int(), C())),
    "complex features": (TypeError, "features", lambda: SparseTensor(F(N, 1).cfloat(), C())),
    "int64 coords": (TypeError, "int32", lambda: SparseTensor(F(N, 1), C().long())),
    "float coords": (TypeError, "int32", lambda: SparseTensor(F(N, 1), C().float())),
    "flat features": (ValueError, "features", lambda: SparseTensor(F(N), C())),
    "flat coords": (ValueError, "coords", lambda: SparseTensor(F(N, 1), C()[:, 0])),
    "fewer features": (ValueError, "20", lambda: SparseTensor(F(N - 1, 1), C())),
    "no axes": (ValueError, "coords", lambda: SparseTensor(F(1, 1), C()[:1, :1])),
    "eight axes": (ValueError, "coords", lambda: SparseTensor(F(1, 1), F(1, 9).int())),
    "negative sample": (ValueError, "batch", lambda: SparseTensor(F(N, 1), C() - 9)),
    "too many samples": (
        ValueError,
        "batch",
        lambda: SparseTensor(F(1, 1), T([[2, 0, 0]]), batch_size=2),
    ),
    "negative batch size": (ValueError, "batch", lambda: SparseTensor(F(N, 1), C(), batch_size=-1)),
    "stride zero": (ValueError, "stride", lambda: SparseTensor(F(N, 1), C(), stride=0)),
    "stride of two axes": (ValueError, "stride", lambda: SparseTensor(F(N, 1), C(), stride=(1, 2))),
    "replace with fewer": (ValueError, "19|20", lambda: _x().replace(F(N - 1, 4))),
    "replace with integers": (TypeError, "features", lambda: _x().replace(F(N, 4).int())),
    "two devices": (
        ValueError,
        "device|meta",
        lambda: SparseTensor(torch.zeros(N, 1, device="meta"), C()),
    ),
    "mask of numbers": (TypeError, "mask|bool", lambda: _x().prune(here(torch.ones(N)))),
    "mask too short": (ValueError, "mask", lambda: _x().prune(here(torch.ones(3).bool()))),
    "add other sites": (ValueError, "sites", lambda: _x() + _moved(_x())),
    "multiply fewer sites": (ValueError, "sites", lambda: _x() * _x().prune(C()[:, 0] == 0)),
    "add another stride": (
        ValueError,
        "stride",
        lambda: _x() + SparseTensor(F(N, 4), C(), stride=2),
    ),
    "cat other sites": (ValueError, "sites", lambda: perception.cat([_x(), _moved(_x())])),
    "cat nothing": (ValueError, "cat|tensor", lambda: perception.cat([])),
    "batch nothing": (ValueError, "batch|tensor", lambda: perception.batch([])),
    "batch of two dimensions": (
        ValueError,
        "stride|axes",
        lambda: perception.batch([_x(2), _x(3)]),
    ),
    "batch of two widths": (ValueError, "channel", lambda: perception.batch([_x(3, 2), _x(3, 4)])),
    "union of two widths": (ValueError, "channel", lambda: perception.union(_x(3, 2), _x(3, 4))),
    "union of two strides": (
        ValueError,
        "stride",
        lambda: perception.union(_x(), SparseTensor(F(N, 4), C(), stride=2)),
    ),
    "union by median": (
        ValueError,
        "median",
        lambda: perception.union(_x(), _x(), reduce="median"),
    ),
    "dense of a wrong shape": (ValueError, "shape", lambda: _x().dense(shape=(3, 3))),
    "dense of half the universe": (
        ValueError,
        "dense",
        lambda: SparseTensor(
            F(2, 1), T([[0, -(2**31), 0, 0], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]])
        ).dense(),
    ),
    "from a vector": (ValueError, "dense", lambda: SparseTensor.from_dense(F(3))),
    "from integers": (
        TypeError,
        "floating|dense",
        lambda: SparseTensor.from_dense(F(1, 1, 3).int()),
    ),
}

LAYERS = {
    "not a sparse tensor": (TypeError, "SparseTensor", lambda: here(nn.Conv(4, 4))(F(N, 4))),
    "channels": (ValueError, "4.*5|5.*4", lambda: here(nn.Conv(5, 4))(_x())),
    "dimension": (ValueError, "dim", lambda: here(nn.Conv(4, 4, dim=2))(_x())),
    "dtype": (TypeError, "float64", lambda: here(nn.Conv(4, 4))(_x(dtype=torch.float64))),
    "groups": (ValueError, "groups", lambda: nn.Conv(4, 6, groups=3)),
    "groups of the output": (ValueError, "groups", lambda: nn.Conv(6, 4, groups=3)),
    "no groups": (ValueError, "groups", lambda: nn.Conv(4, 4, groups=0)),
    "kernel size zero": (ValueError, "kernel_size", lambda: nn.Conv(4, 4, 0)),
    "kernel size of two axes": (ValueError, "kernel_size", lambda: nn.Conv(4, 4, (3, 3))),
    "stride": (ValueError, "stride", lambda: nn.Conv(4, 4, 3, stride=0)),
    "stride of four axes": (ValueError, "stride", lambda: nn.Conv(4, 4, 3, stride=(1, 1, 1, 2))),
    "dilation": (ValueError, "dilation", lambda: nn.Conv(4, 4, 3, dilation=0)),
    "padding": (ValueError, "padding", lambda: nn.Conv(4, 4, 3, padding="valid")),
    "no channels": (ValueError, "channels", lambda: nn.Conv(0, 4)),
    "dim 0": (ValueError, "dim", lambda: nn.Conv(4, 4, dim=0)),
    "dim 8": (ValueError, "dim", lambda: nn.Conv(4, 4, 1, dim=8)),
    "kernel": (ValueError, "kernel", lambda: nn.Conv(4, 4, kernel="ball")),
    "kernel of floats": (TypeError, "kernel", lambda: nn.Conv(4, 4, kernel=F(2, 3))),
    "kernel of two axes": (ValueError, "kernel", lambda: nn.Conv(4, 4, kernel=F(2, 2).int())),
    "empty kernel": (ValueError, "kernel", lambda: nn.Conv(4, 4, kernel=F(0, 3).int())),
    "offsets outside int32": (
        ValueError,
        "int32",
        lambda: nn.Conv(4, 4, kernel=torch.tensor([[2**40, 0, 0]])),
    ),
    "dilation out of int32": (ValueError, "int32", lambda: nn.Conv(4, 4, 5, dilation=2**31 - 1)),
    "kernel size 2.5": (TypeError, "kernel_size", lambda: nn.Conv(4, 4, 2.5)),
    "sites": (ValueError, "sites", lambda: nn.Conv(4, 4, sites="dilate")),
    "int64 sites": (TypeError, "int32", lambda: here(nn.Conv(4, 4))(_x(), sites=C().long())),
    "narrow sites": (ValueError, "sites", lambda: here(nn.Conv(4, 4))(_x(), sites=C()[:, :3])),
    "duplicate sites": (
        ValueError,
        "duplicate",
        lambda: here(nn.Conv(4, 4))(_x(), sites=torch.cat([C(), C()])),
    ),
    "bounds of two axes": (
        ValueError,
        "bounds",
        lambda: here(nn.Conv(4, 4, sites="reach"))(_x(), bounds=(F(2).int(), F(2).int())),
    ),
    "bounds without reach": (
        ValueError,
        "bounds",
        lambda: here(nn.Conv(4, 4))(_x(), bounds=(F(3).int(), F(3).int())),
    ),
    "like of another dimension": (
        ValueError,
        "axes",
        lambda: here(nn.ConvTranspose(4, 4, 2, stride=2))(_x(), like=_x(2)),
    ),
    "pool of size zero": (ValueError, "kernel_size", lambda: nn.MaxPool(0, 2)),
    "pool of stride zero": (ValueError, "stride", lambda: nn.MaxPool(2, 0)),
    "pool of another dimension": (ValueError, "dim", lambda: here(nn.MaxPool(2, 2, dim=2))(_x())),
    "pool of a tensor": (TypeError, "SparseTensor", lambda: here(nn.MaxPool(2, 2))(F(N, 4))),
    "global median": (ValueError, "median", lambda: nn.GlobalPool("median")),
    "norm of other channels": (
        ValueError,
        "channels|features",
        lambda: here(nn.BatchNorm(5))(_x()),
    ),
    "instance norm channels": (
        ValueError,
        "channels|features",
        lambda: here(nn.InstanceNorm(5))(_x()),
    ),
    "group norm channels": (
        ValueError,
        "channels|features",
        lambda: here(nn.GroupNorm(1, 5))(_x()),
    ),
    "group norm groups": (ValueError, "groups", lambda: nn.GroupNorm(3, 4)),
    "norm of a tensor": (TypeError, "SparseTensor", lambda: here(nn.BatchNorm(4))(F(N, 4))),
}


def _nan() -> torch.Tensor:
    return here(torch.tensor([[0.0, 1.0, 2.0], [0.0, float("nan"), 2.0]]))


POINTS = {
    "NaN": (ValueError, "1", lambda: perception.voxelize(_nan(), 0.1)),
    "infinity": (ValueError, "finite|inf", lambda: perception.voxelize(P() / 0, 0.1)),
    "outside int32": (ValueError, "int32", lambda: perception.voxelize(P() * 1e12, 0.1)),
    "integer points": (TypeError, "points", lambda: perception.voxelize(P().int(), 0.1)),
    "flat points": (ValueError, "points", lambda: perception.voxelize(P()[:, 0], 0.1)),
    "points of eight axes": (ValueError, "points", lambda: perception.voxelize(F(2, 8), 0.1)),
    "voxel size zero": (ValueError, "voxel_size", lambda: perception.voxelize(P(), 0.0)),
    "voxel size negative": (ValueError, "voxel_size", lambda: perception.voxelize(P(), (1, -1, 1))),
    "voxel size NaN": (ValueError, "voxel_size", lambda: perception.voxelize(P(), float("nan"))),
    "voxel size of two axes": (ValueError, "voxel_size", lambda: perception.voxelize(P(), (1, 1))),
    "reduce": (
        ValueError,
        "median",
        lambda: perception.voxelize(P(), 1, features=P(), reduce="median"),
    ),
    "fewer features": (
        ValueError,
        "features",
        lambda: perception.voxelize(P(), 1, features=P()[:5]),
    ),
    "fewer batch indices": (
        ValueError,
        "batch",
        lambda: perception.voxelize(P(), 1, batch=here(torch.zeros(5).int())),
    ),
    "batch of floats": (TypeError, "batch", lambda: perception.voxelize(P(), 1, batch=F(10))),
    "batch is a list": (TypeError, "batch", lambda: perception.voxelize(P(), 1, batch=[0] * 10)),
    "numpy points": (TypeError, "points", lambda: perception.voxelize(P().cpu().numpy(), 1)),
    "negative batch": (
        ValueError,
        "batch",
        lambda: perception.voxelize(P(), 1, batch=here(torch.full((10,), -1))),
    ),
    "origin of two axes": (
        ValueError,
        "origin",
        lambda: perception.voxelize(P(), 1, origin=(0, 0)),
    ),
    "bounds of two axes": (
        ValueError,
        "bounds",
        lambda: perception.voxelize(P(), 1, bounds=((0, 0), (1, 1))),
    ),
    "max_points zero": (
        ValueError,
        "max_points",
        lambda: perception.voxelize(P(), 1, max_points=0),
    ),
    "mode": (ValueError, "cubic", lambda: perception.devoxelize(_x(), P(), 0.1, mode="cubic")),
    "points in two axes": (
        ValueError,
        "points",
        lambda: perception.devoxelize(_x(), P()[:, :2], 1),
    ),
    "NaN back": (ValueError, "1", lambda: perception.devoxelize(_x(), _nan(), 0.1)),
    "size back": (ValueError, "voxel_size", lambda: perception.devoxelize(_x(), P(), -1.0)),
    "batch back": (
        ValueError,
        "batch",
        lambda: perception.devoxelize(_x(), P(), 1.0, batch=here(torch.zeros(3).int())),
    ),
    "not a sparse tensor": (
        TypeError,
        "SparseTensor",
        lambda: perception.devoxelize(P(), P(), 1.0),
    ),
}


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        pytest.param(*case, id=f"{group}: {name}")
        for group, cases in (("tensor", TENSORS), ("layer", LAYERS), ("points", POINTS))
        for name, case in cases.items()
    ],
)
def test_bad_input(error, words, call):
    with pytest.raises(error, match=words) as raised:
        call()
    message = str(raised.value)
    assert raised.type is error
    assert "\n" not in message.strip(), "the message has more than one line"
    assert len(message) > 20, "the message does not explain itself"


def test_first_duplicate_is_named_with_a_remedy():
    coords = T([[0, 5, 5, 5], [0, 12, 4, -7], [0, 1, 1, 1], [0, 12, 4, -7]])
    with pytest.raises(ValueError, match=r"\(0, 12, 4, -7\)") as raised:
        SparseTensor(F(4, 1), coords)
    assert "duplicate" in str(raised.value)
    assert any(word in str(raised.value) for word in ("voxelize", "from_points", "unique"))


def test_the_first_of_several_duplicates():
    coords = T([[0, 9], [0, 1], [0, 1], [0, 9], [0, 9]])
    with pytest.raises(ValueError, match=r"\(0, 1\)"):  # row 2 is the first to repeat a site
        SparseTensor(F(5, 1), coords)


@pytest.mark.parametrize("dim", range(1, 8))
def test_duplicates_in_any_dimension(dim):
    coords = _sites(dim, 12)
    with pytest.raises(ValueError, match="duplicate"):
        SparseTensor(F(len(coords) + 1, 1), torch.cat([coords, coords[4:5]]))


def test_non_contiguous_input_is_fine():
    wide = here(torch.randn(20, 8, dtype=torch.float64))
    coords = torch.cat([_sites(), _sites()], 1)
    layer = here(nn.Conv(4, 4, 3).double())
    a = layer(SparseTensor(wide[:, ::2], coords[:, :4]))
    b = layer(SparseTensor(wide[:, ::2].contiguous(), coords[:, :4].contiguous()))
    assert torch.equal(a.features, b.features)
    a = layer(SparseTensor(wide.T.contiguous().T[:, :4], coords[:, :4]))
    b = layer(SparseTensor(wide[:, :4].contiguous(), coords[:, :4].contiguous()))
    assert torch.equal(a.features, b.features)
