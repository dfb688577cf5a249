"""Merging profiles from elsewhere: what stays, what is refused, and that nothing is lost or half-written."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbexport import serde
from mbexport.bench import merge as merging
from mbexport.bench.merge import merge_profiles
from mbexport.bench.table import table_text
from mbexport.errors import DocumentError, InputError, MbexportError, OutputError
from mbexport.profile import SCHEMA_VERSION, LatencyProfile, Measurement
from mbexport.profiles import locked, profile_path, read_folder, read_profile, write_profile
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.tuned import tuned

if TYPE_CHECKING:
    from mbexport.bench.merged import MergeReport

BOARD = msgspec.structs.replace(HARDWARE, cpu="Cortex-A76", cpu_family=None, cpu_model=None)
VERSION_1 = Path(__file__).parent / "fixtures" / "profiles" / "version_1.json"
OLD, MIDDLE, NEW = "2026-01-02", "2026-01-10", "2026-11-01"


def row(measured_on: str = OLD, p50_ns: int = 2_000_000, **changes: Any) -> Measurement:
    return measurement(measured_on=measured_on, replicates=[replicate([p50_ns] * 10)], **changes)


def put(top: Path, *rows: Measurement, **changes: Any) -> Path:
    """Write a profile at its own place under ``top``."""
    made = profile(*rows, **changes)
    path = profile_path(top, made.hardware, made.artifact)
    write_profile(path, made)
    return path


def files(top: Path) -> dict[str, bytes]:
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def counts(report: MergeReport) -> tuple[int, int, int, int]:
    return report.rows_added, report.rows_replaced, report.rows_kept, report.rows_not_taken


def tuned_counts(report: MergeReport) -> tuple[int, int, int, int]:
    return report.tuned_added, report.tuned_replaced, report.tuned_kept, report.tuned_not_taken


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "profiles"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


def test_the_later_row_stays_and_on_the_same_day_the_sources(here: Path, there: Path) -> None:
    older, same_day, newer = row(OLD, 21, threads=1), row(MIDDLE, 22, threads=2), row(NEW, 23, threads=3)
    mine = [row(MIDDLE, threads=threads) for threads in (1, 2, 3, 4)]
    added = row(OLD, threads=5)
    path = put(here, *mine)
    source = put(there, older, same_day, newer, added)
    report = merge_profiles([source], here)
    assert read_profile(path).measurements == [mine[0], same_day, newer, mine[3], added]
    assert counts(report) == (1, 2, 2, 1)
    assert report.written == [str(path)]
    assert [(each.artifact, each.written, each.rows_replaced) for each in report.profiles] == [("tiny", True, 2)]


@settings(max_examples=25, deadline=None)  # the first one imports SciPy
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.integers(1, 28)), max_size=3, unique_by=lambda pair: pair[0]),
        max_size=4,
    )
)
def test_any_number_of_sources(tmp_path_factory: pytest.TempPathFactory, offers: list[list[tuple[int, int]]]) -> None:
    """Each offer is a profile: threads and the day of January that it was measured; the first one lies there."""
    top = tmp_path_factory.mktemp("merge")
    made = [
        [row(f"2026-01-{day:02}", number * 1000 + threads + 1, threads=threads) for threads, day in offer]
        for number, offer in enumerate(offers)
    ]
    paths = [put(top / str(number), *rows) for number, rows in enumerate(made) if rows]
    if not paths:
        return
    report = merge_profiles(paths[1:] or paths, paths[0].parents[1])
    expected: dict[int, Measurement] = {}
    for offered in (each for rows in made for each in rows):
        held = expected.get(offered.threads)
        expected[offered.threads] = offered if held is None else max(offered, held, key=lambda each: each.measured_on)
    found = read_profile(paths[0]).measurements
    assert sorted(found, key=lambda each: each.threads) == [expected[threads] for threads in sorted(expected)]
    assert report.rows_added + report.rows_replaced + report.rows_kept == len(expected)


def test_several_machines_each_go_into_their_own_folder(here: Path, there: Path) -> None:
    sources = [put(there, row()), put(there, row(), artifact="other"), put(there, row(), hardware=BOARD)]
    report = merge_profiles([there], here)
    assert sorted(here.rglob("*.json")) == [here / source.relative_to(there) for source in sorted(sources)]
    for folder in (here / HARDWARE.slug, here / BOARD.slug):
        assert (folder / "README.md").read_text() == table_text(read_folder(folder))
        assert str(folder / "README.md") in report.tables
    assert counts(report) == (3, 0, 0, 0)
    assert {each.hardware for each in report.profiles} == {HARDWARE.slug, BOARD.slug}


def test_a_file_goes_where_its_machine_and_artifact_say_not_its_name(here: Path, tmp_path: Path) -> None:
    write_profile(tmp_path / "downloads" / "copy (1).json", profile(row()))
    merge_profiles([tmp_path / "downloads"], here)
    assert list(files(here)) == [f"{HARDWARE.slug}/README.md", f"{HARDWARE.slug}/tiny.json"]


def test_the_table_names_neighbours_too(here: Path, there: Path) -> None:
    put(here, row(), artifact="neighbour")
    merge_profiles([put(there, row())], here)
    table = (here / HARDWARE.slug / "README.md").read_text()
    assert "[neighbour](neighbour.json)" in table
    assert "[tiny](tiny.json)" in table


def test_a_profile_of_version_1_is_written_in_the_present_version(here: Path) -> None:
    report = merge_profiles([VERSION_1], here)
    [path] = here.rglob("*.json")
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    assert read_profile(path) == read_profile(VERSION_1)
    assert report.rows_added == len(json.loads(VERSION_1.read_text())["measurements"])


def test_an_old_profile_in_its_place_is_upgraded_there(here: Path) -> None:
    old = read_profile(VERSION_1)
    path = profile_path(here, old.hardware, old.artifact)
    path.parent.mkdir(parents=True)
    shutil.copy(VERSION_1, path)
    report = merge_profiles([here], here)
    assert counts(report) == (0, 0, len(old.measurements), 0)
    assert report.written == [str(path)]
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    assert read_profile(path) == old


def test_a_source_in_its_place_changes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(here, row(), row(threads=2))
    put(here, row(), hardware=BOARD)
    monkeypatch.chdir(here.parent)
    before = files(here)
    for source in (here, path.parent, path, Path("profiles"), here / BOARD.slug / ".." / HARDWARE.slug):
        report = merge_profiles([source], here)
        assert {name: data for name, data in files(here).items() if name.endswith(".json")} == before
        assert report.written == []
        assert counts(report)[:2] == (0, 0)
        assert report.rows_not_taken == 0
    assert str(path.parent / "README.md") in report.tables


def test_what_lies_in_its_place_is_no_later_source(here: Path, there: Path) -> None:
    path = put(here, row(p50_ns=1))
    source = put(there, row(p50_ns=2))
    for sources in ([source, path], [here, there]):
        report = merge_profiles(sources, here)
        assert read_profile(path).measurements[0].samples_ns[0] == 2
        assert report.rows_not_taken == 0


def test_a_copy_inside_the_folder_is_a_source_like_any_other(here: Path) -> None:
    path = put(here, row(MIDDLE), row(MIDDLE, threads=2))
    copy = path.with_name("before.json")
    write_profile(copy, profile(row(OLD), row(threads=3)))
    report = merge_profiles([here], here)
    assert [each.threads for each in read_profile(path).measurements] == [1, 2, 3]
    assert [each.measured_on for each in read_profile(path).measurements] == [MIDDLE, MIDDLE, OLD]
    assert counts(report) == (1, 0, 2, 1)
    assert copy.exists()


def test_a_source_through_a_link_is_still_in_its_place(here: Path, tmp_path: Path) -> None:
    put(here, row())
    (tmp_path / "link").symlink_to(here, target_is_directory=True)
    report = merge_profiles([tmp_path / "link"], here)
    assert (report.written, counts(report)) == ([], (0, 0, 1, 0))


def test_a_source_named_twice_counts_once(here: Path, there: Path) -> None:
    source = put(there, row())
    assert counts(merge_profiles([source, there, source.parent], here)) == (1, 0, 0, 0)


def test_the_source_that_is_named_later_wins_a_tie(here: Path, tmp_path: Path) -> None:
    first, second = put(tmp_path / "a", row(p50_ns=1)), put(tmp_path / "b", row(p50_ns=2))
    for sources, samples in (([first, second], 2), ([second, first], 1), ([first, second, first], 1)):
        report = merge_profiles(sources, here)
        [found] = read_profile(here / HARDWARE.slug / "tiny.json").measurements
        assert found.samples_ns[0] == samples
        assert report.rows_not_taken == 1
        shutil.rmtree(here)


def test_again_changes_nothing(here: Path, there: Path) -> None:
    put(here, row(MIDDLE), row(OLD, threads=2))
    put(there, row(OLD), row(NEW, threads=2), row(threads=3))
    merge_profiles([there], here)
    before = files(here)
    report = merge_profiles([there], here)
    assert files(here) == before
    assert (report.written, counts(report)) == ([], (0, 0, 3, 1))


def test_a_source_of_older_rows_alone_leaves_the_file_as_it_is(here: Path, there: Path) -> None:
    path = put(here, row(NEW))
    before = path.read_bytes()
    rebooted = msgspec.structs.replace(HARDWARE, memory_bytes=HARDWARE.memory_bytes - 4096)
    report = merge_profiles([put(there, row(OLD), hardware=rebooted)], here)
    assert path.read_bytes() == before
    assert (report.written, counts(report)) == ([], (0, 0, 1, 1))


def test_what_was_tuned_comes_without_rows(here: Path, there: Path) -> None:
    path = put(here, row())
    report = merge_profiles([put(there, tuned=[tuned()])], here)
    assert (read_profile(path).measurements, read_profile(path).tuned) == ([row()], [tuned()])
    assert (report.written, counts(report), tuned_counts(report)) == ([str(path)], (0, 0, 1, 0), (1, 0, 0, 0))


def test_what_was_tuned_later_comes_with_older_rows(here: Path, there: Path) -> None:
    path = put(here, row(NEW), tuned=[tuned(tuned_on=OLD)])
    source = put(there, row(OLD), tuned=[tuned(tuned_on=MIDDLE)])
    report = merge_profiles([source], here)
    assert (read_profile(path).measurements, read_profile(path).tuned) == ([row(NEW)], [tuned(tuned_on=MIDDLE)])
    assert (report.written, counts(report), tuned_counts(report)) == ([str(path)], (0, 0, 1, 1), (0, 1, 0, 0))


def test_what_was_tuned_earlier_is_not_taken_with_newer_rows(here: Path, there: Path) -> None:
    mine = [tuned(tuned_on=MIDDLE), tuned(objective="p99", tuned_on=MIDDLE)]
    path = put(here, row(OLD), tuned=mine)
    offered = [tuned(tuned_on=OLD), tuned(tuned_on=OLD, max_drop=0.1)]
    report = merge_profiles([put(there, row(NEW), tuned=offered)], here)
    assert read_profile(path).measurements == [row(NEW)]
    assert read_profile(path).tuned == [mine[0], offered[1], mine[1]]
    assert tuned_counts(report) == (1, 0, 2, 1)


def test_nothing_newer_leaves_the_file_with_what_was_tuned_as_it_is(here: Path, there: Path) -> None:
    path = put(here, row(NEW), tuned=[tuned(tuned_on=NEW)])
    before = path.read_bytes()
    report = merge_profiles([put(there, row(OLD), tuned=[tuned(tuned_on=OLD)])], here)
    assert path.read_bytes() == before
    assert (report.written, tuned_counts(report)) == ([], (0, 0, 1, 1))


def test_on_the_same_day_what_the_source_tuned_stays(here: Path, there: Path) -> None:
    path = put(here, row(), tuned=[tuned()])
    source = put(there, row(), tuned=[tuned(precision="int8")])
    assert tuned_counts(merge_profiles([source], here)) == (0, 1, 0, 0)
    assert [each.precision for each in read_profile(path).tuned] == ["int8"]


TWICE_THE_MEMORY = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"artifact_sha256": "bb"}, "another model.onnx"),
        ({"hardware": TWICE_THE_MEMORY}, "which differ in memory_bytes"),
        ({"hardware": TWICE_THE_MEMORY, "artifact": "other"}, "which differ in memory_bytes"),
    ],
)
@pytest.mark.parametrize("both_are_sources", [False, True])
def test_another_model_or_machine_is_refused(
    changes: dict[str, Any], words: str, both_are_sources: bool, here: Path, there: Path, tmp_path: Path
) -> None:
    """Newer or not, and whatever else could be merged."""
    fine = put(tmp_path / "fine", row(), hardware=BOARD)
    mine = put(tmp_path / "mine" if both_are_sources else here, row())
    source = put(there, row(NEW), **changes)
    before = files(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        merge_profiles([fine, *([mine] if both_are_sources else []), source], here)
    assert str(source) in str(caught.value)
    assert str(mine) in str(caught.value)
    assert files(tmp_path) == before
    assert here.exists() != both_are_sources


def test_the_refusal_names_the_profile_of_the_same_name(here: Path, there: Path) -> None:
    put(here, row(), artifact="a-neighbour")
    mine = put(here, row())
    with pytest.raises(InputError) as caught:
        merge_profiles([put(there, row(), hardware=TWICE_THE_MEMORY)], here)
    assert f"with {mine}: " in str(caught.value)


def test_a_folder_that_holds_two_machines_takes_rows_of_both(here: Path, there: Path) -> None:
    """As where the memory of a virtual machine grew between two benches."""
    put(here, row(), artifact="before")
    put(here, row(), artifact="after", hardware=TWICE_THE_MEMORY)
    source = put(there, row(NEW), artifact="after", hardware=TWICE_THE_MEMORY)
    assert counts(merge_profiles([source], here)) == (0, 1, 0, 0)


def without(key: str) -> str:
    document = json.loads(msgspec.json.encode(profile(row())))
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid JSON"),
        ("[]", "no schema_version"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "Install a newer mbexport"),
        (json.dumps({"schema_version": 1, "kind": "published, not measured", "device": "x", "rows": []}), "not fit"),
        (without("hardware"), "does not fit its schema"),
        (msgspec.json.encode(profile()).decode(), "holds no rows"),
        (msgspec.json.encode(profile(row(), row(NEW))).decode(), "two rows of one runtime and setting"),
        (msgspec.json.encode(profile(row("yesterday"))).decode(), "measured_on must be a date"),
        (msgspec.json.encode(profile(row(), tuned=[tuned(tuned_on="lately")])).decode(), "tuned_on must be a date"),
        (msgspec.json.encode(profile(row(), artifact="../../tiny")).decode(), "plain name"),
    ],
)
@pytest.mark.parametrize("place", ["source", "folder"])
def test_what_is_no_profile_is_refused_before_anything_is_written(
    content: str, words: str, place: str, here: Path, there: Path, tmp_path: Path
) -> None:
    fine = put(tmp_path / "fine", row())
    bad = there / "bad.json"
    bad.parent.mkdir()
    bad.write_text(content)
    before = files(tmp_path)
    with pytest.raises(MbexportError, match=words) as caught:
        merge_profiles([fine, bad if place == "source" else there], here)
    assert caught.value.exit_code == 2
    assert files(tmp_path) == before
    assert not here.exists()


@pytest.mark.parametrize("name", ["tiny.json", "neighbour.json"])
def test_a_damaged_profile_in_the_folder_is_named(name: str, here: Path, there: Path, tmp_path: Path) -> None:
    sources = [put(there, row(), hardware=BOARD), put(there, row())]
    (here / HARDWARE.slug).mkdir(parents=True)
    (here / HARDWARE.slug / name).write_text("{")
    before = files(tmp_path)
    with pytest.raises(DocumentError, match=name):
        merge_profiles(sources, here)
    assert files(tmp_path) == before


def test_sources_without_profiles_are_named(here: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "published").mkdir(parents=True)
    (tmp_path / "empty" / "published" / "phone.json").write_text("{}")
    fine = put(tmp_path / "fine", row())
    for name, words in {"empty": "no profiles in", "missing": "neither a profile nor a folder"}.items():
        with pytest.raises(InputError, match=words) as caught:
            merge_profiles([fine, tmp_path / name], here)
        assert str(tmp_path / name) in str(caught.value)
    assert not here.exists()


def test_profiles_beside_machines_folders_are_not_forgotten(here: Path, there: Path) -> None:
    put(there, row())
    write_profile(there / "loose.json", profile(row(), artifact="loose"))
    merge_profiles([there], here)
    assert {path.stem for path in here.rglob("*.json")} == {"tiny", "loose"}


def test_a_place_that_cannot_be_written_to_stops_before_the_first_file(here: Path, there: Path) -> None:
    put(there, row())
    put(there, row(), hardware=BOARD)
    here.mkdir()
    last = max(HARDWARE.slug, BOARD.slug)
    (here / last).write_text("in the way")
    with pytest.raises(OutputError, match=last):
        merge_profiles([there], here)
    assert files(here) == {last: b"in the way"}


def test_what_another_bench_wrote_meanwhile_is_kept(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between the check and the lock."""
    path = put(here, row())
    sources = [put(there, row(threads=3)), path]

    def late(folder: Path) -> Any:
        put(here, row(NEW), row(threads=2))
        return locked(folder)

    monkeypatch.setattr(merging, "locked", late)
    merge_profiles(sources, here)
    found = read_profile(path).measurements
    assert [(each.threads, each.measured_on) for each in found] == [(1, NEW), (2, OLD), (3, OLD)]


