"""The window's ways to be impossible end in one line."""

from __future__ import annotations

import builtins
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.io import PointCloud
from perception.viz.window import WindowError, has_display, import_open3d, show


def failing_import(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    original = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "open3d":
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)


def test_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WindowError, match="--save"):
        show(PointCloud(np.zeros((1, 3))), np.zeros((1, 3), np.uint8))


@pytest.mark.parametrize("display", [":97", "localhost:98.0", "nonsense", ":99999999999"])
def test_a_display_that_nobody_serves(monkeypatch: pytest.MonkeyPatch, display: str) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    assert not has_display()


def test_a_display_that_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WAYLAND_DISPLAY", "w")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "w"))
        server.listen()
        assert has_display()


def test_no_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_import(monkeypatch, ModuleNotFoundError("No module named 'open3d'", name="open3d"))
    with pytest.raises(WindowError, match=r'pip install "sparse-perception\[viz\]"'):
        import_open3d()


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libusb-1.0.so.0", "libusb-1.0-0"),
        ("libGL.so.1", "libgl1"),
        ("libfoo.so.2", "that library"),
    ],
)
def test_missing_system_library(
    monkeypatch: pytest.MonkeyPatch, library: str, package: str
) -> None:
    message = f"{library}: cannot open shared object file: No such file or directory"
    failing_import(monkeypatch, ImportError(message))
    with pytest.raises(WindowError, match=f"{library}.*install {package}$"):
        import_open3d()
