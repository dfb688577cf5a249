"""The cache: made once, whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mbexport.cache import Cache, cache_root, digest_of
from mbexport.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def maker(made: list[str], content: bytes = b"content") -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        made.append(folder.name)
        (folder / "a").write_bytes(content)
        (folder / "b").write_bytes(b"")
        return {"notes": ["made"]}

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "cache"), list[str]()
    assert not cache.fetch("build", {"alpha": 1.0}, tmp_path / "one", maker(made)).was_there
    assert cache.fetch("build", {"alpha": 1.0}, tmp_path / "two", maker(made)).was_there
    assert len(made) == 1
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == {"a": b"content", "b": b""}


def test_other_inputs_and_other_kinds_are_others(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "cache"), list[str]()
    for kind, inputs in (("build", {"alpha": 1.0}), ("build", {"alpha": 0.75}), ("quantise", {"alpha": 1.0})):
        assert not cache.fetch(kind, inputs, tmp_path / "out", maker(made)).was_there
    assert len(made) == 3


def test_the_order_of_inputs_does_not_matter() -> None:
    assert digest_of("build", {"a": 1, "b": {"c": 2, "d": 3}}) == digest_of("build", {"b": {"d": 3, "c": 2}, "a": 1})


def test_what_was_handed_out_may_be_changed(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.fetch("build", {}, tmp_path / "one", maker([]))
    (tmp_path / "one" / "a").write_bytes(b"changed")
    cache.fetch("build", {}, tmp_path / "two", maker([]))
    assert contents(tmp_path / "two")["a"] == b"content"


def entry(cache: Cache) -> Path:
    (folder,) = (cache.root / "entries").iterdir()
    return folder


@pytest.mark.parametrize("damage", ["flipped", "missing", "no entry", "broken entry", "other words", "cut"])
def test_a_damaged_entry_is_told_of_and_made_again(tmp_path: Path, damage: str) -> None:
    told, made = list[str](), list[str]()
    cache = Cache(tmp_path / "cache", told.append)
    cache.fetch("build", {}, tmp_path / "one", maker(made))
    folder = entry(cache)
    damages: dict[str, Callable[[], object]] = {
        "flipped": lambda: (folder / "a").write_bytes(b"c0ntent"),
        "missing": (folder / "a").unlink,
        "no entry": (folder / "entry.json").unlink,
        "broken entry": lambda: (folder / "entry.json").write_bytes(b"{"),
        "other words": lambda: (folder / "entry.json").write_text(
            (folder / "entry.json").read_text().replace('"notes"', '"nodes"')
        ),
        "cut": lambda: (folder / "a").write_bytes(b"con"),
    }
    damages[damage]()
    assert not cache.fetch("build", {}, tmp_path / "two", maker(made)).was_there
    assert contents(tmp_path / "two")["a"] == b"content"
    assert len(made) == 2
    assert len(told) == 1
    assert "damaged" in told[0]
    assert cache.fetch("build", {}, tmp_path / "three", maker(made)).was_there


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.fetch("build", {}, tmp_path / "one", fail)
    assert cache.entries() == []
    assert list((cache.root / "making").iterdir()) == []
    assert not (tmp_path / "one").exists()
    assert not cache.fetch("build", {}, tmp_path / "one", maker([])).was_there


def test_prune_removes_the_longest_unused(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for number in range(4):
        cache.fetch("build", {"number": number}, tmp_path / "out", maker([], bytes(1000)))
        path = cache.root / "entries" / digest_of("build", {"number": number})
        for file in path.iterdir():
            os.utime(file, (number, number))
    cache.fetch("build", {"number": 0}, tmp_path / "out", maker([]))  # used again: now the newest
    assert [kept.inputs["number"] for kept in cache.entries()] == [0, 3, 2, 1]
    size_bytes = cache.entries()[0].size_bytes
    removed = cache.prune(2 * size_bytes)
    assert [kept.inputs["number"] for kept in removed] == [2, 1]
    assert [kept.inputs["number"] for kept in cache.entries()] == [0, 3]
    assert cache.prune(0)
    assert cache.entries() == []


def test_prune_removes_what_was_left_half_made(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.fetch("build", {}, tmp_path / "out", maker([]))
    for name, age_s in (("old", 100_000), ("new", 10)):
        folder = cache.root / "making" / name
        folder.mkdir()
        os.utime(folder, (time.time() - age_s,) * 2)
    cache.prune(10**9)
    assert [path.name for path in (cache.root / "making").iterdir()] == ["new"]
    assert len(cache.entries()) == 1


def test_an_entry_without_its_document_is_listed_and_pruned(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.fetch("build", {}, tmp_path / "out", maker([]))
    (entry(cache) / "entry.json").unlink()
    assert [kept.kind for kept in cache.entries()] == [None]
    assert len(cache.prune(10**9)) == 1
    assert cache.entries() == []


def test_a_stray_file_is_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.fetch("build", {}, tmp_path / "out", maker([]))
    (cache.root / "entries" / ".DS_Store").write_bytes(b"")
    assert len(cache.entries()) == 1


def test_an_entry_that_was_just_used_is_not_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list and the lock another process used it."""
    cache = Cache(tmp_path / "cache")
    cache.fetch("build", {}, tmp_path / "out", maker([]))
    listed = cache.entries()
    os.utime(entry(cache) / "entry.json", (2**32, 2**32))
    monkeypatch.setattr(Cache, "entries", lambda _self: listed)
    assert cache.prune(0) == []
    assert entry(cache).is_dir()


