from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbexport import catalog, serde
from mbexport import samples as samples_module
from mbexport.errors import DocumentError, InputError, OutputError
from mbexport.profile import SCHEMA_VERSION
from mbexport.profiles import (
    LONGEST_SAMPLE_NS,
    list_profiles,
    list_published,
    merge,
    profile_path,
    read_folder,
    read_profile,
    shipped_profiles_dir,
    write_profile,
)
from mbexport.samples import packed, unpacked
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.tuned import tuned

if TYPE_CHECKING:
    from mbexport.tuned import TunedConfiguration


@given(st.lists(st.integers(1, LONGEST_SAMPLE_NS), min_size=1, max_size=50), st.text(max_size=50))
def test_round_trip_of_anything(tmp_path_factory: pytest.TempPathFactory, samples: list[int], text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    stored = profile(measurement(replicates=[replicate(samples)], reasons=[text]))
    write_profile(path, stored)
    assert read_profile(path) == stored
    assert read_profile(path).measurements[0].samples_ns == samples


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_any_samples_unpack_to_what_was_packed(samples: list[int]) -> None:
    assert unpacked(packed(samples)) == samples


@pytest.mark.parametrize(
    "damage", [b"", b"x", packed([1, 2, 3])[:-1], packed([1, 2, 3]) + b"0", zlib.compress(b"1234")]
)
def test_damaged_samples_are_named(damage: bytes, tmp_path: Path) -> None:
    one = replicate([1])
    write_profile(tmp_path / "p.json", profile(measurement(replicates=[msgspec.structs.replace(one, samples=damage)])))
    with pytest.raises(DocumentError, match=r"p\.json: ort:cpu parity: samples are damaged.*; measure again"):
        read_profile(tmp_path / "p.json")


def test_samples_that_unpack_to_more_than_any_measurement_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_MOST_SAMPLES", 1000)
    assert len(unpacked(packed([0] * 1000))) == 1000
    with pytest.raises(ValueError, match="damaged"):
        unpacked(packed([0] * 1001))


def test_a_profile_of_version_1_reads_as_it_was_measured() -> None:
    """The file is one that version 1 wrote, its rows and samples cut short."""
    old = Path(__file__).parent / "fixtures" / "profiles" / "version_1.json"
    written = json.loads(old.read_text())
    found = read_profile(old)
    assert found.schema_version == SCHEMA_VERSION
    for row, was in zip(found.measurements, written["measurements"], strict=True):
        assert [each.samples_ns for each in row.replicates] == [each["samples_ns"] for each in was["replicates"]]
        assert [each.load_s for each in row.replicates] == [each["load_s"] for each in was["replicates"]]
        assert (row.scenario, row.concurrency, row.prepared) == ("single-stream", 1, [])
        assert {each.start_s for each in row.replicates} == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"schema_version": 1', "not valid JSON"),
        ("{}", "no schema_version"),
        (f'{{"schema_version": {SCHEMA_VERSION + 1}}}', "Install a newer mbexport"),
        ('{"schema_version": 1, "artifact": 3}', "does not fit schema version 1"),
        ('{"schema_version": 1, "measurements": [{"replicates": [{"samples_ns": [-1]}]}]}', "fit schema version 1"),
        (f'{{"schema_version": {SCHEMA_VERSION}, "artifact": 3}}', "does not fit its schema"),
    ],
)
def test_a_profile_that_cannot_be_read_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DocumentError, match=message) as caught:
        read_folder(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("slug", ["", ".", "..", "../tiny", "/tiny", "a/b"])
def test_a_slug_cannot_lead_out_of_the_folder(slug: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="plain name"):
        profile_path(tmp_path, HARDWARE, slug)


def test_path_is_machine_then_artifact(tmp_path: Path) -> None:
    assert profile_path(tmp_path, HARDWARE, "tiny_1.0") == tmp_path / "amd-epyc-f25m17-2c" / "tiny_1.0.json"


def test_merge_replaces_rows_of_the_same_key_and_keeps_the_others() -> None:
    old, kept = measurement(measured_on="2026-01-01"), measurement(threads=2)
    new, added = measurement(measured_on="2026-02-02"), measurement(mode="production")
    merged, why = merge(profile(old, kept), profile(new, added))
    assert why is None
    assert sorted(merged.measurements, key=lambda row: row.key) == merged.measurements
    assert {row.key: row for row in merged.measurements} == {row.key: row for row in (new, kept, added)}


def test_a_looser_limit_does_not_replace_what_was_tuned_under_a_stricter_one() -> None:
    strict, loose = tuned(max_drop=0.005, tuned_on="2026-01-01"), tuned(max_drop=1.0, tuned_on="2026-02-02")
    rate = tuned(objective="throughput")

    def merged(stored: list[TunedConfiguration], fresh: TunedConfiguration) -> list[TunedConfiguration]:
        return merge(profile(tuned=stored), profile(tuned=[fresh]))[0].tuned

    assert merged([strict, rate], loose) == [strict, loose, rate]
    assert merged([rate, loose], strict) == [strict, loose, rate]
    again = tuned(max_drop=0.005, tuned_on="2026-03-03")
    assert merged([strict, loose], again) == [again, loose]
    assert merged([again, loose], strict) == [again, loose]


def test_merge_with_nothing() -> None:
    fresh = profile(measurement())
    assert merge(None, fresh) == (fresh, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"artifact_sha256": "bb"}, "another model.onnx"),
        ({"hardware": msgspec.structs.replace(HARDWARE, instruction_sets=[])}, "another machine"),
        ({"hardware": msgspec.structs.replace(HARDWARE, memory_bytes=12 * 2**30)}, "another machine"),
        ({"hardware": msgspec.structs.replace(HARDWARE, memory_bytes=2**40)}, "another machine"),
    ],
)
def test_rows_of_another_network_or_machine_are_dropped_and_it_is_said(changes: dict[str, Any], reason: str) -> None:
    fresh = profile(measurement(), **changes)
    merged, why = merge(profile(measurement(threads=2)), fresh)
    assert merged == fresh
    assert why is not None
    assert reason in why


