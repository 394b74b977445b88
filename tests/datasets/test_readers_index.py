"""The kept index: true, private to its folder, safe, and never needed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perception.datasets.readers.index import Arrays, Names, cache_folder, cached, fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "perception"


class Builder:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"numbers": np.arange(5), "names": np.array([b"a", b"bc"])}


def test_an_index_is_built_once_and_again_when_a_source_changes(
    tmp_path: Path, cache: Path
) -> None:
    table = tmp_path / "table.json"
    table.write_text("[]")
    build = Builder()
    for _ in range(3):
        arrays = cached("kind-1", tmp_path, [table], build)
        np.testing.assert_array_equal(arrays["numbers"], np.arange(5))
        assert arrays["names"].tolist() == [b"a", b"bc"]
    assert build.calls == 1
    table.write_text("[1]")
    cached("kind-1", tmp_path, [table], build)
    cached("kind-1", tmp_path, [table], build)
    assert build.calls == 2
    assert len(list(cache.iterdir())) == 1  # replaced, not collected
    cached("kind-1", tmp_path, [table], build, options="train")
    cached("kind-1", tmp_path / "cache", [table], build)
    assert build.calls == 4
    table.unlink()
    cached("kind-1", tmp_path, [table], build)
    assert build.calls == 5


def test_a_folder_that_gains_a_file_has_another_fingerprint(tmp_path: Path) -> None:
    before = fingerprint([tmp_path])
    os.utime(tmp_path, ns=(0, 0))
    assert fingerprint([tmp_path]) != before


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "pickle"])
def test_a_damaged_index_is_built_anew(tmp_path: Path, cache: Path, damage: str) -> None:
    build = Builder()
    cached("kind-1", tmp_path, [], build)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "pickle":
        with file.open("wb") as handle:
            np.savez(handle, __fingerprint__=np.array([{}], dtype=object))
    else:
        file.write_bytes(b"" if damage == "empty" else b"hello")
    arrays = cached("kind-1", tmp_path, [], build)
    assert build.calls == 2
    np.testing.assert_array_equal(arrays["numbers"], np.arange(5))
    cached("kind-1", tmp_path, [], build)
    assert build.calls == 2


def test_without_a_place_to_write_the_index_is_built_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build = Builder()
    cached("kind-1", tmp_path, [], build)
    cached("kind-1", tmp_path, [], build)
    assert build.calls == 2


def test_a_relative_cache_folder_is_disregarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache_folder() == Path.home() / ".cache" / "perception"


def test_an_index_never_holds_python_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="hold Python objects"):
        cached("kind-1", tmp_path, [], lambda: {"names": np.array([{}, None], dtype=object)})


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from perception.datasets.readers.index import cached

def build():
    time.sleep(0.05)
    return {"numbers": np.arange(200_000)}

for round in range(20):
    arrays = cached("kind-1", Path(sys.argv[1]), [], build, options=str(round % 2))
    assert arrays["numbers"].sum() == 199_999 * 100_000
"""


def test_processes_that_start_together_do_not_disturb_each_other(
    tmp_path: Path, cache: Path
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    assert [file.suffix for file in cache.iterdir()] == [".npz"] * 2  # no parts left


def test_names_are_a_sequence_of_strings() -> None:
    names = Names(["00/000000", "08/000010", "köln"])
    assert list(names) == ["00/000000", "08/000010", "köln"]
    assert names[-1] == "köln"
    assert names[1:] == ["08/000010", "köln"]
    assert "00/000000" in names
    assert isinstance(names[0], str)
    assert pickle.loads(pickle.dumps(names)) == names
    assert len(Names([])) == 0
    with pytest.raises(IndexError):
        names[3]
