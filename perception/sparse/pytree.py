"""Sparse tensors as trees of tensors, so that ``torch.export`` and function transforms take them.

The leaves are the features, the sites, and the plans that the sites hold at that moment: a network
traced with its plans given is one graph of tensors.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree

from perception.sparse.kernel_map import KernelMap, TableMap
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor

__all__: list[str] = []


def _flatten_map(plan: KernelMap) -> tuple[list[Any], Any]:
    reverse = None if plan.monotone else plan._reverse
    return [*plan.pairs, *(reverse or ()), *(plan._by_output or ())], (
        plan.monotone,
        reverse is not None,
        plan._by_output is not None,
    )


def _unflatten_map(leaves: Any, context: Any) -> KernelMap:
    monotone, has_reverse, has_rows = context
    values = list(leaves)
    plan = KernelMap(tuple(values[:3]), monotone, tuple(values[3:6]) if has_reverse else None)
    if has_rows:
        plan._by_output = tuple(values[-2:])
    return plan


def _flatten_table(plan: TableMap) -> tuple[list[Any], Any]:
    back = None if plan._back is None else (plan._back,)
    parts = plan._tiles, back, plan._raw_pairs, plan._by_output
    leaves = [plan.table, *(tensor for part in parts for tensor in part or ()), plan._opposite]
    return leaves, (plan.rank, plan.mirrored, tuple(part is not None for part in parts))


def _unflatten_table(leaves: Any, context: Any) -> TableMap:
    rank, mirrored, (has_tiles, has_back, has_pairs, has_rows) = context
    table, *values, opposite = leaves
    plan = TableMap(rank, mirrored, table=table)
    rest = iter(values)
    if has_tiles:
        plan._tiles = next(rest), next(rest), next(rest)
    if has_back:
        plan._back = next(rest)
    if has_pairs:
        plan._raw_pairs = next(rest), next(rest), next(rest)
    if has_rows:
        plan._by_output = next(rest), next(rest)
    if opposite is not None:
        plan._keep_opposite(opposite)
    return plan


def _flatten_sites(sites: Sites) -> tuple[list[Any], Any]:
    # Plans to foreign sites belong to objects that are not part of the tree.
    maps = {key: plan for key, plan in sites._maps.items() if key[0][0] != "other"}
    children = [sites.coords, sites._by_sample, *sites._derived.values(), *maps.values()]
    return children, (
        sites.stride,
        sites.batch_size,
        sites._is_sorted,
        tuple(sites._derived),
        tuple(maps),
    )


def _unflatten_sites(children: Any, context: Any) -> Sites:
    stride, batch_size, is_sorted, derived, maps = context
    coords, by_sample, *rest = children
    sites = Sites(coords, stride, batch_size, is_sorted=is_sorted)
    sites._by_sample = by_sample
    sites._derived = dict(zip(derived, rest[: len(derived)], strict=True))
    sites._maps = dict(zip(maps, rest[len(derived) :], strict=True))
    return sites


def _flatten_tensor(x: SparseTensor) -> tuple[list[Any], Any]:
    return [x.features, x.sites], None


def _unflatten_tensor(children: Any, context: Any) -> SparseTensor:
    x = object.__new__(SparseTensor)
    x.features, x.sites = children
    x.ancestors = ()
    return x


def _register(kind: type, flatten: Callable, unflatten: Callable) -> None:
    def flatten_with_keys(value: Any) -> tuple[list[Any], Any]:
        children, context = flatten(value)
        return [(pytree.SequenceKey(i), child) for i, child in enumerate(children)], context

    pytree.register_pytree_node(
        kind,
        flatten,
        unflatten,
        serialized_type_name=f"perception.{kind.__name__}",
        to_dumpable_context=repr,  # nested tuples of names and numbers
        from_dumpable_context=ast.literal_eval,
        flatten_with_keys_fn=flatten_with_keys,
    )


_register(KernelMap, _flatten_map, _unflatten_map)
_register(TableMap, _flatten_table, _unflatten_table)
_register(Sites, _flatten_sites, _unflatten_sites)
_register(SparseTensor, _flatten_tensor, _unflatten_tensor)
