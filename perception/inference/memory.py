"""How much memory there is, and how much a network takes."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes", "free_memory", "rough_bytes_per_site"]

_CGROUPS = (
    # What a container may take and what it takes: versions 2 and 1.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be taken on a device now; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    known = []
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            known.append(int(line.split()[1]) * 1024)
    for limit, usage in _CGROUPS:
        most, used = _text(limit).strip(), _text(usage).strip()
        if most.isdigit() and used.isdigit():
            known.append(max(int(most) - int(used), 0))
    return min(known) if known else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def rough_bytes_per_site(net: nn.Module) -> int:
    """More bytes a site than any network of these widths takes: 64 rows of its widest layer."""
    widths = [int(p.shape[-1]) for p in net.parameters() if p.ndim >= 2]
    return 64 * 4 * max(widths, default=1)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that live at the same time, kernel maps included.

    Attributes:
        peak: the most there were, without those that were there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: weakref.ref) -> None:
            self._now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size
        self.peak = max(self.peak, self._now)
