"""What the commands print: promised JSON keys, tables that fit 80 columns, exit codes of checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mbexport import hardware, pipeline, validate
from mbexport.bench import rows_of, run
from mbexport.errors import EngineError
from mbexport.export import BuildResult
from mbexport.profile import ColdStart, ThreadPlan
from mbexport.profiles import profile_path, write_profile
from mbexport_cli.app import app
from tests.measured import answer, measurement, profile, replicate
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from mbexport.bench.plan import WorkerAnswer, WorkerPlan

RANDOM = "random weights: for graph and latency only"
VALIDATION_ROW = {
    *("runtime", "mode", "precision", "placement", "sqnr_db", "max_abs_error", "top1_agreement", "threshold_db"),
    *("passed", "reason"),
}
BENCH_ROW = {
    *("runtime", "mode", "threads", "batch", "samples", "p50_s", "p90_s", "p99_s", "p50_ci_s", "load_s"),
    *("first_inference_s", "throughput_per_s", "memory_bytes", "verdict", "reasons"),
}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring processes that answer at once, with 40 samples of 2 ms each: three of them are too few for p99."""
    monkeypatch.setattr(run, "run_worker", lambda _plan: answer([2_000_000] * 40))


def broken_artifact(out: Path) -> str:
    """An artifact whose model has other weights than its reference."""
    good = TinyNetwork()
    bad = TinyNetwork(weights=good.weights | {"bias": good.weights["bias"] + np.eye(5, dtype=np.float32)[1]})
    return str(tiny_artifact(out, good, model=bad.onnx_model().SerializeToString()).path)


