"""Model files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perception.io import FormatError, checkpoint


def test_round_trip(tmp_path: Path) -> None:
    weight = torch.randn(3, 4).t()
    tensors = {"a": weight, "tied": weight, "steps": torch.tensor(7), "half": weight.bfloat16()}
    metadata = {"task": "segmentation", "classes": ["road", "Straße"], "net": {"args": {"k": 1}}}
    checkpoint.save(tmp_path / "deep" / "m.safetensors", tensors, metadata)
    back, found = checkpoint.load(tmp_path / "deep" / "m.safetensors")
    assert found == {**metadata, "format": "perception-model-1"}
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=0)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "pickle.pt")
    with pytest.raises(FormatError, match="cannot be read as safetensors"):
        checkpoint.load(tmp_path / "pickle.pt")
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(FormatError, match="without this package's metadata"):
        checkpoint.load(tmp_path / "plain.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "new.safetensors", {"perception": '{"format": "9"}'})
    with pytest.raises(FormatError, match="update the package"):
        checkpoint.load(tmp_path / "new.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        checkpoint.load(tmp_path / "none.safetensors")


def test_metadata_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "m.safetensors", {}, {"x": object()})
    assert not list(tmp_path.iterdir())
