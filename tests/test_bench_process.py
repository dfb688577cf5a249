from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mbexport import errors
from mbexport.bench.plan import Cell, WorkerPlan
from mbexport.bench.process import COMMAND, run_worker
from mbexport.child import Failure
from mbexport.samples import unpacked
from tests.measured import answer
from tests.tiny import tiny_artifact

if TYPE_CHECKING:
    from pathlib import Path

CELL = Cell(artifact="nowhere", sha256="aa", target="ort:cpu", mode="parity", threads=1, batch=1)
PLAN = WorkerPlan(cell=CELL, min_samples=5, min_time_s=0.1, max_time_s=9)


def plan_of(artifact: Path, **changes: Any) -> WorkerPlan:
    cell = msgspec.structs.replace(CELL, artifact=str(artifact))
    return msgspec.structs.replace(PLAN, cell=cell, **changes)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_answer_is_what_the_process_said_and_nothing_that_it_printed_beside() -> None:
    said = answer([1, 2, 3])
    code = f"import sys; print('chatter', file=sys.stderr); print({msgspec.json.encode(said).decode()!r})"
    assert run_worker(PLAN, python(code)) == said


def test_plan_reaches_the_process() -> None:
    code = "import json, sys; p = json.load(sys.stdin); sys.exit(str(p['cell']))"
    with pytest.raises(errors.ProcessError, match=r"'target': 'ort:cpu', 'mode': 'parity', 'threads': 1"):
        run_worker(PLAN, python(code))


@pytest.mark.parametrize("kind", [errors.MissingDeviceError, errors.ArtifactError, errors.InputError])
def test_the_processes_own_errors_are_raised_again(kind: type[errors.MbexportError]) -> None:
    failure = Failure(error=kind.__name__, message="what; mend")
    with pytest.raises(errors.MbexportError, match=r"^what; mend$") as caught:
        run_worker(PLAN, python(f"print({msgspec.json.encode(failure).decode()!r})"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", r"was killed by SIGKILL \(out of memory\?\)"),
        ("import os; os._exit(7)", "ended with exit code 7$"),
        ("print('one\\ntwo'); raise ValueError('three')", "ended with exit code 1: ValueError: three"),
    ],
)
def test_a_process_that_dies_is_named_with_its_last_words(code: str, message: str) -> None:
    with pytest.raises(errors.ProcessError, match=rf"^the process that measured ort:cpu \(parity\) {message}"):
        run_worker(PLAN, python(code))


def test_ctrl_c_kills_the_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def interrupt() -> None:
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_worker(PLAN, python(code))
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def worker(plan: dict[str, Any], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, input=json.dumps(plan), capture_output=True, text=True, check=False, cwd=cwd)


def test_worker_measures_a_real_engine_from_any_folder(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('not NumPy')")
    plan = msgspec.to_builtins(plan_of(artifact.path, min_samples=50, spawned_ns=time.monotonic_ns()))
    done = worker(plan, tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    replicate = said["replicate"]
    samples_ns = unpacked(base64.b64decode(replicate["samples"]))
    assert len(samples_ns) >= 50
    assert min(samples_ns) > 0
    assert sum(samples_ns) <= len(samples_ns) / replicate["throughput_per_s"] * 1e9
    assert 0 < replicate["start_s"] < 60
    assert replicate["import_s"] > 0
    assert replicate["load_s"] > 0
    assert replicate["first_inference_s"] > 0
    assert replicate["memory_peak_bytes"] > replicate["memory_inferred_bytes"]
    assert said["precision"] == "f32"
    assert said["engine_options"]["intra_op_num_threads"] == "1"
    assert {"mbexport", "numpy", "python", "onnxruntime"} <= set(said["versions"])


def test_workers_error_comes_back_as_itself(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, model=b"not a model")
    plan = plan_of(artifact.path)
    with pytest.raises(errors.ArtifactError, match=r"model\.onnx"):
        run_worker(plan)


def test_worker_imports_nothing_heavy() -> None:
    heavy = {"tensorflow", "keras", "tf2onnx", "scipy", "onnx", "onnxruntime", "openvino", "typer", "rich"}
    code = f"import sys, mbexport.bench.worker; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_interrupted_worker_dies_quietly() -> None:
    code = (
        "import os, signal, sys; from mbexport.bench import worker;"
        "worker.measure = lambda plan: os.kill(os.getpid(), signal.SIGINT);"
        "sys.exit(worker.main())"
    )
    done = subprocess.run(python(code), input=msgspec.json.encode(PLAN), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_what_engines_print_does_not_reach_the_answer() -> None:
    code = (
        "import os, sys; from mbexport.bench import worker; from mbexport.errors import InputError\n"
        "def measure(plan):\n    print('from Python'); os.write(1, b'from C'); raise InputError('no')\n"
        "worker.measure = measure; sys.exit(worker.main())"
    )
    with pytest.raises(errors.InputError, match=r"^no$"):
        run_worker(PLAN, python(code))