@pytest.mark.parametrize("memory_gib", [8, 7.5, 7.75])
def test_a_few_kilobytes_less_memory_are_the_same_machine(memory_gib: float) -> None:
    first = msgspec.structs.replace(HARDWARE, memory_bytes=int(memory_gib * 2**30) + 2048)
    rebooted = msgspec.structs.replace(HARDWARE, memory_bytes=int(memory_gib * 2**30) - 2048)
    stored = profile(measurement(threads=2), hardware=first)
    merged, why = merge(stored, profile(measurement(), hardware=rebooted))
    assert why is None
    assert len(merged.measurements) == 2


def test_listing_reads_each_profile_once_in_the_folders_order(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for top, artifact in ((own, "b"), (own, "a"), (shipped, "c")):
        write_profile(top / "machine" / f"{artifact}.json", profile(artifact=artifact))
    (own / "machine" / "README.md").write_text("# not a profile")
    (own / "stray.json").write_text("not a profile")
    found = list_profiles([own, tmp_path / "absent", shipped, own / ".." / "own"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "own/machine/a.json",
        "own/machine/b.json",
        "shipped/machine/c.json",
    ]
    assert [read.artifact for read in found.values()] == ["a", "b", "c"]


def test_shipped_profiles_can_all_be_read() -> None:
    assert shipped_profiles_dir().is_dir()
    for path, read in list_profiles([shipped_profiles_dir()]).items():
        assert path.stem == read.artifact
        assert path.parent.name == read.hardware.slug


def test_the_published_figures_are_the_catalogues() -> None:
    [(path, published)] = list_published([shipped_profiles_dir()]).items()
    assert published.kind == "published, not measured"
    figures = {row.artifact: (row.latency_s, row.source) for row in published.rows}
    assert figures == {entry.name: (entry.pixel1_s, entry.source) for entry in catalog.PUBLISHED}
    table = (path.parent / "README.md").read_text()
    assert "Published, not measured" in table
    lines = [line for line in table.splitlines() if line.startswith("| mobilenet")]
    assert lines == [f"| {row.artifact} | {row.latency_s * 1e3:.1f} | {row.source} |" for row in published.rows]


def test_published_figures_are_never_listed_among_measured_ones(tmp_path: Path) -> None:
    write_profile(tmp_path / "machine" / "published.json", profile(artifact="published"))
    document = {"schema_version": 1, "kind": "published, not measured", "device": "a phone", "rows": []}
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "phone.json").write_text(json.dumps(document))
    assert [path.name for path in list_profiles([tmp_path])] == ["published.json"]
    assert [path.name for path in list_published([tmp_path, tmp_path / "machine" / ".."])] == ["phone.json"]
    (tmp_path / "published" / "phone.json").write_text(json.dumps(document | {"kind": "measured"}))
    with pytest.raises(DocumentError, match=r"phone\.json does not fit its schema"):
        list_published([tmp_path])


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    serde.refuse_unwritable(tmp_path / "profiles" / "machine")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("a file")
    with pytest.raises(OutputError, match=r"profiles.machine"):
        serde.refuse_unwritable(tmp_path / "profiles" / "machine")


def test_profile_is_plain_json_with_its_schema_version(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.json", profile(measurement()))
    document = json.loads((tmp_path / "p.json").read_text())
    assert document["schema_version"] == SCHEMA_VERSION
    planes = zlib.decompress(base64.b64decode(document["measurements"][0]["replicates"][0]["samples"]))
    samples = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<u8")  # as docs/benchmarking.md says
    assert samples.ravel().tolist() == [2_000_000] * 300