def test_validate_json(here: Path) -> None:
    done = invoke("validate", str(tiny_artifact(here).path), "--runtime", "ort:cpu", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["passed"] is True
    assert [row.keys() >= VALIDATION_ROW for row in document["rows"]] == [True, True]
    assert [row["mode"] for row in document["rows"]] == ["parity", "production"]
    assert [row["precision"]["requested"] for row in document["rows"]] == ["f32", "default"]
    assert [row["precision"]["effective"] for row in document["rows"]] == ["f32", "f32"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_failed_check_is_printed_and_exits_1(form: list[str], here: Path) -> None:
    done = invoke("validate", broken_artifact(here), "--runtime", "ort:cpu", *form)
    assert done.exit_code == 1
    assert done.stderr == ""
    if form:
        assert json.loads(done.stdout)["passed"] is False
    else:
        assert "FAILED" in done.stdout


@pytest.mark.usefixtures("quick_worker")
def test_bench_json(here: Path) -> None:
    done = invoke("bench", str(tiny_artifact(here).path), "--runtime", "ort:cpu", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert Path(document["profile"]).is_file()
    assert Path(document["profile"]).is_relative_to("profiles")
    assert [row["mode"] for row in document["rows"]] == ["parity", "production"]
    for row in document["rows"]:
        assert row.keys() >= BENCH_ROW
        assert row["p50_s"] == pytest.approx(0.002)
        assert row["p99_s"] is None  # 120 samples; 662 are needed


@pytest.mark.usefixtures("quick_worker")
def test_bench_text(here: Path) -> None:
    done = invoke("bench", str(tiny_artifact(here).path), "--runtime", "ort:cpu", "--threads", "1")
    assert done.exit_code == 0, done.output
    assert RANDOM in done.stdout
    latency = next(line.split() for line in done.stdout.splitlines() if line.startswith("ort:cpu"))
    assert latency[3:6] == ["2.00", "2.00", "insufficient"]
    assert "threads: 1, batch: 1" in done.stdout


@pytest.mark.usefixtures("quick_worker")
def test_bench_varies_what_it_is_told_and_fits_80_columns(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ColdStart(start_s=12.345, import_s=1.234, load_s=0.5, first_inference_s=0.25)
    monkeypatch.setattr(run, "run_cold", lambda _plan: kept)
    arguments = ["bench", str(tiny_artifact(here).path), "--runtime", "openvino:cpu", "--mode", "production", "--cold"]
    arguments += ["--threads", "1", "--threads", "2", "--batch", "1", "--batch", "16"]
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    settings = [line.split(";")[0] for line in done.stdout.splitlines() if line.startswith("threads:")]
    assert settings == [f"threads: {threads}, batch: {batch}" for threads in (1, 2) for batch in (1, 16)]
    tables = [line for line in done.stdout.splitlines() if line.startswith(("openvino:cpu", "cold", "kept", "─"))]
    assert max(map(len, tables)) <= 80
    assert "14329" in done.stdout  # 12.345 + 1.234 + 0.5 + 0.25 s until the first answer
    document = json.loads(invoke(*arguments, "--json").stdout)
    assert [(row["threads"], row["batch"]) for row in document["rows"]] == [(1, 1), (1, 16), (2, 1), (2, 16)]
    assert document["rows"][0]["prepared"]["load_s"] == 0.5
    assert document["profiles"] == {"tiny": document["profile"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], "such as 60s, 5m or 1h"),
        (["--budget", "1s"], "too small for 2 rows of 3 processes"),
        (["--mode", "fast"], "unknown --mode 'fast'"),
        (["--concurrency", "0"], "concurrency must be 1 to"),
        (["--offline", "--concurrency", "2"], "drop --concurrency or --offline"),
        (["--ops", "--offline"], "--ops watches one call at a time"),
        (["--threads", "0"], "threads must be 1 to"),
        (["--batch", "-1"], "batch must be at least 1"),
    ],
)
@pytest.mark.usefixtures("quick_worker")
def test_bench_refuses(arguments: list[str], message: str, here: Path) -> None:
    done = invoke("bench", str(tiny_artifact(here).path), "--runtime", "ort:cpu", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (here / "profiles").exists()


@pytest.fixture
def one_engine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_worker(plan: WorkerPlan) -> WorkerAnswer:
        if plan.cell.target == "openvino:cpu":
            raise EngineError("no such layer")
        return answer([2_000_000] * 40)

    monkeypatch.setattr(run, "run_worker", run_worker)


LINE = "tiny openvino:cpu parity: could not be measured: no such layer"


@pytest.mark.usefixtures("one_engine_fails")
def test_bench_of_an_engine_that_fails(here: Path) -> None:
    arguments = ["bench", str(tiny_artifact(here).path), "--runtime", "openvino:cpu"]
    both = invoke(*arguments, "--runtime", "ort:cpu", "--json")
    assert (both.exit_code, both.stderr) == (1, "")
    document = json.loads(both.stdout)
    assert Path(document["profile"]).is_file()
    assert {row["runtime"] for row in document["rows"]} == {"ort:cpu"}
    failed = {"artifact": "tiny", "runtime": "openvino:cpu", "mode": "parity", "threads": 2, "batch": 1}
    assert document["failed"][0] == {**failed, "reason": "no such layer"}
    text = invoke(*arguments, "--runtime", "ort:cpu")
    assert text.exit_code == 1
    assert LINE in text.stdout.splitlines()
    alone = invoke(*arguments, "--json")
    assert alone.exit_code == 1
    document = json.loads(alone.stdout)
    assert (document["profile"], document["rows"], len(document["failed"])) == (None, [], 2)
    assert LINE in invoke(*arguments).stdout.splitlines()


@pytest.mark.parametrize("others", [[], ["--runtime", "ort:cpu"]])
@pytest.mark.usefixtures("one_engine_fails", "here")
def test_run_with_an_engine_that_fails(others: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was built, validated and measured is told all the same."""
    monkeypatch.setattr(pipeline, "build", lambda _spec, *, out, **_: BuildResult(tiny_artifact(out), {"convert": 1.0}))
    arguments = ["run", "--variant", "small", "--runtime", "openvino:cpu", *others]
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert Path(document["build"]["model"]).is_file()
    assert document["validate"]["passed"] is True
    assert [row["runtime"] for row in document["bench"]["rows"]] == ["ort:cpu"] * len(others)
    assert {row["runtime"] for row in document["bench"]["failed"]} == {"openvino:cpu"}
    text = invoke(*arguments)
    assert text.exit_code == 1
    assert LINE in text.stdout.splitlines()
    assert "passed" in text.stdout


@pytest.mark.parametrize("command", ["validate", "bench", "run"])
def test_every_command_plans_its_threads_alike(command: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the plan's, never the engine's own; more than the plan allows is refused."""
    seen: list[int | None] = []
    plan = ThreadPlan(threads=2, most=3, reasons=["2 physical cores"])
    monkeypatch.setattr(hardware, "usable_threads", lambda: plan)
    real = validate.validate

    def watched(*arguments: Any, threads: int | None = None, **named: Any) -> Any:
        seen.append(threads)
        return real(*arguments, threads=threads, **named)

    def run_worker(plan: WorkerPlan) -> WorkerAnswer:
        seen.append(plan.cell.threads)
        return answer([2_000_000] * 40)

    monkeypatch.setattr(validate, "validate", watched)
    monkeypatch.setattr(run, "run_worker", run_worker)
    monkeypatch.setattr(pipeline, "build", lambda _spec, *, out, **_: BuildResult(tiny_artifact(out), {}))
    what = ["--variant", "small"] if command == "run" else [str(tiny_artifact(here).path)]
    wanted: list[str]
    for wanted, used in (([], 2), (["--threads", "3"], 3)):
        seen.clear()
        assert invoke(command, *what, "--runtime", "ort:cpu", *wanted).exit_code == 0
        assert set(seen) == {used}
    seen.clear()
    done = invoke(command, *what, "--runtime", "ort:cpu", "--threads", "3000")
    assert (done.exit_code, done.stdout, seen) == (2, "", [])
    assert "threads must be 1 to 3 here, not 3000" in done.stderr


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.usefixtures("quick_worker")
def test_run(passes: bool, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole road but Keras, whose place a ready artifact takes."""

    def build(_spec: Any, *, out: Path, **_: Any) -> BuildResult:
        if not passes:
            broken_artifact(out)
            from mbexport.artifact import read_artifact

            return BuildResult(read_artifact(out / "tiny"), {"convert": 1.0})
        return BuildResult(tiny_artifact(out), {"convert": 1.0})

    monkeypatch.setattr(pipeline, "build", build)
    done = invoke("run", "--variant", "small", "--runtime", "ort:cpu", "--json")
    assert done.exit_code == (0 if passes else 1), done.output
    document = json.loads(done.stdout)
    assert document.keys() == {"build", "validate", "bench"}
    keys = {"artifact", "model", "sha256", "spec", "graph", "timings_s"}
    assert document["build"].keys() >= keys
    assert document["build"]["graph"].keys() >= {"nodes", "ops", "passes"}
    assert Path(document["build"]["model"]).is_file()
    assert document["validate"]["passed"] is passes
    assert Path(document["bench"]["profile"]).is_file()
    text = invoke("run", "--variant", "small", "--runtime", "ort:cpu")
    assert text.exit_code == done.exit_code
    for words in (RANDOM, "before  after", "SQNR dB", "p50 ms", document["bench"]["profile"]):
        assert words in text.stdout


def test_build_json(small_artifact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build", lambda *_args, **_named: BuildResult(small_artifact, {"convert": 1.0}))
    document = json.loads(invoke("build", "--variant", "small", "--json").stdout)
    assert {"name", "modified", "sqnr_db", "skipped"} <= document["graph"]["passes"][0].keys()
    text = invoke("build", "--variant", "small")
    assert text.exit_code == 0
    assert RANDOM in text.stdout
    counted = [line.split() for line in text.stdout.splitlines()]
    assert ["nodes", str(document["graph"]["nodes_before"]), str(document["graph"]["nodes"])] in counted


def test_options_reach_the_build(monkeypatch: pytest.MonkeyPatch, small_artifact: Any) -> None:
    seen: dict[str, Any] = {}

    def build(spec: Any, **named: Any) -> BuildResult:
        seen.update(named, spec=spec)
        return BuildResult(small_artifact, {})

    monkeypatch.setattr(pipeline, "build", build)
    form = [
        "--layout",
        "nchw",
        "--batch",
        "4",
        "--opset",
        "15",
        "--seed",
        "7",
        "--out",
        "elsewhere",
        "--weights",
        "w.h5",
    ]
    top = ["--classes", "7", "--classifier-activation", "none", "--dropout-rate", "0.5"]
    size = ["--minimalistic", "--alpha", "0.75", "--resolution", "192x256"]
    assert invoke("build", "--variant", "large", *size, *top, *form).exit_code == 0
    spec, export = seen["spec"], seen["export"]
    assert (spec.variant, spec.minimalistic, spec.alpha) == ("large", True, 0.75)
    assert (spec.height, spec.width, spec.classes) == (192, 256, 7)
    assert (spec.include_top, spec.pooling, spec.classifier_activation) == (True, "none", "none")
    assert spec.dropout_rate == 0.5
    assert (export.layout, export.batch, export.opset) == ("nchw", 4, 15)
    assert (seen["weights"], seen["seed"], seen["out"]) == ("w.h5", 7, Path("elsewhere"))
    assert invoke("build", "--variant", "large", "--no-include-top", "--pooling", "avg").exit_code == 0
    assert (seen["spec"].include_top, seen["spec"].pooling) == (False, "avg")


def test_latency_table_fits_80_columns(here: Path) -> None:
    few = [replicate([1_234_567_890] * 10)]
    slow = [measurement(runtime="openvino:gpu.1", mode="production", precision="bf16", replicates=few)]
    [row] = rows_of(profile(*slow))
    write_profile(profile_path(here / "profiles", profile().hardware, "tiny"), profile(*slow))
    done = invoke("profile", "show", "tiny")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("openvino:gpu.1")]
    assert line.split() == ["openvino:gpu.1", "production", "bf16", "1234.57", "insufficient", "insufficient", "ok"]
    assert len(line) <= 80
    assert row.p90_s is None


def test_profile_show_says_which_is_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mbexport import profiles

    monkeypatch.setattr(profiles, "shipped_profiles_dir", lambda: here / "shipped")
    write_profile(profile_path(here / "shipped", profile().hardware, "one"), profile(measurement(), artifact="one"))
    write_profile(profile_path(here / "profiles", profile().hardware, "two"), profile(measurement(), artifact="two"))
    text = invoke("profile", "show").stdout
    kinds = {f"shipped with mbexport: {here / 'shipped'}": "one", "measured here: profiles": "two"}
    for kind, artifact in kinds.items():
        _, _, rest = text.partition(kind)
        assert rest.splitlines()[2] == artifact
    document = json.loads(invoke("profile", "show", "--json").stdout)
    assert {(entry["artifact"], entry["shipped"]) for entry in document["profiles"]} == {("one", True), ("two", False)}
    assert json.loads(invoke("profile", "show", "tw", "--json").stdout)["profiles"][0]["artifact"] == "two"
    assert "one" not in invoke("profile", "show", "two").stdout.splitlines()


def test_info_of_one() -> None:
    document = json.loads(invoke("info", "--variant", "small", "--json").stdout)
    assert document.keys() >= {"spec", "parameters", "macs", "published"}
    assert document["spec"]["variant"] == "small"
    # timm counts 2.54 M, moving statistics left out.
    assert document["trainable_parameters"] / 1e6 == pytest.approx(2.54, abs=0.005)
    assert document == json.loads(invoke("info", "--model", "tf_mobilenetv3_small_100", "--json").stdout)


def test_info_of_the_six() -> None:
    text = invoke("info").stdout
    published = {
        "mobilenet_v3_large_1.0_224": ("5.4", "217"),
        "mobilenet_v3_large_0.75_224": ("4.0", "155"),
        "mobilenet_v3_large_minimalistic_1.0_224": ("3.9", "209"),
        "mobilenet_v3_small_1.0_224": ("2.9", "66"),
        "mobilenet_v3_small_0.75_224": ("2.4", "44"),
        "mobilenet_v3_small_minimalistic_1.0_224": ("2.0", "65"),
    }
    for name, (parameters, macs) in published.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert (line.split()[2], line.split()[4]) == (parameters, macs)
        assert len(line) <= 80
    wrong = [line for line in text.splitlines() if "parameters do not hold" in line]
    assert [line.partition(":")[0] for line in wrong] == ["mobilenet_v3_small_1.0_224", "mobilenet_v3_small_0.75_224"]


def test_list() -> None:
    names = [entry["name"] for entry in json.loads(invoke("list", "--json").stdout)["models"]]
    text = invoke("list").stdout
    assert all(name in text for name in [*names, "tf_mobilenetv3_large_minimal_100"])
    assert all(invoke("info", "--model", name, "--json").exit_code == 0 for name in names)


COMMANDS = [
    ["run"],
    ["build"],
    ["validate"],
    ["compare"],
    ["bench"],
    ["evaluate"],
    ["predict"],
    ["profile"],
    ["profile", "show"],
    ["list"],
    ["info"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example(command: list[str]) -> None:
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    last = [line.strip() for line in done.stdout.splitlines() if line.strip()][-1]
    assert last.startswith("Example: mbexport " + " ".join(command))


def test_version() -> None:
    from importlib.metadata import version

    assert invoke("--version").stdout == f"mbexport {version('mbexport')}\n"