def test_no_cache_is_empty(tmp_path: Path) -> None:
    assert Cache(tmp_path / "nowhere").entries() == []
    assert Cache(tmp_path / "nowhere").prune(0) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for ask in (Cache(tmp_path / "file").entries, lambda: Cache(tmp_path / "file").prune(0)):
        with pytest.raises(CacheError, match="MBEXPORT_CACHE"):
            ask()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="MBEXPORT_CACHE"):
        Cache(tmp_path / "file").fetch("build", {}, tmp_path / "out", maker([]))


def test_the_variable_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBEXPORT_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("MBEXPORT_CACHE", "")
    assert cache_root().name == "mbexport"


_PROCESS = """
import sys, time
from pathlib import Path
from mbexport.cache import Cache
root, out, log, name = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def make(folder):
    with log.open("a") as stream:
        stream.write(name + "\\n")
    for number in range(20):
        (folder / f"{number}.bin").write_bytes((name * 1000).encode())
        time.sleep(float(sys.argv[5]))
    return {}

Cache(root).fetch("build", {"name": name}, out / name, make)
"""


def start(tmp_path: Path, number: int, name: str, pause_s: float = 0.005) -> subprocess.Popen[bytes]:
    arguments = [tmp_path / "cache", tmp_path / f"out{number}", tmp_path / "log", name, pause_s]
    return subprocess.Popen([sys.executable, "-c", _PROCESS, *map(str, arguments)])


def test_eight_processes_make_each_thing_once(tmp_path: Path) -> None:
    names = ["same", "same", "same", "same", "same", "other", "other", "third"]
    (tmp_path / "log").touch()
    running = [start(tmp_path, number, name) for number, name in enumerate(names)]
    assert [process.wait(60) for process in running] == [0] * 8
    assert sorted((tmp_path / "log").read_text().split()) == ["other", "same", "third"]
    for number, name in enumerate(names):
        found = contents(tmp_path / f"out{number}" / name)
        assert len(found) == 20
        assert set(found.values()) == {(name * 1000).encode()}
    assert len(Cache(tmp_path / "cache").entries()) == 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals that cannot be caught")
def test_a_process_that_is_killed_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    killed = start(tmp_path, 0, "same", 0.05)
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    waiting = start(tmp_path, 1, "same")
    time.sleep(0.3)
    killed.kill()
    killed.wait()
    assert waiting.wait(60) == 0
    assert (tmp_path / "log").read_text().split() == ["same", "same"]
    digest = hashlib.sha256(b"same" * 1000).hexdigest()
    found = contents(tmp_path / "out1" / "same").values()
    assert {hashlib.sha256(data).hexdigest() for data in found} == {digest}
    assert len(Cache(tmp_path / "cache").entries()) == 1
