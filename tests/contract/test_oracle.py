"""The oracle itself, checked against torch's dense operations: who guards the guards."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from torch.nn import functional

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
CASES = [  # dim, kernel, stride, dilation, padding, groups
    (1, 3, 1, 1, 1, 1),
    (1, 4, 2, 1, 0, 2),
    (2, 3, 2, 2, 2, 1),
    (2, (2, 3), (1, 2), (2, 1), (1, 0), 2),
    (3, 3, 1, 1, 1, 4),
    (3, 2, 2, 1, 0, 1),
    (3, (1, 3, 2), (1, 2, 3), 1, (0, 1, 1), 2),
]


def _grid(shape: tuple[int, ...]) -> list[oracle.Site]:
    return [(0, *index) for index in np.ndindex(*shape)]


@pytest.mark.parametrize(("dim", "kernel", "stride", "dilation", "padding", "groups"), CASES)
def test_conv_and_its_gradients_equal_dense_torch(dim, kernel, stride, dilation, padding, groups):
    rng = np.random.default_rng(0)
    size, step = oracle.per_axis(kernel, dim), oracle.per_axis(stride, dim)
    shape = (7, 6, 5)[:dim]
    offsets = oracle.taps(dim, kernel, dilation, padding)
    dense = torch.from_numpy(rng.normal(size=(1, 4, *shape))).requires_grad_()
    weight = rng.normal(size=(len(offsets), 4 // groups, 8))
    bias = rng.normal(size=8)
    kernel_weight = torch.from_numpy(weight.reshape(*size, 4 // groups, 8))
    kernel_weight = kernel_weight.permute(dim + 1, dim, *range(dim)).requires_grad_()
    expected = CONV[dim](
        dense,
        kernel_weight,
        torch.from_numpy(bias),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    in_sites, out_sites = _grid(shape), _grid(tuple(expected.shape[2:]))
    features = dense.detach()[0].reshape(4, -1).T.numpy()
    links = oracle.pairs(in_sites, out_sites, offsets, step)
    out = oracle.conv(features, weight, bias, links, len(out_sites), groups)
    np.testing.assert_allclose(out, expected[0].detach().reshape(8, -1).T.numpy(), atol=1e-12)

    grad_out = rng.normal(size=out.shape)
    expected.backward(torch.from_numpy(grad_out.T.reshape(expected.shape)))
    grads = oracle.conv_backward(grad_out, features, weight, links, groups)
    np.testing.assert_allclose(grads.features, dense.grad[0].reshape(4, -1).T, atol=1e-12)
    back = kernel_weight.grad.permute(*range(2, dim + 2), 1, 0).reshape(weight.shape)
    np.testing.assert_allclose(grads.weight, back, atol=1e-11)
    np.testing.assert_allclose(grads.bias, grad_out.sum(0))


@pytest.mark.parametrize(("dim", "kernel", "stride", "dilation", "padding", "groups"), CASES)
def test_transposed_conv_equals_dense_torch(dim, kernel, stride, dilation, padding, groups):
    rng = np.random.default_rng(1)
    size, step = oracle.per_axis(kernel, dim), oracle.per_axis(stride, dim)
    shape = (4, 3, 5)[:dim]
    offsets = oracle.taps(dim, kernel, dilation, padding)
    dense = torch.from_numpy(rng.normal(size=(1, 4, *shape)))
    weight = rng.normal(size=(len(offsets), 4 // groups, 6 if groups < 4 else 8))
    c_out = weight.shape[2]
    kernel_weight = torch.from_numpy(weight.reshape(*size, 4 // groups, groups, c_out // groups))
    kernel_weight = kernel_weight.permute(dim + 1, dim, dim + 2, *range(dim))
    kernel_weight = kernel_weight.reshape(4, c_out // groups, *size)
    expected = CONV_TRANSPOSE[dim](
        dense, kernel_weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    in_sites, out_sites = _grid(shape), _grid(tuple(expected.shape[2:]))
    links = oracle.pairs_transposed(in_sites, out_sites, offsets, step)
    features = dense[0].reshape(4, -1).T.numpy()
    out = oracle.conv(features, weight, None, links, len(out_sites), groups)
    np.testing.assert_allclose(out, expected[0].reshape(c_out, -1).T.numpy(), atol=1e-12)


@pytest.mark.parametrize("mode", ["max", "avg", "sum"])
def test_pool_equals_dense_torch(mode):
    rng = np.random.default_rng(2)
    dense = torch.from_numpy(rng.normal(size=(1, 3, 6, 4, 8))).requires_grad_()
    if mode == "max":
        expected = functional.max_pool3d(dense, 2, 2)
    else:
        expected = functional.avg_pool3d(dense, 2, 2) * (8 if mode == "sum" else 1)
    sites = _grid((6, 4, 8))
    out_sites = oracle.floor_stride(sites, (2, 2, 2))
    assert out_sites == _grid((3, 2, 4))
    links = oracle.pairs(sites, out_sites, oracle.pool_taps(3, 2, 2), (2, 2, 2))
    features = dense.detach()[0].reshape(3, -1).T.numpy()
    out = oracle.pool(features, links, len(out_sites), mode)
    np.testing.assert_allclose(out, expected[0].detach().reshape(3, -1).T, atol=1e-12)
    grad_out = rng.normal(size=out.shape)
    expected.backward(torch.from_numpy(grad_out.T.reshape(expected.shape).copy()))
    grad = oracle.pool_backward(grad_out, features, links, len(out_sites), mode)
    np.testing.assert_allclose(grad, dense.grad[0].reshape(3, -1).T, atol=1e-12)


def test_reach_is_everything_a_dense_conv_can_touch():
    """A dense convolution of ones is non-zero exactly at the sites that some tap reaches."""
    sites = [(0, 1, 2), (0, 4, 4), (0, 5, 0)]
    dense = torch.zeros(1, 1, 6, 6)
    for _, x, y in sites:
        dense[0, 0, x, y] = 1
    out = functional.conv2d(dense, torch.ones(1, 1, 3, 3), stride=2, padding=1)
    expected = [(0, *index) for index in torch.nonzero(out[0, 0]).tolist()]
    offsets = oracle.taps(2, 3)
    assert oracle.reach(sites, offsets, (2, 2), bounds=((0, 0), (2, 2))) == expected
    out = functional.conv_transpose2d(dense, torch.ones(1, 1, 3, 3), stride=2, padding=1)
    expected = [(0, *index) for index in torch.nonzero(out[0, 0]).tolist()]
    bounds = ((0, 0), tuple(n - 1 for n in out.shape[2:]))
    assert oracle.reach_transposed(sites, offsets, (2, 2), bounds) == expected


def test_trilinear_equals_grid_sample():
    rng = np.random.default_rng(3)
    dense = torch.from_numpy(rng.normal(size=(1, 2, 4, 5, 6)))
    points = rng.uniform(0.5, 3.5, size=(50, 3))  # between centres: all eight corners exist
    grid = points[:, ::-1] / np.array([6, 5, 4]) * 2 - 1  # grid_sample wants the last axis first
    expected = functional.grid_sample(
        dense, torch.from_numpy(grid.copy()).reshape(1, 1, 1, -1, 3), align_corners=False
    )
    terms = oracle.interpolation(
        _grid((4, 5, 6)), points, (1.0,) * 3, stride=(1,) * 3, mode="trilinear"
    )
    out = oracle.devoxelize(dense[0].reshape(2, -1).T.numpy(), terms)
    np.testing.assert_allclose(out, expected.reshape(2, -1).T.numpy(), atol=1e-12)


def test_voxelize_by_hand():
    points = np.array([[0.1, 0.1], [-0.1, 0.0], [0.4, 0.4], [0.6, 0.2]])
    values = np.array([[1.0], [2.0], [5.0], [7.0]])
    voxels = oracle.voxelize(points, (0.5, 0.5), values)
    assert voxels.sites == [(0, -1, 0), (0, 0, 0), (0, 1, 0)]
    assert voxels.features.tolist() == [[2.0], [3.0], [7.0]]
    assert voxels.point_to_voxel == [1, 0, 1, 2]
    assert voxels.counts == [1, 2, 1]
