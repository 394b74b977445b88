"""Model files: tensors as safetensors, everything else as JSON in their metadata.

Nothing in a model file is executed or unpickled, so that a file from a stranger is data only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.io.errors import FormatError
from perception.io.files import existing_file

if TYPE_CHECKING:
    import torch

FORMAT = "perception-model-1"
KEY = "perception"  # the entry of the safetensors metadata that holds the JSON


def save(
    path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write a model file.

    Args:
        path: the file, usually ``.safetensors``; replaced in one step if it exists.
        tensors: a state dict; tensors are stored on the CPU, contiguous, tied ones as copies.
        metadata: what JSON can hold: ``task``, ``net {name, args}``, ``classes``, ``colors``,
            ``encoder {voxel_size, features}``, ``history``; ``format`` is set here.

    Raises:
        TypeError: the metadata holds something that is no JSON.
        FormatError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    text = json.dumps({**metadata, "format": FORMAT})
    # clone: safetensors refuses tensors that share memory.
    stored = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
    file = Path(path)
    partial = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(to_bytes(stored, metadata={KEY: text}))
        os.replace(partial, file)
    except OSError as error:
        cause = f"cannot be written ({error.strerror or error})"
        raise FormatError(file, cause, "check the folder and its rights") from None


def load(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a model file: tensors on the CPU and the metadata.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it is no safetensors file, damaged, or not written by :func:`save`.
    """
    from safetensors import safe_open

    file = existing_file(path)
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(str(file), framework="pt", device="cpu") as reader:
            header = reader.metadata() or {}
            for name in reader.keys():  # noqa: SIM118  (the reader is no mapping)
                tensors[name] = reader.get_tensor(name)
    except Exception as error:  # safetensors has its own kinds, and torch's for odd dtypes
        raise FormatError(
            file,
            f"cannot be read as safetensors ({error})",
            "name a model file written by this package, or convert the checkpoint first",
        ) from None
    try:
        metadata = json.loads(header[KEY])
        known = metadata["format"] == FORMAT
    except (KeyError, TypeError, ValueError):
        raise FormatError(
            file,
            "is safetensors without this package's metadata",
            "write it with perception.io.checkpoint.save",
        ) from None
    if not known:
        raise FormatError(
            file, f"has format {metadata['format']!r}, expected {FORMAT!r}", "update the package"
        )
    return tensors, metadata
