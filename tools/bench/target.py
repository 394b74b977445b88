"""On which device and in which precision to measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from perception.tools.bench.timing import CPU

__all__ = ["FLOAT32", "PRECISIONS", "Target"]

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "float16": 2e-2, "bfloat16": 6e-2}
"""Largest deviation between two libraries, relative to the largest value: rounding of the inputs of
products, and for float16 sums that spconv keeps in float16."""
CACHE_BYTES = 50 << 20
"""Where torch does not say how large the GPU's cache is: an H100's."""


@dataclass(frozen=True)
class Target:
    """A device, and what features and weights are there.

    Attributes:
        precision: "float32", "tf32" (float32 with rounded products), "float16" or "bfloat16".
    """

    device: torch.device = CPU
    precision: str = "float32"

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.precision]

    @property
    def map_bytes(self) -> int:
        """What the map takes a pair: both rows on the CPU; on a GPU, where every output row lists
        its taps, at least the input row."""
        return 4 if self.is_cuda else 8

    @contextmanager
    def switches(self) -> Iterator[None]:
        """torch's own switches for TF32 as the precision wants them, for a while."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.precision == "tf32"
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    def autocast(self) -> AbstractContextManager:
        """As a training step in mixed precision runs; nothing for the 32-bit precisions."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def rotation(self, size: int) -> int:
        """How many inputs of `size` bytes take turns, so that none waits in the GPU's cache."""
        if not self.is_cuda:
            return 1
        properties = torch.cuda.get_device_properties(self.device)
        cache = getattr(properties, "L2_cache_size", 0) or CACHE_BYTES
        return min(max(-(-2 * cache // max(size, 1)), 2), 16)


FLOAT32 = Target()
