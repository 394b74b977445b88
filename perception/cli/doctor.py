"""``perception doctor [PATH]``: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report."""

    state: str  # "ok", "note" (works without), "warn" (suspicious), "bad" (does not work)
    what: str
    detail: str


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="perception doctor",
        description="Say what is installed, which backends work and what to do; with a path, "
        "which data set it is, what is in it, what is missing or suspicious, and draw a frame of it.",
    )
    result.add_argument("path", nargs="?", type=Path, metavar="PATH", help="data to look at")
    result.add_argument(
        "--picture",
        type=Path,
        metavar="OUT.png",
        help="where the frame is drawn (default: a temporary file)",
    )
    return result


def run(argv: list[str]) -> int:
    """Print the findings.

    Returns:
        0, or 1 if something that is needed does not work.
    """
    options = parser().parse_args(argv)
    bad = False
    for finding in _findings(options.path, options.picture):
        bad |= finding.state == "bad"
        mark = {"ok": "ok  ", "note": "note", "warn": "WARN", "bad": "BAD "}[finding.state]
        print(f"{mark}  {finding.what:<12} {finding.detail}", flush=True)
    return 1 if bad else 0


def _findings(path: Path | None, target: Path | None) -> Iterator[Finding]:
    if path is None:
        return machine()
    from perception.cli.doctor_data import examine

    return examine(path, target)


def machine() -> Iterator[Finding]:
    """What is installed here and what works."""
    from perception import __version__

    yield Finding("ok", "perception", f"{__version__} in {Path(__file__).resolve().parents[1]}")
    python = platform.python_version()
    good = sys.version_info >= (3, 10)
    remedy = "" if good else "; 3.10 or newer is needed"
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("ok" if good else "bad", "python", f"{python}, {system}{remedy}")
    try:
        import torch
    except ImportError as error:
        yield Finding("bad", "torch", f"{error}; pip install 'torch>=2.10'")
        return
    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield _processor(torch.backends.cpu.get_cpu_capability())
    yield from _engine()
    yield from _cuda()
    yield _models()
    yield from _optional()


def _processor(capability: str) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return Finding("ok", "processor", f"{name}, {cores} cores, {capability}")


def _engine() -> Iterator[Finding]:
    """The native library: there, loaded, and right on a small problem."""
    try:
        from perception import _native
    except ImportError as error:
        yield Finding("bad", "engine", " ".join(str(error).split()))
        return
    detail = f"native library {_native.library_path().name} ({_native.instruction_set()})"
    yield _small_problem("engine", detail, "cpu")


def _small_problem(what: str, detail: str, device: str) -> Finding:
    """A convolution of a full grid on a device, which torch can do too."""
    import torch

    from perception import SparseTensor
    from perception.nn import Conv

    cells = torch.cartesian_prod(*[torch.arange(4)] * 3).int()
    coords = torch.cat([torch.zeros(64, 1, dtype=torch.int32), cells], 1)
    conv = Conv(2, 3)
    features = torch.randn(64, 2)
    with torch.no_grad():
        kernel = conv.weight.reshape(3, 3, 3, 2, 3).permute(4, 3, 0, 1, 2)
        grid = features.reshape(4, 4, 4, 2).permute(3, 0, 1, 2)[None]
        dense = torch.nn.functional.conv3d(grid, kernel, conv.bias, padding=1)
        expected = dense[0].permute(1, 2, 3, 0).reshape(64, 3)
        try:
            x = SparseTensor(features.to(device), coords.to(device))
            found = conv.to(device)(x).features.cpu()
        except (RuntimeError, ValueError) as error:
            return Finding("bad", what, f"{detail}; fails: {str(error).strip().splitlines()[0]}")
        gap = float((found - expected).abs().max())
    if gap < 1e-4:
        return Finding("ok", what, f"{detail}; agrees with a dense convolution to {gap:.0e}")
    wrong = f"{detail} is wrong by {gap:.2g}; build it again with `pip install .`"
    return Finding("bad", what, wrong)


def _cuda() -> Iterator[Finding]:
    """The CUDA library, and whether it works on each GPU."""
    import torch

    try:
        from perception import _native
    except ImportError:
        return  # the line about the engine says so
    build = _native.cuda_build()
    if build is not None:
        yield Finding(
            "ok",
            "cuda",
            f"library built by CUDA {build.toolkit} for {', '.join(build.architectures)}",
        )
    elif _native.library_path("cuda").is_file():
        yield Finding("ok", "cuda", "library built")
    else:
        yield Finding("note", "cuda", "library not built")
    if _native.cuda_problem():
        failed = torch.cuda.is_available() and _native.library_path("cuda").is_file()
        detail = f"not used, {_native.cuda_problem()}; everything runs on the CPU"
        yield Finding("bad" if failed else "note", "cuda", detail)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory, driver = properties.total_memory / 2**30, _native.cuda_of_driver()
        name = (
            f"{properties.name}, sm_{properties.major}{properties.minor}, {memory:.0f} GiB, "
            f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}"
        )
        if _native.supports("cuda"):
            yield _small_problem(f"cuda:{index}", name, f"cuda:{index}")
        else:
            yield Finding("note", f"cuda:{index}", f"{name}; not used")


def _models() -> Finding:
    from perception.pipeline import bundled_models

    found = ", ".join(bundled_models())
    if found:
        return Finding("ok", "models", found)
    return Finding("note", "models", "none bundled; train one: perception demo")


def _optional() -> Iterator[Finding]:
    """Packages that some verbs can do without."""
    from perception.viz.window import WindowError, has_display, import_open3d

    try:
        open3d = import_open3d()
        screen = "" if has_display() else ", but no display: pictures only"
        yield Finding("ok" if has_display() else "note", "window", f"{open3d.__version__}{screen}")
    except WindowError as error:
        yield Finding("note", "window", f"{error}; pictures work without")
    for name, use in (("spconv-cu120", "a peer for benchmarks"), ("tensorboard", "training logs")):
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("note", name, f"not installed ({use}); pip install {name}")
