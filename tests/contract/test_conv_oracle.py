"""Convolution against the dictionary oracle: any dimension, any taps, any output sites."""

from __future__ import annotations

import itertools

import oracle
import pytest
import torch
from checks import check_conv, here, in_order, random_sites, random_tensor, randomized
from hypothesis import given, settings
from hypothesis import strategies as st

import perception
from perception import nn

pytestmark = pytest.mark.usefixtures("device")
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@DTYPES
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dim", range(1, 8))
def test_any_dimension(dim, stride, dtype, order):
    coords = in_order(random_sites(60, dim, seed=dim), order)
    kernel = 3 if dim <= 5 else 2  # 3^7 = 2187 taps are tested below with the cross
    layer = randomized(nn.Conv(3, 4, kernel, stride=stride, dim=dim), dtype)
    sites = oracle.as_sites(coords)
    y = check_conv(
        layer,
        random_tensor(coords, 3, dtype=dtype),
        oracle.taps(dim, kernel),
        stride=(stride,) * dim,
        expected=sites if stride == 1 else oracle.floor_stride(sites, (stride,) * dim),
        ordered=stride == 1,
    )
    assert y.stride == (stride,) * dim
    assert y.dim == dim


@pytest.mark.parametrize(
    ("dim", "kernel"),
    [*((d, "cross") for d in (2, 3, 4, 6, 7)), *((d, "hybrid") for d in (2, 3, 4, 5))],
)
def test_cross_and_hybrid(dim, kernel):
    coords = random_sites(50, dim, seed=dim)
    layer = randomized(nn.Conv(2, 3, 3, kernel=kernel, dilation=1, dim=dim))
    offsets = oracle.taps(dim, 3, kernel=kernel)
    check_conv(
        layer,
        random_tensor(coords, 2),
        offsets,
        stride=(1,) * dim,
        expected=oracle.as_sites(coords),
        ordered=True,
    )


@DTYPES
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [
        (3, 1, 2, "same"),
        (2, 1, 1, "same"),
        (4, 2, 1, 1),
        (3, 3, 1, 2),
        ((2, 1, 3), (1, 3, 2), (2, 1, 3), (1, 0, 4)),
        (3, 2, 1, 7),  # taps far away from their output
    ],
)
def test_groups_strides_dilations_paddings(kernel, stride, dilation, padding, groups, dtype):
    coords = random_sites(70, 3, seed=7)
    layer = nn.Conv(6, 12, kernel, stride=stride, dilation=dilation, padding=padding, groups=groups)
    steps = oracle.per_axis(stride, 3)
    sites = oracle.as_sites(coords)
    same = steps == (1, 1, 1)
    check_conv(
        randomized(layer, dtype),
        random_tensor(coords, 6, dtype=dtype),
        oracle.taps(3, kernel, dilation, padding),
        stride=steps,
        expected=sites if same else oracle.floor_stride(sites, steps),
        ordered=same,
        groups=groups,
    )


@DTYPES
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 1), (1, 17), (19, 2), (33, 65), (64, 16)])
def test_any_number_of_channels(c_in, c_out, dtype):
    coords = random_sites(80, 3, seed=5)
    check_conv(
        randomized(nn.Conv(c_in, c_out, 3), dtype),
        random_tensor(coords, c_in, dtype=dtype),
        oracle.taps(3, 3),
        stride=(1, 1, 1),
        expected=oracle.as_sites(coords),
        ordered=True,
    )


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize(
    "offsets",
    [
        [(4, 0, -1), (0, 0, 0), (0, 1, 0), (-2, -2, 3)],
        [(1, 0, 0), (0, 0, 0), (-1, 0, 0)],  # symmetric, in descending order
        [(-1, 0, 0), (0, 1, 0), (1, 0, 0)],  # symmetric but for its middle
        [(0, 0, 0), (0, 0, 0), (0, 1, 0)],  # one tap twice: both count
        [(0, 0, -1), (0, 0, 1)],  # no centre
        [(5, 5, 5)],
    ],
)
def test_custom_offsets(offsets, order):
    coords = in_order(random_sites(80, 3, seed=6), order)
    check_conv(
        randomized(nn.Conv(3, 2, kernel=torch.tensor(offsets, dtype=torch.int32))),
        random_tensor(coords, 3),
        offsets,
        stride=(1, 1, 1),
        expected=oracle.as_sites(coords),
        ordered=True,
    )


