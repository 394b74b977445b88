"""Copies, pickles, state dicts and worker processes."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from types import SimpleNamespace

import pytest
import torch
from checks import assert_same, here, placed, random_sites, random_tensor, randomized
from torch.utils.data import DataLoader, Dataset

import perception
from perception import SparseTensor, nn
from perception.sparse import kernel_map as plans

pytestmark = pytest.mark.usefixtures("device")
CONVERSIONS = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
LAYERS = [
    lambda: nn.Conv(2, 4, 3, stride=2, groups=2),
    lambda: nn.Conv(2, 4, kernel=torch.tensor([[0, 0, 0], [5, 0, -1]], dtype=torch.int32)),
    lambda: nn.ConvTranspose(2, 4, 3),
    lambda: nn.GenerativeConvTranspose(2, 4, 2, stride=2),
    lambda: nn.BatchNorm(2),
    lambda: nn.GroupNorm(1, 2),
    lambda: nn.MaxPool(2, 2),
    lambda: nn.Pointwise(torch.nn.Linear(2, 2)),
]


@pytest.mark.parametrize("how", CONVERSIONS)
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "after a layer"])
def test_sparse_tensor(how, used):
    x = random_tensor(random_sites(40, 3), 2, requires_grad=False, stride=2, batch_size=5)
    conv, up = (
        randomized(nn.Conv(2, 2, 3, stride=2)),
        randomized(nn.ConvTranspose(2, 2, 3, stride=2)),
    )
    if used:
        conv(x)
    twin = CONVERSIONS[how](x)
    assert torch.equal(twin.coords, x.coords)
    assert torch.equal(twin.features, x.features)
    assert (twin.stride, twin.batch_size) == ((2, 2, 2), 5)
    assert_same(conv(twin), conv(x), 0)
    assert torch.equal(up(conv(twin)).features, up(conv(x)).features)


def test_pickled_sites_do_not_carry_their_plans():
    x = random_tensor(random_sites(300, 3), 1, requires_grad=False)
    before = len(pickle.dumps(x))
    for kernel in (2, 3, 5):
        randomized(nn.Conv(1, 1, kernel))(x)
    assert len(pickle.dumps(x)) < 1.5 * before


def test_deepcopy_is_deep():
    x = random_tensor(random_sites(20, 3), 2, requires_grad=False)
    twin = copy.deepcopy(x)
    twin.features.zero_()
    assert x.features.any()


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("make", LAYERS)
def test_layers(make, how):
    layer = randomized(make())
    x = random_tensor(random_sites(40, 3), 2)
    y = layer(x)
    twin = CONVERSIONS[how](layer)
    assert_same(twin(x), y, 0)
    for a, b in zip(twin.parameters(), layer.parameters(), strict=True):
        assert a.data_ptr() != b.data_ptr()


@pytest.mark.parametrize("make", LAYERS)
def test_state_dict_round_trip(make):
    layer, other = randomized(make(), seed=1), randomized(make(), seed=2)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = random_tensor(random_sites(40, 3), 2)
    assert_same(other(x), layer(x), 0)


def test_names_in_the_state_dict():
    assert {"weight", "bias"} <= set(nn.Conv(2, 2).state_dict())
    assert "offsets" in dict(nn.Conv(2, 2).named_buffers())
    expected = set(torch.nn.BatchNorm1d(2).state_dict())
    assert set(nn.BatchNorm(2).state_dict()) == expected


def test_offsets_stay_integers_in_any_dtype():
    for dtype in (torch.float64, torch.bfloat16):
        assert nn.Conv(1, 1).to(dtype).offsets.dtype == torch.int32


class _Clouds(Dataset):
    """Sparse tensors, already run through a layer, made in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> SparseTensor:
        torch.manual_seed(0)
        with placed("cpu"), torch.no_grad():  # where workers are
            coords = random_sites(30, 3, seed=index, batch_size=1)
            x = random_tensor(coords, 2, seed=index, requires_grad=False)
            return randomized(nn.Conv(2, 3, 3, stride=2))(x)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(workers):
    loader = DataLoader(
        _Clouds(), batch_size=3, collate_fn=perception.batch, num_workers=workers, shuffle=False
    )
    data = _Clouds()
    for step, together in enumerate(loader):
        assert together.batch_size == 3
        for part, index in zip(
            here(together).decompose(), range(3 * step, 3 * step + 3), strict=True
        ):
            assert_same(part, data[index], 0)


