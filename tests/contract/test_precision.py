"""bfloat16 and float16, autocast, and conversion between dtypes."""

from __future__ import annotations

import oracle
import pytest
import torch
from checks import f64, here, random_sites, random_tensor, randomized

from perception import SparseTensor, nn

pytestmark = pytest.mark.usefixtures("device")
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
CONVS = {
    "conv": (lambda **kw: nn.Conv(32, 24, 3, **kw), 1, 1, False),
    "strided": (lambda **kw: nn.Conv(32, 24, 2, stride=2, **kw), 2, 1, False),
    "groups": (lambda **kw: nn.Conv(32, 24, 3, groups=4, **kw), 1, 4, False),
    "depthwise": (lambda **kw: nn.Conv(24, 24, 3, groups=24, **kw), 1, 24, False),
    "odd channels": (lambda **kw: nn.Conv(5, 7, 3, **kw), 1, 1, False),
    "transposed": (lambda **kw: nn.GenerativeConvTranspose(16, 24, 2, stride=2, **kw), 2, 1, True),
}


def _assert_rounded(actual, reference, magnitude, rounded, what: str) -> None:
    """``rounded`` was rounded to the dtype, once; all else is float32 sums of ``magnitude``."""
    eps = torch.finfo(actual.dtype).eps
    bound = 1.001 * eps / 2 * abs(rounded) + 2e-6 * magnitude + 2**-24
    worst = (abs(f64(actual) - reference) / bound).max()
    assert worst <= 1, f"{what}: error is {worst:.3g} times its bound"


@HALF
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("name", CONVS)
def test_half_precision_accumulates_in_float32(name, bias, dtype):
    make, stride, groups, transposed = CONVS[name]
    layer = randomized(make(bias=bias), dtype)
    steps = (stride,) * 3
    coords = random_sites(100, 3, seed=1)
    x = random_tensor(coords, layer.weight.shape[1] * groups, dtype=dtype, stride=stride)
    y = layer(x)
    assert y.dtype == dtype
    link = oracle.pairs_transposed if transposed else oracle.pairs
    offsets = oracle.as_sites(layer.offsets)
    links = link(oracle.as_sites(coords), oracle.as_sites(y.coords), offsets, steps)
    features, weight = f64(x.features), f64(layer.weight)
    b = f64(layer.bias) if bias else None
    reference = oracle.conv(features, weight, b, links, y.num_sites, groups)
    magnitude = oracle.conv_magnitude(features, weight, b, links, y.num_sites, groups)
    rounded = abs(reference)
    if bias:  # may be added after a rounding
        rounded = rounded + abs(reference - b)
    _assert_rounded(y.features, reference, magnitude, rounded, "output")

    grad_out = here(torch.randn(y.features.shape).to(dtype))
    y.features.backward(grad_out)
    grads = oracle.conv_backward(f64(grad_out), features, weight, links, groups)
    sizes = oracle.conv_backward(abs(f64(grad_out)), abs(features), abs(weight), links, groups)
    assert x.features.grad.dtype == layer.weight.grad.dtype == dtype
    for what, actual, exact, size in (
        ("gradient of the features", x.features.grad, grads.features, sizes.features),
        ("gradient of the weight", layer.weight.grad, grads.weight, sizes.weight),
    ):
        _assert_rounded(actual, exact, size, exact, what)
    if bias:
        _assert_rounded(layer.bias.grad, grads.bias, sizes.bias, grads.bias, "gradient of the bias")


@HALF
@pytest.mark.parametrize("pool", [nn.AvgPool(3, 2), nn.SumPool(3, 2), nn.MaxPool(3, 2)], ids=str)
def test_half_precision_pooling(pool, dtype):
    coords = random_sites(100, 3, seed=2)
    x = random_tensor(coords, 5, dtype=dtype)
    y = here(pool)(x)
    assert y.dtype == dtype
    mode = type(pool).__name__[:3].lower()
    links = oracle.pairs(
        oracle.as_sites(coords), oracle.as_sites(y.coords), oracle.taps(3, 3), (2, 2, 2)
    )
    reference = oracle.pool(f64(x.features), links, y.num_sites, mode)
    magnitude = oracle.pool(abs(f64(x.features)), links, y.num_sites, mode)
    _assert_rounded(y.features, reference, magnitude, 0 if mode == "max" else reference, mode)