@pytest.mark.parametrize("as_tensor", [True, False], ids=["SparseTensor", "coords"])
@pytest.mark.parametrize("stride", [1, 2])
def test_exactly_the_given_sites(stride, as_tensor):
    """Sites nobody reaches are kept with the bias alone; sites nobody asked for do not appear."""
    coords = random_sites(60, 3, seed=8)
    wanted = random_sites(40, 3, seed=9, low=-3, high=9)
    layer = randomized(nn.Conv(3, 4, 3, stride=stride))
    sites = wanted
    if as_tensor:
        sites = perception.SparseTensor(here(torch.zeros(len(wanted), 1)), wanted, stride=stride)
    y = check_conv(
        layer,
        random_tensor(coords, 3),
        oracle.taps(3, 3),
        stride=(stride,) * 3,
        expected=oracle.as_sites(wanted),
        ordered=True,
        sites=sites,
    )
    touched = set(oracle.reach(oracle.as_sites(coords), oracle.taps(3, 3), (stride,) * 3))
    alone = torch.tensor([site not in touched for site in oracle.as_sites(wanted)])
    assert alone.any()
    assert (y.features[alone] == layer.bias).all()


def test_given_sites_in_an_empty_sample():
    x = random_tensor(torch.tensor([[0, 1, 1]], dtype=torch.int32), 2, batch_size=3)
    wanted = here(torch.tensor([[2, 0, 0], [0, 1, 2]], dtype=torch.int32))
    layer = randomized(nn.Conv(2, 2, 3, dim=2))
    y = check_conv(
        layer,
        x,
        oracle.taps(2, 3),
        stride=(1, 1),
        expected=oracle.as_sites(wanted),
        ordered=True,
        sites=wanted,
    )
    assert y.batch_size == 3


def test_stride_multiplies():
    coords = random_sites(60, 3, seed=1)
    x = random_tensor(coords, 2, stride=(2, 1, 4))
    y = randomized(nn.Conv(2, 2, 2, stride=(2, 3, 1)))(x)
    assert y.stride == (4, 3, 4)
    assert randomized(nn.Conv(2, 2, 3))(x).stride == (2, 1, 4)


def test_weights_are_shared_by_nobody_and_plans_by_everybody():
    """Two layers on one tensor give what each gives on a fresh tensor (no stale plan)."""
    coords = random_sites(60, 3, seed=2)
    layers = [
        randomized(nn.Conv(2, 3, 3), seed=1),
        randomized(nn.Conv(2, 3, 3), seed=2),
        randomized(nn.Conv(2, 3, 3, dilation=2), seed=1),
        randomized(nn.Conv(2, 3, 2, stride=2), seed=3),
        randomized(nn.Conv(2, 3, 2), seed=3),
        randomized(nn.Conv(2, 3, 3, kernel="cross"), seed=3),
        randomized(nn.Conv(2, 3, 3, stride=2), seed=1),
        randomized(nn.Conv(2, 3, 3, sites="reach"), seed=1),
    ]
    shared = random_tensor(coords, 2)
    for layer in (*layers, *layers):
        fresh = layer(random_tensor(coords, 2))
        again = layer(shared)
        assert torch.equal(again.coords, fresh.coords)
        assert torch.equal(again.features, fresh.features)


