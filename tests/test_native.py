"""The native libraries: what they need of torch, what they bring, and what is said where they do not fit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perception import _native

CUDA = _native.library_path("cuda")
built = pytest.mark.skipif(not CUDA.is_file(), reason="the CUDA library was not built (no nvcc)")

# A CUDA build of torch brings these through libtorch.so; a CPU build does not.
SHIMS = {
    "aoti_torch_get_current_cuda_stream",
    "torch_c10_cuda_check_msg",
    "torch_c10_cuda_free_error_msg",
}

LAZY = """
import ctypes, os, sys
import torch
from perception import _native
has = torch._C._dispatch_has_kernel_for_dispatch_key
names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("perception::")]
ctypes.CDLL(sys.argv[1], mode=os.RTLD_LAZY)  # symbols are looked up when they are called, if ever
hosts = ("perception::instruction_set", "perception::release_memory")
print(*(n for n in names if n not in hosts and not has(n, "CUDA")))
print(len(names), sum(has(n, "CPU") for n in names), _native.supports("cuda"))
"""


@built
@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_the_cuda_library_takes_nothing_from_torch_that_torch_does_not_have() -> None:
    libraries = Path(torch.__file__).parent / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(
        ["ldd", "-r", str(CUDA)], env=environment, capture_output=True, text=True, check=True
    )
    report = done.stdout + done.stderr
    assert "not found" not in report, report
    assert re.search(r"libtorch\.so => \S", report), report
    missing = set(re.findall(r"undefined symbol: ([^\s,]+)", report))
    assert missing <= (SHIMS if torch.version.cuda is None else set()), missing


@built
def test_every_operator_has_a_cuda_kernel() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY, str(CUDA)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    without, counts = done.stdout.rstrip("\n").split("\n")
    assert not without, f"no CUDA kernel: {without}"
    assert counts.endswith("True")


@built
def test_what_the_cuda_library_was_built_for_is_known() -> None:
    build = _native.cuda_build()
    assert build is not None
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", build.toolkit)
    assert any(build.runs_on(*have) for have in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("80-real", [(8, 0), (8, 6), (8, 9)]),
        ("86-real", [(8, 6), (8, 9)]),
        ("90a-real", [(9, 0)]),
        ("90-virtual", [(9, 0), (10, 0), (12, 0), (12, 1)]),
        ("120", [(12, 0), (12, 1)]),
        ("80", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1)]),
    ],
)
def test_which_gpus_an_architecture_is_for(name: str, fits: list[tuple[int, int]]) -> None:
    gpus = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1)]
    build = _native.CudaBuild("13.0", (name,))
    assert [gpu for gpu in gpus if build.runs_on(*gpu)] == fits


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU and a driver for CUDA 12.8; the place of a CUDA library is returned."""
    library = tmp_path / "libperception_cuda.so"
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_native, "library_path", lambda device_type="cpu": library)
    monkeypatch.setattr(_native, "cuda_of_driver", lambda: 12080)
    monkeypatch.setattr(_native, "cuda_build", lambda: _native.CudaBuild("12.8.1", ("80-real",)))
    return library


def test_a_gpu_without_the_library_is_told_how_to_get_it(a_gpu: Path) -> None:
    assert "PERCEPTION_CUDA=ON pip install ." in _native._load_cuda()


def test_a_library_newer_than_the_driver_is_refused(
    a_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_gpu.touch()
    monkeypatch.setattr(_native, "cuda_build", lambda: _native.CudaBuild("13.0.88", ("90a-real",)))
    with pytest.raises(ImportError, match=r"built by CUDA 13\.0\.88 .* CUDA 12\.8; .* >= 580"):
        _native._load_cuda()


def test_a_library_that_does_not_load_is_named(a_gpu: Path) -> None:
    a_gpu.write_bytes(b"no library")
    with pytest.raises(
        ImportError, match=r"libperception_cuda\.so does not load .* torch >= 2\.10"
    ):
        _native._load_cuda()


def test_without_a_gpu_the_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU" in _native._load_cuda()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "no CUDA build" in _native._load_cuda()


def test_tensors_on_a_gpu_that_the_library_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cuda_build", lambda: _native.CudaBuild("13.0.88", ("90a-real",)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(_native, "supports", lambda device_type: True)
    monkeypatch.setattr(_native, "_gpus_with_code", set())
    with pytest.raises(ValueError, match=r"capability 8\.6, .* for 90a-real; .*ARCHS=86-real"):
        _native.check_device(torch.device("cuda:3"), "coords")


@pytest.mark.skipif(_native.supports("cuda"), reason="the operators exist on CUDA here")
def test_cuda_tensors_without_cuda_operators_name_the_cause() -> None:
    with pytest.raises(ValueError, match=f"on the CPU only: {_native.cuda_problem()[:20]}"):
        _native.check_device(torch.device("cuda:0"), "coords")
    with pytest.raises(ValueError, match=r"use \.to\('cpu'\)"):
        _native.check_device(torch.device("xpu"), "coords")
