"""A window to turn a cloud in, by Open3D (extra ``viz``).

Open3D is large, needs a display and a few system libraries. Everything here that can be missing
ends in one :class:`WindowError` that names what to install; :func:`perception.viz.picture` needs
none of it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Boxes3D
from perception.io import PointCloud
from perception.viz.picture import EDGES

# Packages of Debian and Ubuntu that bring the libraries Open3D loads.
PACKAGES = {
    "libusb-1.0": "libusb-1.0-0",
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libX11": "libx11-6",
    "libgomp": "libgomp1",
    "libudev": "libudev1",
    "libidn2": "libidn2-0",
}


class WindowError(RuntimeError):
    """No window can be opened here; the one-line message says why and what to do."""


def import_open3d() -> Any:
    """The module ``open3d``.

    Raises:
        WindowError: it is not installed, or a system library is missing.
    """
    try:
        import open3d
    except ModuleNotFoundError as error:
        if error.name != "open3d":
            raise WindowError(f"Open3D cannot be loaded ({error}); install {error.name}") from None
        raise WindowError(
            'no window without Open3D; install it with pip install "sparse-perception[viz]"'
        ) from None
    except (ImportError, OSError) as error:
        cause = " ".join(str(error).split())
        library = re.search(r"(lib[\w.+-]+?)\.so", cause)
        package = next((p for name, p in PACKAGES.items() if library and name in library[0]), None)
        remedy = f"apt-get install {package}" if package else "install that library"
        raise WindowError(f"Open3D cannot be loaded ({cause}); {remedy}") from None
    return open3d


def has_display() -> bool:
    """Whether a window can be expected to open: on Linux, whether a display server answers.

    A DISPLAY that nobody serves has to be found here: Open3D would draw into memory and wait for
    ever for a window to be closed that is not there.
    """
    if not sys.platform.startswith("linux"):
        return True
    wayland = os.environ.get("WAYLAND_DISPLAY")
    if wayland:
        path = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), wayland)
        if _answers(socket.AF_UNIX, path):
            return True
    match = re.fullmatch(r"(?:[a-z]+/)?(.*):(\d+)(?:\.\d+)?", os.environ.get("DISPLAY", ""))
    if not match:
        return False
    host, number = match[1], int(match[2])
    if host in ("", "unix"):
        name = f"/tmp/.X11-unix/X{number}"
        return _answers(socket.AF_UNIX, name) or _answers(socket.AF_UNIX, "\0" + name)
    return _answers(socket.AF_INET, (host, 6000 + number))


def _answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    """Whether a socket can be connected to."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            probe.connect(address)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def show(
    cloud: PointCloud,
    colors: NDArray[np.uint8],
    *,
    boxes: Boxes3D | None = None,
    box_colors: NDArray[np.uint8] | None = None,
    title: str = "perception",
) -> None:
    """Open a window and wait until it is closed.

    Args:
        cloud: the points.
        colors: ``[N, 3]``.
        boxes: drawn as wire frames.
        box_colors: ``[M, 3]``, white if None.
        title: of the window.

    Raises:
        WindowError: there is no display, no Open3D, or a library of the system is missing.
    """
    if not has_display():
        raise WindowError("no window without a display; save a picture instead (--save out.png)")
    open3d = import_open3d()
    points = open3d.geometry.PointCloud()
    points.points = open3d.utility.Vector3dVector(cloud.points.astype(np.float64))
    points.colors = open3d.utility.Vector3dVector(colors.astype(np.float64) / 255)
    viewer = open3d.visualization.Visualizer()
    if not viewer.create_window(window_name=title, width=1600, height=900):
        raise WindowError("the display refused a window; save a picture instead (--save out.png)")
    try:
        viewer.add_geometry(points)
        if boxes is not None and len(boxes):
            viewer.add_geometry(_wire_frames(open3d, boxes, box_colors))
        options = viewer.get_render_option()
        options.background_color = np.array([0.05, 0.06, 0.075])
        options.point_size = 2.5
        view = viewer.get_view_control()
        view.set_front([-0.85, 0.0, 0.5])
        view.set_up([0.0, 0.0, 1.0])
        view.set_lookat(np.median(cloud.points, axis=0) if len(cloud) else np.zeros(3))
        view.set_zoom(0.2)
        viewer.run()
    finally:
        viewer.destroy_window()


def _wire_frames(open3d: Any, boxes: Boxes3D, colors: NDArray[np.uint8] | None) -> Any:
    corners = boxes.corners().reshape(-1, 3).astype(np.float64)
    edges = (EDGES[None] + 8 * np.arange(len(boxes))[:, None, None]).reshape(-1, 2)
    lines = open3d.geometry.LineSet()
    lines.points = open3d.utility.Vector3dVector(corners)
    lines.lines = open3d.utility.Vector2iVector(edges)
    table = np.full((len(boxes), 3), 255, np.uint8) if colors is None else colors
    painted = np.repeat(table.astype(np.float64) / 255, len(EDGES), axis=0)
    lines.colors = open3d.utility.Vector3dVector(painted)
    return lines
