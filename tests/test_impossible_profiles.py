"""Profiles that can be read and cannot be true, and folders that are not what was asked for: said, never used."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner, Result

from mbexport import hardware, profiles
from mbexport.bench import Settings, bench
from mbexport.bench import run as bench_run
from mbexport.bench.settings import cells_of
from mbexport.errors import DocumentError, InputError
from mbexport.profile import ColdStart, Conditions, ThreadPlan
from mbexport.profiles import LONGEST_SAMPLE_NS, list_published, profile_path, read_profile, write_profile
from mbexport_cli.app import app
from tests.measured import HARDWARE, answer, measurement, profile, replicate
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from mbexport.bench.plan import WorkerAnswer, WorkerPlan
    from mbexport.profile import Hardware, Measurement

GOOD = replicate([2_000_000] * 30)
THREADS = ThreadPlan(threads=2, most=4, reasons=["2 physical cores"])
LARGER = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)
HUGE = 1e308


def of(*replicates: Any, **changes: Any) -> Measurement:
    return measurement(replicates=[*replicates], **changes)


def with_replicate(**changes: Any) -> Measurement:
    return of(GOOD, msgspec.structs.replace(GOOD, **changes))


IMPOSSIBLE_SAMPLES = {
    "no samples": [of(replicate([]))],
    "one process without samples": [of(GOOD, replicate([]))],
    "all samples 0": [of(replicate([0] * 30))],
    "one process of zeros": [of(GOOD, replicate([0] * 30))],
    "one sample 0": [of(replicate([2_000_000, 0]))],
    "longer than an hour": [of(replicate([LONGEST_SAMPLE_NS + 1]))],
    "2^64 - 1": [of(replicate([2**64 - 1]))],
    "of the second row": [of(GOOD), of(replicate([0]), threads=2)],
    "on the device": [of(replicate([2_000_000], device_samples=replicate([0]).samples))],
    "none on the device": [of(replicate([2_000_000], device_samples=replicate([]).samples))],
    "damaged on the device": [of(replicate([2_000_000], device_samples=b"x"))],
}
IMPOSSIBLE_FIGURES = {
    "no process": [of()],
    "throughput 0": [with_replicate(throughput_per_s=0.0)],
    "throughput below 0": [with_replicate(throughput_per_s=-5.0)],
    "throughput beyond all": [with_replicate(throughput_per_s=HUGE)],
    "throughput that divides to infinity": [with_replicate(throughput_per_s=5e-324)],
    "load below 0": [with_replicate(load_s=-1.0)],
    "load beyond all": [with_replicate(load_s=HUGE)],
    "not a number": [with_replicate(load_s=float("nan"))],
    "import below 0": [with_replicate(import_s=-1e-9)],
    "first inference below 0": [with_replicate(first_inference_s=-1e-9)],
    "start below 0": [with_replicate(start_s=-1.0)],
    "prepared start below 0": [of(GOOD, prepared=[ColdStart(import_s=0, load_s=-1, first_inference_s=0)])],
    "warm-up below 0": [with_replicate(warmup_runs=-1)],
    "peak memory below 0": [with_replicate(memory_peak_bytes=-1)],
    "more steal than time": [with_replicate(after=Conditions(steal_share=1.5))],
    "a clock below 0": [with_replicate(before=Conditions(frequency_hz=-1.0))],
    "batch 0": [of(GOOD, batch=0)],
    "batch below 0": [of(GOOD, batch=-1)],
    "threads 0": [of(GOOD, threads=0)],
    "threads below 0": [of(GOOD, threads=-2)],
    "more threads than a number holds": [of(GOOD, threads=2**63)],
    "no caller": [of(GOOD, concurrency=0)],
    "no picture": [of(GOOD, input_size=(0, 224))],
    "nodes below 0": [of(GOOD, placement={"cpu": -1})],
    "a plan of no threads": [of(GOOD, thread_plan=ThreadPlan(threads=0, most=4, reasons=[]))],
}


@pytest.mark.parametrize("rows", IMPOSSIBLE_SAMPLES.values(), ids=IMPOSSIBLE_SAMPLES)
def test_impossible_samples_are_refused_with_the_row(rows: list[Measurement], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, profile(*rows))
    with pytest.raises(DocumentError, match=r"p\.json: ort:cpu parity: .*; measure again"):
        read_profile(path)


@pytest.mark.parametrize("rows", IMPOSSIBLE_FIGURES.values(), ids=IMPOSSIBLE_FIGURES)
def test_impossible_figures_are_refused_by_the_types_and_by_the_schema(rows: list[Measurement], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, profile(*rows))
    with pytest.raises(DocumentError, match=r"p\.json does not fit its schema: .* `\$\.measurements\[0\]"):
        read_profile(path)
    document = json.loads(path.read_text())
    with pytest.raises(jsonschema.ValidationError):
        schema().validate(document)


def schema() -> jsonschema.Draft202012Validator:
    text = (Path(__file__).parents[1] / "docs" / "profile.schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def test_what_is_just_possible_is_read(tmp_path: Path) -> None:
    """The quickest and the slowest call, memory given back while loading, and a process that started in no time."""
    edge = replicate(
        [1, LONGEST_SAMPLE_NS], start_s=0.0, load_s=0.0, memory_loaded_bytes=-4096, after=Conditions(steal_share=1.0)
    )
    stored = profile(of(edge))
    write_profile(tmp_path / "p.json", stored)
    assert read_profile(tmp_path / "p.json") == stored
    schema().validate(json.loads((tmp_path / "p.json").read_text()))


@pytest.mark.parametrize("latency_s", [0, -1, HUGE])
def test_a_published_latency_that_none_can_be_is_refused(latency_s: float, tmp_path: Path) -> None:
    row = {"artifact": "tiny", "latency_s": latency_s, "source": "a page"}
    document = {"schema_version": 1, "kind": "published, not measured", "device": "a phone", "rows": [row]}
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "phone.json").write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=r"phone\.json does not fit its schema"):
        list_published([tmp_path])


COMMANDS = (
    ["show"],
    ["report"],
    ["predict", "--variant", "small"],
    ["recommend", "--budget-ms", "5"],
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on the machine of the made-up measurements, and one network that is shipped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "detect", lambda: HARDWARE)
    monkeypatch.setattr(hardware, "usable_threads", lambda: THREADS)
    monkeypatch.setattr(profiles, "shipped_profiles_dir", lambda: tmp_path / "shipped")
    put(tmp_path / "shipped", of(GOOD), artifact="shipped")
    return tmp_path


def put(top: Path, *rows: Measurement, artifact: str = "tiny", machine: Hardware = HARDWARE, **changes: Any) -> Path:
    path = profile_path(top, machine, artifact)
    write_profile(path, profile(*rows, artifact=artifact, hardware=machine, **changes))
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("rows", [IMPOSSIBLE_SAMPLES["all samples 0"], IMPOSSIBLE_FIGURES["throughput 0"]])
def test_every_question_says_that_a_profile_is_impossible(
    rows: list[Measurement], command: list[str], here: Path
) -> None:
    put(here / "profiles", *rows)
    refused(invoke(*command, "--json"), "tiny.json")


def refused(done: Result, *words: str) -> None:
    """Exit 2, nothing on stdout and one line on stderr."""
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_named_folder_that_is_not_there_is_refused(command: list[str], here: Path) -> None:
    refused(invoke(*command, "--profiles", "absent", "--json"), "no folder absent")
    (here / "file").write_text("")
    refused(invoke(*command, "--profiles", "file", "--json"), "no folder file")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_one_machines_folder_is_refused_with_what_to_name_instead(command: list[str], here: Path) -> None:
    folder = put(here / "own", of(GOOD)).parent
    refused(invoke(*command, "--profiles", str(folder), "--json"), f"--profiles {here / 'own'}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[1], COMMANDS[3]], ids=lambda command: command[0])
def test_the_default_folder_may_be_absent(command: list[str]) -> None:
    done = invoke(*command, "--json")
    assert done.exit_code in {0, 1}  # 1: no network of a known accuracy
    assert (json.loads(done.stdout) is not None, done.stderr) == (True, "")


@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[1], COMMANDS[3]], ids=lambda command: command[0])
def test_a_named_folder_that_answers_nothing_is_told(command: list[str], here: Path) -> None:
    (here / "empty").mkdir()
    done = invoke(*command, "--profiles", "empty", "--json")
    assert json.loads(done.stdout) is not None
    assert done.stderr.splitlines() == ["nothing of this is from empty: the profiles are those shipped with mbexport"]
    put(here / "own", of(GOOD), artifact="shipped")
    assert invoke(*command, "--profiles", "own", "--json").stderr == ""


def test_a_named_folder_of_another_machine_only_is_told(here: Path) -> None:
    """This machine's profiles are shipped, so they answer."""
    put(here / "own", of(GOOD), machine=msgspec.structs.replace(HARDWARE, cpu="Another"))
    done = invoke("recommend", "--budget-ms", "5", "--profiles", "own")
    assert "nothing of this is from own" in done.stderr


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[WorkerPlan]:
    """What was measured, by processes that are none."""
    plans: list[WorkerPlan] = []

    def work(plan: WorkerPlan) -> WorkerAnswer:
        plans.append(plan)
        return answer([2_000_000] * 138)

    monkeypatch.setattr(bench_run, "run_worker", work)
    return plans