def test_plans_die_with_their_sites():
    x = random_tensor(random_sites(30, 3), 2, requires_grad=False)
    layer = randomized(nn.Conv(2, 2, 3))
    with torch.no_grad():
        y = layer(x)
    references = [weakref.ref(x.coords), weakref.ref(y.coords)]
    del x, y
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_plans_of_dead_sites_are_not_taken_for_new_ones():
    """Sites that are freed leave their address to the next ones; a plan must not follow."""
    x = random_tensor(random_sites(60, 3), 2, requires_grad=False)
    conv, up = randomized(nn.Conv(2, 2, 3)), randomized(nn.ConvTranspose(2, 2, 2, stride=2))
    for seed in range(25):
        wanted = random_sites(30, 3, seed=seed)
        fresh = SparseTensor(x.features, x.coords.clone())
        assert torch.equal(conv(x, sites=wanted).features, conv(fresh, sites=wanted).features)
        like = SparseTensor(here(torch.zeros(30, 1).double()), wanted)
        assert torch.equal(conv(x, sites=like).features, conv(fresh, sites=like).features)
        assert torch.equal(up(x, like=like).features, up(fresh, like=like).features)
        bounds = ((-seed % 4,) * 3, (seed % 7 + 3,) * 3)
        reach = randomized(nn.Conv(2, 2, 3, sites="reach"))
        assert_same(reach(x, bounds=bounds), reach(fresh, bounds=bounds), 0)


@pytest.mark.parametrize("kind", ["plain", "strided", "pool", "back"])
def test_plans_made_in_inference_mode_serve_training(kind):
    """A validation step before the first training step must not poison the sites."""
    make = {
        "plain": lambda: nn.Conv(2, 2, 3),
        "strided": lambda: nn.Conv(2, 2, 3, stride=2),
        "pool": lambda: nn.MaxPool(3, 2),
        "back": lambda: torch.nn.Sequential(
            nn.Conv(2, 2, 2, stride=2), nn.ConvTranspose(2, 2, 2, stride=2)
        ),
    }
    layer = here(make[kind]().double())
    x = random_tensor(random_sites(40, 3), 2)
    with torch.inference_mode():
        expected = layer(x).features
    y = layer(x)
    y.features.sum().backward()
    assert torch.equal(y.features, expected)
    assert x.features.grad.isfinite().all()


def test_graph_is_freed_with_the_output():
    x = random_tensor(random_sites(30, 3), 2)
    layer = randomized(nn.Conv(2, 2, 3, stride=2))
    y = layer(x)
    features = weakref.ref(y.features.grad_fn)
    del y
    gc.collect()
    assert features() is None


def test_moving_a_used_layer_to_another_dtype():
    x = random_tensor(random_sites(30, 3), 2, dtype=torch.float32)
    layer = here(nn.Conv(2, 2, 3))
    before = layer(x).features
    after = layer.double()(x.to(torch.float64)).features
    torch.testing.assert_close(after.float(), before, rtol=1e-5, atol=1e-5)


def test_repr_is_short_and_tells_the_size():
    x = random_tensor(random_sites(40, 3), 2)
    assert "40" in repr(x)
    assert len(repr(x)) < 300
    assert "3" in repr(nn.Conv(7, 9, 3))
    assert "7" in repr(nn.Conv(7, 9, 3))


def test_a_plan_dies_with_its_transposed_plan_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for Python to look for circles: the tables are large and on the GPU."""
    there = torch.full((2, 3), -1, dtype=torch.int32)
    back = SimpleNamespace(plan_transposed=lambda table, num_in, *_: [torch.full((num_in, 3), -1)])
    monkeypatch.setattr(plans, "ops", back)
    plan = plans.TableMap((0, 1, 2), False, table=there)
    opposite = plan.transposed(5)
    assert opposite.table.shape == (5, 3)
    assert plan.transposed(5) is opposite
    assert opposite.transposed(2) is plan
    gone = weakref.ref(plan), weakref.ref(opposite)
    gc.disable()
    try:
        del plan, opposite
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
