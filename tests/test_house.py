"""The package as a whole: what is installed, what imports what, whether its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import perception

ROOT = Path(__file__).resolve().parents[1]


def test_the_native_library_is_built_and_loaded() -> None:
    from perception import _native

    assert _native.library_path().is_file()
    assert _native.instruction_set() in ("avx512bf16", "avx512", "avx2", "portable")


def test_the_datasets_folder_does_not_hide_another_package_of_that_name() -> None:
    """With an __init__.py in it, our folder would shadow Hugging Face's `datasets`."""
    for folder in ("datasets", "configs", "tools"):
        assert not (ROOT / folder / "__init__.py").exists()
        assert (ROOT / "perception" / folder).is_symlink()


def test_configurations_are_package_data() -> None:
    assert (files("perception") / "configs" / "street-minkunet.yaml").is_file()


# A room may import from rooms to its left.
LAYERS = [
    "_native",
    "geometry",
    "io",
    "sparse",
    "nn",
    "models",
    "metrics",
    "datasets",
    "viz",
    "tasks",
    "inference",
    "pipeline",
    "cli",
]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "perception":
                names = [f"perception.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("perception.")}
    return rooms


@pytest.mark.parametrize("room", [room for room in LAYERS if room not in ("_native", "pipeline")])
def test_imports_go_one_way(room: str) -> None:
    folder = ROOT / ("datasets" if room == "datasets" else f"perception/{room}")
    allowed = set(LAYERS[: LAYERS.index(room) + 1])
    if room == "cli":
        allowed |= {"tools", "datasets", "configs"}
    for path in folder.rglob("*.py"):
        above = (imported_rooms(path) & set(LAYERS)) - allowed
        assert not above, f"{path.relative_to(ROOT)} imports upward: {sorted(above)}"


def modules() -> list[str]:
    rooms = ["sparse", "nn", "models", "io", "geometry", "metrics", "viz"]
    names = []
    for room in rooms:
        package = importlib.import_module(f"perception.{room}")
        names += [f"perception.{room}"]
        names += [m.name for m in pkgutil.walk_packages(package.__path__, f"perception.{room}.")]
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


# docs/training.md works on a scan and a run: tests/tasks/test_training_doc.py makes them.
PAGES = ["README.md"] + [
    f"docs/{name}.md"
    for name in (
        "4d",
        "concepts",
        "custom-data",
        "data",
        "datasets",
        "inference",
        "models",
        "performance",
        "rooms",
        "sensors",
        "street",
    )
]


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_of_the_documentation_run(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= {
        *PAGES,
        "docs/training.md",
    }
    if blocks:
        code = "\n".join(blocks)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr


def test_the_public_names_exist() -> None:
    for name in perception.__all__:
        assert getattr(perception, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = perception.nothing  # type: ignore[attr-defined]
