"""The memory that the engine keeps for features on the CPU."""

from __future__ import annotations

import multiprocessing
import sys

import pytest
import torch

from perception._native import ops
from perception.sparse import release_memory
from perception.sparse.kernel_map import Pairs

LARGE = 1 << 19  # rows of four float32 numbers: 8 MiB


def identity(rows: int) -> Pairs:
    index = torch.arange(rows, dtype=torch.int32)
    return index, index, torch.tensor([0, rows])


def layer(x: torch.Tensor) -> torch.Tensor:
    return ops.conv(x, torch.eye(4)[None], None, list(identity(len(x))), [], len(x), 1, False)


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kept on Linux only")


def test_memory_of_a_dead_result_serves_the_next_and_can_be_given_back() -> None:
    x = torch.randn(LARGE, 4)
    first = layer(x)
    place = first.data_ptr()
    del first
    second = layer(x)
    assert second.data_ptr() == place
    assert torch.equal(second, x)
    del second
    assert release_memory() >= x.nbytes
    assert release_memory() == 0


def test_views_keep_the_memory_of_their_result() -> None:
    x = torch.randn(LARGE, 4)
    kept = layer(x)[5:9]
    for _ in range(3):
        layer(torch.zeros(LARGE, 4))
    assert torch.equal(kept, x[5:9])


def test_what_is_kept_is_bounded_by_what_was_in_use_at_one_time() -> None:
    release_memory()
    for rows in range(LARGE, 4 * LARGE, LARGE // 3):  # no size comes twice
        layer(torch.zeros(rows, 4))
    assert release_memory() <= 1.4 * 4 * LARGE * 16


def in_child(queue: multiprocessing.Queue) -> None:
    queue.put(float(layer(torch.ones(LARGE, 4)).sum()))


def test_a_forked_child_has_its_own() -> None:
    layer(torch.ones(LARGE, 4))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a child does not have the threads of its parent's pool
    try:
        child.start()
        assert queue.get(timeout=60) == 4.0 * LARGE
        child.join(60)
    finally:
        torch.set_num_threads(threads)
