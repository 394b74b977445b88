"""What is learned by reading a whole data set once, kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from perception.datasets.readers.index import Arrays, cached
from perception.datasets.sample import Scans

__all__ = ["kept"]


def kept(kind: str, scans: Scans, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of `build()`, kept like the readers' indices where the data set has a folder.

    They are found again for the same folder (`scans.root`), kind of data set, classes and names of
    samples; a data set without a folder is read every time.

    Args:
        kind: what is kept, with the version of its layout: `"objects-1"`.
        scans: the data set that `build` reads.
        build: makes the arrays; none may be of dtype object.
    """
    root = getattr(scans, "root", None) or getattr(scans, "_root", None)
    if root is None:
        return build()
    digest = hashlib.sha256()
    for name in scans.names:
        digest.update(f"{name}\n".encode())
    options = f"{type(scans).__qualname__} {scans.classes} {scans.box_classes} {digest.hexdigest()}"
    return cached(kind, Path(root), [Path(root)], build, options=options)