ONE_ROW = Settings(threads=[1], modes=["parity"])


def test_bench_keeps_the_rows_of_another_machine_of_the_same_name(here: Path, measured: list[WorkerPlan]) -> None:
    """Also where it is another network's profile: one folder is one machine."""
    path = put(here / "profiles", of(GOOD), of(GOOD, threads=2), artifact="another", machine=LARGER)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"16\.0 GiB; here 8\.0 GiB\).* memory_bytes; choose another --profiles"):
        bench([tiny_artifact(here)], ["ort:cpu"], ONE_ROW, profiles=here / "profiles")
    assert measured == []
    assert path.read_bytes() == before


def test_bench_finds_an_impossible_profile_before_it_measures(here: Path, measured: list[WorkerPlan]) -> None:
    put(here / "profiles", of(replicate([0])))
    with pytest.raises(DocumentError, match="1 ns to an hour, not 0 ns"):
        bench([tiny_artifact(here)], ["ort:cpu"], ONE_ROW, profiles=here / "profiles")
    assert measured == []


def test_two_builds_of_one_name_are_refused_before_measuring(here: Path, measured: list[WorkerPlan]) -> None:
    one, other = tiny_artifact(here / "a"), tiny_artifact(here / "b", TinyNetwork(("logits",)))
    assert one.sha256 != other.sha256
    with pytest.raises(InputError, match=r"--profiles DIR of its own") as caught:
        bench([one, other], ["ort:cpu"], ONE_ROW, profiles=here / "profiles")
    assert str(one.path) in str(caught.value)
    assert str(other.path) in str(caught.value)
    assert measured == []


def test_an_artifact_counts_once_by_whatever_path_it_is_named(here: Path, measured: list[WorkerPlan]) -> None:
    one = tiny_artifact(here / "a")
    shutil.copytree(one.path, here / "copy")
    names = [one, replace(one, path=one.path / ".." / one.path.name), replace(one, path=here / "copy")]
    [cell] = cells_of(names, ["ort:cpu"], ONE_ROW, THREADS)
    assert Path(cell.artifact) == one.path
    report = bench(names, ["ort:cpu"], ONE_ROW, profiles=here / "profiles")
    assert len(report.rows) == 1
    assert {plan.cell for plan in measured} == {cell}
