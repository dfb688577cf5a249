"""``build`` and ``run`` where a pass goes wrong, what ``-v`` shows of the passes, and ``--verify-reproducible``."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner, Result

from mbexport import build as keras_side
from mbexport import child, graph, pipeline, reproduce
from mbexport.artifact import read_artifact
from mbexport.errors import ConversionError
from mbexport.export import BuildResult
from mbexport.graph import PassStep
from mbexport.graph.opset import newest_opset
from mbexport.manifest import PassReport
from mbexport.reproduce import Reproduction
from mbexport.spec import ModelSpec
from mbexport.validate import validate
from mbexport_cli import render
from mbexport_cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbexport.artifact import Artifact

SPEC = ModelSpec(variant="small", alpha=0.35, height=32, width=32, classes=4)
ARGUMENTS = ["--variant", "small", "--alpha", "0.35", "--resolution", "32", "--classes", "4"]
REASON = "predictions: SQNR"


class ScaleKernels(ir.passes.InPlacePass):
    """A wrong pass: every kernel is a hundredth too large."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for value in model.graph.initializers.values():
            if value.const_value is not None and len(value.const_value.shape) == 4:
                value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)
        return ir.passes.PassResult(model, modified=True)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def one_network() -> Iterator[None]:
    """Keras builds each network once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_side, "build_model", functools.cache(keras_side.build_model))
        yield


@pytest.fixture
def wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "PASSES", (*graph.PASSES[:-1], ScaleKernels, graph.PASSES[-1]))


@pytest.mark.usefixtures("wrong_pass")
def test_wrong_pass_is_rolled_back_and_named_and_the_build_goes_on(here: Path) -> None:
    done = invoke("build", *ARGUMENTS, "--json", "-v")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    skipped = {entry["name"]: entry["skipped"] for entry in document["graph"]["passes"] if entry["skipped"]}
    assert list(skipped) == ["ScaleKernels"]
    assert skipped["ScaleKernels"].startswith(REASON)
    assert validate(read_artifact(Path(document["artifact"])), ["ort:cpu"]).passed
    assert_passes_are_told(done.stderr, document)


def assert_passes_are_told(stderr: str, document: Any) -> None:
    """Start, one block per pass in order, end; nothing but the passes is that wide."""
    lines = stderr.splitlines()
    heads = [line for line in lines if line[:1].isdigit()]
    entries = document["graph"]["passes"]
    numbered = [f"{number}/{len(entries)} {entry['name']}: " for number, entry in enumerate(entries, start=1)]
    assert [head.startswith(start) for head, start in zip(heads, numbered, strict=True)] == [True] * len(entries)
    wrong = next(head for head in heads if "ScaleKernels" in head)
    assert f"ScaleKernels: rolled back: {REASON}" in wrong
    assert f"converted graph: {document['graph']['nodes_before']} nodes" in lines
    assert f"final graph: {document['graph']['nodes']} nodes" in lines
    first = lines.index(f"converted graph: {document['graph']['nodes_before']} nodes")
    last = lines.index(f"final graph: {document['graph']['nodes']} nodes")
    assert max(len(line) for line in lines[first:last]) <= 80


@pytest.mark.usefixtures("wrong_pass")
def test_strict_library_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"^pass ScaleKernels was rolled back \({REASON} [\d.]+ dB is below"):
        pipeline.build(SPEC, out=tmp_path, strict=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["build", "run"])
@pytest.mark.usefixtures("wrong_pass")
def test_strict_exits_1_and_leaves_no_artifact(command: str, here: Path) -> None:
    more = ["--runtime", "ort:cpu"] if command == "run" else []
    done = invoke(command, *ARGUMENTS, "--strict", "--json", *more)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: pass ScaleKernels was rolled back ({REASON} ")
    assert list(here.rglob("*")) == []


def test_strict_leaves_an_older_artifact_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("build", *ARGUMENTS, "--strict").exit_code == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in here.rglob("*.*") if path.is_file()}
    assert len(before) == 4
    monkeypatch.setattr(graph, "PASSES", (ScaleKernels, *graph.PASSES))
    assert invoke("build", *ARGUMENTS, "--strict", "--seed", "1").exit_code == 1
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in here.rglob("*.*") if path.is_file()
    } == before


@pytest.mark.parametrize("wanted", [12, newest_opset() + 1, 99])
@pytest.mark.parametrize("command", ["build", "run"])
def test_opset_out_of_range_is_bad_input(command: str, wanted: int, here: Path) -> None:
    done = invoke(command, *ARGUMENTS, "--opset", str(wanted))
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    limit = "at least 13" if wanted < 13 else f"between 13 and {newest_opset()}"
    assert line.startswith("error: opset must")
    assert f"{limit}, not {wanted}" in line
    assert list(here.rglob("*")) == []


def with_rollback(artifact: Artifact) -> BuildResult:
    from msgspec.structs import replace

    report = artifact.manifest.graph
    entry = PassReport(name="FoldNothing", modified=False, skipped="SQNR 3.0 dB is below 99.0 dB")
    manifest = replace(artifact.manifest, graph=replace(report, passes=[*report.passes, entry]))
    from mbexport.artifact import Artifact

    return BuildResult(Artifact(artifact.path, manifest), {"convert": 1.0})


@pytest.mark.parametrize("command", ["build", "run"])
def test_text_names_what_was_rolled_back(
    command: str, small_artifact: Artifact, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbexport.bench import run as bench_run
    from tests.measured import answer

    monkeypatch.setattr(pipeline, "build", lambda *_args, **_named: with_rollback(small_artifact))
    monkeypatch.setattr(bench_run, "run_worker", lambda _plan: answer([2_000_000] * 40))
    more = ["--runtime", "ort:cpu"] if command == "run" else []
    done = invoke(command, *ARGUMENTS, *more)
    assert done.exit_code == 0, done.output
    assert "FoldNothing was rolled back: SQNR 3.0 dB is below 99.0 dB" in done.stdout.splitlines()
    if command == "build":
        (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("FoldNothing  ")]
        assert row == ["FoldNothing", "rolled", "back", "-"]


BEFORE = {"Transpose": 192, "Conv": 64, "Pad": 4}


def told(report: PassReport, after: dict[str, int], error: Exception | None = None, number: int = 2) -> list[str]:
    return list(render.pass_step(PassStep(number, 3, report, BEFORE, after, error)))


def test_block_of_a_pass_that_changed_something() -> None:
    report = PassReport(name="Sink", modified=True, sqnr_db=131.26)
    after = {"Conv": 64, "Transpose": 1, "Mul": 2}
    assert told(report, after) == [
        "2/3 Sink: 260 -> 67 nodes, outputs SQNR 131.3 dB",
        "  Transpose 192 -> 1, Pad 4 -> 0, Mul 0 -> 2",
    ]
    exact = PassReport(name="Name", modified=True)
    assert told(exact, BEFORE) == ["2/3 Name: 260 -> 260 nodes, outputs bit-equal", "  the same operators"]


def test_block_of_a_pass_with_nothing_to_do() -> None:
    assert told(PassReport(name="Sink", modified=False), BEFORE) == ["2/3 Sink: nothing to do"]


def test_whole_graph_stands_before_the_first_pass_and_after_the_last() -> None:
    idle = PassReport(name="Sink", modified=False)
    whole = ["graph: 260 nodes", "  Transpose 192, Conv 64, Pad 4"]
    assert told(idle, BEFORE, number=1) == [f"converted {whole[0]}", whole[1], "1/3 Sink: nothing to do"]
    assert told(idle, BEFORE, number=3) == ["3/3 Sink: nothing to do", f"final {whole[0]}", whole[1]]
    rolled_back = PassReport(name="Sink", modified=False, skipped="no")
    assert told(rolled_back, {"Conv": 1}, number=3)[-2:] == [f"final {whole[0]}", whole[1]]


def test_block_of_a_pass_that_moved_the_result() -> None:
    report = PassReport(name="Fold", modified=False, sqnr_db=60.0, skipped="y: SQNR 60.0 dB is below 99.4 dB")
    assert told(report, {"Transpose": 192, "Conv": 60}) == [
        "2/3 Fold: rolled back: y: SQNR 60.0 dB is below 99.4 dB",
        "  it had made 260 -> 252 nodes: Conv 64 -> 60, Pad 4 -> 0",
    ]


def test_block_of_a_pass_that_crashed_shows_where() -> None:
    def crash() -> None:
        raise ValueError("does not apply")

    try:
        crash()
    except ValueError as error:
        lines = told(PassReport(name="Fold", modified=False, skipped="does not apply"), BEFORE, error)
    assert lines[:2] == ["2/3 Fold: rolled back: does not apply", "  it had made 260 -> 260 nodes: the same operators"]
    assert any("in crash" in line for line in lines)
    assert lines[-1] == "  ValueError: does not apply"


def test_block_of_a_pass_that_declined() -> None:
    report = PassReport(name="Fold", modified=False, declined="the graph has bodies")
    assert told(report, BEFORE) == ["2/3 Fold: declined: the graph has bodies"]


def test_blocks_fit_80_columns_and_keep_names_and_counts_together() -> None:
    many = {f"Operator{number}": number + 100 for number in range(30)}
    steps = [
        PassStep(1, 1, PassReport(name="Fold", modified=True), many, {"Conv": 1}),
        PassStep(1, 1, PassReport(name="Fold", modified=False, skipped="word " * 40), many, many),
    ]
    for step in steps:
        lines = list(render.pass_step(step))
        assert max(map(len, lines)) <= 80
        assert not any(line.strip()[0].isdigit() and not line.startswith("1/1") for line in lines)
        assert not any(line.rstrip().endswith("->") for line in lines)


@pytest.fixture
def built(small_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(pipeline, "build", lambda *_args, **_named: BuildResult(small_artifact, {"convert": 1.0}))
    return small_artifact


OTHER = "f" * 64
ARGUMENTS_AGAIN = ["build", "--variant", "small", "--verify-reproducible"]


def test_other_bytes_exit_1_and_both_digests_are_named(built: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Reproduction(sha256=OTHER, passed=False, difference="first difference: node Conv")
    monkeypatch.setattr(reproduce, "rebuild", lambda *_: found)
    done = invoke(*ARGUMENTS_AGAIN, "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["sha256"] == built.sha256
    assert document["reproducible"] == {
        "sha256": OTHER,
        "passed": False,
        "difference": "first difference: node Conv",
    }
    text = invoke(*ARGUMENTS_AGAIN)
    assert text.exit_code == 1
    for words in (built.sha256, OTHER, "first difference: node Conv"):
        assert words in text.stdout


def test_same_bytes_are_said(built: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def rebuild(artifact: Artifact, weights: str) -> Reproduction:
        seen.append((artifact, weights))
        return Reproduction(sha256=artifact.sha256, passed=True)

    monkeypatch.setattr(reproduce, "rebuild", rebuild)
    done = invoke(*ARGUMENTS_AGAIN, "--weights", "w.h5")
    assert done.exit_code == 0
    assert f"built again with the same bytes: sha256 {built.sha256}" in done.stdout.splitlines()
    assert seen == [(built, "w.h5")]


@pytest.mark.usefixtures("built")
def test_nobody_who_did_not_ask_waits_for_a_second_build() -> None:
    assert "reproducible" not in json.loads(invoke("build", "--variant", "small", "--json").stdout)


@pytest.mark.parametrize("command", ["build", "run"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.usefixtures("here")
def test_both_commands_hand_on_what_was_asked(
    command: str, strict: bool, verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_spec: ModelSpec, **named: Any) -> BuildResult:
        assert named["strict"] is strict
        assert (named["observe"] is not None) is verbose
        raise ConversionError("seen")

    monkeypatch.setattr(pipeline, "build", build)
    more = ["--runtime", "ort:cpu"] if command == "run" else []
    done = invoke(command, *ARGUMENTS, *more, *["--strict"] * strict, *["-v"] * verbose)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "error: seen"


@pytest.mark.parametrize("verbose", [True, False])
def test_chatter_of_the_second_build_is_told_when_asked_for(
    verbose: bool, built: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; print('CHATTER', file=sys.stderr); sys.exit(7)"
    monkeypatch.setattr(child, "python_module", lambda _name: (sys.executable, "-c", code))
    done = invoke(*ARGUMENTS_AGAIN, "--json", *["-v"] * verbose)
    assert (done.exit_code, done.stdout) == (1, "")
    told = "error: the process that built it again ended with exit code 7: CHATTER"
    assert done.stderr.splitlines()[-1] == told
    assert ("the process that built it again: CHATTER" in done.stderr.splitlines()) is verbose
