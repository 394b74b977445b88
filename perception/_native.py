"""Loads the compiled operators into ``torch.ops.perception``.

The library is built against torch's stable ABI: one binary serves every torch >= 2.10.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

__all__ = ["check_device", "instruction_set", "library_path", "ops", "supports"]

_BUILD = "build it with `pip install .` in the source folder (a C++17 compiler is needed)"


def library_path() -> Path:
    """Where the compiled CPU library is, or would be."""
    return Path(str(files("perception") / "lib" / "libperception_cpu.so"))


def _load() -> None:
    path = library_path()
    if not path.is_file():
        raise ImportError(f"perception: the native library {path} is missing; {_BUILD}")
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"perception: {path} does not load into torch {torch.__version__} ({error}); "
            f"torch >= 2.10 is required; with it, {_BUILD}"
        ) from None


_load()

ops = torch.ops.perception


def instruction_set() -> str:
    """The instruction set that the products run on: ``avx512``, ``avx2`` or ``portable``.

    The environment variable ``PERCEPTION_ISA`` with one of these names forces it.
    """
    return {16: "avx512", 8: "avx2"}.get(ops.instruction_set(), "portable")


def supports(device_type: str) -> bool:
    """Whether the operators exist for a kind of device, such as ``"cpu"`` or ``"cuda"``."""
    key = {"cpu": "CPU", "cuda": "CUDA", "meta": "Meta"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        "perception::conv", key
    )


def check_device(device: torch.device, what: str) -> None:
    """Raises ValueError where the operators do not exist for a tensor's device."""
    if not supports(device.type):
        raise ValueError(
            f"{what} is on {device}; this build has no operators there: use .to('cpu')"
        )
