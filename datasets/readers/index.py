"""What a reader knows of a data set before it reads a sample, kept between runs.

An index is a handful of named numpy arrays. Building one means listing folders or reading large
tables; :func:`cached` does that once and keeps the arrays in ``$XDG_CACHE_HOME/perception``
(``~/.cache/perception``) as a ``.npz`` without pickles. A kept index is used as long as the
*sources* it was made from (tables, folders) have the sizes and modification times that they had.
Processes that start together may each build it; each writes a file of its own and renames it, so
that nobody ever reads half of one. Where nothing can be written, an index is built every time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Names", "Progress", "cache_folder", "cached", "fingerprint", "progress"]

Arrays = dict[str, NDArray[Any]]

_STAMP = "__fingerprint__"


def cache_folder() -> Path | None:
    """Where indices are kept, or None where a user has no home. The folder need not exist."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the specification asks to disregard a relative one
        return Path(named) / "perception"
    try:
        return Path.home() / ".cache" / "perception"
    except RuntimeError:
        return None


def fingerprint(sources: Iterable[Path]) -> str:
    """A digest of the sizes and modification times of files and folders; a missing one counts too.

    A folder's time changes when an entry appears, goes or is renamed, not when a file in it is
    rewritten in place: an index holds names from folders, and contents from files only.
    """
    digest = hashlib.sha256()
    for source in sources:
        try:
            stat = os.stat(source)
            entry = f"{source}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        except OSError:
            entry = f"{source}\0missing\n"
        digest.update(entry.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def cached(
    kind: str,
    root: Path,
    sources: Iterable[Path],
    build: Callable[[], Arrays],
    *,
    options: str = "",
) -> Arrays:
    """The arrays of ``build()``, from the cache where they are there and still true.

    Args:
        kind: what is indexed, with the version of its layout: ``"nuscenes-1"``.
        root: the folder of the data set; with `kind` and `options` it names the kept file.
        sources: everything that `build` looks at; see :func:`fingerprint`.
        build: makes the arrays; none may be of dtype object.
        options: what else the arrays depend on.
    """
    stamp = fingerprint(sources)
    folder = cache_folder()
    name = hashlib.sha256(f"{Path(root).resolve()}\0{options}".encode()).hexdigest()[:24]
    file = None if folder is None else folder / f"{kind}-{name}.npz"
    if file is not None:
        arrays = _load(file, stamp)
        if arrays is not None:
            return arrays
    arrays = build()
    if file is not None:
        _store(file, stamp, arrays)
    return arrays


def _load(file: Path, stamp: str) -> Arrays | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept[_STAMP]) != stamp:
                return None
            return {name: kept[name] for name in kept.files if name != _STAMP}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is built anew and replaced


def _store(file: Path, stamp: str, arrays: Arrays) -> None:
    mixed = [name for name, values in arrays.items() if values.dtype.hasobject]
    if mixed:
        raise TypeError(f"index: arrays {mixed} hold Python objects")
    part = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=file.stem, suffix=".part", delete=False
        ) as handle:
            part = handle.name
            np.savez(handle, **{_STAMP: np.array(stamp), **arrays})  # type: ignore[arg-type]
        os.replace(part, file)
    except OSError:  # read-only, full, somebody else's: the next start builds it again
        if part:
            with suppress(OSError):
                os.unlink(part)


class Progress(Protocol):
    """What is used of a tqdm bar."""

    def update(self, n: float = 1) -> Any: ...
    def __enter__(self) -> Progress: ...
    def __exit__(self, *exception: object) -> Any: ...


def progress(total: float, what: str, unit: str = "file") -> Progress:
    """A progress bar that shows itself only if the work takes more than a second."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    bar: Progress = tqdm(total=total, desc=what, unit=unit, unit_scale=True, delay=1.0, leave=False)
    return bar


class Names(Sequence[str]):
    """Names of samples, stored as one numpy array of bytes: a million of them are no objects."""

    def __init__(self, values: Iterable[str] | NDArray[np.bytes_]) -> None:
        if isinstance(values, np.ndarray):
            self._values = values
        else:
            encoded = [value.encode() for value in values]
            self._values = np.array(encoded, dtype=bytes) if encoded else np.zeros(0, "S1")

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self._values[index])
        return bytes(self._values[index]).decode()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(name) for name in self[:3])
        return f"Names([{shown}{', ...' if len(self) > 3 else ''}], {len(self)})"