def test_files_are_written_under_the_lock(here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    put(there, row())
    put(there, row(), hardware=BOARD)
    free: list[bool] = []
    real = serde.write_atomic

    def watched(path: Path, data: bytes) -> None:
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(True)
        except BlockingIOError:
            free.append(False)
        finally:
            os.close(handle)
        real(path, data)

    monkeypatch.setattr(serde, "write_atomic", watched)
    merge_profiles([there], here)
    assert free == [False] * 4


@pytest.mark.parametrize("stop", range(4))
def test_a_stop_leaves_every_file_whole(stop: int, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it strikes: old or new, and the same call brings the rest."""
    for artifact, hardware in product(("one", "two"), (HARDWARE, BOARD)):
        put(here, row(), artifact=artifact, hardware=hardware)
        put(there, row(NEW), artifact=artifact, hardware=hardware)
    real = Path.replace
    done: list[Path] = []

    def stopping(path: Path, target: Path) -> Path:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(target)
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            merge_profiles([there], here)
    written = {path for path in done if path.suffix == ".json"}
    found: dict[Path, LatencyProfile] = {path: read_profile(path) for path in here.rglob("*.json")}
    assert len(found) == 4
    assert {path for path, each in found.items() if each.measurements[0].measured_on == NEW} == written
    assert all(name.endswith((".json", "README.md")) for name in files(here))
    report = merge_profiles([there], here)
    assert report.rows_replaced == 4 - len(written)
    assert report.rows_kept == len(written)
