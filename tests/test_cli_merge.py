"""``profile merge`` as a user runs it: keys, exit codes, one-line errors, tables of 80 columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from typer.testing import CliRunner, Result

from mbexport.profiles import profile_path, read_profile, write_profile
from mbexport_cli.app import app
from tests.measured import HARDWARE, measurement, profile
from tests.tuned import tuned

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = {f"{what}_{became}" for what in ("rows", "tuned") for became in ("added", "replaced", "kept", "not_taken")}
DOCUMENT = COUNTS | {"into", "written", "tables", "profiles"}
PROFILE = COUNTS | {"path", "hardware", "artifact", "written"}
SLUG = "amd-epyc-f25m17-2c"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", "merge", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a profile in profiles/, and another one of the same network in board/."""
    monkeypatch.chdir(tmp_path)
    mine = profile(measurement(), measurement(threads=2, measured_on="2026-03-03"))
    write_profile(profile_path(tmp_path / "profiles", HARDWARE, "tiny"), mine)
    others = profile(measurement(measured_on="2026-02-02"), measurement(threads=2), measurement(threads=4))
    write_profile(profile_path(tmp_path / "board", HARDWARE, "tiny"), others)
    return tmp_path


def test_json(here: Path) -> None:
    done = invoke("board", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == DOCUMENT
    (found,) = document["profiles"]
    assert found.keys() == PROFILE
    for counted in (document, found):
        assert [counted[f"rows_{name}"] for name in ("added", "replaced", "kept", "not_taken")] == [1, 1, 1, 1]
    assert document["into"] == "profiles"
    assert document["written"] == [f"profiles/{SLUG}/tiny.json"]
    assert document["tables"] == [f"profiles/{SLUG}/README.md"]
    assert (found["path"], found["hardware"], found["artifact"]) == (f"profiles/{SLUG}/tiny.json", SLUG, "tiny")
    assert found["written"] is True
    days = {each.threads: each.measured_on for each in read_profile(here / found["path"]).measurements}
    assert days == {1: "2026-02-02", 2: "2026-03-03", 4: "2026-01-02"}


def test_words(here: Path) -> None:
    long = "mobilenet_v3_large_minimalistic_1.0_224_int8"
    write_profile(profile_path(here / "board", HARDWARE, long), profile(measurement(), artifact=long))
    done = invoke("board", "--profiles", "all/of/them")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0] == SLUG
    assert [line.split() for line in lines if line.endswith(("tiny", long))] == [
        ["1", "0", "0", "0", long],
        ["3", "0", "0", "0", "tiny"],
    ]
    assert "rows:     4 added, 0 replaced, 0 kept, 0 not taken" in lines
    assert "profiles: 2 written, 0 as they were" in lines
    assert f"table:    all/of/them/{SLUG}/README.md" in lines
    assert not any(line.startswith("not taken") for line in lines)
    assert max(map(len, lines)) <= 80
    again = invoke("board", "profiles", "--profiles", "all/of/them").stdout.splitlines()
    # board's row of two threads gives way to a later one, and the row of one thread in profiles came too late.
    assert "rows:     0 added, 1 replaced, 3 kept, 2 not taken" in again
    assert "profiles: 1 written, 1 as they were" in again
    assert any(line.startswith("not taken: what stands there is later, or of a source") for line in again)


def test_what_was_tuned_is_counted(here: Path) -> None:
    assert "tuned:" not in invoke("board", "--profiles", "rows").stdout
    write_profile(here / "tuned.json", profile(tuned=[tuned(), tuned(objective="p99")]))
    lines = invoke("tuned.json").stdout.splitlines()
    assert "tuned:    2 added, 0 replaced, 0 kept, 0 not taken" in lines
    assert "profiles: 1 written, 0 as they were" in lines
    write_profile(here / "older.json", profile(tuned=[tuned(tuned_on="2025-12-31")]))
    lines = invoke("older.json").stdout.splitlines()
    assert "tuned:    0 added, 0 replaced, 2 kept, 1 not taken" in lines
    assert "profiles: 0 written, 1 as they were" in lines
    assert any(line.startswith("not taken: ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_bad_input_is_one_line_and_writes_nothing(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "text.json").write_text("text")
    (here / "future.json").write_text(json.dumps({"schema_version": 99}))
    (here / "file").write_text("")
    more = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)
    write_profile(here / "machine.json", profile(measurement(), hardware=more))
    write_profile(here / "model.json", profile(measurement(), artifact_sha256="bb"))
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    mine = f"profiles/{SLUG}/tiny.json"
    cases = {
        ("board", "missing.json"): "missing.json is neither a profile nor a folder of profiles",
        ("board", "empty"): "no profiles in empty",
        ("board", "text.json"): "text.json is not valid JSON",
        ("board", "future.json"): "schema version 99",
        ("board", "machine.json"): "cannot merge machine.json with board/",
        ("machine.json",): f"cannot merge machine.json with {mine}: two machines of the name {SLUG}",
        ("model.json",): f"cannot merge model.json with {mine}: the stored profile was of another model.onnx",
        ("board", "--profiles", "file"): f"cannot write file/{SLUG}",
        (): "Missing argument 'SOURCE",
    }
    for arguments, words in cases.items():
        done = invoke(*arguments, "--json")
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
        if arguments:
            assert done.stderr.startswith("error: ")
            assert len(done.stderr.splitlines()) == 1
        assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_help_ends_with_an_example() -> None:
    done = invoke("--help")
    last = [line.strip() for line in done.stdout.splitlines() if line.strip()][-1]
    assert last.startswith("Example: mbexport profile merge ")