def test_large_float16_sums_do_not_overflow_on_the_way():
    """60000 + 60000 - 60000 fits float16, its partial sum does not."""
    x = SparseTensor(
        torch.tensor([[60000.0], [60000.0], [-60000.0]], dtype=torch.float16),
        torch.tensor([[0, -1], [0, 0], [0, 1]], dtype=torch.int32),
    )
    layer = here(nn.Conv(1, 1, 3, bias=False, dim=1).half())
    with torch.no_grad():
        layer.weight.fill_(1)
    assert layer(here(x)).features[1].item() == 60000.0


@pytest.mark.parametrize("mode", ["AvgPool", "GlobalPool"])
def test_the_mean_of_large_float16_numbers_is_finite(mode):
    coords = torch.tensor([[0, i] for i in range(4)], dtype=torch.int32)
    x = SparseTensor(torch.full((4, 1), 40000.0, dtype=torch.float16), coords)
    pool = nn.AvgPool(4, 4, dim=1) if mode == "AvgPool" else nn.GlobalPool("avg")
    assert here(pool)(here(x)).features.item() == 40000.0


@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "features", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
@pytest.mark.parametrize("target", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_the_dtypes_of_conv3d(device, features, weight, target):
    ours = here(nn.Conv(2, 2, 3).to(weight))
    theirs = here(torch.nn.Conv3d(2, 2, 3, padding=1).to(weight))
    grid = SparseTensor.from_dense(here(torch.randn(1, 2, 3, 3, 3))).to(features)
    dense = grid.dense()
    with torch.autocast(device.type, target):
        try:
            expected = theirs(dense)
        except RuntimeError:
            with pytest.raises((TypeError, RuntimeError)):
                ours(grid)
            return
        y = ours(grid)
    assert y.dtype == expected.dtype
    y.features.float().sum().backward()
    assert ours.weight.grad.dtype == weight
    assert ours.bias.grad.dtype == weight


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_autocast_computes_what_bfloat16_computes(device, kind):
    x = random_tensor(random_sites(60, 3), 8, dtype=torch.float32)
    layer = randomized(getattr(nn, kind)(8, 8, 3, bias=False), torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    half = here(getattr(nn, kind)(8, 8, 3, bias=False).to(torch.bfloat16))
    half.load_state_dict(layer.state_dict())
    assert torch.equal(y.features, half(x.replace(x.features.bfloat16())).features)
    y.features.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert x.features.grad.dtype == torch.float32
    with torch.autocast(device.type, enabled=False):
        assert layer(x).dtype == torch.float32


def test_a_step_of_training_under_autocast(device):
    net = torch.nn.Sequential(
        nn.Conv(4, 8, 3), nn.BatchNorm(8), nn.ReLU(), nn.Conv(8, 8, 2, stride=2), nn.MaxPool(2, 2)
    ).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = random_tensor(random_sites(80, 3), 4, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        loss = net(x).features.float().square().mean()
    loss.backward()
    optimizer.step()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_to(device, dtype):
    x = random_tensor(random_sites(20, 3), 2, dtype=torch.float32, stride=2, batch_size=5)
    for y in (x.to(dtype), x.to(dtype=dtype), x.to(device, dtype), x.to("cpu", dtype).to(device)):
        assert y.dtype == y.features.dtype == dtype
        assert y.coords.dtype == torch.int32
        assert torch.equal(y.coords, x.coords)
        assert torch.equal(y.features, x.features.to(dtype))
        assert (y.stride, y.batch_size) == (x.stride, 5)
    assert x.to("cpu").dtype == torch.float32
    assert x.to(torch.device("cpu")).device == torch.device("cpu")
    assert x.to("cpu").coords.device == torch.device("cpu")
    x.to(dtype).features.sum().backward()
    assert (x.features.grad == 1).all()


def test_float32_mixed_up_with_float64_is_an_error():
    x = random_tensor(random_sites(20, 3), 2, dtype=torch.float32)
    with pytest.raises(TypeError, match="float64"):
        here(nn.Conv(2, 2, 3).double())(x)
