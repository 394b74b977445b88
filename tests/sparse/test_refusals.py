"""Maps and sizes that the operators refuse: on the CPU, where looking at a map costs little."""

from __future__ import annotations

import pytest
import torch
from conftest import surface

from perception._native import ops
from perception.sparse.kernel_map import kernel_map
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import build_index


def test_a_map_of_other_features_is_refused() -> None:
    sites, offsets = surface(150, batch=2), kernel_offsets("cube", 3, dim=3)
    index = build_index(sites)[0]
    pairs = list(kernel_map(index, sites, sites, offsets, (1, 1, 1), False))
    x, weight = torch.randn(len(sites), 6), torch.randn(27, 6, 8)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x[:5], weight, None, pairs, [], len(x), 1, False)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x, weight, None, pairs, [], 5, 1, False)


def test_row_counts_of_forged_sizes_are_refused_or_carried() -> None:
    """Two thousand million rows by stride zero: the type's limit is met before any memory is."""
    sites = torch.zeros(1, 4, dtype=torch.int32).expand(2**31, 4)
    with pytest.raises(RuntimeError, match=r"2\^31 - 1"):
        ops.unique_sites(sites)
    with pytest.raises(RuntimeError, match=r"2\^31 - 1"):
        ops.build_index(sites, True)
    with torch.device("meta"):
        rows = 2**31 - 1
        x, weight = torch.empty(rows, 8), torch.empty(27, 8, 16)
        pairs = [torch.empty(9 * rows, dtype=torch.int32)] * 2 + [
            torch.empty(28, dtype=torch.int64)
        ]
        grad = torch.empty(rows, 16)
        assert ops.conv(x, weight, None, pairs, [], rows, 1, False).shape == (rows, 16)
        assert ops.conv_weight_grad(x, grad, pairs, [], 1, False, False).shape == (27, 8, 16)