def test_changing_the_weight_in_place_is_seen():
    x = random_tensor(random_sites(40, 3), 2)
    layer = randomized(nn.Conv(2, 2, 3, bias=False))
    before = layer(x).features
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(layer(x).features, before * 2)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_taps_strides_and_output_sites(data):
    """The whole contract of one layer at once, on whatever hypothesis comes up with."""
    dim = data.draw(st.integers(1, 5), label="dim")
    axis = st.integers(-4, 4)
    site = st.tuples(st.integers(0, 2), *[axis] * dim)
    sites = data.draw(st.lists(site, max_size=25, unique=True), label="sites")
    offsets = data.draw(
        st.lists(st.tuples(*[st.integers(-3, 3)] * dim), min_size=1, max_size=8, unique=True),
        label="offsets",
    )
    stride = data.draw(st.tuples(*[st.integers(1, 3)] * dim), label="stride")
    order = data.draw(st.sampled_from(["as drawn", "sorted"]), label="order")
    rule = data.draw(st.sampled_from(["default", "reach", "bounds", "given"]), label="rule")
    groups = data.draw(st.sampled_from([1, 2]), label="groups")
    layer = randomized(
        nn.Conv(
            2,
            4,
            kernel=torch.tensor(offsets, dtype=torch.int32),
            stride=stride,
            groups=groups,
            dim=dim,
            sites="reach" if rule in ("reach", "bounds") else None,
        )
    )
    call = {}
    if rule == "given":
        expected = data.draw(st.lists(site, max_size=20, unique=True), label="wanted")
        call["sites"] = here(torch.tensor(expected, dtype=torch.int32).reshape(-1, 1 + dim))
    elif rule == "bounds":
        low = data.draw(st.tuples(*[st.integers(-4, 0)] * dim), label="low")
        high = data.draw(st.tuples(*[st.integers(0, 4)] * dim), label="high")
        expected = oracle.reach(sites, offsets, stride, (low, high))
        call["bounds"] = (torch.tensor(low), torch.tensor(high))
    elif rule == "reach":
        expected = oracle.reach(sites, offsets, stride)
    else:
        same = set(stride) == {1}
        expected = sites if same else oracle.floor_stride(sites, stride)
    if order == "sorted":
        sites = sorted(sites)
    coords = torch.tensor(sites, dtype=torch.int32).reshape(-1, 1 + dim)
    check_conv(
        layer,
        random_tensor(coords, 2, batch_size=3),
        offsets,
        stride=stride,
        expected=expected,
        groups=groups,
        **call,
    )


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("wanted", ["features", "weight", "bias", "features bias", "weight bias"])
def test_only_the_gradients_that_are_asked_for(wanted, kind):
    coords = random_sites(40, 3, seed=4)
    layer = randomized(getattr(nn, kind)(2, 3, 3))
    x = random_tensor(coords, 2)
    layer(x).features.square().sum().backward()
    full = {"features": x.features.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    leaf = x.features.detach().requires_grad_("features" in wanted)
    layer.zero_grad()
    layer.weight.requires_grad_("weight" in wanted)
    layer.bias.requires_grad_("bias" in wanted)
    layer(x.replace(leaf)).features.square().sum().backward()
    some = {"features": leaf.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    for name, gradient in some.items():
        if name in wanted:
            assert torch.equal(gradient, full[name]), name
        else:
            assert gradient is None, name


def test_weights_and_gradients_in_any_memory_layout():
    x = random_tensor(random_sites(40, 3, seed=5), 3)
    layer = randomized(nn.Conv(3, 4, 3))
    weight = layer.weight.detach().transpose(1, 2).contiguous().transpose(1, 2)
    assert not weight.is_contiguous()
    values = {"weight": weight.requires_grad_(), "bias": layer.bias.detach()}
    y = torch.func.functional_call(layer, values, (x,)).features
    assert torch.equal(y, layer(x).features)
    (y.T @ here(torch.ones(x.num_sites, 1).double())).sum().backward()  # a strided gradient
    strided, x.features.grad = x.features.grad, None
    layer(x).features.sum().backward()  # an expanded one
    torch.testing.assert_close(x.features.grad, strided)
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_inputs_are_left_alone():
    x = random_tensor(random_sites(40, 3, seed=6), 3)
    features, coords = x.features.detach().clone(), x.coords.clone()
    for layer in (nn.Conv(3, 3), nn.Conv(3, 3, 2, stride=2), nn.ConvTranspose(3, 3)):
        here(layer.double())(x).features.sum().backward()
        assert torch.equal(x.features, features)
        assert torch.equal(x.coords, coords)


def test_without_gradients_the_numbers_are_the_same():
    x = random_tensor(random_sites(40, 3, seed=7), 3)
    layer = randomized(nn.Conv(3, 3, 3))
    expected = layer(x).features
    with torch.no_grad():
        assert torch.equal(layer(x).features, expected)
    with torch.inference_mode():
        assert torch.equal(layer(x).features, expected)
        fresh = random_tensor(x.coords.clone(), 3)
        assert torch.equal(layer(fresh).features, expected)


def test_every_pair_of_sizes_and_strides():
    coords = random_sites(50, 2, seed=3)
    sites = oracle.as_sites(coords)
    for size, stride, dilation in itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (1, 2)):
        steps = (stride, stride)
        check_conv(
            randomized(nn.Conv(2, 2, size, stride=stride, dilation=dilation, dim=2)),
            random_tensor(coords, 2),
            oracle.taps(2, size, dilation),
            stride=steps,
            expected=sites if stride == 1 else oracle.floor_stride(sites, steps),
        )
