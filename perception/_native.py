"""Loads the compiled operators into ``torch.ops.perception``.

The libraries are built against torch's stable ABI: one binary serves every torch >= 2.10. The CPU
library always loads; the CUDA library, where it was built, only into a CUDA torch that sees a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = [
    "CudaBuild",
    "check_device",
    "cuda_build",
    "cuda_of_driver",
    "cuda_problem",
    "instruction_set",
    "library_path",
    "ops",
    "release_memory",
    "supports",
]

_BUILD = "build it with `pip install .` in the source folder (a C++17 compiler is needed)"
_BUILD_CUDA = (
    "build it with `PERCEPTION_CUDA=ON pip install .` in the source folder (nvcc is needed)"
)
_NEEDED_DRIVER = {12: 525, 13: 580}  # the oldest that runs programs of a CUDA toolkit


def library_path(device_type: str = "cpu") -> Path:
    """Where the compiled library for ``"cpu"`` or ``"cuda"`` is, or would be."""
    return Path(str(files("perception") / "lib" / f"libperception_{device_type}.so"))


class CudaBuild(NamedTuple):
    """What the CUDA library was built by and for.

    Attributes:
        toolkit: the version of CUDA, ``"13.0.88"``.
        architectures: as CMake writes them: ``"90a-real"`` runs on compute capability 9.0 alone,
            ``"80-real"`` on every 8.x from there, ``"120"`` on everything from there.
    """

    toolkit: str
    architectures: tuple[str, ...]

    def runs_on(self, major: int, minor: int) -> bool:
        """Whether there is code for a GPU's compute capability."""
        have = major, minor
        for name in self.architectures:
            number, _, kind = name.partition("-")
            digits = number.rstrip("af")
            built = int(digits[:-1]), int(digits[-1])
            if number.endswith("a"):
                fits = built == have
            else:
                machine_code = kind != "virtual" and built[0] == major and built <= have
                fits = machine_code or (kind != "real" and built <= have)
            if fits:
                return True
        return False


@functools.cache
def cuda_build() -> CudaBuild | None:
    """What the CUDA library beside the CPU library was built for; None where there is none."""
    about = library_path("cuda").with_name("cuda.json")
    if not library_path("cuda").is_file() or not about.is_file():
        return None
    content = json.loads(about.read_text())
    return CudaBuild(content["toolkit"], tuple(content["architectures"]))


def cuda_of_driver() -> int:
    """The version of CUDA that the driver is made for, 13000 for 13.0; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def _load(device_type: str) -> None:
    path = library_path(device_type)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"perception: {path} does not load into torch {torch.__version__} ({error}); "
            f"torch >= 2.10 is required; with it, {_BUILD if device_type == 'cpu' else _BUILD_CUDA}"
        ) from None


def _load_cuda() -> str:
    """Loads the CUDA library where it can run.

    Returns:
        Why not, in words that end a sentence; nothing where it was loaded.

    Raises:
        ImportError: it was built and a GPU is there, and yet it does not load.
    """
    if torch.version.cuda is None:
        return "this torch is no CUDA build: install one"
    if not torch.cuda.is_available():
        return "torch sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"
    if not library_path("cuda").is_file():
        return f"the CUDA library was not built: {_BUILD_CUDA}"
    build = cuda_build()
    driver = cuda_of_driver()
    major = int(build.toolkit.split(".")[0]) if build is not None else 0
    if build is not None and driver // 1000 < major:
        raise ImportError(
            f"perception: {library_path('cuda')} was built by CUDA {build.toolkit} and the driver is made for "
            f"CUDA {driver // 1000}.{driver % 1000 // 10}; install a driver >= {_NEEDED_DRIVER.get(major, 'its')}, "
            f"or build it again with nvcc of CUDA {driver // 1000}"
        )
    _load("cuda")
    return ""


if not library_path().is_file():
    raise ImportError(f"perception: the native library {library_path()} is missing; {_BUILD}")
_load("cpu")

try:
    _cuda_problem = _load_cuda()
except ImportError as failure:  # the CPU works all the same
    _cuda_problem = str(failure).removeprefix("perception: ")
    warnings.warn(f"perception runs on the CPU only: {_cuda_problem}", RuntimeWarning, stacklevel=2)

ops = torch.ops.perception


def cuda_problem() -> str:
    """Why the operators do not exist on CUDA, and the remedy; nothing where they do."""
    return _cuda_problem


def instruction_set() -> str:
    """The instruction set that the products run on: ``avx512bf16``, ``avx512``, ``avx2`` or
    ``portable``.

    The environment variable ``PERCEPTION_ISA`` with one of these names forces it.
    """
    return {32: "avx512bf16", 16: "avx512", 8: "avx2"}.get(ops.instruction_set(), "portable")


def release_memory() -> int:
    """Gives the memory back to the system that the engine keeps for its next results on the CPU.

    Results of a megabyte and more come from a pool that holds no more than has been in use at one
    time, for fresh memory costs more than to compute what goes there.

    Returns:
        Bytes given back.
    """
    return int(ops.release_memory())


def supports(device_type: str) -> bool:
    """Whether the operators exist for a kind of device, such as ``"cpu"`` or ``"cuda"``."""
    key = {"cpu": "CPU", "cuda": "CUDA", "meta": "Meta"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        "perception::conv", key
    )


_gpus_with_code: set[int | None] = set()


def check_device(device: torch.device, what: str) -> None:
    """Raises ValueError where the operators do not exist for a tensor's device."""
    if not supports(device.type):
        if device.type == "cuda":
            raise ValueError(
                f"{what} is on {device} and the engine runs on the CPU only: {_cuda_problem}; or use .to('cpu')"
            )
        raise ValueError(
            f"{what} is on {device}; this build has no operators there: use .to('cpu')"
        )
    if device.type == "cuda" and device.index not in _gpus_with_code:
        _check_code(device, what)
        _gpus_with_code.add(device.index)


def _check_code(device: torch.device, what: str) -> None:
    build = cuda_build()
    major, minor = torch.cuda.get_device_capability(device)
    if build is not None and not build.runs_on(major, minor):
        raise ValueError(
            f"{what} is on {device}, a GPU of compute capability {major}.{minor}, and the CUDA library was built "
            f"for {', '.join(build.architectures)}; build it again on this machine, or with "
            f"PERCEPTION_CUDA_ARCHS={major}{minor}-real"
        )
